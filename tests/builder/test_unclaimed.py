"""A word that only new functions use, in a place where the base may have something of its own."""

from __future__ import annotations

import struct

import pytest

from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.builder import build_patch
from hotpatch.differ import ImageDiff, diff_images
from hotpatch.errors import NotHotpatchable
from tests.builder.test_reaches import RETURNS, reads
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

each_machine = pytest.mark.parametrize("machine", Machine)


def calls(machine: Machine, at: int, target: int) -> bytes:
    """Code that goes on in a function (a tail call)."""
    if machine is Machine.X64:
        return b"\xe9" + struct.pack("<i", target - at - 5)
    return architecture(machine).bind(FixupKind.BRANCH26, struct.pack("<I", 0x14000000), at, target)


def pair(machine: Machine, *, used: str = "") -> ImageDiff:
    """Functions that read words 8 bytes apart; in the fixed image another is put in the middle, for a new function that one now calls.

    ``used``: what speaks against its being new: the base has a word there that a changed function has ``lost``, or in the fixed image an
    ``old`` function reads it, too.
    """
    images = []
    for is_fixed in (False, True):
        pe = Pe(machine)
        pe.cursor = RDATA + 0x800
        moved = 8 if is_fixed else 0
        words = [DATA + 0x100, DATA + 0x108, DATA + 0x118 + moved, DATA + 0x120 + moved]
        new, entries = DATA + 0x110, []
        for number, word in enumerate(words, 1):
            at = TEXT + 0x40 * number
            pe.put(at, reads(machine, at, word, number))
            entries.append((f"g{number}", at))
        at = TEXT + 0x200
        if is_fixed:
            before = reads(machine, at, new, 7)[: -len(RETURNS[machine])] if used == "old" else b""
            code = before + calls(machine, at + len(before), TEXT + 0x400)
            pe.put(TEXT + 0x400, reads(machine, TEXT + 0x400, new, 9))
        else:
            code = reads(machine, at, new, 5) if used == "lost" else reads(machine, at, words[0], 5)
        pe.put(at, code)
        entries.append(("f", at))
        pe.exports("word.dll", entries)
        images.append(pe.build("word.dll"))
    return diff_images(*images)


@each_machine
def test_a_word_of_new_functions_travels(machine: Machine) -> None:
    patch = build_patch(pair(machine))
    assert [item.kind.value for item in patch.carried].count("data") == 1


@each_machine
@pytest.mark.parametrize("used", ["lost", "old"])
def test_what_changed_code_used_or_uses_may_be_the_bases(machine: Machine, used: str) -> None:
    with pytest.raises(NotHotpatchable):
        build_patch(pair(machine, used=used))
