"""Arm64 unwind codes undone: from a function's registers to its caller's. Source: MS Learn, "ARM64 exception handling".

What the document leaves to routines of the system's own (``MSFT_OP_…``) follows dotnet/runtime,
``src/coreclr/unwinder/arm64/unwinder.cpp``, and Wine, ``dlls/ntdll/unwind.c``, which agree.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from hotpatch.unwind import arm64_frames as frames
from hotpatch.unwind.arm64_codes import Op
from hotpatch.unwind.model import StackUnreadable, read_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hotpatch.unwind.arm64_codes import Code
    from hotpatch.unwind.arm64_frames import Place
    from hotpatch.unwind.model import Read

VA_BITS = (1 << 48) - 1
"""User addresses of Windows on Arm64; a signed return address has its signature above."""
_GRANULE = 8
_QUAD = 16
"""Bytes of a vector register without the scalable extension: what q registers hold."""


class Caller(Enum):
    """How the codes leave the caller."""

    LINKED = "its address is in x30"
    RETURNED_TO = "pc is set, to a return address"
    INTERRUPTED = "pc is set, to an instruction that has not run"


def undo(state: dict[str, int], codes: Iterable[Code], read: Read) -> Caller:
    """Undo ``codes`` in ``state``, which may have ``vg``: the length of a scalable vector register in units of 8 bytes.

    Raises:
        StackUnreadable: Memory cannot be read, or a code counts in vector lengths and ``vg`` is not known.
    """
    caller, further = Caller.LINKED, 0
    for code in codes:
        op = code.op
        if op is Op.SAVE or op is Op.SAVE_MOVING:
            _restore(state, code, further, read)
            further = 0
        elif op is Op.SAVE_NEXT:
            further += 2
        elif op in _FRAMES:
            caller = _leave_frame(state, op, read)
        else:
            _move(state, code, read)
    return caller


def _restore(state: dict[str, int], code: Code, further: int, read: Read) -> None:
    """Undo a save, with the ``further`` registers that ``save_next`` codes stand for."""
    at = state["sp"] + (code.amount if code.op is Op.SAVE else 0)
    width = code.width
    for register in _extended(code.registers, further) if further else code.registers:
        state[register] = read_number(read, at, width)
        at += width
    if code.op is Op.SAVE_MOVING:
        state["sp"] += code.amount


def _extended(registers: tuple[str, ...], further: int) -> tuple[str, ...]:
    """``registers`` and the ``further`` ones that ``save_next`` codes stand for: after x28 come d8 and on."""
    found = list(registers)
    for _ in range(further):
        bank, number = found[-1][0], int(found[-1][1:])
        found.append("q8" if (bank, number) == ("x", 28) else f"{bank}{number + 1}")
    return tuple(found)


def _move(state: dict[str, int], code: Code, read: Read) -> None:
    """Undo a code that moves sp or signs, or a save of a scalable register."""
    if code.op is Op.ALLOC:
        state["sp"] += code.amount
    elif code.op is Op.ALLOC_SCALED:
        state["sp"] += code.amount * _vector_length(state)
    elif code.op is Op.SAVE_SCALED:
        _restore_scaled(state, code, read)
    elif code.op is Op.SET_FP:
        state["sp"] = state["x29"]
    elif code.op is Op.ADD_FP:
        state["sp"] = state["x29"] - code.amount
    elif code.op is Op.SIGN:
        state["x30"] &= VA_BITS


def _restore_scaled(state: dict[str, int], code: Code, read: Read) -> None:
    """A predicate has a bit for each byte of a vector; a vector's low 128 bits are the q register of its number."""
    (register,) = code.registers
    vector = register[0] == "z"
    size = _vector_length(state) if vector else _vector_length(state) // 8
    at = state["sp"] + code.amount * size
    state[register] = read_number(read, at, size)
    if vector:
        state[f"q{register[1:]}"] = read_number(read, at, _QUAD)


def _vector_length(state: Mapping[str, int]) -> int:
    if "vg" not in state:
        raise StackUnreadable("the frame holds scalable vector registers, and their length is not known (no vg among the registers)")
    return state["vg"] * _GRANULE


_FRAMES = {
    Op.MACHINE_FRAME: frames.MACHINE_FRAME,
    Op.TRAP_FRAME: frames.TRAP_FRAME,
    Op.CONTEXT: frames.CONTEXT,
    Op.EC_CONTEXT: frames.EC_CONTEXT,
    Op.CLEAR_UNWOUND: (),
}
_FLAGS = {Op.CONTEXT: frames.CONTEXT_FLAGS, Op.EC_CONTEXT: frames.EC_CONTEXT_FLAGS}


def _leave_frame(state: dict[str, int], op: Op, read: Read) -> Caller:
    """Undo what says where the program counter stood."""
    at = state["sp"]
    state |= _placed(_FRAMES[op], at, read)
    if op is Op.CLEAR_UNWOUND:
        state["pc"] = state["x30"]
    elif op is Op.TRAP_FRAME:
        state |= _trapped_vectors(read_number(read, at + frames.TRAP_VECTORS, 8), read)
    elif op is Op.EC_CONTEXT:
        for register in frames.EC_UNUSED:
            state.pop(register, None)
    if op in _FLAGS and read_number(read, at + _FLAGS[op], 4) & frames.UNWOUND_TO_CALL:
        return Caller.RETURNED_TO
    return Caller.INTERRUPTED


def _trapped_vectors(at: int, read: Read) -> dict[str, int]:
    """The vector registers of a trap frame whose state for them lies ``at``."""
    if not at or any(read_number(read, at + offset, 4) == frames.NO_VECTORS for offset in frames.VECTOR_CONTROLS):
        return {}
    return _placed(frames.VECTORS, at, read)


def _placed(places: Iterable[Place], at: int, read: Read) -> dict[str, int]:
    found: dict[str, int] = {}
    for place in places:
        part = read_number(read, at + place.offset, place.size) << place.bit
        found[place.register] = found.get(place.register, 0) | part
    return found
