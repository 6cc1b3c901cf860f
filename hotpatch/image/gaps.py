"""Functions that nothing leads to: whole code that stands between others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch import Flow
from hotpatch.image.flow import ALIGNED, end_of_function, filler_length, reach

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from hotpatch.arch import Step
    from hotpatch.image.image import Image


def whole_functions(
    image: Image, gap: tuple[int, int], starts: Collection[int], data: Collection[int], is_entry: Callable[[int], bool]
) -> list[int]:
    """Entries in ``gap`` (start and end RVA, between functions), where all of it is filler and code that leaves by itself; else none.

    Args:
        image: The image.
        gap: Start and end, as RVAs in one section.
        starts: Known entries, as :func:`hotpatch.image.flow.end_of_function` takes them.
        data: Addresses that code reads from or takes: no function that nothing leads to begins there.
        is_entry: Whether a known function begins at an address.
    """
    start, end = gap
    architecture = image.architecture
    found: list[int] = []
    while start < end:
        code = image.read(start, end - start)
        filler = filler_length(architecture, code)
        entry = start + filler
        if entry >= end:
            break
        stop = end_of_function(architecture, code[filler:], entry, starts, image.read, image.table_limit)
        if stop is None or entry in data:
            return []
        reached = reach(architecture, image.read(entry, stop - entry), entry)
        if not _leaves(reached, is_entry) or not _may_begin(entry, reached, apart=filler > 0):
            return []
        found.append(entry)
        start = stop
    return found


def _may_begin(entry: int, reached: tuple[Step, ...], *, apart: bool) -> bool:
    """Whether a function begins at ``entry`` rather than the rest of what stands right before it.

    Behind other code, a return alone is what a call that never returns leaves over, and only thunks stand unaligned: compilers pack those
    that unwinding once called.
    """
    if apart:
        return not entry % ALIGNED
    if len(reached) == 1 and reached[0].flow is Flow.RETURN:
        return False
    return not entry % ALIGNED or reached[-1].flow is Flow.JUMP


def _leaves(reached: Iterable[Step], is_entry: Callable[[int], bool]) -> bool:
    """Whether code ends as a function does: with a return, or a jump to where a function begins."""
    return any(
        instruction.flow is Flow.RETURN
        or (instruction.flow is Flow.JUMP and instruction.target is not None and is_entry(instruction.target))
        for instruction in reached
    )
