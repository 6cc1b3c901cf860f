"""Moved instructions: pinned row by row, run against the original, refused by name."""

from __future__ import annotations

import random
import struct

import capstone
import pytest

from hotpatch.arch import Machine, architecture
from hotpatch.errors import CannotRelocate, InputError, Rule
from tests.arch.arm64.rows import PLACES, SOURCE, Row, read_rows
from tests.arch.arm64.sidebyside import same

ARM64 = architecture(Machine.ARM64)
ROWS = read_rows()
LITERALS = ".quad "


def lines(code: bytes, address: int) -> list[str]:
    decoder = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
    return [f"{mnemonic} {operands}".strip() for _, _, mnemonic, operands in decoder.disasm_lite(code, address)]


def bytes_of(moved: tuple[str, ...], code: bytes, address: int) -> list[str]:
    """``code`` as the rows spell it: text of the words, then the literals."""
    quads = sum(line.startswith(LITERALS) for line in moved)
    body = len(code) - 8 * quads
    return lines(code[:body], address) + [f"{LITERALS}{value:#x}" for value in struct.unpack(f"<{quads}Q", code[body:])]


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_moves_as_pinned(row: Row):
    assert lines(row.code, SOURCE) == list(row.source)
    made = ARM64.trampoline(row.code, source_va=SOURCE, trampoline_va=row.trampoline_va, displaced=row.displaced)
    assert bytes_of(row.moved, made.code, row.trampoline_va) == list(row.moved)
    assert made.resume_va == SOURCE + len(row.code)
    assert dict(made.offsets) == row.offsets


# side by side ----------------------------------------------------------------------------------------------------------------------------

REGION, REGION_SIZE = 0x140000000, 0x10000
SEEDS, SEEDS_AT_MOST = 8, 200  # a conditional branch is run until it went both ways
NOT_IN_UNICORN = ("bc.",)  # FEAT_HBC is younger than the emulator


@pytest.mark.parametrize("row", [row for row in ROWS if not row.id.startswith(NOT_IN_UNICORN)], ids=lambda row: row.id)
def test_does_as_the_original(row: Row):
    made = ARM64.trampoline(row.code, source_va=SOURCE, trampoline_va=row.trampoline_va, displaced=row.displaced)
    both_ways = row.id.startswith(("b.", "cb", "tb")) and not row.id.startswith(("b.al", "b.nv"))
    kept = tuple(number for number in (16, 17) if f" x{number}, " in "".join(row.source))  # what the displaced code sets must survive
    exits = set()
    for seed in range(SEEDS_AT_MOST):
        if seed >= SEEDS and (not both_ways or len(exits) == 2):
            break
        content = bytearray(random.Random(seed).randbytes(REGION_SIZE))
        content[SOURCE - REGION : SOURCE - REGION + len(row.code)] = row.code
        name = f"{row.id} {seed}"
        exits.add(same(name, (REGION, bytes(content)), SOURCE, len(row.code), made, row.trampoline_va, kept))
    assert len(exits) == 2 or not both_ways


# refusals --------------------------------------------------------------------------------------------------------------------------------

