"""Scopes of ``__try`` in one function, and RtlUnwindEx, in a program that writes down what ran; Wine agrees but for one thing."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases import BuildOptions
from tests.wine import in_wine
from tools import build_fixtures

SOURCE = Path(__file__).with_name("scopes.c")
LEFT_ONCE = {"finally around except": 134568, "nothing in the except block": 68}
"""A finally block runs when control leaves its try block (MS Learn, "try-finally statement"), and an except block within that does not.

Wine 8 runs it before the except block too: it asks finally scopes alone whether the target lies in them.
"""
ALIKE = {
    "without failure": 12568,
    "except around finally": 13748,
    "both around a refusal": 23748,
    "unwound by hand": 17,
    "landed with": 42,
}


@dataclass(frozen=True)
class Scopes:
    """The one build of ``scopes.c``."""

    name: str = "scopes"
    kind: str = "exe"
    sides: tuple[str, ...] = ("base",)

    def build_options(self, machine: Machine, side: str) -> BuildOptions:
        return BuildOptions(kernel32=True, ntdll=True, common=("console.c",), cflags=("-fms-extensions",))


def program(folder: Path, machine: Machine) -> Path:
    pytest.importorskip("ziglang")
    sources, out = folder / "sources", folder / "out"
    shutil.copytree(build_fixtures.FIXTURES / "common", sources / "common")
    names = sources / "common" / "kernel32.def"
    names.write_text(names.read_text(encoding="ascii") + "  RtlUnwindEx\n", encoding="ascii")
    (sources / "scopes").mkdir()
    shutil.copy(SOURCE, sources / "scopes" / "base.c")
    build_fixtures.build(build_fixtures.Job(Scopes(), machine, "base"), sources, out, folder)
    return out / "scopes" / machine / "base.exe"


def lines(output: str) -> dict[str, int]:
    return {label: int(value) for label, _, value in (line.rpartition(" ") for line in output.splitlines())}


@pytest.mark.compiler
@pytest.mark.parametrize("machine", list(Machine))
def test_blocks_run_once_and_in_order(tmp_path: Path, machine: Machine) -> None:
    process = hotpatch.Process(hotpatch.open(program(tmp_path, machine)))
    process.start()
    done = process.run()
    assert (done.exit_code, done.fault) == (0, None)
    assert lines(done.output) == LEFT_ONCE | ALIKE


@pytest.mark.compiler
@pytest.mark.wine
def test_wine_agrees_but_for_finally_around_except(tmp_path: Path, wine_prefix: Path) -> None:
    code, output = in_wine(program(tmp_path, Machine.X64), (), b"", wine_prefix)
    found = lines(output)
    assert (code, found.keys()) == (0, (LEFT_ONCE | ALIKE).keys())
    assert found | LEFT_ONCE == LEFT_ONCE | ALIKE
