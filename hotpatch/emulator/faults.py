"""What went wrong, in the words of the fault document: kind, place, function, and a stack walked with the images' unwind data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Rva, Va
from hotpatch.emulator.memory import AccessError
from hotpatch.errors import StackFrame
from hotpatch.unwind import FRAME_LIMIT, Located, unwinder

if TYPE_CHECKING:
    from collections.abc import Callable

    from hotpatch.emulator.system import System
    from hotpatch.emulator.threads import GuestThread


def function_name(system: System, pc: int) -> str | None:
    """The function that ``pc`` lies in or, in a slot or a trampoline, stands for: of a module, or of the system."""
    gate = system.gates.near(pc)
    if gate is not None:
        return gate.label
    place = locate(system, pc)
    if place is None:
        return None
    function = place.image.function_at(Rva((pc if place.original is None else place.original) - place.va))
    return function.label if function is not None else None


def locate(system: System, va: int) -> Located | None:
    """The module at ``va``, for a walk; a trampoline's place in the original where somebody who knows it was asked in."""
    if system.locator is not None:
        found = system.locator(Va(va))
        if found is not None:
            return found
    module = system.module_at(va)
    return None if module is None else Located(module.va, module.image)


def walk(system: System, thread: GuestThread) -> tuple[StackFrame, ...]:
    """The thread's stack, innermost first, through system functions that called back into the program too."""
    model = system.cpu.model
    walker = unwinder(system.machine)
    registers = system.registers(thread)
    calls = list(thread.frames)
    found: list[StackFrame] = []
    while True:
        frames = walker.walk(registers, _reader(system), lambda va: locate(system, va), FRAME_LIMIT - len(found))
        for frame in frames:
            if frame.pc == system.gates.callback:
                break
            name = frame.function.label if frame.function is not None else function_name(system, frame.pc)
            found.append(StackFrame(frame.pc, name))
        last = frames[-1]
        if last.pc != system.gates.callback or not calls or len(found) >= FRAME_LIMIT:
            return tuple(found)
        call = calls.pop()
        registers = {**last.registers, model.sp: call.sp, **({system.convention.link: call.link} if system.convention.link else {})}
        registers = walker.leave_leaf(registers, _reader(system))
        if not calls or registers[model.pc] in (0, system.gates.thread):
            return tuple(found)


def _reader(system: System) -> Callable[[int, int], bytes]:
    def read(va: int, size: int) -> bytes:
        try:
            return system.memory.read(va, size)
        except AccessError:
            return b""

    return read
