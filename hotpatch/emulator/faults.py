"""What went wrong, in the words of the fault document: kind, place, function, and a stack walked with the images' unwind data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Rva, Va
from hotpatch.emulator.frames import Point, locate, read, settled
from hotpatch.errors import Fault, FaultKind, StackFrame
from hotpatch.unwind import FRAME_LIMIT, unwinder

if TYPE_CHECKING:
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


def describe(system: System, thread: GuestThread, kind: FaultKind, address: int, access: str | None, detail: str, pc: int) -> Fault:
    """A fault of ``thread`` at ``pc``, with its stack."""
    gate = system.gates.near(address)
    if kind is FaultKind.ACCESS_VIOLATION and gate is not None and access != "execute":
        kind, detail = FaultKind.UNKNOWN_IMPORT, f"the program uses {gate.label} as data, which the emulator does not provide"
    return Fault(kind, Va(address), Va(pc), function_name(system, pc), access, walk(system, thread), detail)


def walk(system: System, thread: GuestThread) -> tuple[StackFrame, ...]:
    """The thread's stack, innermost first, through system functions that called back into the program too."""
    walker = unwinder(system.machine)
    point: Point | None = Point(system.registers(thread), thread.frames)
    found: list[StackFrame] = []
    while point is not None and len(found) < FRAME_LIMIT:
        frames = walker.walk(
            point.registers, lambda va, size: read(system, va, size), lambda va: locate(system, va), FRAME_LIMIT - len(found)
        )
        for frame in frames:
            if frame.pc == system.gates.callback:
                break
            name = frame.function.label if frame.function is not None else function_name(system, frame.pc)
            found.append(StackFrame(frame.pc, name))
        last = frames[-1]
        if last.pc != system.gates.callback:
            break
        point = settled(system, Point(last.registers, point.calls))
    return tuple(found)
