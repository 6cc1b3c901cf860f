"""One process with one call under way: begun, stopped anywhere, put back, and run to its outcome."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.arch import Flow, architecture
from hotpatch.errors import EmulatedFault, Fault, HotpatchError, InputError
from hotpatch.process import BUDGET, Buffer, Process, Single
from hotpatch.verifier.model import Outcome

_LONGEST_INSTRUCTION = 16

if TYPE_CHECKING:
    from hotpatch.emulator.threads import GuestThread
    from hotpatch.image import Image
    from hotpatch.process import Argument, PendingCall, ProcessSnapshot
    from hotpatch.verifier.model import Call


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every process of a verification is made with, as :class:`hotpatch.process.Process` takes it."""

    load_base: int | None = None
    modules: tuple[Image, ...] = ()
    stdin: bytes = b""
    seed: int = 0
    budget: int = BUDGET


class Scene:
    """A fresh process and one call of it.

    Attributes:
        process: The process.
        budget: Instructions after which the call is given up.
    """

    def __init__(self, image: Image, call: Call, surroundings: Surroundings, budget: int = BUDGET) -> None:
        """Load ``image``; the call has not begun.

        Raises:
            HotpatchError: The image cannot be loaded, or its start-up faulted.
        """
        self.process = Process(
            image,
            load_base=surroundings.load_base,
            modules=surroundings.modules,
            stdin=surroundings.stdin,
            seed=surroundings.seed,
        )
        self.budget = budget
        self._call = call
        self._pending: PendingCall | None = None
        va = self.process.load_base
        self._data = tuple((Va(va + section.rva), section.range.size) for section in image.sections if section.writable)
        self._host = next(thread.id for thread in self.process.guest.system.threads.values() if thread.host)

    def begin(self) -> None:
        """Make the thread stand at the called function's first instruction.

        Raises:
            HotpatchError: There is no such function, or an argument cannot be passed.
        """
        function, *arguments = self._call
        if not isinstance(function, str):
            raise InputError(repr(function), "is no function; a call is (function, argument, …), the function by name or as rva:0x…")
        self._pending = self.process.begin_call(function, *map(_copied, arguments))

    @property
    def thread(self) -> int:
        """Id of the thread that makes the call."""
        return self._host

    @property
    def executed(self) -> int:
        """Instructions of the call so far."""
        return self.process.instructions - self._begun.began

    @property
    def pc(self) -> Va:
        """Next instruction of the call."""
        system = self.process.guest.system
        system.activate(self._thread)
        return Va(system.cpu.pc)

    def divert(self, va: Va) -> None:
        """Make the thread go on at ``va``."""
        system = self.process.guest.system
        system.activate(self._thread)
        system.cpu.pc = va

    def is_call(self, va: Va) -> bool:
        """Whether a call instruction stands at ``va``."""
        guest = self.process.guest
        region = next((region for region in guest.regions() if region.va <= va < region.va + region.size), None)
        if region is None:
            return False
        code = guest.read(va, min(_LONGEST_INSTRUCTION, region.va + region.size - va))
        first = next(iter(architecture(self.process.machine).disassemble(code, va)), None)
        return first is not None and first.flow is Flow.CALL

    def step(self) -> bool:
        """Execute one instruction; whether the call is still under way."""
        return self.process.guest.run_call(self.process.instructions + 1)

    def finish(self) -> Outcome:
        """Run the call to its end from where it stands.

        Raises:
            InputError: It started threads: their schedules are not tried here.
        """
        pending, process = self._begun, self.process
        written = pending.written
        value = bits = None
        fault: Fault | None = None
        exit_code: int | None = None
        try:
            result = process.finish_call(pending, budget=self.budget)
        except EmulatedFault as error:
            fault = error.fault
        except HotpatchError:
            if not process.guest.exited:
                raise
            exit_code = process.exit_code
        else:
            value, bits = result.value, int.from_bytes(struct.pack("<d", result.float_value), "little")
        if process.threads:
            raise InputError(
                describe(self._call), "starts threads, whose interleavings verification does not try; use hotpatch run with several --seed"
            )
        on_data = fault is not None and fault.access in ("read", "write")
        return Outcome(
            value,
            bits,
            tuple(process.guest.read(place, len(buffer.data)) for buffer, place in pending.buffers),
            bytes(process.guest.system.output[written:]).decode("utf-8", "backslashreplace"),
            b"".join(process.guest.read(va, size) for va, size in self._data),
            None if fault is None else fault.kind,
            None if fault is None else fault.access,
            fault.address if fault is not None and on_data else None,
            exit_code,
        )

    def snapshot(self) -> ProcessSnapshot:
        """The process with the call under way."""
        return self.process.snapshot()

    def restore(self, snapshot: ProcessSnapshot) -> None:
        """The process as it was."""
        self.process.restore(snapshot)

    @property
    def _begun(self) -> PendingCall:
        if self._pending is None:
            raise HotpatchError("the call has not begun; call begin first")
        return self._pending

    @property
    def _thread(self) -> GuestThread:
        return self.process.guest.system.threads[self._host]


def describe(call: Call) -> str:
    """A call as text, the way people write it."""
    return f"{call[0]!s}({', '.join(map(_shown, call[1:]))})"


def _shown(argument: Argument) -> str:
    match argument:
        case Buffer():
            return f"hex:{argument.data.hex()}" if any(argument.data) else f"buf:{len(argument.data)}"
        case bytes() | bytearray():
            return f"hex:{argument.hex()}"
        case str():
            return f"str:{argument}"
        case float():
            return f"{'f32' if isinstance(argument, Single) else 'f64'}:{float(argument)!r}"
        case _:
            return str(argument)


def _copied(argument: Argument) -> Argument:
    if not isinstance(argument, Buffer):
        return argument
    copied = Buffer(len(argument.data))
    copied.data = argument.data
    return copied
