"""Running threads: slices, system calls, waits, time, faults. The only place where instructions are counted.

Everything is decided by counts and the schedule's state, never by the host: the same process, run in one go or stopped anywhere in between,
does the same.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.emulator import faults
from hotpatch.emulator.cpu_model import Trap
from hotpatch.emulator.exception_records import record_of
from hotpatch.emulator.exceptions import raise_exception
from hotpatch.emulator.frames import standing
from hotpatch.emulator.gates import CALLBACK, THREAD
from hotpatch.emulator.loading import start_thread
from hotpatch.emulator.memory import AccessError
from hotpatch.emulator.threads import Ended, Faulted, Frame, GoOn, Invoke, ThreadState
from hotpatch.emulator.waits import Input
from hotpatch.emulator.win32.call import Call, ProgramFaultError
from hotpatch.errors import Fault, FaultKind, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hotpatch.emulator.schedule import Schedule
    from hotpatch.emulator.system import System
    from hotpatch.emulator.threads import Continuation, GuestThread, Interrupted, Outcome, Wait

_WORD = (1 << 64) - 1
_ALONE = 1 << 20
"""Instructions of a slice while no other thread can run: nobody else is there to be interleaved with."""
_ATTENTIVE = 200
"""The same while somebody waits for the thread to leave a function."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something to do when the program has executed ``at`` instructions."""

    at: int
    action: Callable[[], None]


@dataclass(frozen=True, slots=True)
class EndThread:
    """The thread's function has returned: so does the thread."""

    def resume(self, system: System, thread: GuestThread, value: int) -> Outcome:
        """Remember the exit code."""
        thread.exit_code = value & 0xFFFF_FFFF
        return Ended.THREAD


@dataclass(frozen=True, slots=True)
class EndCall:
    """A call that the host made has returned."""

    def resume(self, system: System, thread: GuestThread, value: int) -> Outcome:
        """Back to the host."""
        return Ended.CALL


