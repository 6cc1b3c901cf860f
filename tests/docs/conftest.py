"""The process that commands are forked from, one for all pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docs.forks import forking


@pytest.fixture(scope="session")
def forks() -> Iterator[int]:
    """The descriptor to reach it by."""
    with forking() as channel:
        yield channel
