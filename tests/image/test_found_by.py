"""Functions that no call and no function table leads to: by exception data, by standing whole between others; and parts put together."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from hotpatch.arch import Machine, architecture
from hotpatch.image import Image
from hotpatch.image.funclets import funclets
from hotpatch.image.gaps import whole_functions
from hotpatch.image.model import FunctionSource, Range
from tests.emulator.pe import DATA as PE_DATA
from tests.emulator.pe import RDATA, TEXT, Pe
from tests.image.conftest import FIXTURES

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

    def kept(self, make):
        return make(self)

    @property
    def unwind_entries(self):
        return [SimpleNamespace(handler_data=DATA, range=Range(CODE, CODE + 16))]

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
    assert [funclet.entry for funclet in funclets(Plain(data=data))] == found


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


# machine, code: ``first`` ends with a conditional tail call over ``second`` to one that has no name
OVER = [
    ("x64", "85c9 0f8418000000 89c8 c3", "31c0 c3", "b807000000 c3"),
    ("arm64", "00010034 00040011 c0035fd6", "00008052 c0035fd6", "e0008052 c0035fd6"),
]


@pytest.mark.parametrize(("machine", "first", "second", "third"), OVER, ids=[row[0] for row in OVER])
def test_a_branch_over_known_functions_does_not_take_them(machine, first, second, third):
    pe = Pe(Machine(machine))
    pe.put(TEXT, b"\xcc" * 64 if machine == "x64" else bytes(64))
    for at, code in ((TEXT, first), (TEXT + 16, second), (TEXT + 32, third)):
        pe.put(at, bytes.fromhex(code))
    pe.exports("over.dll", [("first", TEXT), ("second", TEXT + 16)])
    found = {function.name: function.ranges for function in pe.build("over.dll").functions}
    sizes = {"first": first, "second": second, None: third}
    assert found == {
        name: (Range(TEXT + 16 * index, TEXT + 16 * index + len(bytes.fromhex(sizes[name]))),) for index, name in enumerate(sizes)
    }


RETURN, LOADS = "c0035fd6", "c000005c c0035fd6"
"""Arm64: a return; and a function at ``TEXT + 0x20`` that loads the eight bytes before ``TEXT + 0x40``."""
LEAF = "000040b9 c0035fd6"

# what stands at TEXT + 0x20, before TEXT + 0x40 and there, and whether a function begins there, whose address is only ever taken
TAKEN = [
    ("behind-a-literal", LOADS, "00000000 00e06f40", LEAF, True),
    ("behind-what-nobody-reads", RETURN, "00000000 00e06f40", LEAF, False),
    ("no-code-behind-a-literal", LOADS, "00000000 00e06f40", "000040b9 fbfbfbfb", False),
    ("behind-a-return", RETURN, "00008052 c0035fd6", LEAF, True),
    ("no-code-behind-a-return", RETURN, "00008052 c0035fd6", "000040b9 fbfbfbfb", False),
]


@pytest.mark.parametrize(("reader", "before", "taken", "found"), [row[1:] for row in TAKEN], ids=[row[0] for row in TAKEN])
def test_an_address_that_is_only_taken(reader, before, taken, found):
    pe = Pe(Machine.ARM64)
    pe.put(TEXT, bytes(0x80))
    pe.put(TEXT, bytes.fromhex("08000090 08010191 e00308aa c0035fd6"))
    pe.put(TEXT + 0x20, bytes.fromhex(reader))
    pe.put(TEXT + 0x38, bytes.fromhex(before + taken))
    pe.exports("taken.dll", [("user", TEXT), ("reader", TEXT + 0x20)])
    assert ((TEXT + 0x40) in [function.entry for function in pe.build("taken.dll").functions]) is found


@pytest.mark.parametrize(
    ("before", "found"), [("488b05d10f0000c3", True), ("85c9740431c090c3", False)], ids=["a-function", "code-that-leads-there"]
)
def test_an_address_that_is_only_taken_behind_a_function_that_nothing_leads_to(before, found):
    """As in Microsoft's C run time: accessors of eight bytes that nobody calls leave no room for filler."""
    pe = Pe(Machine.X64)
    pe.put(TEXT, b"\xcc" * 0x80)
    pe.put(TEXT, bytes.fromhex("488d0d21000000c3"))
    pe.put(TEXT + 0x20, bytes.fromhex(before + "31c0c3"))
    pe.exports("taken.dll", [("user", TEXT)])
    assert ((TEXT + 0x28) in [function.entry for function in pe.build("taken.dll").functions]) is found


def _records(pe, *rows):
    """An Arm64 function table; each row has the start, the words of code, and the unwind codes of a frame."""
    entries = [(start, pe.add(struct.pack("<I", count | 1 << 21 | 1 << 27) + bytes.fromhex(codes))) for start, count, codes in rows]
    pe.directories["exception"] = (pe.add(b"".join(struct.pack("<2I", *entry) for entry in entries)), 8 * len(entries))


