"""Every form whose meaning depends on where it stands, as Capstone's decoder knows them: moved, and run beside the original."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import cache

import capstone
import pytest

from hotpatch.arch import Machine, architecture
from hotpatch.errors import CannotRelocate, Rule
from tests.arch.x64.rows import FAR, NEAR, SOURCE
from tests.arch.x64.sidebyside import compare, pointers

X64 = architecture(Machine.X64)
IMAGE, IMAGE_SIZE = 0x140000000, 0x10000
DECODER = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
PREFIXES = ("", "66", "67", "f2", "f3", "2e", "3e", "48", "6648")
DISTANCE = 0x40
BEHIND = b"\x90" * 16
SAMPLE = 307
NEVER_BESIDE = re.compile(
    "xbegin|vm|v?gather|sysenter|sysexit|iret|l[gi]dt|lldt|ltr|fxrstor|xrstor|swapgs|hlt|xsave|fldenv|frstor|fnsave|fnstenv|fxsave"
)
"""Unicorn has no transactions; the others read or write the state of a whole processor, of which it has not all."""
FIELD = re.compile(r"\[rip (?P<sign>[+-]) (?P<value>0x[0-9a-f]+|\d+)\]|\[rip\]")


def decoded(code: bytes, address: int) -> tuple[int, str, str] | None:
    found = next(iter(DECODER.disasm_lite(code, address, 1)), None)
    return None if found is None else found[1:]


@cache
def branches() -> dict[str, bytes]:
    """By prefix and name: instructions that lead elsewhere when they stand elsewhere, with a distance in the last one or four bytes."""
    found = {}
    for prefix in PREFIXES:
        for opcode in (*(bytes((one,)) for one in range(256)), *(bytes((0x0F, two)) for two in range(256)), b"\xc7\xf8"):
            for width in (1, 4):
                code = bytes.fromhex(prefix) + opcode + DISTANCE.to_bytes(width, "little")
                here, there = decoded(code + BEHIND, SOURCE), decoded(code + BEHIND, NEAR)
                if here is not None and there is not None and here != there and here[0] == len(code):
                    found[f"{prefix or '-'} {here[1]} {width}"] = code
    return found


def escapes() -> Iterator[bytes]:
    """What stands before the last opcode byte, in every map."""
    for prefix in PREFIXES:
        for escape in ("", "0f", "0f38", "0f3a"):
            yield bytes.fromhex(prefix + escape)
    for pp in range(4):
        for long in (0, 4):
            yield bytes((0xC5, 0xF8 | long | pp))
            for place in (1, 2, 3):
                for wide in (0, 0x80):
                    yield bytes((0xC4, 0xE0 | place, wide | 0x78 | long | pp))
    for place in (1, 2, 3):
        for pp in range(4):
            for wide in (0, 0x80):
                yield bytes((0x62, 0xF0 | place, wide | 0x7C | pp, 0x48))


@cache
def operands() -> tuple[tuple[str, bytes], ...]:
    """Instructions with an operand at a distance, one of each opcode, register field and prefix."""
    found = []
    for escape in escapes():
        for opcode in range(256):
            for field in range(8):
                code = escape + bytes((opcode, field << 3 | 5)) + (0x200).to_bytes(4, "little") + bytes(8)
                here = decoded(code, SOURCE)
                if here is not None and "[rip" in here[2]:
                    found.append((f"{here[1]} {here[2]}", code[: here[0]]))
    return tuple(found)


def leads_to(code: bytes, address: int) -> tuple[str, str, int]:
    """Name, operands but for the distance, and the address that the distance gives."""
    found = decoded(code, address)
    assert found is not None
    size, name, text = found
    match = FIELD.search(text)
    assert match, (name, text)
    distance = int(match["value"] or "0", 0) * (-1 if match["sign"] == "-" else 1) if match["value"] else 0
    return name, FIELD.sub("[here]", text), (address + size + distance) % (1 << 64)


def beside(code: bytes, trampoline: int, seeds: range) -> None:
    source = code + BEHIND
    moved = X64.trampoline(source, source_va=SOURCE, trampoline_va=trampoline, displaced=len(code))
    content, place = pointers(random.Random(0), IMAGE_SIZE), SOURCE - IMAGE
    image = IMAGE, content[:place] + source + content[place + len(source) :]
    for seed in seeds:
        compare(image, SOURCE, moved, trampoline, len(code), seed)


def test_all_that_leads_elsewhere_is_found() -> None:
    names = {form.split()[1] for form in branches()} - {"bnd", "notrack"}
    conditions = {"o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"}
    assert names == {*(f"j{condition}" for condition in conditions), "jmp", "call", "loop", "loope", "loopne", "jrcxz", "jecxz", "xbegin"}
    assert len(operands()) > 10_000


@pytest.mark.parametrize("trampoline", [NEAR, FAR], ids=["near", "far"])
@pytest.mark.parametrize("prefix", ["-", *(pytest.param(prefix, marks=pytest.mark.exhaustive) for prefix in PREFIXES if prefix)])
def test_branches(prefix: str, trampoline: int) -> None:
    """Seven states each: so many counts there are for counted jumps, and conditions are met in some and not in others."""
    forms = {form: code for form, code in branches().items() if form.startswith(f"{prefix} ")}
    assert len(forms) > 10
    for form, code in forms.items():
        try:
            if NEVER_BESIDE.search(form):
                X64.trampoline(code + BEHIND, source_va=SOURCE, trampoline_va=trampoline, displaced=len(code))
            else:
                beside(code, trampoline, range(7))
        except CannotRelocate as refused:
            assert {refusal.rule for refusal in refused.refusals} <= {Rule.CANNOT_RELOCATE, Rule.OUT_OF_REACH}
            assert prefix in {"66", "6648"} or "xbegin" in form


@pytest.mark.parametrize("every", [SAMPLE, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_operands(every: int) -> None:
    """Each is moved with nothing but its distance changed; those that Unicorn has are run, one of each name and place of the distance."""
    refused, ran = set(), set()
    for number, (text, code) in enumerate(operands()[::every]):
        try:
            moved = X64.trampoline(code + BEHIND, source_va=SOURCE, trampoline_va=NEAR, displaced=len(code))
        except CannotRelocate:
            refused.add(text.split()[0])
            continue
        assert leads_to(moved.code, NEAR) == leads_to(code, SOURCE), (text, code.hex(), moved.code.hex())
        form = text.split()[0], code.rindex((0x200).to_bytes(4, "little")), len(code)
        if code[:1] not in (b"\xc4", b"\xc5", b"\x62") and not NEVER_BESIDE.search(text) and form not in ran:
            beside(code, NEAR, range(number, number + 1))
            ran.add(form)
    assert not refused
    assert len(ran) > (600 if every == 1 else 30)
