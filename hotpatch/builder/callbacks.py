"""Callbacks of a patch: functions of the fixed image that nothing of it calls, known by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.differ import Verdict
from hotpatch.patch import Moment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.differ import ImageDiff
    from hotpatch.image import Function


def callback_functions(diff: ImageDiff) -> Mapping[Moment, Function]:
    """The callbacks that the fixed image brings along, in the order of their moments. Only symbols name them (PDB, COFF, exports)."""
    added = [row.fixed for row in diff.of(Verdict.ADDED) if row.fixed is not None]
    return {moment: function for moment in Moment for function in added if moment.symbol in function.names}
