"""hotpatch demo and cases."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

from hotpatch.arch import Machine
from hotpatch.cases import case_names, find_case
from hotpatch.cases.releases import CVE_2025_69277, extract
from hotpatch.cli import story
from hotpatch.errors import InputError
from tests.cases.sabotage import old_entries_stay
from tests.cli.front import Ask


def test_cases(ask: Ask) -> None:
    found = ask("cases", "--json").document("cases")
    assert tuple(case["name"] for case in found["cases"]) == case_names()
    text = ask("cases").out
    assert [line.split()[0] for line in text.splitlines()[1:]] == list(case_names())
    told = " ".join(text.split())
    assert all(f"{find_case(name).manifest.expect.outcome} {find_case(name).manifest.title}" in told for name in case_names())


def test_demo_tells_of_both_machines(ask: Ask) -> None:
    answer = ask("demo", "--json")
    assert answer.code == 0
    found = answer.document("demo")
    assert (found["case"], found["machines"], found["fixed"]) == ("overflow-check", ["x64", "arm64"], True)
    assert {step["machine"] for step in found["steps"]} == {"x64", "arm64"}


def test_demo_as_text(ask: Ask, machine) -> None:
    answer = ask("demo", "--arch", machine)
    assert (answer.code, answer.err) == (0, "")
    seen = [line for line in answer.out.splitlines() if "←" in line and line.startswith("    │")]
    assert ["bug" in line for line in seen] == [True, False, False, True, True]
    attacks = [line for line in answer.out.splitlines() if "hostile" in line]
    assert [line.split("the ")[1] for line in attacks] == [
        "old code of echo",
        "new code of echo",
        "new code of set_name",
        "old code of echo",
        "old code of set_name",
    ]
    assert "none begun after the patch" in answer.out


def test_demo_whose_bug_is_not_gone(ask: Ask, machine, monkeypatch: pytest.MonkeyPatch) -> None:
    old_entries_stay(monkeypatch)
    answer = ask("demo", "--arch", machine, "--json")
    assert (answer.code, answer.document("demo")["fixed"]) == (5, False)
    answer = ask("demo", "--arch", machine)
    assert (answer.code, answer.err) == (5, "")
    assert "calls of echo meanwhile: 0 took the new code, 2 the old" in answer.out


def test_demo_without_a_bug(ask: Ask, machine) -> None:
    answer = ask("demo", "cosmetic", "--arch", machine, "--json")
    assert (answer.code, answer.document("demo")["fixed"]) == (0, None)


@pytest.mark.release
def test_demo_of_a_release(ask: Ask, machine, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path_factory.getbasetemp() / "wheels"
    try:
        extract(CVE_2025_69277, Machine(machine), cache=cache)
    except InputError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("HOTPATCH_CACHE", str(cache))
    answer = ask("demo", CVE_2025_69277.name, "--arch", machine, "--json")
    found = answer.document("demo")
    assert (answer.code, found["machines"], found["fixed"]) == (0, [machine], True)
    answers = [(step["details"]["patched"], step["details"]["answer"]) for step in found["steps"] if "answer" in step["details"]]
    assert answers == [(False, 1), (False, 1), (True, 1), (True, 0), (False, 1), (False, 1)]


@pytest.mark.parametrize("case", ["basic", "many-threads", "superseded", "cosmetic", "data-layout-refused", "wrong-base-refused"])
def test_demo_of_a_case(ask: Ask, machine, case: str) -> None:
    found = ask("demo", case, "--arch", machine, "--json").document("demo")
    assert (found["case"], found["machines"]) == (case, [machine])
    assert {step["machine"] for step in found["steps"]} == {machine}
    assert ask("demo", case, "--arch", machine).code == 0


def test_step_waits_for_enter_at_each_event(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ask("demo", "--arch", "x64")
    steps = ask("demo", "--arch", "x64", "--json").document("demo")["steps"]
    groups = [kind for kind, _ in groupby(step["kind"] for step in steps)]
    events = sum(kind in ("act", "thread", "write", "request", "call", "end") for kind in groups)
    assert {kind: groups.count(kind) for kind in ("thread", "write", "request", "call", "end")} == {
        "thread": 1,
        "write": 2,
        "request": 6,
        "call": 3,
        "end": 1,
    }
    stepped = ask("demo", "--arch", "x64", "--step", stdin="\n" * 50)
    assert (stepped.code, stepped.out) == (0, plain.out)
    assert stepped.err == ""
    monkeypatch.setattr(story, "_somebody_is_there", lambda: True)
    assert ask("demo", "--arch", "x64", "--step", stdin="\n" * 50).err == "[press Enter] " * events


@pytest.mark.skipif(os.name != "posix", reason="a pseudo terminal is of POSIX")
def test_step_shows_nothing_of_an_event_before_enter() -> None:
    """As somebody at a terminal sees it, in the order of a screen."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "hotpatch", "demo", "basic", "--arch", "x64", "--step", "--color", "never"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as shown:
        os.close(theirs)
        screen, seen = "", []
        while "[press Enter] " in (screen := _until_prompt(ours)):
            seen.append(screen)
            os.write(ours, b"\n")
        assert shown.wait(30) == 0
    os.close(ours)
    assert len(seen) == 8
    assert [("▸" in part, "entry of clamp" in part) for part in seen[1:4]] == [(True, False), (True, False), (False, True)]
    assert screen.splitlines()[-1].startswith("▪")


