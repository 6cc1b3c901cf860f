"""What each reference of a compiled image names, as the compiler's object file and the linker's map say.

The object's relocations name symbols; the compiler is told to keep those of its own, too. The map tells where each symbol stands. What
part of which variable of the source a symbol is, where the compiler has split or repeated it, stands in its intermediate code.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import lief

from hotpatch.address import Rva

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hotpatch.image import Image

_ALIGNMENT = 15
"""Bytes, at most, of zeros behind what has no name."""
MERGED_GLOBALS = ".L_MergedGlobals"
"""What LLVM calls variables that it put into one."""
KEEP_SYMBOLS = ("-Xclang", "-msave-temp-labels")
"""Changes the object's symbols alone."""
_MAP_ROW = re.compile(r"^([0-9a-f]{8}) 00000000     0                 (\S+)$", re.MULTILINE)
_GLOBAL = re.compile(r'^@("(?:[^"]*)"|[\w.$]+) = (.*)$', re.MULTILINE)
_BODY = re.compile(r"^define [^@]*@(\"[^\"]+\"|[\w.$]+)\((.*?)^}$", re.MULTILINE | re.DOTALL)
_MENTION = re.compile(r"@(\"[^\"]+\"|[\w.$]+)")
_NODE = re.compile(r"^(!\d+) = (.*)$", re.MULTILINE)


class Variable(NamedTuple):
    """A variable of the source: its name, the function it is declared in, and which of those of that name there."""

    name: str
    function: str
    number: int


class Part(NamedTuple):
    """Where in a variable a symbol begins, in bytes, and of how many like it the variable is one."""

    variable: Variable
    offset: int
    namesakes: int


_IMMEDIATES = {"PAGEBASE_REL21": 0x60FFFFE0, "PAGEOFFSET_12A": 0x3FFC00, "PAGEOFFSET_12L": 0x3FFC00}
"""The bits of an Arm64 instruction that hold an addend, by kind of relocation."""


class Relocation(NamedTuple):
    """A field of a section: its kind, the section and the symbol that it names."""

    kind: str
    symbol: str


@dataclass
class Chunk:
    """A section of the object: its bytes with addends in the fields, and its relocations by offset."""

    name: str
    raw: bytes
    relocations: Mapping[int, Relocation]
    symbols: dict[str, int] = field(default_factory=dict)

    def addend(self, at: int) -> int:
        """What the field there adds to its symbol, in bytes."""
        return _addend(self.raw[at:], self.relocations[at].kind)

    @cached_property
    def bare(self) -> bytes:
        """Its bytes without addends."""
        found = bytearray(self.raw)
        for at, item in self.relocations.items():
            mask = 0xFFFFFFFF if item.kind.startswith("REL32") else _IMMEDIATES.get(item.kind, 0)
            found[at : at + 4] = (int.from_bytes(found[at : at + 4], "little") & ~mask).to_bytes(4, "little")
        return bytes(found)

    @property
    def is_code(self) -> bool:
        return self.name.startswith(".text")

    @property
    def is_live(self) -> bool:
        return self.name.startswith((".data", ".bss", ".tls"))

    @cached_property
    def ends(self) -> list[int]:
        return sorted({*self.symbols.values(), len(self.raw)})


