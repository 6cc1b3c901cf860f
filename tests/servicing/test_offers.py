"""What a policy brings to its devices."""

from __future__ import annotations

from datetime import date

import pytest

from hotpatch.servicing.calendar import Calendar
from hotpatch.servicing.device import read_devices
from hotpatch.servicing.offers import Brings, Offer, offer
from hotpatch.servicing.policy import read_policy
from hotpatch.servicing.rules import read_rules
from hotpatch.servicing.values import Month
from tests.servicing.conftest import FOLDER
from tests.servicing.test_eligibility import EXPECTED

H, S, B, N = Brings.HOTPATCH, Brings.STANDARD, Brings.BASELINE, Brings.NOTHING
NEVER = {"policy-not-assigned": N}
IN_FEBRUARY = {name: S if failing else H for name, failing in EXPECTED.items()} | NEVER | {"baseline-missed": B, "baseline-passed": N}


def offers(policy: str, month: str, unplanned: str = "") -> dict[str, Offer]:
    calendar = Calendar.with_unplanned([Month.parse(unplanned)] if unplanned else [])
    devices = read_devices(FOLDER / "devices")
    made = offer(read_policy(FOLDER / "policies" / f"{policy}.toml"), devices, Month.parse(month), rules=read_rules(), calendar=calendar)
    assert [item.device for item in made] == [device.name for device in devices]
    return {item.device: item for item in made}


def brings(policy: str, month: str, unplanned: str = "") -> dict[str, Brings]:
    return {name: item.brings for name, item in offers(policy, month, unplanned).items()}


def test_a_hotpatch_month() -> None:
    assert brings("hotpatch", "2026-02") == IN_FEBRUARY


def test_who_started_from_a_later_update_has_to_restart_until_the_next_baseline() -> None:
    assert brings("hotpatch", "2026-03")["baseline-passed"] is S
    assert brings("hotpatch", "2026-03")["all-rules-hold-arm64"] is H


@pytest.mark.parametrize(("month", "unplanned"), [("2026-04", ""), ("2026-03", "2026-03")])
def test_in_a_baseline_month_everybody_restarts(month: str, unplanned: str) -> None:
    found = brings("hotpatch", month, unplanned)
    assert {name for name, what in found.items() if what is N} == {"policy-not-assigned"}
    assert {name for name, what in found.items() if what is S} == {
        name for name, failing in EXPECTED.items() if set(failing.split()) - {"baseline", "policy"}
    }
    assert H not in found.values()


def test_a_policy_that_blocks_brings_nobody_a_hotpatch() -> None:
    found = offers("standard", "2026-02")
    assert {item.brings for item in found.values()} == {S, N}
    assert "blocks hotpatch" in found["all-rules-hold-x64"].reason


def test_what_is_in_force_is_not_offered_again() -> None:
    assert brings("hotpatch", "2026-01")["all-rules-hold-x64"] is N
    assert brings("hotpatch", "2026-01")["baseline-missed"] is B


def test_every_offer_tells_why_and_when() -> None:
    for item in offers("hotpatch", "2026-02").values():
        assert item.reason
        assert (item.install_on is None) == (item.brings is N)
        assert (item.restart_on is None) == (item.brings in (H, N))
        assert item.install_on in (None, date(2026, 2, 10))
        assert item.restart_on in (None, date(2026, 2, 15))
        assert len(item.eligibility.outcomes) == len(read_rules().rule) + 2


def test_rings_defer_and_exclusions_hold() -> None:
    found = offers("rings", "2026-02")
    assert found["all-rules-hold-x64"].install_on == date(2026, 2, 17)
    assert found["edition-pro"].restart_on == date(2026, 2, 20)
    assert found["policy-not-assigned"].install_on == date(2026, 2, 10)
    assert (found["policy-not-assigned"].brings, found["vbs-off"].brings) == (H, N)
