"""Threads that stand in bytes which are about to be overwritten, or will return into them.

Only redirects that displace more than one instruction (``inline``) can have such threads: the entry itself is a fine place to stand, and so
is any address behind the displaced bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.engine.locate import Locator
from hotpatch.engine.stacks import return_addresses
from hotpatch.errors import ApplyRefused, Refusal, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.arch import Architecture
    from hotpatch.engine.checks import CheckedFunction
    from hotpatch.engine.registry import Registry
    from hotpatch.engine.target import Target
    from hotpatch.engine.transaction import Transaction


def move_out(step: Transaction, target: Target, registry: Registry, arch: Architecture, functions: Sequence[CheckedFunction]) -> None:
    """Move each thread that stands inside of displaced bytes to the same instruction of the trampoline.

    Raises:
        ApplyRefused: A thread stands between instructions' bounds or will return into displaced bytes (thread-in-displaced).
    """
    inside: dict[int, tuple[CheckedFunction, int | None]] = {}
    for checked in functions:
        site = registry.sites[checked.key]
        if len(site.layers) > 1:
            continue  # what it displaces was displaced before
        trampoline = registry.trampolines[site.trampoline]
        inner = [offset for offset in trampoline.offsets if 0 < offset < site.trampoline.displaced]
        if inner:
            for offset in range(1, site.trampoline.displaced):
                moved = trampoline.va + trampoline.offsets[offset] if offset in trampoline.offsets else None
                inside[checked.entry + offset] = (checked, moved)
    if not inside:
        return
    threads = target.threads()
    locator = Locator(registry)
    refusals = []
    for thread in threads:
        if thread.pc in inside:
            checked, moved = inside[thread.pc]
            if moved is None:
                refusals.append(_refusal(checked, thread.id, thread.pc, None))
        for where, value in return_addresses(target, arch.machine, locator, thread):
            if value in inside:
                refusals.append(_refusal(inside[value][0], thread.id, value, where))
    if refusals:
        raise ApplyRefused(refusals)
    for thread in threads:
        moved = inside.get(thread.pc, (None, None))[1]
        if moved is not None:
            step.move_thread(thread, {arch.convention.pc: moved})
            step.event(
                "move",
                moved_thread=thread.id,
                **{"from": thread.pc, "to": Va(moved)},
                why="stood in bytes that an inline redirect overwrites",
            )


def _refusal(checked: CheckedFunction, thread: int, va: int, where: int | None) -> Refusal:
    how = "stands" if where is None else "will return"
    return Refusal(
        Rule.THREAD_IN_DISPLACED,
        checked.function.name,
        checked.function.base_rva,
        f"thread {thread} {how} at 0x{va:x}, in bytes that the inline redirect overwrites; let the process run on and apply again",
        {"thread": thread, "va": va, "stack": where},
    )
