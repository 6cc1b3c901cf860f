"""The pairs of ``docs/releases.md`` besides those of its first table: ``other_pairs.toml`` has what came of each, the page lists it.

The file pins both packages of a pair by SHA-256. Of each module it says one of ``built: N`` (so many functions travel, and the check
passed), ``nothing to do``, ``refused: RULE, …`` (``--check`` is the rule of what was built and failed the check) and ``failed: …``;
nothing of one that was not tried yet, which the page leaves out.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from hotpatch.arch import Machine
from hotpatch.cases.releases import Index, Package, Release

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

DATA = Path(__file__).with_name("other_pairs.toml")

BUILT, NOTHING, REFUSED = "built", "nothing to do", "refused"
BY_CHECK = "--check"
_HEADINGS = ("### Built, and passed `--check`", "### Nothing to do", "### Refused")
_END = "### Mended"
"""The heading behind the lists."""
_NAMED = 3
"""Of so many modules of a pair for which there is nothing to do the names are told."""
_VERSION = "{version}"
"""Stands in the name of a file for the package's."""
_MACHINES = {Machine.X64: "x64", Machine.ARM64: "Arm64"}


@dataclass(frozen=True, slots=True)
class Pin:
    """One package: its version, its file, and the SHA-256 of that."""

    version: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two releases of a package for one machine, and what came of each of their modules."""

    package: str
    index: Index
    machine: Machine
    base: Pin
    fixed: Pin
    modules: dict[str, str]

    @property
    def title(self) -> str:
        """The pair as the page calls it, the same for both machines."""
        name = self.package.partition("-win32")[0]
        name = f"`{name}`" if self.index is Index.NPM else name
        return f"{name} {self.base.version} → {self.fixed.version}" + (" (npm)" if self.index is Index.NPM else "")

    def release(self, member: str) -> Release:
        """The pair of files ``member`` as what ``extract`` takes."""
        base, fixed = (
            {
                self.machine: Package(
                    self.package, pin.version, pin.file, pin.sha256, member.replace(_VERSION, pin.version), index=self.index
                )
            }
            for pin in (self.base, self.fixed)
        )
        return Release(self.package, self.title, base, fixed)


def load(path: Path = DATA) -> tuple[Pair, ...]:
    """All pairs, in the order of the file."""
    return tuple(
        Pair(
            entry["package"],
            Index(entry.get("index", Index.PIP)),
            Machine(entry["machine"]),
            Pin(*entry["base"]),
            Pin(*entry["fixed"]),
            entry["modules"],
        )
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["pair"]
    )


def dump(pairs: Sequence[Pair]) -> str:
    """The file of these pairs; a JSON string is a TOML one too."""
    lines: list[str] = []
    for pair in pairs:
        lines += ["[[pair]]", f"package = {json.dumps(pair.package)}"]
        lines += [f'index = "{pair.index}"'] if pair.index is not Index.PIP else []
        lines += [f'machine = "{pair.machine}"']
        for role, pin in (("base", pair.base), ("fixed", pair.fixed)):
            lines.append(f"{role} = {json.dumps([pin.version, pin.file, pin.sha256])}")
        lines += ["[pair.modules]", *(f"{json.dumps(member)} = {json.dumps(outcome)}" for member, outcome in pair.modules.items()), ""]
    return "\n".join(lines)


def summary(result: str, detail: str, check: str) -> str:
    """What the file says of an outcome of ``releases.py``; neither bytes nor how many refusals there are."""
    if result == BUILT:
        return f"{BUILT}: {detail.partition(' ')[0]}" if check.startswith("passed") else f"{REFUSED}: {BY_CHECK}"
    if result == REFUSED:
        return f"{REFUSED}: {', '.join(rule.partition(' ')[0] for rule in detail.split(', '))}"
    return NOTHING if result == NOTHING else f"{result}: {detail}"


def _module(member: str, members: Collection[str]) -> str:
    """What the page calls a file of a package, the same for both machines; with its folder where another has its name."""
    *_, folder, name = ("", *member.partition(".cp3")[0].removesuffix(".pyd").split("/"))
    alike = sum(Path(other).name == Path(member).name for other in members)
    return f"{folder}/{name}" if alike > 1 else name


def lists(pairs: Sequence[Pair]) -> str:
    """The lists of the page, from the first heading to the one behind them."""
    kinds: dict[str, list[str]] = {heading: [] for heading in _HEADINGS}
    for title, rows in _by_title(pairs):
        idle = [name for name, outcomes in rows if {*outcomes.values()} == {NOTHING}]
        for name, outcomes in rows:
            if name in idle:
                continue
            built = any(outcome.startswith(BUILT) for outcome in outcomes.values())
            cells = [_cell(outcomes.get(machine), with_rules=not built) for machine in Machine]
            kinds[_HEADINGS[0 if built else 2]].append(f"| {title} | `{name}` | {' | '.join(cells)} |")
        kinds[_HEADINGS[1]] += _idle(title, [(name, outcomes) for name, outcomes in rows if name in idle])
    head = f"| pair | module | {' | '.join(_MACHINES[machine] for machine in Machine)} |\n|{'---|' * (2 + len(Machine))}"
    travel, idle_ones, against = ("\n".join(kinds[heading]) for heading in _HEADINGS)
    bodies = (f"{head}\n{travel}", idle_ones, f"{head}\n{against}")
    return "".join(f"{heading}\n\n{body}\n\n" for heading, body in zip(_HEADINGS, bodies, strict=True))


def page(text: str, pairs: Sequence[Pair]) -> str:
    """The page with the lists of these pairs in place of those that it has."""
    before, _, rest = text.partition(f"{_HEADINGS[0]}\n")
    _, mark, after = rest.partition(f"{_END}\n")
    if not mark:
        raise ValueError(f"the page lacks {_HEADINGS[0]!r} or {_END!r} behind it")
    return before + lists(pairs) + mark + after


def _by_title(pairs: Sequence[Pair]) -> Iterator[tuple[str, list[tuple[str, dict[Machine, str]]]]]:
    """Each pair's modules with what came of them on each machine."""
    for title, group in groupby(pairs, lambda pair: pair.title):
        found: dict[str, dict[Machine, str]] = {}
        for pair in group:
            for member, outcome in pair.modules.items():
                if not outcome:
                    continue
                found.setdefault(_module(member, pair.modules), {})[pair.machine] = outcome
        yield title, list(found.items())


def _cell(outcome: str | None, *, with_rules: bool) -> str:
    if outcome is None:
        return "–"
    kind, _, detail = outcome.partition(": ")
    if kind == BUILT:
        return detail
    return (detail if kind == REFUSED else outcome) if with_rules else kind


def _idle(title: str, rows: list[tuple[str, dict[Machine, str]]]) -> Iterator[str]:
    """A line for all modules that were looked at on the same machines."""
    for machines, group in groupby(sorted(rows, key=lambda row: [*row[1]]), lambda row: tuple(row[1])):
        names = [f"`{name}`" for name, _ in group]
        told = ", ".join(names) if len(names) <= _NAMED else f"{len(names)} modules"
        yield f"- {title}, {told} ({', '.join(_MACHINES[machine] for machine in machines)})"
