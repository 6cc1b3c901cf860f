"""Python's search for garbage is held off, and nothing of it is lost."""

from __future__ import annotations

import gc
import weakref

import pytest

from hotpatch.collection import _Program, without_collection


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def nothing_frozen(monkeypatch):
    """As in a program that has frozen nothing; the tests themselves have (``conftest.py``)."""
    monkeypatch.setattr(_Program, "has_frozen", False)
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    yield
    if frozen:
        gc.freeze()


def test_what_was_made_is_not_looked_through_at_the_end(nothing_frozen) -> None:
    seen: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        seen.append(info["generation"])

    gc.collect(0)  # or the next thing made might be what starts a search
    gc.callbacks.append(note)
    try:
        with without_collection():
            kept = [[number] for number in range(10 * gc.get_threshold()[0])]
        assert not seen
    finally:
        gc.callbacks.remove(note)
    assert gc.isenabled()
    assert not gc.get_freeze_count()
    assert len(kept) > gc.get_threshold()[0]


def test_garbage_made_meanwhile_is_found_later(nothing_frozen) -> None:
    with without_collection():
        cycle = weakref.ref(Cycle())
    assert cycle() is not None
    gc.collect()
    assert cycle() is None


def test_what_a_program_has_frozen_stays_frozen() -> None:
    gc.freeze()
    before = gc.get_freeze_count()
    with without_collection():
        pass
    assert gc.get_freeze_count() == before > 0


def test_what_is_frozen_is_counted_once(monkeypatch) -> None:
    """Each count is a walk through all of it."""
    counted: list[int] = []
    monkeypatch.setattr(_Program, "has_frozen", False)
    monkeypatch.setattr(gc, "get_freeze_count", lambda: counted.append(1) or 1)
    for _ in range(3):
        with without_collection():
            pass
    assert len(counted) == 1


def test_it_stays_off_where_it_was_off() -> None:
    gc.disable()
    try:
        with without_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
