"""Forms of code that compilers seldom emit: how each is bound, or by which rule it is refused."""

import pytest

from hotpatch.arch import Machine, Redirect
from hotpatch.builder import build_patch
from hotpatch.differ import FunctionMatch, Verdict
from hotpatch.errors import NothingToDo, NotHotpatchable, Rule
from hotpatch.report.convert import staying
from tests.builder.applied import Applied
from tests.builder.forge import Code, Data, forge, told

X64, ARM64 = Machine.X64, Machine.ARM64
FIVE = {X64: "b80500000090c3", ARM64: "a0008052c0035fd6"}
SIX = {X64: "b80600000090c3", ARM64: "c0008052c0035fd6"}
NINE = {X64: "b80900000090c3", ARM64: "20018052c0035fd6"}
each_machine = pytest.mark.parametrize("machine", Machine)


def refusals(diff, **options):
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(diff, **options)
    return refused.value.refusals


def rules(diff, **options):
    return [refusal.rule for refusal in refusals(diff, **options)]


def result(diff, patch, name, *arguments):
    return Applied(diff.base, patch).call(name, *arguments)


@each_machine
def test_short_branch_to_another_function_goes_through_a_veneer(machine):
    """x64 ``jmp rel8``, Arm64 ``cbz``: neither can leave the patch image."""
    tail = {X64: "eb1e", ARM64: "e00300b4a0018052c0035fd6"}
    base = forge(machine, [Code("f", 16, FIVE[machine]), Code("g", 48, SIX[machine])])
    fixed = forge(machine, [Code("f", 16, tail[machine]), Code("g", 48 if machine is X64 else 140, SIX[machine])])
    diff = told(base, fixed, f="changed")
    patch = build_patch(diff)
    assert result(diff, patch, "f", 0) == 6
    assert [fixup.kind.value for fixup in patch.fixups] == ["addr64"]


@each_machine
@pytest.mark.parametrize("known", [True, False], ids=["into-a-base-function", "into-a-new-function"])
def test_code_that_runs_on_into_the_next_function(machine, known):
    start = {X64: "b80100000083c004", ARM64: "2000805200100011"}
    after = {X64: "83c00ac3", ARM64: "00280011c0035fd6"}
    behind = 16 + len(start[machine]) // 2
    functions = [Code("f", 16, start[machine]), Code("g", behind, after[machine])]
    base = forge(machine, [Code("f", 16, FIVE[machine]), Code("g", 64, after[machine])] if known else [Code("f", 16, FIVE[machine])])
    diff = told(base, forge(machine, functions), f="changed")
    patch = build_patch(diff)
    assert result(diff, patch, "f") == 15
    assert ([row.name for row in patch.carried] == ["g"]) is not known


def test_x64_a_switch_without_a_bound_whose_table_has_zeros():
    """MSVC leaves them for values that cannot be (``__assume``); its tables stand behind the code, in the same range."""
    switch = "4c8d05e9efffff 4863c1 418b8c8034100000 4c01c1 ffe1 b8{:02x}000000c3 b802000000c3 90 27100000 00000000 2d100000"
    base, fixed = (forge(X64, [Code("f", 16, switch.format(number).replace(" ", ""))]) for number in (1, 5))
    diff = told(base, fixed, f="changed")
    patch = build_patch(diff)
    assert [result(diff, patch, "f", number) for number in (0, 2)] == [5, 2]


def test_x64_a_table_that_leads_to_code_which_stays_is_refused():
    """With the entry's place and bytes."""
    switch = "83f901 771d 4c8d05e4efffff 4863c1 418b8c8038100000 4c01c1 ffe1 b8{:02x}000000c3 b802000000c3 2c100000 60100000"
    base, fixed = (
        forge(X64, [Code("f", 16, switch.format(number).replace(" ", "")), Code("g", 80, "90" * 16 + FIVE[X64])]) for number in (1, 5)
    )
    (refusal,) = refusals(told(base, fixed, f="changed", g="changed"), only=["f"])
    assert (refusal.rule, refusal.function, refusal.rva) == (Rule.UNRESOLVED_REFERENCE, "f", 0x1010)
    assert refusal.evidence == {"image": "fixed", "table": 0x1038, "entry": 1, "rva": 0x103C, "bytes": "60100000", "target": 0x1060}


