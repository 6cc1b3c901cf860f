"""A word that only new functions use, in a place where the base may have something of its own."""

from __future__ import annotations

import struct

import pytest

from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.builder import build_patch
from hotpatch.differ import ImageDiff, diff_images
from hotpatch.errors import NotHotpatchable
from tests.builder.test_reaches import RETURNS, reaches, reads
from tests.builder.test_type_records import takes
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

each_machine = pytest.mark.parametrize("machine", Machine)


def calls(machine: Machine, at: int, target: int) -> bytes:
    """Code that goes on in a function (a tail call)."""
    if machine is Machine.X64:
        return b"\xe9" + struct.pack("<i", target - at - 5)
    return architecture(machine).bind(FixupKind.BRANCH26, struct.pack("<I", 0x14000000), at, target)


def hands(machine: Machine, at: int, target: int, distance: int) -> bytes:
    """Code that calls the first of the reading functions with an address, which it makes at a distance from another."""
    if machine is Machine.X64:  # lea rcx, [target]; add rcx, distance; call
        code = b"\x48\x8d\x0d" + architecture(machine).bind(FixupKind.REL32, bytes(4), at + 3, target)
        code += b"\x48\x83\xc1" + bytes([distance]) if distance else b""
        return code + b"\xe8" + struct.pack("<i", TEXT + 0x40 - at - len(code) - 5)
    code = takes(machine, at, target) + (struct.pack("<I", 0x91000000 | distance << 10) if distance else b"")
    return code + struct.pack("<I", 0x94000000 | (TEXT + 0x40 - at - len(code)) // 4 & 0x3FFFFFF)


def pair(machine: Machine, *, used: str = "", room: int = 0, reckoned: int = 0) -> ImageDiff:
    """Functions that read words 8 bytes apart; in the fixed image another is put in the middle, for a new function that one now calls.

    ``used``: what speaks against its being new: the base has a word there that a changed function has ``lost``, or in the fixed image an
    ``old`` function reads it, too. ``room``: bytes behind it that nothing uses. ``reckoned``: the distance from another datum of what the
    changed function hands on, as the base reckons it; the fixed image names it.
    """
    images = []
    for is_fixed in (False, True):
        pe = Pe(machine)
        pe.cursor = RDATA + 0x800
        moved = 8 + room if is_fixed else 0
        words = [DATA + 0x100, DATA + 0x108, DATA + 0x118 + moved, DATA + 0x120 + moved]
        new, entries = DATA + 0x110, []
        whole = words[0] - 0x80
        for number, word in enumerate([*words, whole] if reckoned else words, 1):
            at = TEXT + 0x40 * number
            pe.put(at, reads(machine, at, word, number))
            entries.append((f"g{number}", at))
        at = TEXT + 0x200
        if is_fixed:
            before = reads(machine, at, new, 7)[: -len(RETURNS[machine])] if used == "old" else b""
            before = hands(machine, at, whole + reckoned, 0) if reckoned else before
            code = before + calls(machine, at + len(before), TEXT + 0x400)
            pe.put(TEXT + 0x400, reads(machine, TEXT + 0x400, new, 9))
        elif reckoned:
            code = hands(machine, at, whole, reckoned) + RETURNS[machine]
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
def test_what_nothing_uses_behind_a_word_does_not_make_it_larger(machine: Machine) -> None:
    patch = build_patch(pair(machine, room=24))
    assert [item.kind.value for item in patch.carried].count("data") == 1


@each_machine
def test_what_the_base_reckons_and_the_fixed_image_names_is_not_lost(machine: Machine) -> None:
    patch = build_patch(pair(machine, reckoned=0x40))
    assert [item.kind.value for item in patch.carried].count("data") == 1


@each_machine
@pytest.mark.parametrize("used", ["lost", "old"])
def test_what_changed_code_used_or_uses_may_be_the_bases(machine: Machine, used: str) -> None:
    with pytest.raises(NotHotpatchable):
        build_patch(pair(machine, used=used))


def behind(machine: Machine, *, wide: bool = False, indexed: bool = False, handed: bool = False) -> ImageDiff:
    """Something new of two words, and what is aligned behind it, of which a function takes the address that changed.

    The base has room for one word in the place of the new ones, and what is behind them nearer, as alignment asks. The new function that
    uses them reads three words where ``wide``, which leaves no room for alignment, or goes over them by an index where ``indexed``.
    What lies before them has its address taken, and handed back where ``handed``.
    """
    images = []
    for is_fixed in (False, True):
        pe = Pe(machine)
        pe.cursor = RDATA + 0x800
        new, aligned = DATA + 0x118, DATA + (0x130 if is_fixed else 0x120)
        words, entries = [DATA + 0x100, DATA + 0x108, aligned, aligned + 0x10], []
        for number, word in enumerate(words, 1):
            at = TEXT + 0x40 * number
            pe.put(at, reads(machine, at, word, number))
            entries.append((f"g{number}", at))
        taken = takes(machine, TEXT + 0x300, words[1]) + RETURNS[machine]
        pe.put(TEXT + 0x300, taken if handed else reaches(machine, TEXT + 0x300, words[1], 0, changed=False))
        entries.append(("taking", TEXT + 0x300))
        at = TEXT + 0x200
        code = takes(machine, at, aligned)
        if is_fixed:  # twice, so that the base's version of the function does not tell which of the two is meant
            code += takes(machine, at + len(code), aligned)
            code += calls(machine, at + len(code), TEXT + 0x400)
            place = TEXT + 0x400
            for distance in (0, 8, 0x14) if wide else (0, 8):
                part = reaches(machine, place, new, distance, changed=False)[: -len(RETURNS[machine])]
                pe.put(place, part)
                place += len(part)
            pe.put(place, reaches(machine, place, new, 0, changed=True, walks=indexed))
        else:
            code += RETURNS[machine]
        pe.put(at, code)
        entries.append(("f", at))
        pe.exports("word.dll", entries)
        images.append(pe.build("word.dll"))
    return diff_images(*images)


@each_machine
def test_what_is_aligned_behind_new_words_is_no_end_of_what_was_before_them(machine: Machine) -> None:
    patch = build_patch(behind(machine))
    assert [item.kind.value for item in patch.carried].count("data") == 1


@each_machine
@pytest.mark.parametrize("wide", [{"wide": True}, {"indexed": True}], ids=["used-to-its-end", "gone-over-by-an-index"])
def test_what_may_be_the_end_of_new_words(machine: Machine, wide: dict[str, bool]) -> None:
    with pytest.raises(NotHotpatchable, match="or the end of the one before it"):
        build_patch(behind(machine, **wide))


@each_machine
def test_what_may_be_elements_of_what_is_before_them_are_not_new(machine: Machine) -> None:
    with pytest.raises(NotHotpatchable, match="may be new or one that the base has"):
        build_patch(behind(machine, handed=True))
