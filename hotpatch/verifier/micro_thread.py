"""What a thread has of its own, made up: its environment block, the array of its modules' thread-local blocks, and the module's block.

The block is memory like any other that is made up. The fixed image's holds what the base's does where the base has the same: as symbols
say, or as functions of the same body show, which use the same offset in both. Elsewhere it holds something else.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.differ.thread_data import named_parts, thread_offsets, unchanged_offsets
from hotpatch.emulator.layout import TEB, TEB_SIZE, THREAD_FLAGS, TLS_SLOTS
from hotpatch.emulator.memory import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.address import Rva
    from hotpatch.differ import ImageDiff
    from hotpatch.image import Function, Image
    from hotpatch.verifier.micro_scenery import Scenery

BLOCK = 0x1C0_0000_1000
"""VA of the module's block. Nothing else leads there: it lies far from where made-up pointers do, though in
:data:`~hotpatch.verifier.micro_scenery.ARENA`. A scenery has other things at each of these addresses."""
ARRAY = 0x1B0_0000_2000
"""VA of the array of blocks."""
INDEX = 37
"""The module's place in it."""
_ENVIRONMENT = 0x1A0_0000_3000
"""Where the scenery has what the environment block holds."""
_UNLIKE = 0x1A8_0000_6000
"""And what the fixed image's block holds where the base has something else, or nothing."""
_WORD = 8
_KEPT = (
    *(range(at, at + _WORD) for name, at in TEB.items() if name not in ("LastErrorValue", "UserReserved", "TlsSlots")),
    THREAD_FLAGS,
    range(TEB["TlsSlots"], TEB["TlsSlots"] + _WORD * TLS_SLOTS),
)
"""Of the environment block: where it, the stack and the process are, who the thread is; what the engine keeps there, and the emulator."""


class Part(NamedTuple):
    """A part of the fixed image's block that does not lie where the base has it.

    Attributes:
        start: Its offset.
        end: Behind it.
        base: The offset where the base has it; ``None`` where nothing tells that.
    """

    start: int
    end: int
    base: int | None


class ThreadData:
    """Where the base has the thread-local data of the fixed image."""

    def __init__(self, diff: ImageDiff) -> None:
        """Of two images that were compared."""
        self._diff = diff
        self._known: dict[Rva, tuple[Part, ...]] = {}

    def parts(self, function: Function) -> tuple[Part, ...]:
        """What of the block does not lie where the base has it, for ``function`` of the fixed image; sorted."""
        if function.entry not in self._known:
            self._known[function.entry] = tuple(sorted(self._parts(function), key=lambda part: part.start))
        return self._known[function.entry]

    def _parts(self, function: Function) -> Iterator[Part]:
        base, fixed = self._diff.base, self._diff.fixed
        used = thread_offsets(fixed, function)
        if not used or base.tls is None or fixed.tls is None:
            return
        yield from self._named
        match = self._diff.base_entries.get(function.entry)
        before = None if match is None else base.function_of_entry(match)
        known = self._unchanged | (frozenset() if before is None else thread_offsets(base, before))
        named = [*named_parts(self._diff), *(range(part.start, part.end) for part in self._named)]
        edges = sorted({*known, *used, *(part.start for part in named), fixed.tls.template.size + fixed.tls.zero_fill})
        unknown = sorted(offset for offset in used - known if not any(offset in part for part in named))
        yield from (Part(offset, edges[bisect_right(edges, offset)], None) for offset in unknown)

    @cached_property
    def _unchanged(self) -> frozenset[int]:
        return unchanged_offsets(self._diff)

    @cached_property
    def _named(self) -> tuple[Part, ...]:
        """Of names alone: of what the base names, too."""
        base, fixed = self._diff.base.tls, self._diff.fixed.tls
        if base is None or fixed is None:
            return ()
        named = [range(datum.rva, datum.rva + (datum.size or 1)) for datum in self._diff.base.data_symbols if datum.rva in base.template]
        found = set()
        for datum in self._diff.fixed.data_symbols:
            size = datum.size or _WORD
            if fixed.template.start <= datum.rva and datum.rva + size <= fixed.template.end:
                meant = self._diff.base_datum(datum.rva)
                here, there = datum.rva - fixed.template.start, None if meant is None else meant - base.template.start
                place = base.template.start + (here if there is None else there)
                if here != there and any(place in part for part in named):
                    found.add(Part(here, here + size, there))
        return tuple(found)


def meant_in_block(va: int, parts: tuple[Part, ...]) -> int | None:
    """Where the base has what the fixed image has at ``va``, in the block or anywhere else that is made up; ``None``: nowhere."""
    for part in parts:
        if part.start <= va - BLOCK < part.end:
            return None if part.base is None else va - part.start + part.base
    return va


def block_page(scenery: Scenery, va: int, parts: tuple[Part, ...]) -> bytes | None:
    """Content of the page at ``va``, as :meth:`~hotpatch.verifier.micro_scenery.Scenery.page`."""
    content = scenery.page(va)
    if content is None or not ARRAY <= va < BLOCK + (parts[-1].end if parts else 0):
        return content
    changed = bytearray(content)
    if va == ARRAY:
        changed[_WORD * INDEX : _WORD * (INDEX + 1)] = BLOCK.to_bytes(_WORD, "little")
    for at in range(PAGE) if va >= BLOCK else ():
        meant = meant_in_block(va + at, parts)
        if meant != va + at:
            changed[at] = _byte(scenery, _UNLIKE + at if meant is None else meant)
    return bytes(changed)


def environment(scenery: Scenery, before: bytes) -> bytes:
    """The environment block of the thread, of which ``before`` is what the process has."""
    made_up = bytearray(b"".join(scenery.page(_ENVIRONMENT + at) or bytes(PAGE) for at in range(0, TEB_SIZE, PAGE)))
    for part in _KEPT:
        made_up[part.start : part.stop] = before[part.start : part.stop]
    at = TEB["ThreadLocalStoragePointer"]
    made_up[at : at + _WORD] = ARRAY.to_bytes(_WORD, "little")
    return bytes(made_up)


def index_variable(image: Image) -> tuple[Rva, bytes] | None:
    """Where the image has its place in the array, and that; ``None`` where it has no thread-local data."""
    return None if image.tls is None else (image.tls.index, INDEX.to_bytes(4, "little"))


def _byte(scenery: Scenery, va: int) -> int:
    content = scenery.page(va & -PAGE)
    return 0 if content is None else content[va % PAGE]
