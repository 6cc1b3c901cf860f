"""Which function of the base is which of the fixed image.

Evidence is tried from the strongest to the weakest; each new pair can make stronger evidence speak again, so after every success the
search starts over. Pairs are never taken back.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache, cached_property
from itertools import islice
from typing import TYPE_CHECKING

from hotpatch.arch import FixupKind
from hotpatch.differ.folds import Folds
from hotpatch.differ.funclets import Funclets
from hotpatch.differ.gaps import gaps, in_order
from hotpatch.differ.idle import TELLING_SIZE, Idle
from hotpatch.differ.likeness import Likeness
from hotpatch.differ.matching import Evidence, Matching
from hotpatch.differ.names import Names
from hotpatch.differ.naming_tables import NamingTables, pointer_pairs
from hotpatch.differ.ordinals import Ordinals
from hotpatch.differ.parts import PlaceKind
from hotpatch.differ.traits import callers, described, flow_shape, mentions, neighbours
from hotpatch.differ.votes import Votes

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from hotpatch.differ.alignments import Alignments
    from hotpatch.differ.parts import Link
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair

_LABEL_BYTES = 8
_SAME_BODY_WEIGHT = 2
_WEAK_AFFINITY = 0.3
_NEIGHBOUR_AFFINITY = 0.4
_SHORT = 4
"""Instructions; fewer are alike to many a function, and must be nearly the same to tell anything."""
_SHORT_AFFINITY = 0.75
_PLAIN_AFFINITY = 0.6
"""From here on two functions between the same neighbours are alike enough, whoever leads to them."""
_GAP_LIMIT = 400
"""Pairs of functions between two matched neighbours that are compared at most."""


def correlate(base: View, fixed: View, alignments: Alignments) -> tuple[Matching, Folds]:
    """Match the functions of two images, of which ``alignments`` are; with what pairs more of them where data tell."""
    correlator = _Correlator(base, fixed, alignments)
    return correlator.run(), correlator.folds


class _Correlator:
    def __init__(self, base: View, fixed: View, alignments: Alignments) -> None:
        self.base, self.fixed, self.alignments = base, fixed, alignments
        self.matching = Matching()
        self.names = Names(base, fixed)
        self.likeness = Likeness(base, fixed)
        self.funclets = Funclets(base, fixed, self.matching, self.likeness)
        self.folds = Folds(base, fixed, self.matching, self.names, self.funclets)
        self.idle = Idle(base, fixed, self.likeness)
        self.tables = NamingTables(base, fixed)
        self.ordinals = Ordinals(base, fixed)
        self.votes: Votes[None] = Votes()
        self.weak: Votes[None] = Votes()
        self._known_mentions, self._known_shape = cache(mentions), cache(flow_shape)
        self._left_base, self._left_fixed = list(base.functions), list(fixed.functions)
        """Of the functions of either image, those that were open when they were last asked for."""
        self._heard = 0
        """How many matched functions, in the order in which they were, have had their say."""
        self._unheard: list[Pair] = []
        """Those of them whose bodies differ, which are asked last."""
        self._told: set[Pair] = set()
        """Pairs of addresses that nobody need name any more: matched functions, and data whose pointers were followed."""
        self._has_listed = False
        """Whether tables were asked what they lead to, which needs to be done but once."""
        self._has_described = False
        """Whether what describes C++ types was heard."""
        self._has_placed = False
        """Whether places were asked which of the functions that nothing leads to are each other."""
        self._tabled: dict[Pair, list[Pair]] = {}
        """Functions, and the data that correspond and hold them at the same place."""

    def run(self) -> Matching:
        self.names.match(self.matching)
        self._entry_points()
        steps: tuple[Callable[[], bool], ...] = (
            self._telling_bodies,
            self._strong_votes,
            self._bodies_in_context,
            self._short_bodies,
            self._repeated_names,
            self._repeated_bodies,
            self._weak_votes,
            self._copied,
            self._listed,
            self._mentions,
            self._call_graph,
            self._flow_graph,
            self._idle_in_place,
            self._neighbours,
            self._look_alikes,
            self._exported,
        )
        while any(step() for step in steps):
            pass
        self._fold()
        return self.matching

    def _fold(self) -> None:
        """Where one image has a body once and the other twice, pair what is left with what functions of the same body refer to instead."""
        self.folds.add_same(self.votes.pairs())
        self.folds.add_merged(self.ordinals.pairs(self.matching))
        self.folds.add_merged(self._listed_elsewhere())

    def _listed_elsewhere(self) -> list[Pair]:
        """Functions of the base that nothing matched, with what tables that name what they lead to have in their place.

        Only those that nothing else leads to, by code or by a pointer: the linker may have folded them too, and what leads to them so may
        have gone another way.
        """
        there = set(self._open_base())
        found = self.tables.pairs(there, self.fixed.functions)
        if not found:
            return []
        partners: dict[int, set[int]] = defaultdict(set)
        for base, fixed in (*found, *self.votes.pairs(), *self.weak.pairs()):
            partners[base].add(fixed)
        led_to = Counter(target for target in self.base.image.pointers.values() if target in there)
        led_to.update(target for target in there for _ in self.base.users.get(target, ()))
        return [pair for pair, tables in sorted(found.items()) if len(tables) == led_to[pair[0]] and partners[pair[0]] == {pair[1]}]

    # what is left ------------------------------------------------------------------------------------------------------------------------

    def _open_base(self) -> list[int]:
        self._left_base = [entry for entry in self._left_base if entry not in self.matching.forward]
        return self._left_base

    def _open_fixed(self) -> list[int]:
        self._left_fixed = [entry for entry in self._left_fixed if entry not in self.matching.backward]
        return self._left_fixed

    def _pair_all(self, pairs: Iterable[Pair], evidence: Evidence) -> bool:
        """Match what is not matched, unless exception data or places speak against it; whether there was any."""
        may_pair, idle = self.funclets.may_pair, self.idle.has
        likely = (pair for pair in pairs if may_pair(*pair) and (not idle(*pair) or evidence is Evidence.NAME or self._are_placed(pair)))
        return sum([self.matching.pair(base, fixed, evidence) for base, fixed in likely]) > 0

    def _are_placed(self, pair: Pair) -> bool:
        """Whether places had their say about functions that nothing leads to, and the two are the same and refer to the same."""
        return self._has_placed and self._same_body(*pair) and self._agree(pair)

    def _agree(self, pair: Pair) -> bool:
        """Whether two functions refer to the same, as far as is known."""
        return self._labels(self.base, pair[0]) == self._labels(self.fixed, pair[1])

    def _same_body(self, base: int, fixed: int) -> bool:
        return self.base.bodies[base].is_like(self.fixed.bodies[fixed])

    # evidence ----------------------------------------------------------------------------------------------------------------------------

    def _entry_points(self) -> None:
        there, here = self.base.image.entry_point, self.fixed.image.entry_point
        if there is not None and here is not None and there in self.base.functions and here in self.fixed.functions:
            self.matching.pair(there, here, Evidence.ENTRY_POINT)
        for old, new in zip(_tls_callbacks(self.base), _tls_callbacks(self.fixed), strict=False):
            if old in self.base.functions and new in self.fixed.functions:
                self.matching.pair(old, new, Evidence.ENTRY_POINT)

    def _telling_bodies(self) -> bool:
        return self._unique(
            lambda view, entry: view.bodies[entry].masked if view.functions[entry].size >= TELLING_SIZE else None, Evidence.BODY
        )

    def _short_bodies(self) -> bool:
        return self._unique(lambda view, entry: view.bodies[entry].masked, Evidence.BODY)

    def _bodies_in_context(self) -> bool:
        return self._unique(self._context, Evidence.REFERENCES)

    def _unique(self, key: Callable[[View, int], Hashable | None], evidence: Evidence) -> bool:
        """Pair open functions whose key occurs once among the open functions of either image."""
        found = _unique_pairs(_by_key(self.base, self._open_base(), key), _by_key(self.fixed, self._open_fixed(), key))
        return self._pair_all(found, evidence)

    def _context(self, view: View, entry: int) -> Hashable:
        return view.body(entry).masked, self._labels(view, entry)

    def _labels(self, view: View, entry: int) -> Hashable:
        return tuple(self._label(view, link) for link in view.links(entry))

    def _label(self, view: View, link: Link) -> Hashable:
        """What a link refers to, as far as it can be said alike of both images."""
        place = view.place(link.target)
        match place.kind:
            case PlaceKind.IMPORT:
                return place.slot.label if place.slot else None
            case PlaceKind.FUNCTION if place.function is not None:
                entry: int | None = place.function.entry
                if view is self.fixed:
                    entry = self.matching.backward.get(place.function.entry)
                return (entry, place.position) if entry in self.matching.forward else None
            case PlaceKind.CONSTANT:
                extent = view.extent(link.target)
                return view.bare(extent.start, min(extent.size, _LABEL_BYTES))
            case _:
                return None

    def _strong_votes(self) -> bool:
        """Two functions of the same body refer to the same things, operand by operand; and what is the same has the same blocks."""
        if not self._has_described:
            self._has_described = True
            for record, other in described(self.base, self.fixed):
                for code in zip(record.code, other.code, strict=True):
                    self._hear(self.votes, code, min(record.parts))
        fresh = sorted(islice(self.matching.forward.items(), self._heard, None))
        self._heard += len(fresh)
        self._told.update(fresh)
        for base, fixed in fresh:
            old, new = self.base.bodies[base], self.fixed.bodies[fixed]
            if not old.is_like(new):
                self._unheard.append((base, fixed))
            else:
                for pair in [pair for pair in zip(old.whole_targets, new.whole_targets, strict=True) if pair not in self._told]:
                    self._hear(self.votes, pair, base)
            for pair in self.funclets.pairs(base, fixed):
                self._hear(self.votes, pair, base)
        return self._elect(self.votes)

    def _weak_votes(self) -> bool:
        """Instructions of changed functions that align refer to the same things, probably."""
        for base, fixed in sorted(self._unheard):
            for old, new in self.alignments.links((base, fixed)):
                if old.kind is new.kind is not FixupKind.PAGEBASE_REL21:
                    self._hear(self.weak, (old.target, new.target), base)
        self._unheard.clear()
        return self._elect(self.weak, least_affinity=_WEAK_AFFINITY)

    def _copied(self) -> bool:
        """Of copies between which votes cannot choose, since either can stand for the function, the first."""
        pairs = self.folds.first_copies(self.votes.pairs()) if self._open_base() and self._open_fixed() else ()
        return self._pair_all([pair for pair in pairs if self.names.allow(*pair)], Evidence.REFERENCES)

    def _listed(self) -> bool:
        """What tables that name their functions hold by the same name, whoever uses them."""
        there, here = set(self._open_base()), set(self._open_fixed())
        if self._has_listed or not there or not here:
            return False
        self._has_listed = True
        votes: Votes[None] = Votes()
        for pair, voters in self.tables.pairs(there, here).items():
            for voter in voters:
                votes.add(pair, voter, None)
        return self._elect(votes)

    def _hear(self, votes: Votes[None], pair: Pair, voter: int) -> None:
        """Count the vote of ``voter`` for a pair of functions, or for those that pointers in two data that correspond lead to."""
        waiting = [pair]
        while waiting:
            pair = waiting.pop()
            if pair in self._told:
                continue
            if _is_entry(self.base, pair[0]) and _is_entry(self.fixed, pair[1]):
                votes.add(pair, voter, None)
            else:
                self._told.add(pair)
                found = pointer_pairs(self.base, self.fixed, *pair)
                for each in found:
                    self._tabled.setdefault(each, []).append(pair)
                waiting += found

    def _elect(self, votes: Votes[None], least_affinity: float = 0.0) -> bool:
        weight = {pair: _SAME_BODY_WEIGHT for pair in votes.pairs() if self._same_body(*pair)}
        winners, _ = votes.clear_winners(self.matching.forward, weight)
        if least_affinity:
            winners = tuple(pair for pair in winners if self.likeness.affinity(*pair, least_affinity) or self._is_listed(pair))
        return self._pair_all((pair for pair in winners if self.names.allow(*pair)), Evidence.REFERENCES)

    def _is_listed(self, pair: Pair) -> bool:
        """Whether tables that name what they lead to, and that are each other and no others, lead to the two from the same place.

        So do tables that such lead to and that say the same, by numbers: those of a type's slots, say.
        """
        for tables in self._tabled.get(pair, ()):
            if self.tables.are_unique(*tables):
                return True
            if self.tables.number_alike(*tables) and any(self.tables.are_unique(*above) for above in self._tabled.get(tables, ())):
                return True
        return False

    def _repeated_names(self) -> bool:
        """Static functions of one name, several times: in their order, when they are equally many."""
        there, here = self._by_name(self.base, self._open_base()), self._by_name(self.fixed, self._open_fixed())
        pairs = [
            pair
            for name, entries in sorted(there.items())
            if len(entries) == len(here.get(name, ()))
            for pair in zip(entries, here[name], strict=True)
        ]
        return self._pair_all(pairs, Evidence.NAME)

    def _by_name(self, view: View, entries: Sequence[int]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for entry in entries:
            for name in self.names.of(view, entry):
                found[name].append(entry)
        return found

    def _repeated_bodies(self) -> bool:
        """One body several times, and nothing else tells which is which: in their order, when they are equally many."""
        there = _by_key(self.base, self._open_base(), lambda view, entry: view.body(entry).masked)
        here = _by_key(self.fixed, self._open_fixed(), lambda view, entry: view.body(entry).masked)
        pairs = []
        for digest, entries in there.items():
            if len(entries) == len(here.get(digest, ())):
                pairs += [pair for pair in zip(entries, here[digest], strict=True) if self.names.allow(*pair)]
        return self._pair_all(pairs, Evidence.ORDER)

    def _mentions(self) -> bool:
        """What refers to the same texts and imports, where no other function does."""
        return self._traits(self._known_mentions, Evidence.MENTIONS)

    def _call_graph(self) -> bool:
        """What has the same matched callers and callees, where no other function has."""
        known = {self.base: {entry: entry for entry in self.matching.forward}, self.fixed: self.matching.backward}
        return self._traits(lambda view, entry: neighbours(view, entry, known[view], self._callers[view]), Evidence.CALL_GRAPH)

    def _flow_graph(self) -> bool:
        """What has the same shape of control flow, where no other function has."""
        return self._traits(self._known_shape, Evidence.FLOW_GRAPH)

    def _traits(self, key: Callable[[View, int], Hashable | None], evidence: Evidence) -> bool:
        """Pair open functions that a trait tells apart, unless names speak against it or their instructions have little in common."""
        there, here = self._open_base(), self._open_fixed()
        if not there or not here:
            return False
        found = _unique_pairs(_by_key(self.base, there, key), _by_key(self.fixed, here, key))
        likely = (pair for pair in found if self.names.allow(*pair) and self.likeness.affinity(*pair, _WEAK_AFFINITY))
        return self._pair_all(likely, evidence)

    @cached_property
    def _callers(self) -> Mapping[View, Mapping[int, frozenset[int]]]:
        return {view: callers(view) for view in (self.base, self.fixed)}

    def _idle_in_place(self) -> bool:
        """What nothing leads to, by its place; the first time, whether there is any that other evidence may speak of from now on."""
        is_first, self._has_placed = not self._has_placed, True
        found = self.idle.in_place(self.matching, self._agree)
        pairs = [self.matching.pair(*pair, Evidence.ORDER) for pair in list(found) if self.names.allow(*pair)]
        return any(pairs) or (is_first and bool(self.idle))

    def _neighbours(self) -> bool:
        """What stands between the same matched neighbours, where it is alike: the most alike of each gap.

        Of those alone that are paired when the gap as a whole is as alike as it can be in its order.
        """
        best: list[Pair] = []
        for there, here in gaps(self.base, self.fixed, self.matching):
            pairs = [(base, fixed) for base in there for fixed in here if self.names.allow(base, fixed)]
            if len(pairs) > _GAP_LIMIT:
                continue
            scores = self._alike_in_place(there, here, pairs) or self._alike_in_order(there, here, pairs)
            likely = [pair for pair in scores if scores[pair] >= _PLAIN_AFFINITY or self._are_led_to_alike(*pair)]
            best += sorted(likely, key=lambda pair: (-scores[pair], pair))[:1]
        return self._pair_all(best, Evidence.ORDER)

    def _are_led_to_alike(self, base: int, fixed: int) -> bool:
        """Whether something that leads to one, by code or by a pointer in data, leads to the other, or nothing leads to either.

        A function that was rewritten has a new one in its place else, as far as order tells.
        """
        there, here = (set(view.users.get(entry, ())) - {entry} for view, entry in ((self.base, base), (self.fixed, fixed)))
        pointed = [entry in view.pointed for view, entry in ((self.base, base), (self.fixed, fixed))]
        if any(pointed) or there or here:
            return all(pointed) or any(self.matching.forward.get(entry) in here for entry in there)
        return True

    def _alike_in_place(self, there: Sequence[int], here: Sequence[int], pairs: Sequence[Pair]) -> dict[Pair, float]:
        """How alike each is to the one in its place, where as many stand in both and that is their best order: this speaks for them."""
        if len(there) != len(here):
            return {}
        scores = {pair: self.likeness.affinity(*pair) for pair in pairs}
        found = in_order(there, here, scores)
        return {pair: scores[pair] for pair in found if scores[pair] >= _WEAK_AFFINITY} if len(found) == len(there) else {}

    def _alike_in_order(self, there: Sequence[int], here: Sequence[int], pairs: Sequence[Pair]) -> dict[Pair, float]:
        """How alike they are where something came or went: nothing shows in whose place, and a few instructions are alike to many."""
        scores = {pair: self.likeness.affinity(*pair, _NEIGHBOUR_AFFINITY) for pair in pairs}
        found = in_order(there, here, scores)
        return {pair: scores[pair] for pair in found if scores[pair] >= _SHORT_AFFINITY or not self._short(*pair)}

    def _short(self, base: int, fixed: int) -> bool:
        return min(len(self.base.lines(base)), len(self.fixed.lines(fixed))) < _SHORT

    def _look_alikes(self) -> bool:
        pairs = self.likeness.best_partners(self._open_base(), self._open_fixed())
        return self._pair_all((pair for pair in pairs if self.names.allow(*pair)), Evidence.SIMILARITY)

    def _exported(self) -> bool:
        """What is exported by the same ordinal and has no name."""
        return self._pair_all((pair for pair in self.ordinals.pairs(self.matching) if self.names.allow(*pair)), Evidence.ORDINAL)


def _tls_callbacks(view: View) -> tuple[int, ...]:
    return view.image.tls.callbacks if view.image.tls is not None else ()


def _is_entry(view: View, rva: int) -> bool:
    return rva in view.functions and view.place(rva).kind is PlaceKind.FUNCTION


def _unique_pairs(there: Mapping[Hashable, list[int]], here: Mapping[Hashable, list[int]]) -> list[Pair]:
    """Functions whose key either image has once."""
    return [(entries[0], here[value][0]) for value, entries in there.items() if len(entries) == 1 and len(here.get(value, ())) == 1]


def _by_key(view: View, entries: Sequence[int], key: Callable[[View, int], Hashable | None]) -> dict[Hashable, list[int]]:
    found: dict[Hashable, list[int]] = defaultdict(list)
    for entry in entries:
        value = key(view, entry)
        if value is not None:
            found[value].append(entry)
    return found
