"""Images and patches of the cases, made once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases import find_case


@dataclass(frozen=True)
class Built:
    base: hotpatch.Image
    fixed: hotpatch.Image
    patch: hotpatch.Patch
    diff: hotpatch.ImageDiff

    def verify(self, calls, patch=None, fixed=None, **options):
        return hotpatch.verify(self.base, patch or self.patch, fixed=fixed or self.fixed, calls=calls, **options)


@pytest.fixture(scope="session")
def built():
    """Makes the images and the patch of a case on a machine, for a redirect."""

    @cache
    def make(name: str, machine: str, redirect: str = "hpat") -> Built:
        base, fixed = (hotpatch.open(find_case(name).image(Machine(machine), side)) for side in ("base", "fixed"))
        diff = hotpatch.diff(base, fixed)
        return Built(base, fixed, hotpatch.build(diff, redirect=redirect), diff)

    return make
