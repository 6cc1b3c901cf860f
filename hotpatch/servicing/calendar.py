"""Which month brings what: a baseline with a restart, or a hotpatch without.

Source: Microsoft, "Hotpatch calendar" (release notes of Windows 11 Enterprise, version 24H2). The first month of a quarter is a baseline
month, the two after it are hotpatch months, and a fix that cannot be hotpatched makes a hotpatch month an unplanned baseline.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from hotpatch.errors import InputError
from hotpatch.servicing.values import Month

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

FIRST_FULL_YEAR = 2026
"""The first whole year after general availability on x64 (2 April 2025): the year shown unless another is asked for.

There is no clock here."""


class MonthKind(StrEnum):
    """What a month brings to a device that takes hotpatches."""

    BASELINE = "baseline"
    """The cumulative update that the quarter's hotpatches are built for; it needs a restart."""
    HOTPATCH = "hotpatch"
    """Security fixes for the running system; no restart."""
    UNPLANNED = "unplanned-baseline"
    """Meant to be a hotpatch month, but the fix cannot be hotpatched: a new baseline, with a restart."""

    @property
    def restarts(self) -> bool:
        """Whether everybody has to restart."""
        return self is not MonthKind.HOTPATCH


@dataclass(frozen=True, slots=True)
class CalendarRow:
    """A month: what it brings, when, and on which baseline.

    Attributes:
        sequence: Of the month's hotpatch, counted from its baseline; 0 in a baseline month.
    """

    month: Month
    kind: MonthKind
    release_day: date
    baseline: Month
    sequence: int


@dataclass(frozen=True, slots=True)
class Calendar:
    """The service's months, with those that turned out otherwise than planned."""

    unplanned: frozenset[Month] = frozenset()

    @classmethod
    def with_unplanned(cls, months: Iterable[Month]) -> Calendar:
        """A calendar in which ``months`` are unplanned baselines.

        Raises:
            InputError: One of them is a baseline month anyway.
        """
        chosen = frozenset(months)
        planned = sorted(month for month in chosen if _planned_baseline(month))
        if planned:
            raise InputError(str(planned[0]), "is a baseline month anyway; name a hotpatch month, such as the one after it")
        return cls(chosen)

    def kind(self, month: Month) -> MonthKind:
        """What ``month`` brings."""
        if _planned_baseline(month):
            return MonthKind.BASELINE
        return MonthKind.UNPLANNED if month in self.unplanned else MonthKind.HOTPATCH

    def baseline_of(self, month: Month) -> Month:
        """The newest baseline that is out in ``month``, itself included."""
        candidates = [Month(month.year, number) for number in range(3 * month.quarter - 2, month.number + 1)]
        return max(candidate for candidate in candidates if self.kind(candidate).restarts)

    def next_hotpatch(self, month: Month) -> Month:
        """The first hotpatch month after ``month``."""
        following = month.next
        while self.kind(following).restarts:
            following = following.next
        return following

    def row(self, month: Month) -> CalendarRow:
        """Everything about ``month``."""
        baseline = self.baseline_of(month)
        return CalendarRow(month, self.kind(month), month.release_day, baseline, month.number - baseline.number)

    def year(self, year: int) -> tuple[CalendarRow, ...]:
        """The rows of a year.

        Raises:
            InputError: The year is not one that has a calendar.
        """
        if not 1 <= year < 9999:
            raise InputError(str(year), "is no year; write one such as 2026")
        return tuple(self.row(Month(year, number)) for number in range(1, 13))


def _planned_baseline(month: Month) -> bool:
    return month.number % 3 == 1
