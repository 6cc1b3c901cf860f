"""Arguments of calls that the host makes, laid out as the calling convention says."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.arch import CallingConvention


class Single(float):
    """A number that is passed in single precision, C's ``float``."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ArgumentLayout:
    """Where arguments go.

    Attributes:
        integers: Values of the integer argument registers, in order; 0 where a position belongs to a float.
        floats: (register index, 64 bits) of floating-point registers.
        stack: 64-bit words above the home space.
    """

    integers: tuple[int, ...]
    floats: tuple[tuple[int, int], ...]
    stack: tuple[int, ...]


def lay_out(convention: CallingConvention, arguments: Sequence[int | float]) -> ArgumentLayout:
    """Registers and stack words for integer and floating-point arguments."""
    integers: list[int] = []
    floats: list[tuple[int, int]] = []
    stack: list[int] = []
    for position, argument in enumerate(arguments):
        real = isinstance(argument, float)
        word = _bits(argument) if isinstance(argument, float) else argument & (1 << 64) - 1
        used = position if convention.positional else len(floats) if real else len(integers)
        room = len(convention.float_arguments) if real else len(convention.integer_arguments)
        if used >= room:
            stack.append(word)
        elif real:
            floats.append((used, word))
            if convention.positional:
                integers.append(word)
        else:
            integers.append(word)
    return ArgumentLayout(tuple(integers), tuple(floats), tuple(stack))


def _bits(argument: float) -> int:
    return int.from_bytes(struct.pack("<f" if isinstance(argument, Single) else "<d", argument), "little")
