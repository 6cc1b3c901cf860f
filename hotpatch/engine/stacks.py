"""Where threads may still go: what their registers and stacks hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Va

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.arch import Architecture
    from hotpatch.engine.target import Target, Thread

WORD = 8
"""Bytes of a pointer."""


def words(memory: bytes) -> memoryview:
    """Aligned pointers of ``memory``, whose length is cut to whole ones."""
    return memoryview(memory[: len(memory) // WORD * WORD]).cast("Q")


def stack_words(target: Target, thread: Thread) -> Iterator[tuple[Va, int]]:
    """Every aligned word between a thread's stack pointer and the end of its stack, with its address."""
    start = -(-thread.sp // WORD) * WORD
    for region in target.regions():
        if region.va <= thread.sp < region.va + region.size:
            memory = target.read(Va(start), region.va + region.size - start)
            for index, value in enumerate(words(memory)):
                yield Va(start + index * WORD), value


def return_addresses(target: Target, arch: Architecture, thread: Thread) -> Iterator[tuple[Va | None, int]]:
    """What a thread may return to, with the stack address that holds it (``None``: the link register).

    Conservative: every word of the stack counts.
    """
    link = arch.convention.link
    if link is not None:
        yield None, thread.registers[link]
    yield from stack_words(target, thread)
