"""The side-by-side listing of one function of a comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hotpatch.differ import listing
from hotpatch.errors import Refusal, Refused, Rule
from hotpatch.report.documents import SideKind, SideLine

if TYPE_CHECKING:
    from hotpatch.differ import FunctionMatch, ImageDiff


def listing_of(found: ImageDiff, function: str) -> list[SideLine]:
    """Both versions of ``function`` (a name, or ``rva:0x…`` in the base; for an added one, in the fixed image).

    Raises:
        Refused: Neither image has it (rule no-such-function).
    """
    return [
        SideLine(kind=cast("SideKind", line.kind), base_rva=line.base_rva, base=line.base, fixed_rva=line.fixed_rva, fixed=line.fixed)
        for line in listing(found, _row(found, function))
    ]


def _row(found: ImageDiff, function: str) -> FunctionMatch:
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
    if row is None:
        raise Refused(
            [Refusal(Rule.NO_SUCH_FUNCTION, function, None, "the comparison has no such function; list them with hotpatch diff --all")]
        )
    return row
