"""Arm64: which constants code loads, and what becomes of them. Source: Arm Architecture Reference Manual; MS Learn, "ARM64 ABI"."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hotpatch.arch.constants import Effect, Follower, slot_name
from hotpatch.arch.model import Flow, Use

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.arch.model import CallingConvention, Instruction, Row

VOLATILE = ("x0", "x1", "x16", "x17", "x18", "x30")
"""Registers that no code reads behind a call but for a result."""
_KEPT = tuple(f"x{number}" for number in range(2, 16))
"""Registers that a call may change, but that MSVC reads again behind calls of functions that it knows to leave them alone."""

_WORDS = re.compile(r"\b[wx](\d+)\b")
_NUMBER = r"#(-?(?:0x[0-9a-f]+|\d+))"
_LOADED = re.compile(rf"([wx]\d+), {_NUMBER}$")
_PART = re.compile(rf"([wx]\d+), {_NUMBER}(?:, lsl #(\d+))?$")
_COPIED = re.compile(r"([wx]\d+), ([wx]\d+)$")
_STACK = re.compile(rf"\[sp(?:, {_NUMBER})?\]$")
_STACK_ADDRESS = re.compile(rf"x\d+, sp(?:, {_NUMBER})?$")
_ONLY_READING = ("cmp", "cmn", "tst", "ccmp", "ccmn", "cb", "tb", "prfm", "msr", "ret", "br", "blr", "st")
_KEEPING = ("bfi", "bfxil", "bfm", "bfc")
_OPAQUE = ("svc", "hlt", "brk", "hint", "mrs", "sys", "casp", "ldadd", "cas", "swp", "stx", "stlx")


def follower(instructions: Iterable[Instruction], convention: CallingConvention) -> Follower:
    """What follows constants through ``instructions``."""
    known = list(instructions)
    taken = [
        int(found[1] or "0", 0)
        for instruction in known
        if instruction.mnemonic in ("add", "mov") and (found := _STACK_ADDRESS.match(instruction.operands))
    ]
    return Follower(known, [_effect(instruction) for instruction in known], convention, VOLATILE, taken, _KEPT)


def confirm_unused(found: Iterable[Row], instructions: Iterable[Instruction], convention: CallingConvention) -> tuple[Row, ...]:
    """``found`` with those parts of addresses that may be read after all, for all that is known of registers."""
    known = list(instructions)
    following = follower(known, convention)
    registers = {instruction.address - known[0].address: instruction.operands.partition(",")[0] for instruction in known}
    return tuple(
        (offset, size, field, kind, Use.PARTIAL, target, addend)
        if use is Use.UNUSED and not following.never_reads(offset + size, registers.get(offset, "x0"))
        else (offset, size, field, kind, use, target, addend)
        for offset, size, field, kind, use, target, addend in found
    )


def _effect(instruction: Instruction) -> Effect:
    if instruction.flow is not Flow.NEXT:
        return Effect(reads=registers(instruction.operands))
    return effect(instruction.mnemonic, instruction.operands)


def effect(mnemonic: str, operands: str) -> Effect:
    """What an instruction that goes on with the next does with registers and stack slots."""
    if mnemonic == "nop":
        return Effect()
    if mnemonic.startswith(_OPAQUE):
        return Effect(opaque=True)
    if mnemonic in ("mov", "movz", "movn", "movk", "ldr"):
        found = _load_or_copy(mnemonic, operands)
        if found is not None:
            return found
    if mnemonic in ("str", "stp", "ldr", "ldp"):
        found = _stack_access(mnemonic, operands)
        if found is not None:
            return found
    moves = operands.startswith("sp,") or ("[sp" in operands and ("!" in operands or "], #" in operands))
    if mnemonic.startswith(_ONLY_READING):
        return Effect(registers(operands), moves_stack=moves, opaque=moves)
    first, _, rest = operands.partition(", ")
    written = registers(first)
    if mnemonic.startswith(("ldp", "ldnp", "ldxp", "ldaxp")):
        second, _, rest = rest.partition(", ")
        written |= registers(second)
    reads = registers(rest)
    if "!" in operands or "], #" in operands:
        written |= reads
    return Effect(reads | (written if mnemonic in _KEEPING else frozenset()), written, moves_stack=moves)


def _load_or_copy(mnemonic: str, operands: str) -> Effect | None:
    """A constant, a part of one, one from a literal pool, or a copy of a register."""
    if mnemonic == "movk" and (part := _PART.match(operands)):
        place = _register(part[1])
        return Effect(frozenset([place]), frozenset([place]), value=int(part[2], 0) << int(part[3] or "0"), keeps=True)
    if mnemonic in ("mov", "movz") and (part := _PART.match(operands)):
        return Effect(writes=frozenset([_register(part[1])]), value=int(part[2], 0) << int(part[3] or "0"))
    if mnemonic == "ldr" and (loaded := _LOADED.match(operands)):
        return Effect(writes=frozenset([_register(loaded[1])]), value=int(loaded[2], 0), is_literal=True)
    if mnemonic == "mov" and (copied := _COPIED.match(operands)):
        return Effect(copies=((_register(copied[1]), _register(copied[2])),))
    return None


def _stack_access(mnemonic: str, operands: str) -> Effect | None:
    """Stores to and loads from fixed places on the stack."""
    found = _STACK.search(operands)
    if found is None:
        return None
    names = operands[: found.start()].rstrip(", ").split(", ")
    at, size = int(found[1] or "0", 0), 4 if names[0].startswith("w") else 8
    if not all(re.fullmatch(r"[wx](\d+|zr)", name) for name in names):
        return None
    copies = []
    for number, name in enumerate(names):
        pair = slot_name(at + number * size), _register(name)
        copies.append(pair if mnemonic.startswith("st") else (pair[1], pair[0]))
    return Effect(copies=tuple(copies))


def whole_register(name: str) -> str | None:
    """The 64-bit general-purpose register of that name, or that it is the low half of."""
    return _register(name) if re.fullmatch(r"[wx]\d+", name) else None


def _register(name: str) -> str:
    return f"x{name[1:]}"


def registers(text: str) -> frozenset[str]:
    """The integer registers that operands name, each by all of it: ``x0`` for ``w0``."""
    return frozenset(f"x{number}" for number in _WORDS.findall(text))
