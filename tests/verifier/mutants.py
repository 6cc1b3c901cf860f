"""Patches made wrong in one place: a reference led elsewhere or lost, a function left unpatched, a bit of an instruction flipped."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from hotpatch.arch import FixupKind, Flow, Instruction, Machine
from hotpatch.image import Image
from hotpatch.patch import Fixup, Patch, Space
from tests.verifier.damage import with_code

ADDEND = 16
"""Bytes by which a datum is missed."""
PAGE = 0x1000
NOPS = {Machine.X64: b"\x90", Machine.ARM64: b"\x1f\x20\x03\xd5"}
_DRAWS = 1000


def mutants(base: Image, patch: Patch) -> Iterator[tuple[str, Patch]]:
    """Each mutant with what is wrong with it."""
    entries = {function.entry for function in base.functions}
    bound = sorted({fixup.target for fixup in patch.fixups if fixup.space is Space.BASE})
    for target in bound:
        if target in entries:
            others = (entry for entry in sorted(entries) if entry != target and entry not in bound)
            yield from ((f"wrong callee for 0x{target:x}", _led(patch, target, other - target)) for other in islice(others, 1))
        else:
            yield f"swapped addend for 0x{target:x}", _led(patch, target, ADDEND)
        yield f"missing reference to 0x{target:x}", replace(patch, fixups=tuple(item for item in patch.fixups if not _is(item, target)))
    if len(patch.functions) > 1:
        for left in patch.functions:
            rest = tuple(function for function in patch.functions if function is not left)
            yield f"{left.name} left unpatched", replace(patch, functions=rest)


def flipped(patch: Patch, seed: str) -> Iterator[tuple[str, Patch]]:
    """Mutants with one bit of one new function's instructions flipped, so that another instruction of the same size stands there."""
    chance, arch = random.Random(seed), patch.image.architecture
    bound = {fixup.site + at for fixup in patch.fixups for at in range(arch.field_size(fixup.kind))}
    for _ in range(_DRAWS):
        function = chance.choice(patch.functions)
        code = patch.image.read(function.patch_rva, function.size)
        item = chance.choice(list(arch.disassemble(code, function.patch_rva)))
        bit = chance.randrange(item.size * 8)
        if item.address + bit // 8 in bound:
            continue
        old = patch.image.read(item.address, item.size)
        new = (int.from_bytes(old, "little") ^ 1 << bit).to_bytes(item.size, "little")
        other = next(iter(arch.disassemble(new, item.address)), None)
        if other is None or other.size != item.size or other == item:
            continue
        what = f"{item.mnemonic} {item.operands} made {other.mnemonic} {other.operands}"
        yield what, with_code(patch, item.address - patch.functions[0].patch_rva, old.hex(), new.hex())


def rewritten(patch: Patch, seed: str) -> Iterator[tuple[str, Patch]]:
    """Mutants with one store of the new functions dropped, or the two ways of one of their branches swapped; ``seed`` draws their order."""
    arch = patch.image.architecture
    bound = {fixup.site + at for fixup in patch.fixups for at in range(arch.field_size(fixup.kind))}
    found = []
    for function in patch.functions:
        for item in arch.disassemble(patch.image.read(function.patch_rva, function.size), function.patch_rva):
            old = patch.image.read(item.address, item.size)
            if item.flow is Flow.BRANCH:
                found.append((item, "swapped", old, _swapped(patch.image.machine, old)))
            elif _is_store(patch.image.machine, item) and bound.isdisjoint(range(item.address, item.address + item.size)):
                found.append((item, "dropped", old, NOPS[patch.image.machine] * (item.size // len(NOPS[patch.image.machine]))))
    random.Random(seed).shuffle(found)
    for item, what, old, new in found:
        yield f"{item.mnemonic} {item.operands} {what}", with_code(patch, item.address - patch.functions[0].patch_rva, old.hex(), new.hex())


def _is_store(machine: Machine, item: Instruction) -> bool:
    if machine is Machine.ARM64:
        return item.mnemonic.startswith("st")
    return item.mnemonic.startswith("mov") and item.operands.partition(",")[0].endswith("]")


def _swapped(machine: Machine, code: bytes) -> bytes:
    """The branch with the opposite condition."""
    at = 8 * (code[0] == 0x0F) if machine is Machine.X64 else 0 if code[3] == 0x54 else 24
    return (int.from_bytes(code, "little") ^ 1 << at).to_bytes(len(code), "little")


def _is(fixup: Fixup, target: int) -> bool:
    return fixup.space is Space.BASE and fixup.target == target


def _led(patch: Patch, target: int, distance: int) -> Patch:
    if distance == ADDEND and {item.kind for item in patch.fixups if _is(item, target)} == {FixupKind.PAGEBASE_REL21}:
        distance = PAGE  # all else is in the instruction that completes it, and needs no fixup
    fixups = tuple(replace(item, target=item.target + distance) if _is(item, target) else item for item in patch.fixups)
    return replace(patch, fixups=fixups)
