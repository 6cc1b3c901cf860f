"""One PE file as a value: what it holds, where its functions are, what it refers to. Read once, never changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntFlag, StrEnum
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.address import Rva

if TYPE_CHECKING:
    from collections.abc import Callable

    from hotpatch.address import FileOffset
    from hotpatch.image.pdb_layouts import DatumType


class SectionFlags(IntFlag):
    """The section characteristics that matter here (PE format, "Section Flags")."""

    CODE = 0x00000020
    INITIALIZED_DATA = 0x00000040
    UNINITIALIZED_DATA = 0x00000080
    DISCARDABLE = 0x02000000
    EXECUTE = 0x20000000
    READ = 0x40000000
    WRITE = 0x80000000


_EXECUTE, _WRITE = int(SectionFlags.EXECUTE), int(SectionFlags.WRITE)
"""Combining members of an enumeration takes microseconds."""


class Range(NamedTuple):
    """Half-open range of an image; a tuple, because so much is sorted and looked up by it."""

    start: Rva
    end: Rva

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.start

    def __contains__(self, rva: object) -> bool:
        """Whether the address ``rva`` lies in the range."""
        return isinstance(rva, int) and self.start <= rva < self.end


range_of: Callable[[tuple[int, int]], Range] = partial(tuple.__new__, Range)
"""``Range`` of a start and an end without a Python frame, where thousands are made."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section; sizes in bytes."""

    name: str
    rva: Rva
    virtual_size: int
    raw_size: int
    offset: FileOffset
    flags: SectionFlags

    @property
    def size(self) -> int:
        """Bytes that it takes in memory."""
        return self.virtual_size or self.raw_size

    @property
    def range(self) -> Range:
        """Where it is mapped."""
        return Range(self.rva, Rva(self.rva + self.size))

    @property
    def executable(self) -> bool:
        """Whether code in it can run."""
        return int(self.flags) & _EXECUTE != 0

    @property
    def writable(self) -> bool:
        """Whether the program can store into it."""
        return int(self.flags) & _WRITE != 0

    @property
    def rights(self) -> str:
        """What the program may do with it, as ``rwx`` with ``-`` for what it may not."""
        letters = (("r", SectionFlags.READ), ("w", SectionFlags.WRITE), ("x", SectionFlags.EXECUTE))
        return "".join(letter if self.flags & flag else "-" for letter, flag in letters)


class FunctionSource(IntFlag):
    """Who says that a function starts there."""

    PDATA = 1
    PDB = 2
    EXPORT = 4
    COFF = 8
    ENTRY_POINT = 16
    CALL = 32
    """A direct call, or a tail call from outside."""
    CFFI = 64
    GUARD = 128
    """A control-flow-guard table."""
    POINTER = 256
    """Its address is taken: by a relocated pointer, or by code."""
    EXCEPTION = 512
    """Exception data leads to it: a filter, a ``__finally`` or catch block, what unwinding a frame calls."""
    GAP = 1024
    """Nothing leads to it: whole code that stands between other functions."""


class Function(NamedTuple):
    """An entry and its ranges; the first range starts at the entry, others are cold parts and chained fragments.

    Attributes:
        entry: Of the function.
        ranges: Sorted but for the first, which holds the entry; never overlapping those of another function.
        names: All names at the entry, best first (folded functions have several); empty when nothing names it.
        source: Who says so.
    """

    entry: Rva
    ranges: tuple[Range, ...]
    names: tuple[str, ...]
    source: FunctionSource

    @property
    def name(self) -> str | None:
        """The best name, if any."""
        return self.names[0] if self.names else None

    @property
    def label(self) -> str:
        """The name, or ``rva:0x…``, as FUNCTION arguments are spelt."""
        return self.name or f"rva:0x{self.entry:x}"

    @property
    def size(self) -> int:
        """Of all ranges, in bytes."""
        size = 0
        for start, end in self.ranges:  # a sum takes twice as long, and all functions are asked more than once
            size += end - start
        return size


function_of: Callable[[tuple[Rva, tuple[Range, ...], tuple[str, ...], FunctionSource]], Function] = partial(tuple.__new__, Function)
"""``Function`` without a Python frame."""


class DatumSource(StrEnum):
    """Who names a datum."""

    PDB = "pdb"
    EXPORT = "export"
    COFF = "coff"


@dataclass(frozen=True, slots=True)
class Datum:
    """A named datum.

    Attributes:
        size: In bytes, where the source knows it.
        scope: The function that a static local belongs to.
        is_array: Whether its type is known to be one.
        type: Where a PDB tells it, to ask for what lies where in the datum.
    """

    rva: Rva
    size: int | None
    name: str
    source: DatumSource
    scope: str | None = None
    is_array: bool = False
    type: DatumType | None = field(default=None, compare=False, repr=False)

    @property
    def end(self) -> Rva:
        """First byte behind it, as far as its size is known."""
        return Rva(self.rva + (self.size or 0))


