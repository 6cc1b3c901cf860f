"""What is typed wrong ends with exit 2 and one line that names it as it was typed."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path

import pytest

from hotpatch.arch import Machine
from hotpatch.cli import programs
from tests.cli.front import Ask


@pytest.fixture
def files(image, patch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Words of a command line that stand for files; the current folder is empty."""
    monkeypatch.chdir(tmp_path)
    x64, arm64 = Machine.X64, Machine.ARM64
    return {
        "BASE": image("basic", x64),
        "FIXED": image("basic", x64, "fixed"),
        "EXE": image("many-threads", x64),
        "PATCH": patch("basic", x64),
        "BASE2": image("basic", arm64),
        "FIXED2": image("basic", arm64, "fixed"),
        "PATCH2": patch("basic", arm64),
        "FOLDER": str(tmp_path),
    }


def _command(text: str, files: dict[str, str]) -> list[str]:
    words = []
    for word in text.split():
        name, at, count = word.partition("@")
        words.append({"EMPTY": "", "CALL": "clamp 1 2"}.get(word, files.get(name, name) + at + count))
    return words


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("diff BASE FIXED2", "FIXED2"),
        ("diff BASE2 FIXED", "FIXED"),
        ("build BASE FIXED2 -o out.dll", "FIXED2"),
        ("verify BASE PATCH --fixed FIXED2", "FIXED2"),
        ("verify BASE PATCH --fixed FIXED2 --call CALL", "FIXED2"),
        ("verify BASE PATCH2 --fixed FIXED", "PATCH2"),
        ("verify BASE PATCH2 --fixed FIXED --call CALL", "PATCH2"),
        ("verify BASE PATCH --fixed FIXED --call CALL --module BASE2", "BASE2"),
        ("call BASE clamp 1 2 --patch PATCH2", "PATCH2"),
        ("call BASE clamp 1 2 --patch PATCH2@3", "PATCH2"),
        ("call BASE clamp 1 2 --module BASE2", "BASE2"),
        ("call BASE2 clamp 1 2 --patch PATCH", "PATCH"),
        ("run EXE --patch PATCH2", "PATCH2"),
        ("run EXE --revert PATCH2@9", "PATCH2"),
        ("run EXE --module BASE2", "BASE2"),
        ("run EXE --available BASE2", "BASE2"),
    ],
)
def test_file_of_another_machine(ask: Ask, files, command: str, named: str) -> None:
    for form in ([], ["--json"]):
        answer = ask(*_command(command, files), *form)
        assert answer.code == 2
        assert answer.error.startswith(f"{files[named]}: is ")
        assert {word.strip(",;") for word in answer.error.split()} >= {"x64", "arm64"}
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run BASE", "BASE: is a DLL, and no program to run; call one of its functions, or run a program that loads it"),
        ("run PATCH", "PATCH: is a hot patch, which goes into a process and makes none; give the build that it is for, and the patch with"),
        ("call PATCH clamp 1 2", "PATCH: is a hot patch, which goes into a process and makes none; give the build that it is for"),
        ("diff BASE FIXED --function fixed:zz", "fixed:zz: is no RVA; write one as fixed:0x1234"),
        ("build BASE FIXED -o out.dll --only fixed:zz", "fixed:zz: is no RVA; write one as fixed:0x1234"),
        ("inspect EMPTY", "'': names no file"),
        ("inspect .", ".: is a folder, not a file"),
        ("inspect nowhere.dll", "nowhere.dll: No such file or directory"),
        ("inspect /dev/zero", "/dev/zero: is a device, not a regular file"),
        ("inspect -", "-: standard input and output are no file arguments; name a file"),
        ("diff - FIXED", "-: standard input and output are no file arguments; name a file"),
        ("diff BASE PATCH", "PATCH: is a hot patch, not a build; give the build with the fix"),
        ("diff PATCH FIXED", "PATCH: is a hot patch, not a build; give the build that runs"),
        ("build BASE2 PATCH2 -o out.dll", "PATCH2: is a hot patch, not a build; give the build with the fix"),
        ("verify BASE PATCH --fixed PATCH", "PATCH: is a hot patch, not a build; give the build with the fix"),
        ("build BASE FIXED -o -", "-: standard input and output are no file arguments; name a file"),
        ("build BASE FIXED -o EMPTY", "'': names no file"),
        ("diff BASE FIXED --html EMPTY", "'': names no file"),
        ("call BASE clamp 1 2 --stdin EMPTY", "'': names no file"),
        ("call BASE clamp 1 2 --stdin -", "-: standard input and output are no file arguments; name a file"),
        ("call BASE clamp 1 2 --stdin .", ".: is a folder, not a file"),
        ("call BASE clamp 1 2 --module EMPTY", "'': names no file"),
        ("call BASE clamp 1 2 --patch EMPTY", "'': names no file"),
        ("call BASE clamp 1 2 --patch FOLDER", "FOLDER: is a folder, not a file"),
        ("call BASE clamp 1 2 --patch nowhere.dll@4", "nowhere.dll: No such file or directory"),
        ("call BASE clamp 1 2 --patch PATCH@x", "PATCH@x: is neither a file nor a file and an instruction count; write PATCH or PATCH@N"),
        ("call BASE clamp 1 2 --patch PATCH@", "PATCH@: is neither a file nor a file and an instruction count"),
        ("call BASE clamp 1 2 --patch PATCH@-3", "PATCH@-3: is neither a file nor a file and an instruction count"),
        ("call BASE clamp 1 2 --patch @3", "@3: is neither a file nor a file and an instruction count"),
        ("run EXE --revert PATCH", "PATCH: has no instruction count; write PATCH@N"),
        ("run EXE --revert PATCH@x", "PATCH@x: has no instruction count; write PATCH@N"),
        ("run EXE --stop-at soon", "--stop-at 'soon': is no integer"),
        ("run EXE --stop-at=-1", "--stop-at '-1': is negative"),
        ("call BASE clamp 1 2 --budget lots", "--budget 'lots': is no integer"),
        ("call BASE clamp 1 2 --load-base there", "--load-base 'there': is no integer"),
        ("call BASE clamp 1 2 --load-base 5", "--load-base 5: is no load base; use a multiple of 0x10000"),
        ("verify BASE PATCH --fixed FIXED --call CALL --load-base 5", "--load-base 5: is no load base; use a multiple of 0x10000"),
        ("call BASE clamp 1 2 --seed x", "--seed 'x': is no integer"),
        ("call BASE rva:zz", "rva:zz: is no RVA; write one as rva:0x1234"),
        ("call BASE rva:", "rva:: is no RVA"),
        ("call BASE rva:-1", "rva:-1: is no RVA"),
        ("call BASE rva:0x100000000", "rva:0x100000000: is no RVA"),
        ("call BASE base!rva:zz", "base!rva:zz: is no RVA"),
        ("call BASE base!", "base!: names no function"),
        ("call BASE nowhere!clamp", "nowhere!clamp: no module called nowhere"),
        ("call BASE EMPTY", "'': names no function"),
        ("diff BASE FIXED --function rva:zz", "rva:zz: is no RVA"),
        ("diff BASE FIXED --function EMPTY", "'': names no function"),
        ("build BASE FIXED -o out.dll --only rva:zz", "rva:zz: is no RVA"),
        ("build BASE FIXED -o out.dll --only EMPTY", "'': names no function"),
        ("build BASE FIXED -o out.dll --allow nosuch", "nosuch: is no rule that can be overridden"),
        ("verify BASE PATCH --fixed FIXED --function rva:zz", "rva:zz: is no RVA"),
        ("verify BASE PATCH --fixed FIXED --call rva:zz", "rva:zz: is no RVA"),
        ("call BASE clamp foo", "argument 'foo': is no integer; write 7, -1, 0x10"),
        ("call BASE clamp EMPTY", "argument '': is no integer"),
        ("call BASE clamp -x", "argument '-x': is no integer"),
        ("call BASE clamp 0x10000000000000000", "argument '0x10000000000000000': does not fit 64 bits"),
        ("call BASE clamp -9223372036854775809", "argument '-9223372036854775809': does not fit 64 bits"),
        ("call BASE clamp hex:0", "argument 'hex:0': hex: wants two hexadecimal digits for each byte"),
        ("call BASE clamp f64:x", "argument 'f64:x': f64: wants a number"),
        ("call BASE clamp buf:x", "argument 'buf:x': buf: wants a number of bytes"),
        ("call BASE clamp buf:99999999999", "argument 'buf:99999999999': is no size of a buffer; give 0 to 2**30 bytes"),
        ("call BASE clamp what:3", "argument 'what:3': unknown kind"),
        ("inspect", "FILE: is missing; see hotpatch inspect --help"),
        ("call BASE", "FUNCTION: is missing; see hotpatch call --help"),
        ("build BASE FIXED", "--output: is missing; see hotpatch build --help"),
        ("build BASE FIXED -o", "-o: wants a value; see hotpatch build --help"),
        ("inspect BASE more", "more: is one argument too many; see hotpatch inspect --help"),
        ("verify BASE PATCH --fixed FIXED --call clamp 10", '10: is one argument too many; quote each call as one word: --call "FUNCTION'),
        ("inspekt BASE", "inspekt: no such verb; did you mean inspect?"),
        ("--json inspect BASE", "--json: is no option here; write it behind the verb: hotpatch VERB … --json"),
        ("build BASE FIXED -o out.dll --check=maybe", "--check 'maybe': takes no value; write --check alone, or leave it out"),
        ("build BASE FIXED -o out.dll --sequence 0", "--sequence '0': is less than 1; write a number from 1"),
        ("build BASE FIXED -o out.dll --sequence 0x100000000", "--sequence '0x100000000': is more than 4294967295; write a number up to"),
        ("build BASE FIXED -o out.dll --state-version -1", "--state-version '-1': is less than 0; write a number from 0"),
        ("servicing nosuch", "nosuch: no such verb; there are: calendar, eligible, offer, simulate"),
        ("servicing eligible EMPTY", "'': names no file"),
        ("servicing offer --policy EMPTY --devices FOLDER", "'': names no file"),
        ("servicing calendar x", "YEAR 'x': is no integer; write a year such as 2026"),
        ("demo EMPTY", "'': no such case; hotpatch cases lists those that there are"),
        ("demo --stpe", "--stpe: no such option; did you mean --step?"),
        ("demo --zzzz", "--zzzz: no such option; see hotpatch demo --help"),
        ("diff BASE FIXED -z", "-z: no such option; see hotpatch diff --help"),
        ("demo --arch arm", "--arch 'arm': is none of x64, arm64"),
        ("demo basic --color green", "--color 'green': is none of auto, always, never"),
        ("demo basic --seed 1.5", "--seed '1.5': is no integer; write 7 or 0x10"),
        ("build BASE FIXED -o out.dll --redirect far", "--redirect 'far': is none of hpat, direct, inline"),
        ("build BASE FIXED -o out.dll --sequence 1.5", "--sequence '1.5': is no integer"),
        ("build BASE FIXED -o out.dll -o out2.dll", "-o: is given twice; see hotpatch build --help"),
        ("run EXE --consistency soon", "--consistency 'soon': is none of immediate, quiescent, per-thread"),
        ("run EXE --wait=-3", "--wait '-3': is less than 0; write a number from 0"),
        ("run EXE --budget 0", "--budget '0': is less than 1; write a number from 1"),
        ("call BASE clamp 1 2 --budget=-1", "--budget '-1': is negative; write a number from 1"),
        ("call BASE clamp 1 2 --budget 0", "--budget '0': is less than 1; write a number from 1"),
        ("help", "help: no such verb; did you mean --help?"),
        ("version", "version: no such verb; did you mean --version?"),
        ("demo basic --from FOLDER", "FOLDER: basic is shipped and needs no wheels; leave --from out"),
        ("demo cve-2025-69277 --from EMPTY", "'': names no file"),
    ],
)
def test_bad_usage_names_what_was_typed(ask: Ask, files, command: str, message: str) -> None:
    answer = ask(*_command(command, files))
    assert answer.code == 2
    word, colon, rest = message.partition(": ")
    assert answer.error.startswith(" ".join(_command(word, files)) + colon + rest if colon else message)
    assert list(Path().iterdir()) == []


