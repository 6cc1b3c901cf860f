"""Which code is whose, while functions are looked for: ranges that never overlap, each with an owner."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hotpatch.image.image import Image
    from hotpatch.image.model import Range


class Claims:
    """Ranges claimed so far, all within executable sections.

    Attributes:
        starts: Where they begin, sorted.
        end: Of each, by start.
        owner: The entry of the function that each belongs to, by start.
        owned: The starts by owner.
        fresh: The starts of ranges that are new, or end elsewhere than before, since somebody emptied it.
        low: Where executable sections begin.
        high: Where they end.
    """

    def __init__(self, image: Image) -> None:
        """Begin with none."""
        self.starts: list[int] = []
        self.end: dict[int, int] = {}
        self.owner: dict[int, int] = {}
        self.owned: dict[int, set[int]] = {}
        self.fresh: set[int] = set()
        self.executable: tuple[Range, ...] = tuple(section.range for section in image.sections if section.executable)
        self.low = min((part.start for part in self.executable), default=0)
        self.high = max((part.end for part in self.executable), default=0)
        self.alignment = image.architecture.instruction_alignment

    def is_code(self, rva: int) -> bool:
        """Whether an instruction may begin there."""
        if not self.low <= rva < self.high or rva % self.alignment:
            return False
        return len(self.executable) == 1 or any(rva in part for part in self.executable)

    def containing(self, rva: int) -> int | None:
        """Start of the claimed range that ``rva`` lies in."""
        index = bisect_right(self.starts, rva) - 1
        if index < 0:
            return None
        start = self.starts[index]
        return start if rva < self.end[start] else None

    def claim(self, start: int, end: int, owner: int) -> None:
        """Give ``owner`` what is still free of ``start`` to ``end``."""
        for low, high in self.executable:
            if low <= start < high:
                end = min(end, high)
                break
        else:
            return
        starts = self.starts
        while start < end:
            index = bisect_right(starts, start)
            if index and start < self.end[starts[index - 1]]:
                start = self.end[starts[index - 1]]
                continue
            stop = min(end, starts[index]) if index < len(starts) else end
            starts.insert(index, start)
            self.end[start] = stop
            self.fresh.add(start)
            self.give(start, owner)
            start = stop

    def split(self, at: int) -> None:
        """Cut the range around ``at`` so that a function can begin there; the rest of the range becomes that function's."""
        inside = self.containing(at)
        if inside is None or inside == at:
            return
        insort(self.starts, at)
        self.end[at], self.end[inside] = self.end[inside], at
        self.fresh.update((at, inside))
        self.give(at, at)

    def give(self, start: int, owner: int) -> None:
        """Let the range at ``start`` be ``owner``'s."""
        known = self.owner.get(start)
        if known is not None:
            self.owned[known].discard(start)
        self.owner[start] = owner
        owned = self.owned.get(owner)
        if owned is None:
            self.owned[owner] = {start}
        else:
            owned.add(start)

    def forget(self, owner: int) -> list[int]:
        """Give up what ``owner`` has; where its ranges began."""
        starts = sorted(self.owned.pop(owner, ()))
        self.fresh.difference_update(starts)
        for start in starts:
            del self.starts[bisect_left(self.starts, start)]
            del self.end[start], self.owner[start]
        return starts
