"""Dispatchers: while a transition lasts, a function's slot leads to one, and it sends each thread to the version of its side.

The bytes are :meth:`hotpatch.arch.base.Architecture.dispatcher`'s. A thread's side is one byte of its environment block: 0, as every thread
begins, is the version in force after the operation. The pages are read and execute to the program, and are given back at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.arch import HPAT_SLOT_SIZE
from hotpatch.engine.mapping import find_place, whole_pages
from hotpatch.engine.registry import Chunk
from hotpatch.engine.target import Rights

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hotpatch.arch import Architecture
    from hotpatch.engine.registry import Registry, Site, SiteKey
    from hotpatch.engine.target import Target
    from hotpatch.engine.transaction import Transaction

STUB_SIZE = 64
"""Bytes from one dispatcher to the next, a cache line each."""


def before_of(registry: Registry, key: SiteKey, displaced: int) -> Va:
    """Where calls of a function lead now; where it is not redirected, its trampoline for a redirect that displaces so many bytes."""
    site = registry.sites.get(key)
    if site is not None:
        return site.top.destination
    return next(placed.va for made, placed in registry.trampolines.items() if made.site == key and made.displaced == displaced)


def place_stubs(
    step: Transaction,
    target: Target,
    registry: Registry,
    arch: Architecture,
    module: Va,
    flag: int,
    rows: Sequence[tuple[SiteKey, Va, Va]],
) -> tuple[Va, dict[SiteKey, Va]]:
    """Map a dispatcher for each of ``rows``: function, destination before, destination after. Returns the mapping and where each is.

    Raises:
        ApplyRefused: No memory is free (out-of-reach).
    """
    size = whole_pages(max(len(rows), 1) * STUB_SIZE)
    code, found = bytearray(), {}
    va = find_place(target, size, module, module, arch.branch_reach)
    for key, before, after in rows:
        found[key] = Va(va + len(code))
        code += arch.dispatcher(flag, before, after).ljust(STUB_SIZE, b"\0")
    step.map(va, size, Rights.READ | Rights.EXECUTE, bytes(code))
    step.event("map", what="dispatchers", va=va, size=size, module=module)
    registry.chunks = (*registry.chunks, Chunk(va, size))
    return va, found


def vacate(step: Transaction, target: Target, arch: Architecture, sites: Iterable[Site]) -> None:
    """Put threads that stand in a dispatcher, or within a slot, back to the slot's first instruction, which reads the pointer anew.

    Nothing of the function has run there, and what slot and dispatcher use no callee expects anything in.
    """
    slots = {site.slot: site for site in sites if site.slot is not None}
    stubs = {site.dispatcher: slot for slot, site in slots.items() if site.dispatcher is not None}
    for thread in target.threads():
        back = stubs.get(Va(thread.pc - thread.pc % STUB_SIZE))
        slot = Va(thread.pc - thread.pc % HPAT_SLOT_SIZE)
        if back is None and slot in slots and slot != thread.pc:
            back = slot
        if back is not None:
            step.move_thread(thread, {arch.convention.pc: back})
            step.event("move", moved_thread=thread.id, **{"from": thread.pc, "to": back}, why="stood in a dispatcher that is given back")
