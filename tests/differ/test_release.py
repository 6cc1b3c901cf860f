"""A real release pair without symbols: exactly the known function changed, on both machines."""

from __future__ import annotations

import pytest

from hotpatch.arch import Machine, Use
from hotpatch.cases.releases import CVE_2025_69277, PILLOW, XXHASH, ZSTANDARD_CFFI, Release, extract
from hotpatch.differ import Listings, Verdict, diff_images
from hotpatch.errors import InputError
from hotpatch.image import open_image
from tests.differ.test_properties import assert_one_to_one

_CHANGED = {Machine.X64: 2, Machine.ARM64: 1}
"""On x64 a second function differs, by code generation."""


@pytest.mark.release
@pytest.mark.parametrize("machine", Machine)
def test_only_the_subgroup_check_changed(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        paths = extract(CVE_2025_69277, machine, cache=tmp_path_factory.getbasetemp() / "wheels")
    except InputError as error:
        pytest.skip(str(error))
    base, fixed = map(open_image, paths)
    diff = diff_images(base, fixed)
    changed = diff.of(Verdict.CHANGED)
    assert len(changed) == _CHANGED[machine]
    assert diff.of(Verdict.ADDED) == diff.of(Verdict.REMOVED) == ()
    assert diff.findings == ()
    assert_one_to_one(diff)
    caller = base.function_named("crypto_core_ed25519_is_valid_point")
    called = {reference.target for part in base.references(caller) for reference in part if reference.use is not Use.DATA}
    check = min(changed, key=lambda row: row.base.entry)
    assert check.base.entry in called
    assert check.fixed.size > check.base.size
    assert next(row for row in diff.functions if row.base == caller).verdict in (Verdict.IDENTICAL, Verdict.RELOCATED)
    (block,) = Listings(diff).of(check).blocks
    added = [line.fixed for line in block.lines if line.kind == "added"]
    assert block.kind == "changed"
    assert sum(text.startswith(("call ", "bl ")) for text in added) == 3, (
        "the added comparison has no branch of its own: it is in the block"
    )
    assert not any(line.kind == "removed" and line.base.startswith(("call ", "bl ")) for line in block.lines)


_COUNTS = [
    (PILLOW, Machine.X64, 6),
    (XXHASH, Machine.X64, 3),
    (XXHASH, Machine.ARM64, 6),
    (ZSTANDARD_CFFI, Machine.X64, 0),
    (ZSTANDARD_CFFI, Machine.ARM64, 0),
]


@pytest.mark.release
@pytest.mark.parametrize(("release", "machine", "count"), _COUNTS, ids=[f"{row[0].name}-{row[1]}" for row in _COUNTS])
def test_nothing_else_is_called_changed(release: Release, machine: Machine, count: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Pillow's callbacks, which only pointers lead to, stand right behind calls that never return; they are functions of their own."""
    try:
        paths = extract(release, machine, cache=tmp_path_factory.getbasetemp() / "wheels")
    except InputError as error:
        pytest.skip(str(error))
    diff = diff_images(*map(open_image, paths))
    assert len(diff.of(Verdict.CHANGED)) == count
    assert diff.of(Verdict.ADDED) == diff.of(Verdict.REMOVED) == ()
    assert diff.findings == ()
    assert_one_to_one(diff)
