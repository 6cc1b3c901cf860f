"""Live data without names that changed places between neighbours that did not, or came between them: bound by what shows which they are."""

import struct
from functools import partial

import pytest

from hotpatch import build
from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.differ import diff_images
from hotpatch.errors import NotHotpatchable, Rule
from hotpatch.patch import CarriedKind, Space
from tests.builder.applied import Applied
from tests.builder.test_neighbours import RETURN, STEP, adds, takes
from tests.emulator.pe import DATA, TEXT, Pe

FIRST, LAST, TAIL = DATA + 0x100, DATA + 0x130, DATA + 0x200
each_machine = pytest.mark.parametrize("machine", Machine)


WORD = {Machine.X64: (0x48, 0x8B), Machine.ARM64: (0xF9400000,)}


def loads(machine, at, target, register, code=WORD):
    """The eight bytes at an address into ``rax`` and its like, or ``x0`` and its like, by number."""
    arch = architecture(machine)
    if machine is Machine.X64:
        return bytes((*code[machine], 5 | register << 3)) + arch.bind(FixupKind.REL32, bytes(4), at + 3, target)
    page = arch.bind(FixupKind.PAGEBASE_REL21, struct.pack("<I", 0x90000000 | register), at, target)
    return page + arch.bind(FixupKind.PAGEOFFSET_12L, struct.pack("<I", code[machine][0] | register << 5 | register), at + 4, target)


def loads_byte(machine, at, target, register):
    """The same of one byte."""
    return loads(machine, at, target, register, code={Machine.X64: (0x0F, 0xB6), Machine.ARM64: (0x39400000,)})


def loads_but(others, machine, at, target, register):
    """Eight bytes, but what ``others``, by place, read."""
    return others.get(target, loads)(machine, at, target, register)


def image(machine, functions, data, names=takes):
    """``functions``: what each ``names`` in turn, and a number that it adds to how far the first two are apart; ``data``: place → words."""
    pe = Pe(machine)
    pe.put(TEXT, (b"\xcc" if machine is Machine.X64 else bytes(1)) * 0x400)
    rows = []
    for count, (name, (taken, number)) in enumerate(functions.items()):
        at, code = TEXT + STEP * count, b""
        for target, register in zip(taken, (0, 2, 1), strict=False):
            code += names(machine, at + len(code), target, register)
        pe.put(at, code + (adds(machine, number) if number else b"") + RETURN[machine])
        rows.append((name, at))
    for place, words in data.items():
        pe.put(place, struct.pack(f"<{len(words)}I", *words))
    pe.exports("rearranged.dll", rows)
    return pe.build("rearranged.dll")


def rules(diff):
    with pytest.raises(NotHotpatchable) as refused:
        build(diff)
    return {refusal.rule for refusal in refused.value.refusals}


def swapped(machine, one, other, names, *, extra=False):
    """``one`` and ``other``, words of four, stand in turn between two data that nothing moves; in the fixed image the other way round."""
    edges = {FIRST: (1, 2, 3, 4), LAST: (5, 6, 7, 8)}
    images = []
    for number, (x, y) in enumerate(((DATA + 0x110, DATA + 0x120), (DATA + 0x120, DATA + 0x110)), 1):
        functions = {
            "f": ([x, y, *([x] if extra and number > 1 else [])], number),
            "first": ([FIRST], 0),
            "last": ([LAST], 0),
        }
        images.append(image(machine, functions, {**edges, x: one, y: other}, names))
    return diff_images(*images)


ONE, OTHER, ZEROS = (9, 0, 9, 9), (7, 0, 0, 0), (0,) * 4


@each_machine
@pytest.mark.parametrize(
    ("one", "other", "names", "extra", "result"),
    [(ONE, OTHER, loads, True, 9 - 7 + 2), (ONE, OTHER, takes, False, -0x10 + 2), (ZEROS, ZEROS, takes, False, -0x10 + 2)],
    ids=["told-by-content", "told-by-both", "told-by-use"],
)
def test_data_that_changed_places(machine, one, other, names, extra, result):
    diff = swapped(machine, one, other, names, extra=extra)
    patch = build(diff)
    assert [row.name for row in patch.functions] == ["f"]
    assert Applied(diff.base, patch).call("f") == result % 2**64


@each_machine
@pytest.mark.parametrize("content", [ZEROS, ONE], ids=["zeros", "alike"])
def test_data_of_the_same_content_that_are_used_otherwise_are_refused(machine, content):
    assert rules(swapped(machine, content, content, loads, extra=True)) == {Rule.UNRESOLVED_REFERENCE}


