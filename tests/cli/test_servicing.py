"""``hotpatch servicing`` as users and harnesses see it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from hotpatch.cases import fixtures_folder
from hotpatch.cli.app import SERVICING
from hotpatch.image import Image
from hotpatch.servicing.equivalence import compare
from hotpatch.servicing.releases import Releases
from hotpatch.servicing.results import Equivalence
from hotpatch.servicing.server import Server
from hotpatch.servicing.values import Month
from tests.cli.front import SCHEMAS, Answer, Ask

FOLDER = fixtures_folder() / "servicing"
DEVICE = str(FOLDER / "devices" / "all-rules-hold-x64.toml")
POLICY = str(FOLDER / "policies" / "hotpatch.toml")
COMMANDS = {
    "calendar": ["calendar"],
    "eligible": ["eligible", DEVICE],
    "offer": ["offer", "--policy", POLICY, "--devices", str(FOLDER / "devices"), "--month", "2026-02"],
    "simulate": ["simulate", "unplanned-baseline"],
}


def document(answer: Answer, verb: str) -> dict:
    assert answer.err == ""
    found = json.loads(answer.out)
    Draft202012Validator(json.loads((SCHEMAS / f"servicing-{verb}.json").read_text(encoding="utf-8"))).validate(found)
    assert found["schema"] == f"hotpatch.servicing-{verb}/1"
    return found


def test_every_verb_is_tried() -> None:
    assert list(COMMANDS) == list(SERVICING)


@pytest.mark.parametrize("verb", COMMANDS)
def test_text_and_document_twice_the_same(ask: Ask, verb: str) -> None:
    for form in ([], ["--json"]):
        first, second = (ask("servicing", *COMMANDS[verb], *form) for _ in range(2))
        assert first == second
        assert (first.code, first.err) == (0, "")
    document(second, verb)


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_shows_an_example_that_works(ask: Ask, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = ask("servicing", verb, "--help")
    assert answer.code == 0
    assert answer.out.startswith(f"Usage: hotpatch servicing {verb} {SERVICING[verb][3]}\n")
    assert not {"STR", "STR...", "INT", "ARGS"} & set(answer.out.split())
    example = SERVICING[verb][2]
    assert answer.out.rstrip().splitlines()[-1] == example
    if verb == "simulate":  # takes long; another scenario is run with the other commands
        assert (FOLDER / "scenarios" / f"{example.split()[3]}.toml").is_file()
        return
    monkeypatch.chdir(FOLDER)
    pasted = ask(*shlex.split(example)[1:])
    assert (pasted.code, pasted.err) == (4 if verb == "eligible" else 0, "")


def test_calendar(ask: Ask) -> None:
    found = document(ask("servicing", "calendar", "2027", "--unplanned", "2027-02", "--unplanned", "2027-06", "--json"), "calendar")
    assert [month["month"] for month in found["months"] if month["restart"]] == [f"2027-{n:02}" for n in (1, 2, 4, 6, 7, 10)]
    assert found["restarts"] == 6
    assert "4 restarts in 2026 instead of 12" in ask("servicing", "calendar").out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["calendar", "0"], "0: is no year"),
        (["calendar", "2026", "--unplanned", "2026-04"], "2026-04: is a baseline month anyway"),
        (["calendar", "2026", "--unplanned", "May"], "May: is no month"),
        (["eligible", "nowhere.toml"], "nowhere.toml: No such file or directory"),
        (["eligible", DEVICE, "--month", "2026"], "2026: is no month"),
        (["eligible", DEVICE, "--rules", "none"], "none: no such rules"),
        (["offer", "--policy", POLICY, "--devices", "nowhere"], "nowhere: is no folder"),
        (["simulate", "nowhere"], "nowhere: no such scenario; there are: failed-hotpatch, january-to-april"),
    ],
)
def test_bad_usage(ask: Ask, arguments: list[str], problem: str) -> None:
    answer = ask("servicing", *arguments)
    assert answer.code == 2
    assert answer.error.startswith(problem)


def test_malformed_files_are_told_by_file_line_and_key(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "device.toml"
    path.write_text(Path(DEVICE).read_text(encoding="utf-8").replace('build = "26100.9001"', "build = 26100.9001"), encoding="utf-8")
    answer = ask("servicing", "eligible", path)
    assert answer.code == 2
    assert answer.error.startswith(f'{path}:7: key "build": expected a build as a pair of integers')


def test_who_is_not_eligible_ends_with_4(ask: Ask) -> None:
    many = ask("servicing", "eligible", FOLDER / "devices" / "many-faults.toml", "--policy", POLICY)
    assert many.code == 4
    for rule in ("edition", "build", "licence", "baseline", "managed", "virtualization-based-security", "arm64-opt-in"):
        assert f"\n{rule} is not met: " in many.out
    found = ask("servicing", "eligible", FOLDER / "devices" / "many-faults.toml", "--json")
    assert found.code == 4
    told = document(found, "eligible")
    assert not told["eligible"]
    assert all((rule["reason"] is None) == (rule["remedy"] is None) == (rule["outcome"] != "fails") for rule in told["rules"])


def test_eligible_takes_the_next_hotpatch_month(ask: Ask) -> None:
    found = document(ask("servicing", "eligible", DEVICE, "--json"), "eligible")
    assert (found["month"], found["eligible"], found["policy"]) == ("2026-02", True, None)
    assert "assumed" in ask("servicing", "eligible", DEVICE).out
    baseline = ask("servicing", "eligible", DEVICE, "--month", "2026-04")
    assert (baseline.code, "2026-04 is a baseline month" in baseline.out) == (4, True)


def test_offer(ask: Ask) -> None:
    found = document(ask("servicing", *COMMANDS["offer"], "--json"), "offer")
    brings = {item["device"]: item["brings"] for item in found["offers"]}
    assert brings["all-rules-hold-x64"] == brings["all-rules-hold-arm64"] == "hotpatch"
    assert brings["vbs-off"] == "standard"
    assert brings["baseline-missed"] == "baseline"
    assert brings["policy-not-assigned"] == "nothing"
    unplanned = document(ask("servicing", *COMMANDS["offer"], "--unplanned", "2026-02", "--json"), "offer")
    assert "hotpatch" not in {item["brings"] for item in unplanned["offers"]}
    assert document(ask("servicing", *COMMANDS["offer"][:-2], "--json"), "offer")["month"] == "2026-03"


def test_simulate(ask: Ask) -> None:
    found = document(ask("servicing", "simulate", "--json", "--seed", "7"), "simulate")
    figures = {item["device"]: (item["restarts"], item["sessions_dropped"], item["days_exposed"]) for item in found["devices"]}
    assert figures == {"ada": (2, 4, 10), "ada-twin": (4, 8, 20), "arm": (2, 4, 10), "arm-twin": (4, 8, 20)}
    assert (found["scenario"], found["seed"], found["equivalent"]) == ("january-to-april", 7, True)


def test_a_difference_ends_with_5(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shipped scenario has one; a comparison with the wrong month's update would."""

    def wrong(device: str, month: Month, server: Server, update: Image, releases: Releases, *, seed: int) -> Equivalence:
        return compare(device, month, server, server.process.base, releases, seed=seed)

    monkeypatch.setattr("hotpatch.servicing.life.compare", wrong)
    answer = ask("servicing", "simulate", "unplanned-baseline", "--json")
    assert answer.code == 5
    found = document(answer, "simulate")
    assert not found["equivalent"]
    first = found["equivalence"][0]["difference"]
    assert first["request"].startswith("NAME")
    assert (first["hotpatched"], first["updated"]) == ("ERR too long", "OK")
    assert "different at 'NAME" in ask("servicing", "simulate", "unplanned-baseline").out


def test_simulate_tells_a_story(ask: Ask) -> None:
    text = ask("servicing", "simulate", "failed-hotpatch").out
    for part in (
        "foreign-hook",
        "1 hotpatch uninstalled before the restart",
        "restart into the cumulative update of 2026-03",
        "the same replies",
    ):
        assert part in text


@pytest.mark.parametrize("month", ["2027-02", "2025-11"])
def test_unplanned_month_of_another_year(ask: Ask, month: str) -> None:
    answer = ask("servicing", "calendar", "2026", "--unplanned", "2026-05", "--unplanned", month)
    assert answer.code == 2
    assert answer.error.startswith(f"--unplanned {month}: is no month of 2026; ")
