"""Memory of the host's that lies behind what an emulated process has mapped."""

from __future__ import annotations

import mmap

BLOCK = 1 << 18
"""Bytes that are asked of the host at once: asking takes as long as two pages do when they are first stored to."""


class HostMemory:
    """Hands out zeros. The host has memory back when nothing refers to its block any more."""

    def __init__(self) -> None:
        """Begin without any."""
        self._block: mmap.mmap | None = None
        self._left = 0

    def take(self, size: int) -> tuple[mmap.mmap, int]:
        """``size`` bytes (whole pages), at an offset: what is small lies in a block with others."""
        if size > BLOCK // 4:
            return anonymous(size), 0
        if self._block is None or size > self._left:
            self._left = 0  # first: where this is interrupted, nothing is left of a block
            self._block = anonymous(BLOCK)
            self._left = BLOCK
        self._left -= size
        return self._block, BLOCK - self._left - size


def anonymous(size: int) -> mmap.mmap:
    """``size`` (> 0) zeros, this process's own: memory that could be shared takes the host twice as long to provide."""
    return mmap.mmap(-1, size, access=mmap.ACCESS_COPY)
