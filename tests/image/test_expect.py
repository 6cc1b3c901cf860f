"""Code that is read by another image's outlines is understood as if it had been decoded."""

from __future__ import annotations

import pytest

from hotpatch.arch import Outline
from hotpatch.image import open_image
from tests.image.conftest import FIXTURES, built_files, file_id


def pairs():
    """Each base image with every other image of its case and machine, both ways."""
    for base in built_files():
        for other in sorted(base.parent.glob(f"*{base.suffix}")):
            if other != base:
                yield pytest.param(base, other, id=f"{file_id(base)}-{other.stem}")
                yield pytest.param(other, base, id=f"{file_id(base)}-{other.stem}-reversed")


@pytest.mark.parametrize("pdb", ["auto", None])
@pytest.mark.parametrize(("base", "other"), list(pairs()))
def test_expecting_another_image_changes_nothing(base, other, pdb):
    told, untold = open_image(other, pdb=pdb), open_image(other, pdb=pdb)
    told.expect(open_image(base, pdb=pdb))
    assert told.functions == untold.functions
    for function in untold.functions:
        assert told.references(function) == untold.references(function)
        assert told.jump_tables(function) == untold.jump_tables(function)
        for part in function.ranges:
            one, other = told.reading(part), untold.reading(part)
            assert (one.outline.forms, one.outline.masked, one.leads) == (other.outline.forms, other.outline.masked, other.leads)


def test_most_code_is_not_decoded_again(monkeypatch):
    paths = [FIXTURES / "overflow-check" / "x64" / name for name in ("base.exe", "fixed.exe")]
    base, fixed = map(open_image, paths)
    fixed.expect(base)
    decoded = []
    rows = type(fixed.architecture).rows
    monkeypatch.setattr(
        type(fixed.architecture),
        "rows",
        lambda self, code, address, **more: decoded.append(len(code)) or rows(self, code, address, **more),
    )
    size = sum(function.size for function in fixed.functions)
    assert 0 < sum(decoded) < size / 2


@pytest.mark.parametrize("file", [pytest.param(path, id=file_id(path)) for path in built_files()])
def test_code_that_stands_several_times_is_understood_as_if_each_were_decoded(file):
    image = open_image(file, pdb=None)
    for part, (code, tables, outline, leads) in image.readings.items():
        if not tables:
            plain = Outline.of(image.architecture, code, part.start, image.architecture.rows(code, part.start))
            assert (outline.forms, outline.inner, outline.masked, leads) == (plain.forms, plain.inner, plain.masked, plain.leads)


def test_code_whose_pages_are_followed_is_decoded_once_where_it_stands_several_times():
    image = open_image(FIXTURES / "delay-import" / "arm64" / "base.dll")
    again = [part for part, reading in image.readings.items() if reading.outline.address != part.start]
    assert len(again) > 1, "the ways into the delay loader are alike"