def _until_prompt(terminal: int) -> str:
    """What a program writes until it waits for Enter, or ends."""
    text = b""
    while not text.endswith(b"[press Enter] "):
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        text += part
    return text.decode()


def test_step_goes_on_when_nobody_answers(ask: Ask) -> None:
    plain = ask("demo", "basic", "--arch", "x64")
    for typed in ("", "\n\n"):
        stepped = ask("demo", "basic", "--arch", "x64", "--step", stdin=typed)
        assert (stepped.code, stepped.out) == (0, plain.out)
        assert stepped.err == ""


def test_case_that_is_not_there(ask: Ask) -> None:
    for typed, hint in (
        ("zzzz", "hotpatch cases lists those that there are"),
        ("overflow", "did you mean overflow-check?"),
        ("new-helpers", "did you mean new-helper or "),
    ):
        answer = ask("demo", typed)
        assert answer.code == 2
        assert answer.error.startswith(f"{typed}: no such case; {hint}")


def test_release_from_an_empty_folder(ask: Ask, tmp_path: Path, machine) -> None:
    answer = ask("demo", CVE_2025_69277.name, "--arch", machine, "--from", tmp_path)
    assert answer.code == 2
    what = f"does not hold {CVE_2025_69277.base[machine].file}; put it there, or name another folder"
    assert answer.error == f"{tmp_path}: {what} [package-unavailable]"


def test_release_from_no_folder(ask: Ask, tmp_path: Path, machine) -> None:
    answer = ask("demo", CVE_2025_69277.name, "--arch", machine, "--from", tmp_path / "no")
    assert answer.code == 2
    assert answer.error.startswith(f"{tmp_path / 'no'}: cannot be read")


def test_release_whose_wheel_is_another_file(ask: Ask, tmp_path: Path, machine) -> None:
    wheel = tmp_path / CVE_2025_69277.base[machine].file
    wheel.write_bytes(b"PK\x05\x06" + bytes(18))
    answer = ask("demo", CVE_2025_69277.name, "--arch", machine, "--from", tmp_path)
    assert answer.code == 2
    assert answer.error.startswith(f"{wheel}: is not the pinned file")


def test_release_without_an_index(ask: Ask, tmp_path: Path, machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTPATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")
    answer = ask("demo", CVE_2025_69277.name, "--arch", machine)
    assert answer.code == 2
    assert answer.error.startswith(CVE_2025_69277.base[machine].file)
    assert "--from" in answer.error


def test_quiet_is_quiet(ask: Ask) -> None:
    for more in ([], ["--step"]):
        found = ask("demo", "basic", "--arch", "x64", "-q", *more)
        assert (found.code, found.out, found.err) == (0, "", "")


@pytest.mark.parametrize("case", ["exception", "interpreter"])
def test_one_thread_is_no_threads(ask: Ask, machine, case: str) -> None:
    answer = ask("demo", case, "--arch", machine)
    assert (answer.code, " 1 threads" in answer.out, " 1 thread" in answer.out) == (0, False, True)
