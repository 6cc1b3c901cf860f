"""Making calls of a function reach its new version, and taking that back.

Only the entry writes and, where a redirect stands already, the slot pointers make a patch visible. They are kept back until everything else
stands (:class:`Switch`), and then stored one after another while no thread runs.

A redirect keeps the strategy that it was made with until it is removed. A newer patch for the same function changes where it leads: with
``hpat`` by the slot's pointer and no code at all, with ``direct`` and ``inline`` by the branch itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.arch import Redirect
from hotpatch.engine.hpat import pointer_bytes, pointer_of
from hotpatch.engine.refusals import located
from hotpatch.engine.registry import Layer, Site, TrampolineKey
from hotpatch.engine.undo import UndoRecord
from hotpatch.errors import ApplyRefused, OutOfReach

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hotpatch.arch import Architecture
    from hotpatch.engine.checks import CheckedFunction
    from hotpatch.engine.registry import Application, MappedImage, Registry, SiteKey
    from hotpatch.engine.target import Target
    from hotpatch.engine.transaction import Transaction
    from hotpatch.engine.undo import OriginalView
    from hotpatch.errors import Refusal


@dataclass(slots=True)
class Switch:
    """The stores that make an operation visible, in order, kept back until the end.

    Attributes:
        entries: Code at function entries (or, where a redirect is led elsewhere, its branch).
        pointers: Slot pointers: where, before, after.
    """

    entries: list[UndoRecord] = field(default_factory=list)
    pointers: list[tuple[Va, bytes, bytes]] = field(default_factory=list)

    def throw(self, step: Transaction) -> None:
        """Store them."""
        for va, before, after in self.pointers:
            step.write_data(va, before, after)
        for record in self.entries:
            step.write_code(record.va, record.before, record.after)


def redirect(
    step: Transaction,
    target: Target,
    registry: Registry,
    arch: Architecture,
    application: Application,
    image: MappedImage,
    functions: Sequence[CheckedFunction],
    original: OriginalView,
    dispatchers: Mapping[SiteKey, Va],
) -> Switch:
    """Write everything of the redirects that shows no effect (slots, pads) and give back what does.

    ``dispatchers``: where slots of these functions lead meanwhile, in a transition.

    Raises:
        ApplyRefused: A redirect cannot reach where it has to lead (out-of-reach).
    """
    switch = Switch()
    refusals: list[Refusal] = []
    pads: list[UndoRecord] = []
    slots: list[tuple[Va, Va]] = []
    for checked in functions:
        layer = Layer(application.number, checked.function.name, Va(image.va + checked.function.patch_rva))
        site = registry.sites.get(checked.key)
        try:
            if site is not None:
                registry.sites[checked.key] = lead(
                    step, target, arch, checked.key, site, (*site.layers, layer), switch, dispatchers.get(checked.key)
                )
            else:
                site, early = _new_site(registry, arch, checked, layer, original, dispatchers.get(checked.key))
                if site.slot is not None:
                    slots.append((site.slot, site.leads_to))
                registry.sites[checked.key] = site
                pads.extend(early)
                switch.entries.append(site.records[-1])
                _tell(step, "entry", checked.key, site, switch.entries[-1])
        except OutOfReach as far:
            refusals.extend(located(far, checked.function))
    if refusals:
        raise ApplyRefused(refusals)
    for key in application.given_back:
        site = registry.sites[key]
        layer = Layer(application.number, site.top.name, site.original)
        registry.sites[key] = lead(step, target, arch, key, site, (*site.layers, layer), switch, dispatchers.get(key))
    # Nothing leads to them yet, or (after a revert) only threads that may have either version.
    lead_slots(step, target, slots)
    for record in pads:
        step.write_code(record.va, record.before, record.after)
    return switch


def lead_slots(step: Transaction, target: Target, slots: Sequence[tuple[Va, Va]]) -> None:
    """Point slots at their destinations, neighbours in one store."""
    runs: list[tuple[Va, bytearray]] = []
    for slot, destination in sorted(slots):
        va = pointer_of(slot)
        if not runs or runs[-1][0] + len(runs[-1][1]) != va:
            runs.append((va, bytearray()))
        runs[-1][1].extend(pointer_bytes(destination))
    for va, pointers in runs:
        step.write_data(va, target.read(va, len(pointers)), bytes(pointers))


def _new_site(
    registry: Registry,
    arch: Architecture,
    checked: CheckedFunction,
    layer: Layer,
    original: OriginalView,
    dispatcher: Va | None,
) -> tuple[Site, Sequence[UndoRecord]]:
    strategy = checked.function.redirect
    slot = registry.slots[checked.key] if strategy is Redirect.HPAT else None
    writes = arch.redirect_writes(strategy, checked.entry, layer.destination if slot is None else slot)
    records = tuple(UndoRecord(Va(write.va), original.read(Va(write.va), len(write.new)), write.new) for write in writes)
    trampoline = TrampolineKey(checked.key, arch.entry_site(strategy).displaced)
    site = Site(strategy, slot, trampoline, registry.trampolines[trampoline].va, records, (layer,), dispatcher)
    return site, records[:-1]


def lead(
    step: Transaction,
    target: Target,
    arch: Architecture,
    key: SiteKey,
    site: Site,
    layers: tuple[Layer, ...],
    switch: Switch,
    dispatcher: Va | None = None,
) -> Site:
    """Lead a standing redirect to the last of ``layers``, or to ``dispatcher``; what has to be stored for it is added to ``switch``.

    Raises:
        OutOfReach: A redirect without a slot cannot reach there.
    """
    if site.slot is not None:
        led = replace(site, layers=layers, dispatcher=dispatcher)
        pointer, before, after = pointer_of(site.slot), pointer_bytes(site.leads_to), pointer_bytes(led.leads_to)
        switch.pointers.append((pointer, before, after))
        _tell(step, "pointer" if dispatcher is None else "dispatch", key, led, UndoRecord(pointer, before, after))
        return led
    writes = {Va(write.va): write.new for write in arch.redirect_writes(site.strategy, key.entry, layers[-1].destination)}
    records = []
    for record in site.records:
        new = record.rewritten(writes[record.va])
        records.append(new)
        if new.after != record.after:
            branch = UndoRecord(record.va, record.after, new.after)
            switch.entries.append(branch)
            _tell(step, "branch", key, replace(site, layers=layers), branch)
    return replace(site, records=tuple(records), layers=layers)


def changes(target: Target, site: Site) -> Iterator[tuple[Va, bytes, bytes]]:
    """Places of a redirect where something else stands than what was written: address, expected, found."""
    stand = [(record.va, record.after) for record in site.records]
    if site.slot is not None:
        stand.append((pointer_of(site.slot), pointer_bytes(site.leads_to)))
    for va, expected in stand:
        found = target.read(va, len(expected))
        if found != expected:
            yield va, expected, found


def remove(step: Transaction, target: Target, arch: Architecture, sites: Sequence[tuple[SiteKey, Site]]) -> None:
    """Give entries, then padding, back what the base has there, and lead slots to the originals.

    A thread that stands in the padding has run nothing of the function but the redirect's first jump: it goes back to the entry. One on its
    way through the slot reaches the original by the trampoline, so that from here on no thread newly enters the patch.
    """
    for key, site in sites:
        entry = site.records[-1]
        step.write_code(entry.va, entry.after, entry.before)
        _tell(step, "removed", key, site, UndoRecord(entry.va, entry.after, entry.before))
    pads = [(record, key) for key, site in sites for record in site.records[:-1]]
    starts = {record.va: key for record, key in pads}
    for thread in target.threads():
        if thread.pc in starts:
            back = Va(starts[thread.pc].entry)
            step.move_thread(thread, {arch.convention.pc: back})
            step.event(
                "move", moved_thread=thread.id, **{"from": thread.pc, "to": back}, why="stood in the padding of a redirect that is removed"
            )
    for record, _ in pads:
        step.write_code(record.va, record.after, record.before)
    for _, site in sites:
        if site.slot is not None:
            step.write_data(pointer_of(site.slot), pointer_bytes(site.leads_to), pointer_bytes(site.original))


def _tell(step: Transaction, change: str, key: SiteKey, site: Site, written: UndoRecord) -> None:
    """Keep the event of a store that calls notice; ``change`` is ``entry``, ``pointer``, ``dispatch``, ``branch`` or ``removed``."""
    step.event(
        "redirect",
        change=change,
        function=site.top.name,
        rva=key.rva,
        entry=key.entry,
        module=key.module,
        strategy=site.strategy.value,
        va=written.va,
        before=written.before.hex(),
        after=written.after.hex(),
        padding=_paddings(change, site.records[:-1]),
        slot=site.slot,
        pointer=None if site.slot is None else pointer_of(site.slot),
        destination=site.top.destination,
        original=site.original,
    )


def _paddings(change: str, pads: Sequence[UndoRecord]) -> list[dict[str, object]]:
    """What a change of that kind stores in the padding: from which bytes to which, or nothing."""
    if change == "entry":
        return [{"va": pad.va, "before": pad.before.hex(), "after": pad.after.hex()} for pad in pads]
    if change == "removed":
        return [{"va": pad.va, "before": pad.after.hex(), "after": pad.before.hex()} for pad in pads]
    return []
