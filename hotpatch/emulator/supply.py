"""Pages that come into being when the program touches them, for whoever runs code on memory that nobody prepared."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from hotpatch.emulator.memory import PAGE, RegionKind
from hotpatch.engine.target import Rights

if TYPE_CHECKING:
    from collections.abc import Callable

    from hotpatch.emulator.memory import Memory

Supply: TypeAlias = "Callable[[int], bytes | None]"
"""Asked for the content of an unmapped page by its VA; ``None`` leaves it unmapped."""


def supply_page(memory: Memory, supplies: list[Supply], address: int) -> bool:
    """Whether somebody supplied the page of ``address``, which is mapped readable and writable then."""
    page = address & -PAGE
    for supply in supplies:
        content = supply(page)
        if content is not None:
            memory.map(page, PAGE, Rights.READ | Rights.WRITE, RegionKind.HOST, "supplied", content)
            return True
    return False
