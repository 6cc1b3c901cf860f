from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.image import Image

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


@cache
def load(case: str, machine: Machine, side: str = "base") -> Image:
    folder = FIXTURES / case / machine.value
    path = next(path for path in (folder / f"{side}.dll", folder / f"{side}.exe") if path.exists())
    return hotpatch.open(path)


@pytest.fixture(scope="session")
def fixture_image():
    return load
