"""Exceptions through frames whose handler checks a stack cookie: the handler runs for patched frames too, with the data that travelled."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases import BuildOptions
from tools import build_fixtures

GUARDED = Path(__file__).with_name("guarded.c")
CHECKED, DAMAGED, CAUGHT = 10_000, 100, 1000
SCOPED = 77


@dataclass(frozen=True)
class Guarded:
    """The two builds of ``guarded.c`` for one of the handlers."""

    plain: bool
    name: str = "guarded"
    kind: str = "dll"
    sides: tuple[str, ...] = ("base", "fixed")

    def build_options(self, machine: Machine, side: str) -> BuildOptions:
        defines = [*(["-DPLAIN"] if self.plain else []), *(["-DFIXED"] if side == "fixed" else [])]
        return BuildOptions(kernel32=True, ntdll=True, cflags=("-fms-extensions", *defines))


def images(folder: Path, machine: Machine, plain: bool) -> list[hotpatch.Image]:
    pytest.importorskip("ziglang")
    sources, out = folder / "sources", folder / "out"
    shutil.copytree(build_fixtures.FIXTURES / "common", sources / "common")
    product = Guarded(plain)
    for side in product.sides:
        (sources / product.name).mkdir(exist_ok=True)
        shutil.copy(GUARDED, sources / product.name / f"{side}.c")
        build_fixtures.build(build_fixtures.Job(product, machine, side), sources, out, folder)
    return [hotpatch.open(out / product.name / machine / f"{side}.dll") for side in product.sides]


@pytest.mark.compiler
@pytest.mark.parametrize("plain", [True, False], ids=["__GSHandlerCheck", "__GSHandlerCheck_SEH"])
@pytest.mark.parametrize("machine", list(Machine))
def test_the_cookie_is_checked_when_an_exception_passes(tmp_path: Path, machine: Machine, plain: bool) -> None:
    base, fixed = images(tmp_path, machine, plain)
    process = hotpatch.Process(base)
    passed = CAUGHT if plain else SCOPED  # with scopes the function itself catches
    assert process.call("request", 3) == 6
    assert process.call("request", 10) == passed + CHECKED
    late = 0 if plain else DAMAGED  # it then checks once more before it returns
    assert process.call("request", 20) == passed + 2 * CHECKED + DAMAGED + late
    before = DAMAGED + late
    patch = hotpatch.build(hotpatch.diff(base, fixed))
    assert [function.name for function in patch.functions] == ["guarded"]
    applied = process.apply(patch)
    assert process.call("request", 3) == 6 + 2 * CHECKED + before
    assert process.call("request", 10) == passed + 3 * CHECKED + before
    assert process.call("request", 20) == passed + 4 * CHECKED + before
    applied.revert()
    assert process.call("request", 20) == passed + 5 * CHECKED + 2 * before
