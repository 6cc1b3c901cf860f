"""Where control goes after each instruction of a function."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hotpatch.arch import Flow
    from hotpatch.differ.view import View


def flows(view: View, entry: int) -> tuple[Flow, ...]:
    """Of each of :meth:`View.lines`, in their order."""
    body = view.body(entry)
    return tuple(
        instruction.flow
        for code, stretch in zip(body.code, body.function.ranges, strict=True)
        for instruction in view.architecture.disassemble(code, stretch.start)
    )
