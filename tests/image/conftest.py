"""Images to read: the fixtures' built files."""

from __future__ import annotations

from pathlib import Path

import pytest

from hotpatch.image import open_image

FIXTURES = Path(__file__).parents[2] / "fixtures"


def built_files():
    """The base image of every fixture."""
    return sorted(path for path in FIXTURES.glob("*/*/base.*") if path.suffix in {".dll", ".exe"})


def file_id(path):
    return "-".join(path.relative_to(FIXTURES).with_suffix("").parts)


@pytest.fixture(params=["x64", "arm64"])
def basic(request):
    """The path of a small DLL with a PDB, on each machine."""
    return FIXTURES / "basic" / request.param / "base.dll"


@pytest.fixture(params=built_files(), ids=file_id)
def built(request):
    """Each built image in turn, opened with its PDB."""
    return open_image(request.param)
