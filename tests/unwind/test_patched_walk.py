"""Programs with threads, patched while they run: at every instruction a walk finds what a shadow stack has recorded.

The shadow stack knows nothing of unwind data: it takes down each call that the emulator executes, with the registers that the caller keeps
across it, and forgets it when the thread is back behind the call with its stack pointer. So a walk has to be right in the old code, on its
way through padding, slots and dispatchers, in trampolines and in the new code, whoever called whom.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import pytest

import hotpatch
from hotpatch.arch import Flow, Machine, Redirect, architecture
from hotpatch.cases import find_case
from hotpatch.engine import occupancy
from hotpatch.engine.locate import Locator

GATES = 0x7FFF_D000_0000
"""From here on lies what belongs to the emulated system."""
CASES = ("unwind", "many-threads", "tls", "cookie", "guarded-call", "overflow-check", "thread-inside", "busy-caller", "lock-held")
STEPS_BEFORE, STEPS = 350, 1100
SAVED = {
    Machine.X64: ("rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15", "rsp"),
    Machine.ARM64: (*(f"x{number}" for number in range(19, 30)), "sp"),
}
each_machine = pytest.mark.parametrize("machine", list(Machine))


@cache
def built(case: str, machine: Machine, redirect: Redirect) -> tuple[hotpatch.Image, hotpatch.Patch]:
    base, fixed = (hotpatch.open(find_case(case).image(machine, side)) for side in ("base", "fixed"))
    return base, hotpatch.build(hotpatch.diff(base, fixed), redirect=redirect)


@dataclass(frozen=True)
class Call:
    """A call under way: where it will return, and the registers that its caller will find as they are."""

    back: int
    registers: dict[str, int]


@dataclass
class Shadow:
    """A process that is stepped, and the shadow stack of each of its threads."""

    process: hotpatch.Process
    calls: dict[int, list[Call]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    checked: int = 0
    deepest: int = 0
    places: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.machine = self.process.machine
        self.arch = architecture(self.machine)
        self.sp = self.arch.convention.sp

    def step(self) -> None:
        """Run one instruction, take down what it did, and compare every thread that moved."""
        guest = self.process.guest
        before = {thread.id: (thread, self._instruction(thread.pc)) for thread in guest.threads()}
        self.process.run(1)
        for thread in guest.threads():
            old, instruction = before.get(thread.id, (None, None))
            if old is None or (old.pc, old.sp) == (thread.pc, thread.sp):
                continue
            stack = self.calls.setdefault(thread.id, [])
            registers = old.registers
            if old.pc >= GATES and stack and not self._is_back(thread, stack[-1]):  # came back and went on in one step
                call = stack.pop()
                instruction, registers = self._instruction(call.back), call.registers
            if instruction is not None and instruction.flow in (Flow.CALL, Flow.CALL_INDIRECT):
                kept = {name: registers[name] for name in SAVED[self.machine]}
                stack.append(Call(instruction.address + instruction.size, kept))
            if stack and self._is_back(thread, stack[-1]):
                stack.pop()
            self._compare(thread, stack)

    def _is_back(self, thread, call: Call) -> bool:
        return thread.pc == call.back and thread.sp == call.registers[self.sp]

    def _instruction(self, pc: int):
        if pc >= GATES:
            return None
        return next(iter(self.arch.disassemble(self.process.guest.read(pc, 16), pc)))

    def _compare(self, thread, stack: list[Call]) -> None:
        engine, guest = self.process.engine, self.process.guest
        frames = [frame for frame, _ in occupancy.walk(guest, engine._locate, guest.modules(), thread)[0]][1:]
        outermost = next((index for index, frame in enumerate(frames) if frame.pc >= GATES), len(frames))
        callers = frames[:outermost]
        self.checked += 1
        self.deepest = max(self.deepest, len(callers))
        self._note(thread.pc)
        for caller in callers:
            self._note(caller.pc)
        wanted = list(reversed(stack))
        if [caller.pc for caller in callers] != [call.back for call in wanted]:
            found, expected = ([hex(va) for va in vas] for vas in ([c.pc for c in callers], [c.back for c in wanted]))
            self.problems.append(f"0x{thread.pc:x}: {found} for {expected}")
            return
        for caller, call in zip(callers, wanted, strict=True):
            wrong = {name: hex(caller.registers[name]) for name, value in call.registers.items() if caller.registers[name] != value}
            if wrong:
                self.problems.append(f"0x{thread.pc:x}, caller 0x{caller.pc:x}: {wrong} for {call.registers}")

    def _note(self, pc: int) -> None:
        """What kind of place an address is."""
        where = self.process.engine.locate(pc)
        if where is None:
            return
        if where.original is not None:
            self.places.add("on the way")  # padding, slot, dispatcher or trampoline
        self.places.add("base" if where.va == self.process.load_base else "patch")


def begin(case: str, machine: Machine, redirect: Redirect, number: int = 0) -> tuple[Shadow, hotpatch.Patch]:
    base, patch = built(case, machine, redirect)
    program = find_case(case).manifest.program[number]
    process = hotpatch.Process(base, args=program.args, stdin=program.stdin.encode(), seed=7)
    process.start()
    shadow = Shadow(process)
    for _ in range(STEPS_BEFORE):
        shadow.step()
    return shadow, patch


def finish(shadow: Shadow, steps: int) -> None:
    for _ in range(steps):
        if shadow.process.finished or len(shadow.problems) > 5:
            break
        shadow.step()
    assert shadow.process.fault is None
    assert shadow.problems == []
    assert shadow.checked > 300


@pytest.mark.parametrize("redirect", list(Redirect))
@each_machine
@pytest.mark.parametrize("case", CASES)
def test_immediate(case: str, machine: Machine, redirect: Redirect) -> None:
    shadow, patch = begin(case, machine, redirect)
    shadow.process.apply(patch)
    finish(shadow, STEPS)
    if case in ("unwind", "many-threads", "tls"):
        assert "patch" in shadow.places
        if redirect is not Redirect.INLINE or machine is Machine.X64:
            assert "on the way" in shadow.places or redirect is not Redirect.HPAT


@each_machine
def test_originals_by_their_trampolines(machine: Machine) -> None:
    """The original runs by its trampoline while the patch stands, and what it calls is walked down to the thread's start."""
    base, patch = built("basic", machine, Redirect.INLINE)
    process = hotpatch.Process(base)
    applied = process.apply(patch)
    shadow = Shadow(process)
    process.spawn(applied.original("clamp"), 11)
    while not process.finished:
        shadow.step()
        assert process.instructions < 100
    assert shadow.problems == []
    assert "on the way" in shadow.places


@each_machine
def test_a_wrong_walk_is_noticed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the comparison would prove nothing: new code whose unwind data nobody knows."""
    shadow, patch = begin("unwind", machine, Redirect.HPAT)
    start = shadow.process.apply(patch).functions[0].destination
    new = range(start, start + patch.functions[0].size)
    real = Locator.locate
    monkeypatch.setattr(Locator, "locate", lambda locator, va, modules: None if va in new else real(locator, va, modules))
    for _ in range(400):
        shadow.step()
    assert shadow.problems
