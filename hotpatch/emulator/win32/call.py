"""A call of a system function as its handler sees it, and the table that handlers enter themselves into.

A handler is a Python function whose parameters, after the first, are the Windows function's; their annotations say how registers are read.
It returns the result, a wait, a call back into the program, or that there is no return.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from hotpatch.emulator.layout import TEB
from hotpatch.errors import HotpatchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hotpatch.emulator.system import System
    from hotpatch.emulator.threads import GuestThread, Outcome
    from hotpatch.errors import FaultKind

_Handler = TypeVar("_Handler", bound="Callable[..., Outcome | float]")

Word = int
"""64 bits: pointers, handles, sizes."""
Dword = int
"""32 bits, unsigned; the upper half of the register is not looked at."""
Int = int
"""32 bits, signed."""
Double = float
"""A floating-point argument, in the position that it has among the integer ones."""

ERROR_SUCCESS = 0
ERROR_FILE_NOT_FOUND = 2
ERROR_ACCESS_DENIED = 5
ERROR_INVALID_HANDLE = 6
ERROR_NOT_ENOUGH_MEMORY = 8
ERROR_INVALID_PARAMETER = 87
ERROR_INSUFFICIENT_BUFFER = 122
ERROR_MOD_NOT_FOUND = 126
ERROR_PROC_NOT_FOUND = 127
ERROR_BAD_ARGUMENTS = 160
ERROR_ALREADY_EXISTS = 183
ERROR_ENVVAR_NOT_FOUND = 203
ERROR_NOT_OWNER = 288
ERROR_TOO_MANY_POSTS = 298
ERROR_INVALID_ADDRESS = 487
ERROR_INVALID_FLAGS = 1004
ERROR_NO_UNICODE_TRANSLATION = 1113
ERROR_OLD_WIN_VERSION = 1150
ERROR_DYNAMIC_CODE_BLOCKED = 1655
"""System error codes (MS Learn, "System Error Codes")."""


class ProgramFaultError(HotpatchError):
    """A system function ends the program with a fault of ``kind``."""

    def __init__(self, kind: FaultKind, detail: str) -> None:
        """Say which ``kind`` and why."""
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class Call:
    """One call, while its handler runs."""

    __slots__ = ("system", "thread")

    def __init__(self, system: System, thread: GuestThread) -> None:
        self.system = system
        self.thread = thread

    def word(self, index: int) -> int:
        """Integer argument ``index``, 64 bits."""
        return self.system.argument(index)

    def fail(self, error: int, result: int = 0) -> int:
        """Set the thread's last error; returns ``result``."""
        self.system.set_last_error(self.thread, error)
        return result

    def read(self, va: int, size: int) -> bytes:
        """Memory, as the program may read it."""
        return self.system.guest_read(va, size)

    def write(self, va: int, data: bytes) -> None:
        """Memory, as the program may write it."""
        self.system.guest_write(va, data)

    def get32(self, va: int) -> int:
        """An unsigned 32-bit number."""
        return int.from_bytes(self.read(va, 4), "little")

    def get64(self, va: int) -> int:
        """An unsigned 64-bit number."""
        return int.from_bytes(self.read(va, 8), "little")

    def put32(self, va: int, value: int) -> None:
        """Store 32 bits."""
        self.write(va, (value & 0xFFFF_FFFF).to_bytes(4, "little"))

    def put64(self, va: int, value: int) -> None:
        """Store 64 bits."""
        self.write(va, (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little"))

    def put32_if(self, va: int, value: int) -> None:
        """Store 32 bits where the pointer is not null."""
        if va:
            self.put32(va, value)

    def string(self, va: int) -> bytes:
        """The bytes of a string up to its NUL."""
        return self.system.guest_string(va, 1)

    def wide(self, va: int) -> str:
        """A NUL-terminated UTF-16 string."""
        return self.system.guest_string(va, 2).decode("utf-16-le", "surrogatepass")

    @property
    def last_error(self) -> int:
        """The thread's last error."""
        return int.from_bytes(self.system.memory.read(self.thread.teb + TEB["LastErrorValue"], 4), "little")


@dataclass(frozen=True, slots=True)
class Api:
    """A provided function."""

    name: str
    handler: Callable[..., Outcome | float]
    kinds: tuple[str, ...]

    def serve(self, call: Call) -> Outcome | float:
        """Read the arguments and run the handler."""
        arguments: list[int | float] = []
        for index, kind in enumerate(self.kinds):
            if kind == "Double":
                arguments.append(call.system.float_argument(index, sum(before == "Double" for before in self.kinds[:index])))
                continue
            value = call.word(index)
            if kind == "Dword":
                value &= 0xFFFF_FFFF
            elif kind == "Int":
                value = (value & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000
            arguments.append(value)
        return self.handler(call, *arguments)


class Table:
    """The functions of one theme."""

    def __init__(self) -> None:
        self.functions: dict[str, Api] = {}

    def provide(self, *names: str) -> Callable[[_Handler], _Handler]:
        """Enter a handler under the Windows names that it serves."""

        def enter(handler: _Handler) -> _Handler:
            parameters = list(inspect.signature(handler).parameters.values())[1:]
            kinds = tuple(str(parameter.annotation) for parameter in parameters)
            for name in names:
                self.functions[name] = Api(name, handler, kinds)
            return handler

        return enter
