"""What pointers at the same places of two data lead to, and tables that name the functions which they lead to.

Modules tell a runtime of their functions by such tables: names, and beside each a function (methods, attributes, slots of types). Two
tables of the same names, flags and numbers hold the same function at the same place, however much it has changed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.differ.parts import POINTER_SIZE, PlaceKind
from hotpatch.differ.texts import whole_text

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Hashable, Iterable, Iterator, Mapping, Sequence

    from hotpatch.differ.matching import Matching
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair

_DATA = frozenset({PlaceKind.CONSTANT, PlaceKind.WRITABLE})
_Named = tuple[int, str]
"""Where in a datum a pointer stands, and the name that it leads to."""
_NAMESAKES = 16
"""Tables of an image that begin with one name, of which the same is looked for at most."""
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
        if keys[0] == keys[1]:
            return all(self._count(view, key) == 1 for view, key in zip(self._views, keys, strict=True))
        size = _front(*self._views, old, new)
        return size > 0 and all(self._begin_so(view, _key_of(view, rva, size), size) == 1 for view, rva in self._both(old, new))

    def number_alike(self, old: int, new: int) -> bool:
        """Whether the data at two RVAs say the same by all but where they lead, and not by that they hold nothing else."""
        keys = [_key(view, rva) for view, rva in self._both(old, new)]
        return keys[0] == keys[1] and any(keys[0][1])

    def alike(self, there: Container[int], here: Container[int]) -> list[Pair]:
        """Tables of the base that lead to functions ``there``, with the one of the fixed image that is the same and leads ``here``."""
        olds, news = (_by_first_name(view, entries) for view, entries in zip(self._views, (there, here), strict=True))
        few = ((starts, news[key]) for key, starts in olds.items() if len(news.get(key, ())) in range(1, _NAMESAKES + 1))
        return [(old, new) for starts, others in few for old in starts for new in others if self.are_unique(old, new)]

    def pairs(self, there: Collection[int], here: Collection[int]) -> Mapping[Pair, Sequence[int]]:
        """Functions ``there`` in the base and ``here`` in the other that such tables hold at the same place, with the base's tables."""
        found: dict[Pair, list[int]] = {}
        for tables in self.alike(there, here) if there and here else ():
            for pair in pointer_pairs(*self._views, *tables):
                if pair[0] in there and pair[1] in here:
                    found.setdefault(pair, []).append(tables[0])
        return found

    def _both(self, old: int, new: int) -> Iterator[tuple[View, int]]:
        return zip(self._views, (old, new), strict=True)

    def _begin_so(self, view: View, key: _Key, size: int) -> int:
        """How many data of an image say ``key`` by their first ``size`` bytes."""
        sites = key[0]
        fronts = (data for longer, data in self._by_sites[view].items() if longer[: len(sites)] == sites)
        return sum(_key_of(view, rva, size) == key for data in fronts for rva in data)

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

    Where entries came or went, those of the tables' front that say the same, names among it.
    """
    sites, others = base.pointers_from(old), fixed.pointers_from(new)
    if not sites or not others or not base.place(old).kind is fixed.place(new).kind in _DATA:
        return []
    if sites != others:
        sites = base.pointers(old, old + _front(base, fixed, old, new))
    return [(base.pointer(old + offset), fixed.pointer(new + offset)) for offset in sites]


def _by_first_name(view: View, entries: Container[int]) -> Mapping[_Named | None, list[int]]:
    """The data that lead to functions among ``entries``, by the first name in each."""
    starts = view.boundaries
    holders = {starts[bisect_right(starts, site) - 1] for site, target in view.image.pointers.items() if target in entries}
    found: dict[_Named | None, list[int]] = defaultdict(list)
    for start in sorted(holders):
        found[_first_name(view, start)].append(start)
    found.pop(None, None)
    return found


def _first_name(view: View, start: int) -> _Named | None:
    return next((found for site in view.pointers_from(start) for found in _names(view, start, (site,))), None)


def _front(base: View, fixed: View, old: int, new: int) -> int:
    """How many bytes two data begin with that say the same, names among it; 0 where these are none.

    It ends where an entry begins that only one of them has: with its name, or, where names follow what they name, behind the last name
    that both have.
    """
    size = min(base.extent(old).end - old, fixed.extent(new).end - new)
    there, here = (_said(view, rva, size) for view, rva in ((base, old), (fixed, new)))
    bytes_there, bytes_here = base.bare(old, size), fixed.bare(new, size)
    end = min((site for site, _ in there ^ here), default=size)
    end = next((at for at in range(end) if bytes_there[at] != bytes_here[at]), end)
    names = sorted(site for site, name in there if name and site < end)
    if not names:
        return 0
    first = min(site for site, _ in there)
    return end if end == size or first == names[0] else names[-1] + POINTER_SIZE


def _said(view: View, rva: int, size: int) -> set[tuple[int, str]]:
    """Where pointers stand in a datum's first ``size`` bytes, and the names that they lead to."""
    sites = view.pointers(rva, rva + size)
    return {*dict.fromkeys(sites, "").items(), *_names(view, rva, sites)}


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
    return _key_of(view, rva, view.extent(rva).end - rva)


def _key_of(view: View, rva: int, size: int) -> _Key:
    """What the first ``size`` bytes of a datum say."""
    sites = view.pointers(rva, rva + size)
    return sites, view.bare(rva, size), _names(view, rva, sites)
