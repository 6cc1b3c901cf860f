"""How right the functions found without symbols are, and how right two builds' functions are matched without names.

    python tools/accuracy.py [--only functions correlation stress] [--cache FOLDER] [--from FOLDER] [--list] [--markdown | --write]

The truth is what PDBs say, read with purepdb; the images are then opened as if there were none. ``--list`` names each failure, ``--write``
writes ``docs/accuracy.md``. What takes longer than :data:`LIMIT` ends the run. Needs the pinned node-pty packages (fetched by npm, or
from the folder of ``--from``) and, for ``stress``, the compiler of the extra ``fixtures``; what is built goes to a temporary folder.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import astuple
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hotpatch.cases.releases import Package, Release

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hotpatch.arch import Machine  # noqa: E402
from hotpatch.cases import load_cases  # noqa: E402
from hotpatch.cases.releases import WITH_PDBS, extract  # noqa: E402
from hotpatch.errors import InputError, counted  # noqa: E402
from tools import accuracy_measures, accuracy_stress  # noqa: E402
from tools.accuracy_measures import Entries, Matches, Verdicts  # noqa: E402

PAGE = ROOT / "docs" / "accuracy.md"
FIXTURES = ROOT / "fixtures"
KINDS = ("functions", "correlation", "stress")
LIMIT = 120
"""Seconds that one image, one pair, or building one kind of pair may take."""
_BEGIN, _END = "<!-- measured -->", "<!-- /measured -->"


@contextmanager
def bounded(what: object) -> Iterator[None]:
    """Raise :class:`TimeoutError` in what takes longer than :data:`LIMIT`."""

    def give_up(*_: object) -> NoReturn:
        raise TimeoutError(f"{what} took more than {LIMIT} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def entries(path: Path) -> Entries:
    """Figures of one image, in bounded time."""
    with bounded(path):
        return accuracy_measures.entries(path)


def matches(pair: tuple[Path, Path]) -> Matches:
    """Figures of one pair, in bounded time."""
    with bounded(" and ".join(map(str, pair))):
        return accuracy_measures.matches(*pair)


def fixture_images(machine: Machine) -> list[Path]:
    """Every image of the fixtures that has a PDB."""
    images = (path for path in sorted(FIXTURES.glob(f"**/{machine}/*")) if path.suffix in {".dll", ".exe"})
    return [path for path in images if path.with_suffix(".pdb").is_file()]


def fixture_pairs(machine: Machine) -> list[tuple[Path, Path]]:
    """Base and fixed image of every case that has both."""
    cases = [case for case in load_cases(FIXTURES) if "fixed" in case.sides]
    return [(case.image(machine, "base"), case.image(machine, "fixed")) for case in cases]


def packages(release: Release, machine: Machine) -> tuple[Package, Package]:
    """What the base and the fixed image come from."""
    return release.base[machine], release.fixed[machine]


def title(release: Release, machine: Machine) -> str:
    """What a row calls a pair."""
    base, fixed = packages(release, machine)
    return f"node-pty {base.version} → {fixed.version}, conpty.node"


def function_rows(given: argparse.Namespace) -> Iterator[tuple[str, Machine, Entries]]:
    """What was measured of entries and bounds: a title, the machine, the figures."""
    for machine in Machine:
        measured = [entries(path) for path in fixture_images(machine)]
        yield f"fixtures ({len(measured)} images)", machine, sum(measured, Entries())
    for machine in Machine:
        paths = {
            package: path
            for release in WITH_PDBS
            for package, path in zip(
                packages(release, machine), extract(release, machine, cache=given.cache, wheels=given.packages), strict=True
            )
        }
        for package, path in paths.items():
            yield f"node-pty {package.version}, conpty.node", machine, entries(path)


def correlation_rows(given: argparse.Namespace) -> Iterator[tuple[str, Machine, Matches]]:
    """What was measured of pairs whose second image fixes the first."""
    for machine in Machine:
        pairs = fixture_pairs(machine)
        yield f"fixtures ({counted(len(pairs), 'pair')})", machine, sum(map(matches, pairs), Matches())
    for release in WITH_PDBS:
        for machine in Machine:
            yield title(release, machine), machine, matches(extract(release, machine, cache=given.cache, wheels=given.packages))


def verdict_rows(given: argparse.Namespace) -> Iterator[tuple[str, Machine, Verdicts]]:
    """What was measured of verdicts, where the bytes of two PDBs' procedures tell what changed."""
    for release in WITH_PDBS:
        for machine in Machine:
            found = accuracy_measures.verdicts(*extract(release, machine, cache=given.cache, wheels=given.packages))
            if found is not None:
                yield title(release, machine), machine, found


