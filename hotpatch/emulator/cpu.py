"""The one door to Unicorn: every call of it goes through :class:`Cpu`, which raises :class:`CpuError` with Unicorn's own words.

Instruction counts are exact. ``emu_start(count=n)`` stops after ``n`` instructions, but says nothing of how many it executed when it ends
early (a fault, a jump to a gate). Unicorn keeps that number in a private field, right before the copy of ``n``; :func:`_counter_offset`
finds the field by what it must hold after runs of known length, and the package refuses to emulate where it is not found. Measured with
Unicorn 2.1.4: after a full slice the field holds ``n + 1``; after a failed fetch it holds what was executed; after any other fault the
faulting instruction is in it. A REP instruction of ``k`` iterations would count ``k + 1``; :mod:`hotpatch.emulator.repeats` says how it
counts ``k``.
"""

from __future__ import annotations

import ctypes
import weakref
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, cast

from unicorn import unicorn_const as uc_const

from hotpatch.address import Va
from hotpatch.emulator.binding import Direct, IntegerRegister, IntegerRegisters, UcError, handle_of, unhook
from hotpatch.emulator.cpu_model import HALT, NOWHERE, Slice, Trap, cpu_model
from hotpatch.emulator.repeats import LONGEST, Repeats
from hotpatch.errors import FaultKind, HotpatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hotpatch.arch import Machine
    from hotpatch.emulator.binding import Context, Engine

_ACCESS = {
    uc_const.UC_ERR_READ_UNMAPPED: "read",
    uc_const.UC_ERR_READ_PROT: "read",
    uc_const.UC_ERR_WRITE_UNMAPPED: "write",
    uc_const.UC_ERR_WRITE_PROT: "write",
    uc_const.UC_ERR_FETCH_UNMAPPED: "execute",
    uc_const.UC_ERR_FETCH_PROT: "execute",
}
_REFUSED = {uc_const.UC_MEM_READ: "read", uc_const.UC_MEM_WRITE: "write", uc_const.UC_MEM_FETCH: "execute"}
"""Accesses that :meth:`hotpatch.emulator.cpu_model.CpuModel.bound` refuses; Unicorn calls them exceptions."""
_STRUCTURE_WORDS = 1024
"""64-bit words at the start of Unicorn's engine structure that the counter is looked for in."""


class CpuError(HotpatchError):
    """Unicorn failed where it must not."""

    def __init__(self, doing: str, code: int) -> None:
        """Say what was being done and Unicorn's error ``code``."""
        super().__init__(f"the emulator failed while {doing}: Unicorn error {code}")
        self.code = code


