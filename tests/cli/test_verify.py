"""``hotpatch verify`` and ``hotpatch build --check`` as users and harnesses see them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import hotpatch
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.cases import find_case
from hotpatch.cli import run
from tests.emulator.pe import TEXT, Pe
from tests.verifier import damage

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
WRONG = "scale"
each_machine = pytest.mark.parametrize("machine", Machine)


@pytest.fixture
def files(tmp_path: Path):
    """Paths of a case's base, built patch and fixed image."""

    def make(name: str, machine: Machine) -> tuple[str, str, str]:
        case = find_case(name)
        base, fixed = (str(case.image(machine, side)) for side in ("base", "fixed"))
        patch = tmp_path / "fix.dll"
        hotpatch.build(hotpatch.diff(hotpatch.open(base), hotpatch.open(fixed))).save(patch)
        return base, str(patch), fixed

    return make


def verify(capsys: pytest.CaptureFixture[str], base: str, patch: str, fixed: str, *options: str) -> tuple[int, str, str]:
    code = run(["verify", base, patch, "--fixed", fixed, *options])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def document(text: str, schema: str = "verify") -> dict:
    found = json.loads(text)
    Draft202012Validator(json.loads((SCHEMAS / f"{schema}.json").read_text(encoding="utf-8"))).validate(found)
    return found


@each_machine
@pytest.mark.parametrize("name", ["basic", "jump-table"])
def test_case_has_no_violation(files, capsys, name: str, machine: Machine) -> None:
    code, out, err = verify(capsys, *files(name, machine), "--case", name, "--bound", "40", "--json")
    found = document(out)
    assert (code, err, found["violations"], found["refused"]) == (0, "", [], [])
    assert found["schedules"] == len(find_case(name).manifest.call)
    assert sum(found["outcomes"].values()) == found["boundaries"] > 0
    assert found["outcomes"]["mixed"] == found["outcomes"]["wrong"] == 0


@each_machine
def test_calls_are_split_like_a_shell_does(files, capsys, machine: Machine) -> None:
    calls = ("--call", "run hex:010503020644 6 9", "--call", "'execute' 0xc -1 \"0\"")
    code, out, _ = verify(capsys, *files("jump-table", machine), *calls)
    assert code == 0
    _, *rows, last = out.splitlines()
    assert [line.split("  ")[0] for line in rows] == 2 * ["run(hex:010503020644, 6, 9)"] + 2 * ["execute(12, -1, 0)"]
    assert last == "no violation: 2 calls on one thread each, the patch applied and reverted at every instruction boundary"


@each_machine
def test_broken_patch_is_a_counterexample(files, capsys, machine: Machine) -> None:
    base, patch, fixed = files("basic", machine)
    damage.at_entry(hotpatch.load(patch), damage.FAULTING[machine]).save(patch)
    code, out, _ = verify(capsys, base, patch, fixed, "--call", "clamp 11 10", "--json")
    found = document(out)
    assert code == 5
    assert found["outcomes"]["wrong"] == len(found["violations"]) == 1
    (violation,) = found["violations"]
    assert (violation["boundary"], violation["function"], violation["schedule"]) == (0, "clamp", [])
    assert violation["pc"] == hotpatch.Process(hotpatch.open(base)).address_of("clamp")
    code, out, _ = verify(capsys, base, patch, fixed, "--call", "clamp 11 10")
    assert code == 5
    assert "wrong  boundary 0, thread 1, pc 0x" in out and "clamp(11, 10), apply: " in out and "1 violation: " in out


@each_machine
def test_functions_are_verified_without_calls(files, capsys, machine: Machine) -> None:
    base, patch, fixed = files("inlined-caller", machine)
    code, out, err = verify(capsys, base, patch, fixed, "--json")
    found = document(out)
    assert (code, err, found["violations"], found["exhaustive"]) == (0, "", [], False)
    assert {item["name"] for item in found["functions"]} == {"read_item", "write_item", "add_item"}
    assert all(item["verdict"] == "agree" and item["patched"] and item["agreed"] and item["covered"] == 1 for item in found["functions"])
    code, out, _ = verify(capsys, base, patch, fixed, "--function", "read_item", "--seeds", "4")
    assert code == 0
    assert out.splitlines()[1].split()[:2] == ["agree", "read_item"] and len(out.splitlines()) == 3
    assert "no violation: 1 function run in the patched base and in the fixed image from up to 4 made-up states" in out


