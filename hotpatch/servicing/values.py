"""Small values of the service: months and builds."""

from __future__ import annotations

import re
from datetime import date, timedelta
from functools import total_ordering

from hotpatch.errors import InputError

_MONTH = re.compile(r"(\d{4})-(\d{2})")
_BUILD = re.compile(r"(\d{1,9})\.(\d{1,9})")
_TUESDAY = 1
"""As ``date.weekday`` counts."""
_WEEK = 7


@total_ordering
class _Pair:
    """Two integers, compared one after the other. No dataclass, because msgspec reads those from tables and asks nobody."""

    __slots__ = ("_first", "_second")

    def __init__(self, first: int, second: int) -> None:
        self._first, self._second = first, second

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Pair) and type(other) is type(self) and self._key == other._key

    def __lt__(self, other: _Pair) -> bool:
        return self._key < other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self._key}"

    @property
    def _key(self) -> tuple[int, int]:
        return self._first, self._second


class Month(_Pair):
    """A month of a year; months are in the order of time."""

    __slots__ = ()

    @property
    def year(self) -> int:
        """Of the common era."""
        return self._first

    @property
    def number(self) -> int:
        """1 to 12."""
        return self._second

    @classmethod
    def parse(cls, text: str) -> Month:
        """``2026-02``.

        Raises:
            InputError: It is no such thing.
        """
        found = _MONTH.fullmatch(text)
        if not found or not 1 <= int(found[2]) <= 12 or not 1 <= int(found[1]) < 9999:
            raise InputError(text, 'is no month; write year and month, such as "2026-02"')
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        """As :meth:`parse` takes it."""
        return f"{self.year:04}-{self.number:02}"

    @property
    def quarter(self) -> int:
        """1 to 4."""
        return (self.number + 2) // 3

    @property
    def first(self) -> date:
        """Its first day."""
        return date(self.year, self.number, 1)

    @property
    def last(self) -> date:
        """Its last day."""
        return self.next.first - timedelta(1)

    @property
    def next(self) -> Month:
        """The month after it."""
        return Month(self.year + self.number // 12, self.number % 12 + 1)

    @property
    def release_day(self) -> date:
        """Its second Tuesday, when updates come."""
        return self.first + timedelta((_TUESDAY - self.first.weekday()) % _WEEK + _WEEK)


class Build(_Pair):
    """A build of Windows: two integers, compared one after the other, never a decimal number (26100.2033 is newer than 26100.900)."""

    __slots__ = ()

    @property
    def number(self) -> int:
        """26100 for version 24H2."""
        return self._first

    @property
    def revision(self) -> int:
        """That updates raise."""
        return self._second

    @classmethod
    def parse(cls, text: str) -> Build:
        """``26100.2033``.

        Raises:
            InputError: It is no such thing.
        """
        found = _BUILD.fullmatch(text)
        if not found:
            raise InputError(text, 'is no build; write two integers with a point between them, such as "26100.2033"')
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        """As :meth:`parse` takes it."""
        return f"{self.number}.{self.revision}"
