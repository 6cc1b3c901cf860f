"""Where live data begin, and what functions do with them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING

from hotpatch.arch import FixupKind
from hotpatch.differ.parts import PlaceKind

if TYPE_CHECKING:
    from collections.abc import Container

    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair


def open_targets(view: View, entry: int, matched: Container[int]) -> list[int]:
    """Live data that a function refers to and that are not matched at that address."""
    return sorted(
        target for target in set(view.body(entry).whole_targets) if target not in matched and view.place(target).kind is PlaceKind.WRITABLE
    )


def users_of(view: View) -> dict[int, set[int]]:
    """Live data → what refers to them: functions by entry, and places of pointers."""
    found: dict[int, set[int]] = defaultdict(set)
    for target, entries in view.users.items():
        if view.place(target).kind is PlaceKind.WRITABLE:
            found[target].update(entries)
    for site, target in view.image.pointers.items():
        found[target].add(site)
    return found


def operations(view: View, entry: int) -> dict[int, set[tuple[object, ...]]]:
    """What the function does with each address; taking its page is done with any."""
    links = view.links(entry)
    found: dict[int, set[tuple[object, ...]]] = defaultdict(set)
    for line in view.lines(entry):
        for number in line.links:
            if links[number].kind is not FixupKind.PAGEBASE_REL21:
                found[links[number].target].add((view.architecture.operation(view.text(entry, line)), *line.kinds))
    return found


LiveName = tuple[str, str | None]
"""The name of a datum and, of a static local, of its function: each function may have one of that name."""


def live_names(view: View) -> dict[LiveName, list[int]]:
    """Names of live data → where those begin that have it."""
    found: dict[LiveName, list[int]] = defaultdict(list)
    for datum in view.image.data_symbols:
        starts = found[datum.name, datum.scope]
        if view.place(datum.rva).kind is PlaceKind.WRITABLE and datum.rva not in starts:
            starts.append(datum.rva)
    return dict(found)


def type_pairs(base: View, fixed: View) -> list[Pair]:
    """What describes the same C++ type in both images: a runtime tells types apart by their names, which either image has once."""
    there, here = _by_type_name(base), _by_type_name(fixed)
    both = ((starts, here.get(name, ())) for name, starts in there.items())
    return sorted((olds[0], news[0]) for olds, news in both if len(olds) == len(news) == 1)


def _by_type_name(view: View) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = defaultdict(list)
    for start, name in view.type_names.items():
        found[name].append(start)
    return found


def parts_behind(view: View, start: int, size: int) -> set[int]:
    """Offsets from ``start`` of what begins or ends behind it within ``size`` bytes."""
    starts = view.boundaries
    return {at - start for at in starts[bisect_right(starts, start) : bisect_left(starts, start + size)]}
