"""The pins of the release pairs: what the indexes serve is what was looked at, and it opens."""

from __future__ import annotations

from pathlib import Path

import pytest

from hotpatch.arch import Machine
from hotpatch.cases.releases import NODE_PTY, RELEASES, WITH_PDBS, Release, extract
from hotpatch.errors import InputError
from hotpatch.image import open_image
from tools import other_pairs
from tools import releases as releases_tool


@pytest.fixture
def pair(release: Release, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The base and the fixed file of a release; skips where they cannot be fetched."""
    cache = tmp_path_factory.getbasetemp() / "wheels"  # as in all tests of releases: each file is fetched once
    try:
        return extract(release, machine, cache=cache)
    except InputError as error:
        if "could not fetch" in str(error):
            pytest.skip(str(error))
        raise


def test_names_and_digests_are_distinct():
    assert len({release.name for release in RELEASES}) == len(RELEASES)
    for release in RELEASES:
        for machine in Machine:
            base, fixed = release.base[machine], release.fixed[machine]
            assert (base.distribution, base.member) == (fixed.distribution, fixed.member)
            assert base.version != fixed.version
            assert base.sha256 != fixed.sha256
            assert all(len(package.sha256) == 64 for package in (base, fixed))


@pytest.mark.release
@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_pinned_files_are_fetched_and_open(release: Release, machine: Machine, pair: tuple[Path, Path]) -> None:
    images = [open_image(path) for path in pair]
    assert [image.machine for image in images] == [machine, machine]
    assert images[0].sha256 != images[1].sha256
    assert all(image.has_symbols == (release in WITH_PDBS) for image in images)


LONG = {
    *((name, machine) for name in ("pillow", "apsw", "node-pty-compiler") for machine in Machine),
    *((name, Machine.ARM64) for name in ("node-pty-mutex", "wrapt", "pymongo")),
    ("zstandard", Machine.X64),
}
"""What takes more than ten seconds with its check; ``tools/releases.py`` runs it."""
SHORT = [(release, machine) for release in RELEASES for machine in Machine if (release.name, machine) not in LONG]


@pytest.mark.exhaustive
@pytest.mark.release
@pytest.mark.parametrize(("release", "machine"), SHORT, ids=lambda item: getattr(item, "name", str(item)))
def test_a_pair_comes_out_as_the_page_says(release: Release, machine: Machine, pair: tuple[Path, Path]) -> None:
    """Functions by verdict, what is built, refused or not to be done, and what the check says of it; not how long it took."""
    outcome = releases_tool.run_pair(*map(str, pair))
    page = releases_tool.PAGE.read_text(encoding="utf-8").splitlines()
    row = cells(releases_tool.row(release, machine, outcome))
    there = [found for found in map(cells, page) if found[:2] == row[:2]]  # the pair and the machine
    assert there == [row], "write the page anew: python tools/releases.py --write"


def cells(line: str) -> list[str]:
    """Of a row of the page, all but the last two: seconds and memory."""
    return [cell.strip() for cell in line.strip("|").split("|")][:-2]


def test_what_is_left_out_exists() -> None:
    assert {(release.name, machine) for release in RELEASES for machine in Machine} > LONG


def test_another_file_of_that_name_is_refused(tmp_path) -> None:
    package = NODE_PTY.base[Machine.X64]
    (tmp_path / package.file).write_bytes(b"not the pinned file")
    with pytest.raises(InputError, match="is not the pinned file"):
        extract(NODE_PTY, Machine.X64, cache=tmp_path / "cache", wheels=tmp_path)


@pytest.mark.parametrize("some", [["--only", "xxhash"], ["--arch", "x64"]])
def test_the_page_is_written_of_all_pairs_or_not_at_all(some, monkeypatch, capsys):
    before = releases_tool.PAGE.read_bytes()
    monkeypatch.setattr("sys.argv", ["releases.py", *some, "--write"])
    with pytest.raises(SystemExit) as ended:
        releases_tool.main()
    assert ended.value.code == 2
    assert "--write needs all pairs" in capsys.readouterr().err
    assert releases_tool.PAGE.read_bytes() == before


def test_the_lists_of_other_pairs_are_made_of_their_file():
    text = releases_tool.PAGE.read_text(encoding="utf-8")
    assert other_pairs.page(text, other_pairs.load()) == text, "make the lists anew: python tools/releases.py --others --only NAME --write"


def test_the_file_of_other_pairs_is_as_it_is_written():
    pairs = other_pairs.load()
    assert other_pairs.dump(pairs) == other_pairs.DATA.read_text(encoding="utf-8")
    assert len({(pair.title, pair.machine) for pair in pairs}) == len(pairs)
    for pair in pairs:
        assert pair.modules
        assert pair.base.version != pair.fixed.version
        assert all(len(bytes.fromhex(pin.sha256)) == 32 for pin in (pair.base, pair.fixed))
        assert {outcome.partition(":")[0] for outcome in pair.modules.values()} <= {"", "built", "nothing to do", "refused", "failed"}


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (("built", "4 functions, 2 carried, 6,144 bytes", "passed, 9 functions run, 1 inconclusive"), "built: 4"),
        (("built", "1 function, 0 carried, 3,072 bytes", "failed: micro-execution: f: …"), "refused: --check"),
        (("refused", "data-init (2), unresolved-reference (11)", ""), "refused: data-init, unresolved-reference"),
        (("nothing to do", "", ""), "nothing to do"),
        (("failed", "took more than 300 s", ""), "failed: took more than 300 s"),
    ],
)
def test_what_the_file_says_of_an_outcome(outcome, told):
    assert other_pairs.summary(*outcome) == told
