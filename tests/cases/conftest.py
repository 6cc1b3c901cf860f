"""Images of the cases, with and without their PDBs."""

from __future__ import annotations

import shutil
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.cases.given import Given

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Given]:
    """Makes the :class:`Given` of a case, a machine, and whether there are PDBs; once each."""

    @cache
    def make(name: str, machine: str, pdb: bool) -> Given:
        def place(path: Path) -> Path:
            if pdb:
                return path
            bare = tmp_path_factory.mktemp(name) / path.name
            shutil.copyfile(path, bare)
            return bare

        return Given.of(name, machine, pdb, place)

    return make
