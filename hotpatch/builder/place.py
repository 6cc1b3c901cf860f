"""Where everything that travels stands in the patch image."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Use
from hotpatch.builder.model import Area, BaseAddress, CarriedAddress, Placement, Veneer
from hotpatch.builder.unwinding import handler_veneers
from hotpatch.image import Range, SectionFlags
from hotpatch.image.flow import LEAVING
from hotpatch.patch import SECTION_ALIGNMENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hotpatch.arch import Architecture
    from hotpatch.builder.model import Bound, Piece
    from hotpatch.image import Image

CODE_ALIGNMENT = 16
LARGEST_DATA_ALIGNMENT = 64
"""Of what vector instructions access; a datum keeps the alignment that it has in the fixed image, up to this."""
SHORT_BRANCHES = frozenset({FixupKind.REL8, FixupKind.BRANCH14, FixupKind.BRANCH19})
"""Branches that cannot leave the patch image and go through a veneer."""
_MARK = 0x7766554433221100
AREA_FLAGS = {
    Area.CODE: SectionFlags.CODE | SectionFlags.EXECUTE | SectionFlags.READ,
    Area.CONSTANT: SectionFlags.INITIALIZED_DATA | SectionFlags.READ,
    Area.DATA: SectionFlags.INITIALIZED_DATA | SectionFlags.READ | SectionFlags.WRITE,
}


@dataclass(frozen=True, slots=True)
class VeneerForm:
    """A jump to anywhere, with the offset of its 64-bit address."""

    code: bytes
    address_at: int

    @classmethod
    def of(cls, arch: Architecture) -> VeneerForm:
        """The architecture's."""
        code = arch.absolute_jump(_MARK)
        at = code.index(_MARK.to_bytes(8, "little"))
        return cls(code[:at] + bytes(8) + code[at + 8 :], at)


@dataclass(frozen=True, slots=True)
class Layout:
    """The placement, and the sections that hold it by area; ``end``: where further sections may begin."""

    placement: Placement
    sections: tuple[tuple[Area, Range], ...]
    end: Rva


def place(bound: Bound, fixed: Image) -> Layout:
    """Lay out code, then constants, then data (zeroed data last, so that it takes no room in the file)."""
    form = VeneerForm.of(fixed.architecture)
    veneers = _veneers(bound)
    rvas: dict[Piece, Rva] = {}
    veneer_rvas: dict[Veneer, Rva] = {}
    sections: list[tuple[Area, Range]] = []
    start = Rva(SECTION_ALIGNMENT)
    named = sorted({int(link.site.target) for link in bound.links if isinstance(link.destination, CarriedAddress)})
    for area in Area:
        pieces = [piece for piece in bound.pieces if piece.area is area]
        if area is Area.DATA:
            pieces.sort(key=lambda piece: (not any(fixed.code(piece.range)), piece.range))
        at: int = start
        for piece in pieces:
            at = _congruent(at, piece, named)
            rvas[piece] = Rva(at)
            at += piece.range.size
            after = sorted(_after(veneers, piece), key=lambda veneer: not veneer.falls)
            if area is Area.CODE and not any(veneer.falls for veneer in after) and _runs_on(piece, fixed):
                at += len(fixed.architecture.trap)
            for veneer in after:
                veneer_rvas[veneer] = Rva(at)
                at += len(form.code)
        if pieces:
            sections.append((area, Range(start, Rva(at))))
            start = Rva(-(-at // SECTION_ALIGNMENT) * SECTION_ALIGNMENT)
    ordered = tuple(sorted(bound.pieces, key=lambda piece: piece.range))
    return Layout(Placement(ordered, tuple(rvas[piece] for piece in ordered), veneer_rvas), tuple(sections), start)


def veneer_of(bound: Bound, site_field: int, destination: BaseAddress) -> Veneer:
    """The veneer that a short branch at ``site_field`` goes through."""
    piece = next(piece for piece in bound.pieces if site_field in piece.range)
    return Veneer(destination, piece.range.start, falls=False)


def _veneers(bound: Bound) -> tuple[Veneer, ...]:
    found: dict[Veneer, None] = {}
    for end, destination in bound.falls.items():
        block = next(piece for piece in bound.pieces if piece.area is Area.CODE and piece.range.end == end)
        found[Veneer(destination, block.range.start, falls=True)] = None
    for link in bound.links:
        if link.site.kind in SHORT_BRANCHES and link.site.use is not Use.DATA and isinstance(link.destination, BaseAddress):
            found[veneer_of(bound, link.site.field, link.destination)] = None
    found.update(dict.fromkeys(handler_veneers(bound).values()))
    return tuple(found)


def _after(veneers: Iterable[Veneer], piece: Piece) -> list[Veneer]:
    return [veneer for veneer in veneers if piece.area is Area.CODE and veneer.after == piece.range.start]


def _runs_on(piece: Piece, fixed: Image) -> bool:
    """Whether code ends in an instruction that goes on: a call that never returns, behind which no other code may stand, but a trap."""
    *_, last = fixed.architecture.steps(fixed.code(piece.range))
    return last.flow not in LEAVING


def _congruent(at: int, piece: Piece, named: Sequence[int]) -> int:
    """The first place from ``at`` on where the piece, and what code names in it, is aligned as in the fixed image."""
    start, end = piece.range.start, piece.range.end
    inside = named[bisect_left(named, start) : bisect_left(named, end)]
    modulus = CODE_ALIGNMENT if piece.area is Area.CODE else max(min(one & -one, LARGEST_DATA_ALIGNMENT) for one in (start, *inside))
    return at + (start - at) % modulus
