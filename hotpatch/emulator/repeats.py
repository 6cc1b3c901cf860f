"""Repeated string instructions, so that each of their iterations counts as one instruction and nothing else does.

Unicorn counts one round more than there are iterations: the last one finds the counter at zero. So wherever an instruction of this kind
may begin, Unicorn is told to stop before it; there the counter is known, and :class:`hotpatch.emulator.cpu.Cpu` runs exactly that many
rounds and moves the program counter on itself. It follows that such an instruction whose counter is zero counts nothing and that no run
ever ends at one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re

LONGEST = 15
"""Bytes of the longest instruction (Intel SDM, volume 2, 2.3.11)."""


@dataclass(frozen=True, slots=True)
class RepeatForm:
    """How a machine writes repeated string instructions.

    Attributes:
        pattern: Matches at every byte where one may begin; group 1 is the whole instruction.
        by_flags: Last bytes of those that a flag can end too.
        narrow: The prefix that makes the counter 32 bits wide.
        counter: Register that counts.
    """

    pattern: re.Pattern[bytes]
    by_flags: bytes
    narrow: int
    counter: str


class Repeats:
    """Addresses in executable memory where such an instruction may begin."""

    def __init__(self, form: RepeatForm) -> None:
        self.form = form
        self.addresses: set[int] = set()

    def put(self, va: int, code: bytes, size: int | None = None) -> bool:
        """Look for them in ``code`` at ``va``, of which the first ``size`` bytes (all) are new; whether anything changed."""
        places = _places(self.form.pattern, code)
        if not places and not self.addresses:
            return False
        found = {va + at for at in places if size is None or at < size}
        return self._replace(va, len(code) if size is None else size, found)

    def drop(self, va: int, size: int) -> bool:
        """Nothing is executable in a range any more; whether anything changed."""
        return self._replace(va, size, set())

    def instruction(self, code: bytes) -> bytes | None:
        """The repeated string instruction that ``code`` begins with."""
        match = self.form.pattern.match(code)
        return None if match is None else match[1]

    def _replace(self, va: int, size: int, found: set[int]) -> bool:
        if size < len(self.addresses):
            before = {at for at in range(va, va + size) if at in self.addresses}
        else:
            before = {at for at in self.addresses if va <= at < va + size}
        if before == found:
            return False
        self.addresses -= before
        self.addresses |= found
        return True


_SHORT = 256
"""Bytes of code up to which looking is quicker than remembering."""


def _places(pattern: re.Pattern[bytes], code: bytes) -> tuple[int, ...]:
    if len(code) <= _SHORT:
        return tuple([match.start() for match in pattern.finditer(code)])
    return _places_in_pages(pattern, code)


@lru_cache(maxsize=64)
def _places_in_pages(pattern: re.Pattern[bytes], code: bytes) -> tuple[int, ...]:
    """Remembered, because a snapshot puts the same bytes back again and again."""
    return tuple(match.start() for match in pattern.finditer(code))
