"""Live data that a compiler put into one variable, of which a PDB names the first alone, as LLVM does on Arm64.

Where other members of such a group come first in the next build, code names the same place by another name, as if the datum were renamed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.builder.bodies import body_of
from hotpatch.builder.model import Body
from hotpatch.builder.reaches import reaches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.differ.view import View
    from hotpatch.image import Datum


class Groups:
    """Judges whether what is held for a renamed datum may be another member of its group."""

    def __init__(self, fixed: View, base: View) -> None:
        """Judge what ``fixed`` has by what ``base`` has."""
        self._fixed, self._base = fixed, base

    def objection(self, fixed: int, base: int) -> str | None:
        """Why the live datum at ``fixed`` may not be the one at ``base``, which has another name; ``None`` where it is."""
        here, there = self._fixed.symbol(fixed), self._base.symbol(base)
        if here is None or there is None or here.name == there.name:
            return None
        for view, datum in ((self._fixed, here), (self._base, there)):
            further = min(self._further(view, datum), default=None)
            if further is not None:
                image = "fixed image" if view is self._fixed else "base"
                return (
                    f"0x{fixed:x} is {here.name}, and the base has {there.name} at 0x{base:x}, where the other is expected; it need not be "
                    f"renamed, for code of the {image} reaches 0x{further:x}, which has no name, from {datum.name}, so that they may have "
                    "changed places"
                )
        return None

    def _further(self, view: View, datum: Datum) -> Iterator[int]:
        """Live data without a name that code reaches from ``datum``, behind its end."""
        end = datum.end
        for body in view.bodies.values():
            if datum.rva not in body.whole_targets:
                continue
            found = body_of(view.image, body.function)
            items = reaches(view.image, found).values() if isinstance(found, Body) else ()
            yield from (
                item.start
                for several in items
                for item in several
                if item.taken == datum.rva and item.start >= end and view.writable(item.start) and view.symbol(item.start) is None
            )
