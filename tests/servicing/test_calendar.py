"""Months, days and builds; which month brings what."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpatch.errors import InputError
from hotpatch.servicing.calendar import Calendar, MonthKind
from hotpatch.servicing.values import Build, Month


@pytest.mark.parametrize(
    ("month", "day"),
    [("2025-04", 8), ("2026-01", 13), ("2026-02", 10), ("2026-03", 10), ("2026-04", 14), ("2026-09", 8), ("2026-12", 8), ("2027-06", 8)],
)
def test_updates_come_on_the_second_tuesday(month: str, day: int) -> None:
    when = Month.parse(month)
    assert when.release_day == date(when.year, when.number, day)


@given(st.integers(1, 9998), st.integers(1, 12))
def test_the_second_tuesday_is_one_and_the_second(year: int, number: int) -> None:
    day = Month(year, number).release_day
    assert day.weekday() == 1
    assert 8 <= day.day <= 14


def test_a_year_has_four_baselines_and_two_hotpatches_after_each() -> None:
    rows = Calendar().year(2026)
    assert [row.kind for row in rows] == [MonthKind.BASELINE, MonthKind.HOTPATCH, MonthKind.HOTPATCH] * 4
    assert [row.sequence for row in rows] == [0, 1, 2] * 4
    assert [row.baseline.number for row in rows] == [1, 1, 1, 4, 4, 4, 7, 7, 7, 10, 10, 10]


@pytest.mark.parametrize(
    ("unplanned", "kinds", "sequences"),
    [
        (["2026-02"], "buh", [0, 0, 1]),
        (["2026-03"], "bhu", [0, 1, 0]),
        (["2026-02", "2026-03"], "buu", [0, 0, 0]),
    ],
)
def test_an_unplanned_baseline_starts_the_count_again(unplanned: list[str], kinds: str, sequences: list[int]) -> None:
    rows = Calendar.with_unplanned(map(Month.parse, unplanned)).year(2026)[:3]
    words = {"b": MonthKind.BASELINE, "h": MonthKind.HOTPATCH, "u": MonthKind.UNPLANNED}
    assert [row.kind for row in rows] == [words[kind] for kind in kinds]
    assert [row.sequence for row in rows] == sequences


def test_a_baseline_month_cannot_be_an_unplanned_one() -> None:
    with pytest.raises(InputError, match="2026-04: is a baseline month anyway"):
        Calendar.with_unplanned([Month(2026, 4)])


@pytest.mark.parametrize("text", ["", "2026", "2026-13", "2026-00", "2026-1", "26-01", "0000-01", "9999-01", "2026-01-13", "x"])
def test_no_month(text: str) -> None:
    with pytest.raises(InputError, match="is no month"):
        Month.parse(text)


@pytest.mark.parametrize(
    ("older", "newer"),
    [("26100.2032", "26100.2033"), ("26100.900", "26100.2033"), ("26100.2033", "26100.10000"), ("22631.9999", "26100.1")],
)
def test_builds_are_pairs_of_integers(older: str, newer: str) -> None:
    assert Build.parse(older) < Build.parse(newer)
    assert Build.parse(newer) > Build.parse(older)
    assert str(Build.parse(newer)) == newer


@pytest.mark.parametrize("text", ["", "26100", "26100.", ".2033", "26100.2033.1", "26100,2033", "-1.2", "26100.20x"])
def test_no_build(text: str) -> None:
    with pytest.raises(InputError, match="is no build"):
        Build.parse(text)


def test_months_and_builds_are_different_things() -> None:
    assert Month(2026, 1) != Build(2026, 1)
    assert len({Month(2026, 1), Month(2026, 1), Build(2026, 1)}) == 2