class Cpu:
    """One Unicorn engine: registers, mappings and runs. Threads are contexts that are saved from and restored into it."""

    def __init__(
        self, machine: Machine, *, grow: Callable[[int], bool], read: Callable[[int, int], bytes], clock: Callable[[], int]
    ) -> None:
        """Create the engine.

        Args:
            machine: Its instruction set.
            grow: Asked when the program touches unmapped memory; maps it and says so, or says no.
            read: Reads code for the interpretation of interrupts.
            clock: Virtual time in ticks.

        Raises:
            CpuError: Unicorn cannot be used.
        """
        self.model = cpu_model(machine)
        self._ids = self.model.registers
        try:
            self._uc = self.model.create()
            self._handle = handle_of(self._uc)
            self._trap: list[tuple[int, int]] = []
            self._interrupts: list[int] = []
            self._hooks = [
                *_hook(self._uc, self._trap, self._interrupts, grow),
                *self.model.bound(self._uc, self._trap),
                self.model.hook(self._uc, clock, self._interrupts),
            ]
            weakref.finalize(self, unhook, self._uc, self._hooks)
        except UcError as error:
            raise CpuError("starting", error.errno) from error
        self._counter = ctypes.c_uint64.from_address(self._handle + _counter_offset(machine))
        self._integers = {name: IntegerRegister(self._uc, self._ids[name]) for name in self.model.general}
        self._pc = self._integers[self.model.pc]
        self._direct = Direct(self._uc)
        self._general = IntegerRegisters(self._uc, [self._ids[name] for name in self.model.general])
        self._read = read
        self._repeats = Repeats(self.model.repeats) if self.model.repeats is not None else None
        if self._repeats is not None:
            self._uc.ctl_exits_enabled(True)
            self._stop_at(self._repeats.addresses)

    # memory ------------------------------------------------------------------------------------------------------------------------------

    def map(self, va: int, size: int, rights: int, host: int, code: bytes) -> None:
        """Show ``size`` bytes of host memory at address ``host`` to the program at ``va``.

        ``code`` is what they hold where the program may execute them, zeros at the end left out.
        """
        try:
            self._direct.map(va, size, rights, host)
        except UcError as error:
            raise CpuError(f"mapping 0x{size:x} bytes at 0x{va:x}", error.errno) from error
        if self._repeats is not None and rights & uc_const.UC_PROT_EXEC and self._repeats.put(va, code):
            self._stop_at(self._repeats.addresses)

    def unmap(self, va: int, size: int) -> None:
        """Take memory away from the program, and all translations of it."""
        try:
            self._direct.drop_translations(va, va + size)
            self._uc.mem_unmap(va, size)
        except UcError as error:
            raise CpuError(f"unmapping 0x{size:x} bytes at 0x{va:x}", error.errno) from error
        if self._repeats is not None and self._repeats.drop(va, size):
            self._stop_at(self._repeats.addresses)

    def shown(self) -> set[tuple[int, int]]:
        """Address and size of everything that is shown to the program."""
        return {(start, last + 1 - start) for start, last, _ in self._uc.mem_regions()}

    def flush(self, va: int, size: int, code: bytes, before: int = 0) -> None:
        """Drop translations of code in a range that was changed.

        Args:
            va: Start of the range.
            size: Of the range, in bytes.
            code: What stands there now, with ``before`` bytes ahead of the range and a few behind it.
            before: Bytes of ``code`` ahead of the range.
        """
        try:
            self._direct.drop_translations(va, va + size)
        except UcError as error:
            raise CpuError(f"flushing 0x{size:x} bytes at 0x{va:x}", error.errno) from error
        if self._repeats is not None and self._repeats.put(va - before, code, before + size):
            self._stop_at(self._repeats.addresses)

    # registers ---------------------------------------------------------------------------------------------------------------------------

    @property
    def pc(self) -> int:
        """The program counter."""
        return self._pc.read()

    @pc.setter
    def pc(self, value: int) -> None:
        self._pc.write(value)

    def get(self, name: str) -> int:
        """A register's value; vector registers as 128-bit integers."""
        integer = self._integers.get(name)
        return int(self._uc.reg_read(self._ids[name])) if integer is None else integer.read()

    def set(self, name: str, value: int) -> None:
        """Change a register.

        Raises:
            CpuError: There is no such register, or the value does not fit.
        """
        integer = self._integers.get(name)
        try:
            if integer is None:
                self._uc.reg_write(self._ids[name], value)
            else:
                integer.write(value)
        except KeyError:
            raise CpuError(f"writing register {name}, which this machine does not have", uc_const.UC_ERR_ARG) from None
        except (UcError, ctypes.ArgumentError, OverflowError, TypeError) as error:
            raise CpuError(f"writing register {name}", getattr(error, "errno", uc_const.UC_ERR_ARG)) from error

    def general(self) -> dict[str, int]:
        """The registers that a thread is shown with, by name."""
        return dict(zip(self.model.general, self._general.read(), strict=True))

    def save(self) -> Context:
        """All registers, as a value that is never changed afterwards."""
        return self._uc.context_save()

    def restore(self, context: Context) -> None:
        """All registers as :meth:`save` found them."""
        self._uc.context_restore(context)

    # running -----------------------------------------------------------------------------------------------------------------------------

    def run(self, count: int) -> Slice:
        """Execute up to ``count`` (≥ 1) instructions from the program counter on."""
        pc = self._pc.read()
        if self._repeats is None:
            return self._run(pc, count)
        executed = 0
        while True:
            repeated = self._repeats.instruction(self._code(pc)) if pc in self._repeats.addresses else None
            if repeated is None and executed == count:
                return Slice(executed, None)
            done = self._run(pc, count - executed) if repeated is None else self._repeat(pc, repeated, count - executed)
            executed += done.executed
            if done.trap is not None:
                return done if executed == done.executed else Slice(executed, done.trap)
            before, pc = pc, self._pc.read()
            if repeated is not None and executed == count and pc == before:
                return Slice(executed, None)

    def _repeat(self, pc: int, instruction: bytes, count: int) -> Slice:
        """Up to ``count`` iterations of the repeated ``instruction`` at ``pc``; past it where they were all."""
        repeats = cast("Repeats", self._repeats)
        form = repeats.form
        left = self._iterations(instruction)
        done = Slice(0, None)
        if left and count:
            by_flags = instruction[-1] in form.by_flags
            try:
                if by_flags:  # others may follow within the count
                    self._stop_at(repeats.addresses - {pc})
                else:
                    self._uc.ctl_exits_enabled(False)
                self._direct.drop_translations(pc, pc + 1)
                done = self._run(pc, min(left, count))
            finally:
                if by_flags:
                    self._stop_at(repeats.addresses)
                else:
                    self._uc.ctl_exits_enabled(True)
                self._direct.drop_translations(pc, pc + 1)
        if done.trap is None and self.pc == pc and not self._iterations(instruction):
            self.pc = pc + len(instruction)
        return done

    def _code(self, pc: int) -> bytes:
        """The bytes at ``pc``, as many as an instruction may have or as are mapped."""
        for size in range(LONGEST, 0, -1):
            try:
                return self._read(pc, size)
            except HotpatchError:
                continue
        return b""

    def _iterations(self, instruction: bytes) -> int:
        form = cast("Repeats", self._repeats).form
        left = self.get(form.counter)
        return left & 0xFFFF_FFFF if form.narrow in instruction[:-1] else left

    def _stop_at(self, addresses: Iterable[int]) -> None:
        self._uc.ctl_set_exits([NOWHERE, *addresses])

    def _run(self, pc: int, count: int) -> Slice:
        self._trap.clear()
        self._interrupts.clear()
        status = self._direct.run(pc, NOWHERE, count)
        if status:
            return self._failed(status)
        counted = int(self._counter.value)
        if self._interrupts:
            return self._interrupted(counted)
        if counted > count:
            return Slice(count, None)
        if self._repeats is not None and self.pc in self._repeats.addresses:
            return Slice(counted, None)
        self._interrupts.append(HALT)
        return self._interrupted(counted)

    def watch(self, first: int, last: int, touched: Callable[[int, int], None]) -> None:
        """Tell ``touched`` VA and size of whatever the program reads or writes from ``first`` to ``last`` from now on; slow."""

        def told(_uc: Engine, _access: int, address: int, size: int, _value: int, _data: object) -> None:
            touched(address, size)

        # Code that was translated without the hook goes on without it.
        self._uc.ctl_flush_tb()
        self._hooks.append(self._uc.hook_add(uc_const.UC_HOOK_MEM_READ | uc_const.UC_HOOK_MEM_WRITE, told, None, first, last))

    def watch_stores(self, stored: Callable[[int, int, int], None]) -> None:
        """Tell ``stored`` VA, size and value (without sign) of whatever the program writes from now on; slow."""

        def told(_uc: Engine, _access: int, address: int, size: int, value: int, _data: object) -> None:
            stored(address, size, value & (1 << 8 * size) - 1)

        self._uc.ctl_flush_tb()
        self._hooks.append(self._uc.hook_add(uc_const.UC_HOOK_MEM_WRITE, told))

    @contextmanager
    def traced(self, read: Callable[[int, int, int], None], written: Callable[[int, int, int], None]) -> Iterator[None]:
        """Tell VA, size and value (without sign) of whatever the program reads, where memory is mapped, and writes meanwhile; slow."""
        content = self._read

        def told(_uc: Engine, access: int, address: int, size: int, value: int, _data: object) -> None:
            if access == uc_const.UC_MEM_WRITE:
                written(address, size, value & (1 << 8 * size) - 1)
                return
            with suppress(HotpatchError):
                read(address, size, int.from_bytes(content(address, size), "little"))

        self._uc.ctl_flush_tb()
        hook = self._uc.hook_add(uc_const.UC_HOOK_MEM_READ | uc_const.UC_HOOK_MEM_WRITE, told)
        try:
            yield
        finally:
            unhook(self._uc, [hook])
            self._uc.ctl_flush_tb()

    def _failed(self, code: int) -> Slice:
        counted, pc = int(self._counter.value), Va(self.pc)
        access = _ACCESS.get(code)
        if code == uc_const.UC_ERR_EXCEPTION and self._trap:
            access = _REFUSED[self._trap[-1][1]]
        if access is None:
            if code not in (uc_const.UC_ERR_INSN_INVALID, uc_const.UC_ERR_EXCEPTION):
                raise CpuError(f"running at 0x{pc:x}", code)
            return Slice(counted - 1, Trap(FaultKind.ILLEGAL_INSTRUCTION, pc, pc, None))
        fetch, address = access == "execute", pc
        if self._trap and not (fetch and self._trap[-1][0] == pc):
            address = Va(self.model.named_address(self, self._trap[-1][0], b"" if fetch else self._code(pc), access))
        executed = counted if fetch else counted - 1
        return Slice(executed, Trap(FaultKind.ACCESS_VIOLATION, pc, address, access))

    def _interrupted(self, counted: int) -> Slice:
        meaning = self.model.interrupt(self._interrupts[0], self.pc, self._read)
        pc = Va(self.pc - meaning.pc_after)
        self.pc = pc
        return Slice(counted - 1, Trap(meaning.kind, pc, pc, None, meaning.detail))


