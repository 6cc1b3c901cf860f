"""Whether two runs did the same, although what they ran lies differently in memory."""

from __future__ import annotations

from itertools import islice, zip_longest
from operator import itemgetter
from typing import TYPE_CHECKING

from hotpatch.address import Rva, Va
from hotpatch.emulator.memory import AccessError
from hotpatch.errors import FaultKind
from hotpatch.verifier.micro_model import Difference
from hotpatch.verifier.micro_run import RUN_BUDGET
from hotpatch.verifier.micro_thread import meant_in_block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hotpatch.image import Function
    from hotpatch.process import Process
    from hotpatch.verifier.micro_correlation import Correlation
    from hotpatch.verifier.micro_observed import Observed, Seen

_WORD = 8
_BYTE = 0xFF
_NOWHERE = 1 << 64
"""Added to the VA of what only the fixed image's thread has: the other side has nothing there."""
_SHORT = RUN_BUDGET // 8
"""A run of no more instructions than this has another end than one that exceeds its budget."""
_LOST = frozenset({FaultKind.BUDGET.value})


class Comparison:
    """Two runs, of ``function`` of the fixed image and of its counterpart, whose code is at ``own`` (VAs)."""

    def __init__(self, correlation: Correlation, function: Function, own: range) -> None:
        self._correlation, self._function, self._own = correlation, function, own
        self._mine, self._theirs = correlation.mine, correlation.theirs

    def differences(self, mine: Observed, theirs: Observed, *, alike: bool, astray: bool = False) -> Iterator[Difference]:
        """The differences of two runs, whose processes still stand as they left them, those of calls first.

        Where the code should be ``alike``, instruction by instruction, also of what it came upon on the way: data and branches. Where one
        has gone ``astray``, only of what both did before.
        """
        lost = astray or mine.end in _LOST or theirs.end in _LOST
        if not astray and (mine.end in _LOST) != (theirs.end in _LOST) and min(mine.executed, theirs.executed) < _SHORT:
            yield Difference("end", mine.end, theirs.end)
        else:
            yield from self._outcomes(mine, theirs, lost=lost)
        if alike:
            yield from self._ways(mine, theirs, lost=lost)

    def _ways(self, mine: Observed, theirs: Observed, *, lost: bool) -> Iterator[Difference]:
        for number, (one, other) in enumerate(zip(mine.turns, theirs.turns, strict=False)):
            if one != other:
                ways = ("straight on", "taken")
                yield Difference(f"branch {number + 1}", ways[one], ways[other], (one, other), ("turns", number))
                break
        for what, place, ours, others in (
            ("access {} of data", "own", mine.own, theirs.own),
            ("store {}", "stores", mine.stores, theirs.stores),
        ):
            yield from islice(self._places(what, place, ours, others, whole=not lost and mine.end == theirs.end), 1)

        for number, (first, second) in enumerate(zip(mine.stores, theirs.stores, strict=False)):
            if first[2] != second[2] and not self._same(first[2], second[2]):
                shown = self._shown(first[2]), self._shown(second[2])
                yield Difference(f"store {number + 1}, value", shown[0], shown[1], (first[2], second[2]), ("stores", number, 2))

    def _places(
        self, what: str, field: str, mine: Sequence[tuple[int, ...]], theirs: Sequence[tuple[int, ...]], *, whole: bool
    ) -> Iterator[Difference]:
        """Where the two came to in turn; where the runs are compared as a ``whole``, also how often."""
        for number, (first, second) in enumerate(zip(mine, theirs, strict=False)):
            (one, size), (other, width) = first[:2], second[:2]
            if size != width or not self._same_place(one, other, size):
                yield Difference(what.format(number + 1), self._shown(one), self._shown(other), (one, other), (field, number, 0))
        number = min(len(mine), len(theirs))
        # Veneers of a patch read where they lead, once more than the fixed image does.
        if whole and (number < len(theirs) or (field == "stores" and number < len(mine))):
            shown = [self._shown(places[number][0]) if number < len(places) else "none" for places in (mine, theirs)]
            yield Difference(what.format(number + 1), shown[0], shown[1])

    def _same_place(self, mine: int, theirs: int, size: int) -> bool:
        """Whether the same datum lies at both places, constants that are the same, or what is compared where it leads to."""
        fixed = theirs - self._theirs.load_base
        if self._same(mine, theirs) or Rva(fixed) in self._correlation.diff.fixed.imports_by_slot:
            return True
        section = self._correlation.diff.fixed.section_at(fixed)
        if section is not None and not section.writable and self._correlation.alike(mine, theirs, size):
            return True
        return self._correlation.named.is_in_table(fixed, self._function)

    def _outcomes(self, mine: Observed, theirs: Observed, *, lost: bool) -> Iterator[Difference]:
        for number, (one, other) in enumerate(zip_longest(mine.calls, theirs.calls)):
            if one is None or other is None:
                if not lost:
                    shown = [self._shown(call.callee) if call is not None else "no call" for call in (one, other)]
                    yield Difference(f"call {number + 1}", shown[0], shown[1])
                return
            what = f"call {number + 1}"
            yield from self._values(f"{what}, callee", (one.callee,), (other.callee,), ("calls", number, "callee"))
            for found in self._values(f"{what}, argument", one.words, other.words, ("calls", number, "words")):
                if not self._is_left_over(mine.calls[:number], theirs.calls[:number], found):
                    yield found
            for at, (first, second) in enumerate(zip(one.pointed, other.pointed, strict=False)):
                yield from self._values(f"{what}, in the frame", first, second, ("calls", number, "pointed", at))
            yield from self._values(f"{what}, float", one.floats, other.floats, ("calls", number, "floats"))
        if lost:
            return
        if mine.end != theirs.end:
            yield Difference("end", mine.end, theirs.end)
            return
        if (mine.address is None) != (theirs.address is None):
            yield Difference("faulting address", str(mine.address), str(theirs.address))
        elif mine.address is not None and theirs.address is not None:
            yield from self._values("faulting address", (mine.address,), (theirs.address,), ("address",))
        yield from self._values("result", mine.words[:1], theirs.words[:1], ("words",))
        yield from self._values("kept register", mine.words[1:], theirs.words[1:], ("kept",))
        yield from self._values("float result", (mine.float_bits,), (theirs.float_bits,), ("float_bits",))
        yield from self._values("kept float register", mine.floats, theirs.floats, ("floats",))
        yield from self._written(mine, theirs)

    def _values(self, what: str, mine: Sequence[int], theirs: Sequence[int], place: tuple[str | int, ...]) -> Iterator[Difference]:
        for index, (one, other) in enumerate(zip(mine, theirs, strict=False)):
            if not self._same(one, other):
                name = what if len(mine) == 1 else f"{what} {index + 1}"
                single = place[-1] in ("callee", "address", "float_bits")
                yield Difference(name, self._shown(one), self._shown(other), (one, other), place if single else (*place, index))

    def _is_left_over(self, mine: Sequence[Seen], theirs: Sequence[Seen], found: Difference) -> bool:
        """Whether an argument is a byte alone: nobody looks at the others of its register, which hold what an earlier call got.

        That was an address, of the same thing on both sides.
        """
        index = found.place[-1]
        if found.values is None or not isinstance(index, int):
            return False
        one, other = found.values
        fixed = other - self._theirs.load_base
        if (one ^ other) & _BYTE or fixed in self._correlation.named.targets(self._function):
            return False
        earlier = ((first.words[index], second.words[index]) for first, second in zip(mine, theirs, strict=True))
        return any(
            first | _BYTE == one | _BYTE and second | _BYTE == other | _BYTE and self._same(first, second) for first, second in earlier
        )

    def _written(self, mine: Observed, theirs: Observed) -> Iterator[Difference]:
        ours: dict[int, int] = {}
        new: tuple[set[range], set[range]] = (set(), set())
        for va in mine.written:
            base = va - self._mine.load_base
            inside = 0 <= base < self._correlation.diff.base.size_of_image
            carried = self._correlation.patch_va is not None and self._correlation.patch_va <= va < self._correlation.patch_end
            if carried or (inside and self._correlation.counterpart(base) is None):
                new[0].add(self._own_word(va, self._is_new_here))
            else:
                ours[va] = va
        others: dict[int, int] = {}
        for va in theirs.written:
            fixed = va - self._theirs.load_base
            if 0 <= fixed < self._correlation.diff.fixed.size_of_image:
                meant = self._correlation.meant(fixed)
                if meant is None:
                    new[1].add(self._own_word(va, self._is_new_there))
                else:
                    others[self._mine.load_base + meant] = va
            else:
                meant = meant_in_block(va, self._correlation.thread.parts(self._function))
                others[_NOWHERE + va if meant is None else meant] = va
        for va in sorted(ours.keys() | others.keys()):
            one, other = ours.get(va), others.get(va)
            if one is not None and other is not None and mine.written[one] == theirs.written[other]:
                continue
            base = va - self._mine.load_base
            if other is None and 0 <= base < self._correlation.diff.base.size_of_image:
                counterpart = self._correlation.counterpart(base)
                other = None if counterpart is None else self._theirs.load_base + counterpart
            start = va & -_WORD
            first, second = self._word(self._mine, start), self._word(self._theirs, (va if other is None else other) - (va - start))
            alike = first is not None and second is not None and self._same(first, second)
            if not alike and not self._astride(one, other, va):
                values = (first or 0, second or 0)
                there = start if other is None else other - (va - start)
                yield Difference(
                    f"written at {self._shown(start)}", self._shown(values[0]), self._shown(values[1]), values, ("written", there)
                )
        for place, other_place in zip_longest(*(sorted(places, key=itemgetter(0)) for places in new)):
            first = None if place is None else self._value(self._mine, place)
            second = None if other_place is None else self._value(self._theirs, other_place)
            if first is None or second is None or not self._same(first, second):
                shown = ["nothing" if value is None else self._shown(value) for value in (first, second)]
                yield Difference("written to data that only one of them has", shown[0], shown[1])
                return

    @staticmethod
    def _own_word(va: int, is_new: Callable[[int], bool]) -> range:
        """What of the word around ``va`` one side alone has, in one piece: nothing of another datum, which need not lie beside it there."""
        start, end = va, va + 1
        while start & _WORD - 1 and is_new(start - 1):
            start -= 1
        while end & _WORD - 1 and is_new(end):
            end += 1
        return range(start, end)

    def _is_new_here(self, va: int) -> bool:
        base, place = va - self._mine.load_base, va - (self._correlation.patch_va or 0)
        if 0 <= base < self._correlation.diff.base.size_of_image:
            return self._correlation.counterpart(base) is None
        patch = self._correlation.patch
        return patch is not None and any(item.patch_rva <= place < item.patch_rva + item.size for item in patch.carried)

    def _is_new_there(self, va: int) -> bool:
        fixed = va - self._theirs.load_base
        return 0 <= fixed < self._correlation.diff.fixed.size_of_image and self._correlation.meant(fixed) is None

    @staticmethod
    def _value(process: Process, place: range) -> int | None:
        try:
            return int.from_bytes(process.guest.read(Va(place.start), len(place)), "little")
        except AccessError:
            return None

    def _astride(self, one: int | None, other: int | None, va: int) -> bool:
        """Whether a written byte belongs to an address that lies across words and means the same on both sides."""
        mine, theirs = (va if one is None else one), (va if other is None else other)
        for back in range(_WORD):
            first, second = self._word(self._mine, mine - back), self._word(self._theirs, theirs - back)
            if first is not None and second is not None and first != second and self._same(first, second):
                return True
        return False

    def _word(self, process: Process, va: int) -> int | None:
        return self._value(process, range(va, va + _WORD))

    def _shown(self, value: int) -> str:
        where = ""
        if self._correlation.patch_va is not None and self._correlation.patch_va <= value < self._correlation.patch_end:
            where = f" (patch+0x{value - self._correlation.patch_va:x})"
        elif 0 <= value - self._mine.load_base < self._correlation.diff.base.size_of_image:
            where = f" (image+0x{value - self._mine.load_base:x})"
        elif (gate := self._mine.guest.system.gates.at(value)) is not None:
            where = f" ({gate.label})"
        return f"0x{value:x}{where}"

    def _same(self, mine: int, theirs: int) -> bool:
        return self._correlation.same(mine, theirs, self._function, self._own)


def value_at(observed: Observed, place: tuple[str | int, ...]) -> object:
    """What an observation has at a difference's place; ``None`` where it has nothing there."""
    thing: object = observed
    try:
        for step in place:
            if isinstance(thing, dict):
                thing = thing.get(step)
            elif isinstance(step, int) and isinstance(thing, (tuple, list)):
                thing = thing[step]
            else:
                thing = getattr(thing, str(step))
    except IndexError:
        return None
    return thing
