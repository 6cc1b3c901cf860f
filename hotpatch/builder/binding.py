"""What each reference of the code and data that travel is bound to (docs/architecture.md, "How the builder binds references").

Binding finds what must travel: a reference to something new makes that travel too, and its own references are bound in turn.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Use
from hotpatch.builder.bodies import body_of, pointer_site
from hotpatch.builder.counterparts import Counterparts
from hotpatch.builder.distances import sites as distance_sites
from hotpatch.builder.distances import tables_of
from hotpatch.builder.doubts import Doubts
from hotpatch.builder.evidence import advice, site_evidence
from hotpatch.builder.groups import Groups
from hotpatch.builder.heirs import Heirs
from hotpatch.builder.live import Live
from hotpatch.builder.model import (
    RECORD_FIELD_SIZE,
    Area,
    BaseAddress,
    Body,
    Bound,
    CarriedAddress,
    Handler,
    Link,
    NewImport,
    Piece,
    Selected,
    Site,
)
from hotpatch.builder.neighbours import Neighbours
from hotpatch.builder.novelty import Novelty
from hotpatch.builder.ownership import Ownership, Usage
from hotpatch.builder.place import LARGEST_DATA_ALIGNMENT
from hotpatch.builder.positions import Positions
from hotpatch.builder.proofs import Proofs
from hotpatch.builder.reached import Reached
from hotpatch.builder.reaches import Distances
from hotpatch.builder.reckonings import Reckonings
from hotpatch.builder.stretches import Stretches
from hotpatch.builder.tables import TableRows, holds_address
from hotpatch.builder.type_names import hashes_of_base
from hotpatch.builder.unchanged import Unchanged
from hotpatch.builder.unclaimed import Unclaimed
from hotpatch.builder.unwinding import HANDLER_SITE_SIZE, descriptors, handler_sites, stray
from hotpatch.builder.unwinding import carry as carry_unwind
from hotpatch.builder.witnesses import Witnesses
from hotpatch.differ import Verdict
from hotpatch.differ.parts import POINTER_SIZE
from hotpatch.differ.view import view_of
from hotpatch.errors import Refusal, Rule
from hotpatch.image import DOS_HEADER_SIZE, Range
from hotpatch.patch import CarriedKind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from hotpatch.arch import DistanceTable, JumpTable
    from hotpatch.builder.model import Destination, Reckoning
    from hotpatch.differ import FunctionMatch, ImageDiff
    from hotpatch.image import Function, Import, Section
    from hotpatch.image.type_records import TypeRecord
    from hotpatch.unwind import CarriedUnwind

SHORT_DATA_KINDS = frozenset({FixupKind.LITERAL19, FixupKind.REL21, FixupKind.REL8})
"""Kinds by which code cannot reach data of another image."""


def bind(diff: ImageDiff, selected: Iterable[Selected], along: Iterable[Function] = ()) -> tuple[Bound, tuple[Refusal, ...]]:
    """Bind everything that ``selected``, and new functions that come ``along``, need; what could not be bound is a refusal."""
    chosen = tuple(selected)
    binder = _Binder(diff, frozenset(item.base.entry for item in chosen))
    for item in chosen:
        binder.carry(item.fixed)
    for function in along:
        binder.carry(function)
    binder.run()
    return binder.result(), tuple(binder.refusals)


class _Binder:
    """The work list: functions and data to take along, and what was found out about their references."""

    def __init__(self, diff: ImageDiff, selected: frozenset[Rva]) -> None:
        self.diff, self.base, self.fixed = diff, diff.base, diff.fixed
        self.view = view_of(diff.fixed)
        self.base_view = view_of(diff.base)
        self.novelty = Novelty(diff, self.view, self.base_view)
        self.table_rows = TableRows(diff.fixed)
        there = Reached(self.base_view, [row.base for row in diff.functions])
        here = Reached(self.view, [row.fixed for row in diff.functions])
        unchanged = Unchanged(diff, self.view, self.base_view)
        proofs = Proofs(diff, self.view, self.base_view, unchanged, there, here)
        self.ownership = Ownership(diff, self.view, self.base_view, proofs)
        self.stretches = Stretches(diff, self.view, self.base_view, self.ownership)
        self.positions = Positions(diff, self.view, self.base_view, self.novelty)
        unclaimed = Unclaimed(diff, self.view, self.base_view)
        self.doubts = Doubts(diff, self.positions, unclaimed, selected, self.view)
        self.groups = Groups(self.view, self.base_view)
        distances = Distances(diff, self.view, self.base_view, unchanged, self.novelty, self.positions, proofs)
        self.witnesses = Witnesses(diff, self.view, self.base_view, there, here, distances, self.novelty)
        self.usage: dict[Rva, Usage] = {}
        self.neighbours = Neighbours(diff, distances, self.witnesses, self.ownership, self.usage, Reckonings(diff.fixed, self._reckoned))
        self.reckonings: tuple[Reckoning, ...] = ()
        self.together: dict[tuple[Rva, int], Range] = {}
        self.outside: dict[Rva, Range] = {}
        self.live = Live(
            diff,
            self.view,
            self.ownership,
            self.novelty,
            self.positions,
            self.doubts,
            self.groups,
            self.witnesses,
            proofs,
            unclaimed,
            Heirs(diff, self.view, self.base_view, there, here),
        )
        self.rows = _rows_by_fixed(diff, selected)
        self.base_slots = {entry.label: entry.slot for entry in reversed(diff.base.imports)}
        self.bodies: dict[Rva, Body] = {}
        self.data: dict[Range, Area] = {}
        self.links: list[Link] = []
        self.falls: dict[Rva, Destination] = {}
        self.unwind: list[CarriedUnwind] = []
        self.handlers: list[Handler] = []
        self.record_code: list[Handler] = []
        self.records: dict[Rva, Rva] = {}
        self.hashes: tuple[tuple[Rva, bytes], ...] = ()
        self.imports: dict[str, Import] = {}
        self.refusals: list[Refusal] = []
        self.distances: dict[Rva, tuple[Function, DistanceTable]] = {}
        self.followed: dict[Rva, Rva] = {}
        self._functions: list[Function] = []
        self._ranges: list[Range] = []
        self._carried: set[Rva] = set()

    # what travels ------------------------------------------------------------------------------------------------------------------------

    def carry(self, function: Function) -> None:
        """Take a function along."""
        if function.entry not in self._carried:
            self._carried.add(function.entry)
            self._functions.append(function)

    def _carry_data(self, part: Range, area: Area) -> None:
        if part not in self.data:
            self.data[part] = area
            self._ranges.append(part)

    def run(self) -> None:
        """Until nothing more must travel."""
        while self._functions or self._ranges:
            if self._functions:
                self._bind_function(self._functions.pop(0))
            elif self._ranges:
                self._bind_data(self._ranges.pop(0))
            self._bind_distances()
            if not self._functions and not self._ranges and not self.refusals:
                self._bind_neighbours()
        for item, reference in stray(self.unwind, [block for body in self.bodies.values() for block in body.blocks]):
            function = self.fixed.function_at(item.entry.range.start)
            reason = (
                f"its exception tables are those of the function at 0x{reference.target:x} too, which does not travel; "
                "list that one with --only, or leave this one out"
            )
            at = item.entry.range.start
            field = item.info[reference.offset : reference.offset + HANDLER_SITE_SIZE]
            evidence: dict[str, object] = {"code": int(reference.target), "bytes": field.hex()}
            self.refusals.append(Refusal(Rule.UNWIND, function.name if function else None, at, reason, evidence))
        self.hashes, unclear = hashes_of_base(self.base, self.fixed, self.data)
        self.refusals += unclear

    def _bind_neighbours(self) -> None:
        """What code reaches at constant distances from data that it names travels along with these."""
        found = self.neighbours.of(self.bodies.values(), self.links, [part for part, _ in self._merged()])
        self.links, self.reckonings = found.links, found.reckonings
        self.refusals += found.refusals
        for part, area in found.carried:
            self._carry_data(part, area)

    def _reckoned(self, function: Function, site: Site) -> Destination | str:
        """What an address is bound to that is reckoned from another."""
        usage = self.usage[function.entry] = self.usage[function.entry].besides(self.fixed, site)
        found = self.destination(function, site)
        if not isinstance(found, BaseAddress):
            return found
        why = self.witnesses.unproven(site) or self.ownership.unclear_end(usage, site.target, found.rva)
        others = usage.handed_there(site.target) - {found.rva}
        return why or (f"the base's version of the function hands on 0x{min(others):x} instead" if others else found)

    def _bind_function(self, function: Function) -> None:
        body = body_of(self.fixed, function)
        if isinstance(body, Refusal):
            self.refusals.append(body)
            return
        self.bodies[function.entry] = body
        for table in body.tables:
            objection = self.table_rows.objection(table)
            if objection is not None:
                site = Site(Rva(table.address), table.entry_size, Rva(table.address), FixupKind.REL32, Use.DATA, Rva(table.address), 0)
                self._refuse(function, site, objection)
                continue
            self._carry_table(body, table)
        for found in tables_of(self.fixed, function):
            self.distances.setdefault(Rva(found.address), (function, found))
        self._survey(function, body)
        for site in body.sites:
            if site.use is Use.PARTIAL:
                self._refuse(function, site, "an instruction takes the page of something, and what it is completed to is unknown")
                continue
            self._bind(function, site)
        for end, target in body.falls_into.items():
            self._bind_fall(function, end, target)
        self._bind_unwind(body)

    def _survey(self, function: Function, body: Body) -> None:
        """Find out what the function does with the addresses of data, and which constants it must have in one piece."""
        row = self.rows.get(function.entry)
        counterparts = (
            Counterparts(self.diff, self.base_view, self.view, (row.base, function)) if row is not None and row.base is not None else None
        )
        usage = self.usage[function.entry] = Usage(self.fixed, body.sites, counterparts, self.neighbours.accessed(body))
        special = {*self.view.special_data.values(), *self.fixed.imports_by_slot}
        apart = {
            target
            for target in usage.targets
            if target in special
            or target < self.fixed.headers_size
            or self.fixed.function_at(target) is not None
            or (
                (any(table.covers(target) for table in body.tables) or target in self.view.type_parts)
                and self.stretches.ending_at(usage, target) is None
            )
        }
        for target, part in self.stretches.together(usage, apart).items():
            self.together[function.entry, target] = part

    def _bind_fall(self, function: Function, end: Rva, target: Rva) -> None:
        """Code that runs on past its block's end into ``target``."""
        site = Site(Rva(end - 1), 1, end, FixupKind.ADDR64, Use.JUMP, target, 0)
        found = self.destination(function, site)
        if isinstance(found, str):
            self._refuse(function, site, found)
            return
        self.falls[end] = found
        if isinstance(found, CarriedAddress):
            self._carry_at(found.fixed)

    def _bind_unwind(self, body: Body) -> None:
        carried, refusals = carry_unwind(self.fixed, body)
        self.unwind += carried
        self.refusals += refusals
        for part in descriptors(self.fixed, carried):
            self._carry_data(part, Area.DATA)
        for site, travels in handler_sites(carried):
            found = CarriedAddress(site.target) if travels else self.destination(None, site)
            if isinstance(found, str):
                self._refuse(body.function, site, found)
                continue
            self.handlers.append(Handler(site.target, found, body.blocks[0].start))
            if isinstance(found, CarriedAddress):
                self._carry_at(found.fixed)

    def _carry_table(self, body: Body, table: JumpTable) -> None:
        for start, size in ((table.address, table.size), *((table.index,) if table.index else ())):
            if not any(start in block for block in body.blocks):
                self._carry_data(Range(Rva(start), Rva(start + size)), Area.CONSTANT)

    def _bind_data(self, part: Range) -> None:
        for rva in self.fixed.relocations_in(part):
            if not any(holds_address(table, rva) for table in self.table_rows.covering(rva, self.bodies)):
                self._bind(None, pointer_site(self.fixed, part.start, rva))

    def _bind_distances(self) -> None:
        """Bind the entries of tables of distances that travel; a table that stays in the base is right as it is."""
        for address, (function, table) in sorted(self.distances.items()):
            part = next((part for part in self.data if address in part), None)
            if part is None:
                continue
            del self.distances[address]
            self.followed[address] = self.view.extent(address).end
            sites = distance_sites(self.fixed, table, part, self.followed[address])
            if sites is None:
                site = Site(address, table.entry_size, address, FixupKind.REL32, Use.DATA, address, 0)
                self._refuse(function, site, "a table of distances from itself, of a form or a length that cannot be bound anew")
            for site in sites or ():
                self._bind(function, site)

    def _bind(self, function: Function | None, site: Site) -> None:
        found = self.destination(function, site)
        whole = self.together.get((function.entry, site.target)) if function is not None else None
        whole = whole or self.outside.get(site.target) or self.live.outside.get(site.target)
        if isinstance(found, CarriedAddress) and self.novelty.is_other_class(site.target):
            found = "a C++ class or thrown object is described otherwise than in the base, where objects of it may live"
        if isinstance(found, BaseAddress) and site.kind in SHORT_DATA_KINDS and site.use is Use.DATA:
            found = f"an instruction that reaches no farther than its own image names 0x{site.target:x}, which stays in the base"
        if isinstance(found, str):
            self._refuse(function, site, found)
            return
        self.links.append(Link(site, found))
        if isinstance(found, CarriedAddress) and site.target in self.view.type_records:
            self._carry_record(function, self.view.type_records[site.target])
        if whole is not None and isinstance(found, CarriedAddress):
            section = self.fixed.section_at(whole.start)
            self._carry_data(whole, Area.DATA if section is not None and section.writable else Area.CONSTANT)
            return
        match found:
            case NewImport(wanted):
                self.imports.setdefault(wanted.label, wanted)
            case CarriedAddress(fixed):
                self._carry_at(fixed)
            case BaseAddress():
                pass

    def _carry_record(self, function: Function | None, record: TypeRecord) -> None:
        """Take a record of a C++ type along, with all that it leads to: its addresses count from the start of its own image."""
        for start, size in record.parts.items():
            section = self.fixed.section_at(start)
            self._carry_data(Range(Rva(start), Rva(start + size)), Area.DATA if section and section.writable else Area.CONSTANT)
        for field, target in record.fields:
            if field in self.records:
                continue
            self.records[field] = target
            if target not in record.code:
                continue
            site = Site(field, RECORD_FIELD_SIZE, field, FixupKind.ADDR32NB, Use.CALL, target, 0)
            found = self.destination(None, site)
            if isinstance(found, str):
                self._refuse(function, site, found)
                continue
            first = next(iter(self.bodies.values()))  # a record belongs to no function; any block will do
            self.record_code.append(Handler(site.target, found, first.blocks[0].start))
            if isinstance(found, CarriedAddress):
                self._carry_at(found.fixed)

    def _carry_at(self, fixed: Rva) -> None:
        function = self.fixed.function_at(fixed)
        if function is not None and not self._in_table(fixed):
            self.carry(function)
        elif not self._in_table(fixed):
            part = self.novelty.extent(fixed)
            front = Rva(part.start - POINTER_SIZE)
            if front in self.view.type_parts and part.start in self.view.type_parts:
                part = Range(front, part.end)  # which class a vtable is of says the pointer in front of it
            section = self.fixed.section_at(fixed)
            self._carry_data(part, Area.DATA if section is not None and section.writable else Area.CONSTANT)

    def _refuse(self, function: Function | None, site: Site, why: str) -> None:
        name = function.name if function else None
        entry = function.entry if function else site.instruction
        reason, evidence = f"{why}; {advice(self.base, self.fixed)}", site_evidence(self.fixed, site)
        said = ((refusal.rva, refusal.reason, refusal.evidence.get("target")) for refusal in self.refusals)
        if (entry, reason, evidence["target"]) not in said:  # of the instructions that make one address, the first tells
            self.refusals.append(Refusal(Rule.UNRESOLVED_REFERENCE, name, entry, reason, evidence))

    def _in_table(self, fixed: int) -> bool:
        return any(True for _ in self.table_rows.covering(fixed, self.bodies))

    # where references go -----------------------------------------------------------------------------------------------------------------

    def destination(self, function: Function | None, site: Site) -> Destination | str:
        """What ``site`` of ``function`` (``None``: of data) is bound to, or why that is unknown."""
        target = site.target
        if function is None:
            if self._in_table(target):
                return CarriedAddress(target)
        elif (function.entry, target) in self.together or any(table.covers(target) for table in self.bodies[function.entry].tables):
            return CarriedAddress(target)
        slot = self.fixed.imports_by_slot.get(target)
        if slot is not None:
            there = self.base_slots.get(slot.label)
            return BaseAddress(there) if there is not None else NewImport(slot)
        if 0 <= target < self.fixed.headers_size:
            return (
                BaseAddress(target) if target < DOS_HEADER_SIZE else "a reference into the image's headers, which differ between the images"
            )
        owner = self.fixed.function_at(target)
        if owner is not None:
            return self._code(function, owner, site)
        return self._data(function, site)

    def _code(self, function: Function | None, owner: Function, site: Site) -> Destination | str:
        target = site.target
        row = self.rows.get(owner.entry)
        within = function is not None and owner.entry == function.entry
        if within and (target != owner.entry or site.use in (Use.JUMP, Use.BRANCH)):
            return CarriedAddress(target)
        if row is None or row.base is None:
            return CarriedAddress(target)
        if target == owner.entry:
            return self.doubts.entry(row, row.base)
        if owner.entry in self._carried:
            return CarriedAddress(target)
        return self._middle(row, row.base, owner, target)

    def _middle(self, row: FunctionMatch, base: Function, owner: Function, target: Rva) -> Destination | str:
        """A place inside of a base function, where that function is the same there."""
        same = row.verdict in (Verdict.IDENTICAL, Verdict.RELOCATED) and [part.size for part in base.ranges] == [
            part.size for part in owner.ranges
        ]
        for there, here in zip(base.ranges, owner.ranges, strict=False):
            if same and target in here:
                return BaseAddress(Rva(there.start + target - here.start))
        return f"a reference into the middle of {owner.label}, which the base has in another form"

    def _data(self, function: Function | None, site: Site) -> Destination | str:
        target = site.target
        section = self.fixed.section_at(target)
        usage = self.usage.get(function.entry) if function is not None else None
        if section is None or (section.writable and self.fixed.has_symbols and target not in self.view.special_data.values()):
            found = self.live.outside_of_symbols(usage, site) if self.fixed.has_symbols else None
            if found is not None:
                return self.live.as_end(function, usage, site, found)
        if section is None:
            return f"a reference to 0x{target:x}, where the fixed image has nothing"
        if target not in self.novelty.extent(target):
            return f"a reference to 0x{target:x}, where no datum is known"
        role = next((role for role, rva in sorted(self.view.special_data.items()) if rva == target), None)
        if role is not None:
            there = self.base_view.special_data.get(role)
            if there is None:
                return f"a reference to the {role}, which the base does not have"
            return self.live.as_end(function, usage, site, BaseAddress(Rva(there)))
        travelling = None if section.writable else self._travelling(function, site, section)
        if travelling is not None:
            return travelling
        matched, described = self.diff.base_datum(target), self.novelty.same_type(target)
        if described is not None and matched in (None, described):
            return BaseAddress(described)
        found = self._live(function, usage, site, matched) if section.writable else self._constant(function, target, matched)
        if found is not None:
            return self.live.as_end(function, usage, site, found) if section.writable else found
        if self.fixed.holds_code(section):
            return f"a reference to 0x{target:x} between functions, which is neither known code nor known data"
        equal = self.novelty.equal_constant(target)
        if equal is not None and self._is_aligned(function, target, equal):
            return BaseAddress(equal)
        if section.writable and (self.view.symbol(target) is None or not (self.fixed.has_symbols and self.base.has_symbols)):
            return self.live.as_end(function, usage, site, self.live.nameless(usage, target))
        objection = self.novelty.objection(target)
        return CarriedAddress(target) if objection is None else objection

    def _travelling(self, function: Function | None, site: Site, section: Section) -> Destination | None:
        """A constant that must lie near the code, or in one piece with others that a pointer may lead to the end of."""
        if site.kind in SHORT_DATA_KINDS:
            return CarriedAddress(site.target)
        whole = self.stretches.around(site.target) if function is None and self.fixed.holds_constants(section) else None
        if whole is None:
            return None
        self.outside[site.target] = whole
        return CarriedAddress(site.target)

    def _constant(self, function: Function | None, target: Rva, matched: Rva | None) -> Destination | None:
        """A constant that the base has too, whole."""
        if matched is None or not self._is_aligned(function, target, matched) or not self.novelty.is_whole(target, matched):
            return None
        return BaseAddress(matched)

    def _live(self, function: Function | None, usage: Usage | None, site: Site, matched: Rva | None) -> Destination | str | None:
        """A live datum that the base has, where code can access it, or why not; ``None`` where nothing is known of it."""
        found = self.live.known(usage, site, matched)
        if matched is None or found != BaseAddress(matched) or self._is_aligned(function, site.target, matched):
            return found
        return f"the base has the datum at 0x{matched:x}, where code cannot access it, because that is not aligned as 0x{site.target:x} is"

    def _is_aligned(self, function: Function | None, target: Rva, base: Rva) -> bool:
        """Whether all instructions of ``function`` that refer to ``target`` can access ``base`` instead."""
        if function is None or (base - target) % LARGEST_DATA_ALIGNMENT == 0:
            return True
        sites = (site for site in self.bodies[function.entry].sites if site.target == target and site.use is Use.DATA)
        arch = self.fixed.architecture
        return all(base % arch.alignment(site.kind, self.fixed.read(site.instruction, site.size), site.instruction) == 0 for site in sites)

    # outcome -----------------------------------------------------------------------------------------------------------------------------

    def _merged(self) -> list[tuple[Range, Area]]:
        """The data that travel, those that overlap joined."""
        merged: list[tuple[Range, Area]] = []
        for part, area in sorted(self.data.items()):
            if merged and part.start < merged[-1][0].end:
                merged[-1] = (Range(merged[-1][0].start, max(merged[-1][0].end, part.end)), merged[-1][1])
            else:
                merged.append((part, area))
        return merged

    def result(self) -> Bound:
        """Everything that travels, data that overlaps joined."""
        pieces = [Piece(block, Area.CODE, None, None, body.function) for body in self.bodies.values() for block in body.blocks]
        for part, area in self._merged():
            datum = self.fixed.datum_at(part.start)
            name = datum.name if datum is not None and datum.rva == part.start else None
            pieces.append(Piece(part, area, name, CarriedKind.DATA if area is Area.DATA else CarriedKind.CONSTANT))
        return Bound(
            tuple(self.bodies[entry] for entry in sorted(self.bodies)),
            tuple(sorted(pieces, key=lambda piece: piece.range)),
            tuple(sorted(self.links, key=lambda link: (link.site.field, link.site.target))),
            dict(sorted(self.falls.items())),
            tuple(self.imports[label] for label in sorted(self.imports)),
            tuple(self.unwind),
            tuple(self.handlers),
            tuple(self.record_code),
            tuple(sorted(self.records.items())),
            dict(sorted(self.followed.items())),
            self.reckonings,
            self.hashes,
        )


def _rows_by_fixed(diff: ImageDiff, selected: Collection[Rva]) -> Mapping[Rva, FunctionMatch]:
    """The row of each fixed entry; where folding gives several, one whose base does the same, or will: it is ``selected``."""
    rows: dict[Rva, list[FunctionMatch]] = defaultdict(list)
    for row in diff.functions:
        if row.fixed is not None:
            rows[row.fixed.entry].append(row)

    def rank(row: FunctionMatch) -> tuple[bool, bool, bool, int]:
        entry = row.base.entry if row.base else Rva(0)
        return row.base is None, row.verdict is Verdict.CHANGED, entry not in selected, entry

    return {entry: min(found, key=rank) for entry, found in rows.items()}
