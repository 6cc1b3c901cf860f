"""A base image made by hand: as many functions as wanted, each returning its own number, and hand-made patches for it."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Machine, Redirect, architecture
from hotpatch.image import Image
from hotpatch.image.model import SectionFlags
from hotpatch.patch import Fixup, Patch, PatchedFunction, PatchImport, Provenance, Space, Terms
from hotpatch.patch.pe import PatchContents, PatchSection, write_patch
from hotpatch.patch.reader import loads

PREFERRED = 0x140000000
TEXT = 0x1000
STRIDE = 48
"""Bytes from one function to the next; the last 16 are padding."""
BODY = 32
NUMBERS = {Machine.X64: 0x8664, Machine.ARM64: 0xAA64}
FILLER = {Machine.X64: b"\xcc", Machine.ARM64: b"\x00"}
CODE = SectionFlags.CODE | SectionFlags.READ | SectionFlags.EXECUTE
DATA = SectionFlags.INITIALIZED_DATA | SectionFlags.READ | SectionFlags.WRITE


def returning(machine: Machine, value: int) -> bytes:
    """A function of several short instructions that returns ``value``."""
    if machine is Machine.X64:
        return b"\x48\x83\xec\x28" + b"\xb8" + struct.pack("<I", value) + b"\x48\x83\xc4\x28" + b"\xc3"
    low, high = value & 0xFFFF, value >> 16
    return struct.pack("<5I", 0xD10083FF, 0x52800000 | low << 5, 0x72A00000 | high << 5, 0x910083FF, 0xD65F03C0)


def base_image(machine: Machine, count: int = 8, stamp: int = 0x5EED0001, absolute: bool = False, first: int = 0) -> Image:
    """``count`` functions; function ``i`` returns ``first + i``.

    ``absolute``: function 0 (x64) begins with a relocated 64-bit immediate.
    """
    text = bytearray()
    for index in range(count):
        body = returning(machine, first + index)
        if absolute and index == 0:
            body = b"\x48\xb8" + struct.pack("<Q", PREFERRED + 0x123) + b"\xc3"
        text += (FILLER[machine] * 16 + body).ljust(STRIDE, FILLER[machine])
    reloc = struct.pack("<IIHH", TEXT, 12, 0xA000 | 16 + 2, 0) if absolute else struct.pack("<II", 0, 8)
    return Image.from_bytes(_pe(machine, bytes(text), bytes(64), reloc, stamp), name="base.dll")


def entry(index: int) -> Rva:
    """RVA of function ``index``."""
    return Rva(TEXT + index * STRIDE + 16)


def _pe(machine: Machine, text: bytes, data: bytes, reloc: bytes, stamp: int) -> bytes:
    def up(value: int, to: int) -> int:
        return -(-value // to) * to

    parts = [(b".text", text, int(CODE)), (b".data", data, int(DATA)), (b".reloc", reloc, 0x42000040)]
    rva, offset, table, raw, rvas = TEXT, 0x400, b"", b"", []
    for name, content, flags in parts:
        size = up(len(content), 0x200)
        table += struct.pack("<8sIIIIIIHHI", name, len(content), rva, size, offset, 0, 0, 0, 0, flags)
        raw += content.ljust(size, b"\0")
        rvas.append(rva)
        rva, offset = rva + up(len(content), 0x1000), offset + size
    optional = struct.pack("<HBBIIIII", 0x20B, 14, 0, up(len(text), 0x200), 0x200, 0, 0, TEXT)
    optional += struct.pack(
        "<QIIHHHHHHIIIIHHQQQQII",
        PREFERRED,
        0x1000,
        0x200,
        6,
        0,
        0,
        0,
        6,
        0,
        0,
        rva,
        0x400,
        0,
        2,
        0x160,
        1 << 20,
        4096,
        1 << 20,
        4096,
        0,
        16,
    )
    directories = [(0, 0)] * 16
    directories[5] = (rvas[2], len(reloc))
    optional += b"".join(struct.pack("<II", *directory) for directory in directories)
    head = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64) + b"PE\0\0"
    head += struct.pack("<HHIIIHH", NUMBERS[machine], len(parts), stamp, 0, 0, len(optional), 0x2022)
    return (head + optional + table).ljust(0x400, b"\0") + raw


@dataclass
class Recipe:
    """A patch to be: function index → number that the new version returns."""

    base: Image
    numbers: dict[int, int]
    sequence: int = 1
    redirect: Redirect = Redirect.HPAT
    redirects: dict[int, Redirect] = field(default_factory=dict)
    calls_base: tuple[int, int] | None = None
    """(patched function, base function): the patched function jumps to the base function."""
    imports: tuple[tuple[str, str], ...] = ()
    base_name: str = "base.dll"
    name: str = "fix.dll"
    terms: Terms = field(default_factory=Terms)


def make(recipe: Recipe) -> Patch:
    """The patch of ``recipe``, written and read back."""
    base, machine = recipe.base, recipe.base.machine
    arch = architecture(machine)
    text, functions, fixups = bytearray(), [], []
    for index, number in sorted(recipe.numbers.items()):
        strategy = recipe.redirects.get(index, recipe.redirect)
        rva = Rva(0x1000 + len(text))
        code = returning(machine, number)
        if recipe.calls_base and recipe.calls_base[0] == index:
            code = b"\xe9\0\0\0\0" if machine is Machine.X64 else struct.pack("<I", 0x14000000)
            kind = FixupKind.REL32 if machine is Machine.X64 else FixupKind.BRANCH26
            site = Rva(rva + (1 if machine is Machine.X64 else 0))
            fixups.append(Fixup(kind, site, Space.BASE, entry(recipe.calls_base[1]), 0))
        before = arch.entry_site(strategy).before
        functions.append(
            PatchedFunction(
                f"f{index}",
                entry(index),
                rva,
                len(code),
                strategy,
                "changed",
                base.read(entry(index), BODY),
                base.read(Rva(entry(index) - before), before),
            )
        )
        text += code.ljust(32, FILLER[machine])
    data = Rva(0x1000 + -(-len(text) // 0x1000) * 0x1000)
    # A word of data that points at its own image, and one at the base: ADDR64 both.
    fixups.append(Fixup(FixupKind.ADDR64, data, Space.PATCH, Rva(0x1000), 0))
    fixups.append(Fixup(FixupKind.ADDR64, Rva(data + 8), Space.BASE, entry(0), 4))
    imports = tuple(PatchImport(library, name, None, Rva(data + 16 + 8 * place)) for place, (library, name) in enumerate(recipe.imports))
    contents = PatchContents(
        machine=machine,
        base=base.identity,
        base_hashes=hashlib.sha256(base.data).digest() + hashlib.sha1(base.data).digest(),
        sequence=recipe.sequence,
        functions=tuple(functions),
        carried=(),
        fixups=tuple(fixups),
        imports=imports,
        provenance=Provenance(recipe.base_name, base.sha256, "fixed.dll", "0" * 64, "test"),
        overrides=(),
        terms=recipe.terms,
        sections=(
            PatchSection(".text", Rva(0x1000), len(text), bytes(text), CODE),
            PatchSection(".data", data, 64, bytes(64), DATA),
        ),
    )
    return loads(write_patch(contents), recipe.name)
