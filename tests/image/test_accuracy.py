"""How right functions and matches are without symbols, against the PDBs (``tools/accuracy.py``, ``docs/accuracy.md``)."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from hotpatch.arch import Machine
from hotpatch.cases.releases import NODE_PTY, NODE_PTY_COMPILER, NODE_PTY_MUTEX, extract
from hotpatch.errors import InputError
from tools import accuracy
from tools.accuracy import fixture_images, fixture_pairs
from tools.accuracy_measures import Entries, Matches, entries, matches, verdicts
from tools.accuracy_stress import SHUFFLED_FIX, without_names

LEAST_RECALL = LEAST_PRECISION = LEAST_BOUNDS = 0.995
LEAST_MATCHED = 0.99
LEAST_NAMELESS = 0.99


def check_entries(measured):
    assert measured.right >= LEAST_RECALL * measured.known > 0, measured.failures
    assert measured.right >= LEAST_PRECISION * measured.found, measured.failures
    assert measured.bounds_right >= LEAST_BOUNDS * measured.bounded > 0, measured.failures


def check_matches(measured):
    assert measured.right >= LEAST_MATCHED * measured.known > 0, measured.failures
    assert measured.changed_right == measured.changed
    assert measured.changed_wrong == 0
    assert measured.wrong == 0, measured.failures


def test_the_list_of_failures_stays_out_of_the_page(tmp_path, monkeypatch, capsys):
    page = tmp_path / "accuracy.md"
    page.write_text("before <!-- measured -->old<!-- /measured --> after", encoding="utf-8")
    monkeypatch.setattr(accuracy, "PAGE", page)
    monkeypatch.setattr(accuracy, "function_rows", lambda _: [("one", Machine.X64, Entries(known=2, found=1, right=1, failures=("lost",)))])
    assert accuracy.main(["--only", "functions", "--write", "--list"]) == 0
    written = page.read_text("utf-8")
    assert "| one | x64 | 2 | 1 | 1 | 1.0000 | 0.5000 |" in written
    assert "lost" not in written
    assert capsys.readouterr().out == "lost\n"


@pytest.mark.exhaustive
@pytest.mark.parametrize("machine", Machine)
def test_functions_of_the_fixtures(machine):
    measured = [entries(path) for path in fixture_images(machine)]
    check_entries(sum(measured, Entries()))
    for one in measured:
        assert min(one.right - LEAST_RECALL * one.known, one.right - LEAST_PRECISION * one.found) >= 0 < one.known, one.failures


@pytest.mark.exhaustive
@pytest.mark.parametrize("machine", Machine)
def test_matches_of_the_fixtures(machine):
    check_matches(sum((matches(*pair) for pair in fixture_pairs(machine)), Matches()))


@pytest.mark.exhaustive
@pytest.mark.compiler
@pytest.mark.skipif(find_spec("ziglang") is None, reason="needs the compiler: pip install -e '.[fixtures]'")
@pytest.mark.parametrize("machine", Machine)
def test_matches_of_the_fixtures_whose_fix_is_linked_in_another_order(machine, tmp_path):
    """No place tells which of the changed ones is which."""
    check_matches(sum((matches(*pair) for pair in SHUFFLED_FIX.build(tmp_path, machine)), Matches()))


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(("case", "count"), [("static-local", 2), ("delay-import", 11)])
def test_functions_that_nothing_names_keep_their_order(case, count, machine, tmp_path):
    """Neighbours changed, and one of the base is more like another's fixed version than that is like its own."""
    pair = next(pair for pair in fixture_pairs(machine) if case in pair[0].parts)
    found = matches(*without_names(pair, tmp_path))
    assert (found.known, found.changed) == (count, 2)
    check_matches(found)


@pytest.mark.parametrize("machine", Machine)
def test_functions_of_few_instructions_are_not_matched_by_what_many_have(machine, tmp_path):
    """The first three grew much, and one that is new is more like them than their own fixed versions are."""
    pair = next(pair for pair in fixture_pairs(machine) if "state-handed-over" in pair[0].parts)
    found = matches(*without_names(pair, tmp_path))
    assert found.changed == 3
    assert found.wrong == 0, found.failures


@pytest.mark.exhaustive
@pytest.mark.parametrize("machine", Machine)
def test_matches_of_the_fixtures_without_names(machine, tmp_path):
    pairs = [without_names(pair, tmp_path / str(number)) for number, pair in enumerate(fixture_pairs(machine))]
    found = sum((matches(*pair) for pair in pairs), Matches())
    assert found.right >= LEAST_NAMELESS * found.known > 0, found.failures
    assert found.changed > 0 == found.changed_wrong
    assert found.wrong == 0, found.failures


def release_pair(release, machine, tmp_path_factory):
    try:
        return extract(release, machine, cache=tmp_path_factory.getbasetemp() / "wheels")
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.exhaustive
@pytest.mark.release
@pytest.mark.parametrize("machine", Machine)
def test_blocks_of_exception_data_that_are_many_and_alike(machine, tmp_path_factory):
    """A function that is new, and more to unwind in others: dozens of blocks of two or three instructions, each with another number."""
    check_matches(matches(*release_pair(NODE_PTY_MUTEX, machine, tmp_path_factory)))


@pytest.mark.exhaustive
@pytest.mark.release
@pytest.mark.parametrize("machine", Machine)
def test_another_compiler(machine, tmp_path_factory):
    """It inlines more here and less there, and what calls the one calls the other instead: those are no functions that either has."""
    found = matches(*release_pair(NODE_PTY_COMPILER, machine, tmp_path_factory))
    assert found.right >= LEAST_MATCHED * found.known > 0, found.failures
    assert found.changed_right >= LEAST_NAMELESS * found.changed > 0
    assert found.changed_wrong == 0
    assert found.wrong <= 3, found.failures


@pytest.mark.release
@pytest.mark.parametrize("machine", Machine)
def test_a_release_with_pdbs(machine, tmp_path_factory):
    pair = release_pair(NODE_PTY, machine, tmp_path_factory)
    for path in pair:
        check_entries(entries(path))
    check_matches(matches(*pair))
    found = verdicts(*pair)
    assert found is not None
    assert (found.missed, found.wrong) == (0, 0)
    assert found.differ == (3 if machine == "x64" else 0)
