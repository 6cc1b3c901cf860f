"""What is what in two processes, one of the base and one of the fixed image, where everything lies differently in memory."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva, Va
from hotpatch.arch import FixupKind, Use
from hotpatch.differ import Verdict
from hotpatch.differ.follow import accessed_from_named
from hotpatch.emulator.memory import PAGE
from hotpatch.image import Range
from hotpatch.patch import ORIGINAL_PREFIX, SUPPORT_LIBRARY
from hotpatch.verifier.micro_carried import CarriedThings
from hotpatch.verifier.micro_named import Named
from hotpatch.verifier.micro_origins import Origins
from hotpatch.verifier.micro_reach import Reach, holding
from hotpatch.verifier.micro_thread import ThreadData, meant_in_block

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.arch import JumpTable
    from hotpatch.differ import ImageDiff
    from hotpatch.engine import AppliedPatch
    from hotpatch.image import Function, Image
    from hotpatch.process import Process

_WORD = 8
_WORD_BITS = 8 * _WORD
_HALF = 1 << 32
_SMALL = 1 << 16
"""Less is no address."""
_BYTE = 0xFF
_PAGES = 4
"""Distances that are looked at."""
_SET = frozenset({0, 1, _BYTE})


class Correlation:
    """What is what: addresses of a process of the base, patched or not, and of one of the fixed image."""

    def __init__(self, diff: ImageDiff, mine: Process, theirs: Process, applied: AppliedPatch | None, patch_va: Va | None) -> None:
        """Compare ``mine`` (with what is ``applied``, its image at ``patch_va``, if anything is) with ``theirs``."""
        self.diff = diff
        self.mine, self.theirs = mine, theirs
        self.named = Named(diff.fixed)
        self.thread = ThreadData(diff)
        patch = None if applied is None else applied.patch
        self.patch, self.patch_va = patch, patch_va
        self._carried = None if patch is None else CarriedThings(patch)
        self.origins = None if patch is None or self._carried is None else Origins(diff, patch, self._carried)
        self._new = {} if patch is None else {function.patch_rva: function.base_rva for function in patch.functions}
        self._originals = {} if applied is None else {applied.original(each.base_rva): each.name for each in applied.patch.functions}
        self.patch_end = 0 if patch is None or patch_va is None else patch_va + patch.image.size_of_image

    # addresses ---------------------------------------------------------------------------------------------------------------------------

    def meant(self, fixed: int) -> int | None:
        """Where the base has what the fixed image has at an RVA."""
        image = self.diff.fixed
        if fixed < image.headers_size:
            return fixed
        entry = self.diff.base_entries.get(Rva(fixed))
        if entry is not None:
            return entry
        datum = self.diff.base_datum(Rva(fixed))
        if datum is not None:
            return datum
        function = image.function_at(fixed)
        match = None if function is None else self._untouched.get(function.entry)
        return None if match is None or function is None or len(function.ranges) > 1 else match + fixed - function.entry

    def counterpart(self, base: int) -> int | None:
        """Where the fixed image has what the base has at an RVA: a function's entry, or data."""
        if base < self.diff.base.headers_size:
            return base
        entry = self._entries.get(base)
        if entry is not None:
            return entry
        starts, data = self._data
        at = bisect_right(starts, base) - 1
        if at >= 0 and base < data[at].base + data[at].size:
            return data[at].fixed + base - data[at].base
        return None

    def same(self, mine: int, theirs: int, function: Function, own: range) -> bool:
        """Whether two values mean the same, in runs of ``function`` of the fixed image, whose counterpart's code is at ``own`` (VAs)."""
        fixed = theirs - self.theirs.load_base
        if not 0 <= fixed < self.diff.fixed.size_of_image:
            if (parts := self.thread.parts(function)) and meant_in_block(theirs, parts) != theirs:
                return meant_in_block(theirs, parts) == mine
            if mine == theirs:
                return True
            one, other = self.mine.guest.system.gates.at(mine), self.theirs.guest.system.gates.at(theirs)
            if one is not None and other is not None:
                return one.label == other.label
            if other is not None and (original := self._originals.get(Va(mine))) is not None:
                # The patch is bound to the trampoline; in a process of the fixed image nobody provides the import.
                return other.label == f"{SUPPORT_LIBRARY}!{ORIGINAL_PREFIX}{original}"
            if self._led_out(mine - self.mine.load_base, fixed, function):
                return True
            return theirs < _HALF and 0 < theirs < self.diff.fixed.size_of_image and self.meant(theirs) == mine
        if mine in own:
            return self._same_code(mine - own.start, fixed, function, len(own))
        meant = self.meant(fixed)
        if self.patch is not None and self.patch_va is not None and self.patch_va <= mine < self.patch_end:
            rva = mine - self.patch_va
            if rva in self._new:
                return (self._new[Rva(rva)], fixed) in self.diff.pairs
            if self._constant(self.patch.image, rva):
                return self._may_be_copy(rva, fixed, function)
            named = fixed in self.named.targets(function)
            return meant is None and (not named or self.origins is None or self.origins.agree(rva, fixed))
        base = mine - self.mine.load_base
        if not 0 <= base < self.diff.base.size_of_image:
            return self._is_beside_carried(mine, theirs, function)
        if meant == base or (base, fixed) in self.diff.pairs:
            return True
        are_pages = base % PAGE == 0 == fixed % PAGE
        if are_pages and self._takes_page(fixed, function) and self._is_page(base, fixed, function):
            return True
        if meant is None and self.counterpart(base) is None:
            return self._are_jump_tables(base, fixed, function) or self._walked_to(base, fixed, function) or self._may_be_same(base, fixed)
        if are_pages:
            # The page of something, left in a register by the first of two instructions.
            return self._is_page(base, fixed, function)
        if fixed in self.named.targets(function) or (meant is not None and fixed in self._starts):
            return self.meant(fixed - 1) == base - 1 and meant is None
        if fixed & _BYTE == base & _BYTE and fixed & _BYTE in _SET and self._is_around(base, fixed):
            # An address of whose register or word the lowest byte was set: a truth value or -1, above which nobody looks.
            return True
        if self.meant(fixed - 1) == base - 1:
            # One past a datum's end.
            return True
        return base - fixed in self._distances(function)

    def _same_code(self, offset: int, fixed: int, function: Function, size: int) -> bool:
        """Whether the counterpart, of ``size`` bytes, has ``offset`` bytes behind its entry what the function has at ``fixed``.

        Of code in one piece that should be the same instruction by instruction it is if it lies as far behind the entry.
        """
        alike = self.patch is not None or function.entry in self._untouched
        if alike and len(function.ranges) == 1 and function.size == size:
            return fixed - function.entry == offset
        return self.diff.fixed.function_at(fixed) == function if offset else fixed == function.entry

    def _may_be_copy(self, rva: int, fixed: int, function: Function) -> bool:
        """Whether the constant at an RVA of the patch image can be what the fixed image has: as far as it is carried, it begins alike."""
        if self.patch is None or self._carried is None or not self._constant(self.diff.fixed, fixed):
            return self.meant(fixed) is None
        item = self._carried.at(rva)
        if item is None or fixed not in self.named.targets(function) or rva % PAGE == 0 == fixed % PAGE:
            return True  # where a made-up index leads, what lies there is what is compared
        if self.named.is_in_table(fixed, function):
            return True
        size = min(_WORD, item.patch_rva + item.size - rva)
        if self._carried.are_bound(rva, size, _WORD) or self.diff.fixed.relocations_in(Range(Rva(fixed), Rva(fixed + size))):
            return True
        return self._alike(self.patch.image, rva, fixed, size)

    def are_cut(self, mine: int, theirs: int) -> bool:
        """Whether two values are the same but for their upper bytes, two at least, which are the lower ones of addresses of the same thing.

        Words are read across the border of two others where made-up pointers lead.
        """
        for bits in range(8, _WORD_BITS - 8, 8):
            if (mine ^ theirs) & (1 << bits) - 1:
                return False
            ones = frozenset(_ending(mine >> bits, 1 << _WORD_BITS - bits, self.mine))
            if any(self.meant(other) in ones for other in _ending(theirs >> bits, 1 << _WORD_BITS - bits, self.theirs)):
                return True
        return False

    def _led_out(self, base: int, fixed: int, function: Function) -> bool:
        """Whether a made-up index of 32 bits led out of both images from something that ``function`` refers to."""
        outside = not 0 <= base < self.diff.base.size_of_image and -_HALF < fixed < _HALF and fixed + self.theirs.load_base >= _SMALL
        return outside and base - fixed in self._distances(function)

    def _is_around(self, base: int, fixed: int) -> bool:
        """Whether something lies at addresses that differ from these two in their lowest bytes alone."""
        found = map(self.meant, range(fixed & ~_BYTE, (fixed | _BYTE) + 1))
        return any(there | _BYTE == base | _BYTE for there in found if there is not None)

    def _is_page(self, base: int, fixed: int, function: Function) -> bool:
        """Whether something lies on the pages at two RVAs, or ``function`` names there what nothing matches."""
        if (base, fixed) not in self._known_pages:
            there = {meant & -PAGE for meant in map(self.meant, range(fixed, fixed + PAGE)) if meant is not None}
            self._known_pages[base, fixed] = base in there or not there
        return self._known_pages[base, fixed] or any(
            self.meant(target) is None for target in self.named.targets(function) if target & -PAGE == fixed
        )

    def _takes_page(self, fixed: int, function: Function) -> bool:
        """Whether ``function`` takes the page at an RVA for what lies on it, and does not name what begins there."""
        if fixed in self.named.targets(function):
            return False
        every = (one for part in self.diff.fixed.references(function) for one in part)
        return any(one.kind is FixupKind.PAGEBASE_REL21 and one.target & -PAGE == fixed for one in every)

    def _walked_to(self, base: int, fixed: int, function: Function) -> bool:
        """Whether an address that the function does not name lies where something that it names does: reckoned, past an array's end."""
        return fixed not in self.named.targets(function) and base - fixed in self._distances(function)

    def _are_jump_tables(self, base: int, fixed: int, function: Function) -> bool:
        """Whether ``function`` has a jump table at ``fixed``, and its counterpart the same one at ``base``."""
        image, entry = self.diff.base, self.diff.base_entries.get(function.entry)
        counterpart = None if entry is None else image.function_of_entry(entry)
        tables = image.jump_tables(counterpart) if counterpart is not None else ()
        others = self.diff.fixed.jump_tables(function)
        return len(tables) == len(others) and (base, fixed) in {(one.address, two.address) for one, two in zip(tables, others, strict=True)}

    def _may_be_same(self, base: int, fixed: int) -> bool:
        """Whether things that nothing matches can be each other: constants without addresses in them must begin alike."""
        images = ((self.diff.base, base), (self.diff.fixed, fixed))
        if not all(self._constant(image, rva) and not image.relocations_in(Range(Rva(rva), Rva(rva + _WORD))) for image, rva in images):
            return True
        one, other = (_beginning(image, rva) for image, rva in images)
        return one == other

    @staticmethod
    def _constant(image: Image, rva: int) -> bool:
        return image.holds_constants(image.section_at(rva))

    def reach(self, function: Function, called: Iterable[Rva]) -> Reach:
        """What ``function`` of the fixed image and those that it ``called`` or goes on in refer to."""
        image = self.diff.fixed
        goes_on = {one.target for part in image.references(function) for one in part if one.use in {Use.JUMP, Use.BRANCH}}
        near = [function, *(other for other in map(image.function_at, sorted(goes_on)) if other is not None)]
        far = [other for other in map(image.function_of_entry, called) if other is not None]
        own = self.named.accessed(function).union(*map(self.named.targets, near))
        targets = own.union(*map(self.named.targets, far))
        starts = sorted(self._edges | targets | {table.stop for user in (*near, *far) for table in self.named.tables(user)})
        return Reach(tuple(starts), holding(starts, own), holding(starts, targets))

    def holds_the_same(self, fixed: int, size: int, function: Function) -> bool:
        """Whether the images hold the same where ``function`` of the fixed one reads or writes ``size`` bytes, as far as data match."""
        image, base = self.diff.fixed, self.diff.base
        if fixed < image.headers_size:
            return False
        section, meant = image.section_at(fixed), self.diff.base_datum(Rva(fixed))
        slot = Rva(fixed) in image.imports_by_slot
        if meant is None or section is None or image.holds_code(section) or slot or self.named.is_in_table(fixed, function):
            return True
        return self._alike(base, meant, fixed, size)

    def beside(self, theirs: int, function: Function) -> frozenset[int]:
        """Where the base may have what lies at ``theirs``, by how far from it all else lies that ``function`` refers to; VAs."""
        return frozenset(theirs - self.theirs.load_base + self.mine.load_base + distance for distance in self._distances(function))

    def moved_by_pages(self, function: Function) -> tuple[int, ...]:
        """By how much what ``function`` refers to lies elsewhere in the base, where that is whole pages, the nearest first."""
        return tuple(sorted((distance for distance in self._distances(function) if distance and distance % PAGE == 0), key=abs))[:_PAGES]

    def is_past_carried(self, mine: int, theirs: int, function: Function) -> bool:
        """Whether the patch carries something that ``function`` refers to just as far from ``mine`` as it lies from ``theirs``, VAs.

        Where the two sides hold something else there, that ends before.
        """
        if self.patch is None or self.patch_va is None or not self.patch_va <= mine < self.patch_end:
            return False
        fixed, there = theirs - self.theirs.load_base, mine - self.patch_va
        if fixed in self.named.targets(function) and there in self._named_in_patch(function):
            return False  # both sides say so themselves, whatever lies before
        if fixed in self.named.accessed(function) and any(there in accessed_from_named(*own) for own in self._in_patch(function)):
            return False  # so they do by a constant distance
        before = (fixed - target for target in self.named.targets(function) if target < fixed)
        return any(
            self._carried is not None
            and self._carried.at(there - distance) is not None
            and self.alike(mine - distance, theirs - distance, _WORD)
            for distance in before
        )

    def is_in_front_of_carried(self, mine: int, theirs: int, function: Function) -> bool:
        """Whether an unknown index led to ``mine`` in the patch, at ``theirs`` (VAs), from a constant behind it that ``function`` names.

        The patch carries that constant, and what it has in front of it is something else.
        """
        fixed = theirs - self.theirs.load_base
        if self.patch is None or self.patch_va is None or not self.patch_va <= mine < self.patch_end:
            return False
        if fixed in self.named.targets(function) or fixed in self.named.certain(function):
            return False
        named = self._named_in_patch(function)
        behind = (target - fixed for target in self.named.targets(function) if target > fixed)
        return any(
            mine - self.patch_va + distance in named and self.alike(mine + distance, theirs + distance, _WORD) for distance in behind
        )

    def _is_beside_carried(self, mine: int, theirs: int, function: Function) -> bool:
        """Whether both are as far from a constant that ``function`` names, and from its copy in the patch: a made-up index was added.

        It can lead as far as it likes, but code that adds a constant, or names the place itself, means what lies there: that is its own.
        """
        fixed = theirs - self.theirs.load_base
        if self.patch is None or self.patch_va is None or fixed in self.named.targets(function) or fixed in self.named.reckoned(function):
            return False
        named = self._named_in_patch(function)
        places = (
            (mine - theirs + self.theirs.load_base + target, self.theirs.load_base + target) for target in self.named.targets(function)
        )
        return any(copy - self.patch_va in named and self.alike(copy, there, _WORD) for copy, there in places)

    def is_beside_table(self, mine: int, theirs: int, size: int, function: Function) -> bool:
        """Whether ``size`` bytes at ``mine`` in the patch, at ``theirs`` (VAs) are what an index that leads out of a jump table comes upon.

        Not where that would be an entry that leads into ``function``: the table may be longer than it was taken for, unless another table
        is there.
        """
        fixed = theirs - self.theirs.load_base
        if (
            self.patch is None
            or self.patch_va is None
            or not self.patch_va <= mine < self.patch_end
            or fixed in self.named.targets(function)
        ):
            return False
        named = self._named_in_patch(function)
        return any(
            size == table.entry_size
            and not 0 <= fixed - table.address < table.size
            and not (fixed - table.address) % size
            and mine - self.patch_va - (fixed - table.address) in named
            and (self._is_in_other_table(table, fixed) or not any(self._entry(table, fixed) in part for part in function.ranges))
            for part in function.ranges
            for table in self.diff.fixed.jump_tables_in(part)
        )

    def is_cut_entry(self, theirs: int, size: int, function: Function) -> bool:
        """Whether ``size`` bytes at ``theirs`` (VA) are part of an address in a jump table of ``function``, for which no code asks.

        An index that leads out of a table of bytes beside it comes upon that. Such an address is another one in the patch.
        """
        fixed = theirs - self.theirs.load_base
        tables = (table for part in function.ranges for table in self.diff.fixed.jump_tables_in(part))
        within = [(fixed - table.address, table) for table in tables if 0 <= fixed - table.address < table.size]
        return any(table.entry_size > 1 and (size != table.entry_size or at % size) for at, table in within)

    def _is_in_other_table(self, table: JumpTable, fixed: int) -> bool:
        """Whether ``fixed`` lies in a jump table of the fixed image that begins elsewhere than ``table``, and outside of that."""
        starts = self.named.jump_tables
        at = bisect_right(starts, (fixed, self.diff.fixed.size_of_image)) - 1
        return at >= 0 and starts[at][0] != table.address and fixed < starts[at][1]

    def _entry(self, table: JumpTable, fixed: int) -> int:
        """Where what is at ``fixed`` would lead to as an entry of ``table``, RVA."""
        raw = int.from_bytes(self.diff.fixed.read(Rva(fixed), table.entry_size), "little", signed=table.signed)
        return table.anchor + (raw << table.shift)

    def _named_in_patch(self, function: Function) -> frozenset[int]:
        """What the code that travels for ``function`` refers to by itself, as RVAs of the patch image."""
        if function.entry not in self._known_names:
            own = self._in_patch(function)
            found = (int(reference.target) for image, each in own for part in image.references(each) for reference in part)
            self._known_names[function.entry] = frozenset(found)
        return self._known_names[function.entry]

    def _in_patch(self, function: Function) -> list[tuple[Image, Function]]:
        """The code that travels for ``function``, in the patch image."""
        if self.patch is None:
            return []
        image, base = self.patch.image, self.diff.base_entries.get(function.entry)
        new = None if self.origins is None else self.origins.of(function)
        own = [image.function_at(rva) for rva, replaced in self._new.items() if replaced == base]
        own += [] if new is None else [image.function_at(new)]
        return [(image, each) for each in own if each is not None]

    def is_plain_code(self, theirs: int, function: Function) -> bool:
        """Whether instructions are at ``theirs``, and no table of ``function``."""
        fixed = theirs - self.theirs.load_base
        section = self.diff.fixed.section_at(fixed)
        return section is not None and self.diff.fixed.holds_code(section) and not self.named.is_in_table(fixed, function)

    def alike(self, mine: int, theirs: int, size: int) -> bool:
        """Whether both sides hold the same before anything has run, ``mine`` in the base or in the patch image; VAs."""
        fixed = theirs - self.theirs.load_base
        if self.patch is not None and self.patch_va is not None and self.patch_va <= mine < self.patch_end:
            return self._alike(self.patch.image, mine - self.patch_va, fixed, size)
        base = mine - self.mine.load_base
        return 0 <= base < self.diff.base.size_of_image and self._alike(self.diff.base, base, fixed, size)

    def _alike(self, image: Image, rva: int, fixed: int, size: int) -> bool:
        """Whether ``image`` holds what the fixed image does: the same bytes, pointers to the same thing, slots of the same import.

        What is read of a part of a pointer are bytes.
        """
        other = self.diff.fixed
        if size > _WORD:
            halves = ((at, min(_WORD, size - at)) for at in range(0, size, _WORD))
            return all(self._alike(image, rva + at, fixed + at, part) for at, part in halves)
        slots = [each.imports_by_slot.get(Rva(at - at % _WORD)) for each, at in ((image, rva), (other, fixed))]
        if any(slots):
            return len({slot.label if slot else "" for slot in slots}) == 1
        one, two = other.pointers.get(Rva(fixed)), image.pointers.get(Rva(rva))
        if one is not None and two is not None and size == _WORD:
            return self.meant(one) == two if image is self.diff.base else _beginning(image, two) == _beginning(other, one)
        return image.read(rva, size) == other.read(fixed, size) and (one is None) == (two is None)

    @cached_property
    def _starts(self) -> frozenset[int]:
        """Where matched data and functions of the fixed image begin."""
        return frozenset(match.fixed for match in self.diff.data) | frozenset(self.diff.base_entries)

    @cached_property
    def _edges(self) -> frozenset[int]:
        """Where matched data of the fixed image begin and end, and jump tables."""
        edges = {edge for match in self.diff.data for edge in (int(match.fixed), match.fixed + match.size)}
        return frozenset(edges.union(*self.named.jump_tables))

    def _distances(self, function: Function) -> frozenset[int]:
        """By how much the things that ``function`` refers to lie elsewhere in the base: right for addresses reckoned from them, too."""
        if function.entry not in self._known_distances:
            targets = self.named.targets(function)
            found = ((self.meant(target), target) for target in targets)
            self._known_distances[function.entry] = frozenset(meant - target for meant, target in found if meant is not None)
        return self._known_distances[function.entry]

    @cached_property
    def _known_pages(self) -> dict[tuple[int, int], bool]:
        return {}

    @cached_property
    def _known_names(self) -> dict[Rva, frozenset[int]]:
        return {}

    @cached_property
    def _known_distances(self) -> dict[Rva, frozenset[int]]:
        return {}

    @cached_property
    def _untouched(self) -> dict[Rva, Rva]:
        kept = (Verdict.IDENTICAL, Verdict.RELOCATED)
        return {row.fixed.entry: row.base.entry for row in self.diff.functions if row.base and row.fixed and row.verdict in kept}

    @cached_property
    def _entries(self) -> dict[int, int]:
        return {ours: theirs for theirs, ours in self.diff.base_entries.items()}

    @cached_property
    def _data(self) -> tuple[list[int], list[_Match]]:
        data = sorted((_Match(match.base, match.fixed, match.size) for match in self.diff.data), key=lambda match: match.base)
        return [match.base for match in data], data


def _beginning(image: Image, rva: int) -> bytes:
    """The first bytes of what lies at ``rva``, of a text no more than that."""
    return image.read(Rva(rva), _WORD).partition(b"\0")[0]


def _ending(low: int, modulus: int, process: Process) -> range:
    """RVAs of the process's image whose addresses are ``low`` modulo ``modulus``."""
    return range((low - process.load_base) % modulus, process.base.size_of_image, modulus)


@dataclass(frozen=True, slots=True)
class _Match:
    base: int
    fixed: int
    size: int
