"""What became of each function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.differ.beyond import another_reached
from hotpatch.differ.copies import are_copies
from hotpatch.differ.correspond import aligned_lines
from hotpatch.differ.cosmetic import cosmetic_pairs
from hotpatch.differ.distant import address_of
from hotpatch.differ.endings import another_end, are_named, takes_another_end
from hotpatch.differ.inlines import Changes, explain
from hotpatch.differ.matching import Evidence
from hotpatch.differ.model import COSMETIC, Elsewhere, FunctionMatch, Verdict
from hotpatch.differ.tails import enters_changed_code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.differ.correspond import Correspondence
    from hotpatch.differ.matching import Matching
    from hotpatch.differ.parts import Body
    from hotpatch.differ.view import View
    from hotpatch.image import Function

_ENTRY_BYTES = 16


def verdict_of(relation: Correspondence, base_entry: int, fixed_entry: int) -> Verdict:
    """Identical, relocated or changed: the verdict on a pair."""
    old, new = relation.base.bodies[base_entry], relation.fixed.bodies[fixed_entry]
    if not old.is_like(new) or not _refer_alike(relation, old, new):
        return Verdict.CHANGED
    return Verdict.IDENTICAL if old.code == new.code else Verdict.RELOCATED


def _refer_alike(relation: Correspondence, old: Body, new: Body) -> bool:
    """Whether two functions of the same body refer to corresponding things; who refers is only looked at where it can matter."""
    settled = relation.settled.issuperset(zip(old.targets, new.targets, strict=True))
    if not settled and (not relation.same_links(old, new) or takes_another_end(relation, old, new)):
        return False
    return relation.same_tables(old, new) and another_reached(relation, old, new) is None


def drop_unproven_folds(relation: Correspondence, matching: Matching) -> bool:
    """Take back extra pairs that differ after all; says whether there were any.

    Those stay by whose names, or tables, the fixed image has one function where the base has two: the base's other becomes that one, too.
    Those stay as well where the fixed image has copies of what the base's one became.
    """
    wrong = {
        (base, fixed)
        for base, fixed in matching.folded
        if (base in matching.forward or (base, fixed) in matching.nameless)
        and verdict_of(relation, base, fixed) is Verdict.CHANGED
        and not (base in matching.forward and are_copies(relation.fixed, matching.forward[base], fixed))
    }
    matching.folded -= wrong
    return bool(wrong)


def rows(relation: Correspondence, matching: Matching) -> tuple[FunctionMatch, ...]:
    """One row for each pair and each function without a partner: by base RVA, then the added ones by fixed RVA."""
    base, fixed = relation.base, relation.fixed
    found: list[FunctionMatch] = []
    extra: dict[int, list[int]] = {}
    for first, other in sorted(matching.folded):
        extra.setdefault(first, []).append(other)
    reported_fixed = set(matching.backward)
    for entry, function in base.functions.items():
        folds = extra.get(entry, ())
        partner = matching.forward.get(entry)
        names = function.names
        if partner is not None:
            old = _without_names(function, [fixed.functions[other] for other in folds]) if folds else function
            found.append(_row(relation, old, fixed.functions[partner], matching.evidence[entry], ()))
        elif not folds:
            found.append(FunctionMatch(function, None, Verdict.REMOVED, "", 0.0, _aliases(function)))
        for other in folds:
            shared = tuple(name for name in names if name in fixed.functions[other].names)
            note = _fold_note(base, fixed, matching, entry, other)
            found.append(_row(relation, function._replace(names=shared or names), fixed.functions[other], Evidence.FOLDED, (note,)))
            reported_fixed.add(other)
    for entry, function in fixed.functions.items():
        if entry not in reported_fixed:
            notes = (*_aliases(function), *_split_notes(base, function), *_export_notes(base, fixed, function))
            found.append(FunctionMatch(None, function, Verdict.ADDED, "", 0.0, notes))
    found = _with_cosmetic_notes(relation, matching, found)
    changes = Changes.of(found)
    return tuple(_with_inline_note(relation, row, changes) for row in found)


def _without_names(function: Function, others: Sequence[Function]) -> Function:
    """The function without the names of ``others``, unless it has no more."""
    theirs = {name for other in others for name in other.names}
    return function._replace(names=tuple(name for name in function.names if name not in theirs) or function.names)


def _with_cosmetic_notes(relation: Correspondence, matching: Matching, found: list[FunctionMatch]) -> list[FunctionMatch]:
    changed = [(row.base.entry, row.fixed.entry) for row in found if row.verdict is Verdict.CHANGED and row.base and row.fixed]
    why = cosmetic_pairs(relation, matching, changed)
    return [
        row._replace(notes=(COSMETIC, why[row.base.entry, row.fixed.entry], *row.notes))
        if row.base and row.fixed and (row.base.entry, row.fixed.entry) in why
        else row
        for row in found
    ]


def _with_inline_note(relation: Correspondence, row: FunctionMatch, changes: Changes) -> FunctionMatch:
    if row.verdict is not Verdict.CHANGED or row.base is None or row.fixed is None:
        return row
    name = explain(relation.base, relation.fixed, row.base, row.fixed, changes)
    return row._replace(notes=(f"inlines changed code: {name}", *row.notes)) if name else row


def _row(relation: Correspondence, old: Function, new: Function, evidence: Evidence, notes: tuple[str, ...]) -> FunctionMatch:
    verdict = verdict_of(relation, old.entry, new.entry)
    notes = (*_aliases(old), *notes)
    if verdict is not Verdict.CHANGED:
        return FunctionMatch(old, new, verdict, evidence.value, 1.0, notes)
    similarity = _similarity(relation, old.entry, new.entry)
    there, here = relation.base.body(old.entry), relation.fixed.body(new.entry)
    hidden = None
    if there.masked == here.masked:
        hidden = _elsewhere(relation, there, here)
        notes += (_same_instructions(relation, there, here, hidden),)
    elif there.masked[0][:_ENTRY_BYTES] == here.masked[0][:_ENTRY_BYTES]:
        notes += ("entry unchanged",)
    if old.size != new.size:
        notes += (f"{'grew' if new.size > old.size else 'shrank'} by {abs(new.size - old.size)} bytes",)
    return FunctionMatch(old, new, verdict, evidence.value, similarity, notes, hidden)


def _elsewhere(relation: Correspondence, old: Body, new: Body) -> Elsewhere | None:
    """By which instruction two functions of the same ones differ, though its operands are the same."""
    if old.forms != new.forms or not relation.same_links(old, new):
        return None
    place = another_end(relation, old, new)
    if place is not None:
        links = old.link(place), new.link(place)
        symbol = relation.fixed.symbol(links[1].target - 1) if are_named(relation.base, relation.fixed) else None
        why = (
            f"takes the end of {symbol.name}, which is another one than in the base"
            if symbol is not None
            else f"may take the end of what is in front of 0x{links[1].target:x}, which is something else than in the base"
        )
        return Elsewhere(Rva(address_of(old, links[0])), Rva(address_of(new, links[1])), why)
    found = another_reached(relation, old, new)
    if found is None:
        return None
    there, here = found.places
    was, now = _datum_name(relation.base, there), _datum_name(relation.fixed, here)
    why = (
        f"reaches {now}, which is another one than in the base"
        if was == now
        else f"reaches {now} at the distance at which it reached {was}"
    )
    return Elsewhere(Rva(found.instructions[0]), Rva(found.instructions[1]), why)


def _datum_name(view: View, at: int) -> str:
    symbol = view.symbol(at)
    if symbol is None:
        return f"what is at 0x{at:x}"
    return symbol.name + (f"+0x{at - symbol.rva:x}" if at > symbol.rva else "")


def _same_instructions(relation: Correspondence, old: Body, new: Body, hidden: Elsewhere | None) -> str:
    """What distinguishes functions of the same instructions."""
    if hidden is not None:
        return f"same instructions, but the one at 0x{hidden.fixed:x} {hidden.why}"
    for one, other in zip(old.links(), new.links(), strict=False):
        if relation.same(one.target, other.target) and enters_changed_code(relation, one, other):
            function = relation.base.place(one.target).function
            return f"same instructions, but they go on in the middle of {function.label if function else '?'}, which changed there"
    return "same instructions, but they refer to something else"


def _similarity(relation: Correspondence, base_entry: int, fixed_entry: int) -> float:
    """Twice the instructions that align and refer to corresponding things over all instructions of both."""
    there, here = relation.base.lines(base_entry), relation.fixed.lines(fixed_entry)
    old, new = relation.base.links(base_entry), relation.fixed.links(fixed_entry)
    matched = sum(
        all(relation.same_link(old[b], new[f]) for b, f in zip(there.links_of(i), here.links_of(j), strict=False))
        for i, j in aligned_lines(there, here)
    )
    count = len(there) + len(here)
    return round(2 * matched / count, 4) if count else 0.0


def _aliases(function: Function) -> tuple[str, ...]:
    return (f"also named {', '.join(function.names[1:])}",) if len(function.names) > 1 else ()


def _fold_note(base: View, fixed: View, matching: Matching, entry: int, other: int) -> str:
    partner = matching.forward.get(entry)
    if partner is None:
        return f"folded in the fixed image with {base.functions[matching.backward[other]].label}"
    name = fixed.functions[partner].name or f"fixed:0x{partner:x}"
    is_copy = not base.bodies[entry].is_like(fixed.bodies[other]) and are_copies(fixed, partner, other)
    return f"a copy of {name}" if is_copy else f"folded in the base with {name}"


def _export_notes(base: View, fixed: View, function: Function) -> tuple[str, ...]:
    """For an added function: that it is a new export, which stays unseen by ``GetProcAddress`` in a patched process."""
    there, here = base.image.exports_by_name, fixed.image.exports_by_name
    return tuple(f"new export {name}, which the base does not have" for name in function.names if name in here and name not in there)


def _split_notes(base: View, function: Function) -> tuple[str, ...]:
    """For an added function: that the base has its name, on a body that stands for another function too."""
    owner = next((other for name in function.names if name in base.names for other in base.functions.values() if name in other.names), None)
    return (f"the base has it folded at 0x{owner.entry:x}, where other names share its body",) if owner else ()
