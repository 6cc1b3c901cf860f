"""What can be said of a function whatever its instructions: the shape of its control flow, what it mentions, its place among others.

These are looked at only for functions that nothing stronger has matched.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from hotpatch.arch import Flow, Use
from hotpatch.differ.flows import flows
from hotpatch.differ.parts import ENTRY, PlaceKind

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from hotpatch.differ.view import View
    from hotpatch.image.type_records import TypeRecord

_LEAST_BLOCKS = 5
"""Smaller graphs are alike too often."""
_LEAST_MENTIONS = 2
_LEAST_NEIGHBOURS = 2
_TEXT_LIMIT = 64
_LEAST_TEXT = 4


def flow_shape(view: View, entry: int) -> Hashable | None:
    """The control-flow graph: for each block how it ends, where it leads and how often it calls; ``None`` where there are few blocks."""
    lines, kinds = view.lines(entry), flows(view, entry)
    ranges = view.functions[entry].ranges
    at = [ranges[line.position.part].start + line.position.offset for line in lines]
    heads = {0} | {index + 1 for index, kind in enumerate(kinds) if kind not in (Flow.NEXT, Flow.CALL, Flow.CALL_INDIRECT)}
    targets = {line.inner for line in lines if line.inner is not None and not line.takes_inner}
    heads |= {index for index, rva in enumerate(at) if rva in targets}
    starts = sorted(head for head in heads if head < len(lines))
    if len(starts) < _LEAST_BLOCKS:
        return None
    number = {rva: index for index, rva in enumerate(at)}
    shape = []
    for first, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        last = lines[end - 1]
        target = None if last.inner is None or last.takes_inner else number.get(last.inner)
        goal = None if target is None else bisect_right(starts, target) - 1
        shape.append((kinds[end - 1], goal, sum(kind is Flow.CALL for kind in kinds[first:end])))
    return tuple(shape)


def mentions(view: View, entry: int) -> Hashable | None:
    """The texts and imports that a function refers to; ``None`` where these are few."""
    found: set[Hashable] = set()
    for link in view.links(entry):
        place = view.place(link.target)
        if place.kind is PlaceKind.IMPORT and place.slot is not None:
            found.add(place.slot.label)
        elif place.kind is PlaceKind.CONSTANT:
            text, end, _ = view.image.read(link.target, _TEXT_LIMIT).partition(b"\0")
            if end and len(text) >= _LEAST_TEXT and text.isascii():
                found.add(text)
    return frozenset(found) if len(found) >= _LEAST_MENTIONS else None


def neighbours(view: View, entry: int, known: Mapping[int, int], callers: Mapping[int, frozenset[int]]) -> Hashable | None:
    """The matched functions that call a function and that it calls, by what ``known`` calls them; ``None`` where these are few."""
    above = frozenset(known[caller] for caller in callers.get(entry, ()) if caller in known)
    below = frozenset(known[target] for target in callees(view, entry) if target in known)
    return (above, below) if len(above) + len(below) >= _LEAST_NEIGHBOURS else None


def callers(view: View) -> Mapping[int, frozenset[int]]:
    """Of each function: the entries of those that call it, jump to it or take its address."""
    found: dict[int, set[int]] = {}
    for entry in view.functions:
        for target in callees(view, entry):
            found.setdefault(target, set()).add(entry)
    return {target: frozenset(entries) for target, entries in found.items()}


def described(base: View, fixed: View) -> Iterator[tuple[TypeRecord, TypeRecord]]:
    """What describes thrown objects and says the same in both images, where either has one that does: its functions are each other."""
    there, here = _by_meaning(base), _by_meaning(fixed)
    for meaning, records in there.items():
        others = here.get(meaning, ())
        if len(records) == len(others) == 1:
            yield records[0], others[0]


def _by_meaning(view: View) -> Mapping[Hashable, list[TypeRecord]]:
    found: dict[Hashable, list[TypeRecord]] = {}
    for _, record in sorted(view.type_records.items()):
        if record.code:
            found.setdefault(record.meaning, []).append(record)
    return found


def callees(view: View, entry: int) -> frozenset[int]:
    """Entries of the functions that a function calls, jumps to or takes the address of."""
    places = (view.place(link.target) for link in view.links(entry) if link.use is not Use.UNUSED)
    return frozenset(
        place.function.entry for place in places if place.kind is PlaceKind.FUNCTION and place.function and place.position == ENTRY
    )
