"""Cases are found in an installed package and in a checkout."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from hotpatch.cases import case_names, find_case, fixtures_folder, locate
from hotpatch.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

CHECKOUT = fixtures_folder()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder in place of the real one."""
    folder = tmp_path / "site" / "hotpatch"
    folder.mkdir(parents=True)
    monkeypatch.setattr(locate, "__file__", str(folder / "cases" / "locate.py"))
    return folder


@pytest.mark.parametrize("place", ["_fixtures", "../fixtures"])
def test_cases_are_found(package: Path, place: str) -> None:
    shutil.copytree(CHECKOUT / "basic", package / place / "basic")
    shutil.copytree(CHECKOUT / "common", package / place / "common")
    assert case_names() == ("basic",)
    assert find_case("basic").image("x64").is_file()


def test_the_package_goes_before_the_folder_beside_it(package: Path) -> None:
    (package / "_fixtures").mkdir()
    (package.parent / "fixtures").mkdir()
    assert fixtures_folder() == package / "_fixtures"


def test_without_cases_it_says_where_it_looked(package: Path) -> None:
    with pytest.raises(InputError, match="_fixtures"):
        fixtures_folder()
