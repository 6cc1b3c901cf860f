"""What must travel, or is refused, because code reaches it at a constant distance from data that it names (:mod:`.reaches`)."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.address import Rva
from hotpatch.builder.evidence import advice, instruction_evidence
from hotpatch.builder.model import Area, BaseAddress, CarriedAddress, Link
from hotpatch.builder.reaches import reaches
from hotpatch.differ.parts import POINTER_SIZE
from hotpatch.errors import Refusal, Rule
from hotpatch.image import Range

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hotpatch.builder.model import Body, Destination, Reckoning, Site
    from hotpatch.builder.ownership import Ownership, Usage
    from hotpatch.builder.reaches import Distances, Reach
    from hotpatch.builder.reckonings import Reckonings
    from hotpatch.builder.witnesses import Witnesses
    from hotpatch.differ import ImageDiff
    from hotpatch.image import Function


class Found(NamedTuple):
    """The outcome: all links anew, what must travel besides, what is wrong, and what is reckoned anew."""

    links: list[Link]
    carried: tuple[tuple[Range, Area], ...]
    refusals: tuple[Refusal, ...]
    reckonings: tuple[Reckoning, ...] = ()


class Neighbours:
    """Judges what is reached from each reference that is bound."""

    def __init__(
        self,
        diff: ImageDiff,
        distances: Distances,
        witnesses: Witnesses,
        ownership: Ownership,
        usage: Mapping[Rva, Usage],
        reckonings: Reckonings,
    ) -> None:
        """Judge code of the fixed image of ``diff``.

        Args:
            diff: The comparison.
            distances: Whether the base has the same at the same distances.
            witnesses: Who uses what lies there.
            ownership: Whose an address is that is only made.
            usage: What functions do with addresses, by entry.
            reckonings: Which distances can be encoded anew.
        """
        self._base, self._fixed, self._distances, self._witnesses = diff.base, diff.fixed, distances, witnesses
        self._ownership, self._usage, self._reckonings = ownership, usage, reckonings
        self._reaches: dict[Rva, Mapping[Site, tuple[Reach, ...]]] = {}

    def of(self, bodies: Iterable[Body], links: Sequence[Link], pieces: Sequence[Range]) -> Found:
        """Judge all that ``bodies`` reach; ``pieces``: what data travel, each in one piece, by start."""
        bound = {link.site: link.destination for link in links}
        copied: set[Site] = set()
        carried: list[tuple[Range, Area]] = []
        refusals: list[Refusal] = []
        bodies = tuple(bodies)
        for body in bodies:
            if self._reckonings.withdraw(body, links):
                del self._reaches[body.function.entry]
            needed = self._judged(body, bound, pieces)
            while (wrong := _constant(needed)) and self._reckonings.add(body, wrong, links):
                del self._reaches[body.function.entry]
                needed = self._judged(body, bound, pieces)
            for site, item, found in needed:
                if isinstance(found, str):
                    refusals.append(self._refusal(body.function, item, found))
                else:
                    carried.append((found, Area.CONSTANT if self._distances.is_constant(item.start) else Area.DATA))
                    copied.update(other for other in body.sites if other.target == site.target)
        anew = [Link(link.site, CarriedAddress(link.site.target)) if link.site in copied else link for link in links]
        return Found(anew, tuple(carried), tuple(refusals), self._reckonings.all(bodies))

    def _judged(self, body: Body, links: Mapping[Site, Destination], pieces: Sequence[Range]) -> list[tuple[Site, Reach, Range | str]]:
        """What ``body`` reaches from where, with what must travel for it, or what is wrong; what is right as it is left out."""
        bound = {**links, **self._reckonings.of(body)}
        rows = [(site, item) for site, items in self._of(body).items() for item in items if site in bound]
        rows = [(site, item) for site, item in rows if not self._distances.is_apart(item) and not self._distances.is_end(item)]
        usage = self._usage.get(body.function.entry)
        found = [(site, item, self._doubt(usage, item, bound[site]) or self._needed(item, bound[site], pieces)) for site, item in rows]
        return [(site, item, needed) for site, item, needed in found if needed is not None]

    def accessed(self, body: Body) -> frozenset[Site]:
        """Where ``body`` takes addresses and reads or writes memory right there, through the registers that it took them into."""
        return frozenset(site for site, items in self._of(body).items() if any(map(_is_right_there, items)))

    def _of(self, body: Body) -> Mapping[Site, tuple[Reach, ...]]:
        found = self._reaches.get(body.function.entry)
        if found is None:
            found = self._reaches[body.function.entry] = reaches(self._fixed, body, self._reckonings.of(body))
        return found

    def _doubt(self, usage: Usage | None, item: Reach, destination: Destination) -> str | None:
        """Why what ``item`` reaches in the base may be something else."""
        if not isinstance(destination, BaseAddress):
            return None
        why = self._witnesses.objection(item, destination.rva)
        if why is None and not item.width and item.start != item.taken:
            why = self._ownership.unclear_end(usage, item.start, destination.rva + item.start - item.taken)
        return None if why is None else f"the first is at 0x{destination.rva:x} of the base, but {why}"

    def _needed(self, item: Reach, destination: Destination, pieces: Sequence[Range]) -> Range | str | None:
        """What must travel in one piece so that ``item`` is reached where it ought to be, or why that cannot be."""
        if self._distances.is_own(item):
            return None
        match destination:
            case BaseAddress(place):
                problem = self._distances.problem(item, place)
                if problem is None:
                    return None
                if self._distances.is_constant(item.taken) and self._distances.may_travel(item):
                    return self._whole(item)
                return f"the first is at 0x{place:x} of the base, but {problem}"
            case CarriedAddress():
                if _is_in_one(item, pieces):
                    return None
                return self._whole(item) if self._distances.may_travel(item) else "the first travels as something new, without the second"
        return (
            None if item.taken <= item.start and item.end <= item.taken + POINTER_SIZE else "the first is an import that the base has not"
        )

    def _whole(self, item: Reach) -> Range:
        end = max(item.end, item.taken + 1, *(() if item.width else (self._distances.end(item.start),)))
        return Range(min(item.taken, item.start), Rva(end))

    def _refusal(self, function: Function, item: Reach, why: str) -> Refusal:
        if item.start == item.taken:
            what = f"code accesses {item.width} bytes at 0x{item.taken:x}"
            why = why.replace("the first", "that")
        else:
            what = f"code names 0x{item.taken:x} and from there reaches 0x{item.start:x} ({item.start - item.taken:+#x})"
        evidence = {"image": "fixed", **instruction_evidence(self._fixed, item.at, item.size), "target": int(item.start)}
        return Refusal(
            Rule.UNRESOLVED_REFERENCE, function.name, function.entry, f"{what}: {why}; {advice(self._base, self._fixed)}", evidence
        )


def _constant(needed: Iterable[tuple[Site, Reach, Range | str]]) -> list[tuple[Site, Reach]]:
    """What is wrong at distances that are constant, and may be encoded anew."""
    return [(site, item) for site, item, found in needed if isinstance(found, str) and not item.indexed]


def _is_in_one(item: Reach, pieces: Sequence[Range]) -> bool:
    """Whether what is reached travels in one piece with what it is reached from."""
    at = bisect_right(pieces, item.taken, key=_start) - 1
    return at >= 0 and item.taken in pieces[at] and pieces[at].start <= item.start and item.end <= pieces[at].end


def _is_right_there(item: Reach) -> bool:
    """Whether memory is accessed at the address that is named: where an index comes on top, it may be negative."""
    return bool(item.width) and item.start == item.taken and not item.indexed


def _start(part: Range) -> Rva:
    return part.start
