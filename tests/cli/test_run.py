"""hotpatch run: whole programs, patched and reverted at an instruction, stopped at one."""

from __future__ import annotations

from pathlib import Path

import pytest

from hotpatch.arch import Machine
from hotpatch.cases import find_case
from tests.cli.front import Ask

THREADS = 7
WORKERS = find_case("many-threads").manifest.program[0]
SERVER = find_case("overflow-check").manifest.program[0]


def test_program(ask: Ask, image, machine) -> None:
    answer = ask("run", image("many-threads", machine), "--json")
    assert answer.code == 0
    found = answer.document("run")
    assert (found["exit_code"], found["output"]) == (WORKERS.before.exit_code, WORKERS.before.output)
    assert (found["threads"], found["refused"], found["fault"]) == (THREADS, [], None)
    assert found["status"]["functions"] == []
    kinds = [event["kind"] for event in found["events"]]
    assert kinds.count("spawn") == THREADS
    assert kinds[-1] == "exit"
    text = ask("run", image("many-threads", machine))
    assert text.out == f"{WORKERS.before.output}exit code 0 after {found['instructions']} instructions, 7 threads\n"


def test_arguments_and_standard_input(ask: Ask, image, patch, machine, tmp_path: Path) -> None:
    requests = tmp_path / "requests.txt"
    requests.write_text(SERVER.stdin, encoding="utf-8")
    command = "run", image("overflow-check", machine), *SERVER.args, "--stdin", requests, "--json"
    assert ask(*command).document("run")["output"] == SERVER.before.output
    assert ask(*command, "--patch", patch("overflow-check", machine)).document("run")["output"] == SERVER.patched.output


def test_patch_and_revert_at_an_instruction(ask: Ask, image, patch, machine) -> None:
    fix, path = patch("many-threads", machine), image("many-threads", machine)
    command = "run", path, "--patch", f"{fix}@2000", "--revert", f"{fix}@4000"
    answer = ask(*command, "--json")
    found = answer.document("run")
    done = [(event["kind"], event["at"]) for event in found["events"] if event["kind"] in ("apply", "revert")]
    assert done == [("apply", 2000), ("revert", 4000)]
    assert (found["status"]["functions"], found["refused"]) == ([], [])
    lines = ask(*command).out.splitlines()
    name = Path(fix).name
    assert f"[2000] apply     {name}, sequence 1, to base.exe: 1 function, immediate" in lines
    assert f"[4000] revert    {name}, sequence 1: 1 function" in lines
    assert "[2000] redirect  price goes to the new code (hpat)" in lines
    assert "[4000] redirect  price is the base's again (hpat)" in lines
    assert not any("{" in line for line in lines)


def test_status_says_what_is_patched(ask: Ask, image, patch, machine) -> None:
    fix = patch("many-threads", machine)
    found = ask("run", image("many-threads", machine), "--patch", f"{fix}@10", "--json").document("run")
    (function,) = found["status"]["functions"]
    (standing,) = found["status"]["patches"]
    assert (function["name"], function["state"], function["redirect"]) == ("price", "applied", "hpat")
    assert (standing["name"], standing["number"]) == (Path(fix).name, function["patch"])


def test_stop_at(ask: Ask, image, patch, machine) -> None:
    fix = patch("many-threads", machine)
    command = "run", image("many-threads", machine), "--patch", f"{fix}@1000", "--stop-at", "2500"
    answer = ask(*command, "--json")
    assert answer.code == 0
    found = answer.document("run")
    assert (found["instructions"], found["exit_code"]) == (2500, None)
    assert len(found["stopped"]) == THREADS
    for thread in found["stopped"]:
        assert thread["registers"]["rsp" if machine is Machine.X64 else "sp"]
        assert thread["stack"][0] == {"pc": thread["pc"], "function": thread["function"]}
    main = found["stopped"][0]
    others = [thread["thread"] for thread in found["stopped"][1:]]
    assert main["waits_for"] == "all of " + ", ".join(f"thread {number}" for number in others)
    text = ask(*command).out
    assert f"in WaitForMultipleObjects, waits for {main['waits_for']}\n" in text
    stopped = text[text.index("thread 2, ") :]
    patched = next(line for line in text.splitlines() if line.startswith("price "))
    assert patched.split()[2:4] == ["applied", "hpat"]
    assert f"{Path(fix).name}, sequence 1, in base.exe" in " ".join(stopped.split())
    assert text.endswith("still running after 2500 instructions, 7 threads\n")


def test_what_is_patched_is_not_folded_in_a_pipe_however_long_the_name(ask: Ask, image, patch, machine, tmp_path: Path) -> None:
    fix = tmp_path / "the-fix-of-the-price-that-was-too-high.dll"
    fix.write_bytes(Path(patch("many-threads", machine)).read_bytes())
    text = ask("run", image("many-threads", machine), "--patch", fix, "--stop-at", "2500").out
    table = text[text.index("patched  ") :].splitlines()
    assert table[1].startswith("price ") and table[1].endswith(f"  {fix.name}, sequence 1, in base.exe")


