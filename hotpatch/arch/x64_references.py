"""x64: instructions, and what they refer to."""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING

from hotpatch.arch import x64_encoding as encoding
from hotpatch.arch import x64_image_base
from hotpatch.arch.common import text
from hotpatch.arch.model import FixupKind, Flow, Instruction, Step, Use
from hotpatch.arch.x64_scan import scan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.arch.common import Rows
    from hotpatch.arch.model import Row

_USES = {
    encoding.CALL: Use.CALL,
    encoding.JUMP: Use.JUMP,
    encoding.TRANSACTION: Use.BRANCH,
    **dict.fromkeys(encoding.CONDITIONAL_JUMPS | encoding.COUNTED_JUMPS, Use.BRANCH),
}
_NEXT, _REL32, _REL8, _DATA = Flow.NEXT, FixupKind.REL32, FixupKind.REL8, Use.DATA
_TARGET = itemgetter(5)
_INDIRECT = {Flow.CALL: Flow.CALL_INDIRECT, Flow.JUMP: Flow.JUMP_INDIRECT}


def disassemble(code: bytes, address: int) -> Iterator[Instruction]:
    """Decode until the first undecodable byte."""
    for number, at, size, encoded, mnemonic, operands in encoding.decoder().rows(code, address):
        yield Instruction(at, size, text(mnemonic), text(operands), *_flow(number, at, size, encoded))


@lru_cache(maxsize=1 << 9)
def steps(code: bytes) -> tuple[Step, ...]:
    """See :meth:`hotpatch.arch.base.Architecture.steps`."""
    return tuple(
        [Step(at, size, *_flow(number, at, size, encoded)) for number, at, size, encoded in encoding.decoder().rows(code, 0).brief()]
    )


def _flow(number: int, at: int, size: int, encoded: bytes) -> tuple[Flow, int | None]:
    """Where control goes after an instruction, and the target where that is encoded in it."""
    flow = encoding.FLOW.get(number, _NEXT)
    if number not in _USES:
        return flow, None
    field = encoding.BRANCH_FIELDS.get(encoded[0]) or encoding.branch_field(encoded, size)
    if field is None:
        return _INDIRECT.get(flow, flow), None
    offset, width = field
    return flow, at + size + int.from_bytes(encoded[offset : offset + width], "little", signed=True)


def rows(code: bytes, address: int, image_base: int = 0) -> tuple[Row, ...]:
    """Every operand that names an address, by offset.

    Direct branches and RIP-relative operands come from one sweep over the bytes; functions that load the image base into a register are
    interpreted once more for the displacements that are RVAs (:mod:`hotpatch.arch.x64_image_base`).
    """
    known = scan(code, address)
    found = known.rows if known is not None else decoded(encoding.decoder().rows(code, address), code, address)
    if image_base not in map(_TARGET, found) or not any(row[5] == image_base and row[4] is _DATA for row in found):
        return found
    decoded_rows = encoding.decoder().rows(code, address)
    return tuple(sorted((*found, *x64_image_base.image_relative(decoded_rows, address, image_base)), key=itemgetter(2)))


def decoded(rows: Rows, code: bytes, address: int) -> tuple[Row, ...]:
    """The direct branches and RIP-relative operands of ``rows``, by offset."""
    found: list[Row] = []
    uses = {position: _USES[number] for position, number in enumerate(rows.numbers()) if number in _USES}
    relative = frozenset(rows.holding(encoding.RIP_RELATIVE))
    for position in sorted(relative.union(uses)):
        at, size = rows.place(position)
        offset = at - address
        encoded = code[offset : offset + size]
        if position in relative:
            start = encoding.modrm_offset(encoded) + 1
            target = at + size + int.from_bytes(encoded[start : start + 4], "little", signed=True)
            found.append((offset, size, offset + start, _REL32, _DATA, target, start + 4 - size))
        elif (field := encoding.BRANCH_FIELDS.get(encoded[0]) or encoding.branch_field(encoded, size)) is not None:
            start, width = field
            target = at + size + int.from_bytes(encoded[start : start + width], "little", signed=True)
            kind = _REL32 if width == 4 else _REL8
            found.append((offset, size, offset + start, kind, uses[position], target, 0))
    return tuple(found)
