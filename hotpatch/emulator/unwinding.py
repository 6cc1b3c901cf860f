"""The second phase of structured exception handling: frames are left one after the other, their handlers told, up to a target frame.

Source: MS Learn, "RtlUnwindEx" and "x64 exception handling". An exception raised by a finally block abandons the unwinding that runs it:
the search for its handler goes on at the frame that was being left, behind the block, so that no block runs twice (Windows calls this a
collided unwind).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.emulator import faults
from hotpatch.emulator.context import context_layout
from hotpatch.emulator.exception_records import Area, Disposition, Record
from hotpatch.emulator.exceptions import FRAMES, describe, go_on, next_frame
from hotpatch.emulator.frames import standing
from hotpatch.emulator.threads import Faulted, Interrupted, Invoke
from hotpatch.errors import FaultKind

if TYPE_CHECKING:
    from hotpatch.emulator.frames import Point
    from hotpatch.emulator.system import System
    from hotpatch.emulator.threads import GuestThread, Outcome


@dataclass(frozen=True, slots=True)
class Unwinding:
    """An unwinding under way.

    Attributes:
        target: Establisher frame at which it ends.
        pc: Where the thread goes on then.
        value: What it finds in the result register.
        record: Of the exception.
        area: Structures of this unwinding.
        point: The next frame to leave.
        left: Frames after which it gives up.
        arrived: The point to go on at, once the target frame's handler has been told.
    """

    target: int
    pc: int
    value: int
    record: Record
    area: Area
    point: Point
    left: int = FRAMES
    arrived: Point | None = None

    def resume(self, system: System, thread: GuestThread, value: int) -> Outcome:
        """A frame's handler has been told."""
        if value & 0xFFFF_FFFF != Disposition.CONTINUE_SEARCH:
            return _lost(system, thread, f"a handler answered {value & 0xFFFF_FFFF} while the stack was unwound")
        return self._arrive(system, thread) if self.arrived is not None else self.go_on(system, thread)

    def go_on(self, system: System, thread: GuestThread) -> Outcome:
        """Leave frames until one has a handler to tell, or is the target."""
        at: Point | None = self.point
        for count in range(self.left, 0, -1):
            frame = next_frame(system, at)
            if frame is None:
                break
            is_target = frame.unwound.establisher == self.target
            here = replace(self, point=frame.following, left=count - 1, arrived=frame.point if is_target else None)
            handler = frame.unwound.handler
            if handler is not None and handler.termination:
                area = self.area
                system.guest_write(area.record, self.record.unwinding(target=is_target).pack())
                system.guest_write(area.context, area.layout.pack(frame.point.registers))
                describe(system, frame, area, area.context, self.pc)
                arguments = (area.record, frame.unwound.establisher, area.context, area.dispatcher)
                interrupted = Interrupted(frame.point.registers, frame.point.calls, area.dispatcher, called=frame.point.called)
                return Invoke(frame.where.va + handler.entry, arguments, here, interrupted=interrupted)
            if is_target:
                return here._arrive(system, thread)
            at = frame.following
        return _lost(system, thread, f"no frame has the address 0x{self.target:x} that the stack is to be unwound to")

    def _arrive(self, system: System, thread: GuestThread) -> Outcome:
        if self.arrived is None:
            return self.go_on(system, thread)
        registers = {**self.arrived.registers, system.cpu.model.pc: self.pc, system.convention.result: self.value}
        return go_on(system, thread, replace(self.arrived, registers=registers))


def unwind(system: System, thread: GuestThread, target: int, pc: int, value: int, record: Record) -> Outcome:
    """Leave the frames of a thread that stands at a system function, up to the one at ``target``, and go on at ``pc``."""
    sp = system.cpu.get(system.cpu.model.sp)
    area = Area.below(sp, context_layout(system.machine))
    point = standing(system, thread)
    system.guest_write(area.pointers, area.record.to_bytes(8, "little") + area.context.to_bytes(8, "little"))
    system.cpu.set(system.cpu.model.sp, area.va)
    return Unwinding(target, pc, value, record, area, point).go_on(system, thread)


def _lost(system: System, thread: GuestThread, problem: str) -> Outcome:
    pc = Va(system.cpu.pc)
    return Faulted(faults.describe(system, thread, FaultKind.EXCEPTION, pc, None, problem, pc))
