"""What forbids a patch no matter which function travels."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.differ.correspond import fills
from hotpatch.differ.cosmetic import same_but_for_provenance
from hotpatch.differ.exports import export_findings
from hotpatch.differ.live import Stretch
from hotpatch.differ.matching import Evidence
from hotpatch.differ.model import TextDatum
from hotpatch.differ.parts import PlaceKind
from hotpatch.differ.retyped import retyped
from hotpatch.differ.startup import policy_findings, startup_findings
from hotpatch.differ.texts import whole_text
from hotpatch.errors import Refusal, Rule
from hotpatch.image import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.differ.correspond import Correspondence
    from hotpatch.differ.live import LiveData
    from hotpatch.differ.twins import Twins
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair, Site
    from hotpatch.image import Datum, Function

_EVIDENCE_BYTES = 32
_ALIGNMENT_LIMIT = 16
"""Bytes; what a datum that the base does not have is aligned to at most."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What forbids a patch whichever function travels, in a stable order, and live data that point to other texts."""

    refusals: tuple[Refusal, ...]
    texts: tuple[TextDatum, ...]


def findings(relation: Correspondence, live: LiveData, twins: Twins) -> Findings:
    """Every finding."""
    values, texts = initial_values(relation, live)
    refusals = (
        *_layouts(relation.base, relation.fixed, live),
        *retyped(relation.base, relation.fixed, live),
        *_growth(relation, live, twins),
        *_thread_local(relation.base, relation.fixed),
        *values,
        *export_findings(relation),
        *startup_findings(relation),
        *policy_findings(relation.base.image, relation.fixed.image),
        *_disputes(relation, live),
        *_orphans(relation, live, twins),
    )
    return Findings(refusals, texts)


# layout ----------------------------------------------------------------------------------------------------------------------------------


def _layouts(base: View, fixed: View, live: LiveData) -> Iterator[Refusal]:
    """Live data of another size, of another kind, or with parts in other places.

    What the headers give a role has the size of its role, whatever a PDB says (libraries disagree about the security cookie's).
    """
    there, here = _unique_data(base), _unique_data(fixed)
    roles = [{rva: role for role, rva in view.special_data.items()} for view in (base, fixed)]
    for name in sorted(there.keys() & here.keys(), key=lambda name: (there[name].rva, name)):
        old, new = there[name], here[name]
        kinds = base.place(old.rva).kind, fixed.place(new.rva).kind
        if PlaceKind.WRITABLE not in kinds or roles[0].get(old.rva, 0) == roles[1].get(new.rva):
            continue
        facts = {"base_rva": old.rva, "fixed_rva": new.rva, "base_size": old.size, "fixed_size": new.size}
        if kinds[0] is not kinds[1]:
            was, became = ("writable", "constant") if kinds[0] is PlaceKind.WRITABLE else ("constant", "writable")
            reason = f"{name} was {was} and became {became}; keep it {was}, or give the new datum another name"
            yield Refusal(Rule.DATA_LAYOUT, name, old.rva, reason, {**facts, "base_kind": was, "fixed_kind": became})
        elif old.size and new.size and old.size != new.size:
            reason = (
                f"{name} is {old.size} bytes in the base and {new.size} in the fixed image, but the running program's cannot be resized; "
                "keep its layout and put what is new into a datum of its own"
            )
            yield Refusal(Rule.DATA_LAYOUT, name, old.rva, reason, facts)
    for shift in live.shifts:
        reason = (
            f"{len(shift.sites)} unchanged functions use another offset of {shift.name} than in the base: its parts have moved; keep them"
        )
        yield Refusal(Rule.DATA_LAYOUT, shift.name, Rva(shift.base), reason, _vote((shift.base, shift.fixed), shift.sites))


