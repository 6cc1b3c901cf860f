"""Which blocks of a listing a reader wants to see: those that differ, with what stands around them."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.errors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.differ import ListingBlock

_CONTEXT = 1
"""Blocks that are shown before and behind one that differs."""


class Stretch(NamedTuple):
    """Blocks that follow each other, to be shown or left out."""

    shown: bool
    blocks: Sequence[ListingBlock]


def stretches(blocks: Sequence[ListingBlock], *, everything: bool = False) -> list[Stretch]:
    """All blocks in their order. Nothing is left out with ``everything`` or where no block differs, nor a single block, to save no room."""
    near = {at + step for at, block in enumerate(blocks) if block.differs for step in range(-_CONTEXT, _CONTEXT + 1)}
    if everything or not near:
        return [Stretch(True, blocks)] if blocks else []
    runs = [(shown, list(group)) for shown, group in groupby(range(len(blocks)), key=near.__contains__)]
    return [Stretch(shown or len(run) == 1, [blocks[at] for at in run]) for shown, run in runs]


def left_out(blocks: Sequence[ListingBlock]) -> str:
    """``12 unchanged blocks, B3 to B14``; padding is not counted."""
    code = [block for block in blocks if not block.padding]
    kind = counted(len(code), "unchanged block") if code else "padding"
    ends = dict.fromkeys((code or blocks)[end].label for end in (0, -1))
    return f"{kind}, {' to '.join(ends)}"


def by_shape_note(count: int) -> str:
    """What to say where blocks were too many to be compared each with each."""
    return f"up to {count} blocks in one place were too many to compare each with each: there, only those of the same operations are paired"
