"""Patches of DLLs that a program loads while it runs, and what is said of those that never came in."""

from __future__ import annotations

import shutil
from pathlib import Path

from hotpatch.arch import Machine
from hotpatch.cases import find_case
from tests.cli.front import Ask

LATE = find_case("late-module")


def hosted(machine: Machine, *more: object) -> tuple[object, ...]:
    return "run", LATE.host(machine), "base.dll", "--available", LATE.image(machine), *more


def test_a_patch_for_a_dll_that_comes_later(ask: Ask, patch, machine) -> None:
    (program,) = LATE.manifest.hosted
    assert ask(*hosted(machine), "--json").document("run")["output"] == program.before.output
    answer = ask(*hosted(machine), "--patch", patch("late-module", machine), "--json")
    assert (answer.code, answer.err) == (0, "")
    found = answer.document("run")
    assert found["output"] == program.patched.output
    kinds = [event["kind"] for event in found["events"]]
    order = [kind for kind in kinds if kind in {"load", "unload", "register", "apply"}]
    assert order == ["load", "register", "load", "apply", "register", "unload", "load", "apply"]
    loaded, applied = (next(event for event in found["events"] if event["kind"] == kind and event["at"]) for kind in ("load", "apply"))
    assert (loaded["at"], loaded["module"], applied["at"], applied["module_va"]) == (applied["at"], "base.dll", loaded["at"], loaded["va"])
    assert [row["state"] for row in found["status"]["patches"]] == ["applied"]
    waits = ask(*hosted(machine), "--patch", patch("late-module", machine), "--stop-at", "100", "--json").document("run")
    (waiting,) = waits["status"]["registered"]
    assert (waiting["state"], waiting["module"], waiting["sequence"], waiting["refusals"]) == ("registered", "base.dll", 1, [])


def test_a_patch_waits_from_any_instruction_on_and_can_be_called_off(ask: Ask, patch, machine) -> None:
    fix = patch("late-module", machine)
    (program,) = LATE.manifest.hosted
    late = ask(*hosted(machine), "--patch", f"{fix}@100", "--json").document("run")
    assert next(event["at"] for event in late["events"] if event["kind"] == "register") == 100
    assert late["output"] == program.patched.output
    off = ask(*hosted(machine), "--patch", fix, "--revert", f"{fix}@100", "--json").document("run")
    assert off["output"] == program.before.output
    assert [event["why"] for event in off["events"] if event["kind"] == "register"] == ["not-loaded", "called-off"]
    stopped = ask(*hosted(machine), "--patch", fix, "--stop-at", "100").out
    assert f"{Path(fix).name}, sequence 1: registered, waits for base.dll" in stopped


def test_another_build_is_loaded_unpatched_and_ends_with_a_refusal(ask: Ask, patch, machine, tmp_path: Path) -> None:
    """The base's build is what the patch is for; the one that is loaded in its place has only the name."""
    (tmp_path / "there").mkdir()
    other = shutil.copy(LATE.image(machine, "fixed"), tmp_path / "there" / "base.dll")
    answer = ask(
        "run", LATE.host(machine), "base.dll", "--available", other, "--patch", patch("late-module", machine), "--json"
    )  # no available file is its base: it is refused at once
    assert answer.code == 4
    assert [refusal["rule"] for refusal in answer.document("run")["refused"]] == ["module-not-loaded"]


def test_a_call_loads_too(ask: Ask, patch, machine) -> None:
    """The program's own main function, called: it loads, prints and ends the process."""
    answer = ask("call", LATE.host(machine), "start", "--available", LATE.image(machine), "--patch", patch("late-module", machine))
    assert answer.code != 0  # its command line names no DLL: it ends the process in the middle of the call


def test_what_never_went_in_is_said(ask: Ask, patch, machine) -> None:
    fix = patch("late-module", machine)
    answer = ask("run", LATE.host(machine), "other.dll", "--available", LATE.image(machine), "--patch", fix)
    assert answer.code == 0
    assert f"warning: {Path(fix).name} never went in: the program did not load base.dll" in answer.err


def test_a_file_that_cannot_be_loaded_is_bad_input(ask: Ask, image, machine) -> None:
    answer = ask("run", LATE.host(machine), "base.dll", "--available", image("many-threads", machine))
    assert answer.code == 2
    assert "is no DLL" in answer.err


def test_a_transition_that_never_ends_is_said(ask: Ask, image, patch, machine) -> None:
    """The service loop is patched and never left: the program ends first. With a bound it is given up, and who kept it is named."""
    fix = patch("never-quiescent", machine)
    command = "run", image("never-quiescent", machine), "--patch", f"{fix}@1500", "--consistency", "per-thread"
    answer = ask(*command)
    assert answer.code == 0
    assert answer.err == (
        f"hotpatch: warning: {Path(fix).name} is still in-transition (apply since instruction 1500): the program ended before its threads "
        "had left the code that was in force\n"
    )
    given_up = ask(*command, "--wait", "200")
    assert "refused not-quiescent  serve" in given_up.out
    assert given_up.code == 4


def test_the_refusal_says_whether_waiting_could_end(ask: Ask, image, patch, machine) -> None:
    inside = set()
    for at in (500, 600, 700, 900, 1200):
        command = (
            "run",
            image("never-quiescent", machine),
            "--patch",
            f"{patch('never-quiescent', machine)}@{at}",
            "--consistency",
            "quiescent",
        )
        (refusal,) = ask(*command, "--json").document("run")["refused"]
        (holder,) = refusal["evidence"]["holders"]
        assert holder["stack"][-2:] == ["serve", "server"]
        assert f"thread {holder['thread']} in {holder['function']} ({' ← '.join(holder['stack'])}); " in refusal["reason"]
        assert (holder["reachable"], holder["endless"]) == (False, "serve")
        assert "the code of serve never returns from there" in refusal["reason"]
        inside.add(holder["function"])
        (refusal,) = ask(*command, "--wait", "1", "--json").document("run")["refused"]
        assert (refusal["rule"], refusal["evidence"]["reachable"], refusal["evidence"]["endless"]) == ("not-quiescent", False, "serve")
    assert inside >= {"serve", "visit"}


def test_a_patch_that_still_waits_when_the_program_ends_is_refused(ask: Ask, image, patch, machine) -> None:
    """With `quiescent` nothing of it has been done, so the program has run unpatched."""
    fix = patch("never-quiescent", machine)
    command = "run", image("never-quiescent", machine), "--patch", f"{fix}@600", "--consistency", "quiescent"
    answer = ask(*command, "--json")
    found = answer.document("run")
    (refusal,) = found["refused"]
    assert (answer.code, answer.err, found["exit_code"], refusal["rule"]) == (4, "", 0, "not-reached")
    assert refusal["evidence"]["holders"] == next(event["holders"] for event in found["events"] if event["kind"] == "wait")
    assert f"thread {refusal['evidence']['holders'][0]['thread']} in " in refusal["reason"]
    (change,) = found["status"]["changes"]
    assert (change["state"], change["since"], refusal["evidence"]["at"]) == ("waiting", 600, 600)
    stopped = ask(*command, "--stop-at", "99999999")
    assert (stopped.code, "is still waiting (apply since instruction 600)" in stopped.err) == (0, True)
