"""Micro-execution: a function of the patched base and the same function of the fixed image, run on the same made-up state and compared.

Both images are loaded at the same address into processes of their own. The patched side is called at the base's entry and gets to the new
function through its redirect; one that only the patch has is called where it lies there. Then both run from the same registers, stack words
and memory, which a seed gives (:mod:`micro_scenery`): pages come into being when the function touches them. A call out of the function is
not run: callee and arguments are noted, and the caller goes on with a result that the seed gives; only small callees without calls, the
same in both images, are run (stack probes, cookie checks), as long as that does not take long.
Compared are the calls in order, with callee, argument registers, the first words of the stack and what pointers into the function's own
frame point to; how the run ended; result registers and the registers that a callee keeps; and all memory outside of the stack whose content
has changed, and the caller's words on the stack; where the code should be the same instruction by instruction, also which data of the image
each instruction came upon (globals are as the loader leaves them, so often all zero), where it stored to, and what, and which way each
branch would have gone. A thread's own data are made up, too (:mod:`micro_thread`).
Addresses that lie in an image are mapped through the correlation of the two images; parts of them are made up (:mod:`micro_parts`).

What is not seen: paths that no seed takes (``coverage`` says which share of the instructions ran); that a store leaves memory as it was,
where code need not be the same; vector registers beyond the first result and the arguments; what callees do, and so everything that only
they would do with wrong data;
addresses inside of things that only one image has, which are taken for each other; addresses that are reckoned from things which
the function refers to and lie outside of them; structured exceptions. A run of more than
:data:`~hotpatch.verifier.micro_run.RUN_BUDGET` instructions compares only the calls that it made, its branches and what it touched.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from random import Random
from typing import TYPE_CHECKING

from hotpatch.address import Rva, Va
from hotpatch.arch import Flow
from hotpatch.differ import Verdict, diff_images
from hotpatch.emulator.memory import PAGE
from hotpatch.errors import HotpatchError
from hotpatch.image import Range
from hotpatch.patch import CarriedKind, PatchedFunction
from hotpatch.process import Process
from hotpatch.verifier.micro_blocks import entered_by_unwinding
from hotpatch.verifier.micro_correlation import Correlation
from hotpatch.verifier.micro_model import MicroOutcome, MicroReport
from hotpatch.verifier.micro_observed import Place
from hotpatch.verifier.micro_paths import Shape
from hotpatch.verifier.micro_run import Runner, leads_on
from hotpatch.verifier.micro_scenery import CONSTANTS
from hotpatch.verifier.micro_sides import Sides
from hotpatch.verifier.micro_spared import NONE, Spared
from hotpatch.verifier.micro_trials import Trials
from hotpatch.verifier.stand_ins import stand_in

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from hotpatch.differ import FunctionMatch, ImageDiff
    from hotpatch.image import Function, Image
    from hotpatch.patch import Carried, Patch
    from hotpatch.verifier.micro_thread import ThreadData

SEEDS = 48
"""Seeds tried for each function, fewer where there are many functions or they run long."""
_RUNS = 4_000
"""Seeds of all functions together: with more than ``_RUNS / SEEDS`` functions each gets fewer, but :data:`_FEWEST`."""
_FEWEST = 4
_BLOCK_SEEDS = 4
"""Seeds tried for each block that unwinding alone enters."""
_BLOCKS = 16
"""Of a function that are run."""
_LEAF_SIZE = 256
_UNTOLD = "neither its name nor a reference tells which function of the fixed image it is"
_ELSEWHERE = 0x7FF3_1357_0000
"""Where the fixed image is loaded once more to tell what depends on where it lies."""
_MOVED = 4
"""Processes of that kind that are kept at a time."""
_STRAIGHT = (Flow.NEXT, Flow.BRANCH, Flow.JUMP, Flow.RETURN, Flow.TRAP)


class MicroExecution:
    """The processes that micro-execution of one pair of images needs, made when they are first used."""

    def __init__(self, base: Image, fixed: Image, patch: Patch | None = None, *, diff: ImageDiff | None = None, seed: int = 0) -> None:
        """Compare functions of ``base``, with ``patch`` where one is given, with those of ``fixed``; ``seed`` is the first of the seeds."""
        self.diff = diff if diff is not None else diff_images(base, fixed)
        self._base, self._fixed, self._patch, self._seed = base, fixed, patch, seed
        self._leaf = cache(self._is_leaf)
        self._spared_in_base, self._spared_in_fixed = Spared(base), Spared(fixed)
        self._theirs: Runner | None = None
        self._unpatched: tuple[Runner, Correlation] | None = None
        self._elsewhere: dict[int, Runner | None] = {}
        self._travelling = frozenset() if patch is None else frozenset(function.base_rva for function in patch.functions)
        kept = (Verdict.IDENTICAL, Verdict.RELOCATED)
        rows = [(row.base, row.fixed, row) for row in self.diff.functions if row.base and row.fixed]
        self._by_base = {base.entry: row for base, _, row in rows}
        self._by_fixed = {row.fixed.entry: row for row in self.diff.functions if row.fixed}
        unlike = {fixed.entry for base, fixed, row in rows if row.verdict not in kept or base.entry in self._travelling}
        alike = [(base, fixed) for base, fixed, row in rows if fixed.entry not in unlike]
        self._leaves_base = {base.entry: fixed for base, fixed in alike}
        self._leaves_fixed = {fixed.entry: fixed for _, fixed in alike}

    @property
    def load_base(self) -> Va:
        """Where both images are loaded."""
        return Va(self._fixed_runner().process.load_base)

    def travelling(self, only: Collection[Rva] | None = None, *, seeds: int | None = None) -> tuple[MicroReport, ...]:
        """Functions of the patch, patched base against fixed image: all, or ``only`` those.

        Those that replace one come first, by base RVA, then those that it carries, by patch RVA.

        Args:
            only: Entries in the base; no carried function runs where they are given.
            seeds: Tried for each; fewer where the function has run long enough or nothing new is found.

        Raises:
            ApplyRefused: The patch does not go in.
            EmulatedFault: An image does not start up.
        """
        if self._patch is None:
            return ()
        process = self._process(self._base)
        stand_in(process, self._patch)
        applied = process.apply(self._patch)
        status = process.status().patches[-1]
        correlation = Correlation(self.diff, process, self._fixed_runner().process, applied, status.image)
        span = range(status.image, status.image + status.size)
        runner = Runner(process, span)
        carried = [item for item in self._patch.carried if item.kind is CarriedKind.FUNCTION]
        entries = [function.patch_rva for function in self._patch.functions] + [item.patch_rva for item in carried]
        known = frozenset(status.image + rva for rva in entries)
        functions = [function for function in self._patch.functions if only is None or function.base_rva in only]
        along = carried if only is None else []
        count = self._count(len(functions) + len(along)) if seeds is None else seeds
        reports = []
        wanted: tuple[PatchedFunction | Carried, ...] = (*functions, *along)
        for function in wanted:
            base_rva = function.base_rva if isinstance(function, PatchedFunction) else None
            row = self._row(base_rva, function.patch_rva, correlation)
            if row is None or row.fixed is None:
                why = "the correlation of the two images does not know the function" if base_rva is not None else _UNTOLD
                reports.append(MicroReport(function.name, base_rva, Rva(0), True, MicroOutcome.INCONCLUSIVE, 0, 0, 0, 0.0, ((why, 0),)))
                continue
            body = status.image + function.patch_rva
            place = Place(
                Va(body if base_rva is None else process.load_base + base_rva),
                Va(body),
                _own_code(span, known, body),
                lambda va: leads_on(va) or (va in span and va not in known),
                lambda va: self._leaf_at(self._leaves_base, va - process.load_base, process.load_base, base=True),
                partial(self._spared_at, correlation, span, process.load_base),
            )
            own = range(body, body + function.size)
            reports.append(self._compare(runner, place, correlation, row, own, count, patched=True))
        return tuple(reports)

    def unpatched(self, rows: Iterable[FunctionMatch], *, seeds: int = SEEDS) -> tuple[MicroReport, ...]:
        """Functions of the base as it is against the fixed image's; rows of the comparison that have both, at most ``seeds`` for each."""
        wanted = [row for row in rows if row.base and row.fixed]
        if not wanted:
            return ()
        if self._unpatched is None:
            process = self._process(self._base)
            self._unpatched = Runner(process), Correlation(self.diff, process, self._fixed_runner().process, None, None)
        runner, correlation = self._unpatched
        start, count = runner.process.load_base, min(seeds, self._count(len(wanted)))
        reports = []
        for row in wanted:
            if row.base is None:
                continue
            place = self._plain(row.base, start, base=True)
            own = range(start + row.base.entry, start + row.base.ranges[0].end)
            reports.append(self._compare(runner, place, correlation, row, own, count, patched=False))
        return tuple(reports)

    def left_out(self) -> tuple[FunctionMatch, ...]:
        """The changed functions that the patch does not carry, but for those where only line numbers and the like differ."""
        rows = (row for row in self.diff.of(Verdict.CHANGED) if row.base is not None and row.base.entry not in self._travelling)
        return tuple(row for row in rows if not any(note.startswith("cosmetic") for note in row.notes))

    def sample(self, count: int) -> tuple[FunctionMatch, ...]:
        """At most ``count`` functions that are said to be only relocated, drawn by the seed, by base RVA."""
        rows = [row for row in self.diff.of(Verdict.RELOCATED) if row.base and row.fixed]
        drawn = Random(self._seed).sample(rows, min(count, len(rows)))
        return tuple(sorted(drawn, key=lambda row: row.base.entry if row.base else 0))

    # inside ------------------------------------------------------------------------------------------------------------------------------

    def _row(self, base_rva: Rva | None, patch_rva: Rva, correlation: Correlation) -> FunctionMatch | None:
        """The row of the function that replaces the base's at ``base_rva``, or of one that is carried, at ``patch_rva`` of the patch image.

        What the base may have of that (blocks that unwinding enters travel with their functions) is not what runs, and left out.
        """
        if base_rva is not None:
            return self._by_base.get(base_rva)
        fixed = None if correlation.origins is None else correlation.origins.function(patch_rva)
        row = None if fixed is None else self._by_fixed.get(fixed.entry)
        return None if row is None else row._replace(base=None)

    @staticmethod
    def _count(functions: int) -> int:
        return max(_FEWEST, min(SEEDS, _RUNS // max(functions, 1)))

    def _process(self, image: Image, load_base: int | None = None) -> Process:
        """A process in which imports have the same addresses as in all others of this pair."""
        process = Process(image, load_base=load_base, partial_start=True, any_page=True)
        process.guest.arrange_imports((*self._base.imports, *self._fixed.imports))
        return process

    def _fixed_runner(self) -> Runner:
        if self._theirs is None:
            self._theirs = Runner(self._process(self._fixed, Process(self._base, partial_start=True).load_base))
        return self._theirs

    def _plain(self, function: Function, start: int, *, base: bool) -> Place:
        """A function where its own image has it; code in the middle of others that it jumps into (shared tails) is its own, too."""
        image = self._base if base else self._fixed
        ranges = [range(start + part.start, start + part.end) for part in function.ranges]
        leaves = self._leaves_base if base else self._leaves_fixed
        entry = Va(start + function.entry)
        return Place(
            entry,
            entry,
            lambda va: any(va in part for part in ranges) or _is_amid(image, va - start),
            leads_on,
            lambda va: self._leaf_at(leaves, va - start, start, base=base),
            lambda va: self._spared(Rva(va - start), base=base, patched=False),
        )

    def _leaf_at(self, leaves: dict[Rva, Function], rva: int, start: int, *, base: bool) -> tuple[int, int] | None:
        function = leaves.get(Rva(rva))
        if function is None or not self._leaf(function.entry):
            return None
        return start + rva, start + rva + function.size

    def _spared_at(self, correlation: Correlation, patch: range, start: int, va: int) -> frozenset[str]:
        """What the callee at ``va`` of the patched process leaves alone: in the image of the patch, or the base's at ``start``."""
        if va not in patch:
            return self._spared(Rva(va - start), base=True, patched=True)
        function = None if correlation.origins is None else correlation.origins.function(va - patch.start)
        return NONE if function is None else self._spared_in_fixed.by(function.entry)

    def _spared(self, entry: Rva, *, base: bool, patched: bool) -> frozenset[str]:
        """The registers that a function leaves alone in its image; of the ``base``'s no others than the fixed image's.

        Where one travels and the base is ``patched``, the fixed image's runs.
        """
        row = self._by_base.get(entry) if base else self._by_fixed.get(entry)
        if row is None or row.fixed is None:
            return NONE
        spared = self._spared_in_fixed.by(row.fixed.entry)
        is_own = base and not (patched and entry in self._travelling)
        return spared & self._spared_in_base.by(entry) if spared and is_own else spared

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
        if fixed is None or (base is None and not patched):
            raise HotpatchError("a function that only one image has cannot be compared; give rows that have both")
        theirs = self._fixed_runner()
        alike = patched or row.verdict is not Verdict.CHANGED
        sides = Sides(
            runner,
            place,
            theirs,
            partial(self._there, fixed, correlation.thread),
            self._moved_runner,
            correlation,
            fixed,
            self._shape(fixed, theirs.process.load_base),
            own,
            alike,
            _constants(self._fixed, fixed)
            if alike or base is None
            else _parting(_constants(self._base, base), _constants(self._fixed, fixed)),
        )
        trials = Trials(sides)
        trials.run(self._seed, seeds)
        for mine, other in self._blocks(base, fixed, own, correlation.patch_va if patched else None) if alike else ():
            there = partial(self._block_there, fixed, correlation.thread, other)
            block = Trials(replace(sides, place=replace(place, call=mine, body=mine), place_in=there))
            block.run(self._seed, min(seeds, _BLOCK_SEEDS))
            trials.add(block, f"block at 0x{other:x} of the fixed image")
        return trials.report(row, patched=patched)

    def _blocks(self, base: Function | None, fixed: Function, own: range, patch_va: Va | None) -> list[tuple[Va, Rva]]:
        """The blocks of a function that unwinding alone enters, in the process of the base (VA) and in the fixed image (RVA).

        Its code is at ``own`` in the patch image at ``patch_va`` where that is given, else it is the ``base`` image's.
        """
        if patch_va is not None and self._patch is not None:
            image, start = self._patch.image, int(patch_va)
            parts: tuple[Range, ...] = (Range(Rva(own.start - start), Rva(own.stop - start)),)
        elif base is not None:
            image, parts, start = self._base, base.ranges, own.start - base.entry
        else:
            return []
        mine, theirs = entered_by_unwinding(image, parts), entered_by_unwinding(self._fixed, fixed.ranges)
        pairs = zip(mine, theirs, strict=True) if len(mine) == len(theirs) else ()
        return [(Va(start + one), other) for one, other in pairs][:_BLOCKS]

    def _there(self, fixed: Function, thread: ThreadData, runner: Runner) -> Place:
        return replace(self._plain(fixed, runner.process.load_base, base=False), thread=thread.parts(fixed))

    def _block_there(self, fixed: Function, thread: ThreadData, block: Rva, runner: Runner) -> Place:
        start = Va(runner.process.load_base + block)
        return replace(self._there(fixed, thread, runner), call=start, body=start)

    def _moved_runner(self, distance: int | None = None) -> Runner | None:
        """The fixed image where it lies elsewhere, by a certain ``distance`` or far away; ``None`` if it cannot."""
        va = _ELSEWHERE if distance is None else self.load_base + distance
        if va not in self._elsewhere:
            for old in [other for other in self._elsewhere if other != _ELSEWHERE][: max(0, len(self._elsewhere) - _MOVED)]:
                del self._elsewhere[old]
            try:
                self._elsewhere[va] = Runner(self._process(self._fixed, va))
            except HotpatchError:
                self._elsewhere[va] = None
        return self._elsewhere[va]

    def _shape(self, fixed: Function, start: int) -> Shape:
        """The control flow of a function of the fixed image in its process."""
        arch, image = self._fixed.architecture, self._fixed
        instructions = [item for part in fixed.ranges for item in arch.disassemble(image.code(part), start + part.start)]
        tables = [
            (start + part.start + table.jump, tuple(start + target for target in table.ways))
            for part in fixed.ranges
            for table in image.jump_tables_in(part)
        ]
        return Shape(start + fixed.entry, instructions, tables, switches=len(fixed.ranges) == 1)


def _constants(image: Image, function: Function) -> tuple[int, ...]:
    """Numbers that the function's instructions hold, or a sample of them; no addresses, which made-up state must not hold by chance."""
    found: dict[int, None] = {}
    for part, references in zip(function.ranges, image.references(function), strict=True):
        led = {place for one in references for place in (int(one.target), one.target & -PAGE)}  # Arm64 writes them as numbers
        for item in image.architecture.disassemble(image.code(part), part.start):
            whole = Range(Rva(item.address), Rva(item.address + item.size))
            if item.flow is Flow.NEXT and not image.relocations_in(whole):
                found.update(dict.fromkeys(abs(number) for number in item.reckoned_with if number not in led))
    values = list(found)
    return tuple(values if len(values) <= CONSTANTS else Random(0).sample(values, CONSTANTS))


def _parting(mine: tuple[int, ...], theirs: tuple[int, ...]) -> tuple[int, ...]:
    """The constants of both: first those that only one side has, because there the two may part."""
    only = set(mine) ^ set(theirs)
    return tuple(sorted(dict.fromkeys((*mine, *theirs)), key=lambda number: number not in only))


def _own_code(span: range, known: frozenset[int], body: int) -> Callable[[int], bool]:
    """Whether code of the patch image is the function's at ``body``: everything but where other functions begin."""
    return lambda va: va in span and (va == body or va not in known)


def _is_amid(image: Image, rva: int) -> bool:
    """Whether ``rva`` lies in the middle of a function."""
    function = image.function_at(rva)
    return function is not None and function.entry != rva
