"""What functions are run on: registers, stack words and memory drawn from a seed, the same for every process."""

from __future__ import annotations

import struct
from random import Random

ARENA = range(0x80_0000_0000, 0x200_0000_0000)
"""VAs whose pages are created when the function touches them; nothing else of an emulated process lies there, and pointers point well into
it, so that 32-bit indices, also scaled and negative, stay inside."""
_POINTERS = range(0x100_0000_0000, 0x100_0100_0000, 8)
_WORDS = 4096
_PAGE = 0x1000
_STRIDE = 0x9E37_79B9_7F4A_7C15
"""Fibonacci hashing's multiplier for 64 bits: spreads consecutive numbers."""
_MASK = (1 << 64) - 1
_FLOATS = (0.0, 1.0, -1.0, 0.5, -2.0, 1e10, 3.0, 1e-3)


class Scenery:
    """Everything that one seed gives."""

    def __init__(self, seed: int) -> None:
        draw = Random(seed)
        self._words = [_word(draw) for _ in range(_WORDS)]
        self._bytes = struct.pack(f"<{_WORDS}Q", *self._words) + struct.pack(f"<{_PAGE // 8}Q", *self._words[: _PAGE // 8])
        self._floats = [draw.choice(_FLOATS) for _ in range(64)]

    def word(self, index: int) -> int:
        """A register's value, or what a call gives, by number."""
        return self._words[index * _STRIDE % _MASK % _WORDS]

    def float_bits(self, index: int) -> int:
        """Likewise for floating-point registers: 64 bits of a double."""
        return int.from_bytes(struct.pack("<d", self._floats[index % len(self._floats)]), "little")

    def page(self, va: int) -> bytes | None:
        """Content of the page at ``va``; ``None`` outside of the arena."""
        if va not in ARENA:
            return None
        at = (va // _PAGE * _STRIDE & _MASK) % _WORDS * 8
        return self._bytes[at : at + _PAGE]


def _word(draw: Random) -> int:
    """A word as programs hold them: pointers, counts, flags, text, and sometimes anything."""
    kind = draw.random()
    if kind < 0.40:
        return draw.choice(_POINTERS)
    if kind < 0.60:
        return draw.randrange(8)
    if kind < 0.70:
        return draw.randrange(256)
    if kind < 0.80:
        return 0
    if kind < 0.84:
        return _MASK
    if kind < 0.92:
        return draw.randrange(64) | draw.randrange(64) << 32
    if kind < 0.96:
        return int.from_bytes(bytes(draw.choice(b"abcz019 .-/\0") for _ in range(8)), "little")
    return draw.getrandbits(64)
