"""Giving back what no frame and no pointer reaches any more.

Candidates are the mappings that nothing standing needs: images of patches that do not stand, trampoline pages and HPAT page pairs of
functions that are not redirected. A candidate is kept when an address in it is found in

- a register or the stack of a thread (so every frame counts, whatever the unwind data says),
- any aligned word of memory that the program can read, code pages too, except the candidates themselves,
- any aligned word of a candidate that is itself kept.

This is conservative in one direction: a number that looks like an address keeps a mapping. It does not see pointers that the program holds
in another form (encoded, unaligned) or that only the host holds, such as a callback registered with an emulated system function; see
``docs/limits.md``.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.engine.hpat import TABLE_SIZE
from hotpatch.engine.stacks import words
from hotpatch.engine.target import Rights
from hotpatch.engine.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.address import Va
    from hotpatch.engine.registry import ImageKey, Registry
    from hotpatch.engine.target import Target


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A mapping that nothing standing needs; ``image`` where it is a patch image."""

    va: Va
    size: int
    image: ImageKey | None = None


@dataclass(frozen=True, slots=True)
class Collected:
    """What :meth:`hotpatch.engine.Engine.collect` gave back and what it kept because something still reaches it; VAs."""

    freed: tuple[Va, ...]
    kept: tuple[Va, ...]


def candidates(registry: Registry) -> tuple[Candidate, ...]:
    """Mappings that nothing standing needs, by address."""
    needed_images = {application.image for application in registry.applications.values()}
    needed_chunks = {registry.trampolines[site.trampoline].chunk for site in registry.sites.values()}
    needed_chunks |= {transition.stubs for transition in registry.transitions.values()}
    needed_slots = [site.slot for site in registry.sites.values() if site.slot is not None]
    found = [Candidate(image.va, image.size, key) for key, image in registry.images.items() if key not in needed_images]
    found += [Candidate(chunk.va, chunk.size) for chunk in registry.chunks if chunk.va not in needed_chunks]
    needed_tables = {table.va for table in registry.tables for slot in needed_slots if slot in table}
    found += [Candidate(table.va, TABLE_SIZE) for table in registry.tables if table.va not in needed_tables]
    return tuple(sorted(found, key=lambda candidate: candidate.va))


def unreached(target: Target, mappings: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """Those of ``mappings``, sorted by address, in which no thread stands and to which nothing points."""
    if not mappings:
        return ()
    starts = [mapping.va for mapping in mappings]
    low, high = mappings[0].va, max(mapping.va + mapping.size for mapping in mappings)
    reached: set[int] = set()
    work: list[int] = []

    def mark(values: Iterable[int]) -> None:
        for value in values:
            if low <= value < high:
                index = bisect_right(starts, value) - 1
                if value < mappings[index].va + mappings[index].size and index not in reached:
                    reached.add(index)
                    work.append(index)

    for thread in target.threads():
        mark((thread.pc, thread.sp, *thread.registers.values()))
    own = {(mapping.va, mapping.va + mapping.size) for mapping in mappings}
    for region in target.regions():
        if region.rights is Rights.NONE or any(start <= region.va < end for start, end in own):
            continue
        mark(words(target.read(region.va, region.size)))
    while work:
        mapping = mappings[work.pop()]
        mark(words(target.read(mapping.va, mapping.size)))
    return tuple(mapping for index, mapping in enumerate(mappings) if index not in reached)


def forget(registry: Registry, mapping: Candidate) -> None:
    """Take a mapping, and what lies in it, out of the registry."""
    if mapping.image is not None:
        del registry.images[mapping.image]
    registry.chunks = tuple(chunk for chunk in registry.chunks if chunk.va != mapping.va)
    for key in [key for key, trampoline in registry.trampolines.items() if trampoline.chunk == mapping.va]:
        del registry.trampolines[key]
    for table in registry.tables:
        if table.va == mapping.va:
            for site in [site for site, slot in registry.slots.items() if slot in table]:
                del registry.slots[site]
    registry.tables = tuple(table for table in registry.tables if table.va != mapping.va)


def give_back(target: Target, registry: Registry, mapping: Candidate) -> Registry:
    """Unmap a mapping; the registry without it."""
    left = registry.copy()
    with Transaction(target) as step:
        image = None if mapping.image is None else left.images[mapping.image]
        forget(left, mapping)
        if image is not None:
            step.remove_module(image.patch.image.name.lower(), image.va, image.patch.image)
        step.unmap(mapping.va)
    return left
