"""Text for people: events, details, folding, buffers, registers."""

from __future__ import annotations

import io
import struct

import pytest
from rich.console import Console, RenderableType

import hotpatch
from hotpatch.address import Rva, Va
from hotpatch.arch import Machine
from hotpatch.cases import find_case
from hotpatch.errors import Refusal, Rule
from hotpatch.report import building, comparison, convert, events, refused, running, tables, text, verify
from hotpatch.report.documents import (
    CallDocument,
    FaultDocument,
    FrameDocument,
    MicroFunctionDocument,
    RefusalDocument,
    StayingDocument,
)
from hotpatch.verifier import VerifyReport
from hotpatch.verifier.model import Kind, Violation


def shown(renderable: RenderableType, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    console.print(renderable, crop=False)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


REDIRECT = {
    "at": 5,
    "thread": 0,
    "kind": "redirect",
    "change": "entry",
    "function": "price",
    "rva": 0x12C0,
    "strategy": "hpat",
    "va": 0x1400012C0,
    "before": "486b",
    "after": "ebf9",
    "padding": [{"va": 0x1400012BB, "before": "cccccccccc", "after": "e9403d0000"}],
    "pointer": 0x140006000,
}
PADDING, ENTRY = "    padding  0x1400012bb  cccccccccc → e9403d0000", "    entry    0x1400012c0  486b → ebf9"

EVENTS = {
    "apply": (
        {"patch": "fix.dll", "sequence": 2, "module": "base.exe", "functions": 1, "consistency": "immediate", "given_back": 0},
        ["[7] apply     fix.dll, sequence 2, to base.exe: 1 function, immediate"],
    ),
    "apply-cumulative": (
        {"patch": "fix.dll", "sequence": 2, "module": "base.exe", "functions": 3, "consistency": "quiescent", "given_back": 2},
        ["[7] apply     fix.dll, sequence 2, to base.exe: 3 functions, quiescent, 2 functions given back to what was before"],
    ),
    "revert": ({"patch": "fix.dll", "sequence": 2, "functions": 2}, ["[7] revert    fix.dll, sequence 2: 2 functions"]),
    "redirect": (REDIRECT, ["[7] redirect  price goes to the new code (hpat)", PADDING, ENTRY]),
    "redirect-removed": (REDIRECT | {"change": "removed"}, ["[7] redirect  price is the base's again (hpat)", ENTRY, PADDING]),
    "redirect-by-pointer": (
        REDIRECT | {"change": "pointer", "va": 0x140006000, "padding": [], "function": None},
        ["[7] redirect  rva:0x12c0 goes to the new code, by its slot (hpat)", "    slot     0x140006000  486b → ebf9"],
    ),
    "refused": ({"rule": "sequence", "function": None, "reason": "…"}, ["[7] refused   sequence: …"]),
    "refused-function": ({"rule": "foreign-hook", "function": "price", "reason": "…"}, ["[7] refused   foreign-hook, price: …"]),
    "move": (
        {"moved_thread": 3, "from": 0x1000, "to": 0x2000, "why": "stood in the padding"},
        ["[7] move      thread 3 from 0x1000 to 0x2000: it stood in the padding"],
    ),
    "debug": ({"text": "hi\n"}, ["[7] debug     thread 4 says 'hi\\n'"]),
    "other": ({"waiting_for": [2, 3], "va": 0x1000}, ["[7] other     waiting for 2, 3, va 0x1000"]),
    "wait": (
        {"patch": "fix.dll", "sequence": 1, "operation": "apply", "until": 900, "holders": [{"thread": 2, "function": "price"}]},
        ["[7] wait      fix.dll, sequence 1: apply waits for thread 2 in price, until instruction 900"],
    ),
    "wait-called-off": ({"patch": "fix.dll", "sequence": 1, "called_off": True}, ["[7] wait      fix.dll, sequence 1: called off"]),
    "transition-begin": (
        {
            "stage": "begin",
            "patch": "fix.dll",
            "sequence": 1,
            "operation": "apply",
            "remaining": 1,
            "holders": [{"thread": 2, "function": None}],
        },
        ["[7] transition  fix.dll, sequence 1: apply thread by thread begins, held by thread 2 in ?"],
    ),
    "transition-thread": (
        {"stage": "thread", "patch": "fix.dll", "sequence": 1, "moved_thread": 2, "from": "old", "to": "new", "remaining": 0},
        ["[7] transition  thread 2 from old to new code of fix.dll, sequence 1, 0 threads left"],
    ),
    "transition-reverse": (
        {"stage": "reverse", "patch": "fix.dll", "sequence": 1, "remaining": 3},
        ["[7] transition  fix.dll, sequence 1: called off, threads go back, 3 threads left"],
    ),
    "transition-finish": (
        {"stage": "finish", "patch": "fix.dll", "sequence": 1, "remaining": 0},
        ["[7] transition  fix.dll, sequence 1: all threads have changed over"],
    ),
    "load": ({"module": "late.dll", "va": 0x180000000}, ["[7] load      late.dll at 0x180000000"]),
    "unload": ({"module": "late.dll", "va": 0x180000000}, ["[7] unload    late.dll at 0x180000000"]),
    "register": (
        {"patch": "fix.dll", "sequence": 1, "module": "late.dll", "why": "not-loaded"},
        ["[7] register  fix.dll, sequence 1: waits for late.dll, which is not loaded"],
    ),
    "register-called-off": (
        {"patch": "fix.dll", "sequence": 1, "module": "late.dll", "why": "called-off"},
        ["[7] register  fix.dll, sequence 1: does not wait for late.dll any more"],
    ),
    "spawn": ({"start": 0}, []),
}


@pytest.mark.parametrize("row", EVENTS)
def test_event(row: str) -> None:
    details, lines = EVENTS[row]
    event = {**details, "at": 7, "thread": 4, "kind": row.split("-")[0]}
    assert events.line(event).splitlines() == lines


TOLD = [
    ("base_rva", 4096, "0x1000"),
    ("va", 0, "0x0"),
    ("jump_target", 16, "0x10"),
    ("value", 16, "16"),
    ("base_size", 16, "16"),
    ("stack", None, "-"),
    ("kept", True, "yes"),
    ("near", [], "none"),
    ("near", ["a", "b"], "a, b"),
    ("sites", [16, 32], "0x10, 0x20"),
    ("base_function", 4096, "rva:0x1000"),
    ("function", "clamp", "clamp"),
    ("functions", 4096, "4096"),
    ("base_data", [16, 32], "0x10, 0x20"),
    ("new_rvas", [4160], "0x1040"),
    ("votes", [{"target": 16, "count": 2}, {"target": 32, "count": 1}], "target 0x10, count 2; target 0x20, count 1"),
    ("bytes", "90cc", "90cc"),
]


@pytest.mark.parametrize(("key", "value", "expected"), TOLD)
def test_detail(key: str, value: object, expected: str) -> None:
    assert refused.told(key, value) == expected


def test_counts() -> None:
    assert [text.counted(number, "byte") for number in (0, 1, 2)] == ["0 bytes", "1 byte", "2 bytes"]


def test_refusal_folds_under_its_indent() -> None:
    refusal = RefusalDocument(
        rule="data-layout", function="entries", rva=0x10, reason="word " * 30 + "end.", evidence={"base_rva": 16, "long": "x" * 100}
    )
    lines = shown(refused.refusals([refusal]), 60)
    assert lines[0] == "refused data-layout  entries  0x10"
    assert all(line.startswith("    ") and len(line) <= 60 for line in lines[1:])
    assert "    base rva  0x10" in lines
    wide = shown(refused.refusals([refusal]), 10_000)
    assert wide == [lines[0], f"    {refusal.reason}", "    base rva  0x10", f"    long      {'x' * 100}"]


def test_several_refusals_are_counted_by_rule() -> None:
    made = [RefusalDocument(rule=rule, function=None, rva=None, reason="no", evidence={}) for rule in ("b", "c", "a", "c")]
    assert shown(refused.refusals(made))[-1] == "refused: 2 × c, 1 × a, 1 × b"
    findings = shown(refused.refusals(made, called="finding", closing="findings"))
    assert findings[::2] == [*(f"finding {item.rule}" for item in made), "findings: 2 × c, 1 × a, 1 × b"]
    assert shown(refused.refusals(made[:1])) == ["refused b", "    no"]


def _unresolved(function: str | None, rva: int, at: int, *, target: int = 0x3000, base: int | None = None) -> RefusalDocument:
    evidence = {"image": "fixed", "rva": at, "bytes": f"{at:04x}", "instruction": f"mov eax, {at}", "kind": "rel32", "target": target}
    evidence |= {} if base is None else {"base_function": base}
    return RefusalDocument(
        rule="unresolved-reference", function=function, rva=rva, reason=f"what is at 0x{target:x} may be new; leave it", evidence=evidence
    )


def test_what_is_refused_of_several_functions_for_one_datum_is_told_once() -> None:
    """With the functions below, each as it is typed; the last line still counts all refusals."""
    made = [
        _unresolved("f", 0x1010, 0x1018, base=0x1000),
        _unresolved("g", 0x1100, 0x1104, target=0x4000),
        _unresolved(None, 0x1030, 0x1038, base=0x1020),
        _unresolved(None, 0x1200, 0x1201),
    ]
    assert shown(refused.refusals(made), 200) == [
        "refused unresolved-reference  3 functions",
        "    what is at 0x3000 may be new; leave it",
        "    target  0x3000",
        "    f  0x1010 of the fixed image           0x1018: mov eax, 4120",
        "    rva:0x1020  0x1030 of the fixed image  0x1038: mov eax, 4152",
        "    0x1200 of the fixed image              0x1201: mov eax, 4609",
        "refused unresolved-reference  g  0x1100 of the fixed image",
        "    what is at 0x4000 may be new; leave it",
        *("    image        fixed", "    rva          0x1104", "    bytes        1104", "    instruction  mov eax, 4356"),
        *("    kind         rel32", "    target       0x4000"),
        "refused: 4 × unresolved-reference",
    ]


def _row_of(function: str, rva: int, at: int) -> str:
    return f"    {function}  0x{rva:x} of the fixed image  0x{at:x}: mov eax, {at}"


def test_places_of_one_function_are_counted_as_places_and_stand_under_it() -> None:
    made = [_unresolved("f", 0x1010, 0x1018, base=0x1000), _unresolved("g", 0x1100, 0x1104), _unresolved("f", 0x1010, 0x1020, base=0x1000)]
    assert shown(refused.refusals(made), 200)[:6:5] == ["refused unresolved-reference  2 functions, 3 places", _row_of("g", 0x1100, 0x1104)]
    one = shown(refused.refusals([made[0], made[2]]), 200)
    assert one[0] == "refused unresolved-reference  2 places"
    assert one[3:5] == [_row_of("f", 0x1010, 0x1018), f"{'':34}0x1020: mov eax, 4128"]
    data = [_unresolved(None, 0x2038, 0x2038), _unresolved(None, 0x2000, 0x2000)]
    assert shown(refused.refusals(data), 200)[0] == "refused unresolved-reference  2 places"
    twins = [made[0], _unresolved("f", 0x1050, 0x1058, base=0x1040)]
    assert shown(refused.refusals(twins), 200)[0] == "refused unresolved-reference  2 functions"


def test_a_function_without_a_name_is_called_as_it_is_typed() -> None:
    item = RefusalDocument(rule="entry-not-patchable", function=None, rva=0x1010, reason="no", evidence={})
    assert shown(refused.refusals([item]))[0] == "refused entry-not-patchable  rva:0x1010"


def test_votes_stand_on_lines_of_their_own_and_no_more_than_a_few() -> None:
    sites = [{"base_function": 0x1000 + at, "base_rva": 0x1008 + at} for at in range(6)]
    votes = [{"base_rva": 0x3000, "fixed_rva": 0x3000 + at, "sites": sites[: 6 - at]} for at in range(7)]
    item = RefusalDocument(
        rule="contradicting-votes", function=None, rva=0x3000, reason="no", evidence={"votes": votes, "near": list("abcdef")}
    )
    lines = shown(refused.refusals([item]), 10_000)
    more = "(--json has all)"
    assert lines[2:9] == [
        "    votes  base rva 0x3000, fixed rva 0x3000",
        *(f"               base function rva:0x{0x1000 + at:x}, base rva 0x{0x1008 + at:x}" for at in range(4)),
        f"               and 2 more {more}",
        "           base rva 0x3000, fixed rva 0x3001",
    ]
    assert lines[-1] == f"           and 3 more {more}"
    item.evidence["gone"] = list(range(6))
    assert shown(refused.refusals([item]), 10_000)[-1] == f"    gone   0, 1, 2, 3 and 2 more {more}"


@pytest.mark.parametrize("machine", Machine)
def test_a_refusal_in_the_fixed_image_tells_the_function_of_the_base(machine: Machine) -> None:
    """By that one, ``--only`` names it."""
    case = find_case("codec")
    found = hotpatch.diff(*(hotpatch.open(case.image(machine, side)) for side in ("base", "fixed")))
    row = next(row for row in found.functions if row.base and row.fixed and row.base.entry != row.fixed.entry)
    places = [(row.fixed.entry, {"image": "fixed"}), (row.fixed.entry, {}), (Rva(1), {"image": "fixed"})]
    made = [Refusal(Rule.UNRESOLVED_REFERENCE, "f", rva, f"no {at}", evidence) for at, (rva, evidence) in enumerate(places)]
    told = convert.no_build(found.base, 1, made, found)
    assert [item.evidence.get("base_function") for item in told.refused] == [row.base.entry, None, None]
    assert told.staying == []
    lines = shown(building.build(told), 100)
    assert lines[0] == f"refused unresolved-reference  f  0x{row.fixed.entry:x} of the fixed image"
    assert f"    base function  rva:0x{row.base.entry:x}" in lines
    assert f"refused unresolved-reference  f  0x{row.fixed.entry:x}" in lines


STAYING = [
    ([], []),
    (
        [("old", 0x10, "removed"), ("line", 0x20, "cosmetic"), (None, 0x30, "left-out")],
        [
            "1 function is not in the fixed build and stays in the process; a call that still gets there runs the old code: old",
            "1 function differs in line numbers, versions, dates or folders alone and stays as in the base: line",
            "1 function changed but stays as in the base, as asked: rva:0x30",
        ],
    ),
    (
        [(f"f{number}", number, "left-out") for number in range(10)],
        ["10 functions changed but stay as in the base, as asked: f0, f1, f2, f3, f4, f5, f6, f7 and 2 more (--json has all)"],
    ),
]


@pytest.mark.parametrize(("functions", "expected"), STAYING)
def test_what_a_build_leaves_in_the_base(functions: list[tuple[str | None, int, str]], expected: list[str]) -> None:
    rows = [StayingDocument(name=name, base_rva=rva, why=why) for name, rva, why in functions]
    assert [shown(line, 200) for line in building.staying(rows)] == [[line] for line in expected]


RUN_IN_PART = "in part: only the covered share of the function's instructions ran; the rest was not compared"


@pytest.mark.parametrize(
    ("verdict", "covered", "expected", "told"),
    [
        ("agree", 1.0, "agree     f         0x10     4       4     100%             9", []),
        ("agree", 0.11, "agree in part  f         0x10     4       4      11%             9", [RUN_IN_PART]),
        ("agree", 0.29, "agree in part  f         0x10     4       4      29%             9", [RUN_IN_PART]),
        ("agree", 0.9999, "agree in part  f         0x10     4       4      99%             9", [RUN_IN_PART]),
        ("differ", 0.5, "differ    f         0x10     4       4      50%             9", []),
    ],
)
def test_agreement_says_whether_all_of_a_function_ran(verdict: str, covered: float, expected: str, told: list[str]) -> None:
    row = MicroFunctionDocument(
        name="f", base_rva=0x10, fixed_rva=0x10, patched=True, verdict=verdict, runs=4, agreed=4, covered=covered, instructions=9, notes=[]
    )
    lines = shown(building.micro([row]), 200)
    assert (lines[1].split(), lines[2:]) == (expected.split(), told)


def test_table_keeps_names_whole_and_folds_sentences() -> None:
    rows = tables.table("name", "size", "why", right=("size",), fold=("why",))
    rows.add_row("a_function_with_a_long_name", "7", "because " * 12)
    lines = shown(rows, 50)
    assert lines[0].split() == ["name", "size", "why"]
    assert lines[1].startswith("a_function_with_a_long_name     7  because")
    assert len(lines) > 4
    assert all(line.startswith(" " * 35 + "because") for line in lines[2:])
    (_, wide) = shown(rows, 10_000)
    assert wide.count("because") == 12


@pytest.mark.parametrize("width", [1, 20, 30, 40])
def test_table_loses_no_column_however_narrow_the_terminal(width: int) -> None:
    rows = tables.table("call", "boundaries", "old", right=("boundaries", "old"), fold=("call",), least=14)
    rows.add_row("total(11, 12, 10)", "29 of 29", "19")
    lines = shown(rows, width)
    assert lines[0].split() == ["call", "boundaries", "old"]
    told = "".join(line.removesuffix(" 19").replace("29 of 29", "") for line in lines[1:])
    assert told.replace(" ", "") == "total(11,12,10)"


def _call(**values) -> CallDocument:
    nothing = {
        "return_": None,
        "return_hex": None,
        "return_float": None,
        "buffers": [],
        "instructions": 0,
        "output": "",
        "applied": [],
        "refused": [],
        "fault": None,
    }
    return CallDocument(**(nothing | values))


RESULTS = [
    ({"return_": 5, "return_hex": "0x5", "instructions": 1}, ["returned 5 (0x5) after 1 instruction"]),
    (
        {"return_": 2**64 - 2, "return_hex": "0xfffffffffffffffe", "return_float": 0.0, "instructions": 2},
        ["returned 18446744073709551614 (0xfffffffffffffffe), signed -2 after 2 instructions"],
    ),
    (
        {"return_": 0, "return_hex": "0x0", "return_float": -2.5, "instructions": 2, "output": "a\nb\n"},
        ["a", "b", "returned 0 (0x0), floating-point register as a double -2.5 after 2 instructions"],
    ),
    (
        {"return_": 0, "return_hex": "0x0", "return_float": struct.unpack("<d", struct.pack("<ff", -2.1, 0))[0]},
        ["returned 0 (0x0), floating-point register as a float -2.1 after 0 instructions"],
    ),
    (
        {"return_": 0, "return_hex": "0x0", "buffers": ["00ff", "41" * 17]},
        [
            "returned 0 (0x0) after 0 instructions",
            "buffer 1: 00ff",
            "buffer 2, 17 bytes:",
            f"    0000  {'41 ' * 16} {'A' * 16}",
            f"    0010  41{' ' * 46} A",
        ],
    ),
]


@pytest.mark.parametrize(("values", "lines"), RESULTS)
def test_result_of_a_call(values, lines) -> None:
    assert shown(running.call_text(_call(**values)), 10_000) == lines


def test_fault() -> None:
    fault = FaultDocument(
        kind="access-violation",
        address=0,
        pc=0x140001000,
        function="parse",
        access="write",
        stack=[FrameDocument(pc=0x140001000, function="parse"), FrameDocument(pc=0x7FF700000000, function=None)],
        detail="why",
    )
    assert shown(running.fault_text(fault), 200) == [
        "fault access-violation at pc 0x140001000 in parse: write of 0x0 (why)",
        "    0x140001000  parse",
        "    0x7ff700000000  ?",
    ]


@pytest.mark.parametrize(("width", "lines"), [(80, 2), (70, 3), (60, 3), (40, 3)])
def test_notes_of_a_comparison_stand_below_where_there_is_no_room(width: int, lines: int) -> None:
    path = find_case("basic").image
    found = comparison.diff(hotpatch.diff(hotpatch.open(path(Machine.X64, "base")), hotpatch.open(path(Machine.X64, "fixed"))))
    told = shown(text.diff(found), width)
    assert told[0].split()[0] == "verdict"
    assert ("notes" in told[0]) == (lines == 2)
    assert [line for line in told if "shrank" in line] == [told[lines - 1]]
    assert (told[lines - 1] == "    shrank by 4 bytes") == (lines == 3)


@pytest.mark.parametrize(("width", "columns"), [(10, 1), (60, 2), (80, 3), (200, 4)])
def test_registers_fill_the_width(width: int, columns: int) -> None:
    lines = shown(running.Registers({f"x{number}": number for number in range(31)}), width)
    if columns > 1:
        assert all(len(line) <= width for line in lines)
        assert len(lines) == -(-31 // columns)


def test_what_a_counterexample_says_is_indented_where_it_folds() -> None:
    found = Violation(3, 1, Va(0x140001010), "clamp", "clamp(11, 10), apply: " + "returned 1 where 2 is right " * 5, Kind.WRONG)
    told = shown(verify.render(VerifyReport(1, 1, dict.fromkeys(Kind, 0), (found,), True, "all", (), ())), 80)
    assert told[1] == "wrong  boundary 3, thread 1, pc 0x140001010 clamp"
    assert len(told) > 4
    assert all(line.startswith("    ") for line in told[2:-1])
