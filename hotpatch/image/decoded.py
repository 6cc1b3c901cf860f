"""What an image's code refers to and how it jumps through tables: each stretch decoded once, and not at all where its like is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from weakref import ref

from hotpatch.arch import FixupKind, Outline, Outlines, pieces_between, reference_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from hotpatch.arch import Instruction, JumpTable, Reference, Row
    from hotpatch.image.image import Image
    from hotpatch.image.model import Range

_PARTIAL = frozenset({FixupKind.PAGEBASE_REL21, FixupKind.IMAGEREL_HIGH12A})
"""Kinds that hold a part of an address that other instructions complete."""
_KEPT = 256
"""Ranges of which all references are kept; most are asked for once or twice, one soon after the other, and thousands take much memory."""


class Reading(NamedTuple):
    """What a stretch of code was understood as.

    Attributes:
        code: Its bytes.
        tables: The tables that its indirect jumps go through.
        outline: The code apart from where it leads; that of its like, where this was known.
        leads: Where the outline's outward references lead from here.
    """

    code: bytes
    tables: tuple[JumpTable, ...]
    outline: Outline
    leads: tuple[int, ...]


def _nothing() -> None:
    """A weak way to nothing."""


class Decoded:
    """The code of one image, by range; what was read is kept."""

    def __init__(self, image: Image) -> None:
        """Of ``image``, which holds this; the way back is weak, so that both go together."""
        self.architecture = image.architecture
        self._image = ref(image)
        self._read = image.mapped_bytes.read
        self._references: dict[Range, tuple[Reference, ...]] = {}
        self._tables: dict[Range, tuple[JumpTable, ...]] = {}
        self._readings: dict[Range, Reading] = {}
        self._consulted: dict[Range, tuple[tuple[int, int], ...]] = {}
        """What was read of the image beside the code, address and size, of ranges that were decoded and on which nothing else bears."""
        self._like: Callable[[], Decoded | None] = _nothing
        """What is expected to be much the same; weak, for either may be told to expect the other."""
        self._examples: Outlines | None = None
        """Its outlines."""
        self._own = Outlines(self.architecture)
        """Those of what took long to read here: it may stand several times, and differ only in where it leads."""

    def reading(self, part: Range) -> Reading:
        """What the code in ``part`` was understood as."""
        found = self._readings.get(part)
        if found is None:
            code = self._read(part.start, part.size)
            found = self._readings[part] = self._known(part, code) or self._decode(part, code)
        return found

    def readings(self, parts: Iterable[Range]) -> Mapping[Range, Reading]:
        """What all code was understood as that was looked at so far, with that in ``parts``."""
        for part in parts:
            if part not in self._readings:
                self.reading(part)
        return self._readings

    def _known(self, part: Range, code: bytes) -> Reading | None:
        """What ``code`` is by that of another image (see :meth:`expect`), or by other code of this one."""
        if part in self._tables:
            return None
        found = None
        if self._examples is not None:
            found = self._same(part, code) or self._read_again(self._examples, part, code)
        if found is None and self.architecture.takes_analysis(code):
            found = self._read_again(self._own, part, code)
        return found

    def _same(self, part: Range, code: bytes) -> Reading | None:
        """What the same code at the same place of the other is, where all that was read for it is the same here."""
        like = self._like()
        consulted = like._consulted.get(part) if like is not None else None
        if like is None or consulted is None:
            return None
        found = like._readings[part]
        if found.code != code or any(like._read(address, size) != self._read(address, size) for address, size in consulted):
            return None
        self._consulted[part] = consulted
        self._tables[part] = found.tables
        return found

    def _read_again(self, examples: Outlines, part: Range, code: bytes) -> Reading | None:
        """What ``code`` is by its like, which differs from it in where it leads."""
        example = examples.find(code, part.start)
        if example is None or not self.architecture.is_exemplary(example):
            return None
        leads = self.architecture.reread(example, code, part.start)
        if leads is None:
            return None
        self._tables[part] = self._consulted[part] = ()
        return Reading(example.code if code == example.code else code, (), example, leads)

    def _decode(self, part: Range, code: bytes) -> Reading:
        tables = self._tables.get(part)
        if tables is None:
            tables = self._tables[part] = self._find_tables(part, code)
        outline = Outline.of(self.architecture, code, part.start, self._rows(part, code, tables))
        if not tables and self.architecture.takes_analysis(code):
            self._own.add(outline, part.start)
        return Reading(code, tables, outline, outline.leads)

    def _find_tables(self, part: Range, code: bytes) -> tuple[JumpTable, ...]:
        consulted: list[tuple[int, int]] = []
        limited = False

        def read(address: int, size: int) -> bytes:
            consulted.append((address, size))
            return self._read(address, size)

        def limit(address: int, entry_size: int) -> int:
            nonlocal limited
            limited = True
            return self._table_limit(address, entry_size)

        tables = self.architecture.jump_tables(code, part.start, read, limit=limit)
        if not limited:
            self._consulted[part] = tuple(consulted)
        return tables

    def _table_limit(self, address: int, entry_size: int) -> int:
        image = self._image()
        assert image is not None, "whoever asks has the image"
        return image.table_limit(address, entry_size)

    def _rows(self, part: Range, code: bytes, tables: Iterable[JumpTable]) -> Sequence[Row]:
        return self.architecture.rows(code, part.start, holes=self._holes_in(part, tables) if tables else ())

    def references_in(self, part: Range) -> tuple[Reference, ...]:
        """What the code in ``part`` refers to; jump tables that stand in it (as MSVC's for x64 do) are not taken for code."""
        found = self._references.get(part)
        if found is None:
            code, tables, _, _ = self.reading(part)
            rows = self._rows(part, code, tables)
            while len(self._references) >= _KEPT:
                del self._references[next(iter(self._references))]
            found = self._references[part] = tuple(map(reference_of, rows))
        return found

    def targets_in(self, part: Range) -> Iterator[int]:
        """What :meth:`references_in` leads to, those apart that hold a part of an address only."""
        _, _, outline, leads = self.reading(part)
        yield from (part.start + distance for distance in outline.inner)
        yield from (lead for encoding, lead in zip(outline.outward[1], leads, strict=True) if encoding[2] not in _PARTIAL)

    def instructions_in(self, part: Range) -> Iterator[Instruction]:
        """The instructions of ``part``, jump tables that stand in it left out; what cannot be decoded ends those up to the next table."""
        code, tables, _, _ = self.reading(part)
        for start, piece in pieces_between(code, part.start, self._holes_in(part, tables)):
            yield from self.architecture.disassemble(piece, start)

    def _holes_in(self, part: Range, tables: Iterable[JumpTable]) -> list[tuple[int, int]]:
        return sorted(hole for table in tables for hole in self._holes(table) if hole[0] in part)

    def _holes(self, table: JumpTable) -> Iterator[tuple[int, int]]:
        """Where ``table`` and its table of indices stand, up to where instructions can go on."""
        alignment = self.architecture.instruction_alignment
        for start, size in ((table.address, table.size), *([table.index] if table.index else [])):
            yield start, -(-(start + size) // alignment) * alignment

    def expect(self, other: Decoded, parts: Iterable[Range]) -> None:
        """Most code is that of ``other``, whose functions have ``parts``: see :meth:`hotpatch.image.Image.expect`."""
        self._like = ref(other)
        self._examples = Outlines(self.architecture)
        for (start, _), (_, tables, outline, _) in other.readings(parts).items():  # also what a search looked at on its way
            if not tables:
                self._examples.add(outline, start)

    def end_search(self) -> None:
        """All functions are found: hardly any code is still to come that stood before."""
        self._own = Outlines(self.architecture)

    def known_tables(self, part: Range) -> tuple[JumpTable, ...]:
        """The tables that were read so far."""
        return self._tables.get(part, ())

    def correct(self, tables: Mapping[Range, tuple[JumpTable, ...]]) -> None:
        """Take ``tables`` for those of their ranges, and read the code there anew, from now on."""
        self._tables.update(tables)
        for part in tables:
            self._references.pop(part, None)
            self._readings.pop(part, None)
            self._consulted.pop(part, None)
