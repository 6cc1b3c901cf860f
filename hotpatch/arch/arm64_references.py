"""Arm64: every operand that names an address."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

from hotpatch.arch import arm64_fields as fields
from hotpatch.arch import arm64_words as a64
from hotpatch.arch.arm64_code import Code, may_jump
from hotpatch.arch.arm64_flow import Analysis
from hotpatch.arch.arm64_tables import data_words, tables_inside
from hotpatch.arch.model import FixupKind, Use

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hotpatch.arch.model import JumpTable, Row

_PAGE = FixupKind.PAGEBASE_REL21
_DATA, _PARTIAL, _UNUSED = Use.DATA, Use.PARTIAL, Use.UNUSED
_BEGINNING = (FixupKind.PAGEBASE_REL21, FixupKind.IMAGEREL_HIGH12A)
_IMAGE_RELATIVE = (FixupKind.IMAGEREL_LOW12A, FixupKind.IMAGEREL_LOW12L, FixupKind.IMAGEREL_HIGH12A)
_OFFSET = itemgetter(0)
LITERAL_BYTES = {0x18: 4, 0x58: 8, 0x98: 4, 0xD8: 0, 0x1C: 4, 0x5C: 8, 0x9C: 16}
"""Bytes that a load (literal) reads, by its top byte; PRFM reads none."""


def rows(raw: bytes, address: int, image_base: int, holes: Iterable[tuple[int, int]] = ()) -> list[Row]:
    """The references of ``raw``, by offset; those of one ADRP with the target of its first user first.

    Words that hold jump tables (``holes``, and what :mod:`hotpatch.arch.arm64_tables` finds inside) or literals are none. An ADRP gives
    one PAGEBASE_REL21 for each target that its page is completed to, a partial one with the page where that escapes, and an unused one
    where nothing is seen to use it (:func:`hotpatch.arch.arm64_constants.confirm_unused` makes sure). Pages are followed through places on
    the stack that SP gives.
    A register that holds ``&__ImageBase`` (ADRP and ADD) is followed through additions: ``add x, x, #high, lsl #12`` gives
    IMAGEREL_HIGH12A, the ADD, load or store that completes it IMAGEREL_LOW12A or IMAGEREL_LOW12L.

    Not found: pages that went through other memory and came back (their ADRP is partial), image-relative values that are built by
    MOVZ and MOVK, offsets in thread-local storage (``add x, x, #high, lsl #12; ldr [x, #low]`` on the thread's block: no addresses, equal
    in every build that keeps the layout of the block), and image-relative distances below 4096 (fields of the headers).
    """
    code = Code(raw, address)
    tables, data, direct = _read(code, raw, image_base, holes)
    found: list[Row] = [((offset := index * a64.WORD), a64.WORD, offset, form.kind, form.use, target, 0) for index, form, target in direct]
    if code.has_pages():
        found += _page_references(code, image_base, tables, data)
        found.sort(key=_OFFSET)
    return found


def branches(raw: bytes, address: int, start: int) -> Iterator[tuple[int, int, Use]]:
    """Offset, target and use of direct jumps, branches and calls from byte ``start`` of ``raw`` on, and of all targets of tables in it."""
    code = Code(raw, address)
    tables, _, direct = _read(code, raw, 0, ())
    for index, form, target in direct:
        if form.use is not Use.DATA and index * a64.WORD >= start:
            yield index * a64.WORD, target, form.use
    for table in tables:
        for target in table.targets:
            yield table.jump, target, Use.JUMP


def _read(
    code: Code, raw: bytes, image_base: int, holes: Iterable[tuple[int, int]]
) -> tuple[tuple[JumpTable, ...], frozenset[int], list[tuple[int, a64.Form, int]]]:
    """The tables in ``code``, whose bytes are ``raw``, the words that hold no instructions, and the PC-relative instructions but ADRP."""
    tables = tables_inside(code, raw, image_base) if may_jump(raw) else ()
    data = data_words(code, tables)
    if holes:
        words = (at for start, end in holes for at in range(start - start % a64.WORD, end, a64.WORD))
        data |= {index for at in words if (index := code.index(at)) is not None}
    direct = [row for row in code.direct() if row[0] not in data] if data else code.direct()
    literals = _literal_words(code, direct) if code.has_literals() else frozenset()
    if literals:
        data |= literals
        direct = [row for row in direct if row[0] not in data]
    return tables, data, direct


def _literal_words(code: Code, direct: Iterable[tuple[int, a64.Form, int]]) -> frozenset[int]:
    words: set[int] = set()
    for index, form, target in direct:
        if form.kind is FixupKind.LITERAL19:
            first = target - code.address
            end = first + LITERAL_BYTES[code.words[index] >> 24]
            if 0 <= first < end <= len(code.words) * a64.WORD:
                words.update(range(first // a64.WORD, end // a64.WORD))
    return frozenset(words)


def _page_references(code: Code, image_base: int, tables: tuple[JumpTable, ...], data: frozenset[int]) -> list[Row]:
    edges = {
        table.jump // a64.WORD: tuple(sorted({index for target in table.targets if (index := code.index(target)) is not None}))
        for table in tables
    }
    found: list[Row] = []
    targets: dict[int, dict[tuple[int, Use], None]] = {index: {} for index in code.pages() if index not in data}
    image_pages: dict[int, dict[tuple[int, Use], None]] = {}
    for user, sites, kind, target, _, _ in Analysis(code, image_base=image_base, edges=edges, data=data).completions():
        escapes = kind in _BEGINNING
        pages = image_pages if kind in _IMAGE_RELATIVE else targets
        for site in sorted(sites) if len(sites) > 1 else sites:
            pages.setdefault(site, {})[target, _PARTIAL if escapes else _DATA] = None
        if not escapes:
            found.append(_row(user, kind, target))
    for site, named in targets.items():
        if not named:
            page = fields.page(code.words[site], code.site(site))
            found.append(_row(site, _PAGE, page, _UNUSED))
        for target, use in named:
            found.append(_row(site, _PAGE, target, use))
    for site, named in image_pages.items():
        found += [_row(site, FixupKind.IMAGEREL_HIGH12A, target, use) for target, use in named]
    return found


def _row(index: int, kind: FixupKind, target: int, use: Use = Use.DATA) -> Row:
    offset = index * a64.WORD
    return offset, a64.WORD, offset, kind, use, target, 0
