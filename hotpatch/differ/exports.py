"""What other modules are bound to must stay: exports, their ordinals, and what they lead to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.differ.cosmetic import same_but_for_provenance
from hotpatch.differ.parts import PlaceKind
from hotpatch.errors import Refusal, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.address import Rva
    from hotpatch.differ.correspond import Correspondence
    from hotpatch.image import Export


def export_findings(relation: Correspondence) -> Iterator[Refusal]:
    """Exports that are gone, have another ordinal, or lead elsewhere. New ones harm nobody."""
    here = {_export_key(export): export for export in relation.fixed.image.exports}
    for old in relation.base.image.exports:
        label = old.name or f"#{old.ordinal}"
        new = here.get(_export_key(old))
        facts: dict[str, object] = {"base_ordinal": old.ordinal, "base_rva": old.rva, "base_forwarder": old.forwarder}
        if new is None:
            reason = f"{label} is no longer exported, but other modules may be bound to it; keep the export"
            yield Refusal(Rule.EXPORT_ABI, label, old.rva, reason, facts)
            continue
        facts |= {"fixed_ordinal": new.ordinal, "fixed_rva": new.rva, "fixed_forwarder": new.forwarder}
        if old.ordinal != new.ordinal:
            reason = (
                f"{label} has ordinal {new.ordinal} instead of {old.ordinal}, but other modules may be bound by ordinal; keep the ordinal"
            )
            yield Refusal(Rule.EXPORT_ABI, label, old.rva, reason, facts)
        elif old.forwarder != new.forwarder:
            reason = f"{label} leads to {new.forwarder or 'this image'} instead of {old.forwarder or 'this image'}; keep where it leads"
            yield Refusal(Rule.EXPORT_ABI, label, old.rva, reason, facts)
        elif _changed_constant(relation, old, new):
            reason = f"the exported constant {label} changed, but other modules read the base's; keep its value"
            yield Refusal(Rule.DATA_INIT, label, old.rva, reason, facts)
        elif old.rva is not None and new.rva is not None and not _leads_alike(relation, old.rva, new.rva):
            reason = f"{label} leads to something else than the base's {label}, to which other modules are bound; keep what it leads to"
            yield Refusal(Rule.EXPORT_ABI, label, old.rva, reason, facts)


def _export_key(export: Export) -> str | int:
    return export.name if export.name is not None else export.ordinal


def _changed_constant(relation: Correspondence, old: Export, new: Export) -> bool:
    if old.rva is None or new.rva is None:
        return False
    constant = relation.base.place(old.rva).kind is PlaceKind.CONSTANT is relation.fixed.place(new.rva).kind
    return constant and not same_but_for_provenance(relation, old.rva, new.rva)


def _leads_alike(relation: Correspondence, old: Rva, new: Rva) -> bool:
    there, here = relation.base.place(old), relation.fixed.place(new)
    if there.function is not None and here.function is not None:
        return relation.matching.same(there.function.entry, here.function.entry) and there.position == here.position
    return same_but_for_provenance(relation, old, new)
