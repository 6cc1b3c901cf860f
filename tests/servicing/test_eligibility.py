"""The rules on the shipped example devices: for every rule one that passes and one that fails, and all outcomes are told."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from hotpatch.arch import Machine
from hotpatch.errors import InputError
from hotpatch.servicing.calendar import Calendar
from hotpatch.servicing.device import read_device, read_devices
from hotpatch.servicing.eligibility import Eligibility, Outcome, judge
from hotpatch.servicing.policy import read_policy
from hotpatch.servicing.rules import DEFAULT, read_rules, rule_set_names
from hotpatch.servicing.rules import FOLDER as RULES
from hotpatch.servicing.values import Month
from tests.servicing.conftest import FOLDER

FEBRUARY = Month(2026, 2)
EXPECTED = {
    "all-rules-hold-arm64": "",
    "all-rules-hold-x64": "",
    "arm64-not-opted-in": "arm64-opt-in",
    "arm64-not-restarted": "arm64-opt-in",
    "arm64-opted-in-by-policy": "",
    "baseline-missed": "baseline",
    "baseline-passed": "baseline",
    "build-as-decimal-trap": "build",
    "build-exact": "",
    "build-later": "",
    "build-too-old": "build",
    "edition-pro": "edition",
    "licence-365-enterprise": "",
    "licence-education-a3": "",
    "licence-education-a5": "",
    "licence-enterprise-e5": "",
    "licence-enterprise-f3": "",
    "licence-pro": "licence",
    "managed-by-nobody": "managed",
    "many-faults": "edition build licence baseline managed virtualization-based-security arm64-opt-in",
    "policy-not-assigned": "policy",
    "product-server": "product",
    "vbs-off": "virtualization-based-security",
    "version-23h2": "version build",
}


def ask(name: str, month: Month = FEBRUARY, calendar: Calendar | None = None, rules: str = DEFAULT) -> Eligibility:
    device = read_device(FOLDER / "devices" / f"{name}.toml")
    policy = read_policy(FOLDER / "policies" / "hotpatch.toml")
    return judge(device, month, rules=read_rules(rules), calendar=calendar or Calendar(), policy=policy)


def test_the_table_is_of_all_shipped_devices() -> None:
    assert sorted(EXPECTED) == sorted(path.stem for path in (FOLDER / "devices").glob("*.toml"))
    assert [device.name for device in read_devices(FOLDER / "devices")] == sorted(EXPECTED)


@pytest.mark.parametrize(("name", "failing"), EXPECTED.items())
def test_exactly_the_rules_fail_that_the_example_is_for(name: str, failing: str) -> None:
    verdict = ask(name)
    assert [item.rule for item in verdict.failed] == failing.split()
    assert verdict.eligible == (not failing)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_rule_is_asked_and_every_failure_has_reason_and_remedy(name: str) -> None:
    verdict = ask(name)
    assert [item.rule for item in verdict.outcomes] == ["month", "processor", *(rule.id for rule in read_rules().rule)]
    for item in verdict.outcomes:
        assert item.requires
        assert item.source.startswith("Microsoft")
        assert item.date >= date(2025, 4, 2)
        assert bool(item.reason) == bool(item.remedy) == (item.outcome is Outcome.FAILS)
        assert "{" not in item.reason + item.remedy


@pytest.mark.parametrize("rule", [rule.id for rule in read_rules().rule])
def test_every_rule_has_an_example_that_passes_and_one_that_fails(rule: str) -> None:
    found = {item.outcome for name in EXPECTED for item in ask(name).outcomes if item.rule == rule}
    assert {Outcome.HOLDS, Outcome.FAILS} <= found


def test_rules_that_are_for_other_processors_do_not_apply() -> None:
    outcomes = {item.rule: item.outcome for item in ask("all-rules-hold-x64").outcomes}
    assert outcomes.pop("arm64-opt-in") is Outcome.NOT_APPLICABLE
    assert set(outcomes.values()) == {Outcome.HOLDS}


@pytest.mark.parametrize(
    ("month", "failing"),
    [
        ("2025-03", "processor baseline"),
        ("2026-01", "month"),
        ("2026-02", ""),
        ("2026-03", ""),
        ("2026-04", "month"),
        ("2026-05", "baseline"),
    ],
)
def test_the_month_counts(month: str, failing: str) -> None:
    assert [item.rule for item in ask("all-rules-hold-x64", Month.parse(month)).failed] == failing.split()


def test_after_an_unplanned_baseline_that_one_is_wanted() -> None:
    calendar = Calendar.with_unplanned([FEBRUARY])
    assert [item.rule for item in ask("all-rules-hold-x64", FEBRUARY, calendar).failed] == ["month"]
    (failed,) = ask("all-rules-hold-x64", Month(2026, 3), calendar).failed
    assert (failed.rule, failed.found) == ("baseline", "2026-01")
    assert "2026-02" in failed.reason
    assert ask("baseline-passed", Month(2026, 3), calendar).eligible


def test_who_is_ahead_of_the_baseline_is_told_to_wait() -> None:
    (failed,) = ask("baseline-passed").failed
    assert "before the next baseline month" in failed.remedy


def test_a_later_state_of_the_service_is_an_edit(tmp_path: Path) -> None:
    """Arm64 without an opt-in, generally available from a later day on."""
    text = (RULES / f"{DEFAULT}.toml").read_text(encoding="utf-8")
    head, _, rest = text.partition('[[rule]]\nid = "arm64-opt-in"')
    assert rest
    preview = 'state = "public preview, with an opt-in"\ndate = 2025-04-02'
    changed = head.replace(preview, 'state = "generally available"\ndate = 2026-03-01')
    path = tmp_path / "later.toml"
    path.write_text(changed, encoding="utf-8")
    assert [item.rule for item in ask("arm64-not-opted-in", FEBRUARY, rules=str(path)).failed] == ["processor"]
    assert ask("arm64-not-opted-in", Month(2026, 3), rules=str(path)).eligible


def test_a_processor_that_is_not_served(tmp_path: Path) -> None:
    text = (RULES / f"{DEFAULT}.toml").read_text(encoding="utf-8")
    head, _, rest = text.partition('[[availability]]\nprocessor = "arm64"')
    path = tmp_path / "earlier.toml"
    path.write_text(head + "[[rule]]" + rest.partition("[[rule]]")[2], encoding="utf-8")
    assert read_rules(str(path)).availability_for(Machine.ARM64) is None
    failed = ask("all-rules-hold-arm64", rules=str(path)).failed
    assert [item.rule for item in failed] == ["processor"]


def test_shipped_rule_sets() -> None:
    assert rule_set_names() == (DEFAULT,)
    with pytest.raises(InputError, match="there are: windows-11-enterprise-24h2"):
        read_rules("windows-server-2025")