def _thread_local(base: View, fixed: View) -> Iterator[Refusal]:
    """Thread-local data of another size, or in another place of the block: every thread has had its block allocated."""
    old, new = base.image.tls, fixed.image.tls
    if new is None:
        return
    sizes = (old.template.size + old.zero_fill if old else 0), new.template.size + new.zero_fill
    if sizes[0] != sizes[1]:
        reason = (
            f"thread-local data are {sizes[0]} bytes in the base and {sizes[1]} in the fixed image, but running threads have theirs; "
            "keep their layout"
        )
        facts = {"base_size": sizes[0], "fixed_size": sizes[1], "fixed_rva": new.template.start}
        yield Refusal(Rule.DATA_LAYOUT, None, old.template.start if old else None, reason, facts)
    if old is None:
        return
    there, here = _unique_data(base), _unique_data(fixed)
    for name in sorted(there.keys() & here.keys(), key=lambda name: (there[name].rva, name)):
        places = there[name].rva - old.template.start, here[name].rva - new.template.start
        if there[name].rva in old.template and here[name].rva in new.template and places[0] != places[1]:
            reason = (
                f"the thread-local {name} lies {places[0]} bytes into its thread's block in the base and {places[1]} in the fixed image, "
                "but running threads have theirs; keep the order of thread-local data and put new ones behind them"
            )
            facts = {"base_rva": there[name].rva, "fixed_rva": here[name].rva, "base_offset": places[0], "fixed_offset": places[1]}
            yield Refusal(Rule.DATA_LAYOUT, name, there[name].rva, reason, facts)


def _growth(relation: Correspondence, live: LiveData, twins: Twins) -> Iterator[Refusal]:
    """Nameless live data that have more room before what follows than in the base, where changed functions use them."""
    base, fixed = relation.base, relation.fixed
    starts = {stretch.base for stretch in live.stretches}
    partners = {stretch.fixed: stretch.base for stretch in live.stretches}
    begun = sorted(partners)
    users = _changed_users(relation, twins)
    for stretch in live.stretches:
        if base.symbol(stretch.base) or fixed.symbol(stretch.fixed):
            continue
        old, new = base.extent(stretch.base), fixed.extent(stretch.fixed)
        following = bisect_right(begun, stretch.fixed)
        if following < len(begun):  # what code reckons from another address is no boundary, but may be matched
            new = Range(new.start, min(new.end, Rva(begun[following])))
        section = base.image.section_at(old.start)
        bounded = old.end in starts or (section is not None and old.end == section.range.end)
        if not bounded or new.size <= old.size or fills(new.start + old.size, new.end, partners.get(new.end, _ALIGNMENT_LIMIT)):
            continue
        user = next((users[target] for target in users if new.start <= target < new.end), None)
        if user is not None:
            reason = (
                f"the live datum at rva 0x{stretch.base:x} has {old.size} bytes before the next in the base and {new.size} in the fixed "
                f"image, and {user.label}, which changed, uses it: so it may have grown; keep its size, or compare with PDBs"
            )
            facts = {"base_rva": stretch.base, "fixed_rva": stretch.fixed, "base_size": old.size, "fixed_size": new.size}
            yield Refusal(Rule.DATA_LAYOUT, None, Rva(stretch.base), reason, facts)


def _changed_users(relation: Correspondence, twins: Twins) -> dict[int, Function]:
    """Live data of the fixed image that changed functions refer to → one of those."""
    found: dict[int, Function] = {}
    for base, fixed in twins.unlike:
        for target in _live_targets(relation.fixed, fixed):
            found.setdefault(target, relation.base.functions[base])
    return found


def _unique_data(view: View) -> dict[str, Datum]:
    found: dict[str, Datum] = {}
    twice: set[str] = set()
    for datum in view.image.data_symbols:
        known = found.get(datum.name)
        if known is not None and known.rva != datum.rva:
            twice.add(datum.name)
        if known is None or (known.size is None and datum.size is not None):
            found[datum.name] = datum
    return {name: datum for name, datum in found.items() if name not in twice}


