"""Calls that need more than plain Unicorn (delayed imports, callbacks, originals), patched at seeded points of a run.

A second opinion here is what each case's source says, written down as a function of which entries of patched functions took the new code
(:data:`MODELS`). Which did is told by the count of instructions before each entry, noted in the run itself, and by where the patch was to
go in and out: nothing of the engine is asked.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement, pairwise

import pytest
import unicorn

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases import Case, case_names, find_case
from hotpatch.cli.arguments import parse_argument
from hotpatch.engine import Consistency, PatchState
from hotpatch.process import AppliedAt
from tests.cases import test_points
from tests.cases.sabotage import old_entries_stay
from tests.cases.test_points import PARTS, WITH_CALLS, placed
from tests.hooks import weakly
from tools.fixture_code import FixtureImage

Sides = Sequence[Sequence[int]]
"""For each call, for each entry of a patched function in it: 0, the old code; else by which application of the patch the new."""
OLD = 0
CONVERTS = "hooks"
"""The case whose callbacks convert data: a call under way must not see that, so its patch goes in quiescent, or between calls."""
CALLBACKS = (CONVERTS, "state-handed-over")
"""Cases whose callbacks make state that only the new code has: what it has counted since is told where no call is under way."""
READ_AT = {Machine.X64: 3, Machine.ARM64: 2}
"""Instructions from a redirected entry until the pointer has been read that says where it leads (hpat): the jump, the padding's, the
slot's; the branch, the slot's load."""
TOLD = ("delay-import", "failed-replace", "hooks", "new-import", "original-called", "state-handed-over")
LOAD_OF_STORED = {Machine.X64: 0, Machine.ARM64: 4}
"""Where ``stored`` of the case hooks, which is not patched, reads what callbacks convert: bytes from its entry."""
each_machine = pytest.mark.parametrize("machine", Machine)
each_told = pytest.mark.parametrize("name", TOLD)


def call_by_call(case: Case, sides: Sides) -> list[int]:
    """Each call is as the manifest says of its side, and has one; those that enter nothing patched give the same on both."""
    found = []
    for call, entered in zip(case.manifest.call, sides, strict=True):
        both = call.expected("before"), call.expected("patched")
        assert len(set(entered)) == 1 or (not entered and both[0] == both[1])
        found.append(both[bool(entered and entered[0])])
    return found


def new_import(_case: Case, sides: Sides) -> list[int]:
    (asked,), () = sides
    return [2 if asked else 1, 1]


def original_called(_case: Case, sides: Sides) -> list[int]:
    (first,), (second, third), (fourth,), () = sides
    calls = 0

    def weigh(value: int, new: int) -> int:
        nonlocal calls
        if new and value > 100:
            return 0
        calls += 1
        return value * 10 + (6 if new else 1)

    return [weigh(2, first), weigh(3, second) + weigh(3, third), weigh(101, fourth), calls]


def hooks(_case: Case, sides: Sides) -> list[int]:
    """Metres before, centimetres after, converted both ways; calls are counted from application on, and forgotten as it ends."""
    (added,), (asked,), (loaded,) = sides
    counted = bool(asked and added == asked)
    return [0, 5 + 1000 * counted, 500 if loaded else 5]


def state_handed_over(_case: Case, sides: Sides) -> list[int]:
    """Calls are counted from application on; what the callback was given first is the patch's sequence number."""
    (added,), (asked,), (told,), (_told,) = sides
    return [5, int(bool(asked) and added == asked), int(bool(told)), 0]


MODELS: dict[str, Callable[[Case, Sides], list[int]]] = {
    "delay-import": call_by_call,
    "failed-replace": call_by_call,
    "hooks": hooks,
    "new-import": new_import,
    "original-called": original_called,
    "state-handed-over": state_handed_over,
}


