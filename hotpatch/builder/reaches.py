"""What code reaches at constant distances from data whose address it takes: neighbours that no reference of their own names.

Compilers take the address of one datum and go to others that stand beside it in the fixed image. A patch has them all at the same distances
only where the base has them so, or where they travel together.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.address import Rva
from hotpatch.arch import WHOLE_KINDS, Use
from hotpatch.builder.bodies import body_of
from hotpatch.builder.model import Body
from hotpatch.differ.follow import followed
from hotpatch.differ.parts import POINTER_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hotpatch.builder.model import Site
    from hotpatch.builder.novelty import Novelty
    from hotpatch.builder.positions import Positions
    from hotpatch.builder.proofs import Proofs
    from hotpatch.builder.unchanged import Unchanged
    from hotpatch.differ import DatumMatch, ImageDiff
    from hotpatch.differ.view import View
    from hotpatch.image import Function, Image

_LARGEST = 1 << 16
"""Bytes that travel at most for the sake of a distance."""


class Reach(NamedTuple):
    """What an instruction of a function that travels reaches.

    Attributes:
        at: The instruction.
        size: Of it, in bytes.
        taken: What is named by the instruction that takes the address.
        start: What is reached.
        width: Bytes that are accessed there; 0 where only the address is made.
        indexed: Whether an index that is unknown comes on top.
    """

    at: Rva
    size: int
    taken: Rva
    start: Rva
    width: int
    indexed: bool = False

    @property
    def end(self) -> Rva:
        """Behind what is reached; an address counts as a byte."""
        return Rva(self.start + max(self.width, 1))


def naming_sites(image: Image, body: Body, reckoned: Iterable[Site] = ()) -> Mapping[int, list[Site]]:
    """The sites of ``body`` that name whole addresses of data, and ``reckoned`` ones that count as such, by instruction."""
    named: dict[int, list[Site]] = {}
    for site in (*body.sites, *reckoned):
        if site.kind in WHOLE_KINDS and site.use is Use.DATA and _is_data(image, body, site.target):
            named.setdefault(site.instruction, []).append(site)
    return named


def reaches(image: Image, body: Body, reckoned: Iterable[Site] = ()) -> Mapping[Site, tuple[Reach, ...]]:
    """What ``body`` reaches, by the sites of the addresses that it is reached from."""
    named = naming_sites(image, body, reckoned)
    if not named:
        return {}
    instructions, edges = followed(image, body.function)
    sizes = {instruction.address: instruction.size for instruction in instructions}
    found: dict[Site, list[Reach]] = {}
    for item in image.architecture.ever_reached(instructions, named, edges):
        for site in named[item.anchor]:
            start = Rva(site.target + item.distance)
            reach = Reach(Rva(item.at), sizes[item.at], site.target, start, item.width, item.indexed)
            found.setdefault(site, []).append(reach)
    return {site: tuple(items) for site, items in found.items()}


def _is_data(image: Image, body: Body, target: Rva) -> bool:
    """Whether it is neither code, headers nor a jump table, which travels as a whole."""
    if target < image.headers_size or image.function_at(target) is not None:
        return False
    section = image.section_at(target)
    return not (section is not None and image.holds_code(section)) and not any(table.covers(target) for table in body.tables)


class Distances:
    """Whether the base has what is reached at the same distance from what it is reached from."""

    def __init__(
        self, diff: ImageDiff, fixed: View, base: View, unchanged: Unchanged, novelty: Novelty, positions: Positions, proofs: Proofs
    ) -> None:
        """Judge by ``diff``, with its images seen as ``fixed`` and ``base``."""
        self._diff, self._fixed, self._base, self._unchanged = diff, fixed, base, unchanged
        self._novelty, self._positions, self._proofs = novelty, positions, proofs
        self._there: dict[Rva, frozenset[tuple[int, int, int]]] = {}
        self._shown: dict[tuple[int, int], frozenset[Reach]] = {}

    def is_apart(self, reach: Reach) -> bool:
        """Whether it lies in no section, or in another than what it is reached from: no code goes there."""
        # an address alone may be the end of what a section ends with
        one, other = self._fixed.section(reach.taken), self._fixed.section(reach.start if reach.width else reach.start - 1)
        return other is None or (one is not None and one is not other)

    def _ends_section(self, reach: Reach) -> bool:
        """Whether only the address is made of what lies behind the section: the end of what this ends with."""
        return not reach.width and self._fixed.section(reach.start) is not self._fixed.section(reach.taken)

    def is_constant(self, rva: int) -> bool:
        """Whether it is in memory that is not writable."""
        return not self._fixed.writable(rva)

    def end(self, fixed: Rva) -> Rva:
        """Where the datum ends that begins at ``fixed``."""
        return self._novelty.extent(fixed).end

    def is_own(self, reach: Reach) -> bool:
        """Whether an index goes over the datum that is named: one that begins at the distance, or in front of the datum, may.

        What has lost its name may be short, or another's end.
        """
        return reach.indexed and reach.start < self.end(reach.taken) and not self._proofs.is_needed(reach.taken)

    def problem(self, reach: Reach, place: int) -> str | None:
        """Why the base may not have what ``reach`` needs, where what it is reached from is at ``place``; ``None`` where it has."""
        if self._ends_section(reach):
            wanted = place + reach.start - reach.taken
            shown = self._has_same_end(reach, place, wanted)
            return None if shown else f"nothing shows that what ends at 0x{reach.start:x} ends at 0x{wanted:x} there"
        unproven = self._proofs.objection(reach.start, place + reach.start - reach.taken, indexed=reach.indexed or not reach.width)
        if unproven is not None:
            return f"nothing shows that the base has what is at 0x{reach.start:x} there: {unproven}"
        if reach.indexed and not self.is_constant(reach.start):
            return self._indexed_problem(reach, place)
        if self.is_constant(reach.start):
            if not reach.width and reach.start in self._fixed.records and reach.start == self._fixed.extent(reach.taken).end:
                return None  # the end of what is named: what begins there, code does not go over
            return (
                None if self._same_constant(reach, place) else f"the base has something else than the constant at 0x{reach.start:x} there"
            )
        ended = None if reach.width else self._end_there(reach.start)
        if ended is not None and ended != place + reach.start - reach.taken:
            return f"what ends at 0x{reach.start:x} ends at 0x{ended:x} there"
        for point in self._points(reach):
            wanted = place + point - reach.taken
            there = self._place(point)
            if there is not None and there != wanted:
                return f"the base has what is at 0x{point:x} at 0x{there:x}"
            if there is not None and (not reach.width or self._is_known(reach, point)):
                continue
            back = self.fixed_place(wanted)
            if back is not None and back != point:
                return f"the base has there what is at 0x{back:x}"
            names = [symbol.name for view, at in ((self._fixed, point), (self._base, wanted)) if (symbol := view.symbol(at)) is not None]
            if len(set(names)) > 1:
                return f"the base has {names[1]} there, and not {names[0]}"
            if not (self._in_one(reach, place, point, wanted) or self._is_shown(reach, place, point, wanted)):
                return f"nothing shows that the base has what is at 0x{point:x} there"
        return None

    def _has_same_end(self, reach: Reach, place: int, wanted: int) -> bool:
        """Whether the base has at ``wanted`` the end of what ``reach`` ends with its section: by the last byte, or as its own section's."""
        last = self._place(reach.start - 1)
        if last is not None:
            return last + 1 == wanted
        ends = self._base.section(wanted) is not self._base.section(wanted - 1) is self._base.section(place)
        return ends and self._in_one(reach, place, reach.start - 1, wanted - 1)

    def _end_there(self, end: int) -> int | None:
        """Where the live datum ends in the base that ends at ``end`` in the fixed image, if both have it."""
        at = bisect_left(self._diff.data, end, key=_fixed_start) - 1
        match = self._diff.data[at] if at >= 0 else None
        return match.base + match.size if match is not None and match.writable and match.fixed + match.size == end else None

    def _indexed_problem(self, reach: Reach, place: int) -> str | None:
        """The same where an index comes on top: what begins next counts too, since the lowest index need not be zero."""
        starts = self._fixed.boundaries
        at = bisect_right(starts, reach.start)
        for point in (reach.start, *starts[at : at + 1]):
            wanted = place + point - reach.taken
            there, back = self._place(point), self.fixed_place(wanted)
            if there is not None and there != wanted:
                return f"the base has what is at 0x{point:x} at 0x{there:x}"
            if back is not None and back != point:
                return f"the base has there what is at 0x{back:x}"
        return None

    def _points(self, reach: Reach) -> Iterator[int]:
        """Where something may begin in what is reached, and its last byte."""
        starts = self._fixed.boundaries
        yield from dict.fromkeys((reach.start, *starts[bisect_right(starts, reach.start) : bisect_left(starts, reach.end)], reach.end - 1))

    def _same_constant(self, reach: Reach, place: int) -> bool:
        start, there = reach.start, place + reach.start - reach.taken
        end = reach.end if reach.width else self._fixed.extent(start).end
        if not self._base.image.holds_constants(self._base.section(there)):
            return False
        slots = self._fixed.image.imports_by_slot, self._base.image.imports_by_slot
        if start in slots[0]:
            return there in slots[1] and slots[0][start].label == slots[1][Rva(there)].label
        return self._novelty.same_content(there, start, end - start)

    def _place(self, fixed: int) -> int | None:
        role = next((role for role, rva in sorted(self._fixed.special_data.items()) if rva == fixed), None)
        if role is not None:
            return self._base.special_data.get(role)
        slot = self._fixed.image.imports_by_slot.get(Rva(fixed))
        if slot is not None:
            return next((entry.slot for entry in self._base.image.imports if entry.label == slot.label), None)
        return self._diff.base_datum(Rva(fixed))

    def fixed_place(self, base: int) -> int | None:
        """Where the fixed image has the live datum that the base has at ``base``."""
        at = bisect_right(self._by_base, (base, self._fixed.image.size_of_image, 0)) - 1
        if at < 0:
            return None
        start, fixed, size = self._by_base[at]
        return fixed + base - start if base < start + size else None

    @cached_property
    def _by_base(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(sorted((match.base, match.fixed, match.size) for match in self._diff.data if match.writable))

    def _is_known(self, reach: Reach, point: int) -> bool:
        """Whether more than its distance from the beginning of a nameless datum tells what ``point`` is."""
        at = bisect_right(self._diff.data, point, key=_fixed_start) - 1
        match = self._diff.data[at] if at >= 0 else None
        whole = match is not None and match.fixed <= reach.taken < match.fixed + match.size
        return not whole or reach.start == reach.taken or self._fixed.symbol(point) is not None

    def is_end(self, reach: Reach) -> bool:
        """Whether it is the end of an array, of which only the address is made."""
        symbol = self._fixed.symbol(reach.taken)
        if symbol is None or reach.width or reach.indexed or symbol.end != reach.start:
            return False
        return symbol.is_array or (symbol.size or 0) > POINTER_SIZE

    def _in_one(self, reach: Reach, base: int, point: int, wanted: int) -> bool:
        """Whether both images have the two places in one datum, as far as anything tells.

        Without symbols the base must access both in such a way, too: what seems to be a datum of the base may be shorter, with padding
        behind it. An address may be its end, but behind that of a datum with a name it is another's, which may have lost its name.
        """
        sides = (self._fixed, reach.taken, point), (self._base, base, wanted)
        symbols = [view.symbol(one) for view, one, _ in sides]
        if all(symbol is not None and symbol is view.symbol(other) for symbol, (view, _, other) in zip(symbols, sides, strict=True)):
            return True
        if not reach.width and any(symbol is not None and other > symbol.end for symbol, (_, _, other) in zip(symbols, sides, strict=True)):
            return False
        return all(self._is_run(*side) for side in sides) and (not reach.width or self._is_reached_in_base(base, wanted))

    def _is_run(self, view: View, one: int, other: int) -> bool:
        """Whether nothing is known to begin between the two; that a symbol ends there tells nothing: others may have lost theirs."""
        low, high = min(one, other), max(one, other)
        starts = view.boundaries[bisect_right(view.boundaries, low) : bisect_right(view.boundaries, high)]
        symbol = view.symbol(low)
        end = symbol.end if symbol is not None else None
        return all(start == end and start not in view.referenced and view.symbol(start) is None for start in starts)

    def _is_reached_in_base(self, base: int, wanted: int) -> bool:
        """Whether a function of the base reaches the second from the first; the shortest are asked first."""
        users = sorted((body.function for body in self._base.bodies.values() if base in body.whole_targets), key=_size)
        return any(start <= wanted < end for user in users for taken, start, end in self._reached_there(user) if taken == base)

    def _reached_there(self, user: Function) -> frozenset[tuple[int, int, int]]:
        """What a function of the base reaches: from where, start, end."""
        found = self._there.get(user.entry)
        if found is None:
            body = body_of(self._base.image, user)
            every = reaches(self._base.image, body) if isinstance(body, Body) else {}
            found = self._there[user.entry] = frozenset((item.taken, item.start, item.end) for items in every.values() for item in items)
        return found

    def _is_shown(self, reach: Reach, base: int, point: int, wanted: int) -> bool:
        """Whether a function of the same body in both images reaches both, or what is around ``point`` and its initial bytes tell.

        One that only makes the address of what is read or written may mean what ends there.
        """
        shown = self._shown.get((base, reach.taken))
        if shown is None:
            shown = self._shown[base, reach.taken] = frozenset(self._reached_by_unchanged(base, reach.taken))
        return any(item.start <= point < item.end and (item.width or not reach.width) for item in shown)

    def _reached_by_unchanged(self, base: int, fixed: int) -> Iterator[Reach]:
        """What functions of the same body reach from ``fixed``, where the base's name ``base``."""
        for number in self._unchanged.naming(base, fixed):
            for site, items in self._unchanged.reached(number)[1].items():
                yield from (item for item in items if site.target == fixed)

    def may_travel(self, reach: Reach) -> bool:
        """Whether all between what is reached and what it is reached from may travel in one piece: constants, or what is new."""
        low, high = min(reach.taken, reach.start), reach.end
        starts = self._fixed.boundaries
        points = [low, *starts[bisect_right(starts, low) : bisect_left(starts, high)]]
        if high - low > _LARGEST or any(self._is_fixed_in_place(point) for point in points):
            return False
        if self.is_constant(reach.start):
            return True
        if (
            self._diff.fixed.has_symbols
            and self._diff.base.has_symbols
            and any(self._fixed.symbol(one) is None for one in self._points(reach))
        ):
            return False  # compilers leave the names out of data that they put together
        return all(self._place(point) is None and self._novelty.objection(Rva(point)) is None for point in points)

    def _is_fixed_in_place(self, rva: int) -> bool:
        """Whether it is something that the loader knows, or that counts addresses from the start of its image."""
        return rva in self._fixed.image.imports_by_slot or rva in self._fixed.special_data.values() or rva in self._fixed.records


def _size(function: Function) -> tuple[int, int]:
    return function.size, function.entry


def _fixed_start(match: DatumMatch) -> int:
    return match.fixed
