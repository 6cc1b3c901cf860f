"""What a month brings to each device of a policy. The policy decides by itself; nobody picks devices by hand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from hotpatch.servicing.eligibility import BASELINE_RULE, MONTH_RULE, Eligibility, judge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.servicing.calendar import Calendar
    from hotpatch.servicing.device import Device
    from hotpatch.servicing.policy import Policy
    from hotpatch.servicing.rules import RuleSet
    from hotpatch.servicing.values import Month


class Brings(StrEnum):
    """What a month brings to a device."""

    HOTPATCH = "hotpatch"
    """Into the running system, without a restart."""
    STANDARD = "standard"
    """The month's cumulative update, with a restart."""
    BASELINE = "baseline"
    """The baseline with a restart; in a hotpatch month the month's hotpatch follows at once."""
    NOTHING = "nothing"
    """The policy has nothing for it."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the policy has decided for one device.

    Attributes:
        reason: Why, in one sentence.
        install_on: The day on which the update is installed; ``None`` where there is none.
        restart_on: The day by which the device has restarted; ``None`` where it need not.
        eligibility: Every rule's outcome.
    """

    device: str
    brings: Brings
    reason: str
    install_on: date | None
    restart_on: date | None
    eligibility: Eligibility


def offer(policy: Policy, devices: Iterable[Device], month: Month, *, rules: RuleSet, calendar: Calendar) -> tuple[Offer, ...]:
    """Decide for each device, in the order given."""
    return tuple(offer_one(policy, device, month, rules=rules, calendar=calendar) for device in devices)


def offer_one(policy: Policy, device: Device, month: Month, *, rules: RuleSet, calendar: Calendar) -> Offer:
    """Decide for one device."""
    eligibility = judge(device, month, rules=rules, calendar=calendar, policy=policy)
    brings, reason = _decide(policy, device, month, calendar, eligibility)
    install = month.release_day + timedelta(policy.install_after(device))
    restart = month.release_day + timedelta(policy.restart_after(device))
    return Offer(
        device.name,
        brings,
        reason,
        None if brings is Brings.NOTHING else install,
        restart if brings in (Brings.STANDARD, Brings.BASELINE) else None,
        eligibility,
    )


def _decide(policy: Policy, device: Device, month: Month, calendar: Calendar, eligibility: Eligibility) -> tuple[Brings, str]:
    if not policy.covers(device):
        return Brings.NOTHING, f"{policy.name} is not assigned to it"
    if device.updated >= month:
        return Brings.NOTHING, f"the update of {device.updated} is in force"
    others = [item for item in eligibility.failed if item.rule not in (MONTH_RULE, BASELINE_RULE)]
    why = "; ".join(item.reason for item in eligibility.failed if item.rule != MONTH_RULE)
    if calendar.kind(month).restarts:
        if others:
            return Brings.STANDARD, why
        planned = "an unplanned baseline" if month in calendar.unplanned else "a baseline month"
        return Brings.BASELINE, f"{month} is {planned}: everybody restarts"
    baseline = calendar.baseline_of(month)
    if eligibility.eligible:
        return Brings.HOTPATCH, "every rule holds"
    if not others and device.baseline < baseline:
        return Brings.BASELINE, f"every other rule holds, but {why}: first the baseline, then the hotpatch"
    return Brings.STANDARD, why
