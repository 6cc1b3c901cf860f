"""The shipped files, and scenarios lived through once."""

from __future__ import annotations

from pathlib import Path

import pytest

from hotpatch.arch import Machine
from hotpatch.cases import fixtures_folder
from hotpatch.servicing.releases import Catalogue, read_releases
from hotpatch.servicing.results import Simulation
from hotpatch.servicing.scenario import read_scenario
from hotpatch.servicing.simulate import simulate

FOLDER = fixtures_folder() / "servicing"


@pytest.fixture
def folder() -> Path:
    return FOLDER


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return Catalogue(FOLDER, read_releases(FOLDER / "releases.toml"))


@pytest.fixture(params=list(Machine), ids=str)
def machine(request: pytest.FixtureRequest) -> Machine:
    return request.param


@pytest.fixture(scope="session")
def lived():
    """A shipped scenario's simulation, by name."""
    known: dict[str, Simulation] = {}

    def live(name: str) -> Simulation:
        if name not in known:
            known[name] = simulate(read_scenario(name, FOLDER))
        return known[name]

    return live