def test_stop_at_the_start_and_after_the_end(ask: Ask, image, machine) -> None:
    path = image("many-threads", machine)
    start = ask("run", path, "--stop-at", "0", "--json").document("run")
    assert (start["instructions"], len(start["stopped"])) == (0, 1)
    end = ask("run", path, "--stop-at", "99999999", "--json").document("run")
    assert (end["exit_code"], end["stopped"]) == (0, [])
    assert "nothing is patched" in ask("run", path, "--stop-at", "0").out


def test_seed_chooses_the_interleaving(ask: Ask, image, machine) -> None:
    def order(seed: int) -> list[tuple[int, int]]:
        found = ask("run", image("many-threads", machine), "--seed", seed, "--json").document("run")
        return [(event["at"], event["thread"]) for event in found["events"]]

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(4)}) > 1


def test_revert_of_what_is_not_applied(ask: Ask, image, patch, machine) -> None:
    fix = patch("many-threads", machine)
    answer = ask("run", image("many-threads", machine), "--patch", f"{fix}@2000", "--revert", f"{fix}@100", "--json")
    assert answer.code == 4
    found = answer.document("run")
    assert [refusal["rule"] for refusal in found["refused"]] == ["not-applied"]
    assert found["output"] == ask("run", image("many-threads", machine), "--patch", f"{fix}@2000", "--json").document("run")["output"]
    assert [event["at"] for event in found["events"] if event["kind"] == "refused"] == [100]
    text = ask("run", image("many-threads", machine), "--patch", f"{fix}@2000", "--revert", f"{fix}@100")
    assert text.code == 4
    assert text.out.count("not-applied") == 1
    assert f"\n[100] refused not-applied\n    {Path(fix).name} is not applied after 100 instructions" in text.out


def test_second_patch_of_the_same_sequence_is_refused(ask: Ask, image, patch, machine) -> None:
    fix = patch("many-threads", machine)
    answer = ask("run", image("many-threads", machine), "--patch", f"{fix}@10", "--patch", f"{fix}@20", "--json")
    assert answer.code == 4
    assert [refusal["rule"] for refusal in answer.document("run")["refused"]] == ["sequence"]


def test_patch_of_another_program(ask: Ask, image, patch, machine) -> None:
    answer = ask("run", image("many-threads", machine), "--patch", patch("overflow-check", machine), "--json")
    assert answer.code == 4
    found = answer.document("run")
    assert found["refused"]
    assert found["output"] == WORKERS.before.output


def test_fault(ask: Ask, image, machine, tmp_path: Path) -> None:
    path = tmp_path / "base.exe"
    data = Path(image("many-threads", machine)).read_bytes()
    assert data.count(b"SetEvent\0") == 1
    path.write_bytes(data.replace(b"SetEvent\0", b"SetIvent\0"))
    answer = ask("run", path, "--json")
    assert answer.code == 1
    found = answer.document("run")
    assert found["fault"]["kind"] == "unknown-import"
    text = ask("run", path)
    assert (text.code, text.err) == (1, "")
    assert "fault unknown-import" in text.out
    assert text.out.splitlines()[-1].startswith("stopped by the fault after ")
    assert "SetIvent" in text.out


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--revert", "fix.dll"), "PATCH@N"),
        (("--stop-at", "-1"), "-1"),
        (("--stop-at", "soon"), "soon"),
        (("--patch", "nosuch.dll@5"), "nosuch.dll"),
        (("--patch", "nosuch.dll@soon"), "nosuch.dll@soon"),
        (("--stdin", "nosuch.txt"), "nosuch.txt"),
        (("--module", "nosuch.dll"), "nosuch.dll"),
        (("--consistency", "eventual"), "eventual"),
        (("--seed", "many"), "many"),
        (("--load-base", "0x1"), "0x1"),
    ],
    ids=" ".join,
)
def test_bad_options(ask: Ask, image, options, names: str) -> None:
    answer = ask("run", image("many-threads", Machine.X64), *options)
    assert answer.code == 2
    assert names in answer.error


def test_dll_is_no_program(ask: Ask, image, machine) -> None:
    answer = ask("run", image("basic", machine))
    assert answer.code == 2
    assert image("basic", machine) in answer.error


def test_patch_that_is_no_patch(ask: Ask, image, machine) -> None:
    answer = ask("run", image("many-threads", machine), "--patch", image("many-threads", machine))
    assert answer.code == 2
    assert answer.error.startswith(image("many-threads", machine))


def test_what_the_call_returned_before_is_refused(ask: Ask, image, patch, machine) -> None:
    fix = patch("basic", machine)
    command = "call", image("basic", machine), "clamp", "11", "10", "--patch", f"{fix}@9999"
    answer = ask(*command, "--json")
    found = answer.document("call")
    (refusal,) = found["refused"]
    assert (answer.code, found["return"], found["applied"], refusal["rule"]) == (4, 11, [], "not-reached")
    assert refusal["evidence"] == {"patch": fix, "at": 9999, "instructions": found["instructions"]}
    assert refusal["reason"].startswith(f"the call returned after {found['instructions']} instructions, before anything was done about ")
    text = ask(*command)
    assert (text.code, text.err, "returned 11 " in text.out, "refused not-reached\n" in text.out) == (4, "", True, True)