@each_machine
@pytest.mark.parametrize("verdict", ["relocated", "changed"])
def test_jump_into_the_middle_of_another_function(machine, verdict):
    """To the base's place where that function is the same there, refused where it is not (and stays)."""
    jump = {X64: "e920000000", ARM64: "09000014"}
    shared = {X64: "b80700000083c002c3", ARM64: "e000805200080011c0035fd6"}
    offset = {X64: 5, ARM64: 4}
    fixed = forge(machine, [Code("f", 16, jump[machine]), Code("g", 48, shared[machine])])
    base = forge(machine, [Code("f", 16, FIVE[machine]), Code("g", 96, shared[machine])])
    diff = told(base, fixed, f="changed", g=verdict)
    if verdict == "changed":
        assert rules(diff, only=["f"]) == [Rule.UNRESOLVED_REFERENCE]
        return
    patch = build_patch(diff)
    assert patch.fixups[0].target == 0x1000 + 96 + offset[machine]


@each_machine
def test_bytes_that_are_no_instruction(machine):
    bad = {X64: "0f0f0f0f0f0f0f0f", ARM64: "ffffffff00000000"}
    good = forge(machine, [Code("f", 16, FIVE[machine])])
    diff = told(good, forge(machine, [Code("f", 16, FIVE[machine][: -2 if machine is X64 else -8] + bad[machine])]), f="changed")
    assert Rule.UNDECODABLE in rules(diff)


@each_machine
def test_a_field_of_the_first_header_is_the_bases_own(machine):
    """As the start-up code of Visual C++ reads where the other headers are: it means those of its own module."""
    reads = {X64: "8b05" + (0x3C - 0x1016).to_bytes(4, "little", signed=True).hex() + "c3", ARM64: "e8fffff0003d40b9c0035fd6"}
    base, fixed = (forge(machine, [Code("f", 16, code[machine])]) for code in (FIVE, reads))
    diff = told(base, fixed, f="changed")
    assert result(diff, build_patch(diff), "f") == int.from_bytes(base.mapped[0x3C:0x40], "little")


def test_arm64_one_page_for_two_data_on_one_page():
    load_two = "080000d0000140b9010540b90000010bc0035fd6"
    fixed = forge(ARM64, [Code("f", 16, load_two)], [Data("a", 0, "0a000000"), Data("b", 4, "14000000")])
    base = forge(ARM64, [Code("f", 16, FIVE[ARM64])], [Data("a", 8, "0a000000"), Data("b", 12, "14000000")])
    diff = told(base, fixed, {"a": "a", "b": "b"}, f="changed")
    diff = type(diff)(base, fixed, diff.functions, tuple(type(one)(one.base, one.fixed, 4, "name", True) for one in diff.data), ())
    patch = build_patch(diff)
    assert result(diff, patch, "f") == 30
    assert len(patch.fixups) == 1


def test_arm64_one_page_for_two_data_on_two_pages_is_refused():
    load_two = "080000d0000140b9010540b90000010bc0035fd6"
    fixed = forge(ARM64, [Code("f", 16, load_two)], [Data("a", 0, "0a000000"), Data("b", 4, "14000000")])
    base = forge(ARM64, [Code("f", 16, FIVE[ARM64])], [Data("a", 0, "0a000000"), Data("b", 0x1004, "14000000")])
    diff = told(base, fixed, {"a": "a", "b": "b"}, f="changed")
    diff = type(diff)(base, fixed, diff.functions, tuple(type(one)(one.base, one.fixed, 4, "name", True) for one in diff.data), ())
    assert rules(diff) == [Rule.UNRESOLVED_REFERENCE]


def test_arm64_a_page_that_goes_out_of_sight_is_refused_though_something_begins_with_it():
    """``adrp x8; str x8, [x2]``, and another ADRP that is completed to the datum at the page's start."""
    fixed = forge(ARM64, [Code("f", 16, "080000d0480000f9090000d0200140b9c0035fd6")], [Data("a", 0, "0a00000000000000")])
    diff = told(forge(ARM64, [Code("f", 16, FIVE[ARM64])], [Data("a", 0, "0a00000000000000")]), fixed, {"a": "a"}, f="changed")
    assert rules(diff) == [Rule.UNRESOLVED_REFERENCE]


