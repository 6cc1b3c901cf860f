"""Jump tables of x64 functions, as the compilers lay them out."""

from __future__ import annotations

import struct
from itertools import permutations

import pytest

from hotpatch.arch import Machine, architecture, x64_flow
from hotpatch.arch.common import code_spans
from hotpatch.arch.x64_values import State, Unknown

X64 = architecture(Machine.X64)
AT, TABLE = 0x1000, 0x2000
PREFERRED_BASE = 0x180000000


class Memory:
    """Bytes by address; reads end where they end."""

    def __init__(self, parts):
        self.parts = parts

    def __call__(self, address, size):
        for start, data in self.parts.items():
            if start <= address < start + len(data):
                return data[address - start : address - start + size]
        return b""


def words(*values, form="i"):
    return struct.pack(f"<{len(values)}{form}", *values)


def relative(*targets):
    return words(*(target - TABLE for target in targets))


CLANG = "83f903772489c8488d0df20f0000486304814801c8ffe0b801000000c3b802000000c3b803000000c331c0c3"
MSVC = "4c8d05f9efffff83f902771c4863c1418b8c80002000004c01c1ffe1b801000000c3b802000000c331c0c3"
MSVC_UNBOUND = MSVC.replace("83f902771c", "0f1f440000")
MSVC_TWO_LEVELS = "8d41f083f805772b4c8d05f1efffff4898410fb6840010200000418b8c80002000004c01c1ffe1b801000000c3b802000000c331c0c3"
MSVC_UNCHECKED = MSVC_TWO_LEVELS.replace("83f805772b", "0f1f440000")
MSVC_TWO_WAYS_IN = "4c8d05f9efffff89c883f8057723410fb6840010200000418b8c80002000004c01c1ffe189d083f80376e3c3b802000000c3"
MSVC_ONE_WAY_IN_BY_EQUALITY = (
    "4c8d05f9efffff84c9740a80e13f80f9047528eb0580f90577210fb6c1410fb6840010200000418b8c80002000004c01c1ffe189d0c3b802000000c3"
)
ABSOLUTE = "83f902731889c8488d0df20f0000ff24c1b801000000c3b802000000c331c0c3"
UNOPTIMISED = "4883ec18894c24148b44241448894424084883e801771b488b442408488d0ddd0f0000486304814801c8ffe0b801000000904883c418c3"
NO_CHECK = "488d15f90f00000fb60648ffc6486304824801d0ffe0ffc1ebed89c8c3"
MASKED = "83e101488d15f60f00004863048a4801d0ffe0b801000000c3b802000000c3"
GARBAGE = words(0x7FFFFFF0, 1, 2, 3)

