"""Which live (writable) datum of the base is which of the fixed image.

Names decide where there are any. Otherwise functions vote: two of the same body refer to the same things operand by operand, which is
proof; instructions of changed functions that align are weaker and only heard where nothing speaks against them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from functools import cached_property, partial
from itertools import product
from typing import TYPE_CHECKING

from hotpatch.arch import FixupKind
from hotpatch.differ.elements import other_elements
from hotpatch.differ.last import LastOnes
from hotpatch.differ.live import Dispute, LiveData, Shift
from hotpatch.differ.live_pairs import LivePairs
from hotpatch.differ.matching import Evidence
from hotpatch.differ.naming_tables import NamingTables, pointer_pairs, same_descriptions
from hotpatch.differ.parts import POINTER_SIZE, PlaceKind
from hotpatch.differ.reached import is_the_same, reached_alike
from hotpatch.differ.uses import live_names, open_targets, operations, type_pairs, users_of
from hotpatch.differ.votes import Site, Tie, Votes

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from hotpatch.differ.matching import Matching
    from hotpatch.differ.parts import Body, Link
    from hotpatch.differ.twins import Twins
    from hotpatch.differ.uses import LiveName
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair

_Telling = Callable[[], Site]
"""Who voted, told when it is asked for: only where votes contradict each other, or tell of a move."""
_EQUAL_CONTENT_WEIGHT = 2
_FARTHEST = 4096
"""Bytes; how far code is taken to go from data that it names to others."""
_INSIDE = POINTER_SIZE - 1
_POINTER_ROUNDS = 16
"""How far pointers in data are followed."""


def correlate_data(base: View, fixed: View, matching: Matching, twins: Twins) -> LiveData:
    """Match the live data of two images whose functions are matched."""
    search = _Search(base, fixed, matching, twins)
    search.named()
    search.headers()
    search.types()
    search.proven()
    search.described()
    search.texts()
    search.probable()
    search.reached()
    search.in_place()
    search.last_ones()
    search.pointed_at()
    search.repeated_names()
    return LiveData(search.live.stretches(), tuple(search.disputes), tuple(search.shifts))


class _Search:
    def __init__(self, base: View, fixed: View, matching: Matching, twins: Twins) -> None:
        self.base, self.fixed, self.matching, self.twins = base, fixed, matching, twins
        self.disputes: list[Dispute] = []
        self.shifts: list[Shift] = []
        self._moved: dict[Pair, dict[int, _Telling]] = defaultdict(dict)
        self._stayed: set[int] = set()
        self._one_sided: dict[Pair, dict[int, _Telling]] = defaultdict(dict)
        """Votes, by voter, for what one image alone names though symbols are known of both: they match nothing, but object."""
        self._names = {view: live_names(view) for view in (base, fixed)}
        self.live = LivePairs(base, fixed, (start for starts in self._names[base].values() for start in starts))

    # evidence ----------------------------------------------------------------------------------------------------------------------------

    def named(self) -> None:
        """Names that either image has once."""
        there, here = self._names[self.base], self._names[self.fixed]
        for name, starts in there.items():
            others = here.get(name, ())
            if len(starts) == 1 and len(others) == 1:
                self.live.add(starts[0], others[0], Evidence.NAME)

    def headers(self) -> None:
        """What the headers give a role."""
        there, here = self.base.special_data, self.fixed.special_data
        for role in sorted(there.keys() & here.keys()):
            if self.base.place(there[role]).kind is PlaceKind.WRITABLE is self.fixed.place(here[role]).kind:
                self.live.add(there[role], here[role], Evidence.HEADERS)

    def types(self) -> None:
        """What describes C++ types."""
        for pair in type_pairs(self.base, self.fixed):
            if self._are_live(pair):
                self.live.add(*pair, Evidence.NAME)

    def proven(self) -> None:
        """What functions of the same body refer to."""
        votes: Votes[_Telling] = Votes()
        live = {pair: found for pair in self.twins.targets if (found := self._live_behind(pair))}
        leading = {pair[0] for pair in live}
        for old, new in self.twins.bodies:
            if leading.isdisjoint(old.whole_targets):
                continue
            for pair in dict.fromkeys([pair for pair in zip(old.whole_targets, new.whole_targets, strict=True) if pair in live]):
                for datum in live[pair]:
                    self._hear(votes, datum, old.function.entry, partial(_site_of, old, new, pair), proof=True)
        self._elect(votes, {}, Evidence.VOTES)
        self.shifts = [
            Shift(self._label(pair[0]), *pair, tuple(site() for _, site in sorted(sites.items())))
            for pair, sites in sorted(self._moved.items())
            if len(sites) > 1 and pair[0] not in self._stayed
        ]

    def _live_behind(self, pair: Pair) -> tuple[Pair, ...]:
        """The live data that a pair of addresses leads to, by itself and by way of pointers at the same places."""
        if self._says_nothing(pair):
            return ()
        found: list[Pair] = []
        seen: set[Pair] = set()
        waiting = [pair]
        while waiting:
            pair = waiting.pop()
            if pair in seen or self._says_nothing(pair):
                continue
            seen.add(pair)
            if self._are_live(pair):
                found.append(pair)
            waiting += pointer_pairs(self.base, self.fixed, *pair)
        return tuple(found)

    def _says_nothing(self, pair: Pair) -> bool:
        """Whether a pair of addresses leads to no data but what its bytes are, or to matched functions."""
        return pair[0] in self.base.plain or self.matching.forward.get(pair[0]) == pair[1]

    def _are_live(self, pair: Pair) -> bool:
        return self.base.place(pair[0]).kind is PlaceKind.WRITABLE is self.fixed.place(pair[1]).kind

    def described(self) -> None:
        """What says by names and functions in it what it is, of all that changed functions refer to."""
        lost = {target for old, _ in self.twins.unlike for target in open_targets(self.base, old, self.live.forward)}
        gained = {target for _, new in self.twins.unlike for target in open_targets(self.fixed, new, self.live.taken)}
        if not (lost and gained):
            return
        there = [start for start in self.base.boundaries if start not in self.live.forward and self.base.symbol(start) is None]
        here = [start for start in self.fixed.boundaries if start not in self.live.taken and self.fixed.symbol(start) is None]
        for old, new in same_descriptions(self.base, self.fixed, self.matching, there, here):
            if old in lost and new in gained and self._are_live((old, new)):
                self.live.add(old, new, Evidence.CONTENT)

    def texts(self) -> None:
        """What points at the same texts, as nothing else in its image does, between matched neighbours that moved by as much."""
        tables = NamingTables(self.base, self.fixed)
        led_to = [Counter(view.image.pointers.values()) for view in (self.base, self.fixed)]
        for old in [start for start in self.base.holders if start not in self.live.forward]:
            new = self._same_place(old) if self.base.writable(old) else None
            if new is None or not (self._may_pair(old, new) and self._is_between(old, new)):
                continue
            targets = pointer_pairs(self.base, self.fixed, old, new)
            alone = all(counts[target] == 1 for pair in targets for counts, target in zip(led_to, pair, strict=True))
            if targets and alone and self.base.extent(old).size == self.fixed.extent(new).size and tables.are_unique(old, new):
                self.live.add(old, new, Evidence.CONTENT)

    def probable(self) -> None:
        """What aligned instructions of changed functions refer to."""
        votes: Votes[_Telling] = Votes()
        for functions in self.twins.unlike:
            for old, new in self.twins.alignments.links(functions):
                pair = old.target, new.target
                if old.kind is new.kind is not FixupKind.PAGEBASE_REL21 and self._are_live(pair):
                    site = partial(Site, *functions, _address(self.base, functions[0], old), _address(self.fixed, functions[1], new))
                    self._hear(votes, pair, functions[0], site, proof=False)
        weights = {pair: _EQUAL_CONTENT_WEIGHT for pair in votes.pairs() if self._equal_content(*pair)}
        self._elect(votes, weights, Evidence.ALIGNMENT)

    def reached(self) -> None:
        """What changed functions reach alike, though not both name it.

        What they access must lie as far from what is matched on both sides as before; what they only make the address of must be the same.
        """
        differing = self._begin_otherwise()
        for functions in self.twins.unlike:
            lost = set(open_targets(self.base, functions[0], self.live.forward))
            gained = set(open_targets(self.fixed, functions[1], self.live.taken))
            if not (lost or gained or self._is_disturbed(functions[0], differing)):
                continue
            alike = reached_alike(self.base, self.fixed, functions)
            named = [pair for pair in alike.accessed if (pair[0] in lost or pair[1] in gained) and self._may_pair(*pair)]
            for pair in [pair for pair in named if self._is_between(*pair)]:
                self._reckon(pair)
            for pair in [pair for pair in alike.made if self._may_pair(*pair) and is_the_same(self.base, self.fixed, pair, self._known)]:
                self._reckon(pair)

    def _reckon(self, pair: Pair) -> None:
        base, fixed = pair
        within = (self.base.pointers(base - _INSIDE, base + _INSIDE), self.fixed.pointers(fixed - _INSIDE, fixed + _INSIDE))
        if not any(within):  # a datum begins in the middle of no pointer
            self.live.add(base, fixed, Evidence.ALIGNMENT)
            self.live.reckoned.add(base)

    def _known(self, base: int, fixed: int) -> bool:
        return self.matching.forward.get(base) == fixed or self.live.forward.get(base) == fixed

    def _is_disturbed(self, entry: int, differing: Container[int]) -> bool:
        """Whether a function of the base names live data around which others begin otherwise, or have moved by other distances."""
        for start in dict.fromkeys(self.base.body(entry).whole_targets):
            if start in self.live.forward and self.base.symbol(start) is None:
                moved = self.live.forward[start] - start
                near = self.live.near(start, _FARTHEST)
                if any(other in differing or self.live.forward[other] - other != moved for other in near):
                    return True
        return False

    def _begin_otherwise(self) -> frozenset[int]:
        """Starts of the base's nameless live data that hold other bytes, or pointers at other places, than what is matched with them."""
        return frozenset(
            one.base
            for one in self.live.stretches()
            if one.name is None
            and (
                self.base.bare(one.base, one.size) != self.fixed.bare(one.fixed, one.size)
                or self.base.pointers(one.base, one.base + one.size) != self.fixed.pointers(one.fixed, one.fixed + one.size)
            )
        )

    def repeated_names(self) -> None:
        """One name several times, as static locals have: in their order, when they are equally many."""
        there, here = self._names[self.base], self._names[self.fixed]
        for name, starts in there.items():
            open_base = [start for start in starts if start not in self.live.forward]
            open_fixed = [start for start in here.get(name, ()) if start not in self.live.taken]
            if open_base and len(open_base) == len(open_fixed):
                for old, new in zip(open_base, open_fixed, strict=True):
                    self.live.add(old, new, Evidence.ORDER)

    def in_place(self) -> None:
        """What changed functions refer to between matched neighbours that moved by as much, where it begins alike.

        Zeros are alike in most live data, so they tell only where all that is open in either version of a function has such a place, and
        as many bytes before the next.
        """
        for pair in self.twins.unlike:
            lost = open_targets(self.base, pair[0], self.live.forward)
            gained = set(open_targets(self.fixed, pair[1], self.live.taken))
            places = {base: fixed for base in lost if (fixed := self._same_place(base)) in gained}
            complete = len(places) == len(lost) == len(gained) and all(self._is_used_alike(pair, *item, gained) for item in places.items())
            for base, fixed in places.items():
                if (complete and self.base.extent(base).size == self.fixed.extent(fixed).size) or self._is_telling(base):
                    self.live.add(base, fixed, Evidence.ORDER)

    def last_ones(self) -> None:
        """What changed functions refer to, and is the last one left where all others have but changed places."""
        for pair in self.twins.unlike:
            lost = open_targets(self.base, pair[0], self.live.forward)
            gained = open_targets(self.fixed, pair[1], self.live.taken) if lost else ()
            for base, fixed in product(lost, gained):
                if self._may_pair(base, fixed) and self._last_ones.is_last(base, fixed, self.live.forward):
                    self.live.add(base, fixed, Evidence.ORDER)

    @cached_property
    def _last_ones(self) -> LastOnes:
        return LastOnes(self.base, self.fixed, self.matching, self._users)

    def pointed_at(self) -> None:
        """What pointers at the same places of matched data lead to, where nothing else refers to it: tables in tables."""
        constants = self._equal_constants()
        for _ in range(_POINTER_ROUNDS):
            partners: dict[int, set[int]] = defaultdict(set)
            claims: dict[int, set[int]] = defaultdict(set)
            for base, fixed, size, telling in (*((one.base, one.fixed, one.size, True) for one in self.live.stretches()), *constants):
                for offset in self.base.pointers(base, base + size):
                    if fixed + offset not in self.fixed.image.pointers:
                        continue
                    old, new = self.base.pointer(base + offset), self.fixed.pointer(fixed + offset)
                    if self._may_pair(old, new) and (telling or self._is_between(old, new)):
                        partners[old].add(new)
                        claims[new].add(old)
            clear = [(old, *others) for old, others in sorted(partners.items()) if len(others) == 1]
            fresh = [(old, new) for old, new in clear if len(claims[new]) == 1]
            for old, new in fresh:
                self.live.add(old, new, Evidence.VOTES)
            if not fresh:
                break

    def _equal_constants(self) -> list[tuple[int, int, int, bool]]:
        """Constants with pointers that changed functions refer to alike, and are the same but for where these lead.

        Start in both images, bytes, and whether they have more than pointers: these alone tell nothing, but where they lead may.
        """
        partners: dict[int, set[int]] = defaultdict(set)
        claims: dict[int, set[int]] = defaultdict(set)
        for pair in self.twins.unlike:
            for old, new in self.twins.alignments.links(pair):
                if old.kind is new.kind is not FixupKind.PAGEBASE_REL21 and self._are_equal_constants(old.target, new.target):
                    partners[old.target].add(new.target)
                    claims[new.target].add(old.target)
        clear = [(old, *others) for old, others in sorted(partners.items()) if len(others) == 1]
        sizes = {old: self.base.extent(old).size for old, _ in clear}
        return [(old, new, sizes[old], any(self.base.bare(old, sizes[old]))) for old, new in clear if len(claims[new]) == 1]

    def _are_equal_constants(self, base: int, fixed: int) -> bool:
        if not self.base.place(base).kind is PlaceKind.CONSTANT is self.fixed.place(fixed).kind or not self.base.pointers_from(base):
            return False
        size = self.base.extent(base).size
        return size == self.fixed.extent(fixed).size and self.base.bare(base, size) == self.fixed.bare(fixed, size)

    def _may_pair(self, old: int, new: int) -> bool:
        """Whether both are nameless live data that nothing has matched yet."""
        if old in self.live.forward or new in self.live.taken or old in self.base.functions:
            return False
        return self._are_live((old, new)) and self.base.symbol(old) is None is self.fixed.symbol(new)

    def _same_place(self, base: int) -> int | None:
        """Where ``base`` would lie in the fixed image, if its neighbours say so alike and the bytes there are the same."""
        if self.base.symbol(base) is not None:
            return None
        distances = {self.live.forward[start] - start for start in self.live.neighbours(base)}
        if len(distances) != 1:
            return None
        fixed = base + distances.pop()
        section = self.fixed.section(fixed)
        if section is None or self.base.section(base) is None or self.fixed.symbol(fixed) is not None:
            return None
        size = min(self.base.extent(base).size, self.fixed.extent(fixed).size)
        return fixed if self.base.bare(base, size) == self.fixed.bare(fixed, size) else None

    def _is_between(self, base: int, fixed: int) -> bool:
        """Whether matched data lie on both sides in the same section, as far from it in both images, and the bytes are the same."""
        around, section = self.live.neighbours(base), self.base.section(base)
        inside = len(around) > 1 and all(self.base.section(start) is section for start in around)
        return inside and self._same_place(base) == fixed

    def _is_telling(self, base: int) -> bool:
        return any(self.base.bare(base, self.base.extent(base).size))

    def _is_used_alike(self, functions: Pair, base: int, fixed: int, gained: Container[int]) -> bool:
        """Whether two functions do one thing with both at least, and with no other of ``gained``.

        All functions that refer to the fixed one must have referred to the base one.
        """
        there, here = self._users[self.base].get(base, set()), self._users[self.fixed].get(fixed, set())
        done, doing = operations(self.base, functions[0]), operations(self.fixed, functions[1])
        alike = {target for target, found in doing.items() if target in gained and found & done[base]}
        return alike == {fixed} and here <= {self.matching.forward.get(entry) for entry in there}

    @cached_property
    def _users(self) -> dict[View, dict[int, set[int]]]:
        return {view: users_of(view) for view in (self.base, self.fixed)}

    # votes -------------------------------------------------------------------------------------------------------------------------------

    def _hear(self, votes: Votes[_Telling], pair: Pair, voter: int, site: _Telling, *, proof: bool) -> None:
        """Count a vote for a pair of live data, or for the named data that hold both."""
        there, here = self.base.symbol(pair[0]), self.fixed.symbol(pair[1])
        if there is None and here is None:
            votes.add(pair, voter, site)
            return
        named = there or here
        if there is None or here is None:
            if not (self.base.image.has_symbols and self.fixed.image.has_symbols):
                votes.add(pair, voter, site)
            elif named is not None and named.rva not in (self.live.forward if here is None else self.live.taken):
                self._one_sided[pair].setdefault(voter, site)
            return
        starts, offsets = (there.rva, here.rva), (pair[0] - there.rva, pair[1] - here.rva)
        names = (there.name, there.scope), (here.name, here.scope)
        if names[0] != names[1] and not (proof and self._may_be_renamed(*names)):
            return
        if offsets[0] == offsets[1]:
            self._stayed.add(pair[0])
            votes.add(starts, voter, site)
        elif proof and self.live.forward.get(starts[0]) == starts[1]:
            self._moved[pair].setdefault(voter, site)

    def _may_be_renamed(self, base: LiveName, fixed: LiveName) -> bool:
        """Whether each image has only the one of two names; where names are missing, another datum may have taken the place."""
        return base not in self._names[self.fixed] and fixed not in self._names[self.base] and self._all_named

    @cached_property
    def _all_named(self) -> bool:
        """Whether symbols cover all live data that code of either image refers to: compilers that merge data name the first alone."""
        targets = ((view, target) for view, users in self._users.items() for target in users)
        return all(view.place(target).kind is not PlaceKind.WRITABLE or view.image.datum_at(target) is not None for view, target in targets)

    def _elect(self, votes: Votes[_Telling], weight: Mapping[Pair, int], evidence: Evidence) -> None:
        winners, ties = votes.clear_winners(self.live.forward, weight)
        strays = other_elements(self.base, self.fixed, (*self.live.forward.items(), *winners)) if evidence is Evidence.VOTES else ()
        for pair in [winner for winner in winners if winner not in strays]:
            sites = votes.witnesses(pair)
            touching = {other: found for other, found in sorted(self._one_sided.items()) if other[0] == pair[0] or other[1] == pair[1]}
            rivals = {other: tuple(found.values()) for other, found in touching.items() if len(found) >= len(sites)}
            if not rivals:
                self.live.add(*pair, evidence)
                continue
            every = {pair: sites, **rivals}
            self.disputes.append(Dispute(Tie(tuple(every)), tuple(tuple(site() for site in found) for found in every.values())))
        self.disputes += [Dispute(tie, tuple(tuple(site() for site in votes.witnesses(pair)) for pair in tie.pairs)) for tie in ties]

    def _equal_content(self, base: int, fixed: int) -> bool:
        size = min(self.base.extent(base).size, self.fixed.extent(fixed).size)
        content = self.base.bare(base, size)
        return any(content) and content == self.fixed.bare(fixed, size)

    def _label(self, base: int) -> str:
        symbol = self.base.symbol(base)
        return symbol.name if symbol else f"rva:0x{base:x}"


def _address(view: View, function: int, link: Link) -> int:
    return view.functions[function].ranges[link.part].start + link.offset


def _site_of(old: Body, new: Body, pair: Pair) -> Site:
    """Where two functions of the same body first refer to ``pair`` by whole addresses."""
    links = zip(old.links(), new.links(), strict=True)
    there, here = next(both for both in links if (both[0].target, both[1].target) == pair and both[0].kind is not FixupKind.PAGEBASE_REL21)
    ranges = old.function.ranges, new.function.ranges
    sites = ranges[0][there.part].start + there.offset, ranges[1][here.part].start + here.offset
    return Site(old.function.entry, new.function.entry, *sites)
