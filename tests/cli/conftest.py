"""Commands run in this process, fixtures and patches built once."""

from __future__ import annotations

import io
import sys

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases import find_case
from hotpatch.cli import run
from tests.cli.front import Answer, Ask


@pytest.fixture(params=list(Machine), ids=str)
def machine(request: pytest.FixtureRequest) -> Machine:
    return request.param


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Run a command; standard input is empty unless given."""

    def command(*arguments: object, stdin: str = "") -> Answer:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    return command


@pytest.fixture(scope="session")
def image():
    """Path of a case's image, as text."""

    def path(case: str, machine: Machine, side: str = "base") -> str:
        return str(find_case(case).image(machine, side))

    return path


@pytest.fixture(scope="session")
def patch(tmp_path_factory: pytest.TempPathFactory, image):
    """Path of a case's patch, as text."""
    built: dict[tuple[str, Machine, str, int], str] = {}

    def path(case: str, machine: Machine, side: str = "fixed", sequence: int = 1) -> str:
        key = case, machine, side, sequence
        if key not in built:
            made = hotpatch.build(
                hotpatch.diff(hotpatch.open(image(case, machine)), hotpatch.open(image(case, machine, side))), sequence=sequence
            )
            target = tmp_path_factory.mktemp(case) / f"fix-{machine}-{sequence}.dll"
            made.save(target)
            built[key] = str(target)
        return built[key]

    return path