def test_a_frame_that_begins_behind_the_entry():
    """A function tests its argument before it makes a frame, right behind another whose frame ends before its return."""
    pe = Pe(Machine.ARM64)
    pe.put(TEXT, bytes(0x80))
    pe.put(TEXT, bytes.fromhex("08000090 08010191 e00308aa c0035fd6"))
    pe.put(TEXT + 0x34, bytes.fromhex("fe0f1ff8 fe0741f8 c0035fd6 800000b4 fe0f1ff8 00008052 fe0741f8 c0035fd6"))
    pe.exports("frame.dll", [("user", TEXT)])
    _records(pe, (TEXT + 0x34, 2, "d3c1e4e4"), (TEXT + 0x44, 3, "d3c1e4e4"))
    found = {function.entry: function.ranges for function in pe.build("frame.dll").functions}
    assert found[TEXT + 0x40] == (Range(TEXT + 0x40, TEXT + 0x54),)
    assert TEXT + 0x44 not in found


def test_a_part_that_its_function_returns_from_is_no_function():
    """Code apart from its function, which leads there and which it leads back to the middle of, both in the function table."""
    pe = Pe(Machine.ARM64)
    pe.put(TEXT, bytes(0x80))
    pe.put(TEXT + 0x10, bytes.fromhex("fe0f1ff8 a0000034 a1000034 fe0741f8 c0035fd6 1f2003d5 e0008052 40ffff34 c0035fd6"))
    pe.exports("part.dll", [("other", TEXT)])
    pe.put(TEXT, bytes.fromhex(RETURN))
    _records(pe, (TEXT + 0x10, 5, "d3c1e4e4"), (TEXT + 0x28, 3, "d3c1e4e4"))
    assert [function.entry for function in pe.build("part.dll").functions] == [TEXT, TEXT + 0x10]


def test_the_end_of_a_part_has_a_frame_that_others_made_and_is_no_function():
    """MSVC for Arm64 gives each way out an entry of its own, and the end that two of them share another, which goes on with the frame."""
    pe = Pe(Machine.ARM64)
    pe.put(TEXT, bytes(0x80))
    start = TEXT + 0x10
    code = (0xF81F0FFE, 0x37F800E0, 0x34000081, 0x34000102, 0xF84107FE, 0xD65F03C0)  # str lr; tbnz, cbz, cbz: to the three; ldr lr; ret
    one, end = (0x52800020, 0xD503201F), (0x12800000, 0xF84107FE, 0xD65F03C0)  # mov; nop, and on: mov w0, #-1; ldr lr; ret
    other = (0x34FFFFA3, 0xD65F03C0)  # cbz: to the end; ret
    pe.put(start, words(*code, *one, *end, *other))
    pe.exports("part.dll", [("other", TEXT)])
    pe.put(TEXT, bytes.fromhex(RETURN))
    _records(pe, *((start + at, count, "e5d3c1e4" if at else "d3c1e4e4") for at, count in ((0, 6), (0x18, 2), (0x20, 3), (0x2C, 2))))
    assert [function.ranges for function in pe.build("part.dll").functions][1:] == [(Range(start, start + 0x34),)]


def test_an_end_that_code_before_it_runs_on_into_is_no_function():
    """Parts of one function with an entry each: a later one branches to an end in an earlier one's middle, which returns by itself."""
    pe = Pe(Machine.ARM64)
    pe.put(TEXT, bytes(0x80))
    start = TEXT + 0x10
    code = (0xF81F0FFE, 0x34000060, 0xF84107FE, 0xD65F03C0)  # str lr; cbz: to the first part; ldr lr; ret
    first = (0x340000A1, 0x52800020, 0x52800140, 0xF84107FE, 0xD65F03C0)  # cbz: to the second; mov, and the end: mov; ldr lr; ret
    second = (0x34FFFFA3, 0xD65F03C0)  # cbz: to the end; ret
    pe.put(start, words(*code, *first, *second))
    pe.exports("part.dll", [("other", TEXT), ("parts", start)])
    pe.put(TEXT, bytes.fromhex(RETURN))
    _records(pe, *((start + at, count, "d3c1e4e4") for at, count in ((0, 4), (0x10, 5), (0x24, 2))))
    assert [function.ranges for function in pe.build("part.dll").functions][1:] == [(Range(start, start + 0x2C),)]


