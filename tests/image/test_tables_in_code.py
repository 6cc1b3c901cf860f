"""Jump tables that stand in code, as MSVC puts them: found in releases, made here by hand."""

from __future__ import annotations

import struct

from hotpatch.arch import Machine, architecture
from hotpatch.image import Range
from tests.builder.forge import TEXT, Code, forge


def _byte_switch() -> bytes:
    """A switch over three cases with a table of bytes behind them, which ends at no whole word."""
    words = [
        0x7100081F,  # cmp w0, #2
        0x540000C8,  # b.hi +24: to the first case
        0x10000149,  # adr x9, +40: the table
        0x38A04929,  # ldrsb x9, [x9, w0, uxtw]
        0x1000006A,  # adr x10, +12: the first case
        0x8B29C94A,  # add x10, x10, w9, sxtw #2
        0xD61F0140,  # br x10
        0xD65F03C0,  # first case: ret
        0xD65F03C0,
        0xD65F03C0,
        0xD65F03C0,
        0xD65F03C0,
    ]
    table = struct.pack("3b", 0, 1, 2)
    return struct.pack(f"<{len(words)}I", *words) + table + b"\x25" + struct.pack("<II", 0x94000010, 0xD65F03C0)


def test_code_goes_on_at_a_whole_word_behind_a_table_of_bytes():
    code = _byte_switch()
    image = forge(Machine.ARM64, [Code("f", 16, code.hex())])
    start = TEXT + 16
    part = Range(start, start + len(code))
    (table,) = image.jump_tables_in(part)
    assert (table.address, table.entry_size, len(table.targets)) == (start + 48, 1, 3)
    call = next(one for one in image.references_in(part) if one.use == "call")
    assert (call.offset, call.target) == (52, start + 52 + 0x40)


def test_a_bound_is_known_where_the_branch_that_checks_it_leaves_the_code():
    """A function in parts: what is out of bounds goes on in another one."""
    code = _byte_switch()
    away = code.replace(struct.pack("<I", 0x540000C8), struct.pack("<I", 0x54002008))
    (table,) = architecture(Machine.ARM64).jump_tables(away, TEXT, lambda at, size: away[at - TEXT :][:size], limit=lambda at, size: at + 1)
    assert table.exact
    assert len(table.targets) == 3