def test_what_the_program_ended_before_is_refused(ask: Ask, image, patch, machine) -> None:
    fix, path = patch("many-threads", machine), image("many-threads", machine)
    command = "run", path, "--patch", fix, "--revert", f"{fix}@0x1000000"
    answer = ask(*command, "--json")
    found = answer.document("run")
    (refusal,) = found["refused"]
    assert (answer.code, found["exit_code"], refusal["rule"]) == (4, 0, "not-reached")
    assert refusal["evidence"] == {"patch": fix, "at": 0x1000000, "instructions": found["instructions"]}
    assert "\nrefused not-reached\n" in ask(*command).out
    stopped = ask(*command, "--stop-at", "99999999")
    assert (stopped.code, "refused" in stopped.out, "nothing was done at instruction 16777216" in stopped.err) == (0, False, True)


def test_threads_change_over_one_by_one(ask: Ask, image, patch, machine) -> None:
    fix, path = patch("reversal-mid-transition", machine), image("reversal-mid-transition", machine)
    command = "run", path, "--patch", f"{fix}@800", "--consistency", "per-thread"
    answer = ask(*command, "--json")
    found = answer.document("run")
    stages = [event for event in found["events"] if event["kind"] == "transition"]
    assert (answer.code, stages[0]["stage"], stages[-1]["stage"]) == (0, "begin", "finish")
    moved = [(event["from"], event["to"], event["remaining"]) for event in stages if event["stage"] == "thread"]
    assert moved
    assert [left for *_, left in moved] == sorted((left for *_, left in moved), reverse=True)
    assert {tuple(sides) for *sides, _ in moved} == {("old", "new")}
    assert "torn 0" in found["output"]
    name = Path(fix).name
    lines = ask(*command).out.splitlines()
    assert any(line.startswith(f"[800] transition  {name}, sequence 1: apply thread by thread begins, held by thread ") for line in lines)
    stopped = ask(*command, "--stop-at", "810", "--json").document("run")
    (change,) = stopped["status"]["changes"]
    assert (change["operation"], change["state"], change["until"]) == ("apply", "in-transition", None)
    assert {each["side"] for each in change["threads"]} == {"old", "new"}
    assert stopped["status"]["functions"][0]["waits_for"] == change["waits_for"]
    assert "sequence 1: apply in-transition since instruction 800" in ask(*command, "--stop-at", "810").out


def test_a_reversal_half_way(ask: Ask, image, patch, machine) -> None:
    fix, path = patch("reversal-mid-transition", machine), image("reversal-mid-transition", machine)
    command = "run", path, "--patch", f"{fix}@800", "--revert", f"{fix}@900", "--consistency", "per-thread", "--json"
    found = ask(*command).document("run")
    stages = [event["stage"] for event in found["events"] if event["kind"] == "transition"]
    assert (stages[0], stages[-1], "reverse" in stages) == ("begin", "finish", True)
    assert (found["status"]["functions"], found["status"]["changes"], found["refused"]) == ([], [], [])


def test_what_never_becomes_quiescent_is_refused(ask: Ask, image, patch, machine) -> None:
    fix, path = patch("never-quiescent", machine), image("never-quiescent", machine)
    answer = ask("run", path, "--patch", f"{fix}@600", "--consistency", "quiescent", "--wait", "500", "--json")
    found = answer.document("run")
    assert answer.code == 4
    (refusal,) = found["refused"]
    assert (refusal["rule"], refusal["evidence"]["reachable"]) == ("not-quiescent", False)
    assert [event["kind"] for event in found["events"] if event["kind"] in ("wait", "apply", "refused", "map")] == ["wait", "refused"]
    assert found["exit_code"] == 0


def test_words_that_were_said_to_be_the_programs_are_not_warned_of(ask: Ask, image, machine) -> None:
    command = "run", image("many-threads", machine)
    assert ask(*command, "--stopat", "3", "--stop-at", "10").err.startswith("hotpatch: warning: --stopat goes to the program")
    for words in (("--", "--stopat", "3", "@300"), ("3", "--", "--patch", "--stopat=3")):
        answer = ask(*command, "--stop-at", "10", *words)
        assert (answer.code, answer.err) == (0, ""), words
    first = ask(*command, "--stopat", "--stop-at", "10", "--", "--stopat", "--patchh")
    assert first.err.count("goes to the program") == 1


def test_a_patch_whose_name_ends_as_a_count_does(ask: Ask, image, patch, machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f@3").write_bytes(Path(patch("basic", machine)).read_bytes())
    command = "call", image("basic", machine), "total", "11", "11", "10", "--patch"
    assert ask(*command, "f@3").out.startswith("applied f@3 to the process before the first instruction: 1 function\nreturned 20 ")
    assert ask(*command, "f@3@12").out.startswith("applied f@3 to the process after 12 instructions: 1 function\nreturned 21 ")
    assert ask(*command, "f@4").error.startswith("f: ")
