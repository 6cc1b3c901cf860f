"""Patches that the builder makes from the shipped cases, applied to fake processes and run."""

from __future__ import annotations

from functools import cache

import pytest

from hotpatch.arch import Machine, Redirect
from hotpatch.builder import build_patch
from hotpatch.cases import Case, find_case, load_cases
from hotpatch.differ import diff_images
from hotpatch.engine import Engine
from hotpatch.errors import ApplyRefused, Rule
from hotpatch.image import Image, open_image
from hotpatch.patch import Patch

from .fake import Fake
from .run import call

LOADS = (0x1_8000_0000, 0x7FF6_1234_0000)


def plain(case: Case) -> bool:
    """Whether its calls need nothing of the process but memory: integers in registers, and no system function."""
    manifest = case.manifest
    return (
        manifest.kind == "dll"
        and not (case.folder / "hotpatch.def").is_file()
        and not case.build_options(Machine.X64, "base").kernel32
        and manifest.expect.outcome == "patched"
        and bool(manifest.call)
        and all(
            isinstance(row.before, int) and len(row.args) <= 4 and all(argument.lstrip("-").isdigit() for argument in row.args)
            for row in manifest.call
        )
    )


CASES = [case for case in load_cases() if plain(case)]


@cache
def image(case: str, machine: Machine, side: str) -> Image:
    return open_image(find_case(case).image(machine, side))


@cache
def patch(case: str, machine: Machine, redirect: Redirect, side: str = "fixed", sequence: int = 1) -> Patch:
    return build_patch(diff_images(image(case, machine, "base"), image(case, machine, side)), redirect=redirect, sequence=sequence)


def check(case: Case, fake: Fake, base: Image, va: int, phase: str) -> None:
    for row in case.manifest.call:
        expected = row.expected(phase)
        entry = va + base.function_named(row.function).entry
        found = call(fake, entry, *map(int, row.args))[0]
        assert found == expected % (1 << 64), (phase, row.function, row.args)


def test_most_cases_are_tried_here():
    assert len(CASES) >= 8


@pytest.mark.parametrize("redirect", list(Redirect))
@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_before_patched_reverted_again(case, machine, load, redirect):
    base = image(case.name, machine, "base")
    fake = Fake(machine)
    fake.load(base, load, base.name)
    engine = Engine(fake)
    if base.entry_point:
        call(fake, load + base.entry_point, load, 1, 0)  # DllMain, process attach
    check(case, fake, base, load, "before")
    text = bytes(fake.blocks[load].memory[0x1000 : base.sections[0].range.end])
    applied = engine.apply(patch(case.name, machine, redirect))
    assert {function.name for function in applied.functions} == set(case.manifest.expect.travels)
    check(case, fake, base, load, "patched")
    applied.revert()
    assert bytes(fake.blocks[load].memory[0x1000 : base.sections[0].range.end]) == text
    check(case, fake, base, load, "reverted")
    applied = engine.apply(applied.patch)
    check(case, fake, base, load, "again")
    side = case.manifest.expect.then
    if side:
        later = engine.apply(patch(case.name, machine, redirect, side, 2))
        check(case, fake, base, load, "then")
        later.revert()
        check(case, fake, base, load, "popped")


def test_another_build_is_refused(machine):
    other = image("wrong-base-refused", machine, "other")
    fake = Fake(machine)
    fake.load(other, LOADS[0], image("wrong-base-refused", machine, "base").name)
    before = fake.snapshot()
    with pytest.raises(ApplyRefused) as caught:
        Engine(fake).apply(patch("wrong-base-refused", machine, Redirect.HPAT))
    assert [refusal.rule for refusal in caught.value.refusals] == [Rule.WRONG_BASE]
    assert fake.snapshot() == before
