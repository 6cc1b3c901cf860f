"""What every verb keeps: streams, exit codes, bad input, quiet, colour, help, the same bytes twice."""

from __future__ import annotations

import json
import os
import shlex
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import hotpatch
from hotpatch import __version__
from hotpatch.arch import Machine
from hotpatch.cli.app import EXAMPLES, VERBS
from hotpatch.cli.outcome import Exit
from tests.cli.front import Ask, check

ROOT = Path(__file__).resolve().parents[2]
PE_HEADER_AT = 0x3C


def _commands(image, patch, machine: Machine, folder: Path) -> dict[str, list[str]]:
    """One command that succeeds for each verb."""
    base, fixed = image("basic", machine), image("basic", machine, "fixed")
    return {
        "demo": ["demo", "basic", "--arch", machine],
        "cases": ["cases"],
        "inspect": ["inspect", patch("basic", machine)],
        "diff": ["diff", base, fixed],
        "build": ["build", base, fixed, "-o", str(folder / "out.dll")],
        "call": ["call", base, "clamp", "11", "10"],
        "run": ["run", image("many-threads", machine), "--stop-at", "500"],
        "verify": ["verify", base, patch("basic", machine), "--fixed", fixed, "--call", "clamp 11 10"],
    }


@pytest.fixture(params=list(VERBS))
def verb(request: pytest.FixtureRequest) -> str:
    return request.param


def _process(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False, timeout=60, **options)


def test_same_command_same_bytes(ask: Ask, image, patch, machine, verb: str, tmp_path: Path) -> None:
    command = _commands(image, patch, machine, tmp_path)[verb]
    for form in ((), ("--json",)):
        first, second = ask(*command, *form), ask(*command, *form)
        assert first == second
        assert (first.code, first.err) == (0, "")
        assert first.out.endswith("\n")
    json.loads(second.out)


def test_quiet_and_verbose(ask: Ask, image, patch, machine, verb: str, tmp_path: Path) -> None:
    command = _commands(image, patch, machine, tmp_path)[verb]
    plain = ask(*command)
    quiet = replace(plain, out="") if verb in ("demo", "build", "verify") else plain  # what they print tells how it went
    for option in ("-q", "--quiet"):
        assert ask(*command, option) == quiet
    for option in ("-v", "--verbose"):
        loud = ask(*command, option)
        assert (loud.code, loud.out) == (0, plain.out)
        assert all(line.startswith("hotpatch: ") for line in loud.err.splitlines())
    assert ask(*command, "-v", "-q") == quiet


