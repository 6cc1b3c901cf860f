"""A scenario lived through: releases, what the policy brings to whom, and what that does to the devices' servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.servicing.calendar import Calendar, MonthKind
from hotpatch.servicing.life import Life
from hotpatch.servicing.results import Event, Simulation, What

if TYPE_CHECKING:
    from hotpatch.arch import Machine
    from hotpatch.servicing.scenario import Scenario


def simulate(scenario: Scenario, *, seed: int = 0) -> Simulation:
    """Publish every month, then let each device live through them.

    Raises:
        HotpatchError: A server did not come up, faulted or ended by itself; an input is missing.
    """
    calendar, published = publish(scenario)
    events, lives, equivalence = list(published), [], []
    for device in scenario.devices:
        life = Life(scenario, calendar, device, seed)
        lives.append(life.live())
        events += life.events
        equivalence += life.equivalence
    rows = tuple(calendar.row(month) for month in scenario.months)
    timeline = tuple(sorted(events, key=lambda event: event.day))
    return Simulation(
        scenario.name, scenario.title, seed, scenario.rules.name, scenario.policy.name, rows, timeline, tuple(lives), tuple(equivalence)
    )


def publish(scenario: Scenario) -> tuple[Calendar, list[Event]]:
    """Build each month's hotpatch; where the builder refuses, the month becomes an unplanned baseline."""
    machines: list[Machine] = sorted({device.processor for device in scenario.devices})
    calendar, events = Calendar(), []
    for month in scenario.months:
        release = scenario.catalogue.release(month)
        if calendar.kind(month) is MonthKind.HOTPATCH:
            failures = scenario.catalogue.unbuildable(calendar, month, machines)
            if failures:
                calendar = Calendar.with_unplanned([*calendar.unplanned, month])
            for failure in failures:
                reason = "; ".join(f"{item.rule}: {item.reason}" for item in failure.refusals)
                text = f"the hotpatch for {failure.machine} cannot be built, so {month} is an unplanned baseline: {reason}"
                events.append(Event(month.release_day, None, What.UNPLANNED, text, failure.refusals, {"machine": failure.machine.value}))
        row = calendar.row(month)
        details = {"month": str(month), "kind": row.kind.value, "build": str(release.build)}
        events.append(Event(row.release_day, None, What.RELEASE, f"{month}, {row.kind}: {release.repairs}", (), details))
    return calendar, events
