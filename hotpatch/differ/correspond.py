"""Whether two references refer to corresponding things."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.differ.align import align, align_in_turn
from hotpatch.differ.beyond import Hidden
from hotpatch.differ.compared import are_same_ends
from hotpatch.differ.distances import distance_pairs
from hotpatch.differ.distant import Known
from hotpatch.differ.endings import have_different_ends
from hotpatch.differ.parts import ENTRY, POINTER_SIZE, PlaceKind
from hotpatch.differ.tails import enters_changed_code

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hotpatch.differ.lines import Lines
    from hotpatch.differ.matching import Matching
    from hotpatch.differ.parts import Body, Link, Place, Position
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair
    from hotpatch.image import Range

_ALIGNMENT = 16
"""Bytes; what linkers align constants to at most that are no vectors."""


class Ranges:
    """Stretches of live data that correspond: the lookup behind ``fixed + i`` ↔ ``base + i``."""

    def __init__(self, stretches: Sequence[tuple[int, int, int]] = ()) -> None:
        """``stretches``: fixed start, base start, size; never overlapping on the fixed side."""
        self._stretches = sorted(stretches)
        self._starts = [start for start, _, _ in self._stretches]

    def base_of(self, fixed: int) -> int | None:
        """Where the base has what the fixed image has at ``fixed``."""
        at = bisect_right(self._starts, fixed) - 1
        if at < 0:
            return None
        start, base, size = self._stretches[at]
        return base + fixed - start if fixed < start + size else None


class Correspondence:
    """The relation "refers to the same thing" between addresses of the two images, under what is matched now.

    It is coinductive: constants that point at each other correspond unless something that they reach does not.
    """

    def __init__(self, base: View, fixed: View, matching: Matching, live: Ranges, known: Known | None = None) -> None:
        """Judge by ``matching`` for functions and ``live`` for writable data, of which ``known`` says what is certain."""
        self.base, self.fixed, self.matching, self.live = base, fixed, matching, live
        self.known = known or Known(base, fixed)
        self._known: dict[Pair, bool] = {}
        self.settled: set[Pair] = {pair for pair in matching.forward.items() if pair[0] not in base.tables}
        """Pairs that are the same thing whoever refers to them, and in whatever way; see :meth:`settle`."""
        self._aligned: dict[Pair, tuple[array[int], array[int]]] = {}
        """Of two functions, the indices of their instructions that align."""
        self._configurations = tuple(
            range(*view.image.load_configuration.range) if view.image.load_configuration else range(0) for view in (base, fixed)
        )
        self._roles = {rva: role for role, rva in base.special_data.items()}, {rva: role for role, rva in fixed.special_data.items()}

    @cached_property
    def hidden(self) -> Hidden:
        """Constants that differ and that code may reach from others."""
        return Hidden(self)

    def same(self, base: int, fixed: int) -> bool:
        """Whether what lies at ``base`` in the base and at ``fixed`` in the fixed image are the same thing."""
        known = self._known.get((base, fixed))
        if known is not None:
            return known
        seen = {(base, fixed)}
        open_pairs = [(base, fixed)]
        while open_pairs:
            pair = open_pairs.pop()
            if pair in self.settled or self._known.get(pair) or self.equal_plain(*pair) is not None:
                continue
            further = None if self._known.get(pair) is False else self._further(*pair)
            if further is None:
                self._known[pair] = self._known[base, fixed] = False
                return False
            for child in further:
                if child not in seen:
                    seen.add(child)
                    open_pairs.append(child)
        self._known.update(dict.fromkeys(seen, True))
        return True

    def same_link(self, old: Link, new: Link) -> bool:
        """Whether two references lead to the same thing; where control goes, into the middle of a function, to code that does the same."""
        return self.same(old.target, new.target) and not enters_changed_code(self, old, new)

    def same_links(self, old: Body, new: Body) -> bool:
        """Whether :meth:`same_link` holds for all links of two bodies of the same forms, but for ends of the same."""
        return all(
            pair in self.settled or self.same_link(old.link(place), new.link(place)) or are_same_ends(self, old, new, pair)
            for place, pair in enumerate(zip(old.targets, new.targets, strict=True))
        )

    def same_tables(self, old: Body, new: Body) -> bool:
        """Whether the jump tables among the code of two functions lead to the same places; no link need refer to them."""
        if not old.tables and not new.tables:
            return True
        return len(old.tables) == len(new.tables) and all(self.same(*pair) for pair in zip(old.tables, new.tables, strict=True))

    def settle(self, pairs: Iterable[Pair]) -> None:
        """Find out which of ``pairs`` need no look at who refers to them."""
        self.settled.update([pair for pair in pairs if pair not in self.settled and self._is_settled(*pair)])

    def _is_settled(self, base: int, fixed: int) -> bool:
        """Whether both are the same thing, and it cannot matter what comes behind it, as in a function, or ends before it."""
        if self.equal_plain(base, fixed) is None:
            place = self.base.place(base)
            whose = place.kind is PlaceKind.TABLE or (place.kind is PlaceKind.FUNCTION and place.position != ENTRY)
            if whose or not self.same(base, fixed):
                return False
        return not have_different_ends(self, base, fixed)

    def equal_plain(self, base: int, fixed: int) -> int | None:
        """The size in bytes of equal constants that say no more than their bytes do."""
        content = self.base.plain.get(base)
        return len(content) if content is not None and content == self.fixed.plain.get(fixed) else None

    def _further(self, base: int, fixed: int) -> Sequence[Pair] | None:
        """``None`` where the two differ by themselves, else the pairs that must correspond too."""
        there, here = self.base.place(base), self.fixed.place(fixed)
        if there.kind is not here.kind:
            return None
        match there.kind:
            case PlaceKind.FUNCTION:
                return () if self._same_position(there, here) else None
            case PlaceKind.IMPORT:
                return () if there.slot and here.slot and there.slot.label == here.slot.label else None
            case PlaceKind.TABLE:
                return _table_pairs(there, here)
            case PlaceKind.WRITABLE:
                return () if self.live.base_of(fixed) == base else None
            case PlaceKind.CONSTANT:
                return self._constant_pairs(base, fixed)
            case PlaceKind.NOTHING:
                return () if base == fixed else None

    def _same_position(self, there: Place, here: Place) -> bool:
        if there.function is None or here.function is None or not self.matching.same(there.function.entry, here.function.entry):
            return False
        if there.position == ENTRY or here.position == ENTRY:
            return there.position == here.position
        pair = (there.function.entry, here.function.entry)
        if self.base.body(pair[0]).is_like(self.fixed.body(pair[1])):
            return there.position == here.position
        return self._are_aligned(pair, there.position, here.position)

    def _are_aligned(self, functions: Pair, base: Position, fixed: Position) -> bool:
        """Whether the instructions at two places in two functions align."""
        lines = self.base.lines(functions[0]), self.fixed.lines(functions[1])
        aligned = self._aligned.get(functions)
        if aligned is None:
            pairs = aligned_lines(*lines)
            aligned = self._aligned[functions] = array("I", [old for old, _ in pairs]), array("I", [new for _, new in pairs])
        old, new = lines[0].index_at(base), lines[1].index_at(fixed)
        if old is None or new is None:
            return False
        at = bisect_left(aligned[0], old)
        return at < len(aligned[0]) and (aligned[0][at], aligned[1][at]) == (old, new)

    def constant_size(self, base: int, fixed: int) -> tuple[int, int, int] | None:
        """Base start, fixed start and size in bytes of the constants that hold the two addresses, where they can correspond."""
        there, here = self.base.symbol(base), self.fixed.symbol(fixed)
        if there is not None and here is not None:
            if there.size != here.size or here.size is None or base - there.rva != fixed - here.rva:
                return None
            return there.rva, here.rva, here.size
        old, new = self.base.extent(base), self.fixed.extent(fixed)
        return old.start, new.start, self._common_size(old, new)

    def _common_size(self, old: Range, new: Range) -> int:
        """How much of what lies up to the next boundary has to be compared: all of the fixed image's, without alignment at the end.

        Zeros at the end that are more than alignment takes belong to it, unless all of it is zeros, and so does what goes on with a table
        of pointers. Something else may lie between, which nothing refers to by its start. It shows where alignment before it
        differs: zeros that only one of the two has, before an aligned place from which on both are the same.
        """
        grown = new.size - old.size
        if not grown:
            return new.size
        if grown > 0 and (_is_filler(self.fixed, new.start + old.size, new.end) or not any(self.fixed.image.read(new.start, new.size))):
            return old.size
        if grown < 0 and self._goes_on(old.start + new.size):
            return old.size
        if abs(grown) < _ALIGNMENT:
            first, second = self.base.bare(old.start, old.size), self.fixed.bare(new.start, new.size)
            longer, shorter, start = (second, first, old.start) if grown > 0 else (first, second, new.start)
            gap, end = abs(grown), new.end if grown > 0 else old.end
            places = range(len(shorter) - (start + len(shorter)) % _ALIGNMENT, 0, -_ALIGNMENT)
            for at in places if (end - len(shorter) - start) % _ALIGNMENT == 0 else ():
                if longer[:at] == shorter[:at] and not any(longer[at : at + gap]) and longer[at + gap :] == shorter[at:]:
                    return at
        return new.size

    def _goes_on(self, rva: int) -> bool:
        """Whether a table of pointers goes on in the base at ``rva``: to functions, or to constants."""
        pointers = self.base.image.pointers
        before, after = pointers.get(Rva(rva - POINTER_SIZE)), pointers.get(Rva(rva))
        return before is not None and after is not None and self.base.place(before).kind is self.base.place(after).kind

    def _constant_pairs(self, base: int, fixed: int) -> Sequence[Pair] | None:
        roles, fixed_roles = self._roles
        if base in roles or fixed in fixed_roles:
            return () if roles.get(base) == fixed_roles.get(fixed) else None
        if self.are_configured(base, fixed):
            return self.content_pairs(base, fixed, POINTER_SIZE)
        old, new = self.base.type_records.get(base), self.fixed.type_records.get(fixed)
        if old is not None and new is not None:
            return list(zip(old.code, new.code, strict=True)) if old.meaning == new.meaning else None
        sizes, classes = self.constant_size(base, fixed), self._class_pairs(base, fixed)
        content = None if sizes is None or classes is None else self.content_pairs(*sizes)
        if content is None:
            return None
        return [*content, *(classes or ()), *self._ending_pairs(base, fixed)]

    def are_configured(self, base: int, fixed: int) -> bool:
        """Whether the two are one field of the load configuration, whose others tell the loader of all that the image has."""
        there, here = self._configurations
        return base in there and fixed in here and base - there.start == fixed - here.start

    def constant_content(self, base: int, fixed: int) -> Sequence[Pair] | None:
        """What must correspond too where ``base`` and ``fixed`` are constants that have the same bytes; ``None`` for all else."""
        kinds = self.base.place(base).kind, self.fixed.place(fixed).kind
        return self._constant_pairs(base, fixed) if kinds == (PlaceKind.CONSTANT, PlaceKind.CONSTANT) else None

    def _ending_pairs(self, base: int, fixed: int) -> Sequence[Pair]:
        """The constant of one name that ends at both addresses, where no symbol covers these: code may walk back over it."""
        there, here = self.base.symbol(base - 1), self.fixed.symbol(fixed - 1)
        if there is None or here is None or there.name != here.name or self.base.symbol(base) or self.fixed.symbol(fixed):
            return ()
        return [(there.rva, here.rva)]

    def _class_pairs(self, base: int, fixed: int) -> Sequence[Pair] | None:
        """Which class two vtables are of, as the pointer in front of them says; ``None`` where only one says so."""
        there, here = (view.image.pointers.get(Rva(rva - POINTER_SIZE)) for view, rva in ((self.base, base), (self.fixed, fixed)))
        known = there in self.base.type_records, here in self.fixed.type_records
        if known == (True, True) and there is not None and here is not None:
            return [(there, here)]
        return None if any(known) else ()

    def content_pairs(self, base: int, fixed: int, size: int) -> Sequence[Pair] | None:
        """``None`` where initial bytes or the places of pointers differ, else the targets of the pointers."""
        sites = self.fixed.pointers(fixed, fixed + size)
        if sites != self.base.pointers(base, base + size):
            return None
        if self.base.bare(base, size) != self.fixed.bare(fixed, size):
            return None if sites else distance_pairs(self.base, self.fixed, (base, base + size), (fixed, fixed + size))
        return [(self.base.pointer(base + offset), self.fixed.pointer(fixed + offset)) for offset in sites]


def fills(end: int, following: int, partner: int) -> bool:
    """Whether alignment of what follows, no more than where its partner in the base lies, explains the room between."""
    alignment = min(following & -following, partner & -partner)
    return -(-end // alignment) * alignment == following


def _is_filler(view: View, start: int, end: int) -> bool:
    """Whether zeros, no more than aligning what follows takes, lie between."""
    return fills(start, end, end) and not any(view.image.read(Rva(start), end - start))


def _table_pairs(there: Place, here: Place) -> Sequence[Pair] | None:
    """Jump tables correspond when they have the same form and their entries lead to the same places."""
    old, new = there.table, here.table
    if old is None or new is None:
        return None
    there_form, here_form = ((one.entry_size, one.shift, one.signed, len(one.targets), one.holes) for one in (old, new))
    return list(zip(old.ways, new.ways, strict=True)) if there_form == here_form else None


def aligned_lines(base: Lines, fixed: Lines) -> tuple[tuple[int, int], ...]:
    """Indices of the instructions of two functions that do the same but for where their references lead."""
    return align(base.tokens, fixed.tokens)


def loosely_aligned_lines(base: Lines, fixed: Lines) -> tuple[tuple[int, int], ...]:
    """The same, and between those the instructions that are at least the same operation with references of the same kinds.

    Registers may have been given out anew, so this is weaker.
    """
    there, here = ((lines.tokens, lines.shapes(0, len(lines))) for lines in (base, fixed))
    return align_in_turn(there, here)
