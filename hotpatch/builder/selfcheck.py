"""The check after linking: the finished patch, read back from its bytes and bound, must say what the fixed image says.

It uses nothing that the linker computed but where things were placed. References are decoded again from the bound bytes, and each is
compared with the fixed image's by what the comparison knows of both images.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hotpatch.address import Rva, Va
from hotpatch.arch import FixupKind, Use
from hotpatch.builder.distances import sites as distance_sites
from hotpatch.builder.distances import tables_of
from hotpatch.builder.model import RECORD_FIELD_SIZE, Site
from hotpatch.builder.place import VeneerForm
from hotpatch.builder.reaches import reaches
from hotpatch.builder.recounts import Recount, recounts
from hotpatch.builder.same import Sameness
from hotpatch.builder.tables import holds_address
from hotpatch.builder.type_names import hashes_of_base
from hotpatch.builder.unwinding import called, entries_of
from hotpatch.differ.parts import POINTER_SIZE
from hotpatch.errors import HotpatchError, Refusal, Rule
from hotpatch.image.type_records import type_record
from hotpatch.patch import CarriedKind, Space
from hotpatch.unwind import Meaning, unwinder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hotpatch.arch import Instruction, JumpTable, Reference
    from hotpatch.builder.model import Body, Bound, Piece, Placement
    from hotpatch.builder.reaches import Reach
    from hotpatch.differ import ImageDiff
    from hotpatch.image import Function, Range, UnwindEntry
    from hotpatch.patch import Patch
    from hotpatch.unwind import CarriedUnwind, UnwindReference

_BASE_VA = Va(0x7FF6_1234_0000)
"""Any place will do; not the preferred one, so that nothing passes because it was never bound."""
_GRANULARITY = 0x10000


def self_check(patch: Patch, diff: ImageDiff, bound: Bound, placement: Placement) -> tuple[Refusal, ...]:
    """Every difference between what ``patch`` does once it is applied and what the fixed image does."""
    return tuple(_Check(patch, diff, bound, placement).run())


class _Check:
    """One patch as it would stand in a process."""

    def __init__(self, patch: Patch, diff: ImageDiff, bound: Bound, placement: Placement) -> None:
        self.patch, self.diff, self.bound, self.placement = patch, diff, bound, placement
        self.fixed, self.arch = diff.fixed, diff.fixed.architecture
        self.patch_va = Va(_BASE_VA + -(-diff.base.size_of_image // _GRANULARITY) * _GRANULARITY)
        self.same = Sameness(diff)
        self.form = VeneerForm.of(self.arch)
        self.veneers = frozenset(placement.veneers.values())
        self.slots = {row.slot: row for row in patch.imports}
        self.tables = {table.address: table for body in bound.bodies for table in tables_of(diff.fixed, body.function)}
        self.seen: set[int] = set()
        self.records = dict(bound.records)
        self.named: dict[tuple[int, int], int] = {}
        """The field of a reference and its target → the VA that it is bound to."""
        self.memory = b""
        self.differing: list[Instruction] = []
        """Instructions of the function looked at that differ but for the fields of references."""
        self.reckoned: list[Site] = []
        """Of these, those that lead by another number to the right place."""

    def run(self) -> Iterator[Refusal]:
        try:
            self.memory = self._bound_memory()
        except HotpatchError as problem:
            yield self._wrong(None, None, f"a fixup cannot be bound ({problem})")
            return
        for body in self.bound.bodies:
            for part in body.function.ranges:
                yield from self._code(body.function, part)
            yield from self._recounted(body)
            yield from self._reaches(body)
            yield from self._tables(body)
            yield from self._falls(body)
            yield from self._unwind(body)
        for piece in self.placement.pieces:
            if piece.kind is not None:
                yield from self._data(piece)
        yield from self._records()
        yield from self._entries()
        for fixup in self.patch.fixups:
            if fixup.site not in self.seen:
                yield self._wrong(None, None, f"a fixup at 0x{fixup.site:x} of the patch belongs to no reference", site=int(fixup.site))

    def _bound_memory(self) -> bytes:
        """The patch image with its fixups bound."""
        memory = bytearray(self.patch.image.mapped)
        for fixup in self.patch.fixups:
            origin = _BASE_VA if fixup.space is Space.BASE else self.patch_va
            size = self.arch.field_size(fixup.kind)
            raw = bytes(memory[fixup.site : fixup.site + size])
            target = origin + fixup.target + fixup.addend
            memory[fixup.site : fixup.site + size] = self.arch.bind(
                fixup.kind, raw, self.patch_va + fixup.site, target, image_base=_BASE_VA
            )
        return bytes(memory)

    def _read(self, va: int, size: int) -> bytes:
        at = va - self.patch_va
        return self.memory[at : at + size] if at >= 0 else b""

    def _wrong(self, function: Function | None, rva: int | None, what: str, **evidence: object) -> Refusal:
        name = function.name if function else None
        reason = f"the finished patch does not do what the fixed image does: {what}; report this with both images"
        return Refusal(Rule.SELF_CHECK, name, Rva(rva) if rva is not None else None, reason, evidence)

    # code --------------------------------------------------------------------------------------------------------------------------------

    def _code(self, function: Function, part: Range) -> Iterator[Refusal]:
        at = self.placement.of(part.start)
        code = self.memory[at : at + part.size]
        spans = [(start - part.start, size) for start, size in self._spans(function) if start in part]
        wanted = [item for item in self.fixed.references_in(part) if not _within(item.field, spans)]
        found = [item for item in self.arch.references(code, self.patch_va + at, image_base=_BASE_VA) if not _within(item.field, spans)]
        yield from self._references(function, part, wanted, found)
        pointers = [rva - part.start for rva in self.fixed.relocations_in(part) if not _within(rva - part.start, spans)]
        for offset in pointers:
            yield from self._pointer(function, Rva(part.start + offset))
        blank = [*spans, *((offset, POINTER_SIZE) for offset in pointers)]
        here, there = _blanked(self.arch.mask(self.fixed.code(part), wanted), blank), _blanked(self.arch.mask(code, found), blank)
        if here != there:
            differing = [one for one in self.fixed.instructions_in(part) if _span(here, one, part) != _span(there, one, part)]
            self.differing += differing
            blank = [(one.address - part.start, one.size) for one in differing]
            if _blanked(bytes(here), blank) != _blanked(there, blank):
                yield self._wrong(function, part.start, "instructions differ", fixed=self.fixed.code(part).hex(), patch=code.hex())

    def _recounted(self, body: Body) -> Iterator[Refusal]:
        """Instructions that differ must lead by another number to what the fixed image's lead to, and do nothing else otherwise."""
        differing, self.differing = self.differing, []
        read = partial(_part, self.memory)
        for item in recounts(self.fixed, body, self.bound.bodies, differing, read, self.placement.of) if differing else ():
            if not isinstance(item, Recount):
                yield self._wrong(body.function, item.address, f"the instruction at 0x{item.address:x} differs")
                continue
            anchor = item.fixed.anchor
            target, found = Rva(item.fixed.target(anchor.target)), item.patch.target(self.named[anchor.field, anchor.target])
            self.named[item.at, target] = found
            self.reckoned.append(Site(item.at, item.size, item.at, item.fixed.counted.kind, Use.DATA, target, 0))
            problem = self._problem(body.function, target, found, Use.DATA)
            if problem is not None:
                yield self._wrong(body.function, item.at, f"the instruction at 0x{item.at:x} leads to {problem}", target=target)

    def _spans(self, function: Function) -> list[tuple[int, int]]:
        tables = self.fixed.jump_tables(function)
        return [(table.address, table.size) for table in tables] + [table.index for table in tables if table.index]

    def _references(self, function: Function, part: Range, wanted: Sequence[Reference], found: Sequence[Reference]) -> Iterator[Refusal]:
        shape = [_shape(item) for item in wanted]
        if shape != [_shape(item) for item in found]:
            extra = next((item for item in found if _shape(item) not in shape), None)
            lost = next((item for item in wanted if _shape(item) not in [_shape(other) for other in found]), None)
            yield self._wrong(
                function,
                part.start + (lost or extra or wanted[0]).offset,
                "its references are not those of the fixed image",
                missing=lost.offset if lost else None,
                added=extra.offset if extra else None,
            )
            return
        for here, there in zip(wanted, found, strict=True):
            self._see(Rva(self.placement.of(part.start) + here.field))
            self.named[part.start + here.field, here.target] = there.target
            problem = self._problem(function, here.target, there.target, here.use) if here.use is not Use.UNUSED else None
            if problem is not None:
                yield self._wrong(
                    function,
                    part.start + here.offset,
                    f"the instruction at 0x{part.start + here.offset:x} refers to {problem}",
                    bytes=self.fixed.read(part.start + here.offset, here.size).hex(),
                    target=here.target,
                )

    def _reaches(self, body: Body) -> Iterator[Refusal]:
        """What is reached at constant distances from data that code names must be there as well; a bare address may be a symbol's end."""
        reckoned, self.reckoned = self.reckoned, []
        for site, items in reaches(self.fixed, body, reckoned).items():
            for item in (
                item for item in items if (item.width or item.indexed or not self._is_end(item)) and not self.same.is_own_index(item)
            ):
                found = self.named.get((site.field, site.target))
                problem = self._reach_problem(item, found) if found is not None else None
                if problem is not None:
                    yield self._wrong(body.function, item.at, f"the instruction at 0x{item.at:x} reaches {problem}", target=int(item.start))

    def _is_end(self, item: Reach) -> bool:
        datum = self.fixed.datum_at(item.taken)
        return datum is not None and datum.end == item.start

    def _reach_problem(self, item: Reach, found: int) -> str | None:
        in_base, at = found - _BASE_VA, found - self.patch_va
        if 0 <= in_base < self.diff.base.size_of_image:
            return self.same.reach_problem(item, in_base + item.start - item.taken)
        try:
            ends = [self.placement.of(place) - place for place in (item.taken, item.start, item.end - 1)] if at not in self.slots else []
        except KeyError:
            return f"0x{item.start:x}, which does not travel, from the patch's copy of 0x{item.taken:x}"
        return None if len(set(ends)) < 2 else f"0x{item.start:x} at another distance from 0x{item.taken:x} than in the fixed image"

    def _see(self, site: Rva) -> None:
        self.seen.add(site)

    def _problem(self, function: Function | None, wanted: int, found: int, use: Use) -> str | None:
        """What is wrong with a reference to VA ``found`` where the fixed image refers to its RVA ``wanted``."""
        in_base = found - _BASE_VA
        if 0 <= in_base < self.diff.base.size_of_image:
            return self.same.base_problem(in_base, wanted)
        at = found - self.patch_va
        if at in self.veneers:
            return self._problem(function, wanted, self._behind(Rva(at)), use)
        slot = self.slots.get(Rva(at))
        if slot is not None:
            return self.same.import_problem(slot, wanted)
        try:
            expected = self.placement.of(wanted)
        except KeyError:
            return f"0x{found:x}, which is neither in the base nor carried"
        if at != expected:
            return f"0x{at:x} of the patch instead of 0x{expected:x}"
        record = type_record(self.fixed, wanted)
        if record is not None:
            self.records.update(record.fields)
        elif self._is_vtable(wanted) and not self._is_vtable_of_patch(expected):
            return "a vtable without the pointer in front of it that tells its class"
        return self.same.copy_problem(function, wanted, use)

    def _is_vtable(self, rva: int) -> bool:
        """Whether a pointer in front leads to the record of a C++ class."""
        front = self.fixed.pointers.get(Rva(rva - POINTER_SIZE))
        record = type_record(self.fixed, front) if front is not None else None
        return record is not None and record.is_class

    def _is_vtable_of_patch(self, rva: Rva) -> bool:
        return any(fixup.site == rva - POINTER_SIZE and fixup.kind is FixupKind.ADDR64 for fixup in self.patch.fixups)

    def _records(self) -> Iterator[Refusal]:
        """Records of C++ types count from the start of their own image."""
        for field, target in sorted(self.records.items()):
            try:
                at, wanted = self.placement.of(field), self._where(target)
            except KeyError:
                yield self._wrong(None, field, f"a record of a C++ type at 0x{field:x} came along without all of its parts")
                continue
            found = int.from_bytes(self.memory[at : at + RECORD_FIELD_SIZE], "little")
            problem = None if found == wanted else f"0x{found:x} of the patch instead of 0x{wanted or 0:x}"
            if wanted is None:
                problem = self._problem(None, target, self.patch_va + found, Use.CALL)
            if problem is not None:
                yield self._wrong(None, field, f"a record of a C++ type leads at 0x{field:x} to {problem}")

    def _where(self, rva: Rva) -> Rva | None:
        """Where a part of a record is in the patch image; ``None`` of code, which may be elsewhere."""
        section = self.fixed.section_at(rva)
        return None if section is not None and self.fixed.holds_code(section) else self.placement.of(rva)

    def _behind(self, veneer: Rva) -> int:
        """Where a veneer leads."""
        code = self.memory[veneer : veneer + len(self.form.code)]
        at = self.form.address_at
        self._see(Rva(veneer + at))
        if code[:at] + bytes(POINTER_SIZE) + code[at + POINTER_SIZE :] != self.form.code:
            return 0
        return int.from_bytes(code[at : at + POINTER_SIZE], "little")

    def _falls(self, body: Body) -> Iterator[Refusal]:
        for end, target in body.falls_into.items():
            at = self.placement.of(end - 1) + 1
            if at not in self.veneers:
                yield self._wrong(body.function, end, "it runs on past its end, and nothing stands there")
                continue
            problem = self._problem(None, target, self._behind(Rva(at)), Use.JUMP)
            if problem is not None:
                yield self._wrong(body.function, end, f"past its end it goes to {problem}")

    # tables and data ---------------------------------------------------------------------------------------------------------------------

    def _tables(self, body: Body) -> Iterator[Refusal]:
        function = body.function
        for part in function.ranges:
            at = self.placement.of(part.start)
            code = self.memory[at : at + part.size]
            wanted = self.fixed.jump_tables_in(part)
            ends = {self.patch_va + self.placement.of(table.address): table.size for table in wanted}
            limit = partial(_end_of_table, ends)
            found = self.arch.jump_tables(code, self.patch_va + at, self._read, image_base=_BASE_VA, limit=limit)
            if [_form(table) for table in wanted] != [_form(table) for table in found]:
                yield self._wrong(function, part.start, "its jump tables are not those of the fixed image")
                continue
            for here, there in zip(wanted, found, strict=True):
                for number in range(len(here.targets)):
                    self._see(Rva(self.placement.of(here.address) + number * here.entry_size))
                    if number not in here.holes and there.targets[number] - self.patch_va != self.placement.of(here.targets[number]):
                        yield self._wrong(
                            function, here.address, f"entry {number} of a jump table leads elsewhere", target=here.targets[number]
                        )

    def _data(self, piece: Piece) -> Iterator[Refusal]:
        at = self.placement.of(piece.range.start)
        spans = [
            (table.address - piece.range.start, table.size)
            for body in self.bound.bodies
            for table in body.tables
            if table.address in piece.range
        ]
        pointers = [rva - piece.range.start for rva in self.fixed.relocations_in(piece.range)]
        tables = [table for body in self.bound.bodies for table in body.tables]
        pointers = [offset for offset in pointers if not any(holds_address(table, piece.range.start + offset) for table in tables)]
        for offset in pointers:
            yield from self._pointer(None, Rva(piece.range.start + offset))
        distances = [site for site in self._distances(piece) if not _within(site.field - piece.range.start, spans)]
        for site in distances:
            yield from self._distance(site)
        blank = [
            *spans,
            *((field - piece.range.start, RECORD_FIELD_SIZE) for field, _ in self.bound.records if field in piece.range),
            *((offset, POINTER_SIZE) for offset in pointers),
            *((site.field - piece.range.start, site.size) for site in distances),
        ]
        here, there = bytearray(self.fixed.code(piece.range)), self.memory[at : at + piece.range.size]
        for place, digits in hashes_of_base(self.diff.base, self.fixed, (piece.range,))[0]:
            here[place - piece.range.start : place - piece.range.start + len(digits)] = digits
        if _blanked(bytes(here), blank) != _blanked(there, blank):
            yield self._wrong(
                None, piece.range.start, f"carried {piece.kind} {piece.name or ''} differs", fixed=here[:64].hex(), patch=there[:64].hex()
            )

    def _distances(self, piece: Piece) -> list[Site]:
        return [
            site
            for at in sorted(self.tables)
            if at in piece.range
            for site in distance_sites(self.fixed, self.tables[at], piece.range, self.bound.followed[Rva(at)]) or ()
        ]

    def _distance(self, site: Site) -> Iterator[Refusal]:
        """An entry that code adds to the address of its table."""
        at = self.placement.of(site.field)
        self._see(at)
        table = self.patch_va + at - (site.addend - site.size)
        found = table + int.from_bytes(self.memory[at : at + site.size], "little", signed=True)
        problem = self._problem(None, site.target, found, Use.DATA)
        if problem is not None:
            yield self._wrong(None, site.field, f"the table entry at 0x{site.field:x} leads to {problem}")

    def _pointer(self, function: Function | None, rva: Rva) -> Iterator[Refusal]:
        at = self.placement.of(rva)
        self._see(at)
        found = int.from_bytes(self.memory[at : at + POINTER_SIZE], "little")
        problem = self._problem(function, self.fixed.u64(rva) - self.fixed.preferred_base, found, Use.DATA)
        if problem is not None:
            yield self._wrong(function, rva, f"the pointer at 0x{rva:x} leads to {problem}")

    # what goes with the code -------------------------------------------------------------------------------------------------------------

    def _unwind(self, body: Body) -> Iterator[Refusal]:
        """Compare unwind data as bytes, and resolve its references as the system does, from the patch image's start."""
        machine = unwinder(self.fixed.machine)
        for entry in entries_of(self.fixed, body):
            at = self.placement.of(entry.range.start)
            copy = self.patch.image.unwind_entry_at(at)
            if copy is None or copy.range.start != at or copy.range.size != entry.range.size:
                yield self._wrong(body.function, entry.range.start, "its unwind data did not come along")
                continue
            item = machine.carry(self.fixed, entry)
            found = self.patch.image.read(copy.info or 0, len(item.info))
            blank = [(ref.offset, self.arch.field_size(ref.kind)) for ref in item.references]
            packed = (item.packed is None) == (copy.info is not None) and (item.packed is None or item.packed == copy.words[-1])
            if not packed or _blanked(item.info, blank) != _blanked(found, blank):
                yield self._wrong(body.function, entry.range.start, "its unwind data differs", fixed=item.info.hex(), patch=found.hex())
                continue
            for ref, (offset, size) in zip(item.references, blank, strict=True):
                target = self.arch.resolve(ref.kind, found[offset : offset + size], (copy.info or 0) + offset)
                problem = self._unwind_problem(item, ref, Rva(target))
                if problem is not None:
                    yield self._wrong(body.function, entry.range.start, f"its unwind data refers to {problem}")

    def _unwind_problem(self, item: CarriedUnwind, ref: UnwindReference, found: Rva) -> str | None:
        wanted = Rva(ref.target + ref.addend)
        if ref.meaning is Meaning.CALLEE or (ref.meaning is Meaning.HANDLER and ref is called(item)[0]):
            return self._problem(None, wanted, self.patch_va + found, Use.CALL)
        if ref.meaning is Meaning.INFO:
            travelling = {self.placement.of(entry.range.start) for entry in self._entries_with(ref.target)}
            wanted = Rva(found - ref.addend)
            same = any(entry.info == wanted and entry.range.start in travelling for entry in self.patch.image.unwind_entries)
            return None if same else f"unwind information at 0x{found:x} of the patch, which is another entry's"
        return None if found == self.placement.of(ref.target) + ref.addend else f"0x{found:x} of the patch, which is other code"

    def _entries_with(self, info: Rva) -> list[UnwindEntry]:
        """The entries that travel and have their unwind information at ``info``, which several may share."""
        return [entry for entry in self.fixed.unwind_entries if entry.info == info and self.placement.piece_at(entry.range.start)]

    def _entries(self) -> Iterator[Refusal]:
        """Every replaced function is replaced by its counterpart, and the base is as the patch expects it."""
        carried = {row.patch_rva for row in self.patch.carried if row.kind is CarriedKind.FUNCTION}
        carried |= {row.patch_rva for row in self.patch.functions}
        placed = {self.placement.of(body.function.entry): body.function for body in self.bound.bodies}
        for row in self.patch.functions:
            fixed = placed.get(row.patch_rva)
            if fixed is None or not self.same.is_pair(row.base_rva, fixed.entry):
                yield self._wrong(fixed, row.base_rva, f"0x{row.base_rva:x} of the base is replaced by another function")
            expected = self.diff.base.read(row.base_rva - len(row.padding_bytes), len(row.padding_bytes) + len(row.entry_bytes))
            if row.padding_bytes + row.entry_bytes != expected:
                yield self._wrong(fixed, row.base_rva, "the base has other bytes at the entry than the patch expects")
        for body in self.bound.bodies:
            if self.placement.of(body.function.entry) not in carried:
                yield self._wrong(body.function, body.function.entry, "a function was placed and is not listed")


def _span(code: bytes, instruction: Instruction, part: Range) -> bytes:
    """Of a copy of the code of ``part``: what it has for ``instruction``."""
    return _part(code, instruction.address - part.start, instruction.size)


def _part(data: bytes, at: int, size: int) -> bytes:
    return data[at : at + size]


def _shape(item: Reference) -> tuple[int, int, int, FixupKind, Use, int]:
    return item.offset, item.size, item.field, item.kind, item.use, item.addend


def _form(table: JumpTable) -> tuple[int, int, int, bool, int, frozenset[int]]:
    return table.jump, table.entry_size, table.shift, table.signed, len(table.targets), table.holes


def _end_of_table(sizes: Mapping[int, int], address: int, _entry_size: int) -> int:
    """Where the copy of a table ends whose length is nothing that its code tells; of no table: right where it begins."""
    return address + sizes.get(address, 0)


def _within(offset: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(0 <= offset - start < size for start, size in spans)


def _blanked(data: bytes, spans: Sequence[tuple[int, int]]) -> bytes:
    out = bytearray(data)
    for start, size in spans:
        out[start : start + size] = bytes(max(0, min(size, len(out) - start)))
    return bytes(out)
