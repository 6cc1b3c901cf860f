"""The verbs of the service: servicing calendar, eligible, offer, simulate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hotpatch.cli.console import DEFAULT, Options, Output
from hotpatch.cli.files import path_of
from hotpatch.cli.numbers import Integer, Year
from hotpatch.cli.outcome import Exit
from hotpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.servicing.calendar import Calendar

Many = Parameter(negative=(), consume_multiple=False)


def calendar(
    year: Year = 2026, /, *, unplanned: Annotated[list[str] | None, Many, Parameter(metavar="MONTH")] = None, options: Options = DEFAULT
) -> int:
    """Show which months bring a baseline with a restart and which a hotpatch without, and when.

    Args:
        year: Nothing looks at a clock: without a year it is 2026, the first whole one after general availability.
        unplanned: This hotpatch month of the year, such as 2026-05, is an unplanned baseline (may be given several times).
        options: Of every verb.
    """
    from hotpatch.report import servicing as report
    from hotpatch.report import servicing_text as text

    months = _calendar(unplanned)
    other = sorted(month for month in months.unplanned if month.year != year)
    if other:
        raise InputError(f"--unplanned {other[0]}", f"is no month of {year}; name one of the year that is shown, or show {other[0].year}")
    document = report.calendar(year, months.year(year))
    Output(options).result(document, text.calendar(document))
    return Exit.DONE


def eligible(
    device: str,
    /,
    *,
    month: Annotated[str | None, Parameter(metavar="MONTH")] = None,
    policy: Annotated[str | None, Parameter(metavar="FILE")] = None,
    rules: Annotated[str, Parameter(metavar="RULES")] = "windows-11-enterprise-24h2",
    unplanned: Annotated[list[str] | None, Many, Parameter(metavar="MONTH")] = None,
    options: Options = DEFAULT,
) -> int:
    """Explain whether one device gets a month's hotpatch: every rule's outcome, reason and remedy.

    Args:
        device: A device's TOML file.
        month: Whose hotpatch; the next hotpatch month after the update that is in force on the device, where not given.
        policy: The quality update policy's TOML file; one that allows hotpatch is assumed where not given.
        rules: A shipped rule set, or a TOML file.
        unplanned: This hotpatch month is an unplanned baseline (may be given several times).
        options: Of every verb.
    """
    from hotpatch.report import servicing as report
    from hotpatch.report import servicing_text as text
    from hotpatch.servicing.device import read_device
    from hotpatch.servicing.eligibility import judge
    from hotpatch.servicing.policy import read_policy
    from hotpatch.servicing.rules import read_rules
    from hotpatch.servicing.values import Month

    known, months = read_device(path_of(device)), _calendar(unplanned)
    chosen = read_policy(path_of(policy)) if policy is not None else None
    when = Month.parse(month) if month is not None else months.next_hotpatch(known.updated)
    verdict = judge(known, when, rules=read_rules(rules), calendar=months, policy=chosen)
    document = report.eligible(verdict, chosen)
    Output(options).result(document, text.eligible(document))
    return Exit.DONE if verdict.eligible else Exit.REFUSED


def offer(
    *,
    policy: Annotated[str, Parameter(metavar="FILE")],
    devices: Annotated[str, Parameter(metavar="DIR")],
    month: Annotated[str | None, Parameter(metavar="MONTH")] = None,
    rules: Annotated[str, Parameter(metavar="RULES")] = "windows-11-enterprise-24h2",
    unplanned: Annotated[list[str] | None, Many, Parameter(metavar="MONTH")] = None,
    options: Options = DEFAULT,
) -> int:
    """Let a quality update policy find for each device whether a month brings the hotpatch, the standard update, or the baseline first.

    Args:
        policy: The policy's TOML file.
        devices: A folder with a TOML file for each device.
        month: Which month; the one after the newest update that is in force on any of the devices, where not given.
        rules: A shipped rule set, or a TOML file.
        unplanned: This hotpatch month is an unplanned baseline (may be given several times).
        options: Of every verb.
    """
    from hotpatch.report import servicing as report
    from hotpatch.report import servicing_text as text
    from hotpatch.servicing.device import read_devices
    from hotpatch.servicing.offers import offer as decide
    from hotpatch.servicing.policy import read_policy
    from hotpatch.servicing.rules import read_rules
    from hotpatch.servicing.values import Month

    chosen, known = read_policy(path_of(policy)), read_devices(path_of(devices))
    when = Month.parse(month) if month is not None else max(device.updated for device in known).next
    months, said = _calendar(unplanned), read_rules(rules)
    offers = decide(chosen, known, when, rules=said, calendar=months)
    document = report.offer(chosen, months.row(when), said.name, offers)
    Output(options).result(document, text.offer(document))
    return Exit.DONE


def simulate(scenario: str = "january-to-april", /, *, seed: Integer = 0, options: Options = DEFAULT) -> int:
    """Let devices live through a scenario: a real server on each, patched or restarted as its policy decides, and attacked.

    Args:
        scenario: A shipped one (january-to-april, year, missed-baseline, unplanned-baseline, failed-hotpatch), or a TOML file.
        seed: Of everything that is left to chance.
        options: Of every verb.
    """
    from hotpatch.cases import fixtures_folder
    from hotpatch.report import servicing as report
    from hotpatch.report import servicing_text as text
    from hotpatch.servicing.scenario import read_scenario
    from hotpatch.servicing.simulate import simulate as live

    out = Output(options)
    with out.progress(f"living through {scenario}"):
        result = live(read_scenario(scenario, fixtures_folder() / "servicing"), seed=seed)
    document = report.simulate(result)
    out.result(document, text.simulate(document))
    return Exit.DONE if result.equivalent else Exit.COUNTEREXAMPLE


def _calendar(unplanned: Sequence[str] | None) -> Calendar:
    from hotpatch.servicing.calendar import Calendar
    from hotpatch.servicing.values import Month

    return Calendar.with_unplanned(Month.parse(text) for text in unplanned or ())
