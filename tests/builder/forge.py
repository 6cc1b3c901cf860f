"""Images made by hand from encoded instructions, and comparisons of them told rather than found: for forms that compilers seldom emit.

The project's own PE writer makes them; their functions and data are named by COFF symbols.
"""

from __future__ import annotations

from dataclasses import dataclass

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Machine, Redirect
from hotpatch.differ import DatumMatch, FunctionMatch, ImageDiff, Verdict
from hotpatch.image import BaseIdentity, Function, FunctionSource, Image, Range, SectionFlags
from hotpatch.patch import (
    Carried,
    CarriedKind,
    Fixup,
    PatchContents,
    PatchedFunction,
    PatchSection,
    Provenance,
    Space,
    write_patch,
)

TEXT, DATA = 0x1000, 0x3000
FILLER = {Machine.X64: b"\xcc", Machine.ARM64: bytes(4)}
_CODE = SectionFlags.CODE | SectionFlags.EXECUTE | SectionFlags.READ
_DATA = SectionFlags.INITIALIZED_DATA | SectionFlags.READ | SectionFlags.WRITE


@dataclass(frozen=True)
class Code:
    """A function: name, offset in the code section, bytes in hexadecimal."""

    name: str
    at: int
    code: str


@dataclass(frozen=True)
class Data:
    """A datum: name, offset in the data section, bytes in hexadecimal."""

    name: str
    at: int
    content: str


def forge(machine: Machine, functions: list[Code], data: list[Data] = [], pointers: dict[int, int] | None = None) -> Image:  # noqa: B006
    """An image; ``pointers``: RVA of a 64-bit pointer in the data section → RVA that it leads to."""
    size = -(-max(item.at + len(bytes.fromhex(item.code)) for item in functions) // 16) * 16 + 32
    text = bytearray(FILLER[machine] * (size // len(FILLER[machine])))
    for item in functions:
        raw = bytes.fromhex(item.code)
        text[item.at : item.at + len(raw)] = raw
    content = bytearray(max([16, *(item.at + len(bytes.fromhex(item.content)) for item in data)]))
    for datum in data:
        raw = bytes.fromhex(datum.content)
        content[datum.at : datum.at + len(raw)] = raw
    for site, target in (pointers or {}).items():
        content[site - DATA : site - DATA + 8] = (0x180000000 + target).to_bytes(8, "little")
    rows = [PatchedFunction(item.name, Rva(1), Rva(TEXT + item.at), 1, Redirect.HPAT, "", b"", b"") for item in functions]
    named = [Carried(item.name, Rva(DATA + item.at), 8, CarriedKind.DATA) for item in data]
    fixups = [Fixup(FixupKind.ADDR64, Rva(site), Space.PATCH, Rva(target), 0) for site, target in sorted((pointers or {}).items())]
    contents = PatchContents(
        machine,
        BaseIdentity(1, 1, 1, "", ""),
        bytes(52),
        1,
        tuple(rows),
        tuple(named),
        tuple(fixups),
        (),
        Provenance("", "", "", "", ""),
        (),
        (
            PatchSection(".text", Rva(TEXT), len(text), bytes(text), _CODE),
            PatchSection(".data", Rva(DATA), len(content), bytes(content), _DATA),
        ),
    )
    image = Image.from_bytes(write_patch(contents), "forged.dll")
    starts = [(item.name, TEXT + item.at, len(bytes.fromhex(item.code))) for item in functions]
    ranges = {name: Range(Rva(start), Rva(start + size)) for name, start, size in starts}
    # functions of exactly the bytes told: a cached property is an entry of the instance's dictionary
    image.__dict__["functions"] = tuple(
        Function(part.start, (part,), (name,), FunctionSource.COFF) for name, part in sorted(ranges.items(), key=lambda row: row[1])
    )
    return image


def told(base: Image, fixed: Image, data: dict[str, str] | None = None, **verdicts: str) -> ImageDiff:
    """A comparison by names: functions are relocated unless ``verdicts`` says otherwise; ``data`` pairs base names with fixed ones."""
    here = {function.name: function for function in fixed.functions}
    rows = []
    for function in base.functions:
        verdict = Verdict(verdicts.get(function.name or "", "relocated"))
        rows.append(FunctionMatch(function, None if verdict is Verdict.REMOVED else here[function.name], verdict, "name", 1.0))
    known = {function.name for function in base.functions}
    rows += [FunctionMatch(None, function, Verdict.ADDED, "", 0.0) for function in fixed.functions if function.name not in known]
    places = [{datum.name: datum.rva for datum in image.data_symbols} for image in (base, fixed)]
    pairs = [(places[0][one], places[1][other]) for one, other in (data or {}).items()]
    matches = [DatumMatch(one, other, 8, "name", True) for one, other in sorted(pairs, key=lambda pair: pair[1])]
    return ImageDiff(base, fixed, tuple(rows), tuple(matches), ())
