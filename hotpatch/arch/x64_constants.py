"""x64: which constants code loads, and what becomes of them. Source: Intel SDM volume 2; MS Learn, "x64 calling convention"."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hotpatch.arch.constants import Effect, Follower, slot_name
from hotpatch.arch.model import Flow
from hotpatch.arch.x64_operands import PARENTS, VOLATILE, memory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.arch.model import CallingConvention, Instruction

_WIDE = frozenset(name for name in PARENTS if name[0] == "e" or name.endswith("d") or (name[0] == "r" and not name.endswith(("w", "b"))))
"""Names of 64-bit registers and of their low 32 bits."""
_PLAIN = frozenset(
    [
        "add",
        "sub",
        "cmp",
        "test",
        "and",
        "or",
        "xor",
        "inc",
        "dec",
        "not",
        "neg",
        "shl",
        "shr",
        "sar",
        "rol",
        "ror",
        "bt",
        "bts",
        "btr",
        "adc",
        "sbb",
        "bswap",
    ]
)
"""Operations without implicit register operands whose first operand is read too."""
_IMPLICIT = frozenset(["cbw", "cwde", "cdqe", "cwd", "cdq", "cqo", "mul", "div", "idiv"])
"""Operations on rax and rdx beside their operands."""
_SETTING = frozenset(["mov", "movzx", "movsx", "movsxd", "lea"])
"""Operations that only write their first operand where it is a register."""
_WORDS = re.compile(r"[a-z0-9]+")
_IMMEDIATE = re.compile(r"-?(0x[0-9a-f]+|\d+)$")
_LEA_OF_STACK = re.compile(r"\[rsp(?: \+ (0x[0-9a-f]+|\d+))?\]$")


def follower(instructions: Iterable[Instruction], convention: CallingConvention) -> Follower:
    """What follows constants through ``instructions``."""
    known = list(instructions)
    taken = [
        int(found[1] or "0", 0)
        for instruction in known
        if instruction.mnemonic == "lea" and (found := _LEA_OF_STACK.search(instruction.operands))
    ]
    return Follower(known, [_effect(instruction) for instruction in known], convention, VOLATILE, taken)


def _effect(instruction: Instruction) -> Effect:
    operands = tuple(instruction.operands.split(", ")) if instruction.operands else ()
    if instruction.flow is not Flow.NEXT:
        return Effect(reads=_registers(operands) if instruction.target is None else frozenset())
    if instruction.mnemonic == "mov" and len(operands) == 2:
        return _move(*operands)
    if instruction.mnemonic in ("push", "pop"):
        reads = _registers(operands) if instruction.mnemonic == "push" else frozenset()
        writes = _registers(operands) if instruction.mnemonic == "pop" else frozenset()
        return Effect(reads, writes, moves_stack=True)
    if instruction.mnemonic == "nop":
        return Effect()
    if instruction.mnemonic in _IMPLICIT:
        return Effect(_registers(operands) | {"rax", "rdx"}, frozenset(["rax", "rdx"]))
    if instruction.mnemonic == "xor" and len(operands) == 2 and operands[0] == operands[1]:
        return Effect(writes=_registers(operands))
    return _other(instruction.mnemonic, operands)


def _other(mnemonic: str, operands: tuple[str, ...]) -> Effect:
    vector = bool(operands) and any("mm" in operand for operand in operands)
    known = mnemonic in _PLAIN or mnemonic in _SETTING or mnemonic.startswith(("set", "cmov")) or (mnemonic == "imul" and len(operands) > 1)
    if not known and not vector:
        return Effect(opaque=True)
    reads, writes = _registers(operands), frozenset[str]()
    if operands and operands[0] in PARENTS:
        writes = _registers(operands[:1])
        if mnemonic in _SETTING and operands[0] in _WIDE:
            reads = _registers(operands[1:])
    slots = frozenset(slot for operand in operands if (slot := _slot(operand)) is not None) if mnemonic != "lea" else frozenset[str]()
    return Effect(reads | slots, writes, moves_stack="rsp" in writes)


def _move(to: str, source: str) -> Effect:
    """MOV: of a constant, a copy, or through memory."""
    target = PARENTS[to] if to in _WIDE else _slot(to) if to.startswith(("dword", "qword")) else None
    if target is None:
        slot = _slot(to)
        reads = _registers((source, to)) | (frozenset([source_slot]) if (source_slot := _slot(source)) else frozenset())
        return Effect(reads, frozenset([slot]) if slot else frozenset())
    if _IMMEDIATE.match(source):
        return Effect(frozenset(), frozenset([target]), value=int(source, 0), moves_stack=target == "rsp")
    origin = PARENTS.get(source) if source in _WIDE else _slot(source) if source.startswith(("dword", "qword")) else None
    if origin is not None:
        return Effect(copies=((target, origin),), moves_stack=target == "rsp")
    slot = _slot(source)
    return Effect(_registers((source,)) | ({slot} if slot else set()), frozenset([target]), moves_stack=target == "rsp")


def _registers(operands: Iterable[str]) -> frozenset[str]:
    return frozenset(PARENTS[word] for operand in operands for word in _WORDS.findall(operand) if word in PARENTS)


def _slot(operand: str) -> str | None:
    """The stack slot that a memory operand names."""
    found = memory(operand) if operand[-1] == "]" else None
    if found is None or found.base != "rsp" or found.scaled is not None:
        return None
    return slot_name(found.displacement)
