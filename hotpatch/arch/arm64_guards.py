"""Arm64: the guards of static data that a function initialises when control first comes there; see :mod:`hotpatch.arch.x64_guards`."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from hotpatch.arch.arm64_constants import effect, whole_register
from hotpatch.arch.model import Flow

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from hotpatch.arch.model import Instruction

_THREAD_BLOCKS = "[x18, #0x58]"
"""``ThreadLocalStoragePointer`` of the thread's environment block."""
_COMPARED = re.compile(r"(w\d+), (w\d+)$")
_WORD = re.compile(r"\[(x\d+)(?:, #(?:0x[0-9a-f]+|\d+))?\]$")
_BLOCK = re.compile(r"\[(x\d+), (?:(w\d+), uxtw|(x\d+), lsl) #3\]$")
_PAGE_OF_BLOCK = re.compile(r"(x\d+), #0x0, lsl #12$|(x\d+), #0, lsl #12$")
"""What the linker makes of the upper half of a distance into the block."""
_PASSABLE = (Flow.NEXT, Flow.BRANCH)


def guards(instructions: Sequence[Instruction], named: Mapping[int, Collection[int]], index: int) -> frozenset[int]:
    """See :meth:`hotpatch.arch.base.Architecture.guards`."""
    numbers = {item.address: number for number, item in enumerate(instructions)}
    found: set[int] = set()
    for number, (item, branch) in enumerate(pairwise(instructions)):
        compared = _COMPARED.match(item.operands) if item.mnemonic == "cmp" else None
        if compared is None or branch.mnemonic != "b.gt" or branch.target not in numbers:
            continue
        before = instructions[:number]
        at, _ = _loaded(before, compared[1])
        places = named.get(before[at].address, ()) if at < number else ()
        begun = instructions[numbers[branch.target] :][:5]
        if len(places) == 1 and _is_of_thread(before, compared[2], named, index) and _begins(begun, next(iter(places)), named):
            found.update(places)
    return frozenset(found)


def _is_of_thread(before: Sequence[Instruction], register: str, named: Mapping[int, Collection[int]], index: int) -> bool:
    """Whether ``register`` holds a word of the thread's block of the module."""
    number, source = _loaded(before, register)
    word = _WORD.match(source)
    at, source = _loaded(before[:number], word[1]) if word else (0, "")
    page = _PAGE_OF_BLOCK.match(source)
    if page:
        at, source = _loaded(before[:at], page[1] or page[2])
    block = _BLOCK.match(source)
    if block is None:
        return False
    slot, _ = _loaded(before[:at], block[2] or block[3])
    return _loaded(before[:at], block[1])[1] == _THREAD_BLOCKS and slot < at and named.get(before[slot].address) == {index}


def _loaded(before: Sequence[Instruction], register: str) -> tuple[int, str]:
    """The last ``ldr`` or ``add`` that writes ``register`` on the straight way through ``before``: its number, and from what."""
    wanted = whole_register(register)
    for number in range(len(before) - 1, -1, -1):
        item = before[number]
        if item.flow not in _PASSABLE or wanted is None:
            break
        first, _, source = item.operands.partition(", ")
        if whole_register(first) == wanted and item.mnemonic in ("ldr", "add"):
            return number, source
        if item.flow is Flow.BRANCH:
            continue
        done = effect(item.mnemonic, item.operands)
        if done.opaque or wanted in done.writes or any(wanted == to for to, _ in done.copies):
            break
    return len(before), ""


def _begins(begun: Sequence[Instruction], place: int, named: Mapping[int, Collection[int]]) -> bool:
    """Whether ``begun`` hands the address of ``place`` to a function, and goes elsewhere where -1 is not there afterwards."""
    if [item.flow for item in begun] != [Flow.NEXT, Flow.CALL, Flow.NEXT, Flow.NEXT, Flow.BRANCH]:
        return False
    taken, _, loaded, compared, branch = begun
    if not all(named.get(item.address) == {place} for item in (taken, loaded)):
        return False
    register = loaded.operands.partition(",")[0]
    forms = taken.mnemonic == "add", loaded.mnemonic == "ldr", (compared.mnemonic, compared.operands) == ("cmn", f"{register}, #1")
    return all(forms) and taken.operands.startswith("x0,") and branch.mnemonic == "b.ne"