def test_colour(ask: Ask, image, patch, machine, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = _commands(image, patch, machine, tmp_path)[verb]
    plain = ask(*command)
    assert "\x1b" not in plain.out
    for option in ("auto", "never"):
        assert ask(*command, "--color", option) == plain
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    assert ask(*command) == plain
    always = ask(*command, "--color", "always")
    assert always.err == ""
    if verb in ("demo", "diff", "inspect"):
        assert "\x1b[" in always.out
    assert "\x1b" not in ask(*command, "--color", "always", "--json").out


def test_help_shows_an_example(ask: Ask, verb: str) -> None:
    answer = ask(verb, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"Usage: hotpatch {verb} {VERBS[verb][3]}\n")
    assert not {"STR", "STR...", "INT", "ARGS"} & set(answer.out.split())
    example = VERBS[verb][2]
    assert example.split()[:2] == ["hotpatch", verb]
    assert answer.out.rstrip().splitlines()[-1] == example
    assert all(option in answer.out for option in ("--json", "--quiet", "-q", "--verbose", "-v", "--color"))


def test_examples_work_when_pasted_one_after_the_other(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / EXAMPLES)
    for name in ("cases", "inspect", "diff", "build", "call", "run", "verify"):
        answer = ask(*shlex.split(VERBS[name][2].replace("/tmp/", f"{tmp_path}/"))[1:])
        assert (answer.code, answer.err) == (0, ""), name
    assert [path.name for path in tmp_path.iterdir()] == ["fix.dll"]


def test_help_and_version(ask: Ask) -> None:
    answer = ask("--help")
    assert (answer.code, answer.err) == (0, "")
    assert all(f" {verb} " in answer.out for verb in VERBS)
    assert all(f"\n- {code.value}: " in answer.out for code in Exit)
    assert ask("--version").out == f"hotpatch {__version__}\n"
    assert ask("-h").out == answer.out


def test_usage(ask: Ask, verb: str) -> None:
    answer = ask(verb, "--nosuch")
    assert answer.code == 2
    assert "--nosuch" in answer.error or verb not in ("demo", "cases")
    assert ask("nosuch").code == 2
    assert "nosuch" in ask("nosuch").error


@pytest.mark.parametrize("option", [("--color", "green"), ("--sequence", "x"), ("--sequence",), ("--redirect", "far")])
def test_bad_option_values(ask: Ask, image, option) -> None:
    answer = ask("build", image("basic", Machine.X64), image("basic", Machine.X64, "fixed"), "-o", "unwritten.dll", *option)
    assert answer.code == 2
    assert option[0] in answer.error
    assert not Path("unwritten.dll").exists()


@pytest.mark.parametrize("sequence", ["0", "-1", str(2**32)])
def test_sequence_that_no_patch_can_have(ask: Ask, image, machine, sequence: str, tmp_path: Path) -> None:
    answer = ask("build", image("basic", machine), image("basic", machine, "fixed"), "-o", tmp_path / "fix.dll", "--sequence", sequence)
    assert answer.code == 2
    assert sequence in answer.error
    assert list(tmp_path.iterdir()) == []


def _broken(kind: str, good: Path, folder: Path) -> Path:
    """A file that is no image, each in its own way."""
    path, data = folder / f"{kind}.dll", bytearray(good.read_bytes())
    at = struct.unpack_from("<I", data, PE_HEADER_AT)[0]
    match kind:
        case "missing":
            return path
        case "folder":
            path.mkdir()
            return path
        case "empty":
            data.clear()
        case "text":
            data[:] = b"not a program\n" * 100
        case "truncated":
            del data[len(data) // 2 :]
        case "header only":
            del data[at + 30 :]
        case "i386":
            struct.pack_into("<H", data, at + 4, 0x14C)
        case "PE32":
            struct.pack_into("<H", data, at + 24, 0x10B)
        case "unreadable":
            path.symlink_to(path)
            return path
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "truncated", "header only", "i386", "PE32", "unreadable"])
def test_files_that_cannot_be_used(ask: Ask, image, patch, machine, kind: str, tmp_path: Path) -> None:
    good = image("basic", machine)
    bad = _broken(kind, Path(good), tmp_path)
    output = tmp_path / "out.dll"
    for command in (
        ["inspect", bad],
        ["diff", bad, good],
        ["diff", good, bad],
        ["build", bad, good, "-o", output],
        ["build", good, bad, "-o", output],
        ["call", bad, "clamp"],
        ["call", good, "clamp", "1", "2", "--patch", bad],
        ["call", good, "clamp", "1", "2", "--module", bad],
        ["run", bad],
        ["run", image("many-threads", machine), "--patch", bad],
        ["verify", bad, patch("basic", machine), "--fixed", good, "--call", "clamp 1 2"],
        ["verify", good, bad, "--fixed", good, "--call", "clamp 1 2"],
    ):
        for form in ([], ["--json"]):
            answer = ask(*command, *form)
            assert answer.code == 2, command
            assert answer.error.startswith(f"{bad}: "), command
            assert "; " in answer.error, "it ends with what to do"
    assert not output.exists()


def test_standard_input_that_cannot_be_read(ask: Ask, image, patch, machine, tmp_path: Path) -> None:
    good = image("basic", machine)
    for bad in (tmp_path, tmp_path / "no"):
        for command in (
            ["call", good, "clamp", "1", "2"],
            ["run", image("many-threads", machine)],
            ["verify", good, patch("basic", machine), "--fixed", image("basic", machine, "fixed"), "--call", "clamp 1 2"],
        ):
            answer = ask(*command, "--stdin", bad)
            assert answer.code == 2
            assert answer.error.startswith(f"{bad}: ")