@pytest.mark.parametrize(("read", "found"), [(0, [TEXT, TEXT + 24]), (0x10, [TEXT])], ids=["cookie", "another-word"])
def test_the_check_of_the_cookie_and_what_reports_its_failure(read, found):
    """As Microsoft's C runtime has them on Arm64: the check, which has no frame, branches to a function that never returns."""
    pe = Pe(Machine.ARM64)
    page, offset = 0x90000010 | (PE_DATA - TEXT >> 12 & 3) << 29, 0x91000210 | read << 10
    pe.put(TEXT, struct.pack("<II", page, offset) + bytes.fromhex("100240f9 1f0010eb 41000054 c0035fd6"))
    pe.put(TEXT + 24, bytes.fromhex("fd7bbea9 fd030091 bf0300f9 00003ed4"))
    pe.load_configuration(cookie=PE_DATA, check=RDATA, dispatch=RDATA)
    bare = pe.add(struct.pack("<I", 6 | 1 << 21 | 1 << 27) + b"\xe4\xe4\xe4\xe4")
    framed = pe.add(struct.pack("<I", 4 | 1 << 21 | 1 << 27) + b"\xe1\x83\xe4\xe4")
    pe.directories["exception"] = (pe.add(struct.pack("<4I", TEXT, bare, TEXT + 24, framed)), 16)
    assert [function.entry for function in pe.build("check.dll").functions] == found


@pytest.mark.parametrize(("filler", "is_function"), [("0f1f00", False), ("cccccc", True)], ids=["in-the-section", "linked-apart"])
def test_blocks_of_exceptions_belong_to_what_they_stand_in(filler, is_function):
    """clang lays a ``__finally`` block behind its function and counts it to that; Microsoft's compiler makes a procedure of it, apart."""
    path = FIXTURES / "exception" / "x64" / "base.exe"
    data, before = path.read_bytes(), bytes.fromhex("4881 45f8 bc020000 ebec")
    assert data.count(before + bytes.fromhex("0f1f00")) == 1
    image = Image.from_bytes(data.replace(before + bytes.fromhex("0f1f00"), before + bytes.fromhex(filler)), "base.exe")
    at = image.mapped.index(before + bytes.fromhex(filler)) + len(before) + 3
    owner = image.function_at(at)
    assert (owner.entry == at) is is_function
    assert bool(owner.source & FunctionSource.EXCEPTION) is is_function
    assert len(owner.ranges) == 1


def test_cases_of_a_switch_in_parts_of_their_own_are_no_functions():
    """MSVC for Arm64 gives what returns by itself an entry of its own; what bounds the index may stand in another part than the jump."""
    pe = Pe(Machine.ARM64)
    pe.put(TEXT, bytes(0x80))
    check = (0x7100081F, 0x54000049, 0xD65F03C0)  # cmp w0, #2; b.ls: to the next part; ret
    jump = (0x10000149, 0x38A04929, 0x1000006A, 0x8B29C94A, 0xD61F0140, 0xD65F03C0)  # adr; ldrsb; adr; add; br; the first case: ret
    second, third = (0x528000E0, 0xD65F03C0), (0x52800020, 0xD65F03C0)
    start = TEXT + 0x10
    pe.put(start, words(*check, *jump, *second, *third, bytes((0, 1, 3, 0))))
    pe.exports("switch.dll", [("other", TEXT), ("switch", start)])
    pe.put(TEXT, bytes.fromhex(RETURN))
    rows = [(start, 3), (start + 0xC, 6), (start + 0x24, 2), (start + 0x2C, 3)]
    _records(pe, *((at, count, "e4e4e4e4") for at, count in rows))
    assert [function.ranges for function in pe.build("switch.dll").functions][1:] == [(Range(start, start + 0x38),)]


@pytest.mark.parametrize(
    ("anchor", "table"), [(0x1000006A, (1, 0, 3, 0)), (0x1000008A, (0, 0xFF, 2, 0))], ids=["in-the-part-that-jumps", "a-case-of-its-own"]
)
def test_cases_of_a_switch_that_all_stand_apart_but_one_are_no_functions(anchor, table):
    """What bounds the index stands before the part that jumps, and leads, as the last case does, to a return that is in no table."""
    pe = Pe(Machine.ARM64)
    pe.put(TEXT, bytes(0x80))
    check = (0x7100081F, 0x54000148)  # cmp w0, #2; b.hi: to the return behind the last case
    jump = (0x10000149, 0x38A04929, anchor, 0x8B29C94A, 0xD61F0140, 0xD65F03C0)  # adr; ldrsb; adr; add; br; the second case: ret
    first, third, behind = (0x528000E0, 0xD65F03C0), (0x52800020,), (0xD65F03C0,)
    start = TEXT + 0x10
    pe.put(start, words(*check, *jump, *first, *third, *behind, bytes(table)))
    pe.exports("switch.dll", [("other", TEXT), ("switch", start)])
    pe.put(TEXT, bytes.fromhex(RETURN))
    _records(pe, *((at, count, "e4e4e4e4") for at, count in ((start + 8, 6), (start + 0x20, 2), (start + 0x28, 1))))
    assert [function.ranges for function in pe.build("switch.dll").functions][1:] == [(Range(start, start + 0x30),)]
