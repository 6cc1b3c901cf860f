"""The image as a value: everything that other rooms ask of a PE file, computed once and never changed."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from pathlib import PurePath
from typing import TYPE_CHECKING, TypeVar, cast

from hotpatch.address import Rva, Va
from hotpatch.arch import Redirect, Use, architecture
from hotpatch.errors import Refusal, Refused, Rule
from hotpatch.image import cffi, identity, lookup, pdb
from hotpatch.image.data import DataIndex, named_data
from hotpatch.image.decoded import Decoded
from hotpatch.image.flow import padding_length
from hotpatch.image.functions import discover
from hotpatch.image.memory import MappedBytes
from hotpatch.image.model import Function, Hybrid, Range, Symbols
from hotpatch.image.names import function_names
from hotpatch.image.parse import parse
from hotpatch.image.pdata import read_function_table
from hotpatch.image.tables import TableLimits, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hotpatch.arch import Architecture, Instruction, JumpTable, Machine, Reference
    from hotpatch.image.decoded import Reading
    from hotpatch.image.model import (
        BaseIdentity,
        Datum,
        Export,
        Import,
        InlineSite,
        LoadConfiguration,
        Section,
        TlsDirectory,
        UnwindEntry,
    )
    from hotpatch.image.parse import CoffSymbol, Parsed

_PADDING_LIMIT = 4096
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Image:
    """One PE file; compared by identity. Addresses are RVAs, sizes bytes.

    Attributes:
        path: As the user gave it.
        data: The file's bytes.
        parsed: What the file says of itself.
        symbols: What a matching PDB says of it.
        pdb_path: That PDB's path, or ``None``.
        other_pdb: Path of a PDB that lies beside it and is another build's, or ``None``.
    """

    path: str
    data: bytes = field(repr=False)
    parsed: Parsed = field(repr=False)
    symbols: Symbols = field(repr=False)
    pdb_path: str | None = None
    other_pdb: str | None = None
    _kept: dict[object, object] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        """Its name, machine and identity."""
        return f"<Image {self.name} [{self.machine}] {self.sha256[:12]}{', with PDB' if self.pdb_path else ''}>"

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "<memory>", pdb: Symbols | None = None) -> Image:
        """An image that is in memory, called ``name`` in errors; ``pdb`` is what is known of its symbols.

        Raises:
            InputError: The bytes are no image that the project takes.
            Refused: It is a hybrid image (rule hybrid-image).
        """
        parsed = parse(data, name)
        refuse_hybrid(parsed.hybrid, name)
        return cls(name, data, parsed, pdb or Symbols())

    def kept(self, make: Callable[[Image], _T]) -> _T:
        """What ``make`` makes of the image: made once, and kept as long as the image is."""
        found = self._kept.get(make)
        if found is None:
            found = self._kept[make] = make(self)
        return cast("_T", found)

    # headers and tables ------------------------------------------------------------------------------------------------------------------

    @cached_property
    def name(self) -> str:
        """The file's name without its folder; bytes of it that are no text stand as ``%FF``."""
        name = PurePath(self.path).name
        return "".join(f"%{ord(letter) - 0xDC00:02X}" if "\udc80" <= letter <= "\udcff" else letter for letter in name)

    @cached_property
    def sha256(self) -> str:
        """Of the file, hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def machine(self) -> Machine:
        """Whose code it holds."""
        return self.parsed.machine

    @cached_property
    def architecture(self) -> Architecture:
        """The instruction set of its code."""
        return architecture(self.parsed.machine)

    @property
    def hybrid(self) -> Hybrid:
        """Always ``Hybrid.NONE`` for an image that could be opened."""
        return self.parsed.hybrid

    @property
    def time_date_stamp(self) -> int:
        """Of the COFF header."""
        return self.parsed.time_date_stamp

    @property
    def linked_at(self) -> int | None:
        """When it was linked, in seconds since 1970; ``None`` where the header has no time, or a hash instead (``/Brepro``)."""
        return self.time_date_stamp if self.time_date_stamp and not self.parsed.is_reproducible else None

    @property
    def characteristics(self) -> int:
        """Of the COFF header."""
        return self.parsed.characteristics

    @property
    def is_dll(self) -> bool:
        """Whether the COFF header says so (``IMAGE_FILE_DLL``)."""
        return bool(self.parsed.characteristics & 0x2000)

    @property
    def checksum(self) -> int:
        """Of the optional header; 0 in most files."""
        return self.parsed.checksum

    @property
    def size_of_image(self) -> int:
        """Bytes that it takes when mapped."""
        return self.parsed.size_of_image

    @property
    def headers_size(self) -> int:
        """Bytes of the file that are mapped at RVA 0."""
        return self.parsed.headers_size

    @property
    def section_alignment(self) -> int:
        """In bytes."""
        return self.parsed.section_alignment

    @property
    def preferred_base(self) -> Va:
        """Where it is linked to be mapped."""
        return Va(self.parsed.preferred_base)

    @property
    def entry_point(self) -> Rva | None:
        """Where the loader starts it, if anywhere."""
        return self.parsed.entry_point

    @property
    def subsystem(self) -> int:
        """``IMAGE_SUBSYSTEM_*``."""
        return self.parsed.subsystem

    @property
    def dll_characteristics(self) -> int:
        """``IMAGE_DLLCHARACTERISTICS_*``."""
        return self.parsed.dll_characteristics

    @property
    def hotpatch_compatible(self) -> bool:
        """Whether the extended DLL characteristics say so."""
        return self.parsed.hotpatch_compatible

    @property
    def sections(self) -> tuple[Section, ...]:
        """By RVA."""
        return self.parsed.sections

    @property
    def imports(self) -> tuple[Import, ...]:
        """In table order, delayed ones last."""
        return self.parsed.imports

    @property
    def exports(self) -> tuple[Export, ...]:
        """By ordinal."""
        return self.parsed.exports

    @property
    def relocations(self) -> tuple[Rva, ...]:
        """Sites of 64-bit pointers that the loader adjusts, sorted."""
        return self.parsed.relocations

    @property
    def load_configuration(self) -> LoadConfiguration | None:
        """Or ``None`` where there is none."""
        return self.parsed.load_configuration

    @property
    def tls(self) -> TlsDirectory | None:
        """Or ``None`` where there is none."""
        return self.parsed.tls

    @property
    def coff_symbols(self) -> tuple[CoffSymbol, ...]:
        """Of the COFF symbol table, by RVA."""
        return self.parsed.coff_symbols

    @property
    def guard_functions(self) -> tuple[Rva, ...]:
        """Of the control-flow-guard table, sorted."""
        return self.parsed.guard_functions

    @property
    def import_address_tables(self) -> tuple[Range, ...]:
        """The ranges that the loader binds imports in."""
        return self.parsed.import_address_tables

    @property
    def inlines(self) -> tuple[InlineSite, ...]:
        """Inlined bodies that the PDB knows, by caller."""
        return self.symbols.inlines

    @property
    def has_symbols(self) -> bool:
        """Whether a matching PDB was used."""
        return self.pdb_path is not None

    @cached_property
    def _source_lines(self) -> tuple[tuple[Rva, ...], tuple[int, ...]]:
        rows = pdb.source_lines(self.pdb_path, self.size_of_image) if self.pdb_path is not None else ()
        return tuple(rva for rva, _ in rows), tuple(line for _, line in rows)

    def line_at(self, rva: int) -> int | None:
        """The source line whose code ``rva`` lies in, as far as a PDB says."""
        starts, lines = self._source_lines
        at = bisect_right(starts, rva) - 1
        return lines[at] if at >= 0 else None

    @cached_property
    def imports_by_slot(self) -> Mapping[Rva, Import]:
        """Import address table slot → import."""
        return {entry.slot: entry for entry in self.imports}

    @cached_property
    def exports_by_name(self) -> Mapping[str, Export]:
        """Named exports, forwarders among them."""
        return {export.name: export for export in self.exports if export.name is not None}

    @cached_property
    def identity(self) -> BaseIdentity:
        """What tells this build from another."""
        return identity.identity(self)

    # bytes -------------------------------------------------------------------------------------------------------------------------------

    @cached_property
    def mapped_bytes(self) -> MappedBytes:
        """Its bytes as the loader would map them, by RVA."""
        return MappedBytes(self.data, self.sections, self.headers_size, self.size_of_image)

    def read(self, rva: int, size: int) -> bytes:
        """``size`` bytes from ``rva`` as mapped at the preferred base: zeros where the file has none, fewer only past the image's end."""
        return self.mapped_bytes.read(rva, size)

    def code(self, part: Range) -> bytes:
        """The bytes of ``part``."""
        return self.mapped_bytes.read(part.start, part.size)

    def u32(self, rva: int) -> int:
        """The 32-bit number at ``rva``."""
        return int.from_bytes(self.mapped_bytes.read(rva, 4), "little")

    def u64(self, rva: int) -> int:
        """The 64-bit number at ``rva``, unrelocated."""
        return int.from_bytes(self.mapped_bytes.read(rva, 8), "little")

    @cached_property
    def mapped(self) -> bytes:
        """The whole image as mapped at its preferred base."""
        return self.mapped_bytes.read(0, self.size_of_image)

    def section_at(self, rva: int) -> Section | None:
        """The section that ``rva`` lies in."""
        for start, end, section in self._spans:
            if start <= rva < end:
                return section
        return None

    @cached_property
    def _spans(self) -> tuple[tuple[int, int, Section], ...]:
        return tuple((*section.range, section) for section in self.sections)

    def relocations_in(self, part: Range) -> tuple[Rva, ...]:
        """The relocated sites that begin in ``part``."""
        sites = self.relocations
        return sites[bisect_left(sites, part.start) : bisect_left(sites, part.end)]

    @cached_property
    def pointers(self) -> Mapping[Rva, int]:
        """Relocated site → the RVA that its pointer leads to."""
        base, sites = self.parsed.preferred_base, self.relocations
        return {site: number - base for site, number in zip(sites, self.mapped_bytes.u64s(sites), strict=True)}

    # functions ---------------------------------------------------------------------------------------------------------------------------

    @cached_property
    def unwind_entries(self) -> tuple[UnwindEntry, ...]:
        """The function table's entries by start."""
        return read_function_table(self.machine, self.parsed.function_table, self.mapped_bytes.read)

    @cached_property
    def _unwind_starts(self) -> tuple[Rva, ...]:
        return tuple(entry.range.start for entry in self.unwind_entries)

    def unwind_entry_at(self, rva: int) -> UnwindEntry | None:
        """The function-table entry that covers ``rva``."""
        index = bisect_right(self._unwind_starts, rva) - 1
        if index < 0 or rva not in self.unwind_entries[index].range:
            return None
        return self.unwind_entries[index]

    def unwind_entries_in(self, part: Range) -> tuple[UnwindEntry, ...]:
        """The function-table entries that begin in ``part``."""
        starts = self._unwind_starts
        return self.unwind_entries[bisect_left(starts, part.start) : bisect_left(starts, part.end)]

    @cached_property
    def unwind_infos(self) -> tuple[Rva, ...]:
        """Where unwind information begins, sorted."""
        return tuple(sorted({entry.info for entry in self.unwind_entries if entry.info is not None}))

    @cached_property
    def unwind_entries_by_handler(self) -> Mapping[Rva, tuple[UnwindEntry, ...]]:
        """The function table's entries that have a language-specific handler, by it."""
        found: dict[Rva, list[UnwindEntry]] = defaultdict(list)
        for entry in self.unwind_entries:
            if entry.handler is not None:
                found[entry.handler].append(entry)
        return {handler: tuple(entries) for handler, entries in found.items()}

    @cached_property
    def cffi_names(self) -> Mapping[Rva, tuple[str, ...]]:
        """Functions that a cffi module's own table names."""
        return cffi.function_names(self)

    @cached_property
    def functions(self) -> tuple[Function, ...]:
        """By entry."""
        found = discover(self, function_names(self))
        settle(self, found, self._decoded, lambda: self._table_limits)
        self._decoded.end_search()
        return found

    @cached_property
    def _decoded(self) -> Decoded:
        return Decoded(self)

    @cached_property
    def _table_limits(self) -> TableLimits:
        return TableLimits(self)

    def table_limit(self, address: int, entry_size: int) -> int:
        """Where a jump table at ``address`` with such entries must end at the latest: at the next thing that is known."""
        return self._table_limits.limit(address, entry_size)

    @cached_property
    def _by_entry(self) -> Mapping[Rva, Function]:
        return {function.entry: function for function in self.functions}

    @cached_property
    def _ranges(self) -> tuple[tuple[Range, Function], ...]:
        return tuple(sorted([(part, function) for function in self.functions for part in function.ranges], key=itemgetter(0)))

    @cached_property
    def _range_starts(self) -> tuple[Rva, ...]:
        return tuple([part.start for part, _ in self._ranges])

    def function_at(self, rva: int) -> Function | None:
        """The function that ``rva`` lies in, in any of its ranges."""
        index = bisect_right(self._range_starts, rva) - 1
        if index < 0 or rva not in self._ranges[index][0]:
            return None
        return self._ranges[index][1]

    def holds_code(self, section: Section) -> bool:
        """Whether a function stands in it, and it may be executed: assemblers make some sections of constants executable."""
        return section.executable and section.rva in self._code_sections

    def holds_constants(self, section: Section | None) -> bool:
        """Whether it holds neither code nor what can be written."""
        return section is not None and not section.writable and not self.holds_code(section)

    @cached_property
    def _code_sections(self) -> frozenset[Rva]:
        starts = self._range_starts
        return frozenset(section.rva for low, high, section in self._spans if bisect_left(starts, low) < bisect_left(starts, high))

    def function_of_entry(self, rva: int) -> Function | None:
        """The function that begins at ``rva``."""
        return self._by_entry.get(Rva(rva))

    def function_named(self, text: str) -> Function:
        """The function called ``text``: an export, a symbol, or ``rva:0x…``.

        Raises:
            InputError: The text names nothing, or no RVA stands behind ``rva:``.
            Refused: There is none, or several (rule no-such-function); the reason lists near names.
        """
        return lookup.function_named(self, text)

    def references(self, function: Function) -> tuple[tuple[Reference, ...], ...]:
        """What each range of ``function`` refers to; offsets count from the range's start, targets are RVAs."""
        return tuple(self.references_in(part) for part in function.ranges)

    def references_in(self, part: Range) -> tuple[Reference, ...]:
        """What the code in ``part`` refers to, decoded once; jump tables that stand in it (as MSVC's for x64 do) are not taken for code."""
        return self._decoded.references_in(part)

    def instructions_in(self, part: Range) -> Iterator[Instruction]:
        """The instructions of ``part``, jump tables that stand in it left out; what cannot be decoded ends those up to the next table."""
        yield from self._decoded.instructions_in(part)  # so that this image is there as long as it is asked

    def reading(self, part: Range) -> Reading:
        """What the code in ``part`` was understood as: its tables, and what it is apart from where it leads."""
        return self._decoded.reading(part)

    @cached_property
    def readings(self) -> Mapping[Range, Reading]:
        """The same for the ranges of all functions, perhaps among others."""
        return self._decoded.readings(part for function in self.functions for part in function.ranges)

    def expect(self, other: Image) -> None:
        """Before functions are looked for: most code is that of ``other``, but for where it leads.

        Such code is not decoded again. What is found does not depend on it, only how soon.
        """
        self._decoded.expect(other._decoded, (part for function in other.functions for part in function.ranges))

    def jump_tables(self, function: Function) -> tuple[JumpTable, ...]:
        """The tables that the function's indirect jumps go through; ``jump`` counts from the start of the range that holds the jump."""
        return tuple(table for part in function.ranges for table in self.jump_tables_in(part))

    def jump_tables_in(self, part: Range) -> tuple[JumpTable, ...]:
        """The tables that indirect jumps in ``part`` go through."""
        return self._decoded.reading(part).tables

    def padding_before(self, function: Function) -> int:
        """Bytes of whole filler instructions right before the entry that belong to no function and no datum."""
        entry = function.entry
        index = bisect_left(self._range_starts, entry) - 1
        start = self._ranges[index][0].end if index >= 0 else 0
        section = self.section_at(entry)
        start = max(start, section.rva if section else entry, entry - _PADDING_LIMIT)
        datum = self.datum_at(entry - 1)
        if datum is not None and datum.size is not None:
            start = max(start, datum.rva + datum.size)
        return padding_length(self.architecture, self.read(start, entry - start)) if start < entry else 0

    def entry_patchable(self, function: Function) -> bool:
        """Whether the entry's first instruction can be overwritten by one store and nothing in the function jumps back to it.

        (MS Learn, "/hotpatch": the first instruction is at least two bytes, and no jump within the function goes to it.)
        """
        entry = function.entry
        needed = self.architecture.entry_site(Redirect.HPAT).displaced
        first = next(iter(self.architecture.disassemble(self.read(entry, 16), entry)), None)
        if first is None or first.size < needed or first.size > function.ranges[0].size:
            return False
        jumps = (reference for part in self.references(function) for reference in part if reference.use in {Use.JUMP, Use.BRANCH})
        return not any(entry <= reference.target < entry + first.size for reference in jumps)

    # data --------------------------------------------------------------------------------------------------------------------------------

    @cached_property
    def data_symbols(self) -> tuple[Datum, ...]:
        """Named data by RVA, all names of each."""
        return named_data(self)

    @cached_property
    def _data_index(self) -> DataIndex:
        return DataIndex.of(self)

    def datum_at(self, rva: int) -> Datum | None:
        """The named datum that covers ``rva``; where its size is unknown, up to the next symbol, contribution or section end."""
        return self._data_index.at(rva)


def refuse_hybrid(hybrid: Hybrid, name: str) -> None:
    """Refuse an image with code for two machines.

    Raises:
        Refused: Rule hybrid-image.
    """
    if hybrid is not Hybrid.NONE:
        reason = f"{name} holds code for two machines ({hybrid.value}), which are not told apart; use a plain x64 or Arm64 build of it"
        raise Refused([Refusal(Rule.HYBRID_IMAGE, None, None, reason, {"hybrid": hybrid.value})])
