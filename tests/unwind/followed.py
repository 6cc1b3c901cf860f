"""A shadow stack of every thread of an emulated process, kept by what the processor executes, with which walks are compared.

It knows nothing of unwind data. A call that the processor executes is taken down, with the registers that its caller finds again, and
forgotten when the thread is back behind it with its stack pointer. Where the system has had control in between, it has called a function of
the program (then what was interrupted is taken down too), or come back from such a call, or unwound the stack: then what lies below the
stack pointer is forgotten.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from unicorn import UC_HOOK_CODE

import hotpatch
from hotpatch.address import Va
from hotpatch.arch import Flow, Instruction, Machine, architecture
from hotpatch.emulator.threads import GuestThread
from hotpatch.engine import Thread, occupancy
from tests.hooks import weakly

GATES = 0x7FFF_D000_0000
"""From here on lies what belongs to the emulated system."""
CALLS = (Flow.CALL, Flow.CALL_INDIRECT)
SAVED = {
    Machine.X64: ("rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15", "rsp"),
    Machine.ARM64: (*(f"x{number}" for number in range(19, 30)), "sp"),
}
MOST_PROBLEMS = 5
PIECE = 512
"""Bytes."""


@dataclass(frozen=True)
class Call:
    """A call under way, or what an exception has interrupted: where it goes on, and the registers that are found there as they are."""

    back: int
    registers: dict[str, int]


@dataclass
class Path:
    """What one thread has done: calls under way, its last instruction with the registers before it, of the system's calls of it."""

    calls: list[Call] = field(default_factory=list)
    last: Instruction | None = None
    registers: dict[str, int] = field(default_factory=dict)
    frames: tuple[object, ...] = ()
    served: bool = False
    """Whether the system has had control since the last instruction."""


class Still:
    """What a walk asks of a process that stands still, whose memory is read in pieces: a walk reads dozens of words close together."""

    def __init__(self, guest: hotpatch.engine.Target) -> None:
        self.machine, self._guest = guest.machine, guest
        self._pieces: dict[int, bytes] = {}

    def read(self, va: Va, size: int) -> bytes:
        start = va & -PIECE
        piece = self._pieces.get(start)
        if piece is None:
            with suppress(hotpatch.HotpatchError):
                piece = self._guest.read(Va(start), PIECE)
            self._pieces[start] = piece = piece or b""
        at = va - start
        return piece[at : at + size] if at + size <= len(piece) else self._guest.read(va, size)


