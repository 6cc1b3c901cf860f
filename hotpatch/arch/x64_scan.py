"""x64: direct branches and RIP-relative operands, found by a regular expression that steps over everything between them.

The expression is made of :mod:`hotpatch.arch.x64_forms`. Code with any other encoding is left to the decoder.
"""

from __future__ import annotations

import re
import struct
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.arch.model import FixupKind, Use
from hotpatch.arch.x64_forms import FORMS, REGISTERS, Form, Lead, Operand, numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from hotpatch.arch.model import Row

_SIB = 4
"""As the base register: a SIB byte follows."""
_NO_BASE = 5
"""With mode 0: relative to the next instruction. In a SIB byte: a displacement alone."""
_NEAR = struct.Struct("<i").unpack_from
_SHORT = struct.Struct("<b").unpack_from
_BRANCHES = (
    (rb"\xe8", 4, Use.CALL),
    (rb"\xe9", 4, Use.JUMP),
    (rb"\x0f[\x80-\x8f]", 4, Use.BRANCH),
    (rb"\xeb", 1, Use.JUMP),
    (rb"[\x70-\x7f\xe0-\xe3]", 1, Use.BRANCH),
)
"""Opcodes of the direct branches, bytes of their distances, and their uses."""
_CALL, _JUMP = Form("ff", fields=(2,)), Form("ff", fields=(4,))
"""Through a register or memory."""


class Scan(NamedTuple):
    """What refers to addresses in code that the scan understood.

    Attributes:
        rows: Direct branches and RIP-relative operands, by offset.
        dispatches: Whether there is an indirect jump through anything but a RIP-relative pointer.
    """

    rows: tuple[Row, ...]
    dispatches: bool


@lru_cache(maxsize=16)
def scan(code: bytes, address: int) -> Scan | None:
    """The direct branches and RIP-relative operands of ``code``; ``None`` where it holds something that only the decoder knows."""
    steps, stops = _expression()
    found: list[Row] = []
    add = found.append
    dispatches = False
    at = 0
    for match in steps(code):  # each begins where the one before ended
        group = match.lastindex
        if group is None:
            at = match.end()
            break
        start, field = match.span(group)
        kind, use, width, rest = stops[group]
        at = field + width + rest
        if width == 4:
            add((start, at - start, field, kind, use, address + at + _NEAR(code, field)[0], -rest))
        elif width:
            add((start, at - start, field, kind, use, address + at + _SHORT(code, field)[0], 0))
        else:
            dispatches = True
    return Scan(tuple(found), dispatches) if at == len(code) else None


_Meaning = tuple[FixupKind, Use, int, int]
"""Of a group in the expression: kind and use of the reference, bytes of its field (0: an indirect jump) and of what follows that."""


@cache
def _expression() -> tuple[Callable[[bytes], Iterator[re.Match[bytes]]], dict[int, _Meaning]]:
    """What finds, one behind the other, everything up to a stop, with the stop itself in a group, and what the groups mean.

    The field stands right behind its group. At the end of what is understood no group matches.
    """
    stops: list[tuple[bytes, _Meaning]] = []
    for opcode, width, use in _BRANCHES:
        kind = FixupKind.REL32 if width == 4 else FixupKind.REL8
        stops.append((b"(%b)%b" % (opcode, b"." * width), (kind, use, width, 0)))
    memory = [form for form in (*FORMS, _CALL, _JUMP) if form.operand in (Operand.EITHER, Operand.MEMORY)]
    for rest in sorted({form.immediate for form in memory}):
        heads = _factored([form for form in memory if form.immediate == rest], _relative)
        stops.append((b"(%b)....%b" % (heads, b"." * rest), (FixupKind.REL32, Use.DATA, 4, rest)))
    stops.append((b"(%b)" % _factored([_JUMP], _tail), (FixupKind.REL32, Use.JUMP, 0, 0)))
    one_of_them = _any_of([*(stop for stop, _ in stops), b""])
    pattern = re.compile(_factored((*FORMS, _CALL), _tail) + b"*+" + one_of_them, re.DOTALL)
    # it matches everywhere: what it begins with may be nothing
    return pattern.finditer, {group: meaning for group, (_, meaning) in enumerate(stops, 1)}


class _Tree(dict[bytes, "_Tree"]):
    """What may stand at a place, with what may follow each."""

    def pattern(self) -> bytes:
        """Matches any way through it."""
        return _any_of([step + (rest.pattern() if rest else b"") for step, rest in self.items()])


def _factored(forms: Iterable[Form], tail: Callable[[Form], bytes]) -> bytes:
    """Matches instructions of ``forms``, each byte that several begin with looked at once; ``tail`` matches what follows the opcode."""
    tree = _Tree()
    for form in forms:
        for lead in _leads(form.lead):
            node = tree
            for step in (*lead, *[_literal(value) for value in form.escape], _byte(numbers(form.opcodes)) + tail(form)):
                node = node.setdefault(step, _Tree())
    return tree.pattern()


def _leads(lead: Lead) -> Iterator[list[bytes]]:
    """Matches prefixes byte by byte, one that may be missing with the others: nothing that follows a prefix looks like it."""
    for sequence in lead:
        if sequence and sequence[:-1] in lead:
            continue
        steps = [_byte(values) for values in sequence]
        while (longer := next((other for other in lead if other and other[:-1] == sequence), None)) is not None:
            steps.append(_byte(longer[-1]) + b"?+")
            sequence = longer
        yield steps


def _tail(form: Form) -> bytes:
    """Matches what follows the opcode, but for RIP-relative operands."""
    return _operand(form.operand, tuple(form.fields)) + b"." * form.immediate


@lru_cache(maxsize=64)
def _operand(operand: Operand, fields: tuple[int, ...]) -> bytes:
    """Matches the ModRM byte and what belongs to it."""

    def modrm(mode: int, bases: Iterable[int]) -> list[int]:
        return [mode << 6 | field << 3 | base for field in fields for base in bases]

    if operand is Operand.NOTHING:
        return b""
    plain = [base for base in REGISTERS if base != _SIB]
    alone = [] if operand is Operand.MEMORY else modrm(3, REGISTERS)
    if operand is Operand.REGISTER:
        return _byte(alone)
    displaced = _byte([value for value in range(256) if value & 7 == _NO_BASE])
    forms = [
        _byte(alone + modrm(0, [base for base in plain if base != _NO_BASE])),
        _byte(modrm(1, plain)) + b".",
        _byte(modrm(1, [_SIB])) + b"..",
        _byte(modrm(2, plain)) + b"....",
        _byte(modrm(0, [_SIB])) + b"(?:%b....|.)" % displaced,
        _byte(modrm(2, [_SIB])) + b".....",
    ]
    return _any_of(forms)


def _relative(form: Form) -> bytes:
    """Matches the ModRM byte of a RIP-relative operand."""
    return _byte([field << 3 | _NO_BASE for field in form.fields])


def _byte(values: Iterable[int]) -> bytes:
    """Matches one byte of ``values``."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return b"[%b]" % b"".join(_literal(first) + (b"-" + _literal(last) if last > first else b"") for first, last in runs)


def _literal(value: int) -> bytes:
    """One byte in a set; parsing numbers takes most of the time of compiling."""
    return re.escape(bytes((value,)))


def _any_of(patterns: Collection[bytes]) -> bytes:
    return b"(?:%b)" % b"|".join(patterns)
