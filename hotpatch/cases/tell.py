"""Which story a name stands for."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from hotpatch.cases.locate import find_case
from hotpatch.cases.releases import CVE_2025_69277
from hotpatch.cases.story import StepKind
from hotpatch.cases.story_calls import tell_calls
from hotpatch.cases.story_program import tell_program
from hotpatch.cases.story_release import tell_release
from hotpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from hotpatch.arch import Machine
    from hotpatch.cases.story import Step


def tell(name: str, machine: Machine, *, seed: int, cache: Path, wheels: Path | None = None) -> Iterator[Step]:
    """The story of a shipped case, or of a real release.

    Args:
        name: The case's, or ``cve-2025-69277``.
        machine: On which build.
        seed: Of the interleaving of threads.
        cache: Folder for fetched releases.
        wheels: Folder with a release's wheels, instead of the package index.

    Raises:
        InputError: There is no such case, the release cannot be had, or a shipped case is to come from wheels.
    """
    if name == CVE_2025_69277.name:
        return tell_release(CVE_2025_69277, machine, cache=cache, wheels=wheels)
    case = find_case(name)
    if wheels is not None:
        raise InputError(str(wheels), f"{name} is shipped and needs no wheels; leave --from out, or tell of {CVE_2025_69277.name}")
    if case.manifest.demo is not None:
        return tell_program(case, machine, case.manifest.demo, seed)
    return tell_calls(case, machine, seed)


def bug_is_fixed(steps: Iterable[Step]) -> bool | None:
    """Whether, on every machine, the bug showed before the patch, not while it was in, and again after; ``None`` where none is marked."""
    shown: dict[Machine, list[str]] = {}
    for step in steps:
        kinds = shown.setdefault(step.machine, [])
        if step.kind in (StepKind.BUG, StepKind.GOOD):
            kinds.append(step.kind.value)
    turns = [[kind for kind, _ in groupby(kinds)] for kinds in shown.values()]
    if not any(turns):
        return None
    return all(kinds[:3] == ["bug", "good", "bug"] for kinds in turns)


def is_as_told(steps: Sequence[Step]) -> bool:
    """Whether a marked bug was fixed, and every call and run gave what its case says."""
    return bug_is_fixed(steps) is not False and all(step.details.get("right", True) for step in steps)
