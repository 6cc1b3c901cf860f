"""Each kind of evidence where it alone decides: without it, the function is matched with nothing, or with another."""

from __future__ import annotations

import pytest

from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.differ import diff_images
from hotpatch.differ.correlate import _Correlator
from hotpatch.differ.matching import Evidence
from tests.emulator.pe import RDATA, TEXT, Pe

_STEP = 0x60
_ANCHORS = ("first", "second", "third", "last")
"""Exported by name, and the same in both images."""
_TEXTS = ("the one text", "the other text", "a third of them", "and the last")
_TEXT_AT = RDATA + 0x800

# What a function does: ("text", number of a text), ("call", name), ("skip",): a branch over the next, or an operation and a number.
OPENING, CLOSING = (tuple((operation, number) for number in range(3, 9)) for operation in ("add", "sub"))
_MANY = tuple(("add", number) for number in (301, 303, 307, 311, 313))


def _mentions(*texts):
    return tuple(("text", number) for number in texts)


def _calls(*names):
    return tuple(("call", name) for name in names)


def _skips(count):
    return tuple(step for number in range(count) for step in (("skip",), ("or", 1 << number)))


# The step of the search → what the two nameless functions have in both images; the rest of them differs.
KINDS = {
    Evidence.MENTIONS: ("_mentions", _mentions(0, 1), _mentions(2, 3)),
    Evidence.CALL_GRAPH: ("_call_graph", _calls("first", "second"), _calls("second", "third")),
    Evidence.FLOW_GRAPH: ("_flow_graph", _skips(2), _skips(3)),
    Evidence.SIMILARITY: ("_look_alikes", _MANY, tuple(("sub", number + 100) for _, number in _MANY)),
}
each_machine = pytest.mark.parametrize("machine", Machine)


def _code(machine, at, steps, entries):
    code = b""
    accumulator = "eax" if machine is Machine.X64 else "w0"
    for kind, *what in steps:
        here = at + len(code)
        if kind == "text":
            target = _TEXT_AT + 0x20 * what[0]
            takes = f"lea rcx, [rip + {target - here - 7}]", f"adrp x1, {target & -0x1000}; add x1, x1, #{target & 0xFFF}"
            text = takes[machine is Machine.ARM64]
        elif kind == "call":
            text = f"{'call' if machine is Machine.X64 else 'bl'} {entries[what[0]]}"
        elif kind == "skip":
            text = f"je {here + 7}" if machine is Machine.X64 else f"cbz w2, {here + 8}"
        elif machine is Machine.X64:
            text = f"{kind} {accumulator}, {what[0] + 0x1000}"
        else:
            text = f"{'orr' if kind == 'or' else kind} {accumulator}, {accumulator}, #{what[0]}"
        code += assemble(machine, text, here)
    return code + assemble(machine, "ret", 0)


def nameless(machine, order, bodies, exported=None):
    """Functions in this order; those that are no anchors are ``exported`` (all, in this order) without a name, and so are led to."""
    pe = Pe(machine)
    pe.put(TEXT, (b"\xcc" if machine is Machine.X64 else bytes(1)) * 0x400)
    entries = {name: TEXT + _STEP * number for number, name in enumerate(order)}
    for name, at in entries.items():
        steps = (("add", 21 + _ANCHORS.index(name)),) if name in _ANCHORS else bodies[name]
        pe.put(at, _code(machine, at, steps, entries))
    for number, text in enumerate(_TEXTS):
        pe.put(_TEXT_AT + 0x20 * number, text.encode())
    pe.exports("evidence.dll", [(name if name in _ANCHORS else None, entries[name]) for name in exported or order])
    return pe.build("evidence.dll"), entries


def _pair(machine, kind):
    """Two functions that stood in front of all others and stand behind them now, in another order: their place tells nothing."""
    _, *common = KINDS[kind]
    there, here = (
        {name: edge + own if kind is not Evidence.SIMILARITY else own + edge[:1] for name, own in zip(("one", "two"), common, strict=True)}
        for edge in (OPENING, CLOSING)
    )
    return nameless(machine, ("one", "two", *_ANCHORS), there), nameless(machine, (*_ANCHORS, "two", "one"), here)


def matched(pair):
    """What each function of the base is matched by, and with."""
    (base, there), (fixed, here) = pair
    names = {at: name for name, at in here.items()}
    rows = {row.base.entry: row for row in diff_images(base, fixed).functions if row.base is not None}
    return {name: (row.matched_by, names[row.fixed.entry]) if (row := rows[at]).fixed else None for name, at in there.items()}


@each_machine
@pytest.mark.parametrize("kind", KINDS)
def test_it_decides(machine, kind, monkeypatch):
    pair = _pair(machine, kind)
    assert matched(pair) == {
        **{name: (Evidence.NAME, name) for name in _ANCHORS},
        **{name: (kind, name) for name in ("one", "two")},
    }
    monkeypatch.setattr(_Correlator, KINDS[kind][0], lambda _: False)
    found = matched(pair)
    assert (found["one"], found["two"]) == (None, None)
