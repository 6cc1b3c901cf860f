"""Where functions end that no table bounds: code by hand, and what of it is one function."""

from __future__ import annotations

import pytest

from hotpatch.arch import Machine, architecture
from hotpatch.image.flow import end_of_function, padding_length

CC = "cc" * 8

# machine, code, where other functions are known to begin, size of the function at its start (None: no code)
ROWS = [
    ("ret", "x64", "31c0 c3 90", (), 3),
    ("jump-away", "x64", "e9 00010000 cc", (), 5),
    ("branch-over-return", "x64", "85c9 7401 c3 31c0 c3", (), 8),
    ("branch-back", "x64", "ffc9 75fc c3 cc", (), 5),
    ("jump-to-the-condition", "x64", "eb02 ffc9 85c9 75fa c3 cc", (), 9),
    ("jump-to-the-next-function", "x64", "eb00 31c0 c3", (), 2),
    ("tail-call-over-filler", "x64", f"eb08 {CC} 31c0 c3", (), 2),
    ("tail-call-over-another", "x64", "eb03 31c0 c3 ffc0 c3", (), 2),
    ("conditional-tail-call", "x64", f"85c9 7409 c3 {CC} 31c0 c3", (), 5),
    ("known-start-ends-it", "x64", "31c0 ffc0 c3", (2,), 2),
    ("trap-ends-it", "x64", "31c0 0f0b 31c0 c3", (), 4),
    ("call-goes-on", "x64", "e8 00000000 c3 cc", (), 6),
    ("call-forward-is-elsewhere", "x64", "e8 02000000 c3 90 31c0 c3", (), 6),
    ("no-code", "x64", "06", (), None),
    ("jump-over-a-tail-call-to-its-return", "x64", "85c9 7505 31c0 eb05 90 e9fb000000 c3", (), 15),
    ("jump-over-a-tail-call-to-another-function", "x64", "85c9 7505 31c0 eb0b 90 e9fb000000 909090909090 c3", (), 14),
    ("ret", "arm64", "000080d2 c0035fd6 1f2003d5", (), 8),
    ("next-function", "arm64", "01000014 000080d2 c0035fd6", (), 4),
    ("branch-over-return", "arm64", "400000b4 c0035fd6 000080d2 c0035fd6", (), 16),
    ("loop", "arm64", "000400f1 e1ffff54 c0035fd6 00000000", (), 12),
    ("jump-to-the-condition", "arm64", "02000014 000400d1 e0ffffb5 c0035fd6", (), 16),
    ("jump-over-a-tail-call-to-its-return", "arm64", "61000054 00008052 03000014 21240091 54810014 c0035fd6", (), 24),
    ("no-code", "arm64", "00000000 c0035fd6", (), 4),
]


@pytest.mark.parametrize(("machine", "code", "starts", "size"), [row[1:] for row in ROWS], ids=[f"{row[1]}-{row[0]}" for row in ROWS])
def test_end_of_function(machine, code, starts, size):
    address = 0x1000
    found = end_of_function(
        architecture(Machine(machine)), bytes.fromhex(code), address, {address + start for start in starts}, lambda at, count: b""
    )
    assert (found and found - address) == size


# machine, bytes before an entry, how many of them are filler
PADDING = [
    ("x64", "c3" + "cc" * 6, 6),
    ("x64", "c3" + "90", 1),
    ("x64", "c3" + "660f1f440000", 6),
    ("x64", "c3" + "0f1f8400000000006690", 10),
    ("x64", "c3" + "cc" * 3 + "0f1f4000", 7),
    ("x64", "c3", 0),
    ("x64", "31c0", 0),
    ("arm64", "c0035fd61f2003d5", 4),
    ("arm64", "c0035fd6", 0),
]


@pytest.mark.parametrize(("machine", "code", "size"), PADDING, ids=[f"{row[0]}-{row[1]}" for row in PADDING])
def test_padding(machine, code, size):
    assert padding_length(architecture(Machine(machine)), bytes.fromhex(code)) == size
