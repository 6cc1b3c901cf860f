"""Thread-local data: at which offsets in its thread's block code uses them, and of which of these names tell what lies there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.differ.follow import followed
from hotpatch.differ.model import Verdict
from hotpatch.errors import Rule

if TYPE_CHECKING:
    from hotpatch.differ.model import ImageDiff
    from hotpatch.image import Function, Image


def thread_offsets(image: Image, function: Function) -> frozenset[int]:
    """The offsets that a function uses, in the image's thread-local data."""
    tls = image.tls
    if tls is None or not any(reference.target == tls.index for part in image.references(function) for reference in part):
        return frozenset()
    found = image.architecture.thread_offsets(*followed(image, function))
    return frozenset(offset for offset in found if 0 <= offset < tls.template.size + tls.zero_fill)


def unchanged_offsets(diff: ImageDiff) -> frozenset[int]:
    """The offsets that functions of the same body use: the base has there what the fixed image has."""
    kept = (row.fixed for verdict in (Verdict.IDENTICAL, Verdict.RELOCATED) for row in diff.of(verdict))
    return frozenset().union(*(thread_offsets(diff.fixed, function) for function in kept if function is not None))


def named_parts(diff: ImageDiff) -> tuple[range, ...]:
    """The offsets in the fixed image's block of which names tell where the base has what lies there; sorted.

    They do where both images have a datum of the same name at the same offset, or at two, which is a finding (data-layout). That an image
    has a PDB tells nothing: it need not name thread-local data.
    """
    old, new = diff.base.tls, diff.fixed.tls
    if old is None or new is None:
        return ()
    there: dict[tuple[str, int], int] = {}
    for datum in diff.base.data_symbols:
        if datum.rva in old.template:
            key = datum.name, datum.rva - old.template.start
            there[key] = max(there.get(key, 1), datum.size or 1)
    moved = {
        (finding.function, offset)
        for finding in diff.findings
        if finding.rule is Rule.DATA_LAYOUT and (offset := finding.evidence.get("fixed_offset")) is not None
    }
    found = set()
    for datum in diff.fixed.data_symbols:
        key = datum.name, datum.rva - new.template.start
        size = datum.size or 1
        if datum.rva in new.template and (key in there or key in moved):
            found.add((key[1], key[1] + min(size, there.get(key, size))))
    return tuple(range(start, end) for start, end in sorted(found))