def test_hybrid_image_is_refused(ask: Ask, image, patch, machine, tmp_path: Path) -> None:
    hybrid, good = tmp_path / "hybrid.dll", image("basic", machine)
    data = bytearray(Path(good).read_bytes())
    struct.pack_into("<H", data, struct.unpack_from("<I", data, PE_HEADER_AT)[0] + 4, 0xA64E)
    hybrid.write_bytes(data)
    for command, schema in (
        (["inspect", hybrid], "refused"),
        (["diff", hybrid, good], "refused"),
        (["build", good, hybrid, "-o", tmp_path / "out.dll"], "refused"),
        (["call", hybrid, "clamp"], "call"),
        (["run", hybrid], "run"),
        (["verify", hybrid, patch("basic", machine), "--fixed", good, "--call", "clamp 1 2"], "refused"),
    ):
        answer = ask(*command, "--json")
        assert answer.code == 4, command
        assert [refusal["rule"] for refusal in answer.document(schema)["refused"]] == ["hybrid-image"]
        text = ask(*command)
        assert (text.code, text.err) == (4, "")
        assert text.out.startswith("refused hybrid-image")
    assert not (tmp_path / "out.dll").exists()


def test_module_equals_command(image, machine) -> None:
    command = ["diff", image("basic", machine), image("basic", machine, "fixed"), "--json"]
    module = _process(sys.executable, "-m", "hotpatch", *command)
    script = _process(sys.executable, "-c", "from hotpatch.cli import main; main()", *command)
    assert (module.returncode, module.stderr) == (0, "")
    assert (script.returncode, script.stdout, script.stderr) == (module.returncode, module.stdout, module.stderr)
    check(json.loads(module.stdout), "diff")


_ALL_VERBS = "import json, sys; from hotpatch.cli import run; sys.exit(sum(run(command) for command in json.loads(sys.argv[1])))"


