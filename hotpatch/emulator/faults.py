"""What went wrong, in the words of the fault document: kind, place, function, and a stack walked with the images' unwind data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.errors import HotpatchError, StackFrame

if TYPE_CHECKING:
    from hotpatch.emulator.system import System
    from hotpatch.emulator.threads import GuestThread

STACK_LIMIT = 64
"""Frames that a stack is walked for."""


def function_name(system: System, pc: int) -> str | None:
    """The function that ``pc`` lies in: of a module, or of the system."""
    gate = system.gates.near(pc)
    if gate is not None:
        return gate.label
    module = system.module_at(pc)
    if module is None:
        return None
    function = module.image.function_at(pc - module.va)
    return function.label if function is not None else None


def walk(system: System, thread: GuestThread) -> tuple[StackFrame, ...]:
    """The thread's stack, innermost first."""
    registers = system.registers(thread)
    pc = registers[system.cpu.model.pc]
    frames = [StackFrame(Va(pc), function_name(system, pc))]
    return tuple(frames)
