"""Whether a device gets a month's hotpatch: every rule's outcome, with reason and remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from hotpatch.servicing.calendar import MonthKind
from hotpatch.servicing.rules import Check, Fact
from hotpatch.servicing.values import Build, Month

if TYPE_CHECKING:
    from datetime import date

    from hotpatch.servicing.calendar import Calendar
    from hotpatch.servicing.device import Device
    from hotpatch.servicing.policy import Policy
    from hotpatch.servicing.rules import RuleEntry, RuleSet

BASELINE_RULE = "baseline"
PROCESSOR_RULE = "processor"
MONTH_RULE = "month"


class Outcome(StrEnum):
    """Of one rule."""

    HOLDS = "holds"
    FAILS = "fails"
    NOT_APPLICABLE = "not-applicable"
    """The rule is for other processors, or for months that have a hotpatch."""


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """One rule on one device.

    Attributes:
        rule: Its name.
        requires: What it wants, in words.
        found: What the device has.
        reason: Why it fails, empty otherwise.
        remedy: What to do about that, empty otherwise.
        source: The public page or announcement that it is from.
        date: Since when it holds.
    """

    rule: str
    outcome: Outcome
    requires: str
    found: str
    reason: str
    remedy: str
    source: str
    date: date


@dataclass(frozen=True, slots=True)
class Eligibility:
    """All rules on one device in one month."""

    device: str
    month: Month
    rules: str
    outcomes: tuple[RuleOutcome, ...]

    @property
    def eligible(self) -> bool:
        """Whether every rule holds that applies."""
        return not self.failed

    @property
    def failed(self) -> tuple[RuleOutcome, ...]:
        """The rules that do not hold."""
        return tuple(item for item in self.outcomes if item.outcome is Outcome.FAILS)


def judge(device: Device, month: Month, *, rules: RuleSet, calendar: Calendar, policy: Policy | None) -> Eligibility:
    """Ask every rule, whatever the others say.

    Args:
        device: Which device.
        month: Whose hotpatch; a baseline month has none, and that is told as a rule that fails.
        rules: Of the service.
        calendar: Says which baseline the month's hotpatch is for.
        policy: The one that may cover the device; ``None`` assumes one that covers it and allows hotpatch.
    """
    baseline = calendar.baseline_of(month)
    answers = _facts(device, policy)
    asked = [_ask(rule, device, answers[rule.fact], baseline, waits=calendar.kind(month).restarts) for rule in rules.rule]
    return Eligibility(device.name, month, rules.name, (_month(month, rules, calendar), _processor(device, month, rules), *asked))


def _facts(device: Device, policy: Policy | None) -> dict[Fact, str]:
    return {
        Fact.PRODUCT: device.product,
        Fact.EDITION: device.edition,
        Fact.VERSION: device.version,
        Fact.BUILD: str(device.build),
        Fact.LICENCE: device.licence,
        Fact.BASELINE: str(device.baseline),
        Fact.MANAGED_BY: device.managed_by,
        Fact.POLICY: _policy_fact(device, policy),
        Fact.VBS: "on" if device.virtualization_based_security else "off",
        Fact.ARM64_OPT_IN: _opt_in(device),
    }


def _policy_fact(device: Device, policy: Policy | None) -> str:
    if policy is None or (policy.covers(device) and policy.hotpatch == "allow"):
        return "allows hotpatch"
    return f"{policy.name} blocks hotpatch" if policy.covers(device) else f"{policy.name} is not assigned to it"


def _opt_in(device: Device) -> str:
    choice = device.arm64
    if choice is None or not (choice.csp_policy or choice.hot_patch_restrictions):
        return "none"
    if choice.csp_policy:
        return "CSP policy"
    return "registry, restarted" if choice.restarted else "registry, not restarted since"


def _ask(rule: RuleEntry, device: Device, found: str, baseline: Month, *, waits: bool) -> RuleOutcome:
    """Ask one rule; while the month's own baseline is still to come (``waits``), none is asked for."""
    if device.processor not in rule.applies_to or (waits and rule.check is Check.CURRENT):
        outcome = Outcome.NOT_APPLICABLE
    else:
        outcome = Outcome.HOLDS if _holds(rule, device, found, baseline) else Outcome.FAILS
    reason = remedy = ""
    if outcome is Outcome.FAILS:
        value = str(baseline) if rule.check is Check.CURRENT else ", ".join(rule.value)
        newer = rule.check is Check.CURRENT and device.baseline > baseline and rule.remedy_newer
        reason, remedy = (_filled(text, found, value) for text in (rule.reason, newer or rule.remedy))
    return RuleOutcome(rule.id, outcome, rule.requires, found, reason, remedy, rule.source, rule.date)


def _holds(rule: RuleEntry, device: Device, found: str, baseline: Month) -> bool:
    match rule.check:
        case Check.ONE_OF:
            return found in rule.value
        case Check.AT_LEAST:
            return Build.parse(found) >= Build.parse(rule.value[0])
        case Check.CURRENT:
            return device.baseline == baseline


def _month(month: Month, rules: RuleSet, calendar: Calendar) -> RuleOutcome:
    """Whether the month has a hotpatch at all."""
    kind = calendar.kind(month)
    reason = f"{month} is {'an unplanned baseline' if kind is MonthKind.UNPLANNED else 'a baseline month'}" if kind.restarts else ""
    remedy = f"take its update and restart; the next hotpatch month is {calendar.next_hotpatch(month)}" if reason else ""
    return RuleOutcome(
        MONTH_RULE,
        Outcome.FAILS if reason else Outcome.HOLDS,
        "a hotpatch month",
        f"{month}, {kind}",
        reason,
        remedy,
        rules.calendar.source,
        rules.calendar.date,
    )


def _processor(device: Device, month: Month, rules: RuleSet) -> RuleOutcome:
    """Whether the service is there for the processor by the month's release day."""
    there = ", ".join(f"{entry.processor.value} ({entry.state} since {entry.date})" for entry in rules.availability)
    entry = rules.availability_for(device.processor)
    reason = remedy = ""
    if entry is None:
        reason, remedy = f"there is no hotpatching for {device.processor}", "take the standard update"
    elif month.release_day < entry.date:
        reason = f"hotpatching for {device.processor} began on {entry.date}, and the month's updates came on {month.release_day}"
        remedy = "take the standard update of that month"
    return RuleOutcome(
        PROCESSOR_RULE,
        Outcome.FAILS if reason else Outcome.HOLDS,
        f"a processor that is served: {there}",
        f"{device.processor}: {entry.state}" if entry else device.processor.value,
        reason,
        remedy,
        entry.source if entry else rules.availability[0].source,
        entry.date if entry else rules.availability[0].date,
    )


def _filled(text: str, found: str, value: str) -> str:
    return text.replace("{found}", found).replace("{value}", value)
