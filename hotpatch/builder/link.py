"""Linking: the bytes of the patch image's sections, every reference bound or recorded as a fixup."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Reference, Use
from hotpatch.builder.evidence import site_evidence
from hotpatch.builder.model import RECORD_FIELD_SIZE, Area, BaseAddress, CarriedAddress, NewImport
from hotpatch.builder.place import AREA_FLAGS, SHORT_BRANCHES, VeneerForm, veneer_of
from hotpatch.builder.reckonings import new_bytes
from hotpatch.builder.tables import entry_evidence, link_table
from hotpatch.builder.unwinding import handler_veneers, link_unwind
from hotpatch.errors import OutOfReach, Refusal, Rule
from hotpatch.image import Range, SectionFlags
from hotpatch.patch import IMAGE_BASE, SECTION_ALIGNMENT, Fixup, PatchSection, Space, import_table

if TYPE_CHECKING:
    from hotpatch.arch import JumpTable
    from hotpatch.builder.model import Bound, Destination, Link, Reckoning
    from hotpatch.builder.place import Layout
    from hotpatch.image import Image
    from hotpatch.patch import PatchImport

PAGE_SIZE = 0x1000
_PAGE_KINDS = frozenset({FixupKind.PAGEBASE_REL21, FixupKind.IMAGEREL_HIGH12A})
_PAGE_OFFSETS = frozenset({FixupKind.PAGEOFFSET_12A, FixupKind.PAGEOFFSET_12L})
"""Images are mapped at whole pages, so these are known before."""
_PLACE_DEPENDENT = frozenset(
    {FixupKind.ADDR64, FixupKind.ADDR32NB, FixupKind.IMAGEREL_HIGH12A, FixupKind.IMAGEREL_LOW12A, FixupKind.IMAGEREL_LOW12L}
)
"""Kinds that depend on where the patch image is mapped, even for targets within it."""
_READ_ONLY = SectionFlags.INITIALIZED_DATA | SectionFlags.READ


@dataclass(frozen=True, slots=True)
class Linked:
    """The linked sections and everything that goes with them."""

    sections: tuple[PatchSection, ...]
    fixups: tuple[Fixup, ...]
    imports: tuple[PatchImport, ...]
    pdata: Range | None
    import_directory: Range | None
    import_addresses: Range | None


@dataclass(slots=True)
class _Work:
    memory: bytearray
    fixups: list[Fixup] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


def link(bound: Bound, layout: Layout, fixed: Image) -> Linked | tuple[Refusal, ...]:
    """Link what was bound into what was laid out, or say what cannot be expressed there."""
    return _Linker(bound, layout, fixed).run()


class _Linker:
    """One run of linking; ``memory`` is the patch image as mapped."""

    def __init__(self, bound: Bound, layout: Layout, fixed: Image) -> None:
        self.bound, self.layout, self.fixed = bound, layout, fixed
        self.arch, self.placement = fixed.architecture, layout.placement
        self.work = _Work(bytearray(layout.end))
        self.end = layout.end
        self.imports = (
            import_table(self.end, [(entry.library, entry.name, entry.ordinal) for entry in bound.imports]) if bound.imports else None
        )
        if self.imports is not None:
            self._grow(self.imports.data)
        self.slots = {(row.library, row.name, row.ordinal): row.slot for row in self.imports.imports} if self.imports else {}

    def run(self) -> Linked | tuple[Refusal, ...]:
        for piece, rva in zip(self.placement.pieces, self.placement.rvas, strict=True):
            self._store(rva, self.fixed.code(piece.range))
        for at, digits in self.bound.hashes:
            self._store(self.placement.of(at), digits)
        self._fill()
        for table in self._tables():
            self._table(table)
        for _, group in groupby(self.bound.links, key=lambda item: (item.site.field, item.site.kind)):
            self._links(list(group))
        self._reckonings()
        self._veneers()
        self._records()
        sections = self._sections()
        if self.imports is not None:
            sections.append(PatchSection(".idata", self.imports.addresses.start, len(self.imports.data), self.imports.data, _READ_ONLY))
        pdata = None
        if self.bound.unwind:
            unwind = link_unwind(self.fixed, self.bound.unwind, self.end, self.placement, self._handler)
            sections.append(PatchSection(".pdata", self.end, len(unwind.data), unwind.data, _READ_ONLY))
            pdata = unwind.table
        if self.work.refusals:
            return tuple(self.work.refusals)
        return Linked(
            tuple(sections),
            tuple(sorted(self.work.fixups, key=lambda item: item.site)),
            self.imports.imports if self.imports else (),
            pdata,
            self.imports.directory if self.imports else None,
            self.imports.addresses if self.imports else None,
        )

    # bytes -------------------------------------------------------------------------------------------------------------------------------

    def _grow(self, data: bytes) -> None:
        self.work.memory += data.ljust(-(-len(data) // SECTION_ALIGNMENT) * SECTION_ALIGNMENT, b"\0")
        self.end = Rva(len(self.work.memory))

    def _store(self, rva: int, data: bytes) -> None:
        self.work.memory[rva : rva + len(data)] = data

    def _fill(self) -> None:
        """Fill the gaps between pieces of code with traps."""
        filler = self.arch.trap
        for area, part in self.layout.sections:
            if area is not Area.CODE:
                continue
            at: int = part.start
            ends = sorted(
                [
                    (rva, rva + piece.range.size)
                    for piece, rva in zip(self.placement.pieces, self.placement.rvas, strict=True)
                    if piece.area is area
                ]
                + [(rva, rva + len(VeneerForm.of(self.arch).code)) for rva in self.placement.veneers.values()]
            )
            for start, end in (*ends, (part.end, part.end)):
                self._store(at, filler * ((start - at) // len(filler)))
                at = end

    def _sections(self) -> list[PatchSection]:
        out = []
        for area, part in self.layout.sections:
            data = bytes(self.work.memory[part.start : part.end])
            out.append(PatchSection(area.value, part.start, part.size, data.rstrip(b"\0") if area is Area.DATA else data, AREA_FLAGS[area]))
        return out

    # references --------------------------------------------------------------------------------------------------------------------------

    def _where(self, destination: Destination) -> tuple[Space, Rva]:
        match destination:
            case BaseAddress(rva):
                return Space.BASE, rva
            case CarriedAddress(fixed):
                return Space.PATCH, self.placement.of(fixed)
            case NewImport(wanted):
                return Space.PATCH, self.slots[wanted.library, wanted.name, wanted.ordinal]

    def _links(self, links: list[Link]) -> None:
        """Bind one field; an Arm64 ADRP with several users has several links, which must agree."""
        first = links[0]
        site = first.site
        places = [self._where(item.destination) for item in links]
        if site.kind in _PAGE_KINDS and len({(space, (rva + site.addend) // PAGE_SIZE) for space, rva in places}) > 1:
            self._refuse(
                first,
                Rule.UNRESOLVED_REFERENCE,
                "one instruction takes the page of several things that lie in different pages now; leave the function out with --except",
                {"targets": [int(item.site.target) for item in links], "bound": [[space.value, int(rva)] for space, rva in places]},
            )
            return
        space, rva = places[0]
        if site.kind in SHORT_BRANCHES and space is Space.BASE and isinstance(first.destination, BaseAddress):
            space, rva = Space.PATCH, self.placement.veneers[veneer_of(self.bound, site.field, first.destination)]
        at = self.placement.of(site.field)
        if site.kind in _PLACE_DEPENDENT or (space is Space.BASE and site.kind not in _PAGE_OFFSETS):
            self._mask(first, at)
            self._fixup(Fixup(site.kind, at, space, rva, site.addend))
        else:
            self._bind(first, at, rva)

    def _reckonings(self) -> None:
        """Numbers that lead from one address to another in the same image."""
        bound = {item.site: item.destination for item in self.bound.links}
        bound |= {item.site: item.destination for item in self.bound.reckonings}
        for item in self.bound.reckonings:
            (space, anchor), (other, target) = self._where(bound[item.anchor]), self._where(item.destination)
            if space is not other:
                self._refuse(item, Rule.UNRESOLVED_REFERENCE, "the two lie in different images now", {"target": int(item.site.target)})
                continue
            try:
                self._store(self.placement.of(item.site.instruction), new_bytes(self.fixed, item, anchor, target))
            except OutOfReach as far:
                self._refuse(item, Rule.OUT_OF_REACH, far.refusals[0].reason, {"from": int(anchor), "to": int(target)})

    def _bind(self, item: Link, at: Rva, target: Rva) -> None:
        kind = item.site.kind
        size = self.arch.field_size(kind)
        raw = bytes(self.work.memory[at : at + size])
        try:
            self._store(at, self.arch.bind(kind, raw, at, target + item.site.addend))
        except OutOfReach as far:
            self._refuse(item, Rule.OUT_OF_REACH, far.refusals[0].reason, {"site": int(at), "to": int(target)})

    def _mask(self, item: Link, at: Rva) -> None:
        kind = item.site.kind
        size = self.arch.field_size(kind)
        raw = bytes(self.work.memory[at : at + size])
        whole = Reference(0, size, 0, kind, Use.DATA, 0)
        self._store(at, bytes(size) if kind is FixupKind.ADDR64 else self.arch.mask(raw, [whole]))

    def _fixup(self, fixup: Fixup) -> None:
        """Record a fixup; what is an ordinary base relocation gets its value for the preferred base."""
        self.work.fixups.append(fixup)
        if fixup.kind is FixupKind.ADDR64 and fixup.space is Space.PATCH:
            self._store(fixup.site, (IMAGE_BASE + fixup.target + fixup.addend).to_bytes(8, "little"))

    def _refuse(self, item: Link | Reckoning, rule: Rule, reason: str, more: dict[str, object]) -> None:
        owner = self.fixed.function_at(item.site.instruction)
        evidence = {**site_evidence(self.fixed, item.site), **more}
        self.work.refusals.append(Refusal(rule, owner.name if owner else None, owner.entry if owner else None, reason, evidence))

    # made for the patch ------------------------------------------------------------------------------------------------------------------

    def _tables(self) -> list[JumpTable]:
        return list({table.address: table for body in self.bound.bodies for table in body.tables}.values())

    def _table(self, table: JumpTable) -> None:
        name, entry = next((body.function.name, body.function.entry) for body in self.bound.bodies if table in body.tables)
        try:
            data, fixups = link_table(self.fixed, table, self.placement)
        except OutOfReach as far:
            self.work.refusals += [Refusal(item.rule, name, entry, item.reason, item.evidence) for item in far.refusals]
            return
        except KeyError as lost:
            target = int(lost.args[0])
            reason = f"the jump table at 0x{table.address:x} leads to 0x{target:x}, not part of its function; leave it out with --except"
            number = next((number for number, leads_to in enumerate(table.targets) if leads_to == target), 0)
            evidence = {**entry_evidence(self.fixed, table, number), "target": target}
            self.work.refusals.append(Refusal(Rule.UNRESOLVED_REFERENCE, name, entry, reason, evidence))
            return
        self._store(self.placement.of(table.address), data)
        for fixup in fixups:
            self._fixup(fixup)

    def _veneers(self) -> None:
        form = VeneerForm.of(self.arch)
        for veneer, rva in self.placement.veneers.items():
            self._store(rva, form.code)
            space, target = self._where(veneer.destination)
            self._fixup(Fixup(FixupKind.ADDR64, Rva(rva + form.address_at), space, target, 0))

    def _records(self) -> None:
        """Addresses in records of C++ types: distances from the start of the patch image."""
        called = {item.entry for item in self.bound.record_code}
        for site, target in self.bound.records:
            there = self._handler(target) if target in called else self.placement.of(target)
            self._store(self.placement.of(site), int(there).to_bytes(RECORD_FIELD_SIZE, "little"))

    def _handler(self, entry: Rva) -> Rva:
        """Where unwind data and records of types find the function that the fixed image has at ``entry``."""
        named = (*self.bound.handlers, *self.bound.record_code)
        destination = next(item.destination for item in named if item.entry == entry)
        veneer = handler_veneers(self.bound).get(destination)
        return self._where(destination)[1] if veneer is None else self.placement.veneers[veneer]
