"""Live data of the same size whose type lays something else where: PDBs of both images tell."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING

from hotpatch.differ.parts import PlaceKind
from hotpatch.errors import Refusal, Rule
from hotpatch.image.pdb_layouts import layout_difference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hotpatch.differ.live import LiveData
    from hotpatch.differ.view import View
    from hotpatch.image import Datum
    from hotpatch.image.pdb_layouts import LayoutDifference

_EVIDENCE_BYTES = 32


def retyped(base: View, fixed: View, live: LiveData) -> Iterator[Refusal]:
    """A finding for each matched live datum that the base uses and whose type has another layout in the fixed image.

    Where a PDB does not tell the layout, nothing is found; other sizes are a finding of their own.
    """
    known: dict[tuple[int, int], LayoutDifference | None] = {}
    is_used = _users(base)
    for old, new in _pairs(base, fixed, live):
        if old.type is None or new.type is None or not old.size or old.size != new.size:
            continue
        indices = old.type.index, new.type.index
        if indices not in known:
            there, here = old.type.layout(), new.type.layout()
            known[indices] = layout_difference(there, here) if there is not None and here is not None else None
        found = known[indices]
        if found is not None and is_used(old):
            yield _refusal(base, fixed, old, new, found)


def _refusal(base: View, fixed: View, old: Datum, new: Datum, found: LayoutDifference) -> Refusal:
    if found.member is not None:
        how = f"its member {found.member} lies at {found.before} in the base and at {found.after} in the fixed image"
    else:
        how = f"at byte {found.offset} it has {found.before} in the base and {found.after} in the fixed image"
    reason = (
        f"{old.name} has another layout: {how}, but the running program's datum holds what the base's code has put there; "
        "keep its layout and put what is new into a datum of its own"
    )
    room = min(_EVIDENCE_BYTES, (old.size or 0) - found.offset)
    facts: dict[str, object] = {"base_rva": old.rva, "fixed_rva": new.rva, "offset": found.offset}
    facts |= {"base_layout": found.before, "fixed_layout": found.after} | ({"member": found.member} if found.member is not None else {})
    facts |= {"base_bytes": base.bare(old.rva + found.offset, room).hex(), "fixed_bytes": fixed.bare(new.rva + found.offset, room).hex()}
    return Refusal(Rule.DATA_LAYOUT, old.name, old.rva, reason, facts)


def _pairs(base: View, fixed: View, live: LiveData) -> list[tuple[Datum, Datum]]:
    """Data of the same name that are matched, or lie in the threads' blocks, and whose types are told; in order of the base."""
    there, here = _typed(base), _typed(fixed)
    if not there or not here:
        return []
    starts = [(stretch.base, stretch.fixed) for stretch in live.stretches]
    old_block, new_block = base.image.tls, fixed.image.tls
    if old_block is not None and new_block is not None:
        offset = new_block.template.start - old_block.template.start
        starts += [(rva, rva + offset) for rva in there if rva in old_block.template]
    found = []
    for old_rva, new_rva in sorted(set(starts)):
        others = here.get(new_rva, {})
        found += [(datum, others[name]) for name, datum in sorted(there.get(old_rva, {}).items()) if name in others]
    return found


def _typed(view: View) -> dict[int, dict[str, Datum]]:
    """Live data whose types a PDB tells, by start and name."""
    found: dict[int, dict[str, Datum]] = defaultdict(dict)
    for datum in view.image.data_symbols:
        if datum.type is not None and view.place(datum.rva).kind is PlaceKind.WRITABLE:
            found[datum.rva].setdefault(datum.name, datum)
    return found


def _users(view: View) -> Callable[[Datum], bool]:
    """Whether code, pointers or other modules may use a datum; what code does with threads' blocks is taken to be any of it."""

    @cache
    def targets() -> list[int]:
        exported = (export.rva for export in view.image.exports if export.rva is not None)
        return sorted({*view.users, *view.image.pointers.values(), *exported})

    def is_used(datum: Datum) -> bool:
        block = view.image.tls
        if block is not None and datum.rva in block.template:
            return True
        first = bisect_left(targets(), datum.rva)
        return first < len(targets()) and targets()[first] < datum.rva + max(datum.size or 1, 1)

    return is_used