B_BACK_4 = 0x17FFFFFF
REFUSED = {
    "function shorter than the jump": (words(0xD65F03C0), 8, PLACES["close"], Rule.FUNCTION_TOO_SHORT, "c0035fd6"),
    "no code at all": (b"", 4, PLACES["close"], Rule.FUNCTION_TOO_SHORT, ""),
    "undecodable word": (words(0xFFFFFFFF, 0xD65F03C0), 4, PLACES["close"], Rule.UNDECODABLE, "ffffffff"),
    "undecodable second word": (words(0xD503201F, 0xDC000000), 8, PLACES["close"], Rule.UNDECODABLE, "000000dc"),
    "branch back into the displaced bytes": (
        words(0xAA0003E1, 0xD1000400, 0xB5FFFFE0, 0xD65F03C0),
        8,
        PLACES["close"],
        Rule.BRANCH_INTO_DISPLACED,
        "e0ffffb5",
    ),
    "jump back into the displaced bytes": (
        words(0xD503201F, 0xD503201F, B_BACK_4),
        8,
        PLACES["close"],
        Rule.BRANCH_INTO_DISPLACED,
        "ffffff17",
    ),
    "exclusive pair split": (words(0xC85F7C20, 0x91000400, 0xC8027C20), 4, PLACES["close"], Rule.CANNOT_RELOCATE, "207c5fc8"),
    "exclusive pair split, acquire": (words(0x885FFC20, 0x11000400, 0x8802FC20), 8, PLACES["close"], Rule.CANNOT_RELOCATE, "20fc5f88"),
    "exclusive pair of registers split": (words(0xC87F0420, 0xC8220420), 4, PLACES["close"], Rule.CANNOT_RELOCATE, "20047fc8"),
    "exclusive store alone": (words(0xC8027C20, 0xD65F03C0), 4, PLACES["close"], Rule.CANNOT_RELOCATE, "207c02c8"),
    "literal inside an exclusive pair": (
        words(0xC85F7C20, 0x58000103, 0xC8027C20),
        12,
        PLACES["close"],
        Rule.CANNOT_RELOCATE,
        "03010058",
    ),
    "literal in the displaced bytes": (words(0x18000020, 0xD503201F), 8, PLACES["close"], Rule.CANNOT_RELOCATE, "20000018"),
    "literal that reaches into the displaced bytes": (words(0xD503201F, 0x5CFFFFC0), 8, PLACES["close"], Rule.CANNOT_RELOCATE, "c0ffff5c"),
    "no scratch register": (
        words(0xD2800030, 0xD2800031, 0x14000400),
        12,
        PLACES["far"],
        Rule.CANNOT_RELOCATE,
        "00040014",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str):
    code, displaced, trampoline_va, rule, raw = REFUSED[name]
    with pytest.raises(CannotRelocate) as caught:
        ARM64.trampoline(code, source_va=SOURCE, trampoline_va=trampoline_va, displaced=displaced)
    (refusal,) = caught.value.refusals
    assert refusal.rule is rule
    assert refusal.evidence["bytes"] == raw
    assert isinstance(refusal.evidence["instruction"], str)
    assert SOURCE <= refusal.evidence["address"] < SOURCE + max(len(code), 4)
    assert refusal.reason.count(". ") == 0


@pytest.mark.parametrize("displaced", [4, 8])
def test_a_branch_back_to_the_entry_is_a_loop_and_refused(displaced: int):
    code = words(0xAA0003E1, 0xD1000400, 0xB5FFFFC0, 0xD65F03C0)  # cbnz x0, entry
    with pytest.raises(CannotRelocate) as caught:
        ARM64.trampoline(code, source_va=SOURCE, trampoline_va=PLACES["close"], displaced=displaced)
    (refusal,) = caught.value.refusals
    assert refusal.rule is Rule.BRANCH_INTO_DISPLACED
    assert refusal.evidence["bytes"] == "c0ffffb5"


def test_a_call_of_the_entry_goes_through_the_redirect():
    code = words(0xAA0003E1, 0x97FFFFFF, 0xD65F03C0)  # bl entry
    assert ARM64.trampoline(code, source_va=SOURCE, trampoline_va=PLACES["close"], displaced=4).offsets == {0: 0}


@pytest.mark.parametrize(
    ("displaced", "source", "target"),
    [(0, SOURCE, PLACES["close"]), (-4, SOURCE, PLACES["close"]), (4, SOURCE + 2, PLACES["close"]), (4, SOURCE, 1)],
)
def test_bad_arguments_are_input_errors(displaced: int, source: int, target: int):
    with pytest.raises(InputError):
        ARM64.trampoline(words(0xD503201F) * 4, source_va=source, trampoline_va=target, displaced=displaced)


def test_adrp_of_a_negative_page_near_address_zero_wraps_as_the_processor_does():
    made = ARM64.trampoline(words(0xF0FFFFE0), source_va=0x1000, trampoline_va=0x7FF000000000, displaced=4)  # adrp x0, -1 page
    assert struct.unpack_from("<Q", made.code, 16)[0] == 0
    made = ARM64.trampoline(words(0xD0FFFFE0), source_va=0x1000, trampoline_va=0x7FF000000000, displaced=4)
    assert struct.unpack_from("<Q", made.code, 16)[0] == 0xFFFFFFFFFFFFF000


def test_a_literal_is_read_when_the_trampoline_runs_not_when_it_is_made():
    code = words(0x58000041, 0xD65F03C0) + struct.pack("<Q", 0x1122334455667788)
    made = ARM64.trampoline(code, source_va=SOURCE, trampoline_va=PLACES["far"], displaced=4)
    assert struct.pack("<Q", 0x1122334455667788) not in made.code
    assert struct.pack("<Q", SOURCE + 8) in made.code


def test_only_x16_and_x17_are_used_beyond_reach():
    for row in ROWS:
        used = {line.split(",")[0] for line in row.moved if line.startswith(("ldr x16, #", "ldr x17, #"))}
        assert used <= {"ldr x16", "ldr x17"}
        assert not any(line.startswith("br x") and line not in ("br x16", "br x17", *row.source) for line in row.moved)