class Told:
    """All calls of a case, made in order on one process, and what its model says of them."""

    def __init__(self, given, redirect: str = "hpat", load_base: int | None = None) -> None:
        self.case, self.machine = given.case, given.machine
        self.patch = given.redirected(redirect)
        self.process = hotpatch.Process(given.image("base"), load_base=load_base)
        self.converts = self.case.name == CONVERTS
        self.how = Consistency.QUIESCENT if self.converts and redirect == "hpat" else Consistency.IMMEDIATE
        image = FixtureImage(self.case.image(given.machine, "base"))
        places = [image.functions[name].rva for name in self.case.manifest.expect.travels]
        if self.converts:
            places.append(image.functions["stored"].rva + LOAD_OF_STORED[given.machine])
        uc = self.process.guest.system.cpu._uc
        for place in places:
            va = self.process.load_base + place
            uc.hook_add(unicorn.UC_HOOK_CODE, weakly(self._enter), None, va, va)
        self._noted: list[int] = []
        self.start = self.process.snapshot()
        _, self.entered, self.began = self.calls()
        self.total = self.process.instructions

    def _enter(self, *_: object) -> None:
        self._noted.append(self.process.instructions)

    def _stop(self) -> None:
        """The process stops before every instruction: only then is the count exact."""
        self.process.at(self.process.instructions + 1, self._stop)

    def calls(self) -> tuple[list[int], list[list[int]], list[int]]:
        """Results; the counts of each call's entries; the counts at which calls began, and at which the last one ended."""
        process, results, entered, began = self.process, [], [], []
        self._stop()
        for call in self.case.manifest.call:
            self._noted.clear()
            began.append(process.instructions)
            results.append(process.call_details(call.function, *map(parse_argument, call.args)).value)
            entered.append(list(self._noted))
        return results, entered, [*began, process.instructions]

    def fresh(self) -> hotpatch.Process:
        self.process.restore(self.start)
        return self.process

    def check(self, *points: int) -> list[int]:
        """The patch goes in after the first number of instructions, out after the second, and so on: the results, if they are right."""
        process = self.fresh()
        for number, point in enumerate(points):
            if number % 2:
                process.revert_at(point, self.patch)
            else:
                process.apply_at(point, self.patch, self.how)
        return self.compare(*points)

    def compare(self, *points: int) -> list[int]:
        """Make the calls: the results, if they are those of a patch that goes in and out there."""
        results, entered, began = self.calls()
        assert not self.process.refused, (points, self.process.refused)
        assert len(self.process.applied) == sum(point < began[-1] for point in points[::2]), points
        sides = [self.sides(points, call) for call in entered]
        assert results == self.model(sides), (points, sides)
        return results

    def model(self, sides: Sides) -> list[int]:
        return MODELS[self.case.name](self.case, sides)

    def sides(self, points: Sequence[int], entered: Sequence[int]) -> list[int]:
        """Of the entries of a call. A thread in the padding as the patch goes out is put back to the entry, and enters again."""
        found = []
        for at, following in pairwise([*entered, None]):
            if following != at + 1 or at + 1 not in points[1::2]:
                found.append(self.side(points, at))
        return found

    def side(self, points: Sequence[int], at: int) -> int:
        now = OLD
        for number, point in enumerate(points):
            if number % 2:
                now = OLD if point < at + READ_AT[self.machine] else now
            elif self.goes_in(point) <= at:
                now = number // 2 + 1
        return now

    def goes_in(self, point: int) -> int:
        """When a patch goes in that is to at ``point`` (the first one): not before the end of a call that is under way, if quiescent."""
        if self.how is Consistency.QUIESCENT:
            for call, (first, last) in zip(self.case.manifest.call, pairwise(self.began), strict=True):
                if call.function in self.case.manifest.expect.travels and first <= point < last:
                    return last
        return point

    def open_points(self) -> list[int]:
        """Where the patch may go in: anywhere, but an immediate one that converts data only between calls of what it replaces."""
        inside: set[int] = set()
        if self.converts and self.how is Consistency.IMMEDIATE:
            for call, (first, last) in zip(self.case.manifest.call, pairwise(self.began), strict=True):
                if call.function in self.case.manifest.expect.travels:
                    inside |= set(range(first + 1, last))
        return [point for point in range(self.total) if point not in inside]

    def decisive(self) -> int:
        """The count at the last entry that shows in a result which code it took."""
        every = [at for call in self.entered for at in call]
        from_each = [self.model([[int(at >= entry) for at in call] for call in self.entered]) for entry in (*every, self.total)]
        return [at for at, (new, old) in zip(every, pairwise(from_each), strict=True) if new != old][-1]


def test_no_case_is_left_out() -> None:
    """Each patched case is patched at points of its calls, here or against plain Unicorn, or of its programs, or has a host program."""
    patched = [find_case(name) for name in case_names()]
    patched = [case for case in patched if case.manifest.expect.outcome == "patched"]
    elsewhere = {*WITH_CALLS, *(name for name, _ in test_points.PROGRAMS)}
    assert {case.name for case in patched if case.name not in elsewhere and not case.has_host} == set(TOLD) == set(MODELS)


