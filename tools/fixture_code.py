"""The code of a fixture's images by function, read with pefile, purepdb and capstone and nothing of the package: a second opinion.

    python tools/fixture_code.py CASE [--machine x64] [--function F …]

prints each function of both sides whose code differs (or the functions asked for).
"""

from __future__ import annotations

import argparse
import re
import struct
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import capstone
import purepdb

if TYPE_CHECKING:
    from collections.abc import Mapping

pefile: Any = import_module("pefile")  # has no annotations
FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
X64 = 0x8664
EXCEPTION_DIRECTORY = 3
WRITABLE = 0x80000000
INITIALISERS = {"__xc_a", "__xi_a"}
"""Their arrays have a rule of their own."""
DISASSEMBLERS = {
    X64: (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
    0xAA64: (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
}
DISASSEMBLER: Any = capstone.Cs
GOES = {capstone.CS_GRP_JUMP, capstone.CS_GRP_CALL, capstone.CS_GRP_BRANCH_RELATIVE}
RIP_RELATIVE = re.compile(r"\[rip ([+-] (?:0x[0-9a-f]+|\d+))\]")
IMAGE_RELATIVE = re.compile(r"\+ 0x([0-9a-f]{4,})\]")
"""x64: a displacement past the headers, from ``__ImageBase``; no fixture has a structure as large."""
ADDRESS = re.compile(r"#?0x[0-9a-f]+$")
PAGE_OFFSET = re.compile(r"(?:\[|^\w+, )(?P<base>x\d+)(?:, #(?P<offset>(?:0x)?[0-9a-f]+))?(?=\]$|$)")
PAGE_USERS = ("ld", "st", "add")
KEEPS_REGISTER = ("st", "cmp", "cmn", "tst", "ccmp", "cb", "tb", "ldp")
"""Mnemonics whose first operand is no destination, or (ldp) restores registers in an epilogue amid the function."""


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction; ``rva`` and ``target`` are RVAs."""

    rva: int
    raw: bytes
    mnemonic: str
    operands: str
    target: int | None

    def __str__(self) -> str:
        return f"{self.rva:06x}  {self.raw.hex():<22} {self.mnemonic} {self.operands}"


@dataclass(frozen=True, slots=True)
class Code:
    """A function: its RVA, bytes and instructions, and the instructions of a range of its own that runs rarely."""

    name: str
    rva: int
    raw: bytes
    lines: tuple[Line, ...]
    cold: tuple[Line, ...] = ()

    @property
    def mnemonics(self) -> list[str]:
        """Of its instructions, in order."""
        return [line.mnemonic for line in self.lines]

    def shape(self, names: Mapping[int, str]) -> list[str]:
        """Its instructions with every address outside of the function replaced by its name, or by ``*`` where it has none."""
        pages: dict[str, int] = {}
        return [f"{line.mnemonic} {self._named(line, pages, names)}" for line in (*self.lines, *self.cold)]

    def tail(self, rva: int) -> Code | None:
        """What begins at an instruction in its middle."""
        index = next((number for number, line in enumerate(self.lines) if line.rva == rva > self.rva), None)
        return None if index is None else Code(self.name, rva, self.raw[rva - self.rva :], self.lines[index:])

    def _named(self, line: Line, pages: dict[str, int], names: Mapping[int, str]) -> str:
        operands = line.operands
        if match := RIP_RELATIVE.search(operands):
            distance = int(match[1].replace(" ", ""), 16)
            return operands.replace(match[0], f"[{names.get(line.rva + len(line.raw) + distance, '*')}]")
        if match := IMAGE_RELATIVE.search(operands):
            return operands.replace(match[0], f"+ {names.get(int(match[1], 16), '*')}]")
        if line.mnemonic in {"adrp", "adr"}:
            register, place = operands.split(", #")
            pages[register] = int(place, 16)
            return f"{register}, page" if line.mnemonic == "adrp" else f"{register}, +{pages.pop(register) - self.rva:x}"
        if line.target is not None:
            return ADDRESS.sub(self._place(line.target) or names.get(line.target, "*"), operands)
        if (match := PAGE_OFFSET.search(operands)) and match["base"] in pages and line.mnemonic.startswith(PAGE_USERS):
            address = pages[match["base"]] + int(match["offset"] or "0", 0)
            operands = operands[: match.start("base")] + names.get(address, "*")
        if not line.mnemonic.startswith(KEEPS_REGISTER):
            pages.pop(operands.split(",")[0], None)
        return operands

    def _place(self, rva: int) -> str | None:
        if self.rva < rva < self.rva + len(self.raw):
            return f"+{rva - self.rva:x}"
        return next((f"cold+{rva - self.cold[0].rva:x}" for line in self.cold if line.rva == rva), None)


@dataclass(frozen=True)
class FixtureImage:
    """An image of a fixture with its PDB."""

    path: Path

    @cached_property
    def pe(self) -> Any:  # noqa: ANN401  pefile has no annotations
        """The parsed file."""
        return pefile.PE(str(self.path))

    @cached_property
    def mapped(self) -> bytes:
        """As mapped at its preferred base."""
        return bytes(self.pe.get_memory_mapped_image())

    @cached_property
    def functions(self) -> dict[str, Code]:
        """Every function of the PDB by name."""
        engine = DISASSEMBLER(*DISASSEMBLERS[self.pe.FILE_HEADER.Machine])
        engine.detail = True
        found = {}
        with purepdb.PDB.open(str(self.path.with_suffix(".pdb"))) as pdb:
            for function in pdb.functions():
                if function.rva is None or not function.code_size:
                    continue
                raw = self.mapped[function.rva : function.rva + function.code_size]
                lines = tuple(self._line(one) for one in engine.disasm(raw, function.rva))
                for name in function.names:
                    found[name] = Code(name, function.rva, raw, lines)
        known = {line.rva for code in found.values() for line in code.lines}
        apart = {start: size for start, size in self.function_table.items() if start not in known}
        for name, code in found.items():
            for start in apart.keys() & {line.target for line in code.lines if line.target is not None}:
                cold = tuple(self._line(one) for one in engine.disasm(self.mapped[start : start + apart[start]], start))
                found[name] = replace(code, cold=cold)
        return found

    @cached_property
    def function_table(self) -> dict[int, int]:
        """Begin and size in bytes of the code of each entry of the function table; on Arm64 of those with a record only."""
        directory = self.pe.OPTIONAL_HEADER.DATA_DIRECTORY[EXCEPTION_DIRECTORY]
        raw = self.mapped[directory.VirtualAddress : directory.VirtualAddress + directory.Size]
        if self.pe.FILE_HEADER.Machine == X64:
            return {begin: end - begin for begin, end, _ in struct.iter_unpack("<III", raw)}
        records = [(begin, word) for begin, word in struct.iter_unpack("<II", raw) if not word & 3]
        return {begin: (struct.unpack_from("<I", self.mapped, record)[0] & 0x3FFFF) * 4 for begin, record in records}

    @cached_property
    def data(self) -> dict[str, int]:
        """Every datum of the PDB by name, as an RVA."""
        with purepdb.PDB.open(str(self.path.with_suffix(".pdb"))) as pdb:
            places = [(symbol.name, pdb.to_rva(symbol.segment, symbol.offset)) for symbol in pdb.data_symbols()]
        return {name: rva for name, rva in places if rva is not None}

    def pointed(self, name: str) -> list[int]:
        """Where the pointers of a constant lead, up to the next datum that has a name; RVAs."""
        start = self.data[name]
        section = next(one for one in self.pe.sections if one.contains_rva(start))
        if section.Characteristics & WRITABLE:
            return []
        end = min((rva for rva in self.data.values() if rva > start), default=section.VirtualAddress + section.Misc_VirtualSize)
        sites = [one.rva for block in getattr(self.pe, "DIRECTORY_ENTRY_BASERELOC", ()) for one in block.entries if start <= one.rva < end]
        base = self.pe.OPTIONAL_HEADER.ImageBase
        return [struct.unpack_from("<Q", self.mapped, site)[0] - base for site in sites if site + 8 <= end]

    @cached_property
    def names(self) -> dict[int, str]:
        """Functions and data by RVA."""
        return {rva: name for name, rva in self.data.items()} | {code.rva: name for name, code in self.functions.items()}

    @staticmethod
    def _line(one: capstone.CsInsn) -> Line:
        target = None
        if GOES.intersection(one.groups):
            immediates = [operand.imm for operand in one.operands if operand.type == capstone.CS_OP_IMM]
            target = immediates[-1] if immediates else None
        return Line(one.address, bytes(one.bytes), one.mnemonic, one.op_str, target)


def changed(base: FixtureImage, fixed: FixtureImage) -> dict[str, str]:
    """Functions whose instructions differ beyond addresses (``changed``), or that only one image has (``added``, ``removed``).

    Names that share an address are one function. Of several that the base has at one address and the fixed image at several, those that
    became something else are ``added`` there.
    """
    there, here = _labels(base, fixed)
    verdicts = dict.fromkeys(base.functions.keys() - fixed.functions.keys(), "removed")
    verdicts |= dict.fromkeys(fixed.functions.keys() - base.functions.keys(), "added")
    for name in base.functions.keys() & fixed.functions.keys():
        old, new = base.functions[name], fixed.functions[name]
        if there[old.rva] != here[new.rva]:
            verdicts[name] = "added"
        elif _shapes(base, old, there) != _shapes(fixed, new, here):
            verdicts[name] = "changed"
    return dict(sorted(verdicts.items()))


def _shapes(of: FixtureImage, code: Code, names: Mapping[int, str]) -> list[list[str]]:
    """The shape of a function, and of the rest of every other one that it goes on in the middle of."""
    others = {other.rva: other for other in of.functions.values() if other.rva != code.rva}.values()
    tails = [other.tail(line.target) for line in code.lines if line.target is not None for other in others]
    return [code.shape(names), *(tail.shape(names) for tail in tails if tail is not None)]


def _labels(base: FixtureImage, fixed: FixtureImage) -> tuple[dict[int, str], dict[int, str]]:
    """What to call the functions and data of each image, by RVA: the same where they are the same."""
    there, here = dict(base.names), dict(fixed.names)
    for name, old in base.functions.items():
        folded = {other for other, code in base.functions.items() if code.rva == old.rva and other in fixed.functions}
        if len({fixed.functions[other].rva for other in folded}) > 1:
            same = {other for other in folded if fixed.functions[other].shape({}) == old.shape({})}
            there[old.rva] = min(same or folded)
            here |= {fixed.functions[other].rva: there[old.rva] if other in same else other for other in folded}
        elif name in fixed.functions:
            there[old.rva] = here[fixed.functions[name].rva]
    for name in base.data.keys() & fixed.data.keys() - INITIALISERS:
        tables = base.pointed(name), fixed.pointed(name)
        if [there.get(rva) for rva in tables[0]] != [here.get(rva) for rva in tables[1]]:
            here[fixed.data[name]] += "'"
    return there, here


def main() -> None:
    """Print code side after side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case")
    parser.add_argument("--machine", nargs="+", default=["x64", "arm64"])
    parser.add_argument("--function", nargs="+")
    options = parser.parse_args()
    for machine in options.machine:
        folder = FIXTURES / options.case / machine
        images = {path.stem: FixtureImage(path) for path in sorted(folder.iterdir()) if path.suffix in {".dll", ".exe"}}
        verdicts = changed(images["base"], images["fixed"])
        sys.stdout.write(f"== {options.case} {machine}: {verdicts}\n")
        sys.stdout.write(f"   all: {sorted(images['base'].functions)} data: {sorted(images['base'].data)}\n")
        for side, image in images.items():
            for name in options.function or verdicts:
                if name in image.functions:
                    code = image.functions[name]
                    pad = image.mapped[code.rva - 8 : code.rva].hex()
                    sys.stdout.write(f"-- {side} {name} rva {code.rva:#x} size {len(code.raw)} before {pad}\n")
                    sys.stdout.writelines(f"   {line}\n" for line in (*code.lines, *code.cold))


if __name__ == "__main__":
    main()
