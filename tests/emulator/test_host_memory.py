"""Memory of the host's: zeros, disjoint, given back."""

from __future__ import annotations

import weakref

import pytest

from hotpatch.emulator.host_memory import BLOCK, HostMemory
from hotpatch.emulator.memory import PAGE


@pytest.mark.parametrize("size", [PAGE, 3 * PAGE, BLOCK // 4, BLOCK // 4 + PAGE, 2 * BLOCK])
def test_pieces_are_zeros_and_nobody_elses(size: int) -> None:
    host = HostMemory()
    taken: list[tuple[memoryview, int]] = []
    for number in range(12):
        memory, offset = host.take(size)
        piece = memoryview(memory)[offset : offset + size]
        assert len(piece) == size
        assert not any(piece)
        piece[:] = bytes([number + 1]) * size
        taken.append((piece, number + 1))
    assert all(set(piece) == {number} for piece, number in taken)


def test_small_pieces_share_a_block_which_goes_with_the_last_of_them() -> None:
    host = HostMemory()
    first, _ = host.take(PAGE)
    second, offset = host.take(PAGE)
    assert second is first
    assert offset == PAGE
    block = weakref.ref(first)
    del first
    while host.take(BLOCK // 4)[0] is second:
        pass
    assert block() is not None
    del second
    assert block() is None
