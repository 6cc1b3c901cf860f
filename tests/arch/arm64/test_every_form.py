"""Every form whose meaning depends on where it stands, as Capstone's decoder knows them: moved, and run beside the original."""

from __future__ import annotations

import random
import struct
from functools import cache

import capstone
import pytest

from hotpatch.arch import Machine, architecture
from tests.arch.arm64.rows import PLACES, SOURCE, read_rows
from tests.arch.arm64.sidebyside import same

ARM64 = architecture(Machine.ARM64)
REGION, REGION_SIZE = 0x140000000, 0x10000
DECODER = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
DECODER.skipdata = True
UNKNOWN = ".byte"
"""What Capstone calls words that are no instructions."""
LOWS = (*range(32), 0x0041, 0x7C45)
"""Low halves of words: every condition, and some registers."""
NOT_IN_UNICORN = "bc."
FIELDS = {"b": (0, 26), "bl": (0, 26), "tbz": (5, 14), "tbnz": (5, 14), "adr": (5, 19), "adrp": (5, 19)}
"""First bit and width of the distance; (5, 19) in every other form."""
DISTANCES = (-0x100, 0x40, 0x7C)
"""In words (``adr``: four bytes, ``adrp``: four pages); none leads into the displaced instruction."""
BEHIND = struct.pack("<I", 0xD503201F) * 4
FEW, MANY = 1, 24


def texts(words: list[int], address: int) -> list[tuple[str, str]]:
    """Name and operands of each of ``words``, one behind the other from ``address`` on."""
    rows = [row[2:] for row in DECODER.disasm_lite(struct.pack(f"<{len(words)}I", *words), address)]
    assert len(rows) == len(words)
    return rows


def form_of(name: str, operands: str) -> str:
    """A form is a name, with the kind of its register where there are several."""
    several = name in {"ldr", "ldrsw", "cbz", "cbnz", "tbz", "tbnz"}
    return f"{name} {operands[0]}" if several else name


@cache
def forms() -> dict[str, list[int]]:
    """Words that mean something else when they stand elsewhere, by form: all high halves with some low ones."""
    found: dict[str, list[int]] = {}
    words = [high << 16 | LOWS[0] for high in range(1 << 16)]
    moved = zip(words, texts(words, SOURCE), texts(words, SOURCE + 0x10000), strict=True)
    others = [word | low for word, here, there in moved if here != there and here[0] != UNKNOWN for low in LOWS]
    for word, (name, operands) in zip(others, texts(others, SOURCE), strict=True):
        if name != UNKNOWN:
            found.setdefault(form_of(name, operands), []).append(word)
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
