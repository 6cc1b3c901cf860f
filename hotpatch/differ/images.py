"""The comparison of two images, from the outside in: correlate, compare, find what forbids a patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.collection import without_collection
from hotpatch.differ.alignments import Alignments
from hotpatch.differ.constants import Constants
from hotpatch.differ.correlate import correlate
from hotpatch.differ.correspond import Correspondence
from hotpatch.differ.data import correlate_data
from hotpatch.differ.distant import Known
from hotpatch.differ.matching import Evidence
from hotpatch.differ.model import DatumMatch, ImageDiff
from hotpatch.differ.parts import POINTER_SIZE
from hotpatch.differ.rules import findings
from hotpatch.differ.twins import Twins
from hotpatch.differ.verdicts import drop_unproven_folds, rows
from hotpatch.differ.view import view_of
from hotpatch.errors import Refusal, Refused, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.differ.live import LiveData
    from hotpatch.image import Image


@without_collection()
def diff_images(base: Image, fixed: Image) -> ImageDiff:
    """Compare two builds of an image.

    Raises:
        Refused: They are for different machines (rule machine-differs).
    """
    _require_same_machine(base, fixed)
    fixed.expect(base)
    views = view_of(base), view_of(fixed)
    alignments = Alignments(*views)
    matching, folds = correlate(*views, alignments)
    twins = Twins.of(*views, matching, alignments)
    live = correlate_data(*views, matching, twins)
    folds.add_pointed(live.stretches)
    known = Known(*views, live.stretches, twins)
    is_settled = False
    while not is_settled:
        relation = Correspondence(*views, matching, live.ranges(), known)
        relation.settle(twins.targets)
        is_settled = not drop_unproven_folds(relation, matching)
    functions = rows(relation, matching)
    data = _data(relation, live, twins)
    found = findings(relation, live, twins)
    return ImageDiff(base, fixed, functions, data, found.refusals, found.texts)


def _require_same_machine(base: Image, fixed: Image) -> None:
    if base.machine is not fixed.machine:
        reason = f"{base.name} is for {base.machine} and {fixed.name} for {fixed.machine}; compare two builds for one machine"
        raise Refused([Refusal(Rule.MACHINE_DIFFERS, None, None, reason, {"base": base.machine.value, "fixed": fixed.machine.value})])


def _data(relation: Correspondence, live: LiveData, twins: Twins) -> tuple[DatumMatch, ...]:
    """Imports, live data and constants, by fixed RVA; of those that overlap, the first kind in this order stays whole."""
    kept: list[DatumMatch] = []
    for batch in (_imports(relation), _live(live), _constants(relation, twins)):
        kept = _merge(kept, batch)
    return tuple(kept)


def _imports(relation: Correspondence) -> list[DatumMatch]:
    base, fixed = relation.base.image, relation.fixed.image
    slots = {entry.label: entry.slot for entry in reversed(base.imports)}
    writable = relation.base.writable
    return [
        DatumMatch(slots[entry.label], entry.slot, POINTER_SIZE, Evidence.IMPORT.value, writable(slots[entry.label]), entry.label)
        for entry in fixed.imports
        if entry.label in slots
    ]


def _live(live: LiveData) -> list[DatumMatch]:
    return [
        DatumMatch(Rva(stretch.base), Rva(stretch.fixed), stretch.size, stretch.evidence.value, writable=True, name=stretch.name)
        for stretch in live.stretches
        if stretch.size
    ]


def _constants(relation: Correspondence, twins: Twins) -> list[DatumMatch]:
    found = []
    for start, (base, size, evidence) in Constants(relation, twins).run().items():
        symbol = relation.base.symbol(base)
        name = symbol.name if symbol is not None and symbol.rva == base else None
        found.append(DatumMatch(Rva(base), Rva(start), size, evidence.value, writable=False, name=name))
    return found


def _merge(kept: list[DatumMatch], batch: Iterable[DatumMatch]) -> list[DatumMatch]:
    """``kept`` and of ``batch`` what begins outside of it, cut short where another begins; by fixed RVA."""
    settled = {match.fixed: match for match in batch} | {match.fixed: match for match in kept}
    prior = {id(match) for match in kept}
    merged: list[DatumMatch] = []
    for start in sorted(settled):
        match = settled[start]
        last = merged[-1] if merged else None
        if last is not None and start < last.fixed + last.size:
            if id(match) not in prior or id(last) in prior:
                continue
            merged[-1] = DatumMatch(last.base, last.fixed, start - last.fixed, last.matched_by, last.writable, last.name)
        merged.append(match)
    return merged
