"""The story of a program that is patched while it runs, and given its old code back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from hotpatch.address import Va
from hotpatch.arch import LONGEST_INSTRUCTION, Flow, architecture
from hotpatch.builder import build_patch
from hotpatch.cases.story import StepKind, Teller
from hotpatch.differ import diff_images
from hotpatch.errors import InputError, counted
from hotpatch.image import open_image
from hotpatch.process import Process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hotpatch.arch import Machine
    from hotpatch.cases.model import Case, Demo
    from hotpatch.cases.story import Step
    from hotpatch.engine import AppliedPatch
    from hotpatch.patch import Patch

_INSTRUCTION_LIMIT = 2_000_000
"""More than any shipped story takes."""


def tell_program(case: Case, machine: Machine, demo: Demo, seed: int = 0) -> Iterator[Step]:
    """Run the case's program; patch it, and take the patch back, in the middle.

    Raises:
        InputError: The program ended before the patch could go in or be taken back.
    """
    tell = Teller(machine)
    base, fixed = open_image(case.image(machine)), open_image(case.image(machine, "fixed"))
    yield tell.step(StepKind.TITLE, f"{case.manifest.title} [{machine}]", case=case.name)
    found = diff_images(base, fixed)
    patch = build_patch(found)
    yield from tell.built(found, patch)

    process = Process(base, seed=seed, stdin=demo.stdin.encode(), args=demo.args)
    process.start()
    yield tell.step(StepKind.ACT, f"the program runs, as it was shipped, in an emulated process at 0x{process.load_base:x}")
    yield tell.step(StepKind.SAY, "requests on the left, replies on the right")
    watch = _Watch(tell, process, demo)
    watch.shipped(patch)
    yield from watch.until(demo.apply_after)
    yield from watch.calls()
    before = process.instructions

    threads, spawned = len(process.guest.threads()), process.threads
    yield tell.step(
        StepKind.ACT,
        f"after {before} instructions the patch goes in; {counted(threads, 'thread')} {'is' if threads == 1 else 'are'} at work",
    )
    yield from watch.threads()
    since = len(process.events)
    applied = process.apply(patch)
    yield from tell.changes(process, since)
    held = process.instructions - before
    waited = _waited(process, since)
    yield tell.step(
        StepKind.SAY,
        f"while it went in, {counted(held, 'instruction')} ran, and {counted(waited, 'thread')} had to be waited for",
        held=held,
        waited=waited,
    )
    watch.patched(applied, since)

    yield tell.step(StepKind.ACT, "the program goes on: the same threads, the same memory, the new code")
    yield from watch.until(demo.revert_after)
    yield from watch.calls()

    yield tell.step(StepKind.ACT, f"after {process.instructions} instructions the patch is taken back")
    since = len(process.events)
    applied.revert()
    yield from tell.changes(process, since)
    watch.reverted()

    yield tell.step(StepKind.ACT, "the program goes on to its end: the old code again, and the bug with it")
    yield from watch.until(None)
    yield from watch.calls()
    result = process.result()
    begun = result.threads - spawned
    lost = f"; of the state from before the patch was not seen: {', '.join(sorted(watch.missing))}" if watch.missing else ""
    yield tell.step(
        StepKind.END,
        f"exit code {result.exit_code} after {result.instructions} instructions on {counted(result.threads, 'thread')}, "
        f"{begun or 'none'} begun after the patch{lost}",
        right=not watch.missing,
        exit_code=result.exit_code,
        instructions=result.instructions,
        threads=result.threads,
        begun=begun,
    )


def _details(process: Process, since: int, kind: str) -> Iterator[Mapping[str, Any]]:
    return (event.details for event in process.events[since:] if event.kind == kind)


def _waited(process: Process, since: int) -> int:
    """How many threads the engine has waited for since event number ``since``."""
    return len({holder["thread"] for details in _details(process, since, "wait") for holder in details["holders"]})


def _displaced(process: Process, since: int) -> dict[Va, bytes]:
    """The bytes in whose place redirects have been stored since event number ``since``, by the entry."""
    found = _details(process, since, "redirect")
    return {Va(details["va"]): bytes.fromhex(details["before"]) for details in found if details["va"] != details["pointer"]}


@dataclass(frozen=True, slots=True)
class _Code:
    """Where the two codes of a patched function can be told apart.

    Attributes:
        entry: Of the base's function.
        old: The first instruction behind the redirect, where it is known that the old code always gets there.
        new: Entry of the patch's function, once it is in the process.
    """

    entry: Va
    old: Va | None
    new: Va | None


class _Watch:
    """Runs the program one instruction at a time: what it is asked and writes, on which thread, and which code its calls reach."""

    def __init__(self, tell: Teller, process: Process, demo: Demo) -> None:
        self._tell, self._process, self._demo = tell, process, demo
        self._lines, self._bytes = 0, 0
        self._codes: dict[str, _Code] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._stood: dict[int, Va] = {}
        self._turn = 0
        self._taken: dict[int, list[tuple[str, str]]] = {}
        self._kept: tuple[str, ...] = ()
        self.missing = set(demo.kept)
        """Texts that show kept state, and have not been written yet."""

    def shipped(self, patch: Patch) -> None:
        """Watch the code of every function that ``patch`` will replace, before it does."""
        base, guest = self._process.load_base, self._process.guest
        for item in patch.functions:
            entry = Va(base + item.base_rva)
            name = item.name or f"rva:0x{item.base_rva:x}"
            self._codes[name] = _Code(entry, self._resume(entry, guest.read(entry, 1)), None)

    def patched(self, applied: AppliedPatch, since: int) -> None:
        """Watch both codes of every function of ``applied``, whose redirects are told by the events from number ``since`` on."""
        displaced = _displaced(self._process, since)
        self._codes = {
            item.name or f"rva:0x{item.rva:x}": _Code(
                item.va, None if item.va not in displaced else self._resume(item.va, displaced[item.va]), item.destination
            )
            for item in applied.functions
        }
        self._kept = self._demo.kept
        self._counts.clear()

    def reverted(self) -> None:
        """Count anew; both codes stay watched, whatever the revert was meant to do."""
        self._counts.clear()

    def _resume(self, entry: Va, displaced: bytes) -> Va | None:
        """The first of the base's instructions behind a redirect, which only the old code reaches; ``None`` where it may branch before."""
        end = Va(entry + len(displaced))
        code = displaced + self._process.guest.read(end, LONGEST_INSTRUCTION)
        va = entry
        for instruction in architecture(self._process.base.machine).disassemble(code, entry):
            if instruction.flow is not Flow.NEXT:
                return None
            va = Va(va + instruction.size)
            if va >= end:
                return va
        return None

    def until(self, prefix: str | None) -> Iterator[Step]:
        """Go on until a line that begins with ``prefix`` has been written; to the end where it is ``None``."""
        process = self._process
        while process.instructions < _INSTRUCTION_LIMIT:
            process.guest.run(process.instructions + 1)
            self._count()
            for line in self._fresh():
                yield from self._told(line)
                if prefix is not None and line.startswith(prefix):
                    return
            if process.finished or process.fault is not None:
                if prefix is None:
                    return
                break
        raise InputError(self._process.base.name, f"the program ended before it wrote {prefix!r}; tell of it with another seed")

    def threads(self) -> Iterator[Step]:
        """Where each thread stands."""
        for view in self._process.stop_view():
            names = [frame.function or "?" for frame in view.stack]
            where = " ← ".join(dict.fromkeys([view.function or "?", *names]))
            state = f"waits for {view.waits_for}" if view.waits_for else view.state
            yield self._tell.step(
                StepKind.THREAD,
                f"thread {view.id}  {where}\n          at 0x{view.pc:x}, {state}",
                thread=view.id,
                pc=view.pc,
                stack=names,
                state=view.state,
            )

    def calls(self) -> Iterator[Step]:
        """How many calls of each patched function reached which code; nothing of the old where it cannot be told."""
        for name, code in self._codes.items():
            new, old = self._counts[name, "new"], None if code.old is None else self._counts[name, "old"]
            text = f"calls of {name} meanwhile: {new} took the new code" + ("" if old is None else f", {old} the old")
            yield self._tell.step(StepKind.CALL, text, function=name, old=old, new=new)

    def _count(self) -> None:
        position = self._process.position
        if position is not None:
            self._turn = position[0]
        # Between turns it is not known here whose turn it was.
        standing = [position] if position is not None else [(thread.id, thread.pc) for thread in self._process.guest.threads()]
        for thread, pc in standing:
            before = self._stood.get(thread)
            if pc == before:
                continue
            self._stood[thread] = pc
            for name, code in self._codes.items():
                if pc == code.new:
                    self._reached(thread, name, "new")
                # A loop of the old code may lead back to its second instruction, but not from the entry.
                elif pc == code.old and before is not None and code.entry <= before < pc:
                    self._reached(thread, name, "old")

    def _reached(self, thread: int, function: str, code: str) -> None:
        self._counts[function, code] += 1
        self._taken.setdefault(thread, []).append((function, code))

    def _fresh(self) -> list[str]:
        written = len(self._process.guest.system.output)
        if written == self._bytes:
            return []
        text, self._bytes = self._process.output, written
        complete = text[: text.rfind("\n") + 1].splitlines()
        fresh, self._lines = complete[self._lines :], len(complete)
        return fresh

    def _told(self, line: str) -> Iterator[Step]:
        """A line that has just been written: its request, if it answers one; the thread, and which code that ran for it."""
        demo, thread = self._demo, self._turn
        taken, request = self._taken.pop(thread, []), demo.answered(line)
        kinds = ((StepKind.BUG, demo.bug), (StepKind.GOOD, demo.repaired), (StepKind.KEPT, self._kept))
        kind = next((kind for kind, texts in kinds if any(text in line for text in texts)), StepKind.OUTPUT)
        self.missing -= {text for text in self._kept if text in line}
        hostile = request is not None and request.startswith(demo.hostile)
        told = hostile or kind in (StepKind.BUG, StepKind.GOOD)
        if request is not None and told:
            times = [(each, len(list(same))) for each, same in groupby(taken)]
            parts = [f"the {code} code of {name}" + (f" {count} times" if count > 1 else "") for (name, code), count in times]
            ran = ", ".join(parts) or "nothing that is patched"
            yield self._tell.step(
                StepKind.REQUEST,
                f"{request}   {'hostile: ' * hostile}thread {thread} ran {ran}",
                request=request,
                hostile=hostile,
                thread=thread,
                ran=[{"function": name, "code": code} for name, code in taken],
            )
        beside = {} if request is None or told else {"request": request}
        yield self._tell.step(kind, line, at=self._process.instructions, thread=thread, **beside)
