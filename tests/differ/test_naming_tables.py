"""Functions that tables name are told by their names, however much they changed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.differ import Verdict
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

each_machine = pytest.mark.parametrize("machine", Machine)
TABLE, SECOND = DATA + 0x100, DATA + 0x300
METHOD, OTHER, NEW = TEXT + 0x80, TEXT + 0x100, TEXT + 0x180
NAMES = RDATA + 0x800
TAKES = {
    Machine.X64: ("mov r8d, {number}", "lea rax, [rip + {distance}]", "xor edx, edx; mov ecx, {number}; ret"),
    Machine.ARM64: ("mov w8, #{number}", "adrp x0, {page}; add x0, x0, #{low}", "mov w2, #0; mov w1, #{number}; ret"),
}
FILLER = {Machine.X64: b"\xcc" * 0x200, Machine.ARM64: bytes(0x200)}
BEFORE = {Machine.X64: "xor eax, eax; ret", Machine.ARM64: "mov w0, #0; ret"}
AFTER = {
    Machine.X64: "push rbx; push rsi; imul rcx, rdx; sub rcx, r8; shl rcx, 3; not rcx; pop rsi; pop rbx; nop; nop; nop; ret",
    Machine.ARM64: "mul x8, x0, x1; sub x8, x8, x2; eor x8, x8, x3; lsl x8, x8, #3; add x8, x8, x4; orr x0, x8, x5; ret",
}


@dataclass(frozen=True)
class Build:
    """What a table says.

    Attributes:
        number: A number in the function that takes the table.
        method: The code of the function that the table names.
        names: Of the table's rows; the method is that of the row ``work``.
        again: Whether a second table says the same of another function.
        taken: Whether code takes the table.
        behind: Whether a row's name stands behind its function.
        slot: If not 0, the rows lead to a table of slots, by number, and that to the function.
    """

    number: int
    method: str
    names: tuple[str, ...] = ("work",)
    again: bool = False
    taken: bool = True
    behind: bool = False
    slot: int = 0

    def image(self, machine: Machine) -> hotpatch.Image:
        pe = Pe(machine)
        pe.put(TEXT, FILLER[machine])
        sizes = {Machine.X64: 6, Machine.ARM64: 4}
        first, second, third = TAKES[machine]
        at = TEXT + sizes[machine]
        take = second.format(distance=TABLE - at - 7, page=TABLE & -0x1000, low=TABLE & 0xFFF)
        lines = (first.format(number=self.number), take if self.taken else first.format(number=9), third.format(number=self.number))
        pe.put(TEXT, assemble(machine, "; ".join(lines), TEXT))
        pe.put(METHOD, assemble(machine, self.method, METHOD))
        pe.put(OTHER, assemble(machine, AFTER[machine], OTHER))
        for start, function in ((TABLE, METHOD), (SECOND, OTHER))[: 1 + self.again]:
            for row, name in enumerate(self.names):
                text = pe.put(NAMES + 0x10 * (row if name != "work" else 15), name.encode())
                if name == "new":
                    pe.put(NEW, assemble(machine, AFTER[machine], NEW))
                pe.pointer(start + 0x18 * row + 8 * self.behind, text)
                pe.pointer(start + 0x18 * row + 8 * (not self.behind), {"work": function, "new": NEW}.get(name, TEXT))
                pe.put(start + 0x18 * row + 0x10, b"\x82")
            if self.slot:
                slots = start + 0x100
                pe.pointer(start + 8 * (not self.behind), slots)
                pe.put(slots, self.slot.to_bytes(8, "little"))
                pe.pointer(slots + 8, function)
        ends = [("start", TABLE), ("end", TABLE + 0x18 * len(self.names)), ("second", SECOND), ("third", SECOND + 0x18 * len(self.names))]
        pe.exports("table.dll", [("user", TEXT), ("other", OTHER), *ends])
        return pe.build("table.dll")


def _matched(machine: Machine, base: Build, fixed: Build) -> tuple[Verdict, str]:
    """What became of the method, and by what it was matched."""
    rows = hotpatch.diff(base.image(machine), fixed.image(machine)).functions
    return next((row.verdict, row.matched_by) for row in rows if row.base is not None and row.base.entry == METHOD)


@each_machine
def test_a_method_that_was_rewritten_is_known_by_its_row(machine: Machine) -> None:
    base, fixed = Build(1, BEFORE[machine]), Build(2, AFTER[machine])
    assert _matched(machine, base, fixed) == (Verdict.CHANGED, "references")
    diff = hotpatch.diff(base.image(machine), fixed.image(machine))
    assert not diff.findings
    assert {function.base_rva for function in hotpatch.build(diff).functions} == {TEXT, METHOD}


@each_machine
@pytest.mark.parametrize(
    ("base", "fixed", "verdict"),
    [
        ({"slot": 67}, {"slot": 67}, Verdict.CHANGED),
        ({"slot": 67}, {"slot": 68}, Verdict.REMOVED),
        ({"slot": 67}, {"slot": 67, "names": ("play",)}, Verdict.REMOVED),
        ({"slot": 67, "again": True}, {"slot": 67, "again": True}, Verdict.REMOVED),
    ],
    ids=["same", "another-slot", "another-name", "names-that-are-not-alone"],
)
def test_a_table_without_names_is_known_by_the_one_that_leads_to_it(machine: Machine, base: dict, fixed: dict, verdict: Verdict) -> None:
    """Slots of a type, by their numbers, which the type's name tells."""
    assert _matched(machine, Build(1, BEFORE[machine], **base), Build(2, AFTER[machine], **fixed))[0] is verdict