# name, code, memory, jump, address, entry size, signed, anchor, targets, index
# fmt: off
FORMS = (
    ("clang", CLANG, {TABLE: relative(0x1017, 0x101D, 0x1023, 0x1017) + relative(0x1017)},
     0x15, TABLE, 4, True, TABLE, (0x1017, 0x101D, 0x1023, 0x1017), None),
    ("clang-into-a-cold-part", CLANG, {TABLE: relative(0x1017, 0x5000, 0x1023, 0x1017)},
     0x15, TABLE, 4, True, TABLE, (0x1017, 0x5000, 0x1023, 0x1017), None),
    ("msvc", MSVC, {TABLE: words(0x101C, 0x1022, 0x1028, 0x101C)}, 0x1A, TABLE, 4, False, 0, (0x101C, 0x1022, 0x1028), None),
    ("msvc-no-check-zeros-between", MSVC_UNBOUND, {TABLE: words(0, 0x101C, 0, 0, 0x1022, 0x1028, 0, 0) + GARBAGE},
     0x1A, TABLE, 4, False, 0, (0, 0x101C, 0, 0, 0x1022, 0x1028), None),
    ("msvc-two-levels", MSVC_TWO_LEVELS, {TABLE: words(0x1027, 0x102D, 0x1033) + bytes(4), TABLE + 0x10: bytes((0, 2, 1, 0, 1, 2, 9))},
     0x25, TABLE, 4, False, 0, (0x1027, 0x102D, 0x1033), (TABLE + 0x10, 6)),
    ("msvc-two-levels-unchecked", MSVC_UNCHECKED,
     {TABLE: words(0x1027, 0x102D, 0x1033) + bytes(4), TABLE + 0x10: bytes((0, 2, 3, 1, 0, 1, 2, 4))},
     0x25, TABLE, 4, False, 0, (0x1027, 0x102D, 0x1033), (TABLE + 0x10, 7)),
    ("msvc-two-levels-unchecked-with-a-way-that-is-none", MSVC_UNCHECKED,
     {TABLE: words(0x1027, 0x102D, 0x1034) + bytes(4), TABLE + 0x10: bytes((0, 2, 3, 1, 0, 1, 2, 4))},
     0x25, TABLE, 4, False, 0, (0x1027, 0x102D), None),
    ("msvc-two-levels-two-checked-ways-in", MSVC_TWO_WAYS_IN,
     {TABLE: words(0x1024, 0x102C) + bytes(8), TABLE + 0x10: bytes((0, 1, 1, 0, 1, 0, 9))},
     0x22, TABLE, 4, False, 0, (0x1024, 0x102C), (TABLE + 0x10, 6)),
    ("msvc-two-levels-one-way-in-by-equality", MSVC_ONE_WAY_IN_BY_EQUALITY,
     {TABLE: words(0x1033, 0x1036) + bytes(8), TABLE + 0x10: bytes((0, 1, 1, 0, 1, 0, 9))},
     0x31, TABLE, 4, False, 0, (0x1033, 0x1036), (TABLE + 0x10, 6)),
    ("whole-addresses", ABSOLUTE, {TABLE: words(AT + 0x11, AT + 0x17, form="q")}, 0xE, TABLE, 8, False, 0, (0x1011, 0x1017), None),
    ("whole-addresses-of-the-file", ABSOLUTE, {TABLE: words(PREFERRED_BASE + 0x1011, PREFERRED_BASE + 0x1017, form="q")},
     0xE, TABLE, 8, False, -PREFERRED_BASE, (0x1011, 0x1017), None),
    ("unoptimised", UNOPTIMISED, {TABLE: relative(0x102C, 0x1031, 0x102C)}, 0x2A, TABLE, 4, True, TABLE, (0x102C, 0x1031), None),
    ("no-check-ends-at-garbage", NO_CHECK, {TABLE: relative(0x1016, 0x101A, 0x1016) + GARBAGE},
     0x14, TABLE, 4, True, TABLE, (0x1016, 0x101A, 0x1016), None),
    ("no-check-ends-inside-an-instruction", NO_CHECK, {TABLE: relative(0x1016, 0x101A, 0x1017)},
     0x14, TABLE, 4, True, TABLE, (0x1016, 0x101A), None),
    ("masked-index", MASKED, {TABLE: relative(0x1013, 0x1019, 0x1013)}, 0x11, TABLE, 4, True, TABLE, (0x1013, 0x1019), None),
)
# fmt: on


@pytest.mark.parametrize(
    ("name", "code", "memory", "jump", "address", "size", "signed", "anchor", "targets", "index"), FORMS, ids=[row[0] for row in FORMS]
)
def test_form(name, code, memory, jump, address, size, signed, anchor, targets, index):
    (table,) = X64.jump_tables(bytes.fromhex(code), AT, Memory(memory))
    assert (table.jump, table.address, table.entry_size, table.signed, table.shift) == (jump, address, size, signed, 0)
    assert (table.anchor, table.targets, table.index) == (anchor, targets, index)
    encoded = b"".join(((target - table.anchor) >> table.shift).to_bytes(size, "little", signed=signed) for target in targets)
    assert Memory(memory)(address, table.size) == encoded


def test_zeros_lead_nowhere():
    memory = Memory({TABLE: words(0x101C, 0, 0x1022) + GARBAGE})
    (table,) = X64.jump_tables(bytes.fromhex(MSVC_UNBOUND), AT, memory)
    assert (table.holes, table.ways, table.size) == ({1}, (0x101C, 0x1022), 12)


NO_TABLES = (
    ("tail-call-through-a-table-of-functions", "488d15f90f000089c8ff24c2", {TABLE: words(0x180005000, 0x180006000, form="q")}),
    ("tail-call-through-a-register", "488b4008 48ffe0", {}),
    ("import", "ff25fa0f0000", {TABLE: words(0x180005000, form="q")}),
    ("call-through-a-table", "488d15f90f000089c8ff14c2c3", {TABLE: words(0x1000, form="q")}),
    ("unreadable", CLANG, {}),
)


@pytest.mark.parametrize(("name", "code", "memory"), NO_TABLES, ids=[row[0] for row in NO_TABLES])
def test_no_table(name, code, memory):
    assert X64.jump_tables(bytes.fromhex(code), AT, Memory(memory)) == ()


