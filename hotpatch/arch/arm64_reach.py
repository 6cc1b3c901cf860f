"""Arm64: what an instruction does with registers that may hold addresses of data. Source: Arm Architecture Reference Manual."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from hotpatch.arch.arm64_constants import effect, registers, whole_register
from hotpatch.arch.model import Flow
from hotpatch.arch.reach import Access, Motion

if TYPE_CHECKING:
    from hotpatch.arch.constants import Effect
    from hotpatch.arch.model import Instruction

_NUMBER = r"#(-?(?:0x[0-9a-f]+|\d+))"
_MEMORY = re.compile(rf"\[(x\d+)(?:, {_NUMBER})?\](!)?(?:, {_NUMBER})?$")
_INDEXED = re.compile(r"\[(x\d+), ([xw]\d+)(, [a-z]+(?: #\d+)?)?\]$")
_INDEX_SUM = re.compile(r"(x\d+), (x\d+), ([xw]\d+)(, [a-z]+(?: #\d+)?)?$")
_PRODUCT_SUM = re.compile(r"(x\d+), \w+, \w+, (x\d+)$")
_SUM = re.compile(rf"(x\d+), (x\d+), {_NUMBER}(?:, lsl #(12))?$")
_DIFFERENCE = re.compile(r"x\d+, x\d+, (x\d+)$")
_EITHER = re.compile(r"(x\d+), (x\d+), (x\d+), \w+$")
_NOTHING = Motion()
_COMPARING = ("cmp", "cmn", "ccmp", "ccmn")
_NO_ACCESS = ("prfm", "prfum", "dc", "ic", "at")
_PAIRS = ("ldp", "stp", "ldnp", "stnp", "ldxp", "ldaxp", "stxp", "stlxp", "casp")
_REGISTER_BYTES = {"w": 4, "x": 8, "b": 1, "h": 2, "s": 4, "d": 8, "q": 16}
_VECTOR = re.compile(r"v\d+\.(\d*)([bhsd])")
_LANE = re.compile(r"\}\[\d+\]")
_ONE = re.compile(r"([wxbhsdq])(?:\d+|zr)")


def motion(instruction: Instruction, *, names: bool) -> Motion:
    """What one instruction does; ``names``: one that names a whole address of data."""
    return _motion(instruction.mnemonic, instruction.operands, names=names) if instruction.flow is Flow.NEXT else _NOTHING


def index_of(instruction: Instruction) -> str | None:
    """The register that an operand in memory adds to its base."""
    found = _INDEXED.search(instruction.operands)
    return None if found is None else whole_register(found[2])


def zeroed(instruction: Instruction) -> str | None:
    """The register that gets zero."""
    first, _, other = instruction.operands.partition(", ")
    return whole_register(first) if instruction.mnemonic == "mov" and other in ("#0", "xzr", "wzr") else None


def _signed(text: str) -> int:
    """A number of an address, which Capstone writes without a sign where it is added behind the access."""
    number = int(text, 0)
    return number - (1 << 64) if number >> 63 == 1 else number


@lru_cache(maxsize=1 << 12)
def _motion(mnemonic: str, operands: str, *, names: bool) -> Motion:
    known = effect(mnemonic, operands)
    first = operands.partition(",")[0]
    in_memory = _MEMORY.search(operands)
    compared = registers(operands.partition("[")[0]) if mnemonic.startswith((*_COMPARING, "sub")) else frozenset[str]()
    if names:
        return _naming(mnemonic, operands, known)
    if mnemonic in ("add", "sub") and (found := _SUM.match(operands)):
        number = int(found[3], 0) << int(found[4] or "0")
        return Motion(sums=((found[1], found[2], number if mnemonic == "add" else -number),))
    if mnemonic == "add" and (found := _INDEX_SUM.match(operands)):
        return Motion(indexed=tuple((found[1], source, 0) for source in _either_base(found)), writes=known.writes, reads=known.reads)
    if mnemonic in ("madd", "smaddl", "umaddl") and (found := _PRODUCT_SUM.match(operands)):
        return Motion(indexed=((found[1], found[2], 0),), writes=known.writes, reads=known.reads)
    if mnemonic == "csel" and (found := _EITHER.match(operands)):
        return Motion(sums=((found[1], found[2], 0), (found[1], found[3], 0)))
    if known.copies:
        accesses = _accesses(mnemonic, operands, in_memory)
        if operands.startswith("w"):  # half of an address is none
            return Motion(writes=frozenset(to for to, _ in known.copies), accesses=accesses)
        return Motion(sums=tuple((to, source, 0) for to, source in known.copies), accesses=accesses)
    writes = known.writes
    if known.opaque:
        writes = registers(operands.partition("[")[0])
    sums: tuple[tuple[str, str, int], ...] = ()
    if in_memory is not None:
        base = in_memory[1]
        if in_memory[3]:
            sums = ((base, base, _signed(in_memory[2])),)
        elif in_memory[4]:
            sums = ((base, base, _signed(in_memory[4])),)
        writes = writes - {base} if sums or not _loads_into(operands, base) else writes
    if mnemonic.startswith(_COMPARING) and whole_register(first):
        writes = frozenset()
    return Motion(
        sums=sums,
        writes=writes,
        accesses=_accesses(mnemonic, operands, in_memory),
        compared=compared,
        subtracted=frozenset(found.groups()) if (found := _DIFFERENCE.match(operands)) and mnemonic in ("sub", "subs") else frozenset(),
        moves_stack=known.moves_stack,
        reads=known.reads,
        stored=_stored(mnemonic, operands),
    )


def _naming(mnemonic: str, operands: str, known: Effect) -> Motion:
    """An instruction that names an address: ADRP a page, ADD, SUB and ADR take it, loads and stores access it."""
    if "[" in operands:
        access = Access(None, 0, _width(mnemonic, operands))
        return Motion(writes=known.writes, accesses=(access,), reads=known.reads, stored=known.reads)
    if mnemonic in ("add", "sub", "adr"):
        return Motion(takes=whole_register(operands.partition(",")[0]), reads=known.reads, stored=known.reads)
    return Motion(writes=known.writes)


def _accesses(mnemonic: str, operands: str, in_memory: re.Match[str] | None) -> tuple[Access, ...]:
    if mnemonic.startswith(_NO_ACCESS):
        return ()
    if in_memory is not None:
        return (Access(in_memory[1], _signed(in_memory[2] or "0"), _width(mnemonic, operands)),)
    found = _INDEXED.search(operands)
    bases = _either_base(found, first=1) if found else ()
    return tuple(Access(base, 0, _width(mnemonic, operands), indexed=True) for base in bases)


def _either_base(found: re.Match[str], first: int = 2) -> tuple[str, ...]:
    """The registers of a sum that may hold an address: the second one only where it is neither shifted nor extended."""
    base, index, change = found[first], found[first + 1], found[first + 2]
    return (base,) if change or not index.startswith("x") else (base, index)


def _stored(mnemonic: str, operands: str) -> frozenset[str]:
    values, _, place = operands.partition("[")
    return registers(values) - registers(place) if mnemonic.startswith("st") else frozenset()


def _loads_into(operands: str, base: str) -> bool:
    return base in registers(operands.partition("[")[0])


def _width(mnemonic: str, operands: str) -> int:
    """Bytes that a load or store accesses."""
    before = operands.partition("[x")[0].partition("[sp")[0]
    vectors = _VECTOR.findall(before)
    if vectors:
        element = _REGISTER_BYTES[vectors[0][1]]
        single = _LANE.search(before) or (mnemonic.startswith("ld") and mnemonic.endswith("r"))
        return len(vectors) * (element if single else element * int(vectors[0][0] or "1"))
    names = _ONE.findall(before)
    size = _REGISTER_BYTES[names[-1]] if names else 1
    if mnemonic in ("ldrsw", "ldursw", "ldapursw", "ldpsw"):
        size = 4
    elif mnemonic not in ("ldnp", "stnp") and names and names[-1] in "wx":
        if mnemonic.endswith("b"):
            size = 1
        elif mnemonic.endswith("h"):
            size = 2
    return size * 2 if mnemonic.startswith(_PAIRS) or mnemonic == "ldpsw" else size
