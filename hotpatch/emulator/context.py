"""The processor's state as Windows shows it to exception handlers (``CONTEXT``), as data; one module each machine gives the layout.

Sources: ``winnt.h`` of the Windows SDK, MS Learn "CONTEXT structure", and the headers of mingw-w64, which agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.arch import Machine


@dataclass(frozen=True, slots=True)
class Field:
    """A register's place in the structure: offset and size in bytes."""

    register: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class ContextLayout:
    """``CONTEXT`` of one machine, and what else of exception handling depends on it.

    Attributes:
        size: Of the structure, in bytes; it is aligned to 16.
        fields: The registers that are written and read.
        constants: What else is written: offset, bytes.
        dispatcher_size: Of ``DISPATCHER_CONTEXT``, in bytes.
        nonvolatile: Registers that the dispatcher context points at, 8 bytes each; empty where it points at none.
        funclet_base: Register of the frame that filters and finally blocks are given as their second argument; ``None``: they get the
            establisher frame.
        call_size: Bytes that a handler takes off a return address to find the call's scope.
    """

    size: int
    fields: tuple[Field, ...]
    constants: tuple[tuple[int, bytes], ...]
    dispatcher_size: int
    nonvolatile: tuple[str, ...]
    funclet_base: str | None
    call_size: int

    def pack(self, registers: Mapping[str, int]) -> bytes:
        """The structure; registers that are not given are 0."""
        raw = bytearray(self.size)
        for offset, constant in self.constants:
            raw[offset : offset + len(constant)] = constant
        for field in self.fields:
            value = registers.get(field.register, 0) & (1 << 8 * field.size) - 1
            raw[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")
        return bytes(raw)

    def unpack(self, raw: bytes) -> dict[str, int]:
        """The registers of a structure."""
        return {field.register: int.from_bytes(raw[field.offset : field.offset + field.size], "little") for field in self.fields}


@cache
def context_layout(machine: Machine) -> ContextLayout:
    """The one look-up from a machine to its layout."""
    return cast("ContextLayout", import_module(f"hotpatch.emulator.context_{machine.value}").LAYOUT)
