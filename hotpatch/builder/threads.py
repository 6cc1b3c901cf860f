"""Thread-local data without names: at which offsets in its thread's block changed code uses them, and whether the base has the same there.

Only functions of the same body show what lies at an offset. Where a changed function uses one that neither they nor the base's version
of it use, data may have changed places, and running threads have theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.builder.evidence import advice
from hotpatch.differ import Verdict
from hotpatch.differ.follow import followed
from hotpatch.errors import Refusal, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hotpatch.builder.model import Selected
    from hotpatch.differ import ImageDiff
    from hotpatch.image import Function, Image

_SAME = (Verdict.IDENTICAL, Verdict.RELOCATED)


def unknown_offsets(diff: ImageDiff, selected: Iterable[Selected]) -> Iterator[Refusal]:
    """What speaks against ``selected`` functions that use thread-local data of which nothing tells that the base has them there."""
    base, fixed = diff.base, diff.fixed
    if base.tls is None or fixed.tls is None or (base.has_symbols and fixed.has_symbols):
        return
    used = {item.fixed.entry: (item, _offsets(fixed, item.fixed)) for item in selected}
    if not any(offsets for _, offsets in used.values()):
        return
    shown: frozenset[int] = frozenset()
    for row in (row for verdict in _SAME for row in diff.of(verdict)):
        if row.fixed is not None:
            shown |= _offsets(fixed, row.fixed)
    for item, offsets in used.values():
        for offset in sorted(offsets - shown - _offsets(base, item.base)):
            reason = (
                f"uses thread-local data at +0x{offset:x} of its thread's block, as neither the base's version nor an unchanged function "
                f"does, so that what the base has there may be something else; {advice(base, fixed)}"
            )
            evidence = {"image": "fixed", "fixed_rva": int(item.fixed.entry), "offset": offset}
            yield Refusal(Rule.UNRESOLVED_REFERENCE, item.base.name, item.base.entry, reason, evidence)


def _offsets(image: Image, function: Function) -> frozenset[int]:
    """The offsets that a function uses, in the image's thread-local data."""
    tls = image.tls
    if tls is None or not any(reference.target == tls.index for part in image.references(function) for reference in part):
        return frozenset()
    found = image.architecture.thread_offsets(*followed(image, function))
    return frozenset(offset for offset in found if 0 <= offset < tls.template.size + tls.zero_fill)