@each_machine
def test_reference_to_where_nothing_is(machine):
    far = {X64: "8b0500004000c3", ARM64: "08010090000140b9c0035fd6"}
    base = forge(machine, [Code("f", 16, FIVE[machine])])
    diff = told(base, forge(machine, [Code("f", 16, far[machine])]), f="changed")
    assert set(rules(diff)) == {Rule.UNRESOLVED_REFERENCE}


def two_fates(machine):
    """A comparison in which the base's one function becomes two."""
    base = forge(machine, [Code("one", 16, FIVE[machine])])
    fixed = forge(machine, [Code("one", 16, FIVE[machine]), Code("two", 64, SIX[machine])])
    rows = (
        FunctionMatch(base.functions[0], fixed.functions[0], Verdict.IDENTICAL, "name", 1.0),
        FunctionMatch(base.functions[0], fixed.functions[1], Verdict.CHANGED, "folded", 0.5),
    )
    diff = told(base, fixed)
    return type(diff)(base, fixed, rows, (), ())


@each_machine
def test_folded_body_with_two_fates(machine):
    diff = two_fates(machine)
    (refusal,) = refusals(diff)
    assert (refusal.rule, refusal.function, refusal.rva) == (Rule.FOLDED, "one", diff.base.functions[0].entry)
    assert refusal.evidence == {"names": ["one", "two"], "fixed_rvas": [function.entry for function in diff.fixed.functions]}


@each_machine
def test_copies_of_what_a_function_became(machine):
    """Any will do, and whoever leaves the function out leaves it as it is."""
    base = forge(machine, [Code("one", 16, FIVE[machine])])
    fixed = forge(machine, [Code("one", 16, SIX[machine]), Code("two", 64, SIX[machine])])
    rows = tuple(FunctionMatch(base.functions[0], other, Verdict.CHANGED, "folded", 0.5) for other in fixed.functions)
    diff = type(told(base, base))(base, fixed, rows, (), ())
    patch = build_patch(diff)
    assert [row.name for row in patch.functions] == ["one"]
    assert result(diff, patch, "one") == 6
    assert [row.name for row in build_patch(diff, only=["one"]).functions] == ["one"]
    with pytest.raises(NothingToDo):
        build_patch(diff, leave_out=["one"])
    assert [item.name for item in staying(diff, frozenset())] == ["one"]


@each_machine
def test_what_two_changed_functions_became_is_bound_to_the_one_that_travels(machine):
    """The other stays as it is, and what calls the new body means that."""
    call = {X64: "e8cbffffffc3", ARM64: "f4ffff97c0035fd6"}[machine]
    base = forge(machine, [Code("size", 16, FIVE[machine]), Code("f", 64, NINE[machine]), Code("column", 112, NINE[machine])])
    fixed = forge(machine, [Code("column", 16, SIX[machine]), Code("f", 64, call)])
    size, f, column = base.functions
    one, caller = fixed.functions
    pairs = ((size, one, "folded"), (f, caller, "name"), (column, one, "name"))
    rows = tuple(FunctionMatch(old, new, Verdict.CHANGED, why, 0.5) for old, new, why in pairs)
    diff = type(told(base, base))(base, fixed, rows, (), ())
    for left, meant in (("size", column), ("column", size)):
        patch = build_patch(diff, leave_out=[left])
        assert {fixup.target for fixup in patch.fixups if fixup.space.value == "base"} == {meant.entry}


@each_machine
@pytest.mark.parametrize(("evidence", "alike"), [("order", 0.3), ("folded", 0.9)])
def test_a_listed_function_that_one_which_stays_calls_and_that_only_its_place_matches(machine, evidence, alike):
    """By order, or by a table where the linker folded it: it may be another, and is refused, with the call and its bytes."""
    call = {X64: "e8cbffffffc3", ARM64: "f4ffff97c0035fd6"}[machine]
    base = forge(machine, [Code("f", 16, FIVE[machine]), Code("g", 64, call)])
    fixed = forge(machine, [Code("h", 16, SIX[machine]), Code("g", 64, NINE[machine])])
    rows = (
        FunctionMatch(base.functions[0], fixed.functions[0], Verdict.CHANGED, evidence, alike),
        FunctionMatch(base.functions[1], fixed.functions[1], Verdict.CHANGED, "name", 0.3),
    )
    (refusal,) = refusals(type(told(base, base))(base, fixed, rows, (), ()), only=["f"])
    assert (refusal.rule, refusal.function, refusal.rva) == (Rule.UNRESOLVED_REFERENCE, "f", 0x1010)
    shown = refusal.evidence
    assert (shown["callers"], shown["fixed_rva"], shown["rva"]) == ([0x1040], 0x1010, 0x1040)
    assert (shown["bytes"], shown["instruction"].split()[0]) == (call[: 10 if machine is X64 else 8], "call" if machine is X64 else "bl")


