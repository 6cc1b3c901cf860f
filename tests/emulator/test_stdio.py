"""The C run time's standard input and output."""

from __future__ import annotations

import struct

import pytest

from hotpatch.emulator.win32.formats import format_text

from .bare import DATA, MACHINES, Bare


def bits(value: float) -> int:
    return int.from_bytes(struct.pack("<d", value), "little")


@pytest.mark.parametrize(
    ("form", "arguments", "text"),
    [
        ("plain 100%%", [], "plain 100%"),
        ("%d %i %u", [-1, 0xFFFF_FFFF, 0xFFFF_FFFF], "-1 -1 4294967295"),
        ("%lld %I64u %zu", [-(1 << 40), 1 << 63, 5], "-1099511627776 9223372036854775808 5"),
        ("%hhd %hd", [0xFF, 0x8000], "-1 -32768"),
        ("[%5d|%-5d|%05d|%+d|% d]", [42, 42, -42, 42, 42], "[   42|42   |-0042|+42| 42]"),
        ("%x %X %#x %08x %o %#x", [255, 255, 255, 255, 8, 0], "ff FF 0xff 000000ff 10 0"),
        ("%.3d %.0d|", [7, 0], "007 |"),
        ("%*d|%-*d|%.*f", [4, 7, 4, 7, 1, bits(0.25)], "   7|7   |0.2"),
        ("%f %.2f %e %g", [bits(1.5), bits(-2.345), bits(12345.678), bits(0.0001)], "1.500000 -2.35 1.234568e+04 0.0001"),
        ("%06.1f", [bits(-2.5)], "-002.5"),
        ("%c%c", [65, 0x142], "AB"),
        ("%p", [0x1234], "0000000000001234"),
        ("%q", [], "q"),
    ],
)
def test_conversions(form, arguments, text):
    words = iter(arguments)
    assert format_text(form.encode(), lambda: next(words), lambda _va, _width: b"").decode() == text


def test_strings_are_read_narrow_and_wide():
    seen = []

    def string(va: int, width: int) -> bytes:
        seen.append((va, width))
        return "wide".encode("utf-16-le") if width == 2 else b"narrow"

    words = iter([1, 2, 3, 0])
    assert format_text(b"%s|%ls|%.3s|%s", lambda: next(words), string) == b"narrow|wide|nar|(null)"
    assert seen == [(1, 1), (2, 2), (3, 1)]


@pytest.mark.parametrize("machine", MACHINES)
def test_output_is_text_and_goes_to_either_stream(machine):
    bare = Bare(machine)
    out, errors = (bare.call_api("__acrt_iob_func", index) for index in (1, 2))
    bare.poke(DATA, b"n = %d\n\0abc\0")
    bare.poke(DATA + 0x100, (7).to_bytes(8, "little"))
    assert bare.call_api("__stdio_common_vfprintf", 0, out, DATA, 0, DATA + 0x100) == 6
    assert bare.call_api("fputs", DATA + 8, errors) == 0
    assert bare.call_api("fwrite", DATA + 8, 1, 2, out) == 2
    assert bare.call_api("puts", DATA + 8) == ord("\n")
    assert bare.output == "n = 7\r\nabcababc\r\n"
    assert bare.call_api("fputs", DATA, bare.call_api("__acrt_iob_func", 0)) == 0xFFFF_FFFF_FFFF_FFFF


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("room", "stored", "result"), [(32, b"12345\0", 5), (6, b"12345\0", 5), (4, b"123\0", 5), (0, b"", 5)])
def test_texts_are_stored_as_far_as_there_is_room(machine, room, stored, result):
    bare = Bare(machine)
    bare.poke(DATA, b"%d\0")
    bare.poke(DATA + 0x100, (12345).to_bytes(8, "little"))
    assert bare.call_api("__stdio_common_vsprintf", 2, DATA + 0x200, room, DATA, 0, DATA + 0x100) == result
    assert bare.system.memory.read(DATA + 0x200, 8) == stored.ljust(8, b"\0")


@pytest.mark.parametrize("machine", MACHINES)
def test_lines_are_read_until_there_are_no_more(machine):
    bare = Bare(machine, stdin=b"one\r\ntwo\nthree")
    stdin = bare.call_api("__acrt_iob_func", 0)
    lines = []
    while bare.call_api("fgets", DATA, 5, stdin):
        lines.append(bare.system.guest_string(DATA, 1))
    assert lines == [b"one\n", b"two\n", b"thre", b"e"]
    assert bare.call_api("fgetc", stdin) == 0xFFFF_FFFF_FFFF_FFFF
    assert bare.call_api("feof", stdin) == 1


@pytest.mark.parametrize("machine", MACHINES)
def test_a_program_finds_its_arguments(machine):
    bare = Bare(machine)
    count = bare.peek(bare.call_api("__p___argc"), 4)
    table = bare.peek(bare.call_api("__p___argv"))
    found = [bare.system.guest_string(bare.peek(table + 8 * index), 1) for index in range(count)]
    assert found == [b"bare.exe", b"one", b"two"]
    assert bare.peek(table + 8 * count) == 0
