"""Unicorn's Python binding as a typed interface; its own methods carry no annotations."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Protocol, cast

from unicorn import unicorn_const as uc_const
from unicorn.unicorn_py3.unicorn import Uc, UcError, uclib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Context", "Direct", "Engine", "IntegerRegister", "IntegerRegisters", "TlbEntry", "UcError", "handle_of", "new_engine", "unhook"]

_REMOVE_CACHE = uc_const.UC_CTL_TB_REMOVE_CACHE | uc_const.UC_CTL_IO_WRITE << 30 | 2 << 26
"""Control code as ``UC_CTL_WRITE(UC_CTL_TB_REMOVE_CACHE, 2)`` of ``unicorn.h`` makes it: two arguments are written."""


class Context(Protocol):
    """Saved registers; opaque."""


class TlbEntry(Protocol):
    """Where a page lies, and what may be done with it."""

    paddr: int
    perms: int


class Engine(Protocol):
    """What is used of ``unicorn.Uc``. Every method raises :class:`UcError`; addresses and sizes in bytes."""

    def mem_map(self, address: int, size: int, perms: int) -> None:
        """Map Unicorn's own memory."""

    def mem_unmap(self, address: int, size: int) -> None:
        """Unmap."""

    def mem_regions(self) -> Iterable[tuple[int, int, int]]:
        """First and last address of each mapping, and its rights."""

    def mem_write(self, address: int, data: bytes) -> None:
        """Write."""

    def reg_read(self, reg_id: int) -> int:
        """Read a register."""

    def reg_write(self, reg_id: int, value: int) -> None:
        """Write a register."""

    def reg_read_batch(self, reg_ids: Sequence[int]) -> Sequence[int]:
        """Read registers."""

    def context_save(self) -> Context:
        """Save all registers."""

    def context_restore(self, context: Context) -> None:
        """Restore all registers."""

    def emu_start(self, begin: int, until: int, timeout: int = 0, count: int = 0) -> None:
        """Run."""

    def emu_stop(self) -> None:
        """Stop, from a hook."""

    def hook_add(
        self, htype: int, callback: Callable[..., object], user_data: object = None, begin: int = 1, end: int = 0, aux1: int = 0
    ) -> int:
        """Hook."""

    def hook_del(self, hook_handle: int) -> None:
        """Take a hook away."""

    def ctl_exits_enabled(self, enable: bool) -> None:
        """Stop runs at the addresses of :meth:`ctl_set_exits` instead of at ``until``."""

    def ctl_set_exits(self, exits: Sequence[int]) -> None:
        """Addresses that runs stop before; code that is translated already does not know of them."""

    def ctl_set_tlb_mode(self, mode: int) -> None:
        """Who says where pages lie: the emulated processor's page tables, or a hook."""

    def ctl_flush_tb(self) -> None:
        """Drop all translations."""

    def ctl_set_cpu_model(self, model: int) -> None:
        """Choose the processor, before anything runs."""


_TRANSLATED = 64 << 20
"""Bytes for translated code. Unicorn takes a gigabyte, so that all engines of a process but the first have theirs too far from its own code
for short jumps, and run two to three times slower."""


def new_engine(architecture: int, mode: int) -> Engine:
    """A Unicorn engine.

    Raises:
        UcError: Unicorn cannot be used.
    """
    engine = cast("Callable[[int, int], Engine]", Uc)(architecture, mode)
    cast("Uc", engine).ctl_set_tcg_buffer_size(_TRANSLATED)
    return engine


def handle_of(engine: Engine) -> int:
    """Host address of the engine's structure."""
    return int(cast("Uc", engine)._uch.value or 0)


def unhook(engine: Engine, hooks: Iterable[int]) -> None:
    """Take hooks away so that the engine goes with the last reference to it, and not at some later collection.

    What the binding keeps of a hook was made by :func:`ctypes.cast`, which leaves it in a cycle with itself, and leads back to the engine.
    """
    callbacks = cast("Uc", engine)._callbacks
    for hook in hooks:
        kept = callbacks[hook]
        engine.hook_del(hook)
        cast("dict[object, object]", kept._objects).clear()


class Direct:
    """What applying a patch asks of Unicorn again and again, without the binding's own steps, which take longer than some of the calls.

    Every method raises :class:`UcError` where Unicorn does not do it.
    """

    def __init__(self, engine: Engine) -> None:
        """Prepare to ask ``engine``."""
        self._engine = cast("Uc", engine)
        self._handle = ctypes.c_void_p(handle_of(engine))

    def run(self, begin: int, until: int, count: int) -> int:
        """Run up to ``count`` instructions; Unicorn's error code, 0 for none. What a hook raised is raised where there is none."""
        self._engine._hook_exception = None
        status = int(uclib.uc_emu_start(self._handle, begin, until, 0, count))
        if not status and self._engine._hook_exception is not None:
            raise self._engine._hook_exception
        return status

    def map(self, address: int, size: int, perms: int, ptr: int) -> None:
        """Map host memory."""
        status = uclib.uc_mem_map_ptr(self._handle, address, size, perms, ptr)
        if status:
            raise UcError(status)

    def drop_translations(self, start: int, end: int) -> None:
        """Forget what code in a range was translated to."""
        status = uclib.uc_ctl(self._handle, _REMOVE_CACHE, ctypes.c_uint64(start), ctypes.c_uint64(end))
        if status:
            raise UcError(status)


class IntegerRegister:
    """A register of up to 64 bits. Unicorn's own way to it looks for its type each time, which took a fifth of short runs."""

    def __init__(self, engine: Engine, number: int) -> None:
        """Prepare to read and write register ``number``."""
        self._handle, self._number = ctypes.c_void_p(handle_of(engine)), number
        self._found, self._given = ctypes.c_uint64(), ctypes.c_uint64()
        self._to_found, self._to_given = ctypes.c_void_p(ctypes.addressof(self._found)), ctypes.c_void_p(ctypes.addressof(self._given))

    def read(self) -> int:
        """Its value.

        Raises:
            UcError: It cannot be read.
        """
        status = uclib.uc_reg_read(self._handle, self._number, self._to_found)
        if status:
            raise UcError(status)
        return self._found.value

    def write(self, value: int) -> None:
        """Set it to the low 64 bits of ``value``.

        Raises:
            UcError: It cannot be written.
            TypeError: ``value`` is no integer.
        """
        self._given.value = value
        status = uclib.uc_reg_write(self._handle, self._number, self._to_given)
        if status:
            raise UcError(status)


class IntegerRegisters:
    """Registers of up to 64 bits, read by one call, because applying a patch looks at every thread."""

    def __init__(self, engine: Engine, ids: Sequence[int]) -> None:
        """Prepare to read the registers ``ids``."""
        self._handle = ctypes.c_void_p(handle_of(engine))
        self._ids = (ctypes.c_int * len(ids))(*ids)
        self._values = (ctypes.c_uint64 * len(ids))()
        start = ctypes.addressof(self._values)
        self._pointers = (ctypes.c_void_p * len(ids))(*(start + 8 * index for index in range(len(ids))))

    def read(self) -> list[int]:
        """Their values, in order.

        Raises:
            UcError: A register cannot be read.
        """
        status = uclib.uc_reg_read_batch(self._handle, self._ids, self._pointers, len(self._ids))
        if status:
            raise UcError(status)
        return list(self._values)