class Truth:
    """One side's object, map and intermediate code."""

    def __init__(self, obj: Path, listing: Path, code: Path, image: Image) -> None:
        """Read the files; ``image`` with its PDB has the sizes of what has names."""
        self._sizes = {item.rva: item.size for item in image.data_symbols if item.size}
        self.chunks = _chunks(obj)
        self.home = {name: chunk for chunk in self.chunks for name in chunk.symbols}
        rows = ((name, int(rva, 16)) for rva, name in _MAP_ROW.findall(listing.read_text("utf-8")))
        self.rvas = {name: rva for name, rva in rows if name in self.home}
        text = code.read_text("utf-8")
        self.parts = _parts(text)
        self._mentioned = {name.strip('"'): {one.strip('"') for one in _MENTION.findall(body)} for name, body in _BODY.findall(text)}
        self.by_variable: dict[Variable, list[tuple[int, str]]] = defaultdict(list)
        for name, part in self.parts.items():
            if name in self.rvas:
                self.by_variable[part.variable].append((part.offset, name))

    @cached_property
    def starts(self) -> list[tuple[int, Chunk]]:
        """Where each section that was linked stands, in RVAs, by start."""
        found = {}
        for name, rva in self.rvas.items():
            chunk = self.home[name]
            found.setdefault(rva - chunk.symbols[name], chunk)
        return sorted(found.items(), key=lambda item: item[0])

    def relocation(self, rva: int) -> Relocation | None:
        """That of the field at ``rva``."""
        at = bisect_right(self.starts, rva, key=lambda item: item[0]) - 1
        if at < 0:
            return None
        start, chunk = self.starts[at]
        return chunk.relocations.get(rva - start)

    def named(self, symbol: str, rva: int, entry: int | None = None) -> str:
        """What a field that names ``symbol`` means at ``rva``: of variables that the compiler merged into one, that which lies there.

        Where one ends and another begins, it is the one that the source of the function at ``entry`` names, if that names but one of them.
        """
        if not symbol.startswith(MERGED_GLOBALS) or symbol not in self.rvas:
            return symbol
        members = [(at, name) for name, at in self.merged() if self.rvas[symbol] <= at <= rva]
        named = {one for function in self.at(entry or 0) for one in self._mentioned.get(function, ())}
        within = [(at, name) for at, name in members if name in named and rva <= at + self.room(name)]
        return max(within or members)[1] if members else symbol

    def merged(self) -> list[tuple[str, int]]:
        """Variables that the compiler put into one, and what stands behind them in the same section, with their RVAs."""
        blocks = [(self.home[name], self.home[name].symbols[name]) for name in self.rvas if name.startswith(MERGED_GLOBALS)]
        found = []
        for name, rva in self.rvas.items():
            chunk, at = self.home[name], self.home[name].symbols[name]
            if not name.startswith(MERGED_GLOBALS) and any(chunk is home and start <= at for home, start in blocks):
                found.append((name, rva))
        return found

    def literal(self, rva: int) -> bytes | None:
        """What stands where the field at ``rva`` leads, if that is a text that the linker has merged with others: the map has none."""
        at = bisect_right(self.starts, rva, key=lambda item: item[0]) - 1
        start, chunk = self.starts[at]
        found = chunk.relocations[rva - start]
        there = self.home.get(found.symbol)
        if found.symbol in self.rvas or there is None or there.is_code or there.is_live:
            return None
        return there.raw[there.symbols[found.symbol] + chunk.addend(rva - start) :]

    def size(self, name: str) -> int:
        """Bytes from a symbol to the next, alignment at the end left out."""
        chunk, start, room = self.home[name], self.home[name].symbols[name], self.room(name)
        known = self._sizes.get(Rva(self.rvas[name])) if name in self.rvas else None
        return min(known or max(len(chunk.raw[start : start + room].rstrip(b"\0")), room - _ALIGNMENT, 1), room)

    def room(self, name: str) -> int:
        """Bytes from a symbol to the next."""
        chunk, start = self.home[name], self.home[name].symbols[name]
        return chunk.ends[bisect_right(chunk.ends, start)] - start if start < len(chunk.raw) else 0

    def within(self, name: str) -> tuple[str, int]:
        """A place in code as its function and an offset, anything else as it is."""
        chunk = self.home.get(name)
        if chunk is None or not chunk.is_code:
            return name, 0
        owner = min((one for one in chunk.symbols if not one.startswith(".")), default=name)
        return owner, chunk.symbols[name] - chunk.symbols[owner]

    @cached_property
    def functions(self) -> Mapping[str, Chunk]:
        """By name."""
        return {name: chunk for name, chunk in self.home.items() if chunk.is_code and not name.startswith(".") and name in self.rvas}

    def at(self, rva: int) -> frozenset[str]:
        """The symbols that stand there."""
        return self._names.get(rva, frozenset())

    @cached_property
    def _names(self) -> Mapping[int, frozenset[str]]:
        found: dict[int, set[str]] = defaultdict(set)
        for name, rva in self.rvas.items():
            found[rva].add(name)
        return {rva: frozenset(names) for rva, names in found.items()}


