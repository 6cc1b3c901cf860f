"""Every form whose meaning depends on where it stands, as Capstone's decoder knows them: moved, and run beside the original."""

from __future__ import annotations

import random
import struct
from functools import cache
from itertools import product

import capstone
import pytest

from hotpatch.arch import Machine, architecture
from tests.arch.arm64.rows import PLACES, SOURCE, read_rows
from tests.arch.arm64.sidebyside import same

ARM64 = architecture(Machine.ARM64)
REGION, REGION_SIZE = 0x140000000, 0x10000
DECODER = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
LOWS = (*range(32), 0x0041, 0x7C45)
"""Low halves of words: every condition, and some registers."""
NOT_IN_UNICORN = "bc."
FIELDS = {"b": (0, 26), "bl": (0, 26), "tbz": (5, 14), "tbnz": (5, 14), "adr": (5, 19), "adrp": (5, 19)}
"""First bit and width of the distance; (5, 19) in every other form."""
DISTANCES = (-0x100, 0x40, 0x7C)
"""In words (``adr``: four bytes, ``adrp``: four pages); none leads into the displaced instruction."""
BEHIND = struct.pack("<I", 0xD503201F) * 4
FEW, MANY = 1, 24


def text(word: int, address: int) -> tuple[str, str] | None:
    found = next(iter(DECODER.disasm_lite(struct.pack("<I", word), address, 1)), None)
    return None if found is None else found[2:]


def form_of(name: str, operands: str) -> str:
    """A form is a name, with the kind of its register where there are several."""
    several = name in {"ldr", "ldrsw", "cbz", "cbnz", "tbz", "tbnz"}
    return f"{name} {operands[0]}" if several else name


@cache
def forms() -> dict[str, list[int]]:
    """Words that mean something else when they stand elsewhere, by form: all high halves with some low ones."""
    found: dict[str, list[int]] = {}
    for high, low in product(range(1 << 16), LOWS[:1]):
        word = high << 16 | low
        here = text(word, SOURCE)
        if here is not None and here != text(word, SOURCE + 0x10000):
            for other in LOWS:
                name = text(high << 16 | other, SOURCE)
                if name is not None:
                    found.setdefault(form_of(*name), []).append(high << 16 | other)
    return found


def test_the_rows_have_every_form() -> None:
    """Those that are pinned byte by byte; conditions are one form."""
    plain = {form.partition(".")[0] for form in forms()}
    assert plain == {
        *("b", "bl", "bc", "adr", "adrp", "prfm", "ldrsw x"),
        *(f"ldr {kind}" for kind in "wxsdq"),
        *(f"{name} {kind}" for name in ("cbz", "cbnz", "tbz", "tbnz") for kind in "wx"),
    }
    assert len([form for form in forms() if form.startswith("b.")]) == 16
    pinned = {form_of(*line.split(" ", 1)).partition(".")[0] for row in read_rows() for line in row.source if " " in line}
    assert plain <= pinned


@pytest.mark.parametrize("seeds", [FEW, pytest.param(MANY, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", sorted(forms()))
def test_every_form_does_as_the_original(form: str, place: str, seeds: int) -> None:
    rng = random.Random(f"{form} {place}")
    start, width = FIELDS.get(form.split()[0], (5, 19))
    mask = ((1 << width) - 1) << start
    for distance in DISTANCES:
        word = rng.choice(forms()[form]) & ~mask | (distance << start & mask)
        code = struct.pack("<I", word) + BEHIND
        made = ARM64.trampoline(code, source_va=SOURCE, trampoline_va=PLACES[place], displaced=4)
        if form.startswith(NOT_IN_UNICORN):
            continue
        kept = (word & 31,) if form.split()[0] in {"ldr", "ldrsw", "adr", "adrp"} and word & 31 in (16, 17) else ()
        for seed in range(seeds):
            content = bytearray(random.Random(seed).randbytes(REGION_SIZE))
            content[SOURCE - REGION : SOURCE - REGION + len(code)] = code
            same(f"{form} {distance} {seed}", (REGION, bytes(content)), SOURCE, 4, made, PLACES[place], kept)
