"""The service's values as documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.report.convert import plain, refusals
from hotpatch.report.servicing_documents import (
    CalendarDocument,
    CalendarMonth,
    DeviceDocument,
    DeviceMonthDocument,
    DifferenceDocument,
    EligibleDocument,
    EquivalenceDocument,
    EventDocument,
    OfferDocument,
    OfferedDocument,
    RuleDocument,
    SimulateDocument,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.servicing.calendar import CalendarRow
    from hotpatch.servicing.eligibility import Eligibility
    from hotpatch.servicing.offers import Offer
    from hotpatch.servicing.policy import Policy
    from hotpatch.servicing.results import DeviceLife, Equivalence, Event, Simulation


def calendar(year: int, rows: Sequence[CalendarRow]) -> CalendarDocument:
    """The document of ``hotpatch servicing calendar``."""
    return CalendarDocument(year=year, months=[_month(row) for row in rows], restarts=sum(row.kind.restarts for row in rows))


def _month(row: CalendarRow) -> CalendarMonth:
    return CalendarMonth(
        month=str(row.month),
        quarter=row.month.quarter,
        kind=row.kind.value,
        release_day=row.release_day.isoformat(),
        restart=row.kind.restarts,
        baseline=str(row.baseline),
        sequence=row.sequence,
    )


def eligible(value: Eligibility, policy: Policy | None) -> EligibleDocument:
    """The document of ``hotpatch servicing eligible``."""
    return EligibleDocument(
        device=value.device,
        month=str(value.month),
        ruleset=value.rules,
        policy=policy.name if policy else None,
        eligible=value.eligible,
        rules=_rules(value),
    )


def _rules(value: Eligibility) -> list[RuleDocument]:
    return [
        RuleDocument(
            rule=item.rule,
            outcome=item.outcome.value,
            requires=item.requires,
            found=item.found,
            reason=item.reason or None,
            remedy=item.remedy or None,
            source=item.source,
            date=item.date.isoformat(),
        )
        for item in value.outcomes
    ]


def offer(policy: Policy, row: CalendarRow, ruleset: str, offers: Sequence[Offer]) -> OfferDocument:
    """The document of ``hotpatch servicing offer``."""
    return OfferDocument(
        policy=policy.name,
        month=str(row.month),
        kind=row.kind.value,
        release_day=row.release_day.isoformat(),
        baseline=str(row.baseline),
        ruleset=ruleset,
        offers=[
            OfferedDocument(
                device=item.device,
                brings=item.brings.value,
                reason=item.reason,
                install_on=item.install_on.isoformat() if item.install_on else None,
                restart_on=item.restart_on.isoformat() if item.restart_on else None,
                eligible=item.eligibility.eligible,
                rules=_rules(item.eligibility),
            )
            for item in offers
        ],
    )


def simulate(value: Simulation) -> SimulateDocument:
    """The document of ``hotpatch servicing simulate``."""
    return SimulateDocument(
        scenario=value.scenario,
        title=value.title,
        seed=value.seed,
        ruleset=value.rules,
        policy=value.policy,
        calendar=[_month(row) for row in value.calendar],
        timeline=[_event(event) for event in value.timeline],
        devices=[_device(life) for life in value.lives],
        equivalence=[_equivalence(item) for item in value.equivalence],
        equivalent=value.equivalent,
    )


def _event(event: Event) -> EventDocument:
    return EventDocument(
        day=event.day.isoformat(),
        device=event.device,
        what=event.what.value,
        text=event.text,
        refused=refusals(event.refusals),
        details={key: plain(value) for key, value in event.details.items()},
    )


def _device(life: DeviceLife) -> DeviceDocument:
    return DeviceDocument(
        device=life.device,
        processor=life.processor.value,
        hotpatched=life.hotpatched,
        restarts=life.restarts,
        sessions_dropped=life.sessions_dropped,
        days_exposed=life.days_exposed,
        months=[
            DeviceMonthDocument(
                month=str(item.month),
                brings=item.brings.value,
                restarts=item.restarts,
                sessions_dropped=item.sessions_dropped,
                days_exposed=item.days_exposed,
                attacks=item.attacks,
                process=item.process,
                served=item.served,
            )
            for item in life.months
        ],
    )


def _equivalence(item: Equivalence) -> EquivalenceDocument:
    difference = None
    if item.difference is not None:
        request, hotpatched, updated = item.difference
        difference = DifferenceDocument(request=request, hotpatched=hotpatched, updated=updated)
    return EquivalenceDocument(
        device=item.device, month=str(item.month), requests=item.requests, hostile=item.hostile, same=item.same, difference=difference
    )
