"""Where threads may still go: what their registers and stacks hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.unwind import unwinder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.arch import Machine
    from hotpatch.engine.locate import Locator
    from hotpatch.engine.target import Target, Thread

WORD = 8
"""Bytes of a pointer."""


def words(memory: bytes) -> memoryview:
    """Aligned pointers of ``memory``, whose length is cut to whole ones."""
    return memoryview(memory[: len(memory) // WORD * WORD]).cast("Q")


def stack_words(target: Target, sp: Va) -> Iterator[tuple[Va, int]]:
    """Every aligned word between ``sp`` and the end of the stack that it lies in, with its address."""
    start = -(-sp // WORD) * WORD
    for region in target.regions():
        if region.va <= sp < region.va + region.size:
            memory = target.read(Va(start), region.va + region.size - start)
            for index, value in enumerate(words(memory)):
                yield Va(start + index * WORD), value


def return_addresses(target: Target, machine: Machine, locator: Locator, thread: Thread) -> Iterator[tuple[Va, int]]:
    """What a thread may return to, each with the stack pointer or address at which it was found.

    The stack is walked by unwind data. Where the walk ends, at the thread's start or because something on the stack has no unwind data,
    every word of the rest counts.
    """
    modules = target.modules()
    frames = unwinder(machine).walk(thread.registers, lambda va, size: target.read(Va(va), size), lambda va: locator.locate(va, modules))
    for frame in frames[1:]:
        yield frame.sp, frame.pc
    yield from stack_words(target, frames[-1].sp)
