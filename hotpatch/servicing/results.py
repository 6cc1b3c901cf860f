"""What came of a simulation: measured, all of it, from what the devices' servers did."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from hotpatch.arch import Machine
    from hotpatch.errors import Refusal
    from hotpatch.servicing.calendar import CalendarRow
    from hotpatch.servicing.offers import Brings
    from hotpatch.servicing.values import Month


class What(StrEnum):
    """What happened."""

    RELEASE = "release"
    UNPLANNED = "unplanned-baseline"
    OFFER = "offer"
    MISSED = "missed"
    HOTPATCH = "hotpatch"
    HOOK = "foreign-hook"
    REFUSED = "refused"
    UNINSTALL = "uninstall"
    RESTART = "restart"
    ATTACKED = "attacked"
    WITHSTOOD = "withstood"
    DROPPED = "sessions-dropped"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on a day, on a device or (``None``) to all."""

    day: date
    device: str | None
    what: What
    text: str
    refusals: tuple[Refusal, ...] = ()
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceMonth:
    """A month of a device.

    Attributes:
        brings: What the policy decided.
        restarts: Times that the server was started anew.
        sessions_dropped: Sessions that their clients found gone.
        days_exposed: Days on which an attack worked that was known by then.
        attacks: That were tried.
        process: Which start of the server was running at the end, from 1.
        served: Requests that this process counts itself at the month's end.
    """

    month: Month
    brings: Brings
    restarts: int
    sessions_dropped: int
    days_exposed: int
    attacks: int
    process: int
    served: int


@dataclass(frozen=True, slots=True)
class DeviceLife:
    """A device over the whole time; ``hotpatched``: whether a hotpatch ever went in."""

    device: str
    processor: Machine
    hotpatched: bool
    months: tuple[DeviceMonth, ...]

    @property
    def restarts(self) -> int:
        """In all."""
        return sum(month.restarts for month in self.months)

    @property
    def sessions_dropped(self) -> int:
        """In all."""
        return sum(month.sessions_dropped for month in self.months)

    @property
    def days_exposed(self) -> int:
        """In all."""
        return sum(month.days_exposed for month in self.months)


@dataclass(frozen=True, slots=True)
class Equivalence:
    """A hotpatched server and one that was started from the standard update, asked the same after the same life.

    Attributes:
        requests: That both were asked.
        hostile: How many of them belong to attacks.
        difference: The first request that they answered differently, with both replies; ``None`` where there is none.
    """

    device: str
    month: Month
    requests: int
    hostile: int
    difference: tuple[str, str, str] | None

    @property
    def same(self) -> bool:
        """Whether they answered the same."""
        return self.difference is None


@dataclass(frozen=True, slots=True)
class Simulation:
    """Everything that came of it."""

    scenario: str
    title: str
    seed: int
    rules: str
    policy: str
    calendar: tuple[CalendarRow, ...]
    timeline: tuple[Event, ...]
    lives: tuple[DeviceLife, ...]
    equivalence: tuple[Equivalence, ...]

    @property
    def equivalent(self) -> bool:
        """Whether all comparisons came out the same."""
        return all(item.same for item in self.equivalence)
