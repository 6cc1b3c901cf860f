"""A thread's frames one after the other, also through system functions that called back into the program.

What faults show and what exceptions are dispatched through is the same walk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hotpatch.address import Rva, Va
from hotpatch.emulator.context import context_layout
from hotpatch.emulator.exception_records import DISPATCHER
from hotpatch.emulator.memory import AccessError
from hotpatch.unwind import Located, unwinder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.emulator.system import System
    from hotpatch.emulator.threads import Frame, GuestThread
    from hotpatch.unwind import Unwound


@dataclass(frozen=True, slots=True)
class Point:
    """A frame of a thread, innermost first.

    Attributes:
        registers: As far as they are known there.
        calls: Calls of system functions into the program that lie farther out, oldest first.
        scope: Of the frame's handler, the first scope that has not been served.
        called: Whether the program counter is a return address.
    """

    registers: Mapping[str, int]
    calls: tuple[Frame, ...]
    scope: int = 0
    called: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame in some module, undone: ``stand`` is its program counter, or the base code that it stands for."""

    point: Point
    where: Located
    stand: Va
    unwound: Unwound
    following: Point = field(compare=False)


def locate(system: System, va: int) -> Located | None:
    """The module at ``va``, for a walk; a trampoline's place in the original where somebody who knows it was asked in."""
    if system.locator is not None:
        found = system.locator(Va(va))
        if found is not None:
            return found
    module = system.module_at(va)
    return None if module is None else Located(module.va, module.image)


def read(system: System, va: int, size: int) -> bytes:
    """Memory for a walk; nothing where it cannot be read."""
    try:
        return system.memory.read(va, size)
    except AccessError:
        return b""


def everything(system: System, thread: GuestThread) -> dict[str, int]:
    """All registers of a thread, by name."""
    system.activate(thread)
    return {field.register: system.cpu.get(field.register) for field in context_layout(system.machine).fields}


def standing(system: System, thread: GuestThread) -> Point:
    """Where a thread stands; at a system function that it has called, its caller."""
    point = Point(everything(system, thread), thread.frames)
    return left(system, point) if system.gates.near(point.registers[system.cpu.model.pc]) is not None else point


def left(system: System, point: Point) -> Point:
    """The caller of a function that has touched neither stack nor link register."""
    registers = unwinder(system.machine).leave_leaf(point.registers, lambda va, size: read(system, va, size))
    return Point(registers, point.calls, called=True)


def settled(system: System, point: Point) -> Point | None:
    """``point``, or where it returns to a system function, the frame that called that; ``None`` at the thread's start."""
    model = system.cpu.model
    while True:
        pc = point.registers[model.pc]
        if pc != system.gates.callback:
            return None if pc in (0, system.gates.thread) else point
        if not point.calls:
            return None
        point = crossed(system, point)


def crossed(system: System, point: Point) -> Point:
    """The frame behind a system function's call into the program; ``point`` is at the return into that function."""
    call = point.calls[-1]
    if call.interrupted is not None:
        scope = call.interrupted.dispatcher and call.interrupted.dispatcher + DISPATCHER["ScopeIndex"]
        served = int.from_bytes(read(system, scope, 4), "little") if scope else 0
        return Point(call.interrupted.registers, call.interrupted.calls, served, called=call.interrupted.called)
    registers = {**point.registers, **dict(call.kept), system.cpu.model.sp: call.sp}
    if system.convention.link:
        registers[system.convention.link] = call.link
    return left(system, Point(registers, point.calls[:-1]))


def seen(system: System, point: Point) -> Seen | None:
    """The frame at a settled point; ``None`` where nothing is known of the code there.

    Raises:
        StackUnreadable: The stack cannot be read any further.
    """
    pc = Va(point.registers[system.cpu.model.pc])
    where = locate(system, pc)
    if where is None:
        return None
    stand = pc if where.original is None else where.original
    rva = Rva(stand - where.va)
    walker = unwinder(system.machine)
    unwound = walker.unwind(point.registers, rva, where.image, lambda va, size: read(system, va, size), where.va, called=point.called)
    return Seen(point, where, stand, unwound, Point(unwound.registers, point.calls, called=unwound.called))
