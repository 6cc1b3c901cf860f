"""The JSON documents of ``hotpatch servicing``. Months are ``2026-02``, days ``2026-02-10``, builds ``26100.2033``."""

from __future__ import annotations

from typing import Any, Literal

from hotpatch.report.document import Document, Machine, RefusalDocument

MonthKindName = Literal["baseline", "hotpatch", "unplanned-baseline"]
BringsName = Literal["hotpatch", "standard", "baseline", "nothing"]
OutcomeName = Literal["holds", "fails", "not-applicable"]


class CalendarMonth(Document, frozen=True, kw_only=True):
    """A month; ``sequence`` of its hotpatch counts from the baseline, 0 in a baseline month."""

    month: str
    quarter: int
    kind: MonthKindName
    release_day: str
    restart: bool
    baseline: str
    sequence: int


class CalendarDocument(Document, frozen=True, kw_only=True):
    """``hotpatch servicing calendar``."""

    schema: Literal["hotpatch.servicing-calendar/1"] = "hotpatch.servicing-calendar/1"
    year: int
    months: list[CalendarMonth]
    restarts: int


class RuleDocument(Document, frozen=True, kw_only=True):
    """One rule on one device; ``reason`` and ``remedy`` are null unless it fails."""

    rule: str
    outcome: OutcomeName
    requires: str
    found: str
    reason: str | None
    remedy: str | None
    source: str
    date: str


class EligibleDocument(Document, frozen=True, kw_only=True):
    """``hotpatch servicing eligible``; without a policy, one that allows hotpatch is assumed."""

    schema: Literal["hotpatch.servicing-eligible/1"] = "hotpatch.servicing-eligible/1"
    device: str
    month: str
    ruleset: str
    policy: str | None
    eligible: bool
    rules: list[RuleDocument]


class OfferedDocument(Document, frozen=True, kw_only=True):
    """What a month brings to a device."""

    device: str
    brings: BringsName
    reason: str
    install_on: str | None
    restart_on: str | None
    eligible: bool
    rules: list[RuleDocument]


class OfferDocument(Document, frozen=True, kw_only=True):
    """``hotpatch servicing offer``."""

    schema: Literal["hotpatch.servicing-offer/1"] = "hotpatch.servicing-offer/1"
    policy: str
    month: str
    kind: MonthKindName
    release_day: str
    baseline: str
    ruleset: str
    offers: list[OfferedDocument]


class EventDocument(Document, frozen=True, kw_only=True):
    """Something that happened on a day, on a device or (null) to all."""

    day: str
    device: str | None
    what: str
    text: str
    refused: list[RefusalDocument]
    details: dict[str, Any]


class DeviceMonthDocument(Document, frozen=True, kw_only=True):
    """A month of a device; ``process`` counts starts of its server, ``served`` what the running one says it has served."""

    month: str
    brings: BringsName
    restarts: int
    sessions_dropped: int
    days_exposed: int
    attacks: int
    process: int
    served: int


class DeviceDocument(Document, frozen=True, kw_only=True):
    """A device over the whole time."""

    device: str
    processor: Machine
    hotpatched: bool
    restarts: int
    sessions_dropped: int
    days_exposed: int
    months: list[DeviceMonthDocument]


class DifferenceDocument(Document, frozen=True, kw_only=True):
    """A request that two servers answered differently."""

    request: str
    hotpatched: str
    updated: str


class EquivalenceDocument(Document, frozen=True, kw_only=True):
    """A hotpatched server held against one started from the standard update."""

    device: str
    month: str
    requests: int
    hostile: int
    same: bool
    difference: DifferenceDocument | None


class SimulateDocument(Document, frozen=True, kw_only=True):
    """``hotpatch servicing simulate``."""

    schema: Literal["hotpatch.servicing-simulate/1"] = "hotpatch.servicing-simulate/1"
    scenario: str
    title: str
    seed: int
    ruleset: str
    policy: str
    calendar: list[CalendarMonth]
    timeline: list[EventDocument]
    devices: list[DeviceDocument]
    equivalence: list[EquivalenceDocument]
    equivalent: bool
