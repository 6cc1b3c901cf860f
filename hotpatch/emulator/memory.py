"""The memory of an emulated process, owned by the host.

Every region lies in host memory that Unicorn shows to the program with the region's rights; the host reads and writes it directly, whatever
those rights. So no page right ever changes hands for a patch, and a snapshot is a copy.

**Instruction cache.** A region that the program may execute is held twice: its memory, and what instruction fetch sees. Unicorn runs the
second. A store changes memory only; :meth:`Memory.flush` carries it over and drops translations. A missing flush therefore shows every
time, in every slice, on both machines: the old code goes on running. (The program's own loads from such a region see the fetched copy too;
the two differ only between a store and its flush, and no thread runs in between.)
"""

from __future__ import annotations

import ctypes
from bisect import bisect_left, bisect_right
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count, pairwise
from typing import TYPE_CHECKING

from hotpatch.emulator.host_memory import HostMemory, anonymous
from hotpatch.emulator.repeats import LONGEST
from hotpatch.engine.target import Rights
from hotpatch.errors import HotpatchError

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

    from hotpatch.emulator.cpu import Cpu
    from hotpatch.engine.target import PageRights

PAGE = 0x1000
"""Bytes of a page on both machines."""

_READ, _WRITE, _EXECUTE = int(Rights.READ), int(Rights.WRITE), int(Rights.EXECUTE)
"""Numbers: members of an enumeration take microseconds to combine."""
_versions = count(1)


def page_up(size: int) -> int:
    """``size`` rounded up to whole pages."""
    return (size + PAGE - 1) & -PAGE


def page_down(va: int) -> int:
    """Start of the page that holds ``va``."""
    return va & -PAGE


class RegionKind(StrEnum):
    """What a region is for."""

    IMAGE = "image"
    SYSTEM = "system"
    STACK = "stack"
    HEAP = "heap"
    ALLOCATION = "allocation"
    HOST = "host"
    """Mapped by the host: patch images, call buffers."""


class AccessError(HotpatchError):
    """An access that memory does not allow.

    Attributes:
        address: The first byte that could not be accessed.
        access: ``read`` or ``write``.
    """

    def __init__(self, address: int, access: str) -> None:
        """Say which ``address`` and ``access``."""
        super().__init__(f"no {access} access to memory at 0x{address:x}")
        self.address = address
        self.access = access


@dataclass(eq=False, slots=True)
class Region:
    """Pages with the same rights; a part of one mapping.

    Attributes:
        va: First byte.
        size: In bytes, whole pages.
        rights: What the program may do.
        kind: What it is for.
        name: Whose it is.
        mapping: Where what was mapped with it begins.
        memory: Host memory.
        offset: Of the region in ``memory``.
        version: Changes with every host write to a region that the program cannot write.
        fetched: Host memory of what instruction fetch sees, where the program may execute.
        fetched_offset: Of that in ``fetched``.
        end: First byte behind it.
        readable: Whether the program may read.
        writable: Whether it may write.
    """

    va: int
    size: int
    rights: Rights
    kind: RegionKind
    name: str
    mapping: int
    memory: mmap.mmap
    offset: int
    version: int = 0
    fetched: mmap.mmap | None = None
    fetched_offset: int = 0
    saved: tuple[int, bytes, bytes] | None = field(default=None, repr=False)
    end: int = field(init=False)
    readable: bool = field(init=False)
    writable: bool = field(init=False)

    def __post_init__(self) -> None:
        self.end = self.va + self.size
        self.readable = int(self.rights) & _READ != 0
        self.writable = int(self.rights) & _WRITE != 0

    @property
    def host(self) -> int:
        """Host address of what the program is shown."""
        shown, offset = (self.memory, self.offset) if self.fetched is None else (self.fetched, self.fetched_offset)
        return ctypes.addressof(ctypes.c_char.from_buffer(shown, offset))

    def fetch_from(self, memory: mmap.mmap, offset: int, held: bytes) -> None:
        """Let instruction fetch see ``memory`` at ``offset``: ``held``, and zeros behind it whose pages the host need not provide yet."""
        self.fetched, self.fetched_offset = memory, offset
        memory[offset : offset + len(held)] = held

    def code(self) -> bytes:
        """What instruction fetch sees; nothing where the program may not execute."""
        return b"" if self.fetched is None else self.fetched[self.fetched_offset : self.fetched_offset + self.size]

    def content(self) -> tuple[int, bytes, bytes]:
        """Version, memory and fetched copy; remembered while the version stands."""
        if self.writable:
            return 0, self.memory[self.offset : self.offset + self.size], b""
        if self.saved is None or self.saved[0] != self.version:
            self.saved = (self.version, self.memory[self.offset : self.offset + self.size], self.code())
        return self.saved


@dataclass(frozen=True, slots=True)
class MemorySnapshot:
    """All memory at one moment."""

    parts: tuple[tuple[Region, tuple[int, bytes, bytes]], ...]