class Followed:
    """Follows ``process`` from now on, and compares every ``stride``-th instruction's walk."""

    def __init__(self, process: hotpatch.Process, stride: int = 1) -> None:
        self.process, self.stride, self.guest = process, stride, process.guest
        self.machine = process.machine
        self.arch = architecture(self.machine)
        self.paths: dict[int, Path] = {}
        self.problems: list[str] = []
        self.executed = self.compared = self.deepest = self.crossing = 0
        self.between = False
        self._decoded: dict[tuple[int, bytes], Instruction] = {}
        self._settle = self.guest.kernel._settle
        self.guest.kernel._settle = self._settled  # type: ignore[method-assign]
        self._call_between = self.guest.call_between
        self.guest.call_between = self._called_between  # type: ignore[method-assign]
        unicorn = self.guest.system.cpu._uc
        self._hook = unicorn.hook_add(UC_HOOK_CODE, weakly(self._at))
        unicorn.ctl_flush_tb()  # or what has run before would run on without the hook

    # what happens ------------------------------------------------------------------------------------------------------------------------

    def _settled(self, thread: GuestThread, outcome: Any) -> None:
        self.paths.setdefault(thread.id, Path()).served = True
        self._settle(thread, outcome)

    def _called_between(self, *args: Any, **named: Any) -> int:
        """Callbacks of a patch run on a thread that is in the middle of something else."""
        self.between = True
        try:
            return self._call_between(*args, **named)
        finally:
            self.between = False

    def _at(self, _uc: object, pc: int, _size: int, _data: object) -> None:
        thread = self.guest.system.active
        if thread is None or self.between or len(self.problems) >= MOST_PROBLEMS:
            return
        self.executed += 1
        registers = self.guest.system.cpu.general() | {self.arch.convention.pc: pc}
        path = self.paths.setdefault(thread.id, Path())
        self._follow(path, pc, registers, thread)
        path.last, path.registers = self._instruction(pc), registers
        if self.executed % self.stride == 0:
            self._compare(thread, path, pc, registers)

    def _follow(self, path: Path, pc: int, registers: dict[str, int], thread: GuestThread) -> None:
        """What the last instruction, and the system behind it, did to the stack of calls."""
        last, calls, sp = path.last, path.calls, registers[self.arch.convention.sp]
        if last is not None and last.flow in CALLS:
            calls.append(self._call(last.address + last.size, path.registers))
        if path.served:
            self._came_from_the_system(path, pc, sp, thread)
        elif calls and self._is_back(calls[-1], pc, sp):
            calls.pop()
        path.frames, path.served = thread.frames, False

    def _came_from_the_system(self, path: Path, pc: int, sp: int, thread: GuestThread) -> None:
        convention, calls = self.arch.convention, path.calls
        back = [index for index, call in enumerate(calls) if self._is_back(call, pc, sp)]
        if back:
            del calls[back[-1] :]
            return
        interrupted = thread.frames[-1].interrupted if thread.frames else None
        if interrupted is not None:  # a handler is asked, about what has happened here, or about a frame from which on the stack is unwound
            at, top = interrupted.registers[convention.pc], interrupted.registers[convention.sp]
            known = [index for index, call in enumerate(calls) if self._is_back(call, at, top)]
            if known:
                del calls[known[-1] + 1 :]
            elif path.last is not None and at == path.last.address:
                calls.append(self._call(at, path.registers))
        elif all(now is then for now, then in zip(thread.frames, path.frames, strict=False)) and len(thread.frames) <= len(path.frames):
            while calls and calls[-1].registers[convention.sp] <= sp:
                calls.pop()

    def _call(self, back: int, registers: dict[str, int]) -> Call:
        return Call(back, {name: registers[name] for name in SAVED[self.machine]})

    def _is_back(self, call: Call, pc: int, sp: int) -> bool:
        return (pc, sp) == (call.back, call.registers[self.arch.convention.sp])

    def _instruction(self, pc: int) -> Instruction | None:
        region = self.guest.system.memory.find(pc)
        if region is None:
            return None
        code = self.guest.system.memory.read(pc, min(16, region.end - pc))
        found = self._decoded.get((pc, code))
        if found is None:
            found = self._decoded[pc, code] = next(iter(self.arch.disassemble(code, pc)))
        return found

    # comparing ---------------------------------------------------------------------------------------------------------------------------

    def _compare(self, thread: GuestThread, path: Path, pc: int, registers: dict[str, int]) -> None:
        sp = Va(registers[self.arch.convention.sp])
        stands = Thread(thread.id, Va(pc), sp, registers, Va(thread.teb), self.guest._suspended(thread))
        engine = self.process.engine
        frames, complete = occupancy.walk(Still(self.guest), engine._locate, self.guest.modules(), stands)
        found = [frame for frame, _ in frames[1:] if frame.pc < GATES]
        wanted = list(reversed(path.calls))
        self.compared += 1
        self.deepest = max(self.deepest, len(wanted))
        self.crossing += len(thread.frames) > 1
        if not complete or [frame.pc for frame in found] != [call.back for call in wanted]:
            vas = [[hex(va) for va in row] for row in ([frame.pc for frame in found], [call.back for call in wanted])]
            self.problems.append(f"thread {thread.id} at 0x{pc:x}, {complete=}: {vas[0]} for {vas[1]}")
            return
        for frame, call in zip(found, wanted, strict=True):
            wrong = {name: hex(frame.registers[name]) for name, value in call.registers.items() if frame.registers[name] != value}
            if wrong:
                self.problems.append(f"thread {thread.id} at 0x{pc:x}, caller 0x{frame.pc:x}: {wrong} for {call.registers}")
