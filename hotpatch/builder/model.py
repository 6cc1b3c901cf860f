"""What the builder's steps hand to one another. Addresses are RVAs of the fixed image unless a name says otherwise; sizes are bytes."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.arch import JumpTable, Redirect, Use
    from hotpatch.image import Function, Import, Range
    from hotpatch.patch import CarriedKind
    from hotpatch.unwind import CarriedUnwind

PAGES = frozenset({FixupKind.PAGEBASE_REL21, FixupKind.IMAGEREL_HIGH12A})
"""Kinds of fields that give the page of an address alone."""
RECORD_FIELD_SIZE = 4
"""Bytes of an address in a record of a C++ type: a distance from the start of the image."""


@dataclass(frozen=True, slots=True)
class Selected:
    """A pair of functions whose fixed side replaces its base side, and why."""

    base: Function
    fixed: Function
    why: str


@dataclass(frozen=True, slots=True)
class BaseAddress:
    """A reference is bound to this RVA of the base."""

    rva: Rva


@dataclass(frozen=True, slots=True)
class CarriedAddress:
    """A reference is bound to the patch's copy of what the fixed image has there."""

    fixed: Rva


@dataclass(frozen=True, slots=True)
class NewImport:
    """A reference is bound to a slot of the patch's own import table."""

    wanted: Import


Destination = BaseAddress | CarriedAddress | NewImport


@dataclass(frozen=True, slots=True)
class Site:
    """A field of the fixed image that names an address; ``instruction`` is the range's start for data."""

    instruction: Rva
    size: int
    field: Rva
    kind: FixupKind
    use: Use
    target: Rva
    addend: int


@dataclass(frozen=True, slots=True)
class Link:
    """A site with what it is bound to."""

    site: Site
    destination: Destination


@dataclass(frozen=True, slots=True)
class Reckoning:
    """An instruction that counts on from an address, with another number in the patch than in the fixed image.

    Attributes:
        site: The instruction, as if it named the sum itself.
        anchor: The site of the instruction that makes the address which it counts from: one that names it, or another reckoning's.
        distance: Of what its register holds from that address, in bytes.
        destination: What the sum is bound to.
    """

    site: Site
    anchor: Site
    distance: int
    destination: Destination


@dataclass(frozen=True, slots=True)
class Body:
    """A function that travels, as the fixed image has it.

    Attributes:
        blocks: Its ranges; those that touch are one, because code may fall from one into the next.
        sites: Its references and relocated fields, by field.
        tables: The jump tables that it goes through.
        falls_into: Where control goes past the end of a block, by the block's end.
    """

    function: Function
    blocks: tuple[Range, ...]
    sites: tuple[Site, ...]
    tables: tuple[JumpTable, ...]
    falls_into: Mapping[Rva, Rva]


class Area(StrEnum):
    """Where in the patch image a piece goes."""

    CODE = ".text"
    CONSTANT = ".rdata"
    DATA = ".data"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the fixed image that travels as it stands.

    Attributes:
        function: Whose code it is, for code.
        kind: As what it is listed; ``None`` for blocks of functions, which are listed once for all their blocks.
    """

    range: Range
    area: Area
    name: str | None
    kind: CarriedKind | None
    function: Function | None = None


@dataclass(frozen=True, slots=True)
class Veneer:
    """A jump to a base function for a branch that cannot leave the patch image, or for code that falls out of its block.

    Attributes:
        destination: Where it leads.
        after: The block behind which it stands, by start.
        falls: Whether the block falls into it, so that it must follow at once.
    """

    destination: Destination
    after: Rva
    falls: bool


@dataclass(frozen=True, slots=True)
class Handler:
    """A function that data of the patch image can only name by its distance from the start of that image.

    Attributes:
        entry: In the fixed image.
        destination: Where it is.
        after: The block behind which the way to it stands, by start, where it is not in the patch image.
    """

    entry: Rva
    destination: Destination
    after: Rva


@dataclass(frozen=True, slots=True)
class Bound:
    """The outcome of binding: what travels and where every reference goes.

    Attributes:
        falls: Where code goes that runs on past the end of its block, by that end.
        unwind: Unwind information of the bodies.
        handlers: The bodies' language-specific handlers.
        record_code: What records of C++ types that travel call.
        records: Addresses in records of C++ types that travel: the word where each stands, and what it leads to, in the fixed image.
        followed: Tables of distances that travel, by their addresses, and where the next thing begins that anything refers to.
        reckonings: Numbers to encode anew, by instruction.
        hashes: Of unnamed namespaces in names of types that travel: where each stands in the fixed image, and what the base has there.
    """

    bodies: tuple[Body, ...]
    pieces: tuple[Piece, ...]
    links: tuple[Link, ...]
    falls: Mapping[Rva, Destination]
    imports: tuple[Import, ...]
    unwind: tuple[CarriedUnwind, ...]
    handlers: tuple[Handler, ...]
    record_code: tuple[Handler, ...]
    records: tuple[tuple[Rva, Rva], ...]
    followed: Mapping[Rva, Rva]
    reckonings: tuple[Reckoning, ...] = ()
    hashes: tuple[tuple[Rva, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Entrance:
    """How a base function is redirected: the strategy, what the base has there, and why it is not the strategy that was asked for."""

    redirect: Redirect
    entry_bytes: bytes
    padding_bytes: bytes
    why: str


@dataclass(frozen=True)
class Placement:
    """Where each piece stands in the patch image.

    Attributes:
        pieces: By start in the fixed image.
        rvas: RVA in the patch image, in step with ``pieces``.
        veneers: RVA in the patch image of each.
    """

    pieces: tuple[Piece, ...]
    rvas: tuple[Rva, ...]
    veneers: Mapping[Veneer, Rva]

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        return tuple(piece.range.start for piece in self.pieces)

    def piece_at(self, fixed: int) -> Piece | None:
        """The piece that holds ``fixed``."""
        at = bisect_right(self._starts, fixed) - 1
        return self.pieces[at] if at >= 0 and fixed in self.pieces[at].range else None

    def of(self, fixed: int) -> Rva:
        """Where the patch image has what the fixed image has at ``fixed``.

        Raises:
            KeyError: It does not travel.
        """
        at = bisect_right(self._starts, fixed) - 1
        if at < 0 or not self.pieces[at].range.start <= fixed < self.pieces[at].range.end:
            raise KeyError(fixed)
        return Rva(self.rvas[at] + fixed - self.pieces[at].range.start)