class Memory:
    """The address space."""

    def __init__(self) -> None:
        self.cpu: Cpu | None = None
        self._starts: list[int] = []
        self._regions: list[Region] = []
        self._host = HostMemory()

    # mapping -----------------------------------------------------------------------------------------------------------------------------

    def map(self, va: int, size: int, rights: PageRights, kind: RegionKind, name: str, content: bytes = b"") -> None:
        """Map ``size`` bytes (rounded up to pages) at a free page address, holding ``content`` and zeros behind it.

        Raises:
            HotpatchError: The place is taken, not page aligned, or the rights allow both writing and executing.
        """
        size = page_up(max(size, 1))
        if va % PAGE or not self.free(va, size):
            raise HotpatchError(f"cannot map {name} at 0x{va:x}: the place is not free and page aligned")
        stretches = _stretches(size, rights, name)
        fetched = sum(end - start for start, end, own in stretches if int(own) & _EXECUTE)
        memory, at = self._host.take(size + fetched)
        if content:
            memory[at : at + len(content)] = content
        behind = at + size
        with self._all_or_nothing():
            for start, end, own in stretches:
                region = Region(va + start, end - start, own, kind, name, va, memory, at + start, next(_versions))
                held = content[start:end]
                if int(own) & _EXECUTE:
                    region.fetch_from(memory, behind, held)
                    behind += region.size
                self._insert(region, held)

    def unmap(self, *regions: Region) -> None:
        """Take regions away."""
        with self._all_or_nothing():
            for region in regions:
                at = self._regions.index(region)
                if self.cpu is not None:
                    self.cpu.unmap(region.va, region.size)
                del self._regions[at], self._starts[at]

    def protect(self, va: int, size: int, rights: Rights) -> None:
        """Give whole pages other rights; they must be mapped without gaps.

        Raises:
            AccessError: A page is not mapped.
            HotpatchError: The rights allow both writing and executing.
        """
        _check(rights, "memory")
        start, end = page_down(va), page_up(va + size)
        touched = [region for region in self._within(start, end) if region.rights != rights]
        with self._all_or_nothing():
            for region in touched:
                self.unmap(region)
                cuts = sorted({region.va, region.end, max(start, region.va), min(end, region.end)})
                for low, high in pairwise(cuts):
                    new = rights if start <= low < end else region.rights
                    offset, size = region.offset + low - region.va, high - low
                    part = Region(low, size, new, region.kind, region.name, region.mapping, region.memory, offset, next(_versions))
                    held = b""
                    if int(new) & _EXECUTE:
                        held = region.memory[offset : offset + size]
                        part.fetch_from(anonymous(size), 0, held)
                    self._insert(part, held)

    def free(self, va: int, size: int) -> bool:
        """Whether nothing is mapped in a range."""
        return self.last_within(va, size) is None

    def last_within(self, va: int, size: int) -> Region | None:
        """The last region that has a byte of a range."""
        at = bisect_left(self._starts, va + size)
        return self._regions[at - 1] if at and self._regions[at - 1].end > va else None

    def first_within(self, va: int, size: int) -> Region | None:
        """The first region that has a byte of a range."""
        at = bisect_right(self._starts, va)
        if at and self._regions[at - 1].end > va:
            return self._regions[at - 1]
        return self._regions[at] if at < len(self._starts) and self._starts[at] < va + size else None

    def find(self, va: int) -> Region | None:
        """The region that holds ``va``."""
        at = bisect_right(self._starts, va)
        if at and self._regions[at - 1].end > va:
            return self._regions[at - 1]
        return None

    def regions(self) -> tuple[Region, ...]:
        """All regions by address."""
        return tuple(self._regions)

    # contents ----------------------------------------------------------------------------------------------------------------------------

    def read(self, va: int, size: int) -> bytes:
        """Memory as it is.

        Raises:
            AccessError: A byte is not mapped.
        """
        region = self.find(va)
        if region is not None and va + size <= region.end:
            at = region.offset + va - region.va
            return region.memory[at : at + size]
        return b"".join(r.memory[r.offset + a - r.va : r.offset + b - r.va] for r, a, b in self._pieces(va, size, "read"))

    def readable(self, va: int, size: int) -> bytes | None:
        """Memory as it is, where one region that the program may read holds all of it."""
        region = self.find(va)
        if region is None or va + size > region.end or not region.readable:
            return None
        at = region.offset + va - region.va
        return region.memory[at : at + size]

    def store(self, va: int, data: bytes) -> bool:
        """Store where one region that the program may write holds all of it; whether one does."""
        region = self.find(va)
        if region is None or va + len(data) > region.end or not region.writable:
            return False
        at = region.offset + va - region.va
        region.memory[at : at + len(data)] = data
        return True

    def write(self, va: int, data: bytes) -> None:
        """Store into memory, whatever the program's rights, without flushing.

        Raises:
            AccessError: A byte is not mapped; nothing was stored.
        """
        region = self.find(va)
        if region is not None and va + len(data) <= region.end:
            at = region.offset + va - region.va
            region.memory[at : at + len(data)] = data
            if not region.writable:
                region.version = next(_versions)
            return
        for region, start, end in self._pieces(va, len(data), "write"):
            region.memory[region.offset + start - region.va : region.offset + end - region.va] = data[start - va : end - va]
            if not region.writable:
                region.version = next(_versions)

    def flush(self, va: int, size: int) -> None:
        """Make instruction fetch see what memory holds."""
        for region, start, end in self._pieces(va, size, "read"):
            if region.fetched is None:
                continue
            source, shown = region.offset + start - region.va, region.fetched_offset + start - region.va
            region.fetched[shown : shown + end - start] = region.memory[source : source + end - start]
            region.version = next(_versions)
            if self.cpu is not None:
                before = min(LONGEST, start - region.va)
                behind = min(LONGEST, region.end - end)
                code = region.fetched[shown - before : shown + end - start + behind]
                self.cpu.flush(start, end - start, code, before)

    def check(self, va: int, size: int, rights: Rights, access: str) -> None:
        """Raise unless the program has ``rights`` to the whole range.

        Raises:
            AccessError: With the first byte that it has not.
        """
        wanted = int(rights)  # flags of enum.py are a tenth of a run slower
        for region, start, _ in self._pieces(va, size, access):
            if int(region.rights) & wanted != wanted:
                raise AccessError(start, access)

    # snapshots ---------------------------------------------------------------------------------------------------------------------------

    def snapshot(self) -> MemorySnapshot:
        """A copy of all memory: what the program cannot write is copied once per change by the host, the rest each time."""
        return MemorySnapshot(tuple((region, region.content()) for region in self._regions))

    def restore(self, snapshot: MemorySnapshot) -> None:
        """Mappings and contents as :meth:`snapshot` found them, in any order of snapshots."""
        wanted = {id(region) for region, _ in snapshot.parts}
        self.unmap(*(region for region in self._regions if id(region) not in wanted))
        present = {id(region) for region in self._regions}
        with self._all_or_nothing():
            for region, (version, memory, fetched) in snapshot.parts:
                if not version or version != region.version:
                    region.memory[region.offset : region.offset + region.size] = memory
                    if region.fetched is not None:
                        region.fetched[region.fetched_offset : region.fetched_offset + region.size] = fetched
                        if self.cpu is not None and id(region) in present:
                            self.cpu.flush(region.va, region.size, fetched)
                    region.version = version  # last: where this is interrupted, another try must not pass it over
                if id(region) not in present:
                    self._insert(region, fetched)

    # inside ------------------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Whatever ends this block early, an interrupt of the host's too, mappings are as before."""
        starts, regions = list(self._starts), list(self._regions)
        try:
            yield
        except BaseException:
            self._starts[:], self._regions[:] = starts, regions
            if self.cpu is not None:
                held = {(region.va, region.size): region for region in regions}
                shown = self.cpu.shown()
                for va, size in shown - held.keys():
                    self.cpu.unmap(va, size)
                for va, size in sorted(held.keys() - shown):
                    self._show(self.cpu, held[va, size])
            raise

    def _show(self, cpu: Cpu, region: Region) -> None:
        cpu.map(region.va, region.size, int(region.rights), region.host, region.code())

    def _insert(self, region: Region, code: bytes) -> None:
        """Show a region to the program; ``code`` is what it holds, where the program may execute it."""
        if self.cpu is not None:
            self.cpu.map(region.va, region.size, int(region.rights), region.host, code)
        at = bisect_right(self._starts, region.va)
        self._starts.insert(at, region.va)
        self._regions.insert(at, region)

    def _within(self, start: int, end: int) -> Iterator[Region]:
        for region, _, _ in self._pieces(start, end - start, "write"):
            yield region

    def _pieces(self, va: int, size: int, access: str) -> list[tuple[Region, int, int]]:
        """The parts of a range by region: (region, start, end)."""
        at, end = va, va + size
        first = self.find(va)
        if first is not None and end <= first.end:
            return [(first, va, end)]
        pieces: list[tuple[Region, int, int]] = []
        while at < end:
            region = self.find(at)
            if region is None:
                raise AccessError(at, access)
            pieces.append((region, at, min(end, region.end)))
            at = region.end
        return pieces


def _stretches(size: int, rights: PageRights, name: str) -> list[tuple[int, int, Rights]]:
    """Start, end and rights of neighbouring pages with the same rights."""
    if isinstance(rights, Rights):
        found = [(0, size, rights)]
    else:
        bounds = [0, *(page for page in range(1, len(rights)) if rights[page] != rights[page - 1]), len(rights)]
        found = [(start * PAGE, end * PAGE, rights[start]) for start, end in pairwise(bounds)]
    for _, _, own in found:
        _check(own, name)
    return found


def _check(rights: Rights, name: str) -> None:
    if int(rights) & _WRITE and int(rights) & _EXECUTE:
        raise HotpatchError(f"{name} may not be both writable and executable; no code page of a process is ever writable to it")