class Kernel:
    """Runs the threads of one :class:`System`."""

    def __init__(self, system: System, schedule: Schedule) -> None:
        self.system = system
        self.schedule = schedule
        self.alarms: list[Alarm] = []
        self.on_slice: Callable[[], bool] | None = None
        """Called before each choice of the schedule and at each system call, while no thread runs: what waits for threads may try again.
        Returns whether something still waits, so that it should be asked often."""
        self.call_ended = False
        """Whether the host's call has returned since :meth:`run` began."""

    # running -----------------------------------------------------------------------------------------------------------------------------

    def run(self, until: int, *, call: bool = False) -> None:
        """Run until the program has executed ``until`` instructions, or ended, or faulted, or (``call``) the host's call has returned."""
        system, counters = self.system, self.system.counters
        self.call_ended = False
        while system.fault is None and not counters.exited and not (call and self.call_ended):
            self._ring()
            if counters.instructions >= until:
                return
            thread = self._current() or self._choose()
            if thread is None:
                return
            limit = min(until, *(alarm.at for alarm in self.alarms)) if self.alarms else until
            self._slice(thread, min(counters.quantum, limit - counters.instructions))

    def step(self, thread: GuestThread, count: int) -> int:
        """Run one thread alone for ``count`` instructions, whatever the schedule says; returns how many it could execute."""
        system = self.system
        before = thread.executed
        while thread.executed - before < count and system.fault is None and not system.counters.exited:
            if self.on_slice is not None:
                self.on_slice()
            if not self._runnable(thread):
                break
            self._slice(thread, count - (thread.executed - before))
        return thread.executed - before

    def _runnable(self, thread: GuestThread) -> bool:
        """Whether the thread can run now; a wait that is over is ended."""
        if thread.state is ThreadState.BLOCKED and thread.wait is not None and thread.wait.ready(self.system, thread):
            self._wake(thread, timed_out=False)
        return thread.state is ThreadState.READY

    def begin_call(
        self, thread: GuestThread, va: int, integers: Sequence[int], floats: Sequence[tuple[int, int]], stack: Sequence[int]
    ) -> None:
        """Make the host's idle thread call ``va``; registers and stack words as :mod:`hotpatch.emulator.calls` laid them out."""
        thread.state = ThreadState.READY
        self.system.activate(thread)
        self._enter(thread, va, integers, stack, EndCall())
        for index, bits in floats:
            self.system.cpu.model.write_float(self.system.cpu, index, bits)
        self.system.counters.current, self.system.counters.quantum = 0, 0

    def abandon_call(self, thread: GuestThread) -> None:
        """Take the host's thread back to where it stands between calls, whatever it was doing."""
        thread.frames, thread.wait, thread.state, thread.context = (), None, ThreadState.IDLE, None
        self.system.loading.abandon(thread)
        self.system.clear_flags(thread)
        if self.system.active is thread:
            self.system.active = None

    # choosing ----------------------------------------------------------------------------------------------------------------------------

    def _ring(self) -> None:
        while self.alarms:
            due = [alarm for alarm in self.alarms if alarm.at <= self.system.counters.instructions]
            if not due:
                return
            first = min(due, key=lambda alarm: alarm.at)
            self.alarms.remove(first)
            first.action()

    def _current(self) -> GuestThread | None:
        counters = self.system.counters
        thread = self.system.threads.get(counters.current)
        return thread if counters.quantum > 0 and thread is not None and thread.state is ThreadState.READY else None

    def _choose(self) -> GuestThread | None:
        """Give the next slice away; where everybody sleeps, time passes; where nobody can ever run again, that is a fault.

        Where nobody can run before input comes, nobody is chosen.
        """
        system = self.system
        attentive = self.on_slice is not None and self.on_slice()
        ready = self._ready()
        while not ready:
            blocked = [thread for thread in system.threads.values() if thread.state is ThreadState.BLOCKED]
            deadlines = [wait.deadline for thread in blocked if (wait := thread.wait) is not None and wait.deadline is not None]
            if not deadlines:
                if any(isinstance(thread.wait, Input) for thread in blocked):
                    return None
                if blocked or any(thread.state is ThreadState.SUSPENDED for thread in system.living()):
                    self._deadlock(blocked)
                return None
            system.counters.skipped += max(min(deadlines) - system.now, 0)
            ready = self._ready()
        counters = system.counters
        counters.alone = len(ready) == 1
        if counters.alone:
            counters.current, counters.quantum = ready[0], min(self._undisturbed(), _ATTENTIVE if attentive else _ALONE)
        else:
            counters.current, counters.quantum = self.schedule.choose(ready)
        thread = system.threads[system.counters.current]
        if thread.state is ThreadState.BLOCKED and thread.wait is not None:
            self._wake(thread, timed_out=not thread.wait.ready(system, thread))
            if not self._runnable(thread):
                return self._choose()
        return thread

    def waits_for_input(self) -> bool:
        """Whether nobody can run, nor ever will by itself, and somebody waits for input."""
        blocked = [thread.wait for thread in self.system.threads.values() if thread.state is ThreadState.BLOCKED]
        return (
            any(isinstance(wait, Input) for wait in blocked)
            and all(wait is not None and wait.deadline is None for wait in blocked)
            and not self._ready()
        )

    def _undisturbed(self) -> int:
        """How long the only thread that can run may: until a sleeper's time is up. What it does to others in between ends its slice."""
        waits = [thread.wait for thread in self.system.threads.values() if thread.state is ThreadState.BLOCKED]
        deadlines = [wait.deadline - self.system.now for wait in waits if wait is not None and wait.deadline is not None]
        return max(min([_ALONE, *deadlines]), 1)

    def _ready(self) -> list[int]:
        system = self.system
        return sorted(
            thread.id
            for thread in system.threads.values()
            if thread.state is ThreadState.READY
            or (thread.state is ThreadState.BLOCKED and thread.wait is not None and self._over(thread, thread.wait))
        )

    def _over(self, thread: GuestThread, wait: Wait) -> bool:
        return (wait.deadline is not None and wait.deadline <= self.system.now) or wait.ready(self.system, thread)

    def _wake(self, thread: GuestThread, *, timed_out: bool) -> None:
        system, wait = self.system, thread.wait
        if wait is None:
            return
        system.activate(thread)
        value = wait.finish(system, thread, timed_out=timed_out)
        if thread.wait is wait:
            thread.wait, thread.state = None, ThreadState.READY
            self._leave(value)

    # one slice ---------------------------------------------------------------------------------------------------------------------------

    def _slice(self, thread: GuestThread, count: int) -> None:
        system = self.system
        system.activate(thread)
        near, cpu = system.gates.near, system.cpu
        if near(cpu.pc) is None:
            done = cpu.run(count)
            system.counters.instructions += done.executed
            system.counters.quantum -= done.executed
            thread.executed += done.executed
            if near(cpu.pc if done.trap is None else done.trap.pc) is None:
                if done.trap is None:
                    return
                self._settle(thread, self._interrupt(thread, done.trap))
                if near(cpu.pc) is None:
                    return
        if self.on_slice is not None:
            self.on_slice()
            system.activate(thread)
        self._serve(thread)

    def _serve(self, thread: GuestThread) -> None:
        """Serve system functions while the thread stands at one."""
        system, pc = self.system, self.system.cpu.pc
        while thread.state is ThreadState.READY and (gate := system.gates.near(pc)) is not None:
            outcome: Outcome | float
            try:
                if gate is CALLBACK and thread.frames:
                    outcome = self._returned(thread)
                elif gate is THREAD:
                    outcome = self._started(thread)
                elif gate.api is None or system.gates.at(pc) is not gate:
                    self._unknown(thread, gate.label)
                    return
                else:
                    outcome = gate.api.serve(Call(system, thread))
            except AccessError as denied:
                trap = Trap(FaultKind.ACCESS_VIOLATION, Va(system.cpu.pc), Va(denied.address), denied.access, f"in {gate.label}")
                outcome = self._interrupt(thread, trap)
            except ProgramFaultError as fault:
                pc = system.cpu.pc
                outcome = Faulted(faults.describe(system, thread, fault.kind, pc, None, f"{gate.label}: {fault.detail}", pc))
            self._settle(thread, outcome)
            if system.counters.alone and len(self._ready()) > 1:
                system.end_slice()
            pc = system.cpu.pc

    def _settle(self, thread: GuestThread, outcome: Outcome | float) -> None:
        if type(outcome) is int:  # what nearly all are
            self._leave(outcome)
            return
        system = self.system
        match outcome:
            case Ended.CALL:
                thread.state = ThreadState.IDLE
                system.clear_flags(thread)
                self.call_ended = True
                system.end_slice()
            case Ended.THREAD:
                self._end_thread(thread, thread.exit_code or 0)
            case Ended.PROCESS:
                self._end_process()
            case Invoke():
                try:
                    self._invoke(thread, outcome)
                except AccessError as full:
                    pc, problem = system.cpu.pc, "the stack has no room for a call"
                    self._fail(thread, faults.describe(system, thread, FaultKind.ACCESS_VIOLATION, full.address, full.access, problem, pc))
            case GoOn():
                pass
            case Faulted(fault):
                self._fail(thread, fault)
            case float():
                system.cpu.model.write_float(system.cpu, 0, int.from_bytes(struct.pack("<d", outcome), "little"))
                self._leave(None)
            case int():
                self._leave(outcome)
            case _:
                self._block(thread, outcome)

    def _block(self, thread: GuestThread, wait: Wait) -> None:
        system = self.system
        thread.wait = wait
        if wait.ready(system, thread):
            self._wake(thread, timed_out=False)
            return
        thread.state = ThreadState.BLOCKED
        system.end_slice()

    def _leave(self, value: int | None) -> None:
        cpu = self.system.cpu
        if value is not None:
            cpu.set(self.system.convention.result, value & _WORD)
        cpu.model.leave(cpu, self.system.read_word)

    def _invoke(self, thread: GuestThread, call: Invoke) -> None:
        cpu, count = self.system.cpu, len(self.system.convention.integer_arguments)
        kept = tuple((name, cpu.get(name)) for name, _ in call.registers)
        self._enter(thread, call.va, call.arguments[:count], call.arguments[count:], call.then, kept, call.interrupted)
        for name, value in call.registers:
            cpu.set(name, value)

    def _enter(
        self,
        thread: GuestThread,
        va: int,
        integers: Sequence[int],
        stack: Sequence[int],
        then: Continuation,
        kept: tuple[tuple[str, int], ...] = (),
        interrupted: Interrupted | None = None,
    ) -> None:
        """Call ``va`` from where the thread stands."""
        system = self.system
        cpu, convention = system.cpu, system.convention
        sp, link = cpu.get(cpu.model.sp), cpu.get(convention.link) if convention.link else 0
        thread.frames = (*thread.frames, Frame(sp, link, then, kept, interrupted))
        room = convention.home_space + 8 * len(stack)
        bottom = (sp - room) & -16
        for index, word in enumerate(stack):
            system.guest_write(bottom + convention.home_space + 8 * index, (word & _WORD).to_bytes(8, "little"))
        for name, word in zip(convention.integer_arguments, integers, strict=False):
            cpu.set(name, word & _WORD)
        cpu.model.enter(cpu, lambda at, word: system.guest_write(at, word.to_bytes(8, "little")), bottom, system.gates.callback)
        cpu.pc = va

    def _returned(self, thread: GuestThread) -> Outcome:
        """The program's function that the system called has returned."""
        system = self.system
        value = system.cpu.get(system.convention.result)
        stand = thread.frames, system.cpu.save()
        frame = thread.frames[-1]
        thread.frames = thread.frames[:-1]
        system.cpu.set(system.cpu.model.sp, frame.sp)
        if system.convention.link:
            system.cpu.set(system.convention.link, frame.link)
        for name, before in frame.kept:
            system.cpu.set(name, before)
        try:
            return frame.then.resume(system, thread, value)
        except (AccessError, ProgramFaultError):
            raise  # the program's own fault, where it stands now
        except BaseException:
            system.activate(thread)
            thread.frames = stand[0]
            system.cpu.restore(stand[1])
            raise

    def _started(self, thread: GuestThread) -> Outcome:
        """A new thread: tell the modules, then call its function."""
        return start_thread(self.system, thread, Invoke(thread.start, (thread.argument,), EndThread()))

    # endings -----------------------------------------------------------------------------------------------------------------------------

    def _end_thread(self, thread: GuestThread, code: int) -> None:
        system = self.system
        system.end_thread(thread, code)
        if system.counters.main and not system.living():
            system.counters.exit_code = code
            self._end_process()

    def _end_process(self) -> None:
        system = self.system
        system.counters.exited = True
        system.event("exit", exit_code=system.counters.exit_code)
        for thread in system.threads.values():
            thread.state = ThreadState.ENDED
        system.end_slice()

    def _interrupt(self, thread: GuestThread, trap: Trap) -> Outcome:
        """What the processor, or memory that a system function was given, reports: an exception where Windows makes one of it."""
        system = self.system
        fault = faults.describe(system, thread, trap.kind, trap.address, trap.access, trap.detail, trap.pc)
        record = record_of(fault.kind, trap.pc, *system.cpu.model.recorded(trap.address, trap.access))
        if record is None:
            return Faulted(fault)
        return raise_exception(system, thread, record, fault, standing(system, thread))

    def _unknown(self, thread: GuestThread, label: str) -> None:
        pc = Va(self.system.cpu.pc)
        detail = f"the program calls {label}, which the emulator does not provide; bring the DLL that has it along as a module"
        self._fail(thread, faults.describe(self.system, thread, FaultKind.UNKNOWN_IMPORT, pc, None, detail, pc))

    def _fail(self, thread: GuestThread, fault: Fault) -> None:
        system = self.system
        system.fault = fault
        thread.state = ThreadState.FAULTED
        system.event("fault", thread=thread.id, fault_kind=fault.kind.value, address=fault.address, pc=fault.pc)
        system.end_slice()

    def _deadlock(self, blocked: Sequence[GuestThread]) -> None:
        system = self.system
        what = "; ".join(f"thread {thread.id} waits for {thread.wait.describe(system)}" for thread in blocked if thread.wait is not None)
        thread = blocked[0] if blocked else system.living()[0]
        pc = system.registers(thread)[system.cpu.model.pc]
        stack = faults.walk(system, thread)
        detail = f"no thread can ever run again: {what or 'every thread is suspended'}"
        system.fault = Fault(FaultKind.DEADLOCK, Va(pc), Va(pc), faults.function_name(system, pc), None, stack, detail)
        system.event("fault", thread=thread.id, fault_kind=FaultKind.DEADLOCK.value, address=pc, pc=pc)

    def over_budget(self) -> Fault:
        """The fault of a program that has executed more than it was given."""
        system = self.system
        thread = system.threads.get(system.counters.current) or next(iter(system.threads.values()))
        pc = system.registers(thread)[system.cpu.model.pc] if thread.alive else 0
        stack = faults.walk(system, thread) if thread.alive else ()
        detail = f"after {counted(system.counters.instructions, 'instruction')}; give it a larger budget if that is not a loop"
        return Fault(FaultKind.BUDGET, Va(pc), Va(pc), faults.function_name(system, pc), None, stack, detail)
