"""A process with no image: a few instructions in a code region, data beside it, threads on it."""

from __future__ import annotations

import keystone

from hotpatch.arch import Machine
from hotpatch.emulator.kernel import Kernel
from hotpatch.emulator.memory import RegionKind
from hotpatch.emulator.parameters import Settings
from hotpatch.emulator.schedule import SeededSchedule
from hotpatch.emulator.system import System
from hotpatch.emulator.threads import ThreadState
from hotpatch.engine.target import Rights

CODE = 0x1_4000_0000
DATA = 0x1_4100_0000
READ_ONLY = 0x1_4200_0000
UNMAPPED = 0x1_4300_0000
LIMIT = 200_000

MACHINES = list(Machine)


def assemble(machine: Machine, text: str, va: int = CODE) -> bytes:
    """The bytes of a few instructions."""
    if machine is Machine.X64:
        engine = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
    else:
        engine = keystone.Ks(keystone.KS_ARCH_ARM64, keystone.KS_MODE_LITTLE_ENDIAN)
    return bytes(engine.asm(text, va)[0])


class Bare:
    """One such process."""

    def __init__(self, machine: Machine, *, seed: int = 0, stdin: bytes = b"", schedule=None) -> None:
        self.machine = machine
        self.system = System(machine, seed=seed, settings=Settings("bare.exe one two", {"HOME": "C:\\me"}, stdin))
        self.kernel = Kernel(self.system, schedule or SeededSchedule(seed))
        memory = self.system.memory
        memory.map(DATA, 0x4000, Rights.READ | Rights.WRITE, RegionKind.IMAGE, "bare data")
        memory.map(READ_ONLY, 0x1000, Rights.READ, RegionKind.IMAGE, "bare constants", b"constant")
        self.at = CODE
        self.host = self.system.new_thread(0, 0, host=True)
        self.host.state = ThreadState.IDLE

    def code(self, source: str | bytes) -> int:
        """Put code into a region of its own; ``source`` is assembly or bytes. Returns its address."""
        va = self.at
        data = self.expand(source, va) if isinstance(source, str) else source
        self.system.memory.map(va, len(data), Rights.READ | Rights.EXECUTE, RegionKind.IMAGE, "bare code", data)
        self.at += 0x1_0000
        return va

    def expand(self, text: str, va: int) -> bytes:
        """Assembly with three macros a line: ``CALL Name``, ``LOAD register value`` and ``RETURN``."""
        lines = []
        for line in text.strip().splitlines():
            words = line.split()
            if words and words[0] == "CALL":
                target = self.system.gates.provided(words[1])
                assert target is not None, words[1]
                lines += [*self.load(self.scratch, target), f"call {self.scratch}" if self.x64 else f"blr {self.scratch}"]
            elif words and words[0] == "LOAD":
                lines += self.load(words[1], int(words[2], 0))
            else:
                lines.append(line)
        return assemble(self.machine, "\n".join(lines), va)

    @property
    def x64(self) -> bool:
        return self.machine is Machine.X64

    @property
    def scratch(self) -> str:
        return "rax" if self.x64 else "x16"

    def load(self, register: str, value: int) -> list[str]:
        if self.x64:
            return [f"movabs {register}, 0x{value:x}"]
        parts = [f"movz {register}, #0x{value & 0xFFFF:x}"]
        return parts + [
            f"movk {register}, #0x{value >> shift & 0xFFFF:x}, lsl #{shift}" for shift in (16, 32, 48) if value >> shift & 0xFFFF
        ]

    def argument(self, index: int) -> str:
        return self.system.convention.integer_arguments[index]

    def thread(self, va: int, argument: int = 0) -> int:
        return self.system.new_thread(va, argument).id

    def run(self, until: int = LIMIT) -> None:
        self.kernel.run(until)

    def call_api(self, name: str, *arguments: int) -> int:
        """Call a system function as the program would, from the host's thread, and give its result."""
        va = self.system.gates.provided(name)
        assert va is not None, name
        return self.call(va, *arguments)

    def call(self, va: int, *arguments: int) -> int:
        registers = len(self.system.convention.integer_arguments)
        self.kernel.begin_call(self.host, va, arguments[:registers], [], arguments[registers:])
        self.kernel.run(self.system.counters.instructions + LIMIT, call=True)
        assert self.system.fault is None, self.system.fault
        assert self.host.state is ThreadState.IDLE, self.host
        self.system.activate(self.host)
        return self.system.cpu.get(self.system.convention.result)

    @property
    def last_error(self) -> int:
        return self.system.read_word(self.host.teb + 0x68) & 0xFFFF_FFFF

    def poke(self, va: int, data: bytes) -> int:
        self.system.memory.write(va, data)
        return va

    def peek(self, va: int, size: int = 8) -> int:
        return int.from_bytes(self.system.memory.read(va, size), "little")

    @property
    def output(self) -> str:
        return self.system.output.decode()


COUNT_LOOP = {
    Machine.X64: "mov eax, ecx\nagain: add rdx, rax\ndec eax\njnz again\nmov rax, rdx\nret",
    Machine.ARM64: "mov x9, x0\nagain: add x1, x1, x9\nsubs x9, x9, #1\nb.ne again\nmov x0, x1\nret",
}
"""A function that loops as often as its argument says: 3 instructions a round and 3 more."""
