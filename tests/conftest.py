"""What holds for all tests: the same examples each time, and in the gate nothing that it must run may be skipped."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.wine import served

settings.register_profile("gate", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))
"""The gate tries the same examples each time; ``HYPOTHESIS_PROFILE=search`` looks for new ones."""

MUST_RUN = ("wine", "compiler", "release")


def pytest_collection_finish() -> None:
    """What was collected, thousands of tests and all that was imported for them, lives on: no search for garbage looks through it again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """The interpreter takes all of it down at its end."""
    gc.unfreeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Where HOTPATCH_CI is set, a skipped test of :data:`MUST_RUN` has failed; one that is expected to fail has run."""
    report = yield
    must_run = "HOTPATCH_CI" in os.environ and any(item.get_closest_marker(name) for name in MUST_RUN)
    if must_run and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"the gate must run this, but it was skipped: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def wine_prefix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Wine prefix of this session's own."""
    with served(tmp_path_factory.mktemp("wine")) as prefix:
        yield prefix
