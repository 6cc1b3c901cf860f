"""Compare, build and check every pair of releases, and write the table at the head of ``docs/releases.md``.

    python tools/releases.py [--from DIR] [--cache DIR] [--only NAME …] [--arch x64|arm64] [--write]
    python tools/releases.py --others [--from DIR] [--cache DIR] [--only PACKAGE …] [--arch x64|arm64] [--write]

The second form goes through ``tools/other_pairs.toml`` and tells what came out otherwise than it says (exit code 1).
``--write`` puts that there, and the lists of these pairs on the page.

Each pair runs in a process of its own, so that seconds and peak memory are those of one ``open``, ``diff`` and ``build``; ``build --check``
(the rehearsal, and functions on made-up state) is timed apart. What stands below the table is written by hand and kept.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hotpatch.arch import Machine
from hotpatch.cases.releases import RELEASES, Release, extract
from hotpatch.errors import HotpatchError, InputError, NothingToDo, Refused, counted

if TYPE_CHECKING:
    from hotpatch.differ import ImageDiff
    from hotpatch.image import Image
    from hotpatch.patch import Patch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools import other_pairs  # noqa: E402

PAGE = ROOT / "docs" / "releases.md"
RUN_SECONDS = 300
"""How long one pair may take."""
_LONGEST = 160
_MIB = 1024
"""``ru_maxrss`` counts KiB."""
_VERDICTS = ("identical", "relocated", "changed", "added", "removed")


@dataclass(frozen=True)
class Outcome:
    """What came of one pair.

    Attributes:
        verdicts: Functions by verdict.
        cosmetic: How many changed functions differ in line numbers, versions or dates only.
        findings: What the comparison found that forbids a patch.
        result: ``built``, ``nothing to do``, ``refused`` or ``failed``.
        detail: Functions and bytes of the patch, the rules that refused, or what failed.
        check: What ``build --check`` says of what was built.
        seconds: From the start of the process, imports included, to the end of the build.
        memory: Peak, MiB.
    """

    functions: tuple[int, int] = (0, 0)
    verdicts: dict[str, int] = field(default_factory=dict)
    cosmetic: int = 0
    findings: int = 0
    result: str = "failed"
    detail: str = ""
    check: str = ""
    seconds: float = 0.0
    memory: int = 0


def run_pair(base: str, fixed: str) -> Outcome:
    """Open, compare, build and check."""
    import hotpatch

    images = hotpatch.open(base), hotpatch.open(fixed)
    diff = hotpatch.diff(*images)
    counts = Counter(str(row.verdict) for row in diff.functions)
    cosmetic = sum(row.is_cosmetic for row in diff.functions)
    check, built = "", 0.0
    try:
        patch = hotpatch.build(diff)
        built = time.perf_counter()
        check = _check(images, patch, diff)
    except NothingToDo:
        result, detail = "nothing to do", ""
    except Refused as refused:
        rules = Counter(str(refusal.rule) for refusal in refused.refusals)
        result, detail = "refused", ", ".join(f"{rule} ({count})" for rule, count in sorted(rules.items()))
    except HotpatchError as error:
        result, detail = "failed", f"{type(error).__name__}: {error}"
    else:
        result, detail = "built", f"{counted(len(patch.functions), 'function')}, {len(patch.carried)} carried, {len(patch.data):,} bytes"
    functions = len(images[0].functions), len(images[1].functions)
    after = time.perf_counter() - built if built else 0.0
    return Outcome(functions, dict(counts), cosmetic, len(diff.findings), result, detail, check, seconds=-after)


def _check(images: tuple[Image, Image], patch: Patch, diff: ImageDiff) -> str:
    """What ``hotpatch build --check`` does, in a few words."""
    from hotpatch.verifier import check_patch, rehearse

    try:
        rehearse(images[0], patch)
        report = check_patch(*images, patch, diff)
    except HotpatchError as problem:
        return f"failed: {problem}"[:_LONGEST]
    reports = (*report.travelling, *report.relocated)
    doubtful = sum(item.outcome == "inconclusive" for item in reports)
    return f"passed, {counted(len(reports), 'function')} run" + (f", {doubtful} inconclusive" if doubtful else "")


def _outcome(paths: tuple[Path, Path]) -> Outcome:
    """The pair in a process of its own."""
    start = time.perf_counter()
    command = [sys.executable, str(Path(__file__).resolve()), "--pair", *map(str, paths)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Outcome(detail=f"took more than {RUN_SECONDS} s")
    if done.returncode:
        return Outcome(detail=(done.stderr.strip().splitlines() or ["no message"])[-1])
    found = json.loads(done.stdout)
    return Outcome(**{**found, "seconds": time.perf_counter() - start + found["seconds"]})


def _try_others(given: argparse.Namespace) -> int:
    """Try all other pairs, or some, and tell what is not as the list has it."""
    pairs, differ = other_pairs.load(), 0
    for pair in pairs:
        if (given.only and pair.package not in given.only) or (given.arch and pair.machine != given.arch):
            continue
        for member, listed in pair.modules.items():
            outcome = _outcome(extract(pair.release(member), pair.machine, cache=given.cache, wheels=given.packages))
            found = other_pairs.summary(outcome.result, outcome.detail, outcome.check)
            sys.stderr.write(f"{pair.title}, {member}: {found}\n")
            if found == listed:
                continue
            differ += 1
            sys.stdout.write(f"{pair.title}, {member}: {found}; listed: {listed}\n")
            pair.modules[member] = found
            if given.write:  # what was found stays if the run is broken off
                other_pairs.DATA.write_text(other_pairs.dump(pairs), encoding="utf-8")
    if given.write:
        PAGE.write_text(other_pairs.page(PAGE.read_text(encoding="utf-8"), pairs), encoding="utf-8")
    return 1 if differ and not given.write else 0


def row(release: Release, machine: Machine, outcome: Outcome) -> str:
    """A row of the table."""
    base, fixed = release.base[machine], release.fixed[machine]
    functions = " → ".join(f"{count:,}" for count in outcome.functions)
    verdicts = [f"{outcome.verdicts.get(verdict, 0):,}" for verdict in _VERDICTS]
    came = f"{outcome.result}: {outcome.detail}" if outcome.detail else outcome.result
    cells = [
        f"{base.distribution} {base.version} → {fixed.version}, `{Path(base.member).name.partition('.cp')[0]}`",
        str(machine),
        functions,
        *verdicts,
        f"{outcome.cosmetic:,}",
        came,
        outcome.check or "–",
        f"{outcome.seconds:.1f}",
        str(outcome.memory),
    ]
    return f"| {' | '.join(cells)} |"


_HEAD = """# Release pairs

