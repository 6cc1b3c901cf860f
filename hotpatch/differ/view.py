"""One image as the comparison sees it: functions with their references set apart, places, extents of data."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cached_property
from sys import intern
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Use, architecture, is_inward
from hotpatch.differ.bodies import body_of
from hotpatch.differ.distances import distance_targets, may_be_distances
from hotpatch.differ.lines import Line, Lines, Token
from hotpatch.differ.parts import CONSTANT, NOTHING, POINTER_SIZE, WRITABLE, Place, PlaceKind, position_in
from hotpatch.differ.plain import plain_constants
from hotpatch.image import Datum, Function, Range, Section
from hotpatch.image.metadata import UNWIND_HEAD, delay_descriptors, metadata
from hotpatch.image.type_records import TypeRecord, type_name, type_record
from hotpatch.image.unnamed import TYPE_NAME_AT, UnnamedNamespaces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hotpatch.arch import DistanceTable, JumpTable
    from hotpatch.differ.parts import Body, Link
    from hotpatch.image import Image, InlineSite
    from hotpatch.image.decoded import Reading


_NO_LINKS: tuple[int, Sequence[FixupKind]] = 0, ()


_KEPT = 1 << 10
"""Functions of which all links are kept: to make them anew takes little, and those of all functions of a large image much memory."""


class View:
    """One image as the comparison sees it. Everything is computed once, when it is first asked for."""

    def __init__(self, image: Image) -> None:
        """Look at ``image``."""
        self.image = image
        self.architecture = architecture(image.machine)
        self._links: dict[int, tuple[Link, ...]] = {}
        self._lines: dict[int, Lines] = {}
        self._tokens: dict[Token, Token] = {}
        self._kinds: dict[tuple[FixupKind, ...], tuple[FixupKind, ...]] = {}
        """Each once, because many lines have them alike."""
        self._places: dict[int, Place] = {}
        self._distance_tables: dict[Range, tuple[DistanceTable, ...]] = {}

    # functions ---------------------------------------------------------------------------------------------------------------------------

    @cached_property
    def functions(self) -> Mapping[int, Function]:
        """By entry."""
        return {function.entry: function for function in self.image.functions}

    @cached_property
    def names(self) -> frozenset[str]:
        """Of all functions."""
        return frozenset(name for function in self.image.functions for name in function.names)

    @cached_property
    def readings(self) -> Mapping[Range, Reading]:
        """What the ranges of functions were understood as."""
        return self.image.readings

    def body(self, entry: int) -> Body:
        """Of the function that starts there."""
        return self.bodies[entry]

    @cached_property
    def bodies(self) -> Mapping[int, Body]:
        """Of all functions, by entry."""
        return {function.entry: body_of(self, function) for function in self.image.functions}

    def links(self, entry: int) -> tuple[Link, ...]:
        """Of the body of the function that starts there."""
        links = self._links.get(entry)
        if links is None:
            if len(self._links) >= _KEPT:
                del self._links[next(iter(self._links))]
            links = self._links[entry] = self.body(entry).links()
        return links

    @cached_property
    def tables(self) -> Mapping[int, tuple[Function, JumpTable]]:
        """Jump tables by address, with the function that jumps through each."""
        found: dict[int, tuple[Function, JumpTable]] = {}
        for function in self.image.functions:
            for part in function.ranges:
                for table in self.readings[part].tables:
                    found.setdefault(table.address, (function, table))
        return found

    @cached_property
    def code_has_pointers(self) -> bool:
        """Whether any pointer stands among code: hardly any compiler puts one there."""
        return any(self.image.relocations_in(section.range) for section in self.image.sections if section.executable)

    def tables_in(self, part: Range) -> tuple[int, ...]:
        """Where the jump tables begin that stand in ``part``."""
        starts = self._table_starts
        return starts[bisect_left(starts, part.start) : bisect_left(starts, part.end)]

    @cached_property
    def _table_starts(self) -> tuple[int, ...]:
        return tuple(sorted(self.tables))

    def lines(self, entry: int) -> Lines:
        """The instructions of the function that starts there, with addresses set apart."""
        lines = self._lines.get(entry)
        if lines is None:
            lines = self._lines[entry] = self._disassemble(self.body(entry))
        return lines

    def _disassemble(self, body: Body) -> Lines:
        lines = Lines()
        share = self._tokens.setdefault
        first = 0
        for part, (stretch, references) in enumerate(zip(body.function.ranges, self.image.references(body.function), strict=True)):
            linked: dict[int, tuple[int, list[FixupKind]]] = {}
            offsets, encodings = body.forms[part]
            for number, (offset, (_, _, kind, _, _)) in enumerate(zip(offsets, encodings, strict=True), first):
                linked.setdefault(offset, (number, []))[1].append(kind)
            first += len(offsets)
            inward = {reference.offset: reference for reference in references if is_inward(reference, *stretch)}
            masked = self.architecture.mask(body.masked[part], tuple(inward.values())) if inward else body.masked[part]
            lines.begin_part()
            for instruction in self.image.instructions_in(stretch):
                offset = instruction.address - stretch.start
                number, found = linked.get(offset, _NO_LINKS)
                kinds, reference = tuple(found), inward.get(offset)
                token: Token = masked[offset : offset + instruction.size]
                if reference is not None and reference.use is not Use.DATA:
                    register, _, _ = instruction.operands.rpartition(",")
                    token = f"{instruction.mnemonic}\0{register}"
                elif kinds:
                    token = (token, *kinds)
                lines.add(offset, instruction.size, share(token, token), intern(instruction.mnemonic.partition(" ")[0]))
                if kinds:
                    lines.link(number, self._kinds.setdefault(kinds, kinds))
                if reference is not None:
                    lines.lead_in(reference.target, takes=reference.use is Use.DATA)
        lines.end()
        return lines

    def text(self, entry: int, line: Line) -> str:
        """One of :meth:`lines` as assembly; not kept, because only a listing shows it."""
        part, offset = line.position
        code = self.body(entry).code[part][offset : offset + line.size]
        start = self.functions[entry].ranges[part].start
        instruction = next(iter(self.architecture.disassemble(code, start + offset)))
        return f"{instruction.mnemonic} {instruction.operands}".rstrip()

    def inlines(self, entry: int) -> tuple[InlineSite, ...]:
        """What is inlined into the function that starts there, as far as a PDB says."""
        return self._inlines.get(entry, ())

    def inlined_into(self, name: str) -> frozenset[int]:
        """Entries of the functions that have a function of that name inlined."""
        return frozenset(site.caller for site in self.image.inlines if site.name == name)

    @cached_property
    def _inlines(self) -> Mapping[int, tuple[InlineSite, ...]]:
        found: dict[int, tuple[InlineSite, ...]] = {}
        for site in self.image.inlines:
            found[site.caller] = (*found.get(site.caller, ()), site)
        return found

    # places ------------------------------------------------------------------------------------------------------------------------------

    def place(self, rva: int) -> Place:
        """What lies at ``rva``."""
        place = self._places.get(rva)
        if place is None:
            place = self._places[rva] = self._place(Rva(rva))
        return place

    def _place(self, rva: Rva) -> Place:
        slot = self.image.imports_by_slot.get(rva)
        if slot is not None:
            return Place(PlaceKind.IMPORT, slot=slot)
        if rva in self.tables:
            function, table = self.tables[rva]
            return Place(PlaceKind.TABLE, function, table=table)
        if rva in self.functions:
            return Place(PlaceKind.FUNCTION, self.functions[rva])
        section = self.section(rva)
        if section is None:
            return NOTHING
        around = self.image.function_at(rva) if section.executable else None
        if around is not None:
            return Place(PlaceKind.FUNCTION, around, position_in(around, rva))
        return WRITABLE if section.writable else CONSTANT

    @cached_property
    def _sections(self) -> tuple[tuple[int, int, Section], ...]:
        return tuple((section.range.start, section.range.end, section) for section in self.image.sections)

    def section(self, rva: int) -> Section | None:
        """The section that holds ``rva``."""
        for start, end, section in self._sections:
            if start <= rva < end:
                return section
        return None

    def writable(self, rva: int) -> bool:
        """Whether the section is."""
        section = self.section(rva)
        return section is not None and section.writable

    # data --------------------------------------------------------------------------------------------------------------------------------

    @cached_property
    def boundaries(self) -> tuple[int, ...]:
        """Every address at which a datum may start or must end, sorted: what anything refers to, symbols, slots, tables, sections."""
        image = self.image
        found = set(self.referenced)
        found.update(datum.rva for datum in image.data_symbols)
        found.update(datum.rva + datum.size for datum in image.data_symbols if datum.size)
        found.update(export.rva for export in image.exports if export.rva is not None)
        found.update(image.imports_by_slot)
        for place, (_, table) in self.tables.items():
            found.update((place, place + table.size))
            if table.index is not None:
                found.update((table.index[0], sum(table.index)))
        for section in image.sections:
            found.update((section.range.start, section.range.end))
        found.update(self.functions)  # literals stand in front of them
        found.update(self.special_data.values())
        found.update(rva + POINTER_SIZE for rva in self._cookies)
        for ends in self.type_parts.items():
            found.update(ends)
        for stretch in self._metadata:
            found.update(stretch)
        for start, size, _ in image.symbols.contributions:
            found.update((start, start + size))
        for one, following in may_be_distances(self, sorted(found)):
            if self.place(one).kind is PlaceKind.CONSTANT:
                found.update(distance_targets(self, one, following))
        # where a pointer lies on both sides, something that is no reference looked like one
        found.difference_update([site + inside for inside in range(1, POINTER_SIZE) for site in image.relocations])
        return tuple(sorted(found))

    @cached_property
    def referenced(self) -> frozenset[int]:
        """Every address that code or a relocated pointer refers to."""
        return frozenset(self.image.pointers.values()).union(*[body.whole_targets for body in self.bodies.values()])

    @cached_property
    def pointed(self) -> frozenset[int]:
        """Every address that a relocated pointer leads to."""
        return frozenset(map(int, self.image.pointers.values()))

    @cached_property
    def users(self) -> Mapping[int, Sequence[int]]:
        """The functions that refer to each address, by entry."""
        found: dict[int, list[int]] = {}
        for entry, body in self.bodies.items():
            for target in dict.fromkeys(body.whole_targets):
                found.setdefault(target, []).append(entry)
        return found

    def distance_tables(self, part: Range) -> tuple[DistanceTable, ...]:
        """The tables of distances that the code in ``part`` adds to their own addresses."""
        found = self._distance_tables.get(part)
        if found is None:
            found = self._distance_tables[part] = self.architecture.distance_tables(self.image.code(part), part.start)
        return found

    @cached_property
    def type_records(self) -> Mapping[int, TypeRecord]:
        """What describes C++ classes and thrown objects, of all that pointers and code refer to, by RVA."""
        image = self.image
        aligned = sorted(target for target in self.referenced if not target % 4)
        constants = [section.range for section in image.sections if image.holds_constants(section)]
        places = [place for low, high in constants for place in aligned[bisect_left(aligned, low) : bisect_left(aligned, high)]]
        return {place: record for place in places if (record := type_record(image, place)) is not None}

    @cached_property
    def type_names(self) -> Mapping[int, bytes]:
        """What describes C++ types by their names alone (``type_info``), by RVA; known by its vtable, which records of classes lead to."""
        image = self.image
        parts = {part for record in self.type_records.values() for part in record.parts}
        vtables = {image.pointers[Rva(part)] for part in parts if part in image.pointers and type_name(image, part)}
        found = ((site, type_name(image, site)) for site, target in image.pointers.items() if target in vtables)
        return {site: name for site, name in found if name}

    @cached_property
    def type_parts(self) -> Mapping[int, int]:
        """Records of C++ types with all their parts, vtables, and the pointers in front of these that lead to records: start → end, RVAs.

        What they are says their form, so that they are parts of no array.
        """
        image, records = self.image, self.type_records
        found = {site: site + TYPE_NAME_AT + len(name) + 1 for site, name in self.type_names.items()}
        found |= {part: part + size for record in records.values() for part, size in record.parts.items()}
        for site, target in image.pointers.items():
            if target in records and records[target].is_class:
                end = found[site] = site + POINTER_SIZE
                while (entry := image.pointers.get(Rva(end))) is not None and image.function_at(entry) is not None:
                    end += POINTER_SIZE
                if end > site + POINTER_SIZE:
                    found[site + POINTER_SIZE] = end
        return found

    @cached_property
    def _metadata(self) -> tuple[Range, ...]:
        return (*metadata(self.image), *self.image.import_address_tables)

    @cached_property
    def records(self) -> frozenset[int]:
        """Where begins what the loader, the debugger, the unwinder or the C++ library reads, or its part that has no known size."""
        partly = (stretch.end for stretch in self._metadata if stretch.size == UNWIND_HEAD)
        return frozenset(self.type_parts) | {*partly, *(stretch.start for stretch in self._metadata)}

    @cached_property
    def special_data(self) -> Mapping[str, int]:
        """What the headers say of data that every image has its own of, by role."""
        found: dict[str, int | None] = {}
        configuration, tls = self.image.load_configuration, self.image.tls
        if configuration is not None:
            found["load configuration"] = configuration.range.start
            found["security cookie"] = configuration.security_cookie
            found["guard check pointer"] = configuration.guard_check_pointer
            found["guard dispatch pointer"] = configuration.guard_dispatch_pointer
        if tls is not None:
            found["tls index"] = tls.index
            found["tls template"] = tls.template.start
        found |= {f"delayed imports of {library}": rva for library, rva in delay_descriptors(self.image)}
        return {role: rva for role, rva in found.items() if rva is not None}

    @property
    def _cookies(self) -> Iterator[int]:
        """The security cookie and its complement, words of the C run time's own: both are constants in the file, the one the other's."""
        image, cookie = self.image, self.special_data.get("security cookie")
        if cookie is None:
            return
        yield cookie
        wanted = bytes(byte ^ 0xFF for byte in image.read(Rva(cookie), POINTER_SIZE))
        for section in image.sections:
            if section.writable and len(wanted) == POINTER_SIZE:
                content = image.read(section.rva, min(section.size, section.raw_size))
                yield from (section.rva + at for at in range(0, len(content), POINTER_SIZE) if content.startswith(wanted, at))

    def extent(self, rva: int) -> Range:
        """From ``rva`` to the next boundary; empty outside of all sections."""
        if self.section(rva) is None:
            return Range(Rva(rva), Rva(rva))
        return Range(Rva(rva), Rva(self.boundaries[bisect_right(self.boundaries, rva)]))

    @cached_property
    def plain(self) -> Mapping[int, bytes]:
        """See :func:`hotpatch.differ.plain.plain_constants`."""
        return plain_constants(self)

    def plain_before(self, rva: int) -> bytes | None:
        """That of them which ends at ``rva``."""
        at = bisect_left(self.boundaries, rva) - 1
        content = self.plain.get(self.boundaries[at]) if at >= 0 else None
        return content if content is not None and self.boundaries[at] + len(content) == rva else None

    @cached_property
    def _sized(self) -> tuple[Datum, ...]:
        best: dict[int, Datum] = {}
        for datum in self.image.data_symbols:
            if datum.size:
                best.setdefault(datum.rva, datum)
        return tuple(best[rva] for rva in sorted(best))

    @cached_property
    def _sized_starts(self) -> tuple[int, ...]:
        return tuple(datum.rva for datum in self._sized)

    def symbol(self, rva: int) -> Datum | None:
        """The symbol of known size that covers ``rva``."""
        at = bisect_right(self._sized_starts, rva) - 1
        return self._sized[at] if at >= 0 and rva < self._sized[at].end else None

    def datum(self, rva: int) -> Range:
        """The datum at ``rva``: as its symbol says, otherwise up to the next thing that anything refers to."""
        symbol = self.symbol(rva)
        return self.extent(rva) if symbol is None else Range(symbol.rva, symbol.end)

    def pointer(self, site: int) -> int:
        """Where the relocated pointer at ``site`` leads, as an RVA."""
        return self.image.pointers[Rva(site)]

    def pointers(self, start: int, end: int) -> tuple[int, ...]:
        """Offsets from ``start`` of the relocated pointers that lie wholly before ``end``."""
        sites = self.image.relocations
        return tuple(site - start for site in sites[bisect_left(sites, start) : bisect_left(sites, end)] if site + POINTER_SIZE <= end)

    def pointers_from(self, rva: int) -> tuple[int, ...]:
        """Offsets from ``rva`` of the relocated pointers up to the next boundary."""
        found = self.holders.get(rva)
        if found is not None:
            return found
        at = bisect_left(self.boundaries, rva)
        return () if self.boundaries[at : at + 1] == (rva,) else self.pointers(*self.extent(rva))

    @cached_property
    def holders(self) -> Mapping[int, tuple[int, ...]]:
        """The boundaries behind which relocated pointers stand, with their offsets up to the next boundary."""
        sites, starts = self.image.relocations, self.boundaries
        found: dict[int, tuple[int, ...]] = {}
        at = bisect_left(sites, starts[0]) if starts else len(sites)
        while at < len(sites) and (following := bisect_right(starts, sites[at])) < len(starts):
            start, end = starts[following - 1], bisect_left(sites, starts[following], at)
            found[start] = tuple([site - start for site in sites[at:end]])
            at = end
        return found

    def bare(self, start: int, size: int) -> bytes:
        """The initial bytes of data, with relocated pointers zeroed, and without what differs in names of types from folder to folder."""
        raw = self.image.read(Rva(start), size)
        raw += bytes(size - len(raw))
        sites = self.pointers(start, start + size)
        unnamed = self.image.kept(UnnamedNamespaces)
        if not sites and not unnamed.hashes(start, start + size):
            return raw
        masked = unnamed.masked(bytearray(raw), start)
        for offset in sites:
            masked[offset : offset + POINTER_SIZE] = bytes(POINTER_SIZE)
        return bytes(masked)


def view_of(image: Image) -> View:
    """The view of ``image``; the same one each time, as long as the image lives."""
    return image.kept(View)
