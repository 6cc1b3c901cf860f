"""Both versions of a function side by side: what is left out, how it folds, how its flow is drawn."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from hotpatch.differ import Listing, ListingBlock, ListingExit, ListingLine
from hotpatch.differ.blocks import Way
from hotpatch.report.excerpt import left_out, stretches
from hotpatch.report.flow_picture import flow_picture
from hotpatch.report.page_parts import page_function
from hotpatch.report.side_text import SideBySide

LONG = "mov qword ptr [rsp + 0x28], qword ptr [a_rather_long_name_of_a_thing]"


def block(label: str, kind: str = "same", *leads: str, moved: bool = False, text: str = "ret", fixed: str | None = None) -> ListingBlock:
    """A block of one line that leads to ``leads``, the first of which stands behind it."""
    exits = tuple(ListingExit(Way.TAKEN if number else Way.NEXT, lead) for number, lead in enumerate(leads))
    base_side = kind != "added", kind != "removed"
    line = ListingLine(
        kind,
        0x1000 if base_side[0] else None,
        text if base_side[0] else None,
        0x2000 if base_side[1] else None,
        (fixed or text) if base_side[1] else None,
    )
    return ListingBlock(label, kind, moved, (line,), exits if base_side[0] else (), exits if base_side[1] else ())


def shown(blocks: list[ListingBlock], width: int = 80, *, everything: bool = False, by_shape: int = 0) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    console.print(SideBySide(Listing(tuple(blocks), by_shape), ("f", "f"), everything=everything), crop=False)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def plain(kinds: str) -> list[ListingBlock]:
    """A block a letter: ``.`` unchanged, ``c`` changed, ``a`` added, ``r`` removed, ``m`` moved."""
    names = {".": "same", "c": "changed", "a": "added", "r": "removed", "m": "same"}
    return [block(f"B{at}", names[kind], moved=kind == "m") for at, kind in enumerate(kinds)]


def test_padding_is_not_counted() -> None:
    here = plain("c..r...")
    here[3] = replace(here[3], padding=True)
    assert left_out(here[2:6]) == "3 unchanged blocks, B2 to B5"
    assert left_out(here[3:4]) == "padding, B3"
    assert [row.shown for row in stretches(here)] == [True, False]
    assert "B3: 0x1000  padding" in " ".join(shown(here, everything=True))


STRETCHES = [
    ("", []),
    (".....", [(True, 5)]),
    ("c", [(True, 1)]),
    ("...c....", [(False, 2), (True, 3), (False, 3)]),
    ("..c..", [(True, 1), (True, 3), (True, 1)]),
    ("c...a", [(True, 2), (True, 1), (True, 2)]),
    ("c....r", [(True, 2), (False, 2), (True, 2)]),
    ("....m", [(False, 3), (True, 2)]),
]


@pytest.mark.parametrize(("kinds", "expected"), STRETCHES, ids=[row[0] or "none" for row in STRETCHES])
def test_blocks_that_differ_are_shown_with_one_around_each(kinds, expected) -> None:
    blocks = plain(kinds)
    found = stretches(blocks)
    assert [(part.shown, len(part.blocks)) for part in found] == expected
    assert [one for part in found for one in part.blocks] == blocks
    assert [part.shown for part in stretches(blocks, everything=True)] == [True] * bool(blocks)


def test_what_is_left_out_is_counted() -> None:
    assert left_out(plain("....")) == "4 unchanged blocks, B0 to B3"
    lines = shown(plain("...c..."))
    assert [line for line in lines if line.startswith("…")] == ["… 2 unchanged blocks, B0 to B1", "… 2 unchanged blocks, B5 to B6"]
    assert not any(line.startswith("…") for line in shown(plain("...c..."), everything=True))


def test_side_by_side() -> None:
    blocks = [
        block("B0", "same", "B1"),
        block("N0", "added", "B1", text="ud2"),
        block("B1", "changed", text="mov eax, 1", fixed="mov eax, 2"),
        block("B2", "removed", text="nop"),
        block("B3", moved=True),
    ]
    assert shown(blocks, by_shape=70) == [
        "f in the base         f in the fixed image",
        "B0: 0x1000            B0: 0x2000",
        "  ret                   ret",
        "                        (goes on in B1)",
        "                      N0: 0x2000  added",
        "                    >   ud2",
        "B1: 0x1000            B1: 0x2000  changed",
        "  mov eax, 1        |   mov eax, 2",
        "B2: 0x1000  removed",
        "  nop               <",
        "B3: 0x1000            B3: 0x2000  moved",
        "  ret                   ret",
        "up to 70 blocks in one place were too many to compare each with each: there,",
        "only those of the same operations are paired",
    ]


@pytest.mark.parametrize("width", [20, 40, 80, 120, 1000])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_lost(width) -> None:
    blocks = [block("B0", "changed", text=LONG, fixed=LONG + " (other)"), block("B1")]
    lines = shown(blocks, width)
    assert max(map(len, lines)) <= width
    assert "".join("".join(lines).split()).count("rather_long" if width > 40 else "ret") == 2
    assert (len(lines) == 5) is (width == 1000)


def test_the_flow_is_drawn_with_what_each_version_alone_has() -> None:
    one = ListingBlock(
        "B0", "changed", False, (), (ListingExit(Way.NEXT, "B1"),), (ListingExit(Way.NEXT, "B1"), ListingExit(Way.TAKEN, "B2"))
    )
    picture = flow_picture(Listing((one, block("B1", "same", "B2", "B0"), block("B2", "removed", "B2")), 0))
    assert picture is not None
    assert [(box.text, box.kind) for box in picture.boxes] == [("B0", "changed"), ("B1", "same"), ("B2", "removed")]
    assert [(arrow.versions, arrow.title) for arrow in picture.arrows] == [
        ("both", "B0 to B1"),
        ("fixed", "B0 to B2, only in the fixed image"),
        ("both", "B1 to B0"),
        ("both", "B1 to B2"),
        ("base", "B2 to B2, only in the base"),
    ]


def test_flow_that_nobody_could_follow_is_not_drawn() -> None:
    assert flow_picture(Listing((block("B0", "changed"),), 0)) is None
    assert flow_picture(Listing(tuple(plain("c" * 400)), 0)) is None
    folded = flow_picture(Listing(tuple(plain("c" + "." * 400)), 0))
    assert folded is not None
    assert [(box.text, box.detail) for box in folded.boxes] == [("B0", "±1"), ("B1", "1"), ("B2 – B400", "×399")]


def test_lanes_of_the_picture_never_run_over_each_other() -> None:
    blocks = [block(f"B{at}", "changed", f"B{(at + 1) % 12}", f"B{at * 5 % 12}") for at in range(12)]
    picture = flow_picture(Listing(tuple(blocks), 0))
    assert picture is not None
    spans: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for arrow in picture.arrows:
        corners = [int(number) for number in arrow.path.replace("Q", " ").replace("H", " ").replace("V", " ").replace("M", " ").split()]
        if len(corners) > 4:
            start, lane, end = corners[1], corners[3], corners[-2]
            spans.setdefault((lane, end), []).append((min(start, end), max(start, end)))
    for (lane, end), rows in spans.items():
        low, high = min(row[0] for row in rows), max(row[1] for row in rows)
        others = [row for (where, to), more in spans.items() if where == lane and to != end for row in more]
        assert all(high < start or last < low for start, last in others)


def test_a_page_names_only_blocks_that_are_on_it() -> None:
    blocks = [block("B0", "changed", text="jmp B150", fixed="jmp B1"), *plain("." * 200)[1:]]
    (first, *_, last) = page_function("f0", "f", None, Listing(tuple(blocks), 0)).stretches  # type: ignore[arg-type]
    assert [(piece.text, piece.differs, piece.label) for piece in first.blocks[0].lines[0].base] == [
        ("jmp ", False, None),
        ("B150", True, None),
    ]
    assert first.blocks[0].lines[0].fixed[-1].label == "B1"
    assert (last.left_out, last.blocks) == ("198 unchanged blocks, B2 to B199", [])
