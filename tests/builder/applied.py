"""A patch applied by hand in a bare Unicorn, with nothing of the engine or the emulator: an oracle for what the builder bound.

The base stands at one place, the patch image behind it with its fixups bound, and a plain jump over each replaced entry. Functions that
need no system are called with integers; imports lead to stubs that return a number of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import unicorn
from unicorn import arm64_const, x86_const

from hotpatch.arch import Machine, Redirect, architecture
from hotpatch.patch import Space

if TYPE_CHECKING:
    from hotpatch.image import Image
    from hotpatch.patch import Patch

BASE_VA = 0x7FF6_0000_0000
STACK = 0x10_0000
STUBS = 0x20_0000
STOP = 0x30_0000
THREAD = 0x40_0000
BUDGET = 200_000
_REGISTERS = {
    Machine.X64: (x86_const.UC_X86_REG_RCX, x86_const.UC_X86_REG_RDX, x86_const.UC_X86_REG_R8, x86_const.UC_X86_REG_R9),
    Machine.ARM64: (arm64_const.UC_ARM64_REG_X0, arm64_const.UC_ARM64_REG_X1, arm64_const.UC_ARM64_REG_X2, arm64_const.UC_ARM64_REG_X3),
}
_STUB = {
    Machine.X64: lambda number: b"\xb8" + number.to_bytes(4, "little") + b"\xc3",
    Machine.ARM64: lambda number: (0x52800000 | number << 5).to_bytes(4, "little") + bytes.fromhex("c0035fd6"),
}


def round_up(size: int) -> int:
    return -(-size // 0x10000) * 0x10000


class Applied:
    """An image as mapped, with or without a patch."""

    def __init__(self, image: Image, patch: Patch | None = None, base_va: int = BASE_VA) -> None:
        self.image, self.patch, self.base_va = image, patch, base_va
        self.arch = architecture(image.machine)
        self.patch_va = base_va + round_up(image.size_of_image)
        self.stubs: dict[str, int] = {}
        self.uc = self._engine()
        self._map(base_va, self._loaded(image, base_va))
        if patch is not None:
            self._map(self.patch_va, self._bound(patch))
            for row in patch.functions:
                self._redirect(base_va + row.base_rva, self.patch_va + row.patch_rva)
        for at in (STACK, STOP, THREAD):
            self.uc.mem_map(at, 0x10000)
        self.uc.mem_map(STUBS, 0x1000)
        for number in range(64):
            self.uc.mem_write(STUBS + 16 * number, _STUB[image.machine](1000 + number))
        self._thread_block()

    def _engine(self) -> unicorn.Uc:
        if self.image.machine is Machine.X64:
            return unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        uc = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        uc.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, 3 << 20)
        return uc

    def _thread_block(self) -> None:
        """TEB with a ThreadLocalStoragePointer whose every slot is one block of numbers."""
        block, slots = THREAD + 0x4000, THREAD + 0x2000
        self.uc.mem_write(THREAD + 0x58, slots.to_bytes(8, "little"))
        self.uc.mem_write(slots, block.to_bytes(8, "little") * 64)
        template = self.image.tls.template if self.image.tls else None
        if template is not None:
            self.uc.mem_write(block, self.image.read(template.start, template.size))
        if self.image.machine is Machine.X64:
            self.uc.reg_write(x86_const.UC_X86_REG_GS_BASE, THREAD)
        else:
            self.uc.reg_write(arm64_const.UC_ARM64_REG_X18, THREAD)

    def _map(self, va: int, memory: bytes) -> None:
        self.uc.mem_map(va, round_up(len(memory)))
        self.uc.mem_write(va, memory)

    def stub(self, label: str) -> int:
        """Where the import leads: the same number for the same name, in whatever order they are asked for."""
        if label not in self.stubs:
            self.stubs[label] = STUBS + 16 * (sum(label.encode()) % 64)
        return self.stubs[label]

    def _loaded(self, image: Image, va: int) -> bytes:
        memory = bytearray(image.mapped)
        for site in image.relocations:
            value = image.u64(site) + va - image.preferred_base
            memory[site : site + 8] = value.to_bytes(8, "little")
        for item in image.imports:
            memory[item.slot : item.slot + 8] = self.stub(item.label).to_bytes(8, "little")
        return bytes(memory)

    def _bound(self, patch: Patch) -> bytes:
        memory = bytearray(patch.image.mapped)
        for fixup in patch.fixups:
            origin = self.base_va if fixup.space is Space.BASE else self.patch_va
            size = self.arch.field_size(fixup.kind)
            field = bytes(memory[fixup.site : fixup.site + size])
            target = origin + fixup.target + fixup.addend
            memory[fixup.site : fixup.site + size] = self.arch.bind(
                fixup.kind, field, self.patch_va + fixup.site, target, image_base=self.base_va
            )
        for item in patch.imports:
            label = f"{item.library.lower()}!{item.name if item.name is not None else f'#{item.ordinal}'}"
            memory[item.slot : item.slot + 8] = self.stub(label).to_bytes(8, "little")
        return bytes(memory)

    def _redirect(self, entry: int, destination: int) -> None:
        for write in self.arch.redirect_writes(Redirect.INLINE, entry, destination):
            self.uc.mem_write(write.va, write.new)

    def call(self, name: str, *arguments: int) -> int:
        """The integer result, 64 bits."""
        return self.call_at(self.image.function_named(name).entry, *arguments)

    def call_at(self, entry: int, *arguments: int) -> int:
        uc = self.uc
        for register, value in zip(_REGISTERS[self.image.machine], arguments, strict=False):
            uc.reg_write(register, value)
        sp = STACK + 0xF000
        if self.image.machine is Machine.X64:
            uc.mem_write(sp - 8, STOP.to_bytes(8, "little"))
            uc.reg_write(x86_const.UC_X86_REG_RSP, sp - 8)
        else:
            uc.reg_write(arm64_const.UC_ARM64_REG_SP, sp)
            uc.reg_write(arm64_const.UC_ARM64_REG_X30, STOP)
        uc.emu_start(self.base_va + entry, STOP, count=BUDGET)
        pc = uc.reg_read(x86_const.UC_X86_REG_RIP if self.image.machine is Machine.X64 else arm64_const.UC_ARM64_REG_PC)
        assert pc == STOP, f"stopped at 0x{pc:x}"
        return uc.reg_read(x86_const.UC_X86_REG_RAX if self.image.machine is Machine.X64 else arm64_const.UC_ARM64_REG_X0)
