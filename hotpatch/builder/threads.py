"""Thread-local data without names: whether the base has the same at the offsets in a thread's block that code which travels uses.

Where names of both images do not tell, only functions of the same body show what lies at an offset. Where a changed function uses one that
neither they nor the base's version of it use, or a new function one that they do not use, data may have changed places, and running threads
have theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.builder.evidence import advice
from hotpatch.differ.thread_data import named_parts, thread_offsets, unchanged_offsets
from hotpatch.errors import Refusal, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hotpatch.builder.model import Selected
    from hotpatch.differ import ImageDiff
    from hotpatch.image import Function


def unknown_offsets(diff: ImageDiff, selected: Iterable[Selected], travelling: Iterable[Function]) -> Iterator[Refusal]:
    """What speaks against functions of the fixed image that use thread-local data of which nothing tells that the base has them there.

    ``travelling`` are those that do, ``selected`` those of them that replace one of the base.
    """
    base, fixed = diff.base, diff.fixed
    if base.tls is None or fixed.tls is None:
        return
    used = [(function, offsets) for function in travelling if (offsets := thread_offsets(fixed, function))]
    if not used:
        return
    named, shown = named_parts(diff), unchanged_offsets(diff)
    replaced = {item.fixed.entry: item.base for item in selected}
    for function, offsets in used:
        version = replaced.get(function.entry)
        who = "neither the base's version nor an unchanged function does" if version else "no unchanged function does, and which is new"
        for offset in sorted(offsets - shown - (thread_offsets(base, version) if version else frozenset())):
            if any(offset in part for part in named):
                continue
            reason = (
                f"uses thread-local data at +0x{offset:x} of its thread's block, as {who}, "
                f"so that what the base has there may be something else; {advice(base, fixed)}"
            )
            yield Refusal(Rule.UNRESOLVED_REFERENCE, function.name, function.entry, reason, {"image": "fixed", "offset": offset})
