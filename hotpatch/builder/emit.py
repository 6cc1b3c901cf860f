"""Putting the patch together from what was linked."""

from __future__ import annotations

import hashlib
from pathlib import PurePath
from typing import TYPE_CHECKING

from hotpatch import __version__
from hotpatch.patch import Callback, Carried, CarriedKind, PatchContents, PatchedFunction, Provenance, loads, write_patch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hotpatch.address import Rva
    from hotpatch.builder.link import Linked
    from hotpatch.builder.model import Bound, Entrance, Placement, Selected
    from hotpatch.differ import ImageDiff
    from hotpatch.image import Function
    from hotpatch.patch import Moment, Patch, Terms

IMPORT_SIZE = 8


def emit(
    diff: ImageDiff,
    selected: Sequence[Selected],
    entrances: Mapping[Rva, Entrance],
    bound: Bound,
    placement: Placement,
    linked: Linked,
    callbacks: Mapping[Moment, Function],
    *,
    sequence: int,
    overrides: Iterable[str],
    terms: Terms,
) -> Patch:
    """Write the patch file and read it back."""
    base, fixed = diff.base, diff.fixed
    size = {body.function.entry: sum(block.size for block in body.blocks) for body in bound.bodies}
    functions = []
    for item in sorted(selected, key=lambda item: item.base.entry):
        entrance = entrances[item.base.entry]
        functions.append(
            PatchedFunction(
                item.base.name or item.fixed.name,
                item.base.entry,
                placement.of(item.fixed.entry),
                size[item.fixed.entry],
                entrance.redirect,
                f"{item.why}; {entrance.why}" if entrance.why else item.why,
                entrance.entry_bytes,
                entrance.padding_bytes,
            )
        )
    contents = PatchContents(
        machine=base.machine,
        base=base.identity,
        base_hashes=hashlib.sha256(base.data).digest() + hashlib.sha1(base.data, usedforsecurity=False).digest(),
        sequence=sequence,
        functions=tuple(functions),
        carried=_carried(selected, bound, placement, linked),
        fixups=linked.fixups,
        imports=linked.imports,
        provenance=Provenance(base.name, base.sha256, fixed.name, fixed.sha256, f"hotpatch {__version__}"),
        overrides=tuple(overrides),
        sections=linked.sections,
        pdata=linked.pdata,
        import_directory=linked.import_directory,
        import_addresses=linked.import_addresses,
        callbacks=tuple(Callback(moment, placement.of(function.entry)) for moment, function in callbacks.items()),
        terms=terms,
    )
    return loads(write_patch(contents), f"{PurePath(base.name).stem}.patch-{sequence}.dll")


def _carried(selected: Sequence[Selected], bound: Bound, placement: Placement, linked: Linked) -> tuple[Carried, ...]:
    replaced = {item.fixed.entry for item in selected}
    rows = [
        Carried(body.function.name, placement.of(body.function.entry), sum(block.size for block in body.blocks), CarriedKind.FUNCTION)
        for body in bound.bodies
        if body.function.entry not in replaced
    ]
    rows += [
        Carried(piece.name, placement.of(piece.range.start), piece.range.size, piece.kind)
        for piece in placement.pieces
        if piece.kind is not None
    ]
    rows += [Carried(row.name or f"#{row.ordinal}", row.slot, IMPORT_SIZE, CarriedKind.IMPORT) for row in linked.imports]
    return tuple(sorted(rows, key=lambda row: row.patch_rva))