def stress_rows(folder: Path) -> Iterator[tuple[str, Machine, Sequence[tuple[Path, Path]], Matches]]:
    """What was measured of pairs that nobody would release, built below ``folder``."""
    for stress in accuracy_stress.STRESSES:
        for machine in Machine:
            with bounded(f"building {stress.title!r} for {machine}"):
                pairs = stress.build(folder, machine)
            yield f"{stress.title} ({counted(len(pairs), 'pair')})", machine, pairs, sum(map(matches, pairs), Matches())


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.4f}" if whole else "–"


_FUNCTION_COLUMNS = ("images", "machine", "in the PDB", "found", "right", "precision", "recall", "bounds right", "of", "share")
_MATCH_COLUMNS = (
    "pairs",
    "machine",
    "known pairs",
    "right",
    "wrong",
    "unmatched",
    "share right",
    "changed",
    "changed right",
    "changed wrong",
)


_VERDICT_COLUMNS = ("pairs, by bytes", "machine", "procedures", "bytes differ", "called changed", "missed", "wrongly called")


def function_cells(title: str, machine: Machine, one: Entries) -> tuple[str, ...]:
    """A row of the first table."""
    counts = (one.known, one.found, one.right)
    shares = (_share(one.right, one.found), _share(one.right, one.known))
    return (title, str(machine), *map(str, counts), *shares, str(one.bounds_right), str(one.bounded), _share(one.bounds_right, one.bounded))


def match_cells(title: str, machine: Machine, one: Matches) -> tuple[str, ...]:
    """A row of the other tables."""
    counts = (one.known, one.right, one.wrong, one.known - one.right - one.wrong_known)
    return (
        title,
        str(machine),
        *map(str, counts),
        _share(one.right, one.known),
        *map(str, (one.changed, one.changed_right, one.changed_wrong)),
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, markdown: bool) -> str:
    """The rows under their columns, as text or Markdown."""
    rows = [columns, *rows]
    if markdown:
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([lines[0], f"|{'---|' * len(columns)}", *lines[1:], ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows)


def measure(given: argparse.Namespace) -> tuple[str, tuple[str, ...]]:
    """Everything asked for, as tables, and each failure."""
    found = list(function_rows(given)) if "functions" in given.only else []
    matched = list(correlation_rows(given)) if "correlation" in given.only else []
    if "stress" in given.only:
        with tempfile.TemporaryDirectory() as folder:
            for title, machine, pairs, one in stress_rows(Path(folder)):
                matched.append((title, machine, one))
                found.append((f"fixed: {title}", machine, sum((entries(fixed) for _, fixed in pairs), Entries())))
    parts = []
    if found:
        parts.append(table(_FUNCTION_COLUMNS, [function_cells(*row) for row in found], markdown=given.markdown))
    if matched:
        parts.append(table(_MATCH_COLUMNS, [match_cells(*row) for row in matched], markdown=given.markdown))
    if "correlation" in given.only:
        rows = [(title, str(machine), *map(str, astuple(one))) for title, machine, one in verdict_rows(given)]
        parts.append(table(_VERDICT_COLUMNS, rows, markdown=given.markdown))
    failures = [*(one.failures for *_, one in found), *(one.failures for *_, one in matched)]
    return "\n".join(parts), tuple(chain(*failures))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description="Measure functions and correlation against PDBs.")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="what is measured (default: all)")
    parser.add_argument("--from", dest="packages", type=Path, help="folder with the packages, instead of the indexes")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "hotpatch-releases", help="folder for what is fetched")
    parser.add_argument("--list", action="store_true", help="name each failure on standard output, below the tables")
    parser.add_argument("--markdown", action="store_true", help="tables as Markdown")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/accuracy.md")
    given = parser.parse_args(arguments)
    given.markdown = given.markdown or given.write
    try:
        tables, failures = measure(given)
    except (InputError, TimeoutError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if given.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
        PAGE.write_text(f"{before}{_BEGIN}\n\n{tables}\n{_END}{rest.partition(_END)[2]}", encoding="utf-8")
    else:
        sys.stdout.write(tables + "\n" * bool(given.list))
    if given.list:
        sys.stdout.write("".join(f"{failure}\n" for failure in failures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
