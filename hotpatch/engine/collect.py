"""Giving back what no frame and no pointer reaches any more.

Candidates are the mappings that nothing standing needs: images of patches that do not stand, trampoline pages and HPAT page pairs of
functions that are not redirected, and what was mapped for modules that are gone. A candidate is kept when an address in it is found in

- a register or the stack of a thread (so every frame counts, whatever the unwind data says), also a register that it has back when a call
  of the system into the program returns,
- any aligned word of memory that the program can read, code pages too, except the candidates themselves,
- any aligned word of a candidate that is itself kept.

This is conservative in one direction: a number that looks like an address keeps a mapping. It does not see pointers that the program holds
in another form (encoded, unaligned) or that only the host holds, such as a callback registered with an emulated system function; see
``docs/limits.md``.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hotpatch.arch import architecture
from hotpatch.engine.hpat import TABLE_SIZE
from hotpatch.engine.stacks import stack_words, words
from hotpatch.engine.target import Rights

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hotpatch.address import Va
    from hotpatch.engine.registry import Registry
    from hotpatch.engine.target import Target, Thread
    from hotpatch.engine.transaction import Transaction
    from hotpatch.patch import Patch


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A mapping that nothing standing needs; ``patch`` where it is the image of one."""

    va: Va
    size: int
    patch: Patch | None = field(default=None, compare=False)


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
    found = [Candidate(image.va, image.size, image.patch) for key, image in registry.images.items() if key not in needed_images]
    found += [Candidate(chunk.va, chunk.size) for chunk in registry.chunks if chunk.va not in needed_chunks]
    found += [Candidate(orphan.va, orphan.size, orphan.patch) for orphan in registry.orphans]
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
        mark((thread.pc, thread.sp, *thread.registers.values(), *_suspended(thread)))
    own = {(mapping.va, mapping.va + mapping.size) for mapping in mappings}
    for region in target.regions():
        if region.rights is Rights.NONE or any(start <= region.va < end for start, end in own):
            continue
        mark(words(target.read(region.va, region.size)))
    while work:
        mapping = mappings[work.pop()]
        mark(words(target.read(mapping.va, mapping.size)))
    return tuple(mapping for index, mapping in enumerate(mappings) if index not in reached)


def held_by_threads(target: Target, mappings: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Those of ``mappings`` in which a thread stands, or will return to: by its link register, or what the system or its stack keeps."""
    if not mappings:
        return ()
    held: set[Candidate] = set()
    link = architecture(target.machine).convention.link
    for thread in target.threads():
        stack = (word for _, word in stack_words(target, thread.sp))
        for value in (thread.pc, *([thread.registers[link]] if link else []), *_suspended(thread), *stack):
            held.update(each for each in mappings if each.va <= value < each.va + each.size)
    return tuple(each for each in mappings if each in held)


def _suspended(thread: Thread) -> Iterator[int]:
    """What a thread will have in registers again: under a call of the system, a return address may be nowhere else."""
    for registers in thread.suspended:
        yield from registers.values()


def forget(registry: Registry, mapping: Candidate) -> None:
    """Take a mapping, and what lies in it, out of the registry."""
    registry.images = {key: image for key, image in registry.images.items() if image.va != mapping.va}
    registry.orphans = tuple(orphan for orphan in registry.orphans if orphan.va != mapping.va)
    registry.chunks = tuple(chunk for chunk in registry.chunks if chunk.va != mapping.va)
    registry.trampolines = {key: placed for key, placed in registry.trampolines.items() if placed.chunk != mapping.va}
    for table in registry.tables:
        if table.va == mapping.va:
            for site in [site for site, slot in registry.slots.items() if slot in table]:
                del registry.slots[site]
    registry.tables = tuple(table for table in registry.tables if table.va != mapping.va)


def give_back(step: Transaction, registry: Registry, mapping: Candidate) -> None:
    """Unmap a mapping and forget it."""
    forget(registry, mapping)
    if mapping.patch is not None:
        step.remove_module(mapping.patch.image.name.lower(), mapping.va, mapping.patch.image)
    step.unmap(mapping.va, mapping.size)
