"""From a comparison to its document."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hotpatch.differ import Listings
from hotpatch.errors import Refusal, Refused, Rule
from hotpatch.image.lookup import FIXED, RVA, function_named, is_address
from hotpatch.report import convert
from hotpatch.report.diff_documents import (
    BlockDocument,
    BlockExitDocument,
    DiffDocument,
    DiffSummary,
    FunctionVerdict,
    ImageSummary,
    SideKind,
    SideLine,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.differ import FunctionMatch, ImageDiff, Listing, ListingBlock, ListingExit
    from hotpatch.image import Image


def diff(value: ImageDiff, listing: Listing | None = None) -> DiffDocument:
    """The document of ``hotpatch diff``, with both versions of one function where there is a ``listing``."""
    return DiffDocument(
        machine=value.base.machine.value,
        base=_summary(value.base),
        fixed=_summary(value.fixed),
        functions=[_verdict(row) for row in value.functions],
        summary=DiffSummary(**value.summary),
        findings=convert.refusals(value.findings),
        listing=None if listing is None else [line for block in listing.blocks for line in _lines(block)],
        blocks=None if listing is None else [_block(block) for block in listing.blocks],
        blocks_by_shape=0 if listing is None else listing.by_shape,
    )


def _summary(image: Image) -> ImageSummary:
    return ImageSummary(
        path=image.path,
        sha256=image.sha256,
        time_date_stamp=image.time_date_stamp,
        checksum=image.checksum,
        function_count=len(image.functions),
    )


def _verdict(row: FunctionMatch) -> FunctionVerdict:
    return FunctionVerdict(
        name=row.name,
        base_rva=row.base.entry if row.base else None,
        fixed_rva=row.fixed.entry if row.fixed else None,
        base_size=row.base.size if row.base else None,
        fixed_size=row.fixed.size if row.fixed else None,
        verdict=row.verdict.value,
        matched_by=row.matched_by,
        similarity=round(row.similarity, 4),
        notes=list(row.notes),
    )


def _lines(block: ListingBlock) -> list[SideLine]:
    return [
        SideLine(
            kind=cast("SideKind", line.kind),
            block=block.label,
            base_rva=line.base_rva,
            base=line.base,
            fixed_rva=line.fixed_rva,
            fixed=line.fixed,
        )
        for line in block.lines
    ]


def _block(block: ListingBlock) -> BlockDocument:
    return BlockDocument(
        label=block.label,
        kind=cast("SideKind", block.kind),
        moved=block.moved,
        base_rva=block.base_rva,
        fixed_rva=block.fixed_rva,
        base_exits=_exits(block.base_exits),
        fixed_exits=_exits(block.fixed_exits),
    )


def _exits(values: Iterable[ListingExit]) -> list[BlockExitDocument]:
    return [BlockExitDocument(way=item.way.value, to=item.label) for item in values]


def listing_of(found: ImageDiff, function: str) -> Listing:
    """Both versions of ``function``: a name, ``rva:0x…`` in the base (for an added one, in the fixed image), or ``fixed:0x…`` in that.

    Raises:
        Refused: Neither image has it (rule no-such-function).
    """
    return Listings(found).of(row_of(found, function))


def row_of(found: ImageDiff, function: str) -> FunctionMatch:
    """What the comparison says of ``function``, named as for :func:`listing_of`.

    Raises:
        Refused: Neither image has it (rule no-such-function).
    """
    if is_address(function, FIXED):
        entry = function_named(found.fixed, function, FIXED).entry
        row = next((row for row in found.functions if row.fixed and row.fixed.entry == entry), None)
        return _known(row, function)
    try:
        entry = found.base.function_named(function).entry
    except Refused as error:
        try:
            added = found.fixed.function_named(function).entry
        except Refused:
            raise error from None
        row = next((row for row in found.functions if row.fixed and row.fixed.entry == added), None)
    else:
        row = next((row for row in found.functions if row.base and row.base.entry == entry), None)
    return _known(row, function)


def titles_of(row: FunctionMatch, function: str) -> tuple[str, str]:
    """What ``function``, as it was typed, is called in the base and in the fixed image: each by its own address where it has no name."""
    if not is_address(function, FIXED) and not is_address(function, RVA):
        return function, function
    sides = (row.base, RVA), (row.fixed, FIXED)
    titles = [None if side is None else side.name or f"{before}0x{side.entry:x}" for side, before in sides]
    return titles[0] or titles[1] or function, titles[1] or titles[0] or function


def _known(row: FunctionMatch | None, function: str) -> FunctionMatch:
    if row is None:
        raise Refused(
            [Refusal(Rule.NO_SUCH_FUNCTION, function, None, "the comparison has no such function; list them with hotpatch diff --all")]
        )
    return row
