"""The shipped scenarios, lived through: what the issue of the service promises, measured."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from hotpatch.errors import Rule
from hotpatch.servicing.calendar import MonthKind
from hotpatch.servicing.offers import Brings
from hotpatch.servicing.results import DeviceLife, Event, Simulation, What
from hotpatch.servicing.scenario import read_scenario, scenario_names
from hotpatch.servicing.simulate import simulate
from tests.servicing.conftest import FOLDER

Lived = Callable[[str], Simulation]
DEVICES = ("ada", "arm")
each_device = pytest.mark.parametrize("device", DEVICES)


def life(simulation: Simulation, device: str) -> DeviceLife:
    return next(item for item in simulation.lives if item.device == device)


def events(simulation: Simulation, device: str | None, *kinds: What) -> list[Event]:
    return [event for event in simulation.timeline if event.device == device and (not kinds or event.what in kinds)]


def test_shipped_scenarios() -> None:
    assert scenario_names(FOLDER) == ("failed-hotpatch", "january-to-april", "missed-baseline", "unplanned-baseline", "year")


# January to April -------------------------------------------------------------------------------------------------------------------------


def test_one_of_each_processor_and_a_twin_beside_it(lived: Lived) -> None:
    found = lived("january-to-april").lives
    assert [(item.device, item.processor.value, item.hotpatched) for item in found] == [
        ("ada", "x64", True),
        ("ada-twin", "x64", False),
        ("arm", "arm64", True),
        ("arm-twin", "arm64", False),
    ]


@each_device
def test_the_device_restarts_in_january_and_april_only(lived: Lived, device: str) -> None:
    months = life(lived("january-to-april"), device).months
    assert [month.brings for month in months] == [Brings.BASELINE, Brings.HOTPATCH, Brings.HOTPATCH, Brings.BASELINE]
    assert [month.restarts for month in months] == [1, 0, 0, 1]
    assert [month.process for month in months] == [2, 2, 2, 3]


@each_device
def test_the_twin_restarts_every_month(lived: Lived, device: str) -> None:
    months = life(lived("january-to-april"), f"{device}-twin").months
    assert {month.brings for month in months} == {Brings.STANDARD}
    assert [month.restarts for month in months] == [1, 1, 1, 1]
    assert [month.process for month in months] == [2, 3, 4, 5]


@each_device
def test_sessions_survive_hotpatches_and_no_restart(lived: Lived, device: str) -> None:
    simulation = lived("january-to-april")
    assert [month.sessions_dropped for month in life(simulation, device).months] == [2, 0, 0, 2]
    assert [month.sessions_dropped for month in life(simulation, f"{device}-twin").months] == [2, 2, 2, 2]
    first, second = events(simulation, device, What.HOTPATCH)
    assert first.details["sessions"].keys() == second.details["sessions"].keys() == {"alice", "bob"}
    assert all(first.details["sessions"][name] < second.details["sessions"][name] for name in ("alice", "bob"))


@each_device
def test_the_counter_of_requests_goes_on_through_the_hotpatches(lived: Lived, device: str) -> None:
    served = [month.served for month in life(lived("january-to-april"), device).months]
    assert served[0] < served[1] < served[2] > served[3]


@each_device
def test_hotpatches_are_numbered_and_cumulative_since_january(lived: Lived, device: str) -> None:
    first, second = events(lived("january-to-april"), device, What.HOTPATCH)
    assert (first.details["sequence"], first.details["functions"]) == (1, ["set_name"])
    assert (second.details["sequence"], second.details["functions"]) == (2, ["set_name", "part"])
    assert (first.day, second.day) == (date(2026, 2, 10), date(2026, 3, 10))


@each_device
def test_days_exposed(lived: Lived, device: str) -> None:
    """Five days to a restart (deadline 3, grace 2), none to a hotpatch: counted by the attacks that worked."""
    simulation = lived("january-to-april")
    assert [month.days_exposed for month in life(simulation, device).months] == [5, 0, 0, 5]
    assert [month.days_exposed for month in life(simulation, f"{device}-twin").months] == [5, 5, 5, 5]


@pytest.mark.parametrize("device", ["ada", "ada-twin", "arm", "arm-twin"])
def test_there_is_an_attack_every_day_after_disclosure(lived: Lived, device: str) -> None:
    assert [month.attacks for month in life(lived("january-to-april"), device).months] == [19, 28, 31, 30]
    withstood = events(lived("january-to-april"), device, What.WITHSTOOD)
    assert [event.details["attack"] for event in withstood] == ["2026-01", "2026-02", "2026-03", "2026-04"]


@each_device
def test_what_attacks_got_before_and_after(lived: Lived, device: str) -> None:
    simulation = lived("january-to-april")
    hit = {event.details["attack"] for event in events(simulation, device, What.ATTACKED)}
    twin = {event.details["attack"] for event in events(simulation, f"{device}-twin", What.ATTACKED)}
    assert hit == {"2026-01", "2026-04"}
    assert twin == {"2026-01", "2026-02", "2026-03", "2026-04"}


def test_after_each_hotpatch_month_the_servers_answer_the_same(lived: Lived) -> None:
    found = lived("january-to-april").equivalence
    assert [(item.device, str(item.month)) for item in found] == [
        ("ada", "2026-02"),
        ("ada", "2026-03"),
        ("arm", "2026-02"),
        ("arm", "2026-03"),
    ]
    assert all(item.same and item.hostile > 20 for item in found)


def test_the_same_seed_gives_the_same_and_another_seed_the_same_figures(lived: Lived) -> None:
    scenario = "missed-baseline"
    once = lived(scenario)
    assert simulate(read_scenario(scenario, FOLDER)) == once
    other = simulate(read_scenario(scenario, FOLDER), seed=1)
    assert other != once
    assert other.equivalent
    for one, two in zip(once.lives, other.lives, strict=True):
        assert (one.restarts, one.sessions_dropped, one.days_exposed) == (two.restarts, two.sessions_dropped, two.days_exposed)


# what goes otherwise ----------------------------------------------------------------------------------------------------------------------


def test_who_missed_the_baseline_gets_it_first_then_the_hotpatch(lived: Lived) -> None:
    simulation = lived("missed-baseline")
    assert [month.brings for month in life(simulation, "arm").months] == [Brings.BASELINE, Brings.BASELINE, Brings.HOTPATCH]
    story = [event for event in events(simulation, "arm") if event.what in (What.MISSED, What.RESTART, What.HOTPATCH)]
    assert [(event.what, event.day) for event in story] == [
        (What.MISSED, date(2026, 1, 13)),
        (What.RESTART, date(2026, 2, 15)),
        (What.HOTPATCH, date(2026, 2, 15)),
        (What.HOTPATCH, date(2026, 3, 10)),
    ]
    assert story[1].details["month"] == "2026-01"
    assert [month.restarts for month in life(simulation, "arm").months] == [0, 1, 0]
    assert life(simulation, "arm").days_exposed == (date(2026, 2, 15) - date(2026, 1, 13)).days
    assert simulation.equivalent


def test_a_fix_that_the_builder_refuses_makes_an_unplanned_baseline(lived: Lived) -> None:
    simulation = lived("unplanned-baseline")
    assert [row.kind for row in simulation.calendar] == [
        MonthKind.BASELINE,
        MonthKind.HOTPATCH,
        MonthKind.UNPLANNED,
        MonthKind.BASELINE,
    ]
    told = events(simulation, None, What.UNPLANNED)
    assert [event.details["machine"] for event in told] == ["arm64", "x64"]
    for event in told:
        refusal = event.refusals[0]
        assert (refusal.rule, refusal.function) == (Rule.DATA_LAYOUT, "store")
        assert refusal.reason in event.text
    for device in DEVICES:
        assert [month.restarts for month in life(simulation, device).months] == [1, 0, 1, 1]
        assert [month.days_exposed for month in life(simulation, device).months] == [5, 0, 5, 5]


def test_a_hotpatch_that_fails_and_the_way_back(lived: Lived) -> None:
    simulation = lived("failed-hotpatch")
    kinds = (What.HOTPATCH, What.HOOK, What.REFUSED, What.UNINSTALL, What.RESTART)
    march = [event for event in events(simulation, "ada", *kinds) if event.day.month == 3]
    assert [event.what for event in march] == [What.HOOK, What.REFUSED, What.UNINSTALL, What.RESTART]
    refused = march[1]
    assert [(item.rule, item.function) for item in refused.refusals] == [(Rule.FOREIGN_HOOK, "part")]
    assert refused.refusals[0].reason in refused.text
    assert march[2].details["count"] == 1
    assert march[3].details["month"] == "2026-03"
    assert (march[3].day - refused.day).days == 5
    assert [month.days_exposed for month in life(simulation, "ada").months] == [5, 0, 5, 5]
    assert [month.days_exposed for month in life(simulation, "arm").months] == [5, 0, 0, 5]
    assert [month.restarts for month in life(simulation, "ada").months] == [1, 0, 1, 1]
    assert simulation.equivalent


# a year -----------------------------------------------------------------------------------------------------------------------------------


def test_twelve_restarts_become_four(lived: Lived) -> None:
    simulation = lived("year")
    for device in DEVICES:
        assert life(simulation, f"{device}-twin").restarts == 12
        assert life(simulation, device).restarts == 4
        assert life(simulation, device).days_exposed * 3 == life(simulation, f"{device}-twin").days_exposed == 60
        assert len(events(simulation, device, What.HOTPATCH)) == 8
    assert len(simulation.equivalence) == 16
    assert simulation.equivalent


def test_nothing_brings_a_blocked_device_below_twelve(tmp_path: Path) -> None:
    """The four comes from what the policy brings: where it blocks hotpatches, the same device restarts every month."""
    text = (FOLDER / "scenarios" / "january-to-april.toml").read_text(encoding="utf-8")
    text = text.replace("../policies/hotpatch.toml", str(FOLDER / "policies" / "standard.toml"))
    devices = text[text.index("devices = [") : text.index("clients")]
    text = text.replace(devices, f'devices = ["{FOLDER}/scenarios/devices/ada.toml"]\n').replace('last = "2026-04"', 'last = "2026-03"')
    path = tmp_path / "blocked.toml"
    path.write_text(text, encoding="utf-8")
    (only,) = simulate(read_scenario(str(path), FOLDER)).lives
    assert [month.restarts for month in only.months] == [1, 1, 1]
    assert not only.hotpatched


def test_a_ring_that_waits_is_exposed_as_long(tmp_path: Path) -> None:
    text = (FOLDER / "scenarios" / "january-to-april.toml").read_text(encoding="utf-8")
    text = text.replace("../policies/hotpatch.toml", str(FOLDER / "policies" / "rings.toml"))
    devices = text[text.index("devices = [") : text.index("clients")]
    text = text.replace(devices, f'devices = ["{FOLDER}/scenarios/devices/arm.toml"]\n').replace('last = "2026-04"', 'last = "2026-02"')
    path = tmp_path / "ring.toml"
    path.write_text(text, encoding="utf-8")
    simulation = simulate(read_scenario(str(path), FOLDER))
    assert [month.days_exposed for month in simulation.lives[0].months] == [10, 7]