@each_machine
def test_pointer_in_new_data(machine):
    """To a base function: its entry; to a new one: the copy."""
    load = {X64: "488b05e91f0000ffe0", ARM64: "080000d0080140f900011fd6"}
    fixed = forge(
        machine,
        [Code("f", 16, load[machine]), Code("g", 64, SIX[machine]), Code("h", 112, NINE[machine])],
        [Data("fresh", 0, "00" * 16)],
        {0x3000: 0x1000 + 112, 0x3008: 0x1000 + 64},
    )
    base = forge(machine, [Code("f", 16, FIVE[machine]), Code("g", 96, SIX[machine])])
    diff = told(base, fixed, f="changed")
    patch = build_patch(diff)
    assert result(diff, patch, "f") == 9
    assert {(row.name, row.kind.value) for row in patch.carried} == {("fresh", "data"), ("h", "function")}
    spaces = {fixup.space.value: fixup.target for fixup in patch.fixups if fixup.site >= 0x2000}
    assert spaces["base"] == 0x1000 + 96


REDIRECTS = [
    # name, functions of the base, asked for, what comes of it
    ("padding", [Code("f", 16, "b805000000c3")], Redirect.HPAT, Redirect.HPAT),
    ("direct", [Code("f", 16, "b805000000c3")], Redirect.DIRECT, Redirect.DIRECT),
    ("inline", [Code("f", 16, "b805000000c3")], Redirect.INLINE, Redirect.INLINE),
    (
        "no-padding",
        [Code("e", 0, "b805000000b805000000b8050000009090c3"[:32]), Code("f", 16, "b805000000c3")],
        Redirect.HPAT,
        Redirect.INLINE,
    ),
    ("one-byte-entry", [Code("f", 16, "5331c08bc15bc3")], Redirect.HPAT, Redirect.INLINE),
    ("short-with-filler", [Code("f", 16, "90c3"), Code("g", 64, "b805000000c3")], Redirect.INLINE, Redirect.INLINE),
    ("short-neighbour", [Code("f", 16, "31c0c3"), Code("g", 19, "b805000000c3")], Redirect.INLINE, Redirect.HPAT),
    (
        "short-alone",
        [Code("e", 0, "b805000000b805000000b80500000090c3"[:32]), Code("f", 16, "31c0c3"), Code("g", 19, "b805c3")],
        Redirect.HPAT,
        Rule.NO_PADDING,
    ),
    ("jump-back", [Code("f", 16, "ffc975fc31c0c3")], Redirect.HPAT, Redirect.INLINE),
    ("jump-back-from-afar", [Code("f", 16, "ffc1ffc2ffc085c975f631c0c3")], Redirect.HPAT, Rule.ENTRY_NOT_PATCHABLE),
    ("branch-into", [Code("f", 16, "5331c0ffc05bc3"), Code("g", 64, "75d031c0c3")], Redirect.HPAT, Rule.BRANCH_INTO_DISPLACED),
]


@pytest.mark.parametrize(("functions", "asked", "expected"), [row[1:] for row in REDIRECTS], ids=[row[0] for row in REDIRECTS])
def test_x64_redirects(functions, asked, expected):
    fixed = forge(
        X64, [Code(item.name, 64 * index + 16, FIVE[X64] if item.name == "f" else item.code) for index, item in enumerate(functions)]
    )
    diff = told(forge(X64, functions), fixed, f="changed")
    if isinstance(expected, Rule):
        assert expected in rules(diff, redirect=asked)
        return
    (row,) = build_patch(diff, redirect=asked).functions
    assert row.redirect is expected
    assert (";" in row.why) is (asked is not expected)


@pytest.mark.parametrize("asked", Redirect)
def test_arm64_takes_every_redirect(asked):
    diff = told(forge(ARM64, [Code("f", 16, FIVE[ARM64])]), forge(ARM64, [Code("f", 16, SIX[ARM64])]), f="changed")
    (row,) = build_patch(diff, redirect=asked).functions
    assert (row.redirect, row.why) == (asked, "changed")