def between(machine, names):
    """The fixed image has new data where an array ends, which a changed function ``names`` so."""
    array, new, last = (3,) * 16, (6,) * 8, (4,) * 4
    start, end = DATA + 0x110, DATA + 0x150
    images = []
    for number, at in enumerate((end, end + 0x20), 1):
        functions = {
            "f": ([TAIL if number == 1 else end], number),
            "array": ([start], 0),
            "first": ([FIRST], 0),
            "last": ([at], 0),
            "tail": ([TAIL], 0),
        }
        data = {FIRST: (1, 2, 3, 4), start: array, at: last, TAIL: last, **({end: new} if number > 1 else {})}
        images.append(image(machine, functions, data, names))
    return diff_images(*images)


@each_machine
def test_new_data_that_are_read_where_others_end(machine):
    diff = between(machine, loads)
    patch = build(diff)
    assert [(item.kind, item.size) for item in patch.carried] == [(CarriedKind.DATA, 0x20)]
    assert patch.image.read(patch.carried[0].patch_rva, 0x20) == struct.pack("<8I", *(6,) * 8)


@each_machine
def test_an_address_that_may_be_the_end_of_what_is_before_new_data_is_refused(machine):
    assert rules(between(machine, takes)) == {Rule.UNRESOLVED_REFERENCE}


def tied(machine, *, f=("X", "FIRST"), g=("FIRST", "LAST", "N"), new=loads_byte):
    """A word that stayed behind its neighbour; what follows it lies further down, and a new one is where that tells the old one to be.

    ``new``: how the new one is read.
    """
    places = [
        {"FIRST": FIRST, "X": FIRST + 0x10, "LAST": FIRST + 0x18},
        {"FIRST": FIRST, "X": FIRST + 0x10, "N": FIRST + 0x18, "LAST": FIRST + 0x20},
    ]
    images = []
    for number, (place, one, other) in enumerate(zip(places, (("X", "FIRST"), f), (("FIRST", "LAST"), g), strict=True), 1):
        functions = {name: ([place[target] for target in taken], number) for name, taken in (("f", one), ("g", other))}
        functions |= {name: ([place[target]], 0) for name, target in (("first", "FIRST"), ("last", "LAST"))}
        data = {place["FIRST"]: (1, 2, 3, 4), place["LAST"]: (5, 6)}
        images.append(image(machine, functions, data, partial(loads_but, {place.get("N"): new})))
    return diff_images(*images)


@each_machine
def test_a_word_that_is_used_at_the_same_instructions_is_no_new_byte_that_others_use(machine):
    patch = build(tied(machine))
    assert [row.name for row in patch.functions] == ["f", "g"]
    assert {fixup.target for fixup in patch.fixups if fixup.space is Space.BASE} >= {FIRST, FIRST + 0x10, FIRST + 0x18}
    assert len([item for item in patch.carried if item.kind is CarriedKind.DATA]) == 1


@each_machine
@pytest.mark.parametrize(
    "changed",
    [{"f": ("X", "FIRST", "N")}, {"f": ("X", "FIRST", "X")}, {"new": loads}],
    ids=["uses-both", "uses-it-more-often", "others-use-a-word"],
)
def test_a_word_that_may_be_either_is_refused(machine, changed):
    assert rules(tied(machine, **changed)) & {Rule.UNRESOLVED_REFERENCE, Rule.CONTRADICTING_VOTES}


def left(machine, x, y):
    """Two words changed places; unchanged code uses the one, and of the other nothing but what it holds tells where it is."""
    images = []
    for number, (one, other) in enumerate(((FIRST + 0x10, FIRST + 0x18), (FIRST + 0x18, FIRST + 0x10)), 1):
        taken = [one, FIRST] if number == 1 else [FIRST, one]
        functions = {"f": (taken, number), "g": ([other], 0), "first": ([FIRST], 0), "last": ([FIRST + 0x20], 0)}
        images.append(image(machine, functions, {FIRST: (1, 2, 3, 4), one: x, other: y, FIRST + 0x20: (5, 6)}, loads))
    return diff_images(*images)


@each_machine
def test_the_last_one_left_is_told_by_what_it_holds(machine):
    diff = left(machine, (2, 0), (9, 0))
    assert diff.findings == ()
    patch = build(diff)
    assert [row.name for row in patch.functions] == ["f"]
    assert Applied(diff.base, patch).call("f") == (1 | 2 << 32) - 2 + 2


@each_machine
@pytest.mark.parametrize(("x", "y"), [((2, 0), (2, 0)), ((0, 0), (9, 0))], ids=["held-by-both", "zeros"])
def test_the_last_one_left_that_holds_what_others_do_is_refused(machine, x, y):
    assert rules(left(machine, x, y)) & {Rule.UNRESOLVED_REFERENCE, Rule.CONTRADICTING_VOTES}
