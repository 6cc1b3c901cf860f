"""The patchability rules: what must hold before anything is linked. One function a rule; each yields refusals with their evidence."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from hotpatch.arch import Use
from hotpatch.builder.callbacks import callback_functions
from hotpatch.differ.copies import are_copies
from hotpatch.differ.view import view_of
from hotpatch.errors import InputError, Refusal, Rule
from hotpatch.patch import ORIGINAL_PREFIX, SUPPORT_LIBRARY, Moment

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from hotpatch.address import Rva
    from hotpatch.builder.model import Selected
    from hotpatch.differ import ImageDiff
    from hotpatch.image import Function, Image

OVERRIDABLE = frozenset(
    {
        Rule.DATA_LAYOUT,
        Rule.DATA_INIT,
        Rule.EXPORT_ABI,
        Rule.RUN_ONCE,
        Rule.START_UP,
        Rule.POLICY,
        Rule.CONTRADICTING_VOTES,
        Rule.CALLBACKS,
    }
)
"""Rules about what a patch means, which its author may know better; the others are about what can be built at all."""


def overrides(allow: Iterable[str]) -> tuple[Rule, ...]:
    """The rules that ``allow`` names, sorted.

    Raises:
        InputError: One is no rule, or none that can be overridden.
    """
    found = set()
    for name in allow:
        rule = next((rule for rule in OVERRIDABLE if rule.value == name), None)
        if rule is None:
            raise InputError(name, f"is no rule that can be overridden; these can: {', '.join(sorted(OVERRIDABLE))}")
        found.add(rule)
    return tuple(sorted(found))


def check(diff: ImageDiff, selected: Sequence[Selected], allowed: Collection[Rule]) -> tuple[tuple[Refusal, ...], tuple[Rule, ...]]:
    """Every objection to replacing ``selected`` that is not ``allowed``, and the rules, sorted, of those that are."""
    found = (
        *_findings(diff),
        *_texts(diff, selected),
        *_run_once(diff, selected),
        *_folded(diff, selected),
        *_callbacks(diff),
    )
    overridden = {refusal.rule for refusal in found if refusal.rule in allowed}
    return tuple(refusal for refusal in found if refusal.rule not in allowed), tuple(sorted(overridden))


def _findings(diff: ImageDiff) -> Iterator[Refusal]:
    """What the comparison itself objects to: data layout, initial values of live data, exports."""
    yield from diff.findings


def _texts(diff: ImageDiff, selected: Sequence[Selected]) -> Iterator[Refusal]:
    """Live data keep the texts that they point at: too little where a function that travels uses them, or where nothing else changed."""
    used = {item.target for function in selected for part in diff.fixed.references(function.fixed) for item in part}
    for datum in diff.texts:
        if not selected or any(target in datum.fixed for target in used):
            yield datum.refusal


def _run_once(diff: ImageDiff, selected: Sequence[Selected]) -> Iterator[Refusal]:
    """Start-up code has run before a patch can be applied: a patch of nothing else does nothing.

    Beside other functions it comes along, because a DLL's is called again for each thread and at the end.
    """
    once = run_once_functions(diff.base)
    if not all(item.base.entry in once for item in selected):
        return
    for item in selected:
        yield Refusal(
            Rule.RUN_ONCE,
            item.base.name,
            item.base.entry,
            f"nothing but start-up code changed, and {item.base.label} ({once[item.base.entry]}) has run before a patch can be applied; "
            "restart with the fixed build",
            {"why": once[item.base.entry]},
        )


def _callbacks(diff: ImageDiff) -> Iterator[Refusal]:
    """A patch that keeps data beside objects mostly converts what is there as it goes in: only symbols name the callback for that."""
    if diff.fixed.has_symbols or callback_functions(diff):
        return
    there = {entry.label for entry in diff.base.imports}
    new = [entry for entry in diff.fixed.imports if entry.library.lower() == SUPPORT_LIBRARY and entry.label not in there]
    names = [entry.name for entry in new if entry.name and not entry.name.startswith(ORIGINAL_PREFIX)]
    if names:
        yield Refusal(
            Rule.CALLBACKS,
            None,
            None,
            f"the fixed image uses {SUPPORT_LIBRARY} ({', '.join(names)}) and no symbols say whether it has callbacks "
            f"({Moment.BEFORE_APPLY.symbol} and so on), without which what they convert would be lost; build from images with PDBs",
            {"imports": names},
        )


def run_once_functions(image: Image) -> dict[Rva, str]:
    """Functions that run only while the module starts, with the reason.

    The entry point and the TLS callbacks; in a DLL also what nothing but these calls. A program's entry point may call its main loop, so
    nothing follows from being called by that.
    """
    once: dict[Rva, str] = {}
    if image.entry_point:
        once[image.entry_point] = "the image's entry point"
    for rva in image.tls.callbacks if image.tls else ():
        once[rva] = "a TLS callback"
    if not image.is_dll:
        return once
    callers, exposed = _callers(image)
    grown = True
    while grown:
        grown = False
        for entry, who in sorted(callers.items()):
            if entry not in once and entry not in exposed and who <= once.keys():
                once[entry] = "called by start-up code only"
                grown = True
    return once


def _callers(image: Image) -> tuple[dict[Rva, set[Rva]], set[Rva]]:
    """Who calls or jumps to each function, and the functions whose address is exported or taken."""
    callers: dict[Rva, set[Rva]] = defaultdict(set)
    exposed: set[Rva] = {export.rva for export in image.exports if export.rva is not None} | set(image.guard_functions)
    for function in image.functions:
        for reference in (item for part in image.references(function) for item in part):
            owner = image.function_at(reference.target)
            if owner is None or owner.entry == function.entry or reference.use is Use.UNUSED:
                continue
            if reference.use is Use.DATA:
                exposed.add(owner.entry)
            else:
                callers[owner.entry].add(function.entry)
    for site in image.relocations:
        owner = image.function_at(image.u64(site) - image.preferred_base)
        if owner is not None:
            exposed.add(owner.entry)
    return callers, exposed


def _folded(diff: ImageDiff, selected: Sequence[Selected]) -> Iterator[Refusal]:
    """One body in the base that is several functions in the fixed image cannot become all of them, unless these are copies."""
    fixed = view_of(diff.fixed)
    fates: dict[Rva, list[Function]] = defaultdict(list)
    for row in diff.functions:
        if row.base is not None and row.fixed is not None:
            fates[row.base.entry].append(row.fixed)
    for entry in sorted({item.base.entry for item in selected}):
        targets = sorted({function.entry for function in fates[entry]})
        if not all(are_copies(fixed, targets[0], target) for target in targets):
            names = sorted(function.name or "?" for function in fates[entry])
            base = next(item.base for item in selected if item.base.entry == entry)
            yield Refusal(
                Rule.FOLDED,
                base.name,
                entry,
                f"the base has one body for {', '.join(names)} (identical code folding) and the fixed image has several; "
                "callers cannot be told apart: build the base without /OPT:ICF",
                {"names": names, "fixed_rvas": [int(target) for target in targets]},
            )
