"""Functions that no call and no function table leads to: by exception data, by standing whole between others; and parts put together."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from hotpatch.arch import Machine, architecture
from hotpatch.image.funclets import funclets
from hotpatch.image.gaps import whole_functions
from hotpatch.image.model import Range

CODE, DATA, SIZE = 0x1000, 0x2000, 0x1000


@dataclass
class Plain:
    """An image with a section of code and one of data, as far as the searches look at it."""

    code: bytes = b""
    data: bytes = b""
    machine: Machine = Machine.X64

    @property
    def architecture(self):
        return architecture(self.machine)

    @property
    def sections(self):
        return [SimpleNamespace(range=Range(at, at + SIZE), executable=at == CODE) for at in (CODE, DATA)]

    @property
    def unwind_entries(self):
        return [SimpleNamespace(handler_data=DATA)]

    def section_at(self, rva):
        return next((section for section in self.sections if rva in section.range), None)

    def read(self, rva, size):
        mapped = bytes(CODE) + self.code.ljust(SIZE, b"\xcc") + self.data.ljust(SIZE, b"\0")
        return mapped[rva : rva + size]

    def table_limit(self, address, size):
        return address


def words(*values):
    return b"".join(value if isinstance(value, bytes) else struct.pack("<I", value & 0xFFFFFFFF) for value in values)


# what lies at the handler's data, and the functions that it leads to
EXCEPTION_DATA = [
    ("scopes", words(2, 0x1000, 0x1010, 0x1100, 0x1010, 0x1020, 0x1030, 0x1200, 0), [0x1100, 0x1200]),
    ("scope-that-always-handles", words(1, 0x1000, 0x1010, 1, 0x1010), []),
    ("scopes-out-of-code", words(1, 0x1000, 0x1010, 0x2100, 0), []),
    ("scopes-that-end-before-they-begin", words(1, 0x1010, 0x1000, 0x1100, 0), []),
    (
        "frame-handler-3",
        words(
            0x2008, 0, 0x19930522, 2, 0x2030, 1, 0x2040, 0, 0, 0, 0, 0, -1, 0x1300, 0, 0, 0, 0, 1, 1, 0x2060, 0, 0, 0, 0, 0, 0, 0x1400, 0
        ),
        [0x1300, 0x1400],
    ),
    ("frame-handler-3-of-another-magic", words(0x2008, 0, 0x19930519, 1, 0x2030, 0, 0, 0, 0, 0, 0, 0, -1, 0x1300), []),
    (
        "frame-handler-4-state-without-action",
        words(0x2004, b"\x28", 0x2010, 0x2020, bytes(3), b"\x06\x0e", 0x1300, b"\x12", 0x1310, b"\x05\x00\x20"),
        [0x1300, 0x1310],
    ),
    ("frame-handler-4-action-out-of-code", words(0x2004, b"\x28", 0x2010, 0x2020, bytes(3), b"\x02\x0e", 0x2300), []),
    (
        "frame-handler-4-actions-with-their-objects",
        words(0x2004, b"\x28", 0x2010, 0x2020, bytes(3), b"\x08\x0e", 0x1300, b"\x12", 0x1310, b"\x40", b"\x05\x01", 0x1320, b"\x10\x10"),
        [0x1300, 0x1310, 0x1320],
    ),
    (
        "frame-handler-4-catch",
        words(0x2004, b"\x10", 0x2010, 0x2020, bytes(3), b"\x02\x00\x00\x02", 0x2018, b"\x02\x13\x01\x02", 0x2000, 0x1500, b"\x44"),
        [0x1500],
    ),
]


@pytest.mark.parametrize(("data", "found"), [row[1:] for row in EXCEPTION_DATA], ids=[row[0] for row in EXCEPTION_DATA])
def test_exception_data(data, found):
    assert list(funclets(Plain(data=data))) == found


# machine, the code between two functions, where functions begin in it
GAPS = [
    ("behind-filler", "x64", "cccccccccccccccc 31c0 c3 cc", [8]),
    ("two", "x64", "31c0 c3 cccccccccc 31c9 c3", [0, 8]),
    ("packed-thunks", "x64", "488d4a10 e9f7feffff 488d4a20 e9eefeffff", [0, 9]),
    ("thunk-to-nowhere", "x64", "488d4a10 e9f1feffff", []),
    ("unaligned-behind-filler", "x64", "cccc 31c0 c3", []),
    ("return-that-a-call-leaves-over", "x64", "c3", []),
    ("no-end", "x64", "31c0 31c9", []),
    ("data-behind", "x64", "31c0 c3 cccccccccc 06 06", []),
    ("behind-filler", "arm64", "1f2003d5 00000000 00008052 c0035fd6", [8]),
    ("jump-to-a-function", "arm64", "c0ffff17 1f2003d5 00000000", [0]),
    ("return-that-a-call-leaves-over", "arm64", "c0035fd6", []),
    ("literals", "arm64", "32a2df2d 992b0000", []),
]


@pytest.mark.parametrize(("machine", "code", "found"), [row[1:] for row in GAPS], ids=[f"{row[1]}-{row[0]}" for row in GAPS])
def test_whole_functions_between_others(machine, code, found):
    start, raw = CODE + 0x100, bytes.fromhex(code)
    image = Plain(code=bytes(0x100) + raw, machine=Machine(machine))
    assert [entry - start for entry in whole_functions(image, (start, start + len(raw)), (), (), lambda rva: rva == CODE)] == found
    if found:
        assert whole_functions(image, (start, start + len(raw)), (), {start + found[0]}, lambda rva: rva == CODE) == []
