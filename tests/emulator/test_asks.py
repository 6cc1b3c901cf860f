"""What the C run time asks of the system at its start, in a program that writes down the answers; Wine gives the same."""

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

from .bare import DATA, MACHINES, Bare

SOURCE = Path(__file__).with_name("asks.c")
NAMES = (
    "VerSetConditionMask",
    "VerifyVersionInfoW",
    "GetStringTypeW",
    "LCMapStringW",
    "LCMapStringEx",
    "GetCPInfo",
    "InterlockedFlushSList",
)


@dataclass(frozen=True)
class Asks:
    """The one build of ``asks.c``."""

    name: str = "asks"
    kind: str = "exe"
    sides: tuple[str, ...] = ("base",)

    def build_options(self, machine: Machine, side: str) -> BuildOptions:
        return BuildOptions(kernel32=True, common=("console.c",))


def program(folder: Path, machine: Machine) -> Path:
    pytest.importorskip("ziglang")
    sources, out = folder / "sources", folder / "out"
    shutil.copytree(build_fixtures.FIXTURES / "common", sources / "common")
    names = sources / "common" / "kernel32.def"
    names.write_text(names.read_text(encoding="ascii") + "".join(f"  {name}\n" for name in NAMES), encoding="ascii")
    (sources / "asks").mkdir()
    shutil.copy(SOURCE, sources / "asks" / "base.c")
    build_fixtures.build(build_fixtures.Job(Asks(), machine, "base"), sources, out, folder)
    return out / "asks" / machine / "base.exe"


@pytest.mark.compiler
@pytest.mark.wine
def test_wine_gives_the_same_answers(tmp_path: Path, wine_prefix: Path) -> None:
    code, expected = in_wine(program(tmp_path, Machine.X64), (), b"", wine_prefix)
    assert code == 0
    for machine in Machine:
        process = hotpatch.Process(hotpatch.open(program(tmp_path / machine, machine)))
        process.start()
        done = process.run()
        assert (done.exit_code, done.fault) == (0, None)
        assert done.output.splitlines() == expected.splitlines()


@pytest.fixture(params=MACHINES)
def bare(request: pytest.FixtureRequest) -> Bare:
    return Bare(request.param)


@pytest.mark.parametrize(
    ("mask", "types", "condition", "found"), [(0, 2, 3, 0x18), (0x18, 1, 3, 0x1B), (0, 3, 1, 8), (5, 0, 3, 5), (5, 2, 8, 5)]
)
def test_conditions_have_three_bits_each(bare: Bare, mask: int, types: int, condition: int, found: int) -> None:
    assert bare.call_api("VerSetConditionMask", mask, types, condition) == found


@pytest.mark.parametrize(("major", "condition", "error"), [(10, 3, 0), (11, 3, 1150), (10, 1, 0), (11, 5, 0), (10, 2, 1150)])
def test_the_system_is_of_version_10(bare: Bare, major: int, condition: int, error: int) -> None:
    bare.poke(DATA, b"".join(value.to_bytes(4, "little") for value in (284, major, 0)).ljust(284, b"\0"))
    bare.call_api("SetLastError", 0)
    assert bare.call_api("VerifyVersionInfoW", DATA, 2, condition << 3) == (not error)
    assert bare.last_error == error


def test_characters_have_kinds_and_cases(bare: Bare) -> None:
    bare.poke(DATA, "aZ9 \t.".encode("utf-16-le"))
    assert bare.call_api("GetStringTypeW", 1, DATA, 6, DATA + 0x100) == 1
    kinds = [bare.peek(DATA + 0x100 + 2 * at, 2) for at in range(6)]
    assert kinds == [0x382, 0x301, 0x284, 0x248, 0x268, 0x210]
    assert bare.call_api("LCMapStringW", 0, 0x200, DATA, 2, DATA + 0x100, 2) == 2
    assert bare.system.memory.read(DATA + 0x100, 4) == "AZ".encode("utf-16-le")
    assert bare.call_api("GetCPInfo", 65001, DATA + 0x100) == 1
    assert (bare.peek(DATA + 0x100, 4), bare.peek(DATA + 0x104, 4)) == (4, ord("?"))


def test_a_list_is_taken_off_whole(bare: Bare) -> None:
    bare.poke(DATA, (3 | 7 << 16).to_bytes(8, "little") + (DATA + 0x40 | 1).to_bytes(8, "little"))
    assert bare.call_api("InterlockedFlushSList", DATA) == DATA + 0x40
    assert bare.system.memory.read(DATA, 16) == bytes(16)