@dataclass(frozen=True, slots=True)
class Import:
    """An imported function or datum.

    Attributes:
        library: The DLL's name as the image spells it.
        name: Imported name, or ``None`` where it comes by ordinal.
        ordinal: Or ``None``.
        slot: Of the import address table.
        delay: Whether it is bound on first use.
    """

    library: str
    name: str | None
    ordinal: int | None
    slot: Rva
    delay: bool

    @property
    def label(self) -> str:
        """``library!name`` or ``library!#ordinal``, lower-case library."""
        return f"{self.library.lower()}!{self.name if self.name is not None else f'#{self.ordinal}'}"


@dataclass(frozen=True, slots=True)
class Export:
    """An export; ``rva`` is ``None`` for a forwarder, ``name`` for one by ordinal only."""

    name: str | None
    ordinal: int
    rva: Rva | None
    forwarder: str | None


class UnwindEntry(NamedTuple):
    """A function-table entry (``.pdata``) as it stands.

    Attributes:
        range: Of code that it covers (Arm64: length from the packed word or the ``.xdata`` header).
        words: Its 32-bit words (x64: begin, end, unwind information; Arm64: begin, packed word or ``.xdata`` RVA).
        info: RVA of the unwind information, ``None`` for a packed Arm64 entry.
        primary: Entry RVA of the function whose chained fragment this is, or its own begin.
        handler: Of the language-specific handler, where there is one.
        handler_data: Of what follows the handler's RVA and only the handler understands.
    """

    range: Range
    words: tuple[int, ...]
    info: Rva | None
    primary: Rva
    handler: Rva | None = None
    handler_data: Rva | None = None


@dataclass(frozen=True, slots=True)
class UnwindSteps:
    """What a function-table entry says, for people.

    Attributes:
        entry: Of the function table.
        steps: How a frame of its code is undone, first step first, by the names of Microsoft's documents; then the epilogues, where it
            tells of them.
        problem: Why it cannot be read, where it cannot.
    """

    entry: UnwindEntry
    steps: tuple[str, ...]
    problem: str | None = None


class Hybrid(StrEnum):
    """Kinds of image with code for two machines."""

    NONE = "none"
    CHPE = "chpe"
    ARM64EC = "arm64ec"
    ARM64X = "arm64x"


@dataclass(frozen=True, slots=True)
class LoadConfiguration:
    """What the load configuration says; RVAs (not VAs), ``None`` where the file's structure is too short or the field 0.

    ``loader_written``: 8-byte fields that the loader stores into while it maps the image (guard check and dispatch pointers and their kin).
    """

    range: Range
    security_cookie: Rva | None
    guard_check_pointer: Rva | None
    guard_dispatch_pointer: Rva | None
    guard_flags: int
    hot_patch_table_offset: int
    hot_patch_table: Rva | None
    loader_written: tuple[Rva, ...] = ()


@dataclass(frozen=True, slots=True)
class TlsDirectory:
    """Thread-local storage: template, index variable, callbacks; RVAs."""

    template: Range
    zero_fill: int
    index: Rva
    callbacks: tuple[Rva, ...]


@dataclass(frozen=True, slots=True)
class InlineSite:
    """A function inlined into another, as the PDB says: the ranges of code that came from it."""

    caller: Rva
    name: str
    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class BaseIdentity:
    """What tells one build from another.

    Attributes:
        time_date_stamp: From the COFF header.
        checksum: From the optional header (0 in most real files).
        size_of_image: In bytes.
        digest: SHA-256, hexadecimal, of the read-only sections as mapped at the preferred base, with import address tables and
            loader-written guard pointers zeroed (:func:`hotpatch.image.identity.digest`).
        sha256: Of the file.
    """

    time_date_stamp: int
    checksum: int
    size_of_image: int
    digest: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Symbols:
    """What a symbol provider knows of an image; merged into :class:`hotpatch.image.Image`.

    Attributes:
        functions: Entry, size in bytes where known, name; several rows for an entry with several names, the best first.
        data: Named data.
        inlines: Inlined bodies.
        contributions: What each linker input put into the image: start, size in bytes, the input's name.
        separated: Cold parts: entry of the function, start and size in bytes of the part.
    """

    functions: tuple[tuple[Rva, int | None, str], ...] = ()
    data: tuple[Datum, ...] = ()
    inlines: tuple[InlineSite, ...] = ()
    contributions: tuple[tuple[Rva, int, str], ...] = ()
    separated: tuple[tuple[Rva, Rva, int], ...] = ()
