"""Runs functions of an image on bare Unicorn and keeps a second stack of return addresses beside the real one, as an oracle for walks."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import unicorn
from unicorn import arm64_const, x86_const

from hotpatch.arch import Flow, Machine
from hotpatch.unwind import Located, unwinder

BASE = 0x2_4000_0000
STACK = 0x7000_0000
STACK_SIZE = 0x10_0000
BUFFERS = 0x6000_0000
BUFFERS_SIZE = 0x10_0000
THREAD = 0x5000_0000
BACK = 0x4000_0000
INSTRUCTION_LIMIT = 8000

X64_NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)), "rip")
ARM64_NAMES = (*(f"x{n}" for n in range(31)), "sp", "pc")
NAMES = {Machine.X64: X64_NAMES, Machine.ARM64: ARM64_NAMES}
MODULE = {Machine.X64: (x86_const, "UC_X86_REG_"), Machine.ARM64: (arm64_const, "UC_ARM64_REG_")}
PRESERVED = {
    Machine.X64: ("rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15"),
    Machine.ARM64: tuple(f"x{n}" for n in range(19, 30)),
}


@dataclass
class Shadow:
    """One process: an image at BASE, a stack, buffers."""

    image: object
    base: int = BASE
    checked: int = 0
    deepest: int = 0
    problems: list[str] = field(default_factory=list)

    def __post_init__(self):
        image = self.image
        self.machine = image.machine
        self.ids = [getattr(MODULE[self.machine][0], MODULE[self.machine][1] + name.upper()) for name in NAMES[self.machine]]
        kind = (unicorn.UC_ARCH_X86, unicorn.UC_MODE_64) if self.machine is Machine.X64 else (unicorn.UC_ARCH_ARM64, 0)
        self.uc = uc = unicorn.Uc(*kind)
        self.prepare(uc)
        memory = bytearray(image.mapped)
        for site in image.relocations:
            value = struct.unpack_from("<Q", memory, site)[0] - image.preferred_base + self.base
            struct.pack_into("<Q", memory, site, value)
        for entry in image.imports:  # an imported function does nothing and returns
            struct.pack_into("<Q", memory, entry.slot, BACK + 0x100)
        uc.mem_map(self.base, -(-len(memory) // 0x1000) * 0x1000)
        uc.mem_write(self.base, bytes(memory))
        for start, size in ((STACK, STACK_SIZE), (BUFFERS, BUFFERS_SIZE), (THREAD, 0x2000), (BACK, 0x1000)):
            uc.mem_map(start, size)
        uc.mem_write(BACK + 0x100, b"\xc3" if self.machine is Machine.X64 else bytes.fromhex("c0035fd6"))
        if image.tls is not None:  # one block: the thread's array of blocks stands at 0x58 of its environment
            template = image.tls.template
            uc.mem_write(THREAD + 0x58, struct.pack("<Q", THREAD + 0x800))
            uc.mem_write(THREAD + 0x800, struct.pack("<Q", THREAD + 0x1000))
            uc.mem_write(THREAD + 0x1000, bytes(memory[template.start : template.end]))
        if self.machine is Machine.X64:
            uc.reg_write(x86_const.UC_X86_REG_GS_BASE, THREAD)
            uc.reg_write(x86_const.UC_X86_REG_MXCSR, 0x1F80)
        else:
            uc.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, uc.reg_read(arm64_const.UC_ARM64_REG_CPACR_EL1) | 3 << 20)
        self.decoded = {}
        self.unwinder = unwinder(self.machine)
        uc.hook_add(unicorn.UC_HOOK_CODE, self._at_instruction)

    def prepare(self, uc):
        """Set the processor up before anything else is done to it."""

    def more_registers(self, uc):
        """What a walk is given besides the integer registers."""
        return {}

    def walked(self, frames):
        """Look at what a walk has found."""

    def call(self, entry, *arguments, check=True):
        """Run the function at RVA ``entry``; every instruction's walk is compared with the shadow stack."""
        self.check, self.stack, self.previous, self.count = check, [], None, 0
        uc = self.uc
        sp = STACK + STACK_SIZE - 0x1000
        values = [self._argument(argument, index) for index, argument in enumerate(arguments)]
        for index, name in enumerate(PRESERVED[self.machine]):
            self._write(name, 0x1111_0000_0000 + index)
        self.entered = {name: 0x1111_0000_0000 + index for index, name in enumerate(PRESERVED[self.machine])}
        if self.machine is Machine.X64:
            sp -= 8 + 32 + 8 * 8
            uc.mem_write(sp, struct.pack("<Q", BACK))
            registers = ("rcx", "rdx", "r8", "r9")
            for index, value in enumerate(values[4:]):
                uc.mem_write(sp + 0x28 + 8 * index, struct.pack("<Q", value))
            self._write("rsp", sp)
            self.top = sp + 8
        else:
            registers = tuple(f"x{n}" for n in range(8))
            self._write("x30", BACK)
            self._write("x18", THREAD)
            sp -= 64
            for index, value in enumerate(values[8:]):
                uc.mem_write(sp + 8 * index, struct.pack("<Q", value))
            self._write("sp", sp)
            self.top = sp
        for name, value in zip(registers, values, strict=False):
            self._write(name, value)
        self.stack.append(BACK)
        uc.emu_start(self.base + entry, BACK, count=INSTRUCTION_LIMIT)
        self.finished = uc.reg_read(self.ids[-1]) == BACK
        return uc.reg_read(x86_const.UC_X86_REG_RAX if self.machine is Machine.X64 else arm64_const.UC_ARM64_REG_X0)

    def _argument(self, argument, index):
        if isinstance(argument, int):
            return argument & (1 << 64) - 1
        at = BUFFERS + index * 0x1000
        self.uc.mem_write(at, bytes(argument))
        return at

    def _write(self, name, value):
        self.uc.reg_write(self.ids[NAMES[self.machine].index(name)], value)

    def read(self, va, size):
        try:
            return bytes(self.uc.mem_read(va, size))
        except unicorn.UcError:
            return b""

    def locate(self, va):
        return Located(self.base, self.image) if self.base <= va < self.base + self.image.size_of_image else None

    def _instruction(self, pc):
        found = self.decoded.get(pc)
        if found is None:
            found = next(iter(self.image.architecture.disassemble(self.read(pc, 16), pc)))
            self.decoded[pc] = found
        return found

    def _at_instruction(self, uc, pc, size, _):
        previous = self.previous
        if previous is not None:
            if previous.flow in {Flow.CALL, Flow.CALL_INDIRECT}:
                self.stack.append(previous.address + previous.size)
            elif previous.flow is Flow.RETURN:
                self.stack.pop()
        self.previous = self._instruction(pc)
        if not self.check:
            return
        registers = dict(zip(NAMES[self.machine], uc.reg_read_batch(self.ids), strict=True)) | self.more_registers(uc)
        frames = self.unwinder.walk(registers, self.read, self.locate)
        self.walked(frames)
        expected = [pc, *reversed(self.stack)]
        got = [frame.pc for frame in frames]
        self.checked += 1
        self.deepest = max(self.deepest, len(expected))
        if got != expected[:64]:
            self.problems.append(f"rva 0x{pc - self.base:x}: {[hex(va) for va in got]} for {[hex(va) for va in expected]}")
        elif len(expected) <= 64:
            last = frames[-1]
            wrong = {name: hex(last.registers[name]) for name, value in self.entered.items() if last.registers[name] != value}
            if last.sp != self.top or wrong:
                self.problems.append(f"rva 0x{pc - self.base:x}: at the outermost frame sp 0x{last.sp:x} for 0x{self.top:x}, {wrong}")
        if len(self.problems) > 20:
            uc.emu_stop()