@each_machine
@pytest.mark.parametrize(
    ("base", "fixed"), [({}, {"names": ("play",)}), ({"again": True}, {"again": True}), ({}, {"names": ("more", "work")})]
)
def test_where_names_differ_or_are_not_alone_a_row_tells_nothing(machine: Machine, base: dict, fixed: dict) -> None:
    assert _matched(machine, Build(1, BEFORE[machine], **base), Build(2, AFTER[machine], **fixed))[0] is Verdict.REMOVED


@each_machine
@pytest.mark.parametrize(("names", "verdict"), [(("work", "more"), Verdict.CHANGED), (("more", "work"), Verdict.REMOVED)])
def test_a_table_that_goes_on_further_tells_of_the_rows_that_both_have(machine: Machine, names: tuple[str, ...], verdict: Verdict) -> None:
    base, fixed = Build(1, BEFORE[machine]), Build(1, AFTER[machine], names)
    assert _matched(machine, base, fixed)[0] is verdict


@each_machine
@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("behind", [True, False])
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (("first", "work", "last"), ("first", "work", "new", "last"), True),
        (("first", "work", "last"), ("first", "work", "last", "new"), True),
        (("first", "work", "last"), ("first", "work"), True),
        (("first", "work", "last"), ("first", "new", "work", "last"), False),
    ],
)
def test_a_table_that_got_a_row_tells_of_the_rows_before_it(
    machine: Machine, old: tuple[str, ...], new: tuple[str, ...], *, told: bool, behind: bool, taken: bool
) -> None:
    """Whether code takes it or not, and wherever names stand."""
    base = Build(1, BEFORE[machine], old, taken=taken, behind=behind)
    fixed = Build(2, AFTER[machine], new, taken=taken, behind=behind)
    rows = hotpatch.diff(base.image(machine), fixed.image(machine)).functions
    (row,) = (row for row in rows if row.base is not None and row.base.entry == METHOD)
    assert (row.fixed.entry if row.fixed else None) == (METHOD if told else None)


BODIES = {
    Machine.X64: tuple(
        f"mov eax, {number}; {work}; ret" for number, work in ((3, "imul eax, ecx"), (5, "xor eax, edx"), (7, "sub eax, ecx"))
    ),
    Machine.ARM64: tuple(f"mov w8, #{number}; {work} w0, w0, w8; ret" for number, work in ((3, "mul"), (5, "eor"), (7, "sub"))),
}


def _describing(machine: Machine, order: tuple[int, ...], number: int, named: tuple[str, ...] = ("one", "two", "three")) -> hotpatch.Image:
    """Three functions, a description of each, and a function that takes these in an order."""
    pe = Pe(machine)
    pe.put(TEXT, FILLER[machine])
    first, take, _ = TAKES[machine]
    code, at = assemble(machine, first.format(number=number), TEXT), TEXT
    for place in (TABLE + 0x20 * row for row in order):
        at = TEXT + len(code)
        code += assemble(machine, take.format(distance=place - at - 7, page=place & -0x1000, low=place & 0xFFF), at)
    pe.put(TEXT, code + assemble(machine, "ret", TEXT))
    for row, (name, body) in enumerate(zip(named, BODIES[machine], strict=True)):
        function = TEXT + 0x80 + 0x20 * row
        pe.put(function, assemble(machine, body, function))
        pe.pointer(TABLE + 0x20 * row, pe.put(NAMES + 0x10 * row, name.encode()))
        pe.pointer(TABLE + 0x20 * row + 8, function)
        pe.put(TABLE + 0x20 * row + 0x10, b"\x82")
    pe.exports("described.dll", [("user", TEXT), *((None, TEXT + 0x80 + 0x20 * row) for row in range(3)), ("end", TABLE + 0x60)])
    return pe.build("described.dll")


@each_machine
def test_what_describes_a_function_is_known_by_it_in_whatever_order_code_takes_it(machine: Machine) -> None:
    diff = hotpatch.diff(_describing(machine, (0, 1, 2), 1), _describing(machine, (1, 2, 0), 2))
    assert not diff.findings
    assert {match.base: match.fixed for match in diff.data if match.base in range(TABLE, TABLE + 0x60)} == {
        TABLE + 0x20 * row: TABLE + 0x20 * row for row in range(3)
    }
    assert [function.base_rva for function in hotpatch.build(diff).functions] == [TEXT]


@each_machine
def test_descriptions_under_other_names_are_not_taken_for_the_same(machine: Machine) -> None:
    base, fixed = _describing(machine, (0, 1, 2), 1), _describing(machine, (0, 1, 2), 2, ("uno", "dos", "tres"))
    assert {match.matched_by for match in hotpatch.diff(base, fixed).data if match.base in range(TABLE, TABLE + 0x60)} == {"alignment"}
