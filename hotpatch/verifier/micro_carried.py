"""What a patch image holds where, looked up fast."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from hotpatch.patch import Space

if TYPE_CHECKING:
    from hotpatch.patch import Carried, Patch


class CarriedThings:
    """What a patch carries besides functions, and where it is bound."""

    def __init__(self, patch: Patch) -> None:
        """Sort once."""
        self._items = sorted(patch.carried, key=lambda item: item.patch_rva)
        self._starts = [int(item.patch_rva) for item in self._items]
        self._sites = sorted(int(fixup.site) for fixup in patch.fixups)
        self._led_to = {int(rva): int(target) for rva, target in patch.image.pointers.items()}
        self._led_to |= {int(fixup.site): int(fixup.target) for fixup in patch.fixups if fixup.space is Space.PATCH}
        self._pointers = sorted(self._led_to)

    def at(self, rva: int) -> Carried | None:
        """What lies at an RVA of the patch image."""
        number = bisect_right(self._starts, rva) - 1
        item = self._items[number] if number >= 0 else None
        return item if item is not None and rva < item.patch_rva + item.size else None

    def are_bound(self, rva: int, size: int, widest: int) -> bool:
        """Whether something is bound among ``size`` bytes at an RVA, where no more than ``widest`` bytes are bound at one site."""
        number = bisect_left(self._sites, rva - widest + 1)
        return number < len(self._sites) and self._sites[number] < rva + size

    def pointers(self, rva: int, size: int) -> list[int]:
        """Where pointers to something of the patch image lie among ``size`` bytes at an RVA of it, sorted."""
        return self._pointers[bisect_left(self._pointers, rva) : bisect_left(self._pointers, rva + size)]

    def led_to(self, rva: int) -> int:
        """Where in the patch image the pointer at an RVA of it leads."""
        return self._led_to[rva]