def _chunks(path: Path) -> list[Chunk]:
    parsed = lief.COFF.parse(str(path))
    assert parsed is not None
    chunks = []
    for section in parsed.sections:
        relocations = {
            item.address: Relocation(str(item.type).split(".")[-1].split("_", 1)[1], str(item.symbol.name))
            for item in section.relocations
            if item.symbol is not None
        }
        raw = bytes(section.content) or bytes(section.sizeof_raw_data)
        chunks.append(Chunk(str(section.name), raw, relocations))
    for symbol in parsed.symbols:
        if symbol.section_idx > 0 and str(symbol.name) != chunks[symbol.section_idx - 1].name:
            chunks[symbol.section_idx - 1].symbols[str(symbol.name)] = symbol.value
    return [chunk for chunk in chunks if not chunk.name.startswith((".debug", ".xdata", ".pdata", "/"))]


def _addend(raw: bytes, kind: str) -> int:
    """What the object adds to a symbol, in bytes."""
    word = int.from_bytes(raw[:4], "little", signed=True)
    match kind:
        case "ADDR64":
            return int.from_bytes(raw[:8], "little", signed=True)
        case "PAGEBASE_REL21":
            return (word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3
        case "PAGEOFFSET_12A":
            return word >> 10 & 0xFFF
        case "PAGEOFFSET_12L":
            return (word >> 10 & 0xFFF) << (word >> 30 & 3)
        case _:
            return word


def _parts(code: str) -> dict[str, Part]:
    """What variable of the source each global of the intermediate code is, or is a part of."""
    nodes = dict(_NODE.findall(code))
    found: dict[str, tuple[str, str, tuple[int, int], int]] = {}
    for name, rest in _GLOBAL.findall(code):
        notes = re.findall(r"!dbg (!\d+)", rest)
        pair = re.search(r"var: (!\d+), expr: !DIExpression\((.*?)\)", nodes[notes[0]]) if len(notes) == 1 else None
        named = re.search(r'name: "([^"]+)", scope: (!\d+)', nodes[pair[1]]) if pair else None
        if pair is not None and named is not None:
            piece = re.search(r"DW_OP_LLVM_fragment, (\d+), \d+", pair[2])
            found[name.strip('"')] = (named[1], *_scope(nodes, named[2]), int(piece[1]) // 8 if piece else 0)
    places: dict[tuple[str, str], set[tuple[int, int]]] = defaultdict(set)
    for variable, function, place, _ in found.values():
        places[variable, function].add(place)
    return {
        name: Part(Variable(variable, function, sorted(places[variable, function]).index(place)), offset, len(places[variable, function]))
        for name, (variable, function, place, offset) in found.items()
    }


def _scope(nodes: Mapping[str, str], scope: str) -> tuple[str, tuple[int, int]]:
    """The function that a scope belongs to, and the line and column at which the scope begins."""
    begins = re.search(r"line: (\d+), column: (\d+)", nodes[scope])
    place = (int(begins[1]), int(begins[2])) if begins else (0, 0)
    while "DILexicalBlock" in nodes[scope]:
        scope = re.search(r"scope: (!\d+)", nodes[scope])[1]  # type: ignore[index]  # every block has one
    function = re.search(r'DISubprogram\(name: "([^"]+)"', nodes[scope])
    return function[1] if function else "", place