Two adjacent public releases each, as their vendors compiled them (MSVC; only node-pty comes with PDBs). Nothing of them is in this
repository: `hotpatch/cases/releases.py` pins every file by SHA-256. This table is what `python tools/releases.py --write` found: one
process for each pair opens both files, compares them, builds the patch and checks it as `hotpatch build --check` does. Seconds are those
from the start of the process to the finished patch, MiB the peak memory of everything, the check included.

`python tools/releases.py --only xxhash` prints the rows of one pair (`--arch` of one machine); what it fetches is kept in `--cache`.

"""
_NOTES = "## Why"
"""Where the part begins that is written by hand."""
_COLUMNS = ("pair", "machine", "functions", *_VERDICTS, "cosmetic", "outcome", "check", "seconds", "MiB")


def table(rows: list[str]) -> str:
    """The whole table."""
    return "\n".join([f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}", *rows, ""])


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description="Compare, build and check every pair of releases.")
    parser.add_argument("--pair", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--from", dest="packages", type=Path, help="folder with the packages, instead of the indexes")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "hotpatch-releases", help="folder for what is fetched")
    parser.add_argument("--others", action="store_true", help="the pairs of tools/other_pairs.toml instead")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="these pairs, or with --others those of these packages")
    parser.add_argument("--arch", choices=[str(machine) for machine in Machine], help="only this machine")
    parser.add_argument("--write", action="store_true", help="write docs/releases.md")
    given = parser.parse_args()
    names = {pair.package for pair in other_pairs.load()} if given.others else {release.name for release in RELEASES}
    if unknown := sorted({*given.only} - names):
        parser.error(f"there is no {unknown[0]}; choose from {', '.join(sorted(names))}")
    if given.write and not given.others and (given.only or given.arch):
        parser.error("--write needs all pairs: leave --only and --arch out")
    if given.pair:
        outcome = run_pair(*given.pair)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _MIB
        sys.stdout.write(json.dumps({**asdict(outcome), "memory": memory}))
        return 0
    try:
        if given.others:
            return _try_others(given)
        return _try_releases(given)
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _try_releases(given: argparse.Namespace) -> int:
    """Try the pairs of the first table, or some."""
    rows = []
    for release in RELEASES:
        for machine in Machine:
            if (given.only and release.name not in given.only) or (given.arch and machine != given.arch):
                continue
            paths = extract(release, machine, cache=given.cache, wheels=given.packages)
            rows.append(row(release, machine, _outcome(paths)))
            sys.stderr.write(f"{rows[-1]}\n")
    page = _HEAD + table(rows)
    if given.write:
        _, mark, notes = PAGE.read_text(encoding="utf-8").partition(_NOTES)
        PAGE.write_text(page + (f"\n{mark}{notes}" if mark else ""), encoding="utf-8")
    else:
        sys.stdout.write(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
