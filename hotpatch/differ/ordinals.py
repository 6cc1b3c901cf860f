"""Exports without names: other modules are bound to their ordinals alone, so that what one leads to is, for them, the same function."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hotpatch.differ.matching import Matching
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair


class Ordinals:
    """The functions that two images export by the same ordinal, without a name."""

    def __init__(self, base: View, fixed: View) -> None:
        """Compare the exports of ``base`` with those of ``fixed``."""
        there, here = _nameless(base), _nameless(fixed)
        self._pairs: Sequence[tuple[int | None, int | None]] = (
            [(there[ordinal], here[ordinal]) for ordinal in sorted(there, reverse=True)] if there.keys() == here.keys() else ()
        )

    def pairs(self, matching: Matching) -> Sequence[Pair]:
        """Functions of the base that nothing has matched, each with what the fixed image exports instead (which may be matched already).

        A linker that gives ordinals out by itself counts the exports up, so that those behind one that is new have others. So there are
        none where the two images have other ordinals, or where one leads to functions of which anything else says that they are not each
        other; and only those before one that leads to functions that are each other.
        """
        partners: dict[int, set[int | None]] = defaultdict(set)
        owners: dict[int, set[int | None]] = defaultdict(set)
        for old, new in self._pairs:
            if (old is None) != (new is None):
                return ()
            if old is not None and new is not None:
                partners[old].add(new)
                owners[new].add(old)
        found: list[Pair] = []
        is_borne_out = False
        for old, new in self._pairs:
            if old is None or new is None:
                continue
            if matching.forward.get(old, new) not in partners[old] or matching.backward.get(new, old) not in owners[new]:
                return ()
            if old in matching.forward:
                is_borne_out |= matching.same(old, new)
            elif is_borne_out:
                found.append((old, new))
        return found


def _nameless(view: View) -> Mapping[int, int | None]:
    """Ordinal → entry of the function; ``None`` where it leads to no function of this image."""
    return {
        export.ordinal: int(export.rva) if export.rva is not None and export.rva in view.functions else None
        for export in view.image.exports
        if export.name is None
    }