def _hook(uc: Engine, trap: list[tuple[int, int]], interrupts: list[int], grow: Callable[[int], bool]) -> tuple[int, ...]:
    """Record faults into lists that know nothing of the processor, so that no reference cycle keeps host memory alive."""

    def invalid(_uc: Engine, access: int, address: int, size: int, _value: int, _data: object) -> bool:
        first, last = grow(address), grow(address + max(size, 1) - 1)
        if first and last:
            return True
        trap.append((address if not first else address + size - 1, access))
        return False

    def protected(_uc: Engine, access: int, address: int, _size: int, _value: int, _data: object) -> bool:
        trap.append((address, access))
        return False

    def interrupt(uc: Engine, number: int, _data: object) -> None:
        interrupts.append(number)
        uc.emu_stop()

    return (
        uc.hook_add(uc_const.UC_HOOK_MEM_READ_UNMAPPED | uc_const.UC_HOOK_MEM_WRITE_UNMAPPED, invalid),
        uc.hook_add(uc_const.UC_HOOK_MEM_FETCH_UNMAPPED | uc_const.UC_HOOK_MEM_PROT, protected),
        uc.hook_add(uc_const.UC_HOOK_INTR, interrupt),
    )


@cache
def _counter_offset(machine: Machine) -> int:
    """Where Unicorn's engine structure keeps how many instructions the last run executed, in bytes from its start.

    Raises:
        CpuError: No field behaves as the counter must.
    """
    model = cpu_model(machine)
    found: set[int] | None = None
    for count in (3, 11, 29):
        uc = model.create()
        uc.mem_map(0x10000, 0x1000, uc_const.UC_PROT_ALL)
        uc.mem_write(0x10000, model.nop * 64)
        uc.emu_start(0x10000, NOWHERE, 0, count)
        words = (ctypes.c_uint64 * _STRUCTURE_WORDS).from_address(handle_of(uc))
        here = {8 * i for i in range(_STRUCTURE_WORDS - 1) if words[i] == count + 1 and words[i + 1] == count}
        found = here if found is None else found & here
    if not found or len(found) != 1:
        raise CpuError("looking for the instruction counter; this build of Unicorn cannot be used, install unicorn 2.1.4", 0)
    return found.pop()
