"""Pairs built on the spot, by the fixtures' own builder."""

from __future__ import annotations

import shutil
from functools import cache
from typing import TYPE_CHECKING

import pytest

from hotpatch.cases import read_case
from tests.differ.pairs import PAIRS
from tools import build_fixtures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hotpatch.arch import Machine


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Machine], tuple[Path, Path]]:
    """Builds a pair for a machine, once; gives the paths of its images, PDBs beside them."""

    @cache
    def build(name: str, machine: Machine) -> tuple[Path, Path]:
        pair, root = PAIRS[name], tmp_path_factory.mktemp("pairs")
        shutil.copytree(build_fixtures.FIXTURES / build_fixtures.COMMON, root / build_fixtures.COMMON)
        folder = root / name
        folder.mkdir()
        for number, side in enumerate(("base", "fixed")):
            (folder / f"{side}.c").write_text(pair.side(number), "utf-8")
        manifest = f'title = "x"\nshows = "x"\norigin = "x"\nkind = "dll"\n[build.all]\n{pair.build}\n[expect]\noutcome = "patched"\n'
        (folder / "case.toml").write_text(manifest, "utf-8")
        case = read_case(folder)
        for side in case.sides:
            build_fixtures.build(build_fixtures.Job(case, machine, side), root, root, root)
        return case.image(machine, "base"), case.image(machine, "fixed")

    return build
