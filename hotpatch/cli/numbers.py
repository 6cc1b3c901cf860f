"""Numbers as options and arguments of verbs: decimal, ``0x…``, ``0o…`` or ``0b…``, and whole."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts import Token

NO_INTEGER = "is no integer; write 7 or 0x10"
_LARGEST_STORED = 0xFFFFFFFF
_NO_YEAR = "is no integer; write a year such as 2026"


def _whole(_kind: object, typed: Sequence[Token], *, least: int | None = None, most: int | None = None, otherwise: str = NO_INTEGER) -> int:
    """The integer that was typed.

    Raises:
        ValueError: It is none (``otherwise`` says so), less than ``least``, or more than ``most``.
    """
    try:
        value = int(typed[0].value, 0)
    except ValueError:
        raise ValueError(otherwise) from None
    if least is not None and value < least:
        raise ValueError(f"is less than {least}; write a number from {least}")
    if most is not None and value > most:
        raise ValueError(f"is more than {most}; write a number up to that")
    return value


Integer = Annotated[int, Parameter(converter=_whole, metavar="N")]
"""Any."""
Count = Annotated[int, Parameter(converter=partial(_whole, least=0), metavar="N")]
"""From 0."""
Positive = Annotated[int, Parameter(converter=partial(_whole, least=1), metavar="N")]
"""From 1."""
SequenceNumber = Annotated[int, Parameter(converter=partial(_whole, least=1, most=_LARGEST_STORED), metavar="N")]
"""From 1, as much as a patch has room for."""
StateVersion = Annotated[int, Parameter(converter=partial(_whole, least=0, most=_LARGEST_STORED), metavar="N")]
"""From 0, as much as a patch has room for."""
Year = Annotated[int, Parameter(converter=partial(_whole, otherwise=_NO_YEAR))]
"""Without a name of its own in help: its argument's stands there."""