@pytest.mark.parametrize("redirect", ["hpat", "direct", "inline"])
@each_machine
@each_told
def test_calls_before_are_old_and_calls_after_new(given, name, machine, redirect) -> None:
    """At every point of a run, in three places in turn."""
    points = Told(given(name, machine, True), redirect).open_points()
    seen = set()
    for number, (pdb, load_base) in enumerate(PARTS[redirect]):
        told = Told(placed(given, name, machine, pdb), redirect, load_base)
        seen |= {tuple(told.check(point)) for point in points[number :: len(PARTS[redirect])]}
    assert len(seen) > 1, "old and new are not told apart"


@each_machine
@pytest.mark.parametrize("name", [name for name in TOLD if name not in CALLBACKS])
def test_calls_patched_reverted_and_patched_again(given, name, machine) -> None:
    """Out at a later point, and in again at a third."""
    told = Told(given(name, machine, True))
    rng = random.Random(repr((name, machine.value)))
    for _ in range(test_points.POINTS):
        told.check(*sorted(rng.sample(range(told.total), 3)))


@each_machine
@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_between_calls(given, name, machine) -> None:
    """In, out and in again before any call, or after the last."""
    told = Told(given(name, machine, True))
    for places in combinations_with_replacement(range(len(told.case.manifest.call) + 1), 3):
        process, results, applied = told.fresh(), [], None
        for number, call in enumerate(told.case.manifest.call):
            for _ in range(places.count(number)):
                if applied is None or applied.state is PatchState.REVERTED:
                    applied = process.apply(told.patch)
                else:
                    applied.revert()
            results.append(process.call(call.function, *map(parse_argument, call.args)))
        sides = [(sum(place <= number for place in places) + 1) // 2 for number in range(len(results))]
        standing = [sum(place <= number for place in places) % 2 for number in range(len(results))]
        assert results == told.model([[side * stands] for side, stands in zip(sides, standing, strict=True)]), places


@each_machine
@each_told
def test_the_ends_are_before_and_patched(given, name, machine) -> None:
    told = Told(given(name, machine, True))
    assert told.check(told.total) == [call.expected("before") for call in told.case.manifest.call]
    told.fresh().apply(told.patch)
    results, _, _ = told.calls()
    assert results == told.model([[1] * len(call) for call in told.entered])
    if all(call.reverted is None for call in told.case.manifest.call):
        assert results == [call.expected("patched") for call in told.case.manifest.call]


@each_machine
@each_told
def test_a_patch_that_does_not_hold_is_noticed(given, name, machine, monkeypatch) -> None:
    """One that goes in an instruction late, that does not go out, that does not go in, and whose entries stay old."""
    told = Told(given(name, machine, True))
    point = told.decisive()
    told.check(point)
    told.how = Consistency.IMMEDIATE
    told.fresh().apply_at(point + 1, told.patch)
    with pytest.raises(AssertionError, match=r"assert \["):
        told.compare(point)
    told.fresh().apply(told.patch)
    told.process.applied.append(AppliedAt("it", 0, 1))
    with pytest.raises(AssertionError, match=r"assert \["):
        told.compare(0, 1)
    told.fresh().applied.append(AppliedAt("it", 0, 1))
    with pytest.raises(AssertionError, match=r"assert \["):
        told.compare(point)
    old_entries_stay(monkeypatch)
    told.fresh().apply(told.patch)
    told.process.applied.append(AppliedAt("it", 0, 1))
    with pytest.raises(AssertionError, match=r"assert \["):
        told.compare(0)


@each_machine
def test_a_newer_patch_that_cannot_go_in_changes_nothing(given, machine) -> None:
    """Tried at a later point of the run: refused, and every call is as if it had not been."""
    one = given("failed-replace", machine, True)
    told, expect = Told(one), one.case.manifest.expect
    rng = random.Random(machine.value)
    for _ in range(test_points.POINTS):
        first, second = sorted(rng.sample(range(told.total), 2))
        process = told.fresh()
        process.apply_at(first, told.patch)
        process.apply_at(second, one.later)
        results, entered, _ = told.calls()
        assert [refusal.rule for refusal in process.refused] == [expect.then_rule]
        assert len(process.applied) == 1
        assert results == told.model([told.sides([first], call) for call in entered])


@each_machine
def test_a_program_that_is_busy_is_left_as_it_is(given, machine) -> None:
    """A callback refuses at every instruction of every call."""
    one = given("hooks", machine, True)
    told = Told(one)
    busy = one.case.manifest.expect.busy
    for point in range(told.total):
        process = told.fresh()
        process.call(busy, 1)
        process.apply_at(process.instructions + point, told.patch, told.how)
        results, _, _ = told.calls()
        assert [refusal.rule for refusal in process.refused] == [hotpatch.Rule.CALLBACK_VETO], point
        assert not process.applied
        assert results == [call.expected("before") for call in told.case.manifest.call], point