def test_in_a_process():
    base = 0x7FF612340000
    memory = Memory({base + TABLE: words(0x101C, 0x1022, 0x1028)})
    (table,) = X64.jump_tables(bytes.fromhex(MSVC), base + AT, memory, image_base=base)
    assert (table.address, table.anchor, table.targets[0]) == (base + TABLE, base, base + 0x101C)


def test_tables_behind_the_code_of_the_same_range():
    # link.exe puts both tables of a switch inside the range that .pdata gives to the function
    code = bytes.fromhex(MSVC_TWO_LEVELS.replace("10200000", "44100000").replace("00200000", "38100000"))
    data = b"\x66\x90" + words(0x1027, 0x102D, 0x1033) + bytes((0, 2, 1, 0, 1, 2))
    whole = code + data
    tables = X64.jump_tables(whole, AT, Memory({AT: whole}))
    assert [(table.address, table.targets, table.index) for table in tables] == [(0x1038, (0x1027, 0x102D, 0x1033), (0x1044, 6))]
    assert code_spans(len(whole), AT, tables) == ((0, 0x38),)


def test_code_spans_between_tables():
    (table,) = X64.jump_tables(bytes.fromhex(CLANG), AT, Memory({TABLE: relative(0x1017, 0x101D, 0x1023, 0x1017)}))
    assert code_spans(0x20, TABLE - 8, (table,)) == ((0, 8), (0x18, 0x20))
    assert code_spans(0x20, AT, (table,)) == ((0, 0x20),)


@pytest.mark.parametrize(("code", "count"), [(NO_CHECK, 2), (MASKED, 2), (CLANG, 4)])
def test_without_a_check_a_table_ends_where_the_image_says(code, count):
    targets = {NO_CHECK: (0x1016, 0x101A) * 2, MASKED: (0x1013, 0x1019) * 2, CLANG: (0x1017, 0x101D) * 2}[code]
    (table,) = X64.jump_tables(bytes.fromhex(code), AT, Memory({TABLE: relative(*targets)}), limit=lambda at, size: at + 2 * size)
    assert len(table.targets) == count
    assert table.exact == (code is CLANG)


def test_indices_that_nothing_bounds_end_with_the_code_or_where_the_image_says():
    code = bytes.fromhex(MSVC_UNCHECKED.replace("10200000", "44100000").replace("00200000", "38100000")) + b"\x66\x90"
    whole = code + words(0x1027, 0x102D, 0x1033) + bytes((0, 2, 1, 0, 1, 2))
    memory = Memory({AT: whole + bytes((1, 2, 0))})
    for limit, size in ((None, 6), (lambda at, size: at + 12 if at == 0x1038 else at + 4, 4)):
        (table,) = X64.jump_tables(whole, AT, memory, limit=limit)
        assert (table.index, table.exact) == ((0x1044, size), False)


@pytest.mark.parametrize("names", list(permutations(("rax", "rcx", "rdx", "rbx", "rsi", "rdi"), 2)), ids="-".join)
def test_a_bound_at_a_join_does_not_depend_on_which_place_is_looked_at_first(names: tuple[str, str]):
    """The second place still holds what the first did at this join before, so that its new value would be taken for that."""
    first, second = names
    older, other = Unknown(AT, first), Unknown(AT + 8, first)
    known = State({first: Unknown(AT + 4, first), second: older}, {Unknown(AT + 4, first): 4, older: 9})
    known.join(State({first: other}, {other: 6}), AT, 0, {}, set())
    assert known.values == {first: older, second: Unknown(AT, second)}
    assert older not in known.bounds


