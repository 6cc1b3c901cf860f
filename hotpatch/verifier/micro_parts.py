"""Made-up bytes in place of parts of addresses.

An address means the same on both sides, but no part of it is the same: what it leads to lies elsewhere in the two processes. A function
comes to read a part where a callee, which is not run, would have stored something else over an address: a small member of a result, say.
It stores one where a member means nothing, as that of another variant, and a register holds an address that nobody needs any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.verifier.micro_history import History

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hotpatch.emulator.memory import Memory
    from hotpatch.verifier.micro_history import Stored
    from hotpatch.verifier.micro_scenery import Scenery

_WORD = 8


class Parts:
    """Watches one run, puts made-up bytes where a part of an address is about to be read, and the address back once it has been.

    That is done only where the run has stored the address itself, and outside of images, so that it is at the same VA on both sides. A part
    that is stored is made up as soon as it has been.
    """

    def __init__(self, memory: Memory, scenery: Scenery, images: Sequence[range], sources: Callable[[], tuple[int, ...]]) -> None:
        """The bytes are those of ``scenery``; an address is what leads into one of the ``images`` (VAs).

        ``sources`` gives all of each register of which the current instruction stores the lower bytes.
        """
        self.history = History()
        self.found: list[tuple[int, int, bytes]] = []
        """Of each address that was read or stored in part, in order: where it was, or a part of it, what, and that part of it."""
        self._memory, self._scenery, self._images, self._sources = memory, scenery, images, sources
        self._next: tuple[int, bytes] | None = None

    def read(self, va: int, size: int, value: int) -> None:
        """``size`` bytes, as yet ``value``, are about to be read at ``va``."""
        self.go_on()
        parts = {at: stored for at in range(size) if (stored := self._part(va, size, at)) is not None}
        if not parts:
            self.history.read(va, size, value)
            return
        before = value.to_bytes(size, "little")
        for where, what in dict.fromkeys((va + at - stored.at, stored.value) for at, stored in parts.items()):
            part = (before[at] for at, stored in parts.items() if (va + at - stored.at, stored.value) == (where, what))
            self.found.append((where, what, bytes(part)))
        self._next = va, before
        self._memory.write(va, bytes(self._scenery.part(va + at) if at in parts else byte for at, byte in enumerate(before)))

    def written(self, va: int, size: int, value: int) -> int:
        """``value`` is about to be written; what will be there in its place."""
        self.go_on()
        sources = () if size >= _WORD or self._is_inside(va) else self._sources()
        whole = next((each for each in sources if self._is_inside(each) and not (each ^ value) & (1 << 8 * size) - 1), None)
        if whole is not None:
            self.found.append((va, whole, value.to_bytes(size, "little")))
            made_up = bytes(map(self._scenery.part, range(va, va + size)))
            self._next, value = (va, made_up), int.from_bytes(made_up, "little")
        self.history.written(va, size, value)
        return value

    def go_on(self) -> None:
        """Do what was to be done once the last access was over."""
        if self._next is not None:
            self._memory.write(*self._next)
            self._next = None

    def _part(self, va: int, size: int, at: int) -> Stored | None:
        """The address of which the byte at ``va + at`` is one, where the ``size`` bytes read at ``va`` are not all of it."""
        stored = self.history.found.get(va + at)
        if stored is None or stored.size != _WORD or not self._is_inside(stored.value) or self._is_inside(va + at):
            return None
        start = va + at - stored.at
        word = int.from_bytes(self._memory.read(start, _WORD), "little")
        # Of an address that was stored over another one like it, some bytes may be the other's.
        return None if va <= start and start + _WORD <= va + size and self._is_inside(word) else stored

    def _is_inside(self, va: int) -> bool:
        return any(va in image for image in self._images)