# initial values --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Difference:
    """Where an initial value differs: ``offset`` in bytes; ``texts`` where a pointer leads to another text, of both images."""

    offset: int
    texts: tuple[str, str] | None = None


def initial_values(relation: Correspondence, live: LiveData) -> tuple[tuple[Refusal, ...], tuple[TextDatum, ...]]:
    """Live data that start with another value; pointers compare by what they refer to.

    Texts of versions, dates and folders of sources are no difference. Data that differ in nothing but which texts they point at are apart:
    the running program's keep theirs, which harms nobody but code that travels and uses them.
    """
    templates = relation.base.image.tls, relation.fixed.image.tls
    blocks: list[Stretch] = []
    if templates[0] is not None and templates[1] is not None:
        old_template, new_template = templates[0].template, templates[1].template
        size = min(old_template.size, new_template.size)
        blocks.append(Stretch(new_template.start, old_template.start, size, Evidence.HEADERS, "thread-local data"))
        blocks += [stretch for stretch in live.stretches if stretch.base not in old_template]
    else:
        blocks += live.stretches
    refused: list[Refusal] = []
    texts: list[TextDatum] = []
    for stretch in blocks:
        found = list(_differences(relation, stretch))
        if not found:
            continue
        hard = next((difference for difference in found if difference.texts is None), None)
        refusal = _initial_value(relation, stretch, hard or found[0])
        if hard is not None:
            refused.append(refusal)
        else:
            texts.append(TextDatum(Range(Rva(stretch.fixed), Rva(stretch.fixed + stretch.size)), refusal))
    return tuple(refused), tuple(texts)


def _initial_value(relation: Correspondence, stretch: Stretch, difference: _Difference) -> Refusal:
    at = difference.offset
    old = relation.base.image.read(Rva(stretch.base + at), min(_EVIDENCE_BYTES, stretch.size - at))
    new = relation.fixed.image.read(Rva(stretch.fixed + at), min(_EVIDENCE_BYTES, stretch.size - at))
    what = stretch.name or f"the datum at rva 0x{stretch.base:x}"
    facts = {"base_rva": stretch.base, "fixed_rva": stretch.fixed, "offset": at, "base_bytes": old.hex(), "fixed_bytes": new.hex()}
    if difference.texts is not None:
        how = f"points at byte {at} to another text"
        facts |= {"base_text": difference.texts[0], "fixed_text": difference.texts[1]}
    elif at in relation.base.pointers(stretch.base, stretch.base + stretch.size):
        how = f"has a pointer at byte {at} that leads to something else"
    else:
        how = f"differs from byte {at} on"
    reason = (
        f"the initial value of {what} {how}, but the running program's datum has long had its first value; "
        "keep the value, or let new code set it"
    )
    return Refusal(Rule.DATA_INIT, stretch.name, Rva(stretch.base), reason, facts)


def _differences(relation: Correspondence, stretch: Stretch) -> Iterator[_Difference]:
    base, fixed = relation.base, relation.fixed
    if base.special_data.get("security cookie") == stretch.base:
        return
    old, new = base.bare(stretch.base, stretch.size), fixed.bare(stretch.fixed, stretch.size)
    hard = [] if old == new else [next(at for at, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1])]
    there = base.pointers(stretch.base, stretch.base + stretch.size)
    here = fixed.pointers(stretch.fixed, stretch.fixed + stretch.size)
    hard += sorted(set(there) ^ set(here))[:1]
    for offset in sorted(set(there) & set(here)):
        targets = base.pointer(stretch.base + offset), fixed.pointer(stretch.fixed + offset)
        if same_but_for_provenance(relation, *targets):
            continue
        texts = _texts(base, fixed, *targets)
        if texts is None:
            hard.append(offset)
            break
        yield _Difference(offset, texts)
    if hard:
        yield _Difference(min(hard))


