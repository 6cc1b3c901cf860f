"""Functions of the same body are judged by what they refer to, each thing once: no difference may slip through, and none be made up."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.cases import find_case
from hotpatch.differ import Verdict, diff_images
from hotpatch.differ.alignments import Alignments
from hotpatch.differ.correlate import correlate
from hotpatch.differ.correspond import Correspondence
from hotpatch.differ.data import correlate_data
from hotpatch.differ.twins import Twins
from hotpatch.differ.verdicts import verdict_of
from hotpatch.differ.view import view_of
from hotpatch.image import open_image
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

FIRST, SECOND, COPY, TABLE, NUMBERS, END, LIVE, OTHER, RING = (
    *(RDATA + 0x800 + 0x20 * number for number in range(4)),
    *(RDATA + 0x900, RDATA + 0x920),
    *(DATA + 0x40, DATA + 0x60, DATA + 0x80),
)
TEXTS = {FIRST: b"the first of them", SECOND: b"the other of them", COPY: b"the first of them", END: bytes(range(128, 144))}


@dataclass(frozen=True)
class Build:
    """One of two builds: what each function refers to, what tables point at, and the bytes of constants."""

    one: tuple[int, ...] = (FIRST,)
    two: tuple[int, ...] = (SECOND,)
    both: tuple[int, ...] = (FIRST, SECOND)
    table: tuple[int, ...] = (TABLE,)
    live: tuple[int, ...] = (LIVE,)
    live_again: tuple[int, ...] = (LIVE, LIVE)
    live_too: tuple[int, ...] = (LIVE,)
    other: tuple[int, ...] = (OTHER,)
    other_again: tuple[int, ...] = (OTHER, OTHER)
    behind: tuple[int, ...] = (END,)
    ring: tuple[int, ...] = (RING,)
    calls: tuple[str, ...] = ("one", "two")
    points: tuple[int | str, ...] = (FIRST, "one")
    numbers: bytes = bytes(range(200, 216))
    texts: tuple[tuple[int, bytes], ...] = tuple(TEXTS.items())
    shift: int = 0

    def moved(self, rva: int) -> int:
        """Constants and live data lie further down by ``shift``."""
        return rva + self.shift


_TAKERS = ("one", "two", "both", "table", "live", "live_again", "live_too", "other", "other_again", "behind", "ring")
_SPACE = 0x40
_AT = {name: TEXT + _SPACE * number for number, name in enumerate((*_TAKERS, "calls"))}


def _takes(machine: Machine, at: int, target: int) -> bytes:
    if machine is Machine.X64:
        return assemble(machine, f"lea rax, [rip + {target - at - 7}]", at)
    return assemble(machine, f"adrp x0, {target & -0x1000}; add x0, x0, #{target & 0xFFF}", at)


def _calls(machine: Machine, at: int, target: int) -> bytes:
    return assemble(machine, f"{'call' if machine is Machine.X64 else 'bl'} {target}", at)


def image(machine: Machine, build: Build):
    """Every function is exported, and loads a number of its own, so that there is no doubt which is which."""
    pe = Pe(machine)
    for number, (name, at) in enumerate(_AT.items()):
        code = assemble(machine, f"mov {'ecx' if machine is Machine.X64 else 'w1'}, {number + 1000}", at)
        for target in getattr(build, name):
            here = at + len(code)
            code += _calls(machine, here, _AT[target]) if name == "calls" else _takes(machine, here, build.moved(target))
        pe.put(at, code + assemble(machine, "ret", 0))
    for rva, text in build.texts:
        pe.put(build.moved(rva), text)
    pe.put(build.moved(NUMBERS), build.numbers)
    for number, target in enumerate(build.points):
        pe.pointer(build.moved(TABLE) + 8 * number, _AT[target] if isinstance(target, str) else build.moved(target))
    for site, target in ((RING, RING + 8), (RING + 8, RING)):
        pe.pointer(build.moved(site), build.moved(target))
    pe.exports("twins.dll", list(_AT.items()))
    return pe.build("twins.dll")


def _texts(**changes: bytes) -> tuple[tuple[int, bytes], ...]:
    return tuple({**TEXTS, **{{"first": FIRST, "second": SECOND}[name]: text for name, text in changes.items()}}.items())


CHANGES = {
    "nothing": ({}, set()),
    "everything moves": ({"shift": 0x40}, set()),
    "a reference to other bytes": ({"one": (SECOND,)}, {"one"}),
    "a reference to equal bytes elsewhere": ({"one": (COPY,)}, set()),
    "two references swapped": ({"both": (SECOND, FIRST)}, {"both"}),
    "both references to one": ({"both": (FIRST, FIRST)}, {"both"}),
    "two calls swapped": ({"calls": ("two", "one")}, {"calls"}),
    "both calls of one": ({"calls": ("two", "two")}, {"calls"}),
    "a byte of a constant": ({"texts": _texts(first=b"the worst of them")}, {"one", "both", "table"}),
    "two constants change places": ({"texts": _texts(first=TEXTS[SECOND], second=TEXTS[FIRST])}, {"one", "two", "both", "table"}),
    "a constant becomes live data": ({"one": (OTHER,)}, {"one"}),
    "a reference to other live data": ({"live": (OTHER,)}, {"live"}),
    "a pointer to another constant": ({"points": (SECOND, "one")}, {"table"}),
    "a pointer to another function": ({"points": (FIRST, "two")}, {"table"}),
    "a pointer to equal bytes elsewhere": ({"points": (COPY, "one")}, set()),
    "the middle of a constant": ({"one": (FIRST + 4,)}, {"one"}),
    "numbers of which only the end is named": ({"numbers": bytes(range(216, 232))}, {"table", "behind"}),
}


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(("changes", "changed"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("shift", [0, 0x80])
def test_exactly_who_refers_to_something_else_has_changed(machine, changes, changed, shift):
    base, fixed = image(machine, Build()), image(machine, replace(Build(shift=shift), **changes))
    found = {row.name: row.verdict for row in diff_images(base, fixed).functions}
    assert found.keys() == _AT.keys()
    assert {name for name, verdict in found.items() if verdict is Verdict.CHANGED} == changed
    assert set(found.values()) <= {Verdict.IDENTICAL, Verdict.RELOCATED, Verdict.CHANGED}


CASES = (
    "basic",
    "callback",
    "cold-part",
    "data-layout-refused",
    "folded",
    "jump-table",
    "new-constant",
    "shared-tail",
    "two-level-switch",
    "vtable",
)


@pytest.mark.parametrize("pdb", ["auto", None], ids=["pdb", "no-pdb"])
@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("name", CASES)
def test_what_is_settled_beforehand_is_what_a_close_look_says(name, machine, pdb):
    case = find_case(name)
    views = [view_of(open_image(case.image(machine, side), pdb=pdb)) for side in ("base", "fixed")]
    alignments = Alignments(*views)
    matching, _ = correlate(*views, alignments)
    twins = Twins.of(*views, matching, alignments)
    live = correlate_data(*views, matching, twins).ranges()
    quick, slow = (Correspondence(*views, matching, live) for _ in range(2))
    quick.settle(twins.targets)
    slow.settled.clear()
    for pair in matching.forward.items():
        assert verdict_of(quick, *pair) is verdict_of(slow, *pair)
    for base, fixed in twins.targets:
        size = quick.equal_plain(base, fixed)
        if size is not None:
            assert slow.same(base, fixed)
            assert slow.constant_size(base, fixed) == (base, fixed, size)


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize("name", CASES)
def test_pointers_behind_every_boundary(name, machine):
    view = view_of(open_image(find_case(name).image(machine, "base")))
    for start in view.boundaries[:-1]:
        assert view.pointers_from(start) == view.pointers(*view.extent(start)), hex(start)
    assert all(not view.pointers(start, start + len(content)) for start, content in view.plain.items())