def test_same_bytes_whatever_the_hash_seed(image, patch, machine, tmp_path: Path) -> None:
    commands = _commands(image, patch, machine, tmp_path).values()
    told = json.dumps([[*command, *form] for command in commands for form in ([], ["--json"])])
    answers = [_process(sys.executable, "-c", _ALL_VERBS, told, env={"PYTHONHASHSEED": seed}) for seed in ("1", "2")]
    assert [(answer.returncode, answer.stderr) for answer in answers] == [(0, "")] * 2
    assert answers[0].stdout == answers[1].stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_streams_that_lack_letters(image, encoding: str) -> None:
    command = ["diff", image("basic", Machine.X64), image("basic", Machine.X64, "fixed")]
    answer = _process(sys.executable, "-m", "hotpatch", *command, env={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "clamp" in answer.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes there")
def test_path_that_is_no_text(image, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/\xff"
    Path(os.fsdecode(folder)).mkdir()
    odd = os.fsdecode(folder + b"/base.dll")
    Path(odd).write_bytes(Path(image("basic", Machine.X64)).read_bytes())
    for form in ([], ["--json"]):
        good = subprocess.run([sys.executable, "-m", "hotpatch", "inspect", odd, *form], capture_output=True, cwd=ROOT, check=False)
        assert (good.returncode, good.stderr) == (0, b"")
    json.loads(good.stdout)
    bad = subprocess.run([sys.executable, "-m", "hotpatch", "inspect", odd + "x"], capture_output=True, cwd=ROOT, check=False)
    assert bad.returncode == 2
    assert bad.stderr.startswith(b"hotpatch: error: ")
    assert bad.stderr.count(b"\n") == 1


@pytest.mark.parametrize("command", [["cases", "--json"], ["cases"], ["--help"], ["call", "--help"]], ids=" ".join)
def test_reader_that_goes_away(command: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "hotpatch", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as running:
        assert running.stdout
        assert running.stderr
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(timeout=60) == 0


def _terminal(arguments: list[str], columns: int) -> str:
    """What a command writes to a terminal, both streams."""
    pty = pytest.importorskip("pty")
    here, there = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(columns), "LINES": "50", "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, "-m", "hotpatch", *arguments], stdin=there, stdout=there, stderr=there, env=environment
    ) as child:
        os.close(there)
        written = b""
        while True:
            try:
                part = os.read(here, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            written += part
        child.wait(timeout=60)
    os.close(here)
    return written.decode()


def test_progress_and_colour_on_a_terminal(image) -> None:
    command = ["diff", image("basic", Machine.X64), image("basic", Machine.X64, "fixed")]
    loud = _terminal(command, 80)
    assert "comparing" in loud
    assert "\x1b[33m" in loud
    quiet = _terminal([*command, "-q", "--color", "never"], 80)
    assert "comparing" not in quiet
    assert "\x1b[" not in quiet


def test_narrow_terminal_folds_sentences_not_names(image) -> None:
    command = [
        "build",
        image("data-layout-refused", Machine.X64),
        image("data-layout-refused", Machine.X64, "fixed"),
        "-o",
        "unwritten.dll",
    ]
    lines = _terminal([*command, "-q", "--color", "never"], 60).splitlines()
    assert all(len(line.rstrip()) <= 60 for line in lines)
    assert all(line.startswith(("    ", "refused data-layout  ", "no patch was written")) for line in lines)
    names = _terminal(["cases", "-q", "--color", "never"], 60)
    assert all(f"\n{name}  " in names.replace("\r\n", "\n") for name in ("cosmetic", "data-layout-refused", "pc-relative-entry"))


def _without_start(good: str, target: Path, machine: Machine) -> Path:
    """A copy of an image whose entry point is an undefined instruction."""
    image, data = hotpatch.open(good), bytearray(Path(good).read_bytes())
    assert image.entry_point is not None
    section = image.section_at(image.entry_point)
    assert section is not None
    at = image.entry_point - section.rva + section.offset
    data[at : at + 4] = bytes.fromhex("0f0b0f0b") if machine is Machine.X64 else bytes(4)
    target.write_bytes(data)
    return target


def test_start_up_that_faults(ask: Ask, image, machine, tmp_path: Path) -> None:
    """Every verb that runs programs has a document for it."""
    base = _without_start(image("state-kept", machine), tmp_path / "base.dll", machine)
    fixed = _without_start(image("state-kept", machine, "fixed"), tmp_path / "fixed.dll", machine)
    fix = tmp_path / "fix.dll"
    assert ask("build", base, fixed, "-o", fix).code == 0
    checked = tmp_path / "checked.dll"
    for command, schema in (
        (["call", base, "balance", "1"], "call"),
        (["run", base], "run"),
        (["verify", base, fix, "--fixed", fixed, "--call", "balance 1"], "faulted"),
        (["build", base, fixed, "-o", checked, "--check"], "faulted"),
    ):
        answer = ask(*command, "--json")
        assert answer.code == 1
        assert answer.document(schema)["fault"]["kind"] == "illegal-instruction"
        text = ask(*command)
        assert (text.code, text.err) == (1, "")
        assert text.out.startswith("fault illegal-instruction at pc 0x")
    assert not checked.exists()


@pytest.mark.parametrize(
    ("verb", "columns"),
    [
        ("inspect", "padding entry"),
        ("diff", "verdict alike"),
        ("build", "redirect why runs agreed covered instructions"),
        ("verify", "patch boundaries entered old new mixed wrong"),
    ],
)
def test_help_says_what_columns_mean(ask: Ask, verb: str, columns: str) -> None:
    legend = ask(verb, "--help").out.split("\nColumns:\n")[1].split("\n\n")[0]
    told = [line.removeprefix("- ").split(":")[0] for line in legend.splitlines() if line.startswith("- ")]
    assert set(columns.split()) <= {word for line in told for word in line.split(", ")}
