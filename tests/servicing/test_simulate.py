"""The shipped scenarios, lived through: what the issue of the service promises, measured."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from hotpatch.errors import HotpatchError, Rule
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


def written(folder: Path, name: str, devices: str, policy: str = "hotpatch", **changes: str) -> str:
    """A scenario like ``january-to-april`` with other devices (text of the list), months or policy; the path of its file."""
    keys = {"first": "2026-01", "last": "2026-04"} | changes
    path = folder / f"{name}.toml"
    path.write_text(
        f'title = "{name}"\nrules = "windows-11-enterprise-24h2"\npolicy = "{FOLDER}/policies/{policy}.toml"\n'
        f'first = "{keys["first"]}"\nlast = "{keys["last"]}"\ndevices = [{devices}]\nclients = ["alice", "bob"]\n{keys.get("more", "")}',
        encoding="utf-8",
    )
    return str(path)


def shipped(*names: str) -> str:
    return ", ".join(f'"{FOLDER}/scenarios/devices/{name}.toml"' for name in names)


def test_after_a_failed_hotpatch_standard_updates_come_until_the_next_baseline(tmp_path: Path) -> None:
    """On both processors, in the first hotpatch month: there is nothing to uninstall, and March's hotpatch is for another baseline."""
    incident = "".join(
        f'[[incident]]\ndevice = "{device}"\nmonth = "2026-02"\nkind = "foreign-hook"\nfunction = "set_name"\n' for device in DEVICES
    )
    simulation = simulate(read_scenario(written(tmp_path, "failed", shipped(*DEVICES), more=incident), FOLDER))
    for device in DEVICES:
        months = life(simulation, device).months
        assert [month.brings for month in months] == [Brings.BASELINE, Brings.HOTPATCH, Brings.STANDARD, Brings.BASELINE]
        assert [month.restarts for month in months] == [1, 1, 1, 1]
        assert [event.details["count"] for event in events(simulation, device, What.UNINSTALL)] == [0]
        (refused,) = events(simulation, device, What.REFUSED)
        assert [(item.rule, item.function) for item in refused.refusals] == [(Rule.FOREIGN_HOOK, "set_name")]


def test_a_device_that_has_taken_a_hotpatch_before_begins_with_it(tmp_path: Path) -> None:
    device = (FOLDER / "scenarios" / "devices" / "arm.toml").read_text(encoding="utf-8")
    device = device.replace("2025-10", "2026-01").replace("2025-12", "2026-02").replace("26100.9000", "26100.9002")
    (tmp_path / "device.toml").write_text(device, encoding="utf-8")
    path = written(tmp_path, "later", f'"{tmp_path}/device.toml"', first="2026-03", last="2026-03")
    simulation = simulate(read_scenario(path, FOLDER))
    (month,) = simulation.lives[0].months
    assert (month.brings, month.restarts, month.process, month.days_exposed) == (Brings.HOTPATCH, 0, 1, 0)
    (hotpatch,) = events(simulation, "arm", What.HOTPATCH)
    assert hotpatch.details["sequence"] == 2
    assert simulation.equivalent


def test_more_clients_than_the_server_has_room_for(tmp_path: Path) -> None:
    path = Path(written(tmp_path, "crowd", shipped("ada")))
    crowd = ", ".join(f'"c{number}"' for number in range(9))
    path.write_text(path.read_text(encoding="utf-8").replace('"alice", "bob"', crowd), encoding="utf-8")
    with pytest.raises(HotpatchError, match="the server gives c8 no session"):
        simulate(read_scenario(str(path), FOLDER))


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
    (only,) = simulate(read_scenario(written(tmp_path, "blocked", shipped("ada"), "standard", last="2026-03"), FOLDER)).lives
    assert [month.restarts for month in only.months] == [1, 1, 1]
    assert not only.hotpatched


def test_a_ring_that_waits_is_exposed_as_long(tmp_path: Path) -> None:
    simulation = simulate(read_scenario(written(tmp_path, "ring", shipped("arm"), "rings", last="2026-02"), FOLDER))
    assert [month.days_exposed for month in simulation.lives[0].months] == [10, 7]
