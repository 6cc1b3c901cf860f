"""What an image's code refers to and how it jumps through tables: each stretch decoded once, and not at all where its like is known."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ref

from hotpatch.arch import FixupKind, Outline, Outlines, reference_of
from hotpatch.image.flow import decode_between, pieces_between

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from hotpatch.arch import Instruction, JumpTable, Reference, Row
    from hotpatch.image.image import Image
    from hotpatch.image.model import Range

_PARTIAL = frozenset({FixupKind.PAGEBASE_REL21, FixupKind.IMAGEREL_HIGH12A})
"""Kinds that hold a part of an address that other instructions complete."""


class Decoded:
    """The code of one image, by range; what was read is kept."""

    def __init__(self, image: Image) -> None:
        """Of ``image``, which holds this; the way back is weak, so that both go together."""
        self.architecture = image.architecture
        self._image = ref(image)
        self._read = image.mapped_bytes.read
        self._references: dict[Range, tuple[Reference, ...]] = {}
        self._jump_tables: dict[Range, tuple[JumpTable, ...]] = {}
        self._outlines: dict[Range, Outline] = {}
        self._leads: dict[Range, tuple[int, ...]] = {}
        self._examples = Outlines()
        self._unlike: set[Range] = set()

    def code(self, part: Range) -> bytes:
        """The bytes of ``part``."""
        return self._read(part.start, part.size)

    def _table_limit(self, address: int, entry_size: int) -> int:
        image = self._image()
        assert image is not None, "whoever asks has the image"
        return image.table_limit(address, entry_size)

    def references_in(self, part: Range) -> tuple[Reference, ...]:
        """What the code in ``part`` refers to, decoded once; jump tables that stand in it (as MSVC's for x64 do) are not taken for code."""
        found = self._references.get(part)
        if found is None:
            found = self._references[part] = tuple(map(reference_of, self._rows(part)))
        return found

    def targets_in(self, part: Range) -> Iterator[int]:
        """What :meth:`references_in` leads to, those apart that hold a part of an address only."""
        outline = self.outline(part)
        yield from (part.start + distance for distance in outline.inner)
        yield from (lead for row, lead in zip(outline.outward, self.leads(part), strict=True) if row[3] not in _PARTIAL)

    def _rows(self, part: Range) -> Sequence[Row]:
        decode = self.architecture.rows
        tables = self._holes_in(part)
        return decode_between(decode, self.code(part), part.start, tables) if tables else decode(self.code(part), part.start)

    def instructions_in(self, part: Range) -> Iterator[Instruction]:
        """The instructions of ``part``, jump tables that stand in it left out; what cannot be decoded ends those up to the next table."""
        for start, code in pieces_between(self.code(part), part.start, self._holes_in(part)):
            yield from self.architecture.disassemble(code, start)

    def _holes_in(self, part: Range) -> list[tuple[int, int]]:
        return sorted(hole for table in self.jump_tables_in(part) for hole in self._holes(table) if hole[0] in part)

    def _holes(self, table: JumpTable) -> Iterator[tuple[int, int]]:
        """Where ``table`` and its table of indices stand, up to where instructions can go on."""
        alignment = self.architecture.instruction_alignment
        for start, size in ((table.address, table.size), *([table.index] if table.index else [])):
            yield start, -(-(start + size) // alignment) * alignment

    def _reread(self, part: Range) -> bool:
        """Whether code like that in ``part`` is known (see :meth:`expect`); then its outline and leads are, too."""
        if part in self._leads:
            return True
        if part in self._unlike:
            return False
        code = self.code(part)
        example = self._examples.find(code)
        leads = self.architecture.reread(example, code, part.start) if example is not None else None
        if example is None or leads is None:
            self._unlike.add(part)
            return False
        self._jump_tables[part], self._outlines[part], self._leads[part] = (), example, leads
        return True

    def outline(self, part: Range) -> Outline:
        """The code in ``part`` apart from where it leads; its ``outward`` holds for :meth:`references_in` of ``part``."""
        found = self._outlines.get(part)
        if found is None:
            if self._reread(part):
                return self._outlines[part]
            found = self._outlines[part] = Outline.of(self.architecture, self.code(part), part.start, self._rows(part))
        return found

    def leads(self, part: Range) -> tuple[int, ...]:
        """Where the outward references of :meth:`outline` of ``part`` lead."""
        found = self._leads.get(part)
        if found is None:
            outline = self.outline(part)
            found = self._leads.get(part)
            if found is None:
                found = self._leads[part] = outline.leads()
        return found

    def expect(self, other: Decoded, parts: Iterable[Range]) -> None:
        """Most code is that of ``other``, whose functions have ``parts``: see :meth:`hotpatch.image.Image.expect`."""
        self._unlike.clear()
        for part in sorted({*parts, *other._outlines}):  # also what a search looked at on its way
            outline = other.outline(part)
            if not other.jump_tables_in(part) and other.architecture.is_exemplary(outline):
                self._examples.add(outline)

    def jump_tables_in(self, part: Range) -> tuple[JumpTable, ...]:
        """The tables that indirect jumps in ``part`` go through."""
        found = self._jump_tables.get(part)
        if found is None:
            if self._reread(part):
                return ()
            found = self.architecture.jump_tables(self.code(part), part.start, self._read, limit=self._table_limit)
            self._jump_tables[part] = found
        return found

    def known_tables(self, part: Range) -> tuple[JumpTable, ...]:
        """The tables that were read so far."""
        return self._jump_tables.get(part, ())

    def correct(self, tables: Mapping[Range, tuple[JumpTable, ...]]) -> None:
        """Take ``tables`` for those of their ranges, and read the code there anew, from now on."""
        self._jump_tables.update(tables)
        for part in tables:
            self._references.pop(part, None)
            self._outlines.pop(part, None)
            self._leads.pop(part, None)
