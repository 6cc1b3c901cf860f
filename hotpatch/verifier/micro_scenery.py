"""What functions are run on: registers, stack words and memory drawn from a seed, the same for every process."""

from __future__ import annotations

import struct
from copy import copy
from functools import lru_cache
from random import Random

ARENA = range(0x80_0000_0000, 0x200_0000_0000)
"""VAs whose pages are created when the function touches them; nothing else of an emulated process lies there, and pointers point well into
it, so that 32-bit indices, also scaled and negative, stay inside."""
_ELSEWHERE = (range(0x1_0000_0000), range(0x200_0000_0000, 0x7F00_0000_0000))
"""More such pages where a scenery is forgiving: no image, stack, heap or structure of an emulated process lies there."""
_POINTERS = range(0x100_0000_0000, 0x100_0100_0000, 8)
_WORDS = 4096
_PAGE = 0x1000
_STRIDE = 0x9E37_79B9_7F4A_7C15
"""Fibonacci hashing's multiplier for 64 bits: spreads consecutive numbers."""
_MASK = (1 << 64) - 1
_FLOATS = (0.0, 1.0, -1.0, 0.5, -2.0, 1e10, 3.0, 1e-3)
_SHARE = 6
"""One word in so many comes from the function's own constants."""
_POOL = 48
"""Different ones of them in one scenery, at most."""
_WORD, _LOW, _CONSTANT, _RELATED = range(4)
_HOLDS = (_WORD,) * 2 + (_LOW,) * 2 + (_CONSTANT,) * 3 + (_RELATED,)
"""What a register holds in as many runs of every other seed, in an order of its own: any word, a small number, one of the constants, or
something that gives one together with another register."""
_BETWEEN = 0.2
"""Share of constants with a distance added that another constant bounds: what an index is once ``x - first <= last - first`` is checked."""
_SMALL = 8
CONSTANTS = 64
"""Of a function that are used at most."""


class Scenery:
    """Everything that one seed gives, for a function with certain constants.

    Where it is *forgiving*, small numbers and other words that are no pointers can be followed as well, so that runs go on for long;
    otherwise they end where the program would fault. Where it *makes up parts*, what is read of an address is made up as well, unless all
    of that is read (:mod:`micro_parts`).
    """

    def __init__(self, seed: int, constants: tuple[int, ...] = (), *, forgiving: bool = False) -> None:
        self._seed, self._constants, self._forgiving = seed, constants, forgiving
        self.makes_up_parts = False
        words, floats = _drawn(seed)
        if constants:
            draw = Random(seed)
            near = [_near(draw, constants) for _ in range(_POOL)]
            places = range(draw.randrange(_SHARE), _WORDS, _SHARE)
            changed = list(words)
            changed[places.start :: _SHARE] = draw.choices(near, k=len(places))
            words = tuple(changed)
        self._words, self._floats = words, floats
        self._bytes = struct.pack(f"<{_WORDS}Q", *words) + struct.pack(f"<{_PAGE // 8}Q", *words[: _PAGE // 8])

    def with_parts(self) -> Scenery:
        """The same, and parts of addresses are made up."""
        other = copy(self)
        other.makes_up_parts = True
        return other

    def word(self, index: int) -> int:
        """A register's value, or what a call gives, by number."""
        return self._words[index * _STRIDE % _MASK % _WORDS]

    def register(self, index: int) -> int:
        """What an integer register holds at the entry, by number: arguments are where a function's own constants are compared first."""
        if not self._seed % 2:
            return self.word(index)
        draw = Random(self._seed << 8 | index)
        block, turn = divmod(self._seed // 2, len(_HOLDS))
        holds = Random(block << 8 | index).sample(_HOLDS, len(_HOLDS))
        what = holds[turn]
        if what == _WORD:
            return self.word(index)
        if what == _LOW or not self._constants:
            return draw.randrange(-_SMALL, 2 * _SMALL) & _MASK
        if what == _RELATED and index:
            # What two arguments are compared to after one step: their sum, difference or bits that differ.
            other, constant = self.register(draw.randrange(index)), _near(draw, self._constants)
            return draw.choice((other ^ constant, other + constant, other - constant, constant - other)) & _MASK
        # One constant after the other as it is, so that none of the first is left out, and between them what lies near any.
        half, near = divmod(block * holds.count(_CONSTANT) + holds[:turn].count(_CONSTANT), 2)
        return _near(draw, self._constants) if near or what == _RELATED else self._constants[half % len(self._constants)]

    def float_bits(self, index: int) -> int:
        """Likewise for floating-point registers: 64 bits of a double."""
        return int.from_bytes(struct.pack("<d", self._floats[index % len(self._floats)]), "little")

    def part(self, va: int) -> int:
        """The byte at ``va`` where a part of an address is read there."""
        return self.word(3000 + va) & 0xFF

    def page(self, va: int) -> bytes | None:
        """Content of the page at ``va``; ``None`` where there is none."""
        if va not in ARENA and not (self._forgiving and any(va in part for part in _ELSEWHERE)):
            return None
        at = (va // _PAGE * _STRIDE & _MASK) % _WORDS * 8
        return self._bytes[at : at + _PAGE]


@lru_cache(maxsize=64)
def _drawn(seed: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    draw = Random(seed)
    return tuple(_word(draw) for _ in range(_WORDS)), tuple(draw.choice(_FLOATS) for _ in range(64))


def _near(draw: Random, constants: tuple[int, ...]) -> int:
    """One of the constants, its neighbour, or up to another beyond it: as a word, in both halves of one, or in the lower half."""
    value = draw.choice(constants)
    if draw.random() < _BETWEEN:
        value += draw.randrange(1 + (draw.choice(constants) & 0xFF))
    else:
        value += draw.choice((0, 0, 0, 1, -1))
    where = draw.random()
    if where < 0.4:
        low = value & 0xFFFF_FFFF
        return low * 0x1_0000_0001 if where < 0.3 else low | draw.getrandbits(32) << 32
    return value & _MASK


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
