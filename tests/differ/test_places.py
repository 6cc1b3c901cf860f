"""How far things go that code refers to: a field of the load configuration, a literal in front of a function."""

from __future__ import annotations

import struct

import pytest

from hotpatch.arch import Machine
from hotpatch.differ import Verdict, diff_images
from tests.builder.test_reaches import RETURNS, reads
from tests.differ.test_elsewhere import named
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

COOKIE, COUNT, FLAGS = 0x58, 0x88, 0x90
"""SecurityCookie, GuardCFFunctionCount and GuardFlags of IMAGE_LOAD_CONFIG_DIRECTORY64; bytes."""


def configured(machine, count, flags, *, reading=FLAGS):
    """``f`` reads the field at ``reading`` of the load configuration, two of which are given."""
    pe = Pe(machine)
    pe.load_configuration(cookie=DATA, check=RDATA + 0xF00, dispatch=RDATA + 0xF08)
    start, size = pe.directories["load_config"]
    pe.put(start + COUNT, struct.pack("<QI", count, flags))
    pe.put(TEXT, reads(machine, TEXT, start + reading, 1))
    pe.exports("configured.dll", [("f", TEXT)])
    return named(pe.build("configured.dll"), {"_load_config_used": (start, size)})


# count and flags of the fixed image, what is read, whether the function differs
FIELDS = [
    pytest.param(8, 0x500, FLAGS, False, id="another-field-differs"),
    pytest.param(7, 0x501, FLAGS, True, id="the-field-differs"),
    pytest.param(8, 0x501, COOKIE, False, id="a-pointer-to-the-same"),
]


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(("count", "flags", "reading", "differs"), FIELDS)
def test_of_the_load_configuration_the_field_counts_that_is_read(machine, count, flags, reading, differs):
    diff = diff_images(configured(machine, 7, 0x500, reading=reading), configured(machine, count, flags, reading=reading))
    (row,) = diff.functions
    assert (row.verdict is Verdict.CHANGED) == differs


def pooled(literal, behind):
    """``f`` reads a literal, right behind which a function begins of which only the function table tells; it jumps ``behind`` bytes on."""
    pe = Pe(Machine.ARM64)
    pe.put(TEXT, struct.pack("<I", 0x18000040) + RETURNS[Machine.ARM64] + struct.pack("<I", literal))  # ldr w0, literal; ret
    pe.put(TEXT + 12, struct.pack("<I", 0x14000000 | behind // 4))  # b g
    pe.put(TEXT + 12 + behind, struct.pack("<I", 0x52800020) + RETURNS[Machine.ARM64])  # mov w0, #1; ret
    pe.directories["exception"] = (pe.add(struct.pack("<II", TEXT + 12, 1 | 1 << 2)), 8)
    pe.exports("pooled.dll", [("f", TEXT), ("g", TEXT + 12 + behind)])
    return pe.build("pooled.dll")


@pytest.mark.parametrize(
    ("literal", "behind", "differs"), [(7, 0x80, False), (8, 0x40, True)], ids=["code-behind-it-differs", "it-differs"]
)
def test_a_literal_ends_where_a_function_begins(literal, behind, differs):
    rows = {row.name: row.verdict for row in diff_images(pooled(7, 0x40), pooled(literal, behind)).functions}
    assert (rows["f"] is Verdict.CHANGED) == differs
