"""What pointers at the same places of two data lead to, and tables that name the functions which they lead to.

Modules tell a runtime of their functions by such tables: names, and beside each a function (methods, attributes, slots of types). Two
tables of the same names, flags and numbers hold the same function at the same place, however much it has changed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.differ.parts import PlaceKind
from hotpatch.differ.texts import whole_text

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from hotpatch.differ.matching import Matching
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair

_DATA = frozenset({PlaceKind.CONSTANT, PlaceKind.WRITABLE})
_Key = tuple[tuple[int, ...], bytes, tuple[tuple[int, str], ...]]
"""What a datum says by all but where its pointers lead: where these stand, its bytes, and the names that they lead to."""


class NamingTables:
    """Tables of two images that name what they lead to."""

    def __init__(self, base: View, fixed: View) -> None:
        """Of ``base`` and ``fixed``."""
        self._views = base, fixed
        self._counts: dict[tuple[View, tuple[int, ...]], Mapping[_Key, int]] = {}
        """How many data say what, by image and by where their pointers stand, as far as asked for."""

    def are_unique(self, old: int, new: int) -> bool:
        """Whether the data at two RVAs say the same by all but where they lead, names among it, and none else in their images does."""
        if not _names(self._views[0], old, self._views[0].pointers_from(old)):
            return False
        keys = [_key(view, rva) for view, rva in zip(self._views, (old, new), strict=True)]
        return keys[0] == keys[1] and all(self._count(view, key) == 1 for view, key in zip(self._views, keys, strict=True))

    def _count(self, view: View, key: _Key) -> int:
        """How many data of an image say the same; looked for among those with pointers at the same places."""
        counts = self._counts.get((view, key[0]))
        if counts is None:
            counts = self._counts[view, key[0]] = Counter(_key(view, rva) for rva in self._by_sites[view].get(key[0], ()))
        return counts[key]

    @cached_property
    def _by_sites(self) -> Mapping[View, Mapping[tuple[int, ...], Sequence[int]]]:
        """The data of each image that have pointers, by where these stand in them."""
        found: dict[View, dict[tuple[int, ...], list[int]]] = {view: defaultdict(list) for view in self._views}
        for view, data in found.items():
            for rva in view.boundaries:
                if sites := view.pointers_from(rva):
                    data[sites].append(rva)
        return found


def pointer_pairs(base: View, fixed: View, old: int, new: int) -> list[Pair]:
    """Targets of the pointers in two data that have them in the same places, up to what follows in either image.

    Where that is further on in one of them, the part that both have must say the same, names among it.
    """
    sites, others = base.pointers_from(old), fixed.pointers_from(new)
    if not sites or not others or not base.place(old).kind is fixed.place(new).kind in _DATA:
        return []
    if sites != others:
        size = min(base.extent(old).end - old, fixed.extent(new).end - new)
        sites, others = base.pointers(old, old + size), fixed.pointers(new, new + size)
        names = _names(base, old, sites)
        alike = sites == others and names and names == _names(fixed, new, others) and base.bare(old, size) == fixed.bare(new, size)
        if not alike:
            return []
    return [(base.pointer(old + offset), fixed.pointer(new + offset)) for offset in sites]


def same_descriptions(base: View, fixed: View, matching: Matching, there: Iterable[int], here: Iterable[int]) -> list[Pair]:
    """Of ``there`` in the base and ``here`` in the fixed image, the live data that describe the same functions, by the same names.

    All functions that such a datum leads to are matched, all else in it is the same, and it is the only one of its image.
    """
    folded = [set(entries) for entries in zip(*matching.folded, strict=True)] or [set(), set()]
    olds = _descriptions(base, there, {old: new for old, new in matching.forward.items() if old not in folded[0]})
    news = _descriptions(fixed, here, {new: new for new in matching.backward if new not in folded[1]})
    found = ((ours, news.get(key, ())) for key, ours in olds.items())
    return sorted((ours[0], theirs[0]) for ours, theirs in found if len(ours) == len(theirs) == 1)


def _descriptions(view: View, starts: Iterable[int], known: Mapping[int, int]) -> Mapping[Hashable, list[int]]:
    """What data say, names and functions among it → where."""
    found: dict[Hashable, list[int]] = defaultdict(list)
    for start in starts:
        sites, _, names = key = _key(view, start)
        targets = [(site, view.pointer(start + site)) for site in sites]
        functions = [(site, known.get(target)) for site, target in targets if target in view.functions]
        if names and functions and None not in (function for _, function in functions):
            found[*key, tuple(functions)].append(start)
    return found


def _names(view: View, start: int, sites: Sequence[int]) -> tuple[tuple[int, str], ...]:
    """The texts that pointers of a datum lead to, with where these stand."""
    targets = ((offset, view.pointer(start + offset)) for offset in sites)
    texts = ((offset, whole_text(view, target)) for offset, target in targets if view.place(target).kind is PlaceKind.CONSTANT)
    return tuple((offset, text[0]) for offset, text in texts if text is not None and not text[1])


def _key(view: View, rva: int) -> _Key:
    """What a datum says by all but where its pointers lead."""
    sites = view.pointers_from(rva)
    return sites, view.bare(rva, view.extent(rva).end - rva), _names(view, rva, sites)
