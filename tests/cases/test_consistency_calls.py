"""The calls of every case, and of those that have a later patch that one's too, under every consistency model, whatever the schedule.

Checked as programs are (``test_consistency.py``); where each call was on one side, its result is the one of that side, too.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import cache
from itertools import product

import pytest

import hotpatch
from hotpatch.arch import Redirect
from hotpatch.cli.arguments import parse_argument
from hotpatch.engine import Consistency
from hotpatch.errors import Rule
from tests.cases.test_consistency import FULL, PATCHED, each_machine, each_model
from tests.mixing import Watch
from tests.stepping import Steps

WITH_CALLS = [case.name for case in PATCHED if case.manifest.call]
CALL_ORIGINALS = ("original-called",)
"""Cases whose new functions call the original that they replace, which is no mixing."""
CONVERT = ("hooks",)
"""Cases whose callbacks convert data, which with ``immediate`` a call that is inside may store in the old form afterwards."""


class Calls:
    """A case's calls, made again and again, round after round: what they give is what they give where changes come between them.

    In the first round the patch goes in and comes out. Where the case has a later patch, the next are a round each for going in, for the
    later one's going on top and coming off, and for coming out.
    """

    def __init__(self, one) -> None:
        self.one, self.process = one, hotpatch.Process(one.image("base"))
        self.patches = [one.patch] if one.later is None else [one.patch, one.later]
        self.rounds = [(0, 0)] if one.later is None else [(0, 0), (0,), (1,), (1,), (0,)]
        self.watch, self.steps = Watch(self.process, *self.patches), Steps(self.process)
        self.start = self.process.snapshot()
        self.steps.reset(on=False)
        self.all_hpat = all(function.redirect is Redirect.HPAT for patch in self.patches for function in patch.functions)
        self.calls = [(call.function, call.args) for call in one.case.manifest.call]
        self.between = cache(self._between)
        self.total = self.process.instructions
        self.between(((None, None),))
        self.total = self.process.instructions - self.total

    def stay_out(self, model: Consistency) -> set[int]:
        """Patches that are refused."""
        if model is not Consistency.IMMEDIATE and not self.all_hpat:
            return {0, 1}
        return {1} if self.one.case.manifest.expect.then_rule else set()

    def _between(self, at: tuple[tuple[int | None, ...], ...]) -> tuple:
        """Results of rounds where each change comes before the call of that number, or never; what the process is then, what stands."""
        if not at:
            return (), self.start, ()
        results, moment, standing = self.between(at[:-1])
        numbers, found, handles = at[-1], [], list(standing)
        self.process.restore(moment)
        for number in range(len(self.calls) + 1):
            for which in [which for which, before in zip(self.rounds[len(at) - 1], numbers, strict=True) if before == number]:
                if which < len(handles):
                    handles.pop().revert()
                else:
                    handles.append(self.process.apply(self.patches[which]))
            found += [
                self.process.call(function, *map(parse_argument, arguments)) for function, arguments in self.calls[number : number + 1]
            ]
        return (*results, tuple(found)), self.process.snapshot(), tuple(handles)

    def somewhere(self, model: Consistency, seed: int, *, stepping: bool = False) -> None:
        """Each change comes at some instruction of its round."""
        process, watch, out = self.process, self.watch, self.stay_out(model)
        process.restore(self.start)
        watch.reset()
        self.steps.reset(on=stepping)
        rng = random.Random(repr((self.one.case.name, seed)))
        found, points, whole, standing = [], [], True, set()
        for changes in self.rounds:
            for which, at in zip(changes, sorted(rng.randrange(self.total) for _ in changes), strict=True):
                change = process.revert_at if which in standing else process.apply_at
                change(process.instructions + at, self.patches[which], *([] if which in standing else [model]))
                standing ^= {which}
            results, pending = [], []
            for function, arguments in self.calls:
                watch.pause()
                results.append(process.call(function, *map(parse_argument, arguments)))
                pending.append(len(process.pending))
                whole = whole and len(set().union(*watch.sides.values())) < 2
                watch.called()
            assert not process.engine.poll().busy
            assert not process.status().changes
            assert not process.pending or len(self.rounds) == 1  # new code may be shorter
            assert process.pending or len(process.status().patches) == len(standing - out)
            found.append(tuple(results))
            came = [sum(left >= len(changes) - number for left in pending) for number in range(len(changes))]
            points.append([(None,) * len(changes)] if out & set(changes) else _ordered((number, number + 1) for number in came))
        self.check(model, seed, found, points if whole else None)

    def check(self, model: Consistency, seed: int, found: list[tuple[int, ...]], points: list[list[tuple]] | None) -> None:
        """Nothing was mixed or refused but as it must be; results are those of changes at one of ``points`` of each round, where known."""
        name, then_rule = self.one.case.name, self.one.case.manifest.expect.then_rule
        refused = {refusal.rule for refusal in self.process.refused}
        stayed_out = Rule.CONSISTENCY_NEEDS_HPAT in refused
        assert stayed_out is (0 in self.stay_out(model))
        assert refused == (
            {Rule.CONSISTENCY_NEEDS_HPAT, Rule.NOT_APPLIED} if stayed_out else {then_rule, Rule.NOT_APPLIED} if then_rule else set()
        )
        assert model is Consistency.IMMEDIATE or name in CALL_ORIGINALS or not (self.watch.mixed or self.steps.mixed)
        if points is not None and (model is not Consistency.IMMEDIATE or name not in CONVERT):
            told = [()]
            for number, some in enumerate(points):
                ways = [(*at, numbers) for at in told for numbers in dict.fromkeys(some)]
                told = [at for at in ways if self.between(at)[0][number] == found[number]]
                assert told, (seed, found, points)


def _ordered(each: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """One of each, in every way in which none is less than the one before; equal ones, which call each other off, count as none."""
    rows = [row for row in product(*each) if list(row) == sorted(row)]
    return [row if len(set(row)) == len(row) else (None,) * len(row) for row in rows]


@each_model
@each_machine
@pytest.mark.parametrize("name", WITH_CALLS)
def test_calls(given, name, machine, model) -> None:
    calls = Calls(given(name, machine, True))
    for seed in FULL:
        calls.somewhere(model, seed)


@pytest.mark.exhaustive
@pytest.mark.parametrize("model", [Consistency.QUIESCENT, Consistency.PER_THREAD])
@each_machine
@pytest.mark.parametrize("name", WITH_CALLS)
def test_calls_at_every_step(given, name, machine, model) -> None:
    """And one whose new functions call the original is seen to, or it would prove nothing."""
    calls, mixed = Calls(given(name, machine, True)), []
    for seed in FULL:
        calls.somewhere(model, seed, stepping=True)
        mixed += calls.steps.mixed
    assert calls.steps.looks or not calls.all_hpat
    assert bool(mixed) is (name in CALL_ORIGINALS)


@each_model
@each_machine
def test_a_later_patch_mixes_only_by_immediate_and_that_is_seen(given, machine, model) -> None:
    """One that gives one of two functions back whose frames alternate on the stack: none of the cases that have a later patch nests any."""
    one = given("mutual-recursion", machine, True)
    later = hotpatch.build(one.diff, only=["even_step"], sequence=2)
    process = hotpatch.Process(one.image("base"))
    watch, steps = Watch(process, one.patch), Steps(process)
    steps.reset(on=False)
    process.apply(one.patch)
    start = process.snapshot()
    total, mixed = process.call_details("even_step", 20, 0).instructions, []
    for point in range(0, total, total // 20):
        process.restore(start)
        watch.reset()
        steps.reset(on=True)
        process.apply_at(process.instructions + point, later, model)
        process.call("even_step", 20, 0)
        watch.called()
        assert len(process.status().patches) == 2
        mixed.append((bool(watch.mixed), bool(steps.mixed)))
    assert all(by_watch is by_steps for by_watch, by_steps in mixed), mixed
    assert any(by_watch for by_watch, _ in mixed) is (model is Consistency.IMMEDIATE)
