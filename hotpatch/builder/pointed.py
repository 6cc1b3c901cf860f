"""What functions come to by pointers in data that they read: live data that no code names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.builder.beginnings import is_only_accessed
from hotpatch.builder.bodies import body_of
from hotpatch.builder.model import Body
from hotpatch.builder.ownership import Usage
from hotpatch.builder.reaches import reaches
from hotpatch.differ.startup import ends_of_initialisers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hotpatch.differ.view import View
    from hotpatch.image import Function


def pointed_by(view: View, functions: Iterable[Function]) -> frozenset[int]:
    """The data that relocated pointers lead to in what ``functions`` of the image seen as ``view`` may read, and in what these lead to."""
    ends = ends_of_initialisers(view)
    waiting = [part for function in functions for part in _read(view, function) if part[0] not in ends]
    found: set[int] = set()
    while waiting:
        start, end = waiting.pop()
        targets = {view.pointer(start + offset) for offset in view.pointers(start, end)}
        new = {target for target in targets - found if view.image.function_at(target) is None}
        found |= new
        waiting += [(target, view.extent(target).end) for target in new]
    return frozenset(found)


def _read(view: View, function: Function) -> Iterator[tuple[int, int]]:
    """What a function may read of the data that it names, start and end: all of a datum whose address it does more with."""
    found, whole = read_by(view, function)
    yield from found
    yield from ((target, view.extent(target).end) for target in whole)


def read_by(view: View, function: Function) -> tuple[frozenset[tuple[int, int]], frozenset[int]]:
    """What a function reads or writes at constant distances from data that it names, start and end, and the data that it does more with.

    It may go over these by an index, hand on their addresses or keep them. Exception handlers get addresses in the frame, and one that is
    kept there is one that more is done with.
    """
    body = body_of(view.image, function)
    if not isinstance(body, Body):
        return frozenset(), frozenset()
    every, usage = reaches(view.image, body), Usage(view.image, body.sites)
    found: set[tuple[int, int]] = set()
    whole: set[int] = set()
    for target in usage.targets:
        items = [item for site, several in every.items() if site.target == target for item in several]
        if any(item.indexed for item in items) or not all(is_only_accessed(view, function, maker) for maker in usage.makers(target)):
            whole.add(target)
        else:
            found.update((item.start, item.end) for item in items)
    return frozenset(found), frozenset(whole)
