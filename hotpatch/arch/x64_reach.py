"""x64: what an instruction does with registers that may hold addresses of data. Source: Intel SDM volume 2."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from hotpatch.arch.constants import slot_name
from hotpatch.arch.model import Flow
from hotpatch.arch.reach import Access, Motion
from hotpatch.arch.x64_operands import PARENTS, memory

if TYPE_CHECKING:
    from hotpatch.arch.model import Instruction
    from hotpatch.arch.x64_operands import Memory

_SIZES = {"byte": 1, "word": 2, "dword": 4, "qword": 8, "fword": 6, "tbyte": 10, "xword": 10, "xmmword": 16, "ymmword": 32, "zmmword": 64}
_SIZE = re.compile(r"(\w+) ptr \[")
_NUMBER = re.compile(r"-?(0x[0-9a-f]+|\d+)$")
_WIDE = re.compile(r"(?:r[a-z]{2}|e[a-z]{2}|r\d+d?)$")
"""Registers of 64 and of 32 bits."""
_WORDS = re.compile(r"[a-z0-9]+")
_NO_ACCESS = ("lea", "nop", "prefetch")
_NOT_WRITING = ("cmp", "test", "push", "bt", "nop", "mul", "div", "idiv", "vptest", "ptest", "ucomis", "comis", "prefetch")
_IMPLICIT = {
    **dict.fromkeys(("cbw", "cwde", "cdqe", "cwd", "cdq", "cqo", "mul", "div", "idiv", "cpuid", "rdtsc", "xgetbv"), ("rax", "rdx")),
    "cmpxchg": ("rax",),
    "cmpxchg16b": ("rax", "rdx"),
    "cpuid": ("rax", "rbx", "rcx", "rdx"),
}
_STRINGS = ("movs", "stos", "lods", "scas", "cmps")
_TWO = 2
_NOTHING = Motion()


def motion(instruction: Instruction, *, names: bool) -> Motion:
    """What one instruction does; ``names``: one that names a whole address of data."""
    return _motion(instruction.mnemonic, instruction.operands, names=names) if instruction.flow is Flow.NEXT else _NOTHING


def index_of(instruction: Instruction) -> str | None:
    """The register that an operand in memory scales or, where none is scaled, adds to its base."""
    text = next((operand for operand in instruction.operands.split(", ") if operand.endswith("]")), "")
    inside = memory(text) if text else None
    return None if inside is None else inside.scaled


def zeroed(instruction: Instruction) -> str | None:
    """The register that an instruction combines with itself, which makes zero of it."""
    first, _, other = instruction.operands.partition(", ")
    return PARENTS.get(first) if instruction.mnemonic in ("xor", "sub") and first == other and _WIDE.match(first) else None


@lru_cache(maxsize=1 << 12)
def _motion(whole_mnemonic: str, text_of_operands: str, *, names: bool) -> Motion:
    mnemonic = whole_mnemonic.rpartition(" ")[2]
    operands = tuple(text_of_operands.split(", ")) if text_of_operands else ()
    text = next((operand for operand in operands if operand.endswith("]")), "")
    inside = memory(text) if text else None
    writes = _written(mnemonic, operands)
    moves = "rsp" in writes
    reads = _read(mnemonic, operands)
    if names and inside is not None:
        if mnemonic == "lea":
            return Motion(takes=PARENTS.get(operands[0]), reads=reads, stored=reads)
        return Motion(writes=writes, accesses=(Access(None, 0, _width(text)),), moves_stack=moves, reads=reads, stored=reads)
    accesses = _accesses(mnemonic, text, inside)
    sums = _sums(mnemonic, operands, inside)
    compared = frozenset[str]()
    if mnemonic in ("cmp", "sub"):
        compared = frozenset(PARENTS[operand] for operand in operands if operand in PARENTS)
    slot = _slot(inside) if operands and operands[0] == text and mnemonic not in _NOT_WRITING else None
    return Motion(
        sums=sums,
        indexed=_indexed(mnemonic, operands, inside),
        writes=writes | ({slot} if slot else set()),
        accesses=accesses,
        compared=compared,
        subtracted=frozenset(PARENTS[operand] for operand in operands[1:] if mnemonic == "sub" and operand in PARENTS),
        moves_stack=moves,
        reads=reads if not sums else frozenset(),
        stored=_stored(mnemonic, operands) if not sums else frozenset(),
    )


def _stored(mnemonic: str, operands: tuple[str, ...]) -> frozenset[str]:
    """The register that is only stored."""
    if mnemonic != "mov" or not operands[0].endswith("]") or _whole(operands[1]) is None or operands[1] in _WORDS.findall(operands[0]):
        return frozenset()
    return frozenset(operands[1:])


def _read(mnemonic: str, operands: tuple[str, ...]) -> frozenset[str]:
    """The registers that operands name, but for one that is only written."""
    first = operands[:1] if operands and operands[0] in PARENTS and mnemonic.startswith(("mov", "lea", "pop")) else ()
    words = (word for operand in operands[len(first) :] for word in _WORDS.findall(operand))
    return frozenset(PARENTS[word] for word in words if word in PARENTS)


def _written(mnemonic: str, operands: tuple[str, ...]) -> frozenset[str]:
    written = set(_IMPLICIT.get(mnemonic, ()))
    if mnemonic == "imul" and len(operands) == 1:
        written |= {"rax", "rdx"}
    if mnemonic.startswith(_STRINGS) and mnemonic[4:] in tuple("bwdq") and not any("mm" in operand for operand in operands):
        written |= {"rsi", "rdi", "rcx"} | ({"rax"} if mnemonic.startswith("lods") else set())
    if mnemonic in ("push", "pop", "pushfq", "popfq", "leave", "enter"):
        written |= {"rsp"} | ({"rbp"} if mnemonic in ("leave", "enter") else set())
    if operands and operands[0] in PARENTS and mnemonic not in _NOT_WRITING:
        written.add(PARENTS[operands[0]])
    if mnemonic in ("xchg", "xadd", "mulx") and operands[1] in PARENTS:
        written.add(PARENTS[operands[1]])
    return frozenset(written)


def _sums(mnemonic: str, operands: tuple[str, ...], inside: Memory | None) -> tuple[tuple[str, str, int], ...]:
    """The places that take over an address, with what is added."""
    if len(operands) != _TWO:
        return ((operands[0], operands[0], 1 if mnemonic == "inc" else -1),) if mnemonic in ("inc", "dec") and _whole(operands[0]) else ()
    to, source = operands
    if mnemonic == "lea" and inside is not None and _whole(to):
        plain = inside.scaled is None and inside.base not in (None, "rip", "rsp")
        return ((to, inside.base, inside.displacement),) if plain and inside.base is not None else ()
    if mnemonic in ("add", "sub") and _whole(to) and _NUMBER.match(source):
        return ((to, to, int(source, 0) if mnemonic == "add" else -int(source, 0)),)
    if mnemonic == "mov":
        target, origin = (_whole(one) or (_slot(memory(one)) if one.startswith("qword") else None) for one in operands)
        return ((target, origin, 0),) if target is not None and origin is not None else ()
    if mnemonic.startswith("cmov") and _whole(to) and _whole(source):
        return (to, to, 0), (to, source, 0)
    return ()


def _indexed(mnemonic: str, operands: tuple[str, ...], inside: Memory | None) -> tuple[tuple[str, str, int], ...]:
    """The same where something unknown is added besides."""
    to = _whole(operands[0]) if len(operands) == _TWO else None
    if to is None:
        return ()
    if mnemonic == "lea" and inside is not None:
        return tuple((to, base, inside.displacement) for base in _indexed_bases(inside))
    source = _whole(operands[1])
    return ((to, to, 0), (to, source, 0)) if mnemonic == "add" and source is not None else ()


def _indexed_bases(inside: Memory) -> tuple[str, ...]:
    """The registers of a sum with an index that may hold an address: the index too, where it is not scaled."""
    if inside.scaled is None:
        return ()
    return tuple(one for one in (inside.base, inside.scaled if inside.scale == 1 else None) if one not in (None, "rip", "rsp"))


def _accesses(mnemonic: str, text: str, inside: Memory | None) -> tuple[Access, ...]:
    if inside is None or mnemonic.startswith(_NO_ACCESS):
        return ()
    if inside.scaled is not None:
        return tuple(Access(base, inside.displacement, _width(text), indexed=True) for base in _indexed_bases(inside))
    return () if inside.base in (None, "rip", "rsp") else (Access(inside.base, inside.displacement, _width(text)),)


def _whole(operand: str) -> str | None:
    return operand if PARENTS.get(operand) == operand else None


def _slot(operand: Memory | None) -> str | None:
    """The stack slot that a memory operand names."""
    if operand is None or operand.base != "rsp" or operand.scaled is not None:
        return None
    return slot_name(operand.displacement)


def _width(text: str) -> int:
    found = _SIZE.search(text)
    return _SIZES.get(found[1], 1) if found else 1
