"""Fixtures of the patch file's tests."""

from __future__ import annotations

import pytest

from hotpatch.arch import Machine
from hotpatch.patch import PatchContents
from tests.patch.samples import contents


@pytest.fixture(params=list(Machine), ids=[machine.value for machine in Machine])
def machine(request: pytest.FixtureRequest) -> Machine:
    found: Machine = request.param
    return found


@pytest.fixture
def made(machine: Machine) -> PatchContents:
    return contents(machine)
