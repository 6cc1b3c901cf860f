"""Trials built on the spot, by the fixtures' own builder."""

from __future__ import annotations

import shutil
from functools import cache

import pytest

from hotpatch.cases import read_case
from tests.builder.pairs import MERGED, OTHERS, TRIALS
from tools import build_fixtures


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory):
    """Builds a trial for a machine, once; gives the paths of its images, PDBs beside them. ``cflags`` come last."""

    @cache
    def build(name, machine, cflags=()):
        trial, root = (TRIALS | MERGED | OTHERS)[name], tmp_path_factory.mktemp("trials")
        shutil.copytree(build_fixtures.FIXTURES / build_fixtures.COMMON, root / build_fixtures.COMMON)
        folder = root / name
        folder.mkdir()
        for number, side in enumerate(("base", "fixed")):
            (folder / f"{side}.c").write_text(trial.side(number), "utf-8")
        extra = f"[build.{machine}]\ncflags = {list(cflags)!r}\n" if cflags else ""
        manifest = (
            f'title = "x"\nshows = "x"\norigin = "x"\nkind = "dll"\n[build.all]\n{trial.build}\n{extra}[expect]\noutcome = "patched"\n'
        )
        (folder / "case.toml").write_text(manifest, "utf-8")
        case = read_case(folder)
        for side in case.sides:
            build_fixtures.build(build_fixtures.Job(case, machine, side), root, root, root)
        return case.image(machine, "base"), case.image(machine, "fixed")

    return build
