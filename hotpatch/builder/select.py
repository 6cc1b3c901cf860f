"""Which functions travel, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.builder.evidence import instruction_evidence
from hotpatch.builder.model import Selected
from hotpatch.differ import Verdict
from hotpatch.differ.copies import are_copies
from hotpatch.differ.matching import Evidence
from hotpatch.differ.view import view_of
from hotpatch.errors import Refusal, Refused, Rule
from hotpatch.image.lookup import FIXED, function_named, is_address

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from hotpatch.address import Rva
    from hotpatch.differ import FunctionMatch, ImageDiff
    from hotpatch.differ.lines import Token
    from hotpatch.differ.view import View
    from hotpatch.image import Function, Image

CHANGED = "changed"
INLINES_CHANGED = "inlines changed code"
_ALIKE = 0.5
"""Of a function's two versions; less, and what calls it in both, having changed too, may call two functions."""


def select(diff: ImageDiff, only: Iterable[str] = (), leave_out: Iterable[str] = ()) -> tuple[tuple[Selected, ...], tuple[Refusal, ...]]:
    """The pairs to replace, by base entry, and what is wrong with the lists.

    Args:
        diff: The comparison.
        only: FUNCTION texts; empty: everything that changed in function.
        leave_out: Those of them that stay as they are.
    """
    rows = tuple(row for row in diff.of(Verdict.CHANGED) if not row.is_cosmetic)
    base, fixed = view_of(diff.base), view_of(diff.fixed)
    refusals: list[Refusal] = []
    wanted, unwanted = list(only), list(leave_out)
    if wanted:
        rows, refusals = _named(diff, wanted)
    if unwanted:
        without, unknown = _named(diff, unwanted)
        entries = {row.base.entry for row in without if row.base is not None}
        rows, refusals = tuple(row for row in rows if row.base is None or row.base.entry not in entries), [*refusals, *unknown]
    if wanted or unwanted:
        refusals += _left_behind(diff, rows, base)
    changed = frozenset(name for row in diff.of(Verdict.CHANGED) if row.fixed for name in row.fixed.names)
    selected: dict[tuple[Rva, Rva], Selected] = {}
    for row in rows:
        if row.base is None or row.fixed is None:
            continue
        there, here = row.base.entry, row.fixed.entry
        if not any(old == there and are_copies(fixed, new, here) for old, new in selected):
            selected[there, here] = Selected(row.base, row.fixed, _why(row, base, fixed, changed))
    return tuple(selected[key] for key in sorted(selected)), tuple(refusals)


def _named(diff: ImageDiff, wanted: Sequence[str]) -> tuple[tuple[FunctionMatch, ...], list[Refusal]]:
    rows: list[FunctionMatch] = []
    refusals: list[Refusal] = []
    for text in wanted:
        try:
            if is_address(text, FIXED):
                refusals.append(_of_fixed(diff, text, function_named(diff.fixed, text, FIXED)))
                continue
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


def _left_behind(diff: ImageDiff, rows: Sequence[FunctionMatch], base: View) -> Iterator[Refusal]:
    """Listed functions that may be others than those which changed functions call that are not listed.

    Such are those that only their place matches, those that have another name in the other build, and those that are hardly like it.
    """
    named = diff.base.has_symbols and diff.fixed.has_symbols
    listed = {row.base.entry for row in rows if row.base is not None}
    staying = [row.base for row in diff.of(Verdict.CHANGED) if row.base is not None and row.base.entry not in listed]
    for row in rows:
        if row.base is None or row.fixed is None or set(row.base.names) & set(row.fixed.names):
            continue
        if row.matched_by not in (Evidence.ORDER, Evidence.FOLDED) and not named and row.similarity >= _ALIKE:
            continue
        callers = [function for function in staying if row.base.entry in base.body(function.entry).whole_targets]
        if callers:
            reason = (
                f"{row.base.label} is matched by {row.matched_by}, not by its name, and may be another function than the one that "
                f"{callers[0].label} of the base calls; list all that call it, too, or leave it out"
            )
            evidence = {
                "callers": [int(function.entry) for function in callers],
                "fixed_rva": int(row.fixed.entry),
                **_call(diff.base, callers[0], row.base.entry),
            }
            yield Refusal(Rule.UNRESOLVED_REFERENCE, row.base.name, row.base.entry, reason, evidence)


def _call(image: Image, caller: Function, callee: Rva) -> dict[str, object]:
    """The first instruction of ``caller`` that refers to ``callee``."""
    sites = (
        (part.start + item.offset, item.size)
        for part, references in zip(caller.ranges, image.references(caller), strict=True)
        for item in references
        if item.target == callee
    )
    return next((instruction_evidence(image, rva, size) for rva, size in sites), {})


def _added(diff: ImageDiff, text: str) -> Refusal | None:
    """What to say of a listed function that only the fixed image has."""
    row = next((row for row in diff.of(Verdict.ADDED) if row.fixed and text in (*row.fixed.names, f"rva:0x{row.fixed.entry:x}")), None)
    return None if row is None or row.fixed is None else _new(text, row.fixed)


def _of_fixed(diff: ImageDiff, text: str, function: Function) -> Refusal:
    """What to say of a function that is listed by its address in the fixed image: what travels is named as in the base."""
    entry = diff.base_entries.get(function.entry)
    if entry is None:
        return _new(text, function)
    spelt = f"rva:0x{entry:x}"
    reason = f"{text} is an address of the fixed image; write {spelt}, which is that function in the base"
    evidence = {"near": [spelt], "image": "fixed", "base_function": int(entry)}
    return Refusal(Rule.NO_SUCH_FUNCTION, text, function.entry, reason, evidence)


def _new(text: str, added: Function) -> Refusal:
    reason = f"{text} is new, so there is nothing to replace; list a function that calls it, and it comes along"
    return Refusal(Rule.NOT_CHANGED, text, None, reason, {"function": text, "fixed_rva": int(added.entry)})


def _why(row: FunctionMatch, base: View, fixed: View, changed: Collection[str]) -> str:
    """``inlines changed code`` where a function that it inlines changed too, or its instructions here did; else ``changed``."""
    if row.base is None or row.fixed is None:
        return CHANGED
    here = _inlined(fixed, row.fixed)
    if any(name in changed and name not in row.fixed.names for name in here):
        return INLINES_CHANGED
    there = _inlined(base, row.base)
    return INLINES_CHANGED if any(here[name] != there[name] for name in here.keys() & there.keys()) else CHANGED


def _inlined(view: View, function: Function) -> dict[str, list[Token]]:
    """What the function's instructions do that came from each function that it inlines, by name."""
    found: dict[str, list[Token]] = {}
    sites = [site for site in view.image.inlines if site.caller == function.entry]
    for line in view.lines(function.entry) if sites else ():
        rva = function.ranges[line.position.part].start + line.position.offset
        for name in {site.name for site in sites if any(rva in part for part in site.ranges)}:
            found.setdefault(name, []).append(line.token)
    return found
