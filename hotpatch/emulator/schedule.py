"""Who runs next and for how long. A schedule is a small value machine: the same state gives the same decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

_WORD = (1 << 64) - 1
QUANTUM_MIN, QUANTUM_MAX = 20, 2000
"""Instructions of a slice."""


class Schedule(Protocol):
    """Decides interleavings; another one can be given to a process, to try schedules on purpose."""

    def choose(self, ready: Sequence[int]) -> tuple[int, int]:
        """Of the threads that can run (ids, ascending, at least two): which, and for how many instructions."""

    def state(self) -> object:
        """For a snapshot."""

    def restore(self, state: object) -> None:
        """Back to :meth:`state`."""


class SeededSchedule:
    """Uniform choices from a seed (SplitMix64: Steele, Lea, Flood 2014)."""

    def __init__(self, seed: int) -> None:
        self._state = seed & _WORD

    def choose(self, ready: Sequence[int]) -> tuple[int, int]:
        """See :class:`Schedule`."""
        quantum = QUANTUM_MIN + self._draw() % (QUANTUM_MAX - QUANTUM_MIN + 1)
        return ready[self._draw() % len(ready)], quantum

    def state(self) -> object:
        """See :class:`Schedule`."""
        return self._state

    def restore(self, state: object) -> None:
        """See :class:`Schedule`."""
        if isinstance(state, int):
            self._state = state

    def _draw(self) -> int:
        self._state, value = splitmix(self._state)
        return value


def splitmix(state: int) -> tuple[int, int]:
    """The next state and 64-bit value of SplitMix64."""
    state = (state + 0x9E37_79B9_7F4A_7C15) & _WORD
    value = state
    value = (value ^ value >> 30) * 0xBF58_476D_1CE4_E5B9 & _WORD
    value = (value ^ value >> 27) * 0x94D0_49BB_1331_11EB & _WORD
    return state, value ^ value >> 31
