"""The basic blocks of functions: how many instructions each has and where it leads, on either machine, with symbols and without."""

from __future__ import annotations

import pytest

from hotpatch.arch import Machine
from hotpatch.cases import find_case
from hotpatch.differ import ListingBlock, Listings, diff_images
from hotpatch.differ.blocks import blocks
from hotpatch.differ.flows import Endings
from hotpatch.differ.view import View, view_of
from hotpatch.image import Image, open_image
from tests.builder.forge import Code, forge
from tests.image.test_tables_in_code import _byte_switch

X64, ARM64 = Machine.X64, Machine.ARM64
SWITCHES = {
    X64: "5 n1 t20 | 6 c2 c13 c10 c11 c4 c14 c17 c12 c19 c9 c18 c3 c7 c15 | 2 j8",
    ARM64: "4 n1 t18 | 9 c2 c12 c9 c10 c4 c13 c15 c11 c17 c8 c16 c3 c6 c14 | 2 j7",
}
"""What begins with a comparison and a jump through a table; the table's entries in their order."""
FIXTURES = {
    "a loop, an end, a cold part in a range of its own": (
        ("cold-part", "total"),
        {X64: "7 n1 | 2 n2 t4 | 4 n3 t5 | 2 j1 | 6 | 4 j3", ARM64: "6 n1 | 2 n2 t4 | 2 n3 t5 | 2 j1 | 5 | 4 j3"},
    ),
    "a jump table": (("jump-table", "execute"), SWITCHES),
    "the last call never returns, and the trap behind it is no block": (
        ("never-quiescent", "server"),
        {X64: "3", ARM64: "3"},
    ),
    "a loop without end": (("never-quiescent", "serve"), {X64: "9 n1 | 12 j1", ARM64: "12 n1 | 13 j1"}),
}


def shape(view: View, entry: int) -> str:
    """Instructions of each block, then its exits: the way's first letter and the block's number."""
    found = blocks(view, entry, Endings(view))
    return " | ".join(" ".join([str(end - first), *(f"{way[0]}{target}" for way, _, target in exits)]) for first, end, exits in found)


@pytest.mark.parametrize("pdb", ["auto", None], ids=["pdb", "no-pdb"])
@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("row", FIXTURES)
def test_blocks(row, machine, pdb) -> None:
    (case, name), expected = FIXTURES[row]
    path = find_case(case).image(machine)
    entry = open_image(path).function_named(name).entry
    found = shape(view_of(open_image(path, pdb=pdb)), entry)
    assert found.startswith(expected[machine]) if expected is SWITCHES else found == expected[machine]


FORGED = {
    "what never returns ends a block, what may does not": (
        X64,
        # f: test ecx, ecx; je +7; call g; nop; jmp -8; call h; ret    g: ud2    h: ret
        [Code("f", 0, "85c9 7408 e817000000 90 ebf4 e812000000 c3"), Code("g", 32, "0f0b"), Code("h", 40, "c3")],
        "2 n1 t3 | 1 | 2 j0 | 2",
    ),
    "a function that jumps to what never returns never returns": (
        X64,
        # f: call g; nop; ret    g: jmp h    h: ud2
        [Code("f", 0, "e81b000000 90 c3"), Code("g", 32, "e903000000"), Code("h", 40, "0f0b")],
        "1 | 2",
    ),
    "two that jump to each other may return": (
        X64,
        [Code("f", 0, "e81b000000 90 c3"), Code("g", 32, "eb06"), Code("h", 40, "ebf6")],
        "3",
    ),
    "Arm64: what never returns ends a block": (
        ARM64,
        # f: cbz w0, +12; bl g; nop; bl h; ret    g: brk #0    h: ret
        [Code("f", 0, "60000034 07000094 1f2003d5 07000094 c0035fd6"), Code("g", 32, "000020d4"), Code("h", 40, "c0035fd6")],
        "1 n1 t3 | 1 | 1 n3 | 2",
    ),
    "a jump table between code is no code, and code goes on behind it": (
        ARM64,
        [Code("f", 16, _byte_switch().hex())],
        "2 n1 t2 | 5 c2 c3 c4 | 1 | 1 | 1 | 1 | 1 | 2",
    ),
}


@pytest.mark.parametrize("row", FORGED)
def test_blocks_of_code_made_by_hand(row) -> None:
    machine, functions, expected = FORGED[row]
    image = forge(machine, functions)
    assert shape(view_of(image), image.functions[0].entry) == expected


ALIGNED = {
    # f: test ecx, ecx; je one; xor eax, eax; ret; nop; one: mov eax, 1; ret
    X64: ("85c9 7404 31c0 c3 90 b801000000 c3", "85c9 7403 31c0 c3 b802000000 c3", "85c9 7404 31c0 c3 cc b801000000 c3"),
    # f: cbz w0, one; mov w0, #0; ret; nop; one: mov w0, #1; ret
    ARM64: (
        "80000034 00008052 c0035fd6 1f2003d5 20008052 c0035fd6",
        "60000034 00008052 c0035fd6 40008052 c0035fd6",
        "80000034 00008052 c0035fd6 000020d4 20008052 c0035fd6",
    ),
}


@pytest.mark.parametrize("machine", Machine)
def test_no_operations_behind_a_jump_do_not_count_as_a_difference(machine) -> None:
    padded, tight, trap = (forge(machine, [Code("f", 0, code)]) for code in ALIGNED[machine])
    there = _listed(padded, tight)
    assert [(block.kind, block.padding, block.differs) for block in there] == [
        ("same", False, False),
        ("same", False, False),
        ("removed", True, False),
        ("changed", False, True),
    ]
    assert [block.differs for block in _listed(tight, padded) if block.padding] == [False]
    assert [block.differs for block in _listed(trap, tight) if block.kind == "removed"] == [True]


def _listed(base: Image, fixed: Image) -> tuple[ListingBlock, ...]:
    found = diff_images(base, fixed)
    return Listings(found).of(next(row for row in found.functions if row.name == "f")).blocks