def test_a_value_that_is_equal_to_another_says_not_how_many_entries_there_are():
    """``cmp ecx, 127; je here; cmp ecx, 5; jne out; here: cmp ecx, 127; je out; …``, as Rust matches one of two variants: five is left."""
    head = "83f97f 7405 83f905 751b 83f97f 7416".replace(" ", "")
    table = (TABLE - AT - len(head) // 2 - 7).to_bytes(4, "little").hex()
    code = bytes.fromhex(head + f"488d15{table}" + "4863048a4801d0ffe0" + "b801000000c3" + "31c0c3")
    inside = AT + code.index(bytes.fromhex("b801000000c3"))
    memory = Memory({TABLE: relative(*[inside] * 200)})
    (found,) = X64.jump_tables(code, AT, memory, limit=lambda at, size: at + 6 * size)
    assert (len(found.targets), found.exact) == (6, False)


@pytest.mark.parametrize(("case", "exact"), [("0f1f00", True), ("4489c1", False)], ids=["as it was", "another"])
def test_a_case_that_dispatches_again(case, exact):
    """``cmp ecx, 3; ja; again: mov eax, ecx; lea rdx, [table]; movsxd rax, [rdx+rax*4]; add rax, rdx; jmp rax; case: … ; jmp again``."""
    code = bytes.fromhex(f"83f903771989c8488d15f20f0000486304824801d0ffe0{case}ebe9c3c3c3c3")
    (table,) = X64.jump_tables(code, AT, Memory({AT: code, TABLE: relative(0x1017, 0x101C, 0x101D, 0x101E)}))
    assert (table.targets[0], table.exact) == (0x1017, exact)


HOISTED = "89c8488d15f70f0000486304824801d0ffe0 b801000000c3 4c8d25f10f0000eb04 0f1f4000 8b01496304844c01e0ffe0 {case} ebef c3"
FIRST, SECOND = relative(0x1012, 0x1018), words(0x1030 - 0x2010, 0x1036 - 0x2010)


def test_a_loop_that_keeps_the_address_of_the_table_of_its_switch():
    """``…; jmp [first]; lea r12, [second]; jmp loop; nop; loop: mov eax, [rcx]; movsxd rax, [r12+rax*4]; add rax, r12; jmp rax; add rcx, 4;
    jmp loop; ret``: only the cases of the second switch, and filler that nothing comes to, lead back to the loop."""
    code = bytes.fromhex(HOISTED.format(case="4883c104"))
    tables = X64.jump_tables(code, AT, Memory({TABLE: FIRST, 0x2010: SECOND}))
    assert [(table.jump, table.address, table.targets) for table in tables] == [
        (0x10, TABLE, (0x1012, 0x1018)),
        (0x2E, 0x2010, (0x1030, 0x1036)),
    ]


def test_a_loop_whose_case_changes_what_it_keeps():
    code = bytes.fromhex(HOISTED.format(case="49ffc490"))  # inc r12
    tables = X64.jump_tables(code, AT, Memory({TABLE: FIRST, 0x2010: SECOND}))
    assert [table.jump for table in tables] == [0x10]


@pytest.mark.parametrize(("ways", "most"), [(1, 64), (20, 64), (21, 8)])
@pytest.mark.parametrize("last", ["0f1f00", "4489c8"], ids=["as it was", "another"])
def test_a_loop_whose_many_ways_back_each_change_another_place(monkeypatch, ways: int, most: int, last: str):
    """``cmp ecx, 3; ja out; mov eax, ecx; head: (test r8d, r8d; je on; mov [rsp + 8*N], r9; jmp head; on:) …; lea …; jmp rax``.

    The block at the loop's head is looked at once more for each way back, since another switch asks for each of the places; the last one,
    that changes the index behind its check, counts as well, also where so many looks make the analysis give up what it knows.
    """
    monkeypatch.setattr(x64_flow, "_MOST_VISITS", most)
    changes = [*(bytes.fromhex("4c898c24") + words(8 * number) for number in range(ways)), bytes.fromhex(last)]
    loop = b""
    for change in changes:
        loop += bytes.fromhex("4585c074") + bytes((len(change) + 5,)) + change + b"\xe9"
        loop += words(-(len(loop) + 4))
    others, size = b"", 30
    for number in range(ways):
        others += bytes.fromhex("4585c074") + bytes((size - 5,)) + bytes.fromhex("448b9424") + words(8 * number)
        others += bytes.fromhex("4c8d1d") + words(0x4000 + (ways - number - 1) * size + 6) + bytes.fromhex("4f6314934d01da41ffe2")
    switch = bytes.fromhex("488d15") + words(0x4000) + bytes.fromhex("486304824801d0ffe0")
    code = bytes.fromhex("83f9030f87") + words(2 + len(loop + others + switch)) + bytes.fromhex("89c8") + loop + others + switch + b"\xc3"
    out = AT + len(code) - 1
    table = out - 9 + 0x4000
    found = X64.jump_tables(code, AT, Memory({AT: code, table: words(*[out - table] * 4)}))
    assert [len(each.targets) for each in found if each.exact] == ([4] if last == "0f1f00" and ways < most else [])