def test_a_file_whose_name_has_an_at(ask: Ask, files) -> None:
    Path("fix@new.dll").write_bytes(Path(files["PATCH"]).read_bytes())
    found = ask("call", files["BASE"], "clamp", "11", "10", "--patch", "fix@new.dll", "--json").document("call")
    assert found["applied"] == [{"patch": "fix@new.dll", "at": 0, "functions": 1}]
    found = ask("call", files["BASE"], "clamp", "11", "10", "--patch", "fix@new.dll@0x2", "--json").document("call")
    assert found["applied"] == [{"patch": "fix@new.dll", "at": 2, "functions": 1}]


def test_a_misspelt_option_goes_to_the_program_with_a_warning(ask: Ask, files) -> None:
    answer = ask("run", files["EXE"], "--stopat", "500")
    assert answer.code == 0
    assert answer.err == "hotpatch: warning: --stopat goes to the program; did you mean --stop-at?\n"
    assert ask("run", files["EXE"], "--unlike-any", "-9", "--", "x").err == ""


def test_a_count_apart_from_its_patch_goes_to_the_program_with_a_warning(ask: Ask, files) -> None:
    path = shutil.copy(files["PATCH"], "fix.dll")
    answer = ask("run", files["EXE"], "--patch", path, "@300")
    assert answer.err.splitlines()[0] == "hotpatch: warning: @300 goes to the program; did you mean fix.dll@300, without a blank?"
    assert ask("run", files["EXE"], "@300", "@x").err == ""


@pytest.mark.parametrize("command", ["call BASE clamp 11 10", "run EXE"])
def test_a_wait_without_anything_to_wait_for_is_warned_of(ask: Ask, files, command: str) -> None:
    words = _command(command, files)
    assert "warning: --wait bounds nothing" in ask(*words, "--wait", "9").err
    assert ask(*words, "--wait", "9", "--consistency", "quiescent").err == ""


def test_every_option_of_run_is_known_to_that_warning() -> None:
    options = {
        f"--{name.replace('_', '-')}" for name, one in inspect.signature(programs.run).parameters.items() if one.kind is one.KEYWORD_ONLY
    }
    assert options - {"--options"} <= set(programs._OPTIONS)
