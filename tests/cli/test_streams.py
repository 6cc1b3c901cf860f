"""Streams that are closed, full or without a reader, and names that no terminal should see as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases import find_case
from tests.cli.front import Ask

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shell redirections, and file names that are bytes")


def _shell(command: str, folder: Path, **names: str) -> tuple[int, str, str]:
    """What a shell makes of ``command``, in which ``hotpatch`` stands for this one: exit code, standard output, standard error."""
    script = f'hotpatch() {{ {sys.executable} -m hotpatch "$@"; }}; {command}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **names}
    ended = subprocess.run(["/bin/sh", "-c", script], capture_output=True, env=environment, cwd=folder, check=False, timeout=60)
    return ended.returncode, ended.stdout.decode(), ended.stderr.decode()


_CLOSED = "hotpatch: error: standard output: is closed; where nobody is to read it, let it go to /dev/null [cannot-be-written]\n"
_FULL = "hotpatch: error: standard output: No space left on device; let it go to where it can be written [cannot-be-written]\n"


@pytest.mark.parametrize(
    "verb", ["cases", "cases --json", "--help", "--version", "build $BASE $FIXED -o p.dll", "diff $BASE $FIXED --html p"]
)
@pytest.mark.parametrize(("to", "told"), [(">&-", _CLOSED), (">/dev/full", _FULL)])
def test_nowhere_to_put_a_result(image, verb: str, to: str, told: str, tmp_path: Path) -> None:
    base, fixed = (image("basic", Machine.X64, side) for side in ("base", "fixed"))
    assert _shell(f"hotpatch {verb} {to}", tmp_path, BASE=base, FIXED=fixed) == (2, "", told)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["build $BASE $FIXED -o", "diff $BASE $FIXED --html"])
def test_a_device_that_cannot_be_written_gets_no_success_told(image, verb: str, tmp_path: Path) -> None:
    base, fixed = (image("basic", Machine.X64, side) for side in ("base", "fixed"))
    told = "hotpatch: error: /dev/full: cannot be written: No space left on device; name a file that can be [cannot-be-written]\n"
    assert _shell(f"hotpatch {verb} /dev/full", tmp_path, BASE=base, FIXED=fixed) == (2, "", told)
    code, out, err = _shell(f"hotpatch {verb} /dev/null", tmp_path, BASE=base, FIXED=fixed)
    assert (code, err) == (0, "hotpatch: wrote /dev/null\n" if "--html" in verb else "")
    assert "clamp" in out


@pytest.mark.parametrize("to", ["2>&-", "2>/dev/full"])
def test_nowhere_to_put_a_message(image, to: str, tmp_path: Path) -> None:
    base, fixed = (image("basic", Machine.X64, side) for side in ("base", "fixed"))
    assert _shell(f"hotpatch nosuch {to}", tmp_path) == (2, "", "")
    code, out, _ = _shell(f'hotpatch build "{base}" "{fixed}" -o p.dll -v {to}', tmp_path)
    assert code == 0
    assert "1 function" in out
    assert (tmp_path / "p.dll").read_bytes()[:2] == b"MZ"


def test_no_standard_input(tmp_path: Path) -> None:
    code, _, err = _shell("hotpatch demo --arch x64 --step <&-", tmp_path)
    assert (code, err) == (0, "")


def test_reader_that_goes_away_before_a_patch_is_written(image, tmp_path: Path) -> None:
    base, fixed = (image("basic", Machine.X64, side) for side in ("base", "fixed"))
    assert _shell(f'{{ hotpatch build "{base}" "{fixed}" -o p.dll; echo $? >code; }} | true', tmp_path) == (0, "", "")
    assert (tmp_path / "code").read_text() == "0\n"
    assert (tmp_path / "p.dll").exists()


def test_names_that_are_no_text(ask: Ask, image, machine, tmp_path: Path) -> None:
    """They stand in patch and page in one way, whoever builds them."""
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.dll")
    fixed, patch, page = image("basic", machine, "fixed"), tmp_path / "p.dll", tmp_path / "p.html"
    Path(odd).write_bytes(Path(image("basic", machine)).read_bytes())
    assert ask("build", odd, fixed, "-o", patch, "--only", "rva:0x1010" if machine is Machine.X64 else "clamp").code == 0
    assert ask("inspect", patch, "--json").document("inspect-patch")["provenance"]["base"] == "b%FF.dll"
    assert "returned 10" in ask("call", odd, "clamp", 11, 10, "--patch", patch).out
    assert ask("diff", odd, fixed, "--html", page).code == 0
    assert r"b\udcff.dll" in page.read_text(encoding="utf-8")


def test_names_that_would_act_on_the_terminal(ask: Ask, image, machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    odd, shown = "a\x1b[31m\n\u202eb.dll", r"a\x1b[31m\n\u202eb.dll"
    assert ask("inspect", odd).error.startswith(f"{shown}: ")
    Path(odd).write_bytes(Path(image("basic", machine)).read_bytes())
    for command in (["inspect", odd], ["call", odd, odd], ["diff", odd, odd, "-v"], ["run", odd], ["build", odd, odd, "-o", odd]):
        answer = ask(*command)
        assert not {"\x1b", "\u202e"} & {*answer.out, *answer.err}
        assert r"a\x1b[31m" in answer.out + answer.err or command[0] == "build"
    assert ask("inspect", odd).out.startswith(f"{shown}: ")


def test_names_that_would_break_lines(ask: Ask, image, machine, tmp_path: Path) -> None:
    base, fixed, patch = tmp_path / "b\nb.dll", tmp_path / "f\nf.dll", tmp_path / "p.dll"
    for path, side in ((base, "base"), (fixed, "fixed")):
        path.write_bytes(Path(image("basic", machine, side)).read_bytes())
    assert ask("build", base, fixed, "-o", patch).code == 0
    lines = ask("inspect", patch).out.splitlines()
    assert lines[1] == r"for b\nb.dll"
    assert [line for line in lines if line.startswith("made from")] == [rf"made from f\nf.dll by hotpatch {hotpatch.__version__}"]
    assert ask("call", base, "nope").out.splitlines()[1].startswith(r"    b\nb.dll has no function called nope (")


def test_pipes_are_no_files(ask: Ask, image, patch, machine, tmp_path: Path) -> None:
    """Nobody may be at their other end."""
    pipe, good = tmp_path / "pipe", image("basic", machine)
    os.mkfifo(pipe)
    for command in (
        ["inspect", pipe],
        ["diff", good, pipe],
        ["call", good, "clamp", "1", "2", "--patch", pipe],
        ["verify", good, pipe, "--fixed", good],
    ):
        answer = ask(*command)
        assert (answer.code, answer.error) == (2, f"{pipe}: is a pipe, not a regular file; give a copy of it as a file [not-a-file]")


def test_a_program_may_be_fed_from_a_pipe(image, machine, tmp_path: Path) -> None:
    server = find_case("overflow-check").manifest.program[0]
    (tmp_path / "requests").write_text(server.stdin, encoding="utf-8")
    run = f"hotpatch run $SERVER {' '.join(server.args)} --json --stdin"
    fed, read = (
        _shell(command, tmp_path, SERVER=str(image("overflow-check", machine)))
        for command in (f"cat requests | {run} /dev/stdin", f"{run} requests")
    )
    assert fed == read
    assert len(fed[1]) > len(server.stdin)
