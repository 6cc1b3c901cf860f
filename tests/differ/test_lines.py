"""A function's instructions as columns."""

from __future__ import annotations

from hotpatch.arch import FixupKind
from hotpatch.differ.lines import Line, Lines
from hotpatch.differ.parts import Position

CALL, DATA = (FixupKind.REL32,), (FixupKind.REL32, FixupKind.ADDR32NB)
ROWS = (
    Line(Position(0, 0), 3, b"abc", "mov", ()),
    Line(Position(0, 3), 5, b"e", "call", CALL, (0,)),
    Line(Position(0, 8), 2, "je", "je", (), (), 3),
    Line(Position(2, 0), 7, b"d", "lea", DATA, (1, 2), 16, takes_inner=True),
    Line(Position(2, 8), 1, b"r", "ret", ()),
)
"""The second range has none."""


def columns() -> Lines:
    lines = Lines()
    for part in range(3):
        lines.begin_part()
        for row in ROWS:
            if row.position.part == part:
                lines.add(row.position.offset, row.size, row.token, row.operation)
                if row.links:
                    lines.link(row.links[0], row.kinds)
                if row.inner is not None:
                    lines.lead_in(row.inner, takes=row.takes_inner)
    lines.end()
    return lines


def test_what_was_put_in_comes_out() -> None:
    lines = columns()
    assert tuple(lines) == tuple(lines[0:5]) == ROWS
    assert (lines[3], lines[-1]) == (ROWS[3], ROWS[4])
    assert [tuple(lines.links_of(index)) for index in range(5)] == [row.links for row in ROWS]


def test_shapes_are_those_of_the_lines() -> None:
    lines = columns()
    assert lines.shapes(0, 5) == [row.shape for row in ROWS]
    assert lines.shapes(1, 3) == [row.shape for row in ROWS[1:3]]


def test_an_instruction_is_found_by_where_it_begins() -> None:
    lines = columns()
    assert [lines.index_at(row.position) for row in ROWS] == [0, 1, 2, 3, 4]
    assert [lines.index_at(Position(*place)) for place in ((0, 1), (1, 0), (2, 1), (2, 9))] == [None] * 4