@each_machine
def test_broken_function_is_a_counterexample_without_calls(files, capsys, machine: Machine) -> None:
    base, patch, fixed = files("basic", machine)
    damage.at_entry(hotpatch.load(patch), damage.FAULTING[machine]).save(patch)
    code, out, _ = verify(capsys, base, patch, fixed, "--json")
    found = document(out)
    assert code == 5
    (violation,) = found["violations"]
    assert violation["function"] == "clamp" and "illegal-instruction" in violation["what"]
    assert [item["verdict"] for item in found["functions"]] == ["differ"]
    code, out, _ = verify(capsys, base, patch, fixed)
    assert code == 5 and "\n1 violation: " in out


@each_machine
def test_check_tells_what_it_has_run(tmp_path, capsys, machine: Machine) -> None:
    case = find_case("image-parser")
    images = [str(case.image(machine, side)) for side in ("base", "fixed")]
    assert run(["build", *images, "-o", str(tmp_path / "fix.dll"), "--check", "--json"]) == 0
    checked = document(capsys.readouterr().out, "build")["checked"]
    assert {item["patched"] for item in checked} == {True, False}
    assert {item["verdict"] for item in checked} == {"agree"}
    assert run(["build", *images, "-o", str(tmp_path / "fix.dll"), "--json"]) == 0
    assert document(capsys.readouterr().out, "build")["checked"] == []


_NOISE = {Machine.X64: ("mov rax, rcx; add rax, rdx", "mov rax, rdx; add rax, rcx"), Machine.ARM64: ("add x0, x0, x1", "add x0, x1, x0")}
_FIX = {Machine.X64: ("lea rax, [rcx + 2]", "lea rax, [rcx + 3]"), Machine.ARM64: ("add x0, x0, #2", "add x0, x0, #3")}


def _sums(machine: Machine, side: int) -> bytes:
    """A DLL whose ``same`` other instructions do the same in, and whose ``fixed`` is not the same."""
    pe = Pe(machine)
    pe.put(TEXT, (b"\xcc" if machine is Machine.X64 else bytes(1)) * 0x100)
    rows = [("same", TEXT + 0x20), ("fixed", TEXT + 0x60)]
    for (_, at), code in zip(rows, (_NOISE, _FIX), strict=True):
        pe.put(at, assemble(machine, f"{code[machine][side]}; ret", at))
    pe.exports("sums.dll", rows)
    return pe.file()


@each_machine
def test_check_notes_a_change_in_which_it_sees_no_difference(tmp_path, capsys, machine: Machine) -> None:
    """Code generation alone is a change and travels; the note stands at it, in the document and in the text, and at nothing else."""
    images = [str(tmp_path / f"{side}.dll") for side in ("base", "fixed")]
    for side, path in enumerate(images):
        Path(path).write_bytes(_sums(machine, side))
    command = ["build", *images, "-o", str(tmp_path / "fix.dll"), "--check"]
    assert run([*command, "--json"]) == 0
    checked = {item["name"]: item for item in document(capsys.readouterr().out, "build")["checked"]}
    assert {name: (item["patched"], item["notes"]) for name, item in checked.items()} == {
        "same": (True, ["no-difference-found"]),
        "fixed": (True, []),
    }
    assert run(command) == 0
    lines = capsys.readouterr().out.splitlines()
    note, legend = (line for line in lines if "no-difference-found" in line)
    assert note == "    same: no-difference-found"
    assert "runs that the columns do not count" in legend