def _texts(base: View, fixed: View, old: int, new: int) -> tuple[str, str] | None:
    """The texts at two addresses, where both are constants and nothing but texts."""
    if base.place(old).kind is not PlaceKind.CONSTANT or fixed.place(new).kind is not PlaceKind.CONSTANT:
        return None
    there, here = whole_text(base, old), whole_text(fixed, new)
    return (there[0], here[0]) if there is not None and here is not None and there[1] == here[1] == 0 else None


# evidence --------------------------------------------------------------------------------------------------------------------------------


def _disputes(relation: Correspondence, live: LiveData) -> Iterator[Refusal]:
    for dispute in live.disputes:
        votes = [
            _vote(pair, sites) | {"sites": [_shown(relation, site) for site in sites]}
            for pair, sites in zip(dispute.tie.pairs, dispute.sites, strict=True)
        ]
        there, here = (sorted({pair[side] for pair in dispute.tie.pairs}) for side in (0, 1))
        base = Rva(there[0])
        one, several = f"the base's datum at rva 0x{base:x}", "live datum of the fixed image"
        if len(here) == 1:
            one, several = f"the fixed image's datum at rva 0x{here[0]:x}", "live datum of the base"
        reason = (
            f"it cannot be told which {several} is {one}, because instructions that correspond refer to different ones; {_advice(relation)}"
        )
        yield Refusal(Rule.CONTRADICTING_VOTES, None, base, reason, {"votes": votes})


def _orphans(relation: Correspondence, live: LiveData, twins: Twins) -> Iterator[Refusal]:
    """Changed functions that lost one live datum and gained another, neither of them named: it may be the same one."""
    ranges = live.ranges()
    kept = [(stretch.base, stretch.base + stretch.size) for stretch in live.stretches]
    for base, fixed in twins.unlike:
        gained = sorted({target for target in _live_targets(relation.fixed, fixed) if ranges.base_of(target) is None})
        gained = [target for target in gained if relation.fixed.symbol(target) is None]
        lost = sorted({target for target in _live_targets(relation.base, base) if not any(start <= target < end for start, end in kept)})
        lost = [target for target in lost if relation.base.symbol(target) is None]
        if gained and lost:
            function = relation.base.functions[base]
            reason = (
                f"{function.label} refers to a live datum at 0x{gained[0]:x} and no longer to the base's at 0x{lost[0]:x}, which may or "
                f"may not be the same; {_advice(relation)}"
            )
            yield Refusal(Rule.CONTRADICTING_VOTES, function.name, function.entry, reason, {"base_data": lost, "fixed_data": gained})


def _advice(relation: Correspondence) -> str:
    """What tells data apart that code does not."""
    named = relation.base.image.has_symbols and relation.fixed.image.has_symbols
    return "compare builds whose PDBs name all data" if named else "compare builds that have PDBs"


def _live_targets(view: View, entry: int) -> Iterator[int]:
    return (target for target in view.body(entry).targets if view.place(target).kind is PlaceKind.WRITABLE)


def _vote(pair: Pair, sites: tuple[Site, ...]) -> dict[str, object]:
    return {
        "base_rva": pair[0],
        "fixed_rva": pair[1],
        "sites": [{"base_function": site.base_function, "base_rva": site.base, "fixed_rva": site.fixed} for site in sites],
    }


def _shown(relation: Correspondence, site: Site) -> dict[str, object]:
    """Who votes, with the bytes of both instructions."""
    shown: dict[str, object] = {"base_function": site.base_function, "base_rva": site.base, "fixed_rva": site.fixed}
    for side, image, rva in (("base", relation.base.image, site.base), ("fixed", relation.fixed.image, site.fixed)):
        first = next(iter(image.architecture.disassemble(image.read(Rva(rva), _EVIDENCE_BYTES), rva)), None)
        shown[f"{side}_bytes"] = "" if first is None else image.read(Rva(rva), first.size).hex()
    return shown
