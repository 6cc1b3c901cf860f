"""The check of the built wheel (CI runs it on a real one) finds what is missing, changed, or too much."""

from __future__ import annotations

import tomllib
import zipfile
from pathlib import Path

import pytest

from tools import check_wheel


def _wheel(path: Path, change) -> Path:
    files = {
        f"{folder}/{file.relative_to(source).as_posix()}": file.read_bytes()
        for folder, source in check_wheel.CARRIED.items()
        for file in source.rglob("*")
        if file.is_file()
    }
    files["hotpatch/py.typed"] = b""
    change(files)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda files: None, None),
        (lambda files: files.pop("hotpatch/_schemas/diff.json"), "hotpatch/_schemas/diff.json: is missing"),
        (lambda files: files.pop("hotpatch/_fixtures/basic/x64/base.dll"), "hotpatch/_fixtures/basic/x64/base.dll: is missing"),
        (lambda files: files.update({"hotpatch/_fixtures/basic/x64/base.dll": b"MZ"}), "hotpatch/_fixtures/basic/x64/base.dll: differs"),
        (lambda files: files.update({"hotpatch/_schemas/old.json": b"{}"}), "hotpatch/_schemas/old.json: comes from nowhere"),
        (lambda files: files.pop("hotpatch/py.typed"), "hotpatch/py.typed: is missing"),
    ],
)
def test_problems(tmp_path: Path, change, problem: str | None) -> None:
    assert check_wheel.problems(_wheel(tmp_path / "one.whl", change)) == ([] if problem is None else [problem])


def test_what_is_checked_is_what_the_project_says_it_carries() -> None:
    project = tomllib.loads((check_wheel.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    carried = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert {target: check_wheel.ROOT / source for source, target in carried.items()} == check_wheel.CARRIED


def test_the_gate_runs_it() -> None:
    assert '.venv/bin/python tools/check_wheel.py "$work"/dist/*.whl' in (check_wheel.ROOT / ".ci" / "run").read_text(encoding="utf-8")
