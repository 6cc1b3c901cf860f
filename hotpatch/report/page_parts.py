"""What the page of a comparison shows of one function: its flow, and its blocks side by side with what differs in a line set apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.differ import ListingLine, switch
from hotpatch.report.excerpt import by_shape_note, left_out, stretches
from hotpatch.report.flow_picture import FlowPicture, flow_picture

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hotpatch.differ import Listing, ListingBlock, ListingExit
    from hotpatch.report.diff_documents import FunctionVerdict

_WORDS = re.compile(r"\w+|\s+|.")
_LABEL = re.compile(r"[BN]\d+")
_MARK = {"same": "", "changed": "±", "added": "+", "removed": "−"}
_MOST_UNFOLDED = 100
"""Unchanged blocks in a row; more are counted but not on the page."""


class Piece(NamedTuple):
    """Text; whether the other side has something else there, and the block that it names."""

    text: str
    differs: bool
    label: str | None


@dataclass(frozen=True)
class PageLine:
    """A line of a block; ``mark`` says in one character how its sides relate."""

    kind: str
    mark: str
    base_rva: int | None
    base: Sequence[Piece]
    fixed_rva: int | None
    fixed: Sequence[Piece]


@dataclass(frozen=True)
class PageBlock:
    """A block with where each side leads."""

    label: str
    kind: str
    moved: bool
    base_rva: int | None
    fixed_rva: int | None
    lines: Sequence[PageLine]
    base_exits: Sequence[Piece]
    fixed_exits: Sequence[Piece]


@dataclass(frozen=True)
class PageStretch:
    """Blocks that follow each other: shown, or folded away under ``left_out``; too many of these are not there at all."""

    shown: bool
    left_out: str
    blocks: Sequence[PageBlock]


@dataclass(frozen=True)
class PageFunction:
    """One function; ``anchor`` begins the identifiers of all that belongs to it."""

    anchor: str
    label: str
    row: FunctionVerdict
    picture: FlowPicture | None
    stretches: Sequence[PageStretch]
    note: str


def page_function(anchor: str, label: str, row: FunctionVerdict, listing: Listing, *, lean: bool = False) -> PageFunction:
    """What the page shows of ``listing``; where it is ``lean``, of unchanged blocks that nothing stands beside only how many there are."""
    most = 0 if lean else _MOST_UNFOLDED
    rows = [(shown, blocks, shown or len(blocks) <= most) for shown, blocks in stretches(listing.blocks)]
    labels = frozenset(block.label for _, blocks, there in rows if there for block in blocks)
    parts = [
        PageStretch(shown, "" if shown else left_out(blocks), [_block(block, labels) for block in blocks] if there else [])
        for shown, blocks, there in rows
    ]
    note = by_shape_note(listing.by_shape) if listing.by_shape else ""
    return PageFunction(anchor, label, row, flow_picture(listing), parts, note)


def _block(block: ListingBlock, labels: frozenset[str]) -> PageBlock:
    lines = [_line(line, labels) for line in block.lines]
    base, fixed = (" ".join(switch(exits)) for exits in (block.base_exits, block.fixed_exits))
    if base != fixed and block.kind == "changed":
        lines.append(_line(ListingLine("changed", None, f"switch: {base}", None, f"switch: {fixed}"), labels))
    exits = _exits(block.base_exits, labels), _exits(block.fixed_exits, labels)
    return PageBlock(block.label, block.kind, block.moved, block.base_rva, block.fixed_rva, lines, *exits)


def _exits(exits: Iterable[ListingExit], labels: frozenset[str]) -> Sequence[Piece]:
    """Each block that control may go to, once."""
    return [Piece(label, False, label if label in labels else None) for label in dict.fromkeys(item.label for item in exits)]


def _line(line: ListingLine, labels: frozenset[str]) -> PageLine:
    base, fixed = (_WORDS.findall(text or "") for text in (line.base, line.fixed))
    changed: tuple[set[int], set[int]] = (set(), set())
    if line.kind == "changed":
        for operation, b0, b1, f0, f1 in SequenceMatcher(None, base, fixed, autojunk=False).get_opcodes():
            if operation != "equal":
                changed[0].update(range(b0, b1))
                changed[1].update(range(f0, f1))
    left, right = (_pieces(words, where, labels) for words, where in zip((base, fixed), changed, strict=True))
    return PageLine(line.kind, _MARK[line.kind], line.base_rva, left, line.fixed_rva, right)


def _pieces(words: Sequence[str], changed: set[int], labels: frozenset[str]) -> Sequence[Piece]:
    """Words, those together that are alike."""
    found: list[Piece] = []
    for at, word in enumerate(words):
        label = word if _LABEL.fullmatch(word) and word in labels else None
        if found and label is None and found[-1].label is None and found[-1].differs is (at in changed):
            found[-1] = found[-1]._replace(text=found[-1].text + word)
        else:
            found.append(Piece(word, at in changed, label))
    return found
