"""Micro-execution: a function of the patched base and the same function of the fixed image, run on the same made-up state and compared.

Both images are loaded at the same address into processes of their own. The patched side is called at the base's entry and gets to the new
function through its redirect; then both run from the same registers, stack words and memory, which a seed gives (:mod:`micro_scenery`):
pages come into being when the function touches them. A call out of the function is not run: callee and arguments are noted, and the caller
goes on with a result that the seed gives; only small callees without calls, the same in both images, are run (stack probes, cookie checks).
Compared are the calls in order, with callee, argument registers, the first words of the stack and what pointers into the function's own
frame point to; how the run ended; result registers and the registers that a callee keeps; and all memory outside of the stack whose content
has changed, and the caller's words on the stack. Addresses that lie in an image are mapped through the correlation of the two images.

What is not seen: paths that no seed takes (``coverage`` says which share of the instructions ran); stores that leave memory as it was;
vector registers beyond the first result and the arguments; what callees do, and so everything that only they would do with wrong data;
addresses inside of things that only one image has, which are taken for each other; addresses that are reckoned from things which
the function refers to and lie outside of them; a wrong datum of the image that holds what the right one holds (globals are as loaded,
often zero); structured exceptions. A run of more than
:data:`~hotpatch.verifier.micro_run.RUN_BUDGET` instructions compares only the calls that it made.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from random import Random
from typing import TYPE_CHECKING

from hotpatch.address import Rva, Va
from hotpatch.arch import Flow
from hotpatch.differ import Verdict, diff_images
from hotpatch.errors import ApplyRefused, FaultKind, HotpatchError, Refusal, Rule
from hotpatch.patch import CarriedKind
from hotpatch.process import Process
from hotpatch.verifier.micro_compare import Correlation, Difference, value_at
from hotpatch.verifier.micro_run import Place, RedirectError, Runner, function_addresses, leads_on
from hotpatch.verifier.micro_scenery import Scenery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hotpatch.differ import FunctionMatch, ImageDiff
    from hotpatch.image import Function, Image
    from hotpatch.patch import Patch, PatchedFunction
    from hotpatch.verifier.micro_run import Observed

SEEDS = 32
"""Seeds tried for each function, fewer where there are many functions or they run long."""
FUNCTION_BUDGET = 200_000
"""Instructions of both sides after which no further seed is tried."""
_RUNS = 4_000
"""Seeds of all functions together: with more than ``_RUNS / SEEDS`` functions each gets fewer, but :data:`_FEWEST`."""
_FEWEST = 4
_LEAF_SIZE = 256
_ELSEWHERE = 0x7FF3_0000_0000
"""Where the fixed image is loaded once more to tell what depends on where it lies."""
_STRAIGHT = (Flow.NEXT, Flow.BRANCH, Flow.JUMP, Flow.RETURN, Flow.TRAP)


class MicroOutcome(StrEnum):
    """What running a function on made-up state has shown."""

    AGREE = "agree"
    """No seed showed a difference, and at least one run could be compared to its end."""
    DIFFER = "differ"
    INCONCLUSIVE = "inconclusive"
    """No difference, but no run could be compared to its end either."""


@dataclass(frozen=True, slots=True)
class MicroReport:
    """One function.

    Attributes:
        name: If known.
        base_rva: Its entry in the base.
        fixed_rva: Its entry in the fixed image.
        patched: Whether the patched base ran, or the base as it is.
        outcome: What was found.
        seeds: Tried.
        agreed: Seeds whose runs were compared to their ends, and did the same.
        instructions: That the fixed image's function executed in all of them.
        coverage: Share of its instructions that ran at least once, 0.0 … 1.0.
        why: Why seeds were inconclusive, or ``""``.
        seed: That showed ``difference``.
        difference: The first one.
    """

    name: str | None
    base_rva: Rva
    fixed_rva: Rva
    patched: bool
    outcome: MicroOutcome
    seeds: int
    agreed: int
    instructions: int
    coverage: float
    why: str = ""
    seed: int | None = None
    difference: Difference | None = None

    @property
    def text(self) -> str:
        """The finding as one sentence."""
        if self.difference is not None:
            side = "patched base" if self.patched else "base"
            found = self.difference
            return f"seed {self.seed}: {found.what}: {found.mine} in the {side}, {found.theirs} in the fixed image"
        share = f"{self.agreed} of {self.seeds} seeds agree, {self.coverage:.0%} of the instructions ran"
        return f"{share}; {self.why}" if self.why else share


class MicroExecution:
    """The processes that micro-execution of one pair of images needs, made when they are first used."""

    def __init__(self, base: Image, fixed: Image, patch: Patch | None = None, *, diff: ImageDiff | None = None, seed: int = 0) -> None:
        """Compare functions of ``base``, with ``patch`` where one is given, with those of ``fixed``; ``seed`` is the first of the seeds."""
        self.diff = diff if diff is not None else diff_images(base, fixed)
        self._base, self._fixed, self._patch, self._seed = base, fixed, patch, seed
        self._leaf = cache(self._is_leaf)
        self._scenery = cache(Scenery)
        self._theirs: Runner | None = None
        self._unpatched: tuple[Runner, Correlation] | None = None
        self._elsewhere: Runner | None = None
        travelling = set() if patch is None else {function.base_rva for function in patch.functions}
        kept = (Verdict.IDENTICAL, Verdict.RELOCATED)
        rows = [(row.base, row.fixed, row) for row in self.diff.functions if row.base and row.fixed]
        self._by_base = {base.entry: row for base, _, row in rows}
        alike = [(base, fixed) for base, fixed, row in rows if row.verdict in kept and base.entry not in travelling]
        self._leaves_base = {base.entry: fixed for base, fixed in alike}
        self._leaves_fixed = {fixed.entry: fixed for _, fixed in alike}

    def travelling(self) -> tuple[MicroReport, ...]:
        """Every function of the patch, patched base against fixed image, by base RVA.

        Raises:
            ApplyRefused: The patch does not go in.
            EmulatedFault: An image does not start up.
        """
        if self._patch is None:
            return ()
        process = Process(self._base)
        process.apply(self._patch)
        status = process.status().patches[-1]
        theirs = self._fixed_runner()
        correlation = Correlation(self.diff, process, theirs.process, self._patch, status.image)
        runner = Runner(process)
        entries = {item.patch_rva for item in self._patch.functions}
        entries |= {item.patch_rva for item in self._patch.carried if item.kind is CarriedKind.FUNCTION}
        known = frozenset(status.image + rva for rva in entries)
        span = range(status.image, status.image + status.size)
        reports = []
        for function in self._patch.functions:
            row = self._by_base.get(function.base_rva)
            if row is None or row.fixed is None:
                reports.append(_nothing(function, "the correlation of the two images does not know the function"))
                continue
            body = status.image + function.patch_rva
            place = Place(
                Va(process.load_base + function.base_rva),
                Va(body),
                _own_code(span, known, body),
                lambda va: leads_on(va) or (va in span and va not in known),
                lambda va: self._leaf_at(self._leaves_base, va - process.load_base, process.load_base, base=True),
            )
            own = range(body, body + function.size)
            seeds = self._count(len(self._patch.functions))
            reports.append(self._compare(runner, place, correlation, row, own, seeds, patched=True))
        return tuple(reports)

    def unpatched(self, rows: Iterable[FunctionMatch]) -> tuple[MicroReport, ...]:
        """Functions of the base as it is against the fixed image's; rows of the comparison that have both."""
        wanted = [row for row in rows if row.base and row.fixed]
        if not wanted:
            return ()
        if self._unpatched is None:
            process = Process(self._base)
            self._unpatched = Runner(process), Correlation(self.diff, process, self._fixed_runner().process, None, None)
        runner, correlation = self._unpatched
        start = runner.process.load_base
        reports = []
        for row in wanted:
            if row.base is None:
                continue
            place = self._plain(row.base, start, base=True)
            own = range(start + row.base.entry, start + row.base.ranges[0].end)
            reports.append(self._compare(runner, place, correlation, row, own, self._count(len(wanted)), patched=False))
        return tuple(reports)

    def sample(self, count: int) -> tuple[FunctionMatch, ...]:
        """At most ``count`` functions that are said to be only relocated, drawn by the seed, by base RVA."""
        rows = [row for row in self.diff.of(Verdict.RELOCATED) if row.base and row.fixed]
        drawn = Random(self._seed).sample(rows, min(count, len(rows)))
        return tuple(sorted(drawn, key=lambda row: row.base.entry if row.base else 0))

    # inside ------------------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _count(functions: int) -> int:
        return max(_FEWEST, min(SEEDS, _RUNS // max(functions, 1)))

    def _fixed_runner(self) -> Runner:
        if self._theirs is None:
            self._theirs = Runner(Process(self._fixed, load_base=Process(self._base).load_base))
        return self._theirs

    def _plain(self, function: Function, start: int, *, base: bool) -> Place:
        """A function where its own image has it."""
        ranges = [range(start + part.start, start + part.end) for part in function.ranges]
        leaves = self._leaves_base if base else self._leaves_fixed
        entry = Va(start + function.entry)
        return Place(
            entry,
            entry,
            lambda va: any(va in part for part in ranges),
            leads_on,
            lambda va: self._leaf_at(leaves, va - start, start, base=base),
        )

    def _leaf_at(self, leaves: dict[Rva, Function], rva: int, start: int, *, base: bool) -> tuple[int, int] | None:
        function = leaves.get(Rva(rva))
        if function is None or not self._leaf(function.entry):
            return None
        return start + rva, start + rva + function.size

    def _is_leaf(self, entry: Rva) -> bool:
        """Whether the fixed image's function is small and calls nothing."""
        function = self._fixed.function_of_entry(entry)
        if function is None or len(function.ranges) != 1 or function.size > _LEAF_SIZE:
            return False
        code = self._fixed.code(function.ranges[0])
        found = list(self._fixed.architecture.disassemble(code, entry))
        flows = [item.flow for item in found]
        return sum(item.size for item in found) == len(code) and Flow.RETURN in flows and all(flow in _STRAIGHT for flow in flows)

    def _compare(
        self, runner: Runner, place: Place, correlation: Correlation, row: FunctionMatch, own: range, seeds: int, *, patched: bool
    ) -> MicroReport:
        base, fixed = row.base, row.fixed
        if base is None or fixed is None:
            raise HotpatchError("a function that only one image has cannot be compared; give rows that have both")
        theirs = self._fixed_runner()
        start = theirs.process.load_base
        there = self._plain(fixed, start, base=False)
        whole = function_addresses(theirs.process, [(start + part.start, start + part.end) for part in fixed.ranges])
        visited: set[int] = set()
        agreed = tried = executed = spent = 0
        why: dict[str, None] = {}
        found: tuple[int, Difference] | None = None
        for seed in range(self._seed, self._seed + seeds):
            scenery = self._scenery(seed)
            tried += 1
            try:
                mine = runner.run(place, scenery)
            except RedirectError as astray:
                found = seed, Difference("redirect", str(astray), "the function itself")
                break
            other = theirs.run(there, scenery)
            visited |= other.visited
            executed += other.executed
            spent += other.executed + mine.executed
            difference = correlation.difference(mine, other, fixed, own)
            if difference is None and FaultKind.BUDGET.value not in (mine.end, other.end):
                agreed += 1
            elif difference is None:
                why["runs exceed their budget of instructions"] = None
            elif (doubt := self._doubt(fixed, scenery, other, difference, correlation)) is not None:
                why[doubt] = None
            else:
                found = seed, difference
                break
            if spent > FUNCTION_BUDGET:
                break
        outcome = MicroOutcome.DIFFER if found else MicroOutcome.AGREE if agreed else MicroOutcome.INCONCLUSIVE
        coverage = len(visited & whole) / len(whole) if whole else 0.0
        seed_, difference_ = found if found else (None, None)
        return MicroReport(
            row.name, base.entry, fixed.entry, patched, outcome, tried, agreed, executed, coverage, "; ".join(why), seed_, difference_
        )

    def _doubt(self, fixed: Function, scenery: Scenery, first: Observed, difference: Difference, correlation: Correlation) -> str | None:
        """Why a difference shows nothing: the fixed image's own run gives another value there when it is made again, or elsewhere."""
        theirs = self._fixed_runner()
        again = theirs.run(self._plain(fixed, theirs.process.load_base, base=False), scenery)
        if (again.calls, again.words, again.written, again.end) != (first.calls, first.words, first.written, first.end):
            return "the function does not do the same twice"
        if difference.values is None or not difference.place:
            return None
        sides = zip(difference.values, (correlation.mine, correlation.theirs), strict=True)
        if any(0 <= value - process.load_base < process.base.size_of_image for value, process in sides):
            return None
        if self._elsewhere is None:
            try:
                self._elsewhere = Runner(Process(self._fixed, load_base=_ELSEWHERE))
            except HotpatchError:
                return None
        moved = self._elsewhere.run(self._plain(fixed, self._elsewhere.process.load_base, base=False), scenery)
        if value_at(moved, difference.place) != value_at(first, difference.place):
            return "a value depends on where the image lies"
        return None


def _own_code(span: range, known: frozenset[int], body: int) -> Callable[[int], bool]:
    """Whether code of the patch image is the function's at ``body``: everything but where other functions begin."""
    return lambda va: va in span and (va == body or va not in known)


def check_travelling(base: Image, fixed: Image, patch: Patch, diff: ImageDiff | None = None) -> tuple[MicroReport, ...]:
    """Micro-execute every function of a patch, for ``build --check``.

    Raises:
        ApplyRefused: A function of the patched base and the fixed image's do not do the same (rule micro-execution, with seed and values).
    """
    reports = MicroExecution(base, fixed, patch, diff=diff).travelling()
    refusals = [
        Refusal(
            Rule.MICRO_EXECUTION,
            report.name,
            report.base_rva,
            f"run on made-up state, the patched function and the fixed one differ ({report.text}); do not ship this patch, and report it",
            {"seed": report.seed, "what": found.what, "patched": found.mine, "fixed": found.theirs, "fixed_rva": int(report.fixed_rva)},
        )
        for report in reports
        if (found := report.difference) is not None
    ]
    if refusals:
        raise ApplyRefused(refusals)
    return reports


def _nothing(function: PatchedFunction, why: str) -> MicroReport:
    rva = function.base_rva
    return MicroReport(function.name, rva, Rva(0), True, MicroOutcome.INCONCLUSIVE, 0, 0, 0, 0.0, why)
