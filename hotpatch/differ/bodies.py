"""A function's body, made of what its code was understood as."""

from __future__ import annotations

from array import array
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING

from hotpatch.arch import FixupKind, Use
from hotpatch.differ.parts import POINTER_SIZE, Body

if TYPE_CHECKING:
    from hotpatch.arch import Columns, Encoding
    from hotpatch.differ.view import View
    from hotpatch.image import Function, Range


def body_of(view: View, function: Function) -> Body:
    """Of a function of the image that ``view`` shows."""
    if len(function.ranges) == 1:
        code, masked, forms, targets, wholes, tables = _piece(view, function.ranges[0])
        return Body(function, (code,), (masked,), (forms,), targets, wholes, tables)
    codes, rest, kinds, *leads = zip(*[_piece(view, part) for part in function.ranges], strict=True)
    return Body(function, codes, rest, kinds, *[tuple(chain.from_iterable(pieces)) for pieces in leads])


_POINTER: Encoding = 0, 0, FixupKind.ADDR64, Use.DATA, 0
"""Where it stands in the instruction is the same where the bytes are."""
_Piece = tuple[bytes, bytes, "Columns", tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""What a body says of one of its ranges, in the order of its attributes."""


def _piece(view: View, part: Range) -> _Piece:
    code, _, outline, leads = view.readings[part]
    masked = outline.masked
    if outline.used is not None:
        leads = tuple([leads[place] for place in outline.used])
    wholes = leads if outline.wholes is None else tuple([leads[place] for place in outline.wholes])
    tables = tuple(view.tables_in(part))
    for address in tables:
        masked = _zeroed(masked, address - part.start, view.tables[address][1].size)
    made = code, masked, outline.forms, leads, wholes, tables
    return _with_pointers(view, part, made) if view.code_has_pointers and view.image.relocations_in(part) else made


def _zeroed(code: bytes, at: int, size: int) -> bytes:
    return code[:at] + bytes(size) + code[at + size :]


def _with_pointers(view: View, part: Range, piece: _Piece) -> _Piece:
    """With the relocated pointers among its code as links, too."""
    code, masked, forms, targets, wholes, tables = piece
    held = []
    for site, holder in _pointers_in(view, part):
        masked = _zeroed(masked, site - part.start, POINTER_SIZE)
        held.append((holder, _POINTER, view.pointer(site)))
    both = sorted([*zip(*forms, targets, strict=True), *held], key=itemgetter(0))
    forms = array("I", [offset for offset, _, _ in both]), tuple([encoding for _, encoding, _ in both])
    return code, masked, forms, tuple([target for _, _, target in both]), (*wholes, *[target for _, _, target in held]), tables


def _pointers_in(view: View, part: Range) -> list[tuple[int, int]]:
    """Relocated pointers among code, outside of jump tables: site, and offset in ``part`` of the instruction that holds it.

    One that no instruction holds, as in a literal pool, stands for itself.
    """
    tables = [(start, start + table.size) for start, (_, table) in view.tables.items()]
    sites = [site for site in view.image.relocations_in(part) if not any(start <= site < end for start, end in tables)]
    instructions = list(view.image.instructions_in(part)) if sites else []
    found = []
    for site in sites:
        holders = (item.address for item in instructions if item.address <= site and site + POINTER_SIZE <= item.address + item.size)
        found.append((int(site), next(holders, site) - part.start))
    return found
