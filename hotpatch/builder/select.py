"""Which functions travel, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.builder.model import Selected
from hotpatch.differ import Verdict
from hotpatch.differ.correspond import aligned_lines
from hotpatch.differ.view import View
from hotpatch.errors import Refusal, Refused, Rule

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from hotpatch.differ import FunctionMatch, ImageDiff
    from hotpatch.differ.view import Line
    from hotpatch.image import Image, InlineSite, Range

CHANGED = "changed"
INLINES_CHANGED = "inlines changed code"


def select(diff: ImageDiff, only: Iterable[str] = ()) -> tuple[tuple[Selected, ...], tuple[Refusal, ...]]:
    """The pairs to replace, by base entry, and what is wrong with ``only`` (FUNCTION texts; empty: everything that changed)."""
    rows = diff.of(Verdict.CHANGED)
    refusals: list[Refusal] = []
    wanted = list(only)
    if wanted:
        rows, refusals = _named(diff, wanted)
    base, fixed = View(diff.base), View(diff.fixed)
    changed = frozenset(name for row in diff.of(Verdict.CHANGED) if row.fixed for name in row.fixed.names)
    selected = {
        (row.base.entry, row.fixed.entry): Selected(row.base, row.fixed, _why(row, base, fixed, changed))
        for row in rows
        if row.base is not None and row.fixed is not None
    }
    return tuple(selected[key] for key in sorted(selected)), tuple(refusals)


def _named(diff: ImageDiff, wanted: Sequence[str]) -> tuple[tuple[FunctionMatch, ...], list[Refusal]]:
    rows: list[FunctionMatch] = []
    refusals: list[Refusal] = []
    for text in wanted:
        try:
            entry = diff.base.function_named(text).entry
        except Refused as unknown:
            added = _added(diff, text)
            refusals += [added] if added else unknown.refusals
            continue
        row = next(
            (row for row in diff.functions if row.base is not None and row.base.entry == entry and row.verdict is Verdict.CHANGED), None
        )
        if row is not None:
            rows.append(row)
        else:
            reason = f"{text} does not differ between the two builds; leave it out of the list"
            refusals.append(Refusal(Rule.NOT_CHANGED, text, entry, reason, {"function": text}))
    return tuple(rows), refusals


def _added(diff: ImageDiff, text: str) -> Refusal | None:
    """What to say of a listed function that only the fixed image has."""
    row = next((row for row in diff.of(Verdict.ADDED) if row.fixed and text in (*row.fixed.names, f"rva:0x{row.fixed.entry:x}")), None)
    if row is None or row.fixed is None:
        return None
    reason = f"{text} is new, so there is nothing to replace; list a function that calls it, and it comes along"
    return Refusal(Rule.NOT_CHANGED, text, None, reason, {"function": text, "fixed_rva": int(row.fixed.entry)})


def _why(row: FunctionMatch, base: View, fixed: View, changed: Collection[str]) -> str:
    """``changed``, unless all that changed in it came from functions that it inlines."""
    if row.base is None or row.fixed is None:
        return CHANGED
    here = _inlined(fixed.image, row.fixed.entry)
    if not here:
        return CHANGED
    if any(site.name in changed and site.name not in row.fixed.names for site in here):
        return INLINES_CHANGED
    there = _inlined(base.image, row.base.entry)
    old, new = base.lines(row.base.entry), fixed.lines(row.fixed.entry)
    aligned = aligned_lines(old, new)
    apart = _outside(base, row.base.ranges, old, {index for index, _ in aligned}, there)
    apart |= _outside(fixed, row.fixed.ranges, new, {index for _, index in aligned}, here)
    return CHANGED if apart else INLINES_CHANGED


def _inlined(image: Image, caller: int) -> tuple[InlineSite, ...]:
    return tuple(site for site in image.inlines if site.caller == caller)


def _outside(view: View, ranges: Sequence[Range], lines: Sequence[Line], same: Collection[int], sites: Sequence[InlineSite]) -> bool:
    """Whether an instruction without a partner came from the function itself."""
    for index, line in enumerate(lines):
        rva = ranges[line.position.part].start + line.position.offset
        filler = view.image.read(rva, line.size) in view.architecture.padding_bytes
        if index not in same and not filler and not any(rva in part for site in sites for part in site.ranges):
            return True
    return False
