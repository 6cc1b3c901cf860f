"""Whether a function changed because something that it inlines did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.differ.correspond import aligned_lines
from hotpatch.differ.model import Verdict
from hotpatch.differ.view import View, view_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from hotpatch.differ.lines import Lines
    from hotpatch.differ.model import FunctionMatch, ImageDiff
    from hotpatch.image import Function, InlineSite


def inlined_change(diff: ImageDiff, row: FunctionMatch) -> str | None:
    """The name of a changed function that ``row``'s function inlines and that explains why it changed, or ``None``.

    A function that has a copy of its own speaks through that copy's verdict. One that is inlined everywhere is held to have changed where
    all the instructions that differ came from it, or where it is inlined several times and every function around it changed in it.
    """
    if row.verdict is not Verdict.CHANGED or row.base is None or row.fixed is None:
        return None
    base, fixed = view_of(diff.base), view_of(diff.fixed)
    return explain(base, fixed, row.base, row.fixed, Changes.of(diff.functions))


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed, for quick look-up.

    Attributes:
        names: All names of changed functions.
        entries: Their entries in the fixed image.
    """

    names: frozenset[str]
    entries: frozenset[int]

    @classmethod
    def of(cls, rows: Iterable[FunctionMatch]) -> Changes:
        """The changes among ``rows``."""
        pairs = [(row.base, row.fixed) for row in rows if row.verdict is Verdict.CHANGED and row.base and row.fixed]
        return cls(
            frozenset(name for pair in pairs for function in pair for name in function.names), frozenset(new.entry for _, new in pairs)
        )


def explain(base: View, fixed: View, old: Function, new: Function, changes: Changes) -> str | None:
    """:func:`inlined_change` for two functions of which it is known that they differ."""
    there, here = base.inlines(old.entry), fixed.inlines(new.entry)
    for site in here:
        if site.name in changes.names and site.name not in new.names:
            return site.name
    if not there or not here:
        return None
    lines = base.lines(old.entry), fixed.lines(new.entry)
    aligned = aligned_lines(*lines)
    came_from = [
        *_origins(base, old, lines[0], {index for index, _ in aligned}, there),
        *_origins(fixed, new, lines[1], {index for _, index in aligned}, here),
    ]
    if came_from and all(came_from):
        return came_from[0]
    for name in sorted({name for name in came_from if name}):
        around = fixed.inlined_into(name)
        if len(around) > 1 and around <= changes.entries:
            return name
    return None


def _origins(view: View, function: Function, lines: Lines, same: Collection[int], sites: Sequence[InlineSite]) -> Iterator[str | None]:
    """For each instruction without a partner, which inlined function it came from: the innermost."""
    for index, line in enumerate(lines):
        rva = function.ranges[line.position.part].start + line.position.offset
        if index in same or view.image.read(rva, line.size) in view.architecture.padding_bytes:
            continue
        around = [(part.size, site.name) for site in sites for part in site.ranges if part.start <= rva < part.end]
        yield min(around)[1] if around else None
