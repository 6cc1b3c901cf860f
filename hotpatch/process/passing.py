"""Arguments of calls: as numbers, what goes by pointer copied into the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.errors import InputError
from hotpatch.process.model import Argument, Buffer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.address import Va
    from hotpatch.emulator.guest import Guest

_INTEGER_LIMIT = 1 << 64


def passed(guest: Guest, args: Sequence[Argument]) -> tuple[list[int | float], list[tuple[Buffer, Va]]]:
    """Words for registers and stack, and where the Buffers among ``args`` lie now.

    Raises:
        InputError: An argument cannot be passed.
    """
    words: list[int | float] = []
    buffers: list[tuple[Buffer, Va]] = []
    for argument in args:
        match argument:
            case bool() | int():
                if not -_INTEGER_LIMIT // 2 <= argument < _INTEGER_LIMIT:
                    raise InputError(str(argument), "does not fit 64 bits; give a number from -2**63 to 2**64 - 1")
                words.append(int(argument))
            case float():
                words.append(argument)
            case bytes() | bytearray():
                words.append(guest.allocate(bytes(argument)))
            case str():
                words.append(guest.allocate(argument.encode("utf-8", "surrogateescape") + b"\0"))
            case Buffer():
                place = guest.allocate(argument.data)
                buffers.append((argument, place))
                words.append(place)
            case _:
                raise InputError(repr(argument), "cannot be passed; give an int, float, bytes, str or Buffer")
    return words, buffers