@each_machine
def test_patch_for_another_build_is_refused(files, capsys, machine: Machine) -> None:
    _, patch, fixed = files("basic", machine)
    code, out, _ = verify(capsys, fixed, patch, fixed, "--call", "clamp 11 10", "--json")
    assert code == 4
    assert [item["rule"] for item in document(out, "refused")["refused"]] == ["wrong-base"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            ("--call", "clamp 1 2", "--case", "basic"),
            "--call and --case: exclude each other; give --call once or more",
        ),
        (
            ("--call", "clamp 1 2", "--function", "clamp"),
            "error: --function: belongs to verification without calls; leave it or",
        ),
        (("--case", "basic", "--seeds", "3"), "error: --seeds: belongs to verification without calls; leave it or the calls out"),
        (("--load-base", "0x10000"), "error: --load-base: belongs to verification with calls; give --call or --case, or leave it out"),
        (("--bound", "3"), "error: --bound: belongs to verification with calls"),
        (("--bound", "3", "--budget", "100"), "error: --budget and --bound: belong to verification with calls"),
        (("--module", "x.dll"), "error: --module: belongs to verification with calls"),
        (("--call", "clamp 1 2", "--module", "PATCH"), "fix.dll: is a hot patch, which goes into a process and makes none; give DLLs of"),
        (("--call", "clamp 1 2", "--budget", "few"), "--budget 'few': is no integer"),
        (("--seeds", "0"), "--seeds '0': is less than 1; write a number from 1"),
        (("--seeds", "1.5"), "--seeds '1.5': is no integer"),
        (("--function", "total"), "does not travel"),
        (("--call", ""), "names no function"),
        (("--call", "clamp 'x"), "quote it as in a shell"),
        (("--call", "clamp five 2"), "write 7, -1, 0x10"),
        (("--case", "no-such-case"), "no-such-case"),
        (("--case", "many-threads"), "has no calls"),
        (("--call", "clamp 1 2", "--bound", "0"), "--bound '0': is less than 1; write a number from 1"),
        (("--call", "clamp 1 2", "--budget", "0"), "--budget '0': is less than 1; write a number from 1"),
        (("--call", "clamp 1 2", "--load-base", "there"), "is no integer"),
        (("--call", "clamp 1 2", "--stdin", "no/such/file"), "no/such/file"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(files, capsys, options: tuple[str, ...], problem: str) -> None:
    base, patch, fixed = files("basic", Machine.X64)
    code, out, err = verify(capsys, base, patch, fixed, *(patch if word == "PATCH" else word for word in options))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("hotpatch: error: ") and problem in err


@each_machine
def test_budget_is_used(files, capsys, machine: Machine) -> None:
    """With less than the call takes, it ends by that in every run alike, and the rest of it was not tried."""
    base, patch, fixed = files("basic", machine)
    code, out, err = verify(capsys, base, patch, fixed, "--call", "total 1 2 10", "--budget", "2", "--json")
    few = document(out)
    assert (code, few["exhaustive"]) == (0, False)
    assert few["bound"].endswith("at every instruction boundary up to where 1 call had used up the budget")
    assert "total(1, 2, 10) was given up when its budget was used up, so that the patch was not tried in the rest of it" in err
    code, out, err = verify(capsys, base, patch, fixed, "--call", "total 1 2 10", "--json")
    assert (code, document(out)["boundaries"] > few["boundaries"], document(out)["exhaustive"], err) == (0, True, True, "")


@each_machine
def test_a_call_that_ends_in_a_fault_is_told(files, capsys, machine: Machine) -> None:
    code, _, err = verify(capsys, *files("image-parser", machine), "--call", "parse 16 1000")
    assert code == 0
    assert "does not return (access-violation), so it shows nothing about the patch but up to there" in err


@each_machine
def test_quiet_says_nothing_but_what_is_wrong(files, capsys, machine: Machine) -> None:
    base, patch, fixed = files("basic", machine)
    assert verify(capsys, base, patch, fixed, "--call", "clamp 11 10", "-q") == (0, "", "")
    assert verify(capsys, base, patch, fixed, "-q") == (0, "", "")
    damage.at_entry(hotpatch.load(patch), damage.FAULTING[machine]).save(patch)
    code, out, err = verify(capsys, base, patch, fixed, "--call", "clamp 11 10", "-q")
    assert (code, err) == (5, "")
    assert "1 violation: " in out


@each_machine
def test_load_base_and_bound_are_used(files, capsys, machine: Machine) -> None:
    base, patch, fixed = files("basic", machine)
    options = ("--call", "total 11 12 10", "--load-base", "0x7ff412340000", "--bound", "5", "--json")
    code, out, _ = verify(capsys, base, patch, base, *options)
    found = document(out)
    assert code == 5 and not found["exhaustive"] and found["boundaries"] == 10
    assert 0x7FF412340000 <= found["violations"][0]["pc"] < 0x7FF412340000 + hotpatch.open(base).size_of_image
    assert verify(capsys, base, patch, fixed, *options)[0] == 0


@each_machine
def test_build_check_rehearses_before_it_writes(files, capsys, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, _, fixed = files("basic", machine)
    written = tmp_path / "checked.dll"
    assert run(["build", base, fixed, "-o", str(written), "--check"]) == 0
    assert written.is_file()
    refusal = hotpatch.Refusal(hotpatch.Rule.SELF_CHECK, "clamp", None, "does not work; look")

    def refuse(*_: object) -> None:
        raise hotpatch.ApplyRefused([refusal])

    monkeypatch.setattr("hotpatch.verifier.rehearse", refuse)
    written.unlink()
    capsys.readouterr()
    assert run(["build", base, fixed, "-o", str(written), "--check", "--json"]) == 4
    assert [item["rule"] for item in document(capsys.readouterr().out, "build")["refused"]] == ["self-check"]
    assert not written.exists()


@each_machine
def test_build_check_finds_what_is_wrongly_said_to_be_only_relocated(
    files, capsys, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three functions that changed, the comparison calls one relocated: it stays as it is, and the sample that is run shows it."""
    base, _, fixed = files("short-function", machine)
    written = tmp_path / "checked.dll"
    compare = hotpatch.diff

    def mistaken(*images: hotpatch.Image) -> hotpatch.ImageDiff:
        found = compare(*images)
        rows = [row for row in found.functions if row.base.name == WRONG]
        assert [row.verdict for row in rows] == [hotpatch.Verdict.CHANGED]
        wrong = rows[0]._replace(verdict=hotpatch.Verdict.RELOCATED)
        return replace(found, functions=tuple(wrong if row is rows[0] else row for row in found.functions))

    monkeypatch.setattr("hotpatch.api.diff", mistaken)
    capsys.readouterr()
    assert run(["build", base, fixed, "-o", str(written), "--check", "--json"]) == 4
    refusals = {item["function"]: item for item in document(capsys.readouterr().out, "build")["refused"]}
    assert {WRONG} <= refusals.keys() <= {WRONG, "all"}, "what calls it may show it too"
    refusal = refusals[WRONG]
    assert refusal["rule"] == "micro-execution"
    assert "only relocated" in refusal["reason"]
    assert refusal["evidence"]["base"] != refusal["evidence"]["fixed"]
    assert not written.exists()
    assert run(["build", base, fixed, "-o", str(written)]) == 0
    assert WRONG not in {row.name for row in hotpatch.load(written).functions}


@each_machine
def test_a_call_that_misses_the_patch_and_another_fixed_image_are_told(files, capsys, machine: Machine) -> None:
    base, patch, fixed = files("state-kept", machine)
    code, _, err = verify(capsys, base, patch, base, "--call", "balance 1")
    assert code == 0
    sums = {side: hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12] for side, path in (("base", base), ("fixed", fixed))}
    assert f"{base} is the base itself, and not the build that {patch} was made from (fixed.dll)" in err
    assert f"its SHA-256 begins with {sums['base']}, that one's with {sums['fixed']}" in err
    assert "balance(1) enters none of the patched functions" in err
    foreign = str(find_case("leaf").image(machine, "fixed"))
    code, _, err = verify(capsys, base, patch, foreign, "--call", "withdraw 1 30")
    assert code == 4, "a call that the other build does not have"
    assert f"{foreign} is not the build that {patch} was made from" in err, "also where it ends in a refusal"
    assert verify(capsys, base, patch, fixed, "--call", "withdraw 1 30")[2] == ""


@each_machine
def test_fewer_states_than_asked_for_are_told(files, capsys, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function is given so many instructions; what ``--seeds`` asks for beyond that is not cut in silence."""
    paths = files("basic", machine)
    for module in ("micro_trials", "micro_check"):
        monkeypatch.setattr(f"hotpatch.verifier.{module}.FUNCTION_BUDGET", 40)
    told = "; 1 on fewer than the 30 asked for: a function is given 40 instructions, of both builds together"
    found = document(verify(capsys, *paths, "--seeds", "30", "--json")[1])
    assert found["bound"].endswith(told)
    assert found["functions"][0]["runs"] < 30
    assert "asked for" not in verify(capsys, *paths, "--seeds", "2")[1]
    assert "asked for" not in verify(capsys, *paths)[1]
