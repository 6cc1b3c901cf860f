"""The control flow of a function's two versions as one picture: a column of blocks, what leads forward on its right, back on its left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.report.excerpt import stretches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hotpatch.differ import Listing, ListingBlock

_WHOLE = 24
"""Functions of no more blocks are drawn whole."""
_MOST_BOXES, _MOST_LANES = 160, 24
"""What is larger is not drawn: nobody could follow it."""
_WIDTH, _HEIGHT, _GAP = 128, 30, 16
_LANE, _NEAREST, _MARGIN = 8, 14, 8
_CORNER, _ARROW = 4, 5
_ENDS = {"both": 8, "base": 12, "fixed": 16}
"""How far from a box's edge an arrow begins and ends, by which versions have it."""


class Box(NamedTuple):
    """A block, or several unchanged ones that are not shown one by one.

    Attributes:
        label: Of the block to go to, or ``None``.
        text: What it is called.
        detail: How many lines it has, or how many differ; how many blocks it stands for.
        kind: As of :class:`ListingBlock`; ``moved``, or ``several``.
        y: Of its upper edge.
    """

    label: str | None
    text: str
    detail: str
    kind: str
    y: int


class Arrow(NamedTuple):
    """An edge: which versions have it (``both``, ``base``, ``fixed``), what it says, and its outline as an SVG path with its head's."""

    versions: str
    title: str
    path: str
    head: str


@dataclass(frozen=True)
class FlowPicture:
    """Sizes in SVG units; boxes all begin at ``left`` and have the size ``box``."""

    boxes: Sequence[Box]
    arrows: Sequence[Arrow]
    left: int
    width: int
    height: int
    box: tuple[int, int] = (_WIDTH, _HEIGHT)


class _Trunk(NamedTuple):
    """Edges of the same versions that lead to one box from the same direction share a line."""

    target: int
    versions: str
    back: bool


def flow_picture(listing: Listing) -> FlowPicture | None:
    """The picture; ``None`` where there is no flow to show or too much of it."""
    rows = stretches(listing.blocks, everything=len(listing.blocks) <= _WHOLE)
    groups = [group for shown, blocks in rows for group in ([[block] for block in blocks] if shown else [blocks])]
    if not 1 < len(groups) <= _MOST_BOXES:
        return None
    edges = _edges(groups)
    trunks = _trunks(edges)
    lanes = {back: _lanes({trunk: sources for trunk, sources in trunks.items() if trunk.back is back}) for back in (True, False)}
    counts = [max(lanes[back].values(), default=-1) + 1 for back in (True, False)]
    if max(counts) > _MOST_LANES:
        return None
    left, right = (_MARGIN + (_NEAREST + count * _LANE if count else 0) for count in counts)
    boxes = [_box(group, _MARGIN + at * (_HEIGHT + _GAP)) for at, group in enumerate(groups)]
    draw = _Pen(boxes, left, lanes)
    arrows = [draw.arrow(source, target, versions) for (source, target), versions in sorted(edges.items())]
    return FlowPicture(boxes, arrows, left, left + _WIDTH + right, boxes[-1].y + _HEIGHT + _MARGIN)


def _edges(groups: Sequence[Sequence[ListingBlock]]) -> Mapping[tuple[int, int], str]:
    """Which box leads to which, and in which versions; within several blocks nothing is drawn."""
    at = {block.label: number for number, group in enumerate(groups) for block in group}
    found: dict[tuple[int, int], set[str]] = {}
    for number, group in enumerate(groups):
        for block in group:
            for version, exits in (("base", block.base_exits), ("fixed", block.fixed_exits)):
                for item in exits:
                    if len(group) == 1 or at[item.label] != number:
                        found.setdefault((number, at[item.label]), set()).add(version)
    return {edge: "both" if len(versions) == 2 else versions.pop() for edge, versions in found.items()}


def _trunks(edges: Mapping[tuple[int, int], str]) -> Mapping[_Trunk, list[int]]:
    """Edges that need a lane, by what they share, with their sources: all but those to the box right below."""
    found: dict[_Trunk, list[int]] = {}
    for (source, target), versions in sorted(edges.items()):
        if target != source + 1:
            found.setdefault(_Trunk(target, versions, target <= source), []).append(source)
    return found


def _lanes(trunks: Mapping[_Trunk, Sequence[int]]) -> Mapping[_Trunk, int]:
    """A lane for each, counted from the boxes; the shortest are nearest, and no two of a lane overlap."""
    spans = {trunk: (min(trunk.target, *sources), max(trunk.target, *sources)) for trunk, sources in trunks.items()}
    lanes: list[list[tuple[int, int]]] = []
    found: dict[_Trunk, int] = {}
    for trunk, (start, end) in sorted(spans.items(), key=lambda row: (row[1][1] - row[1][0], row)):
        free = (number for number, taken in enumerate(lanes) if all(end < other or start > last for other, last in taken))
        number = next(free, len(lanes))
        if number == len(lanes):
            lanes.append([])
        lanes[number].append((start, end))
        found[trunk] = number
    return found


def _box(group: Sequence[ListingBlock], y: int) -> Box:
    if len(group) > 1:
        return Box(None, f"{group[0].label} – {group[-1].label}", f"×{len(group)}", "several", y)
    block = group[0]
    count = {kind: sum(line.kind == kind for line in block.lines) for kind in ("added", "removed", "changed")}
    if block.kind == "changed":
        parts = (f"+{count['added']}" * bool(count["added"]), f"−{count['removed']}" * bool(count["removed"]))
        detail = " ".join((*filter(None, parts), *([f"±{count['changed']}"] if count["changed"] else [])))
    else:
        detail = {"added": "+", "removed": "−"}.get(block.kind, "") + str(len(block.lines))
    kind = "moved" if block.moved and block.kind == "same" else block.kind
    return Box(block.label, block.label, detail, kind, y)


class _Pen:
    """Draws arrows between boxes."""

    def __init__(self, boxes: Sequence[Box], left: int, lanes: Mapping[bool, Mapping[_Trunk, int]]) -> None:
        self.boxes, self.left, self.lanes = boxes, left, lanes

    def arrow(self, source: int, target: int, versions: str) -> Arrow:
        one, two = self.boxes[source], self.boxes[target]
        only = "" if versions == "both" else f", only in the {'base' if versions == 'base' else 'fixed image'}"
        title = f"{one.text} to {two.text}{only}"
        if target == source + 1:
            x = self.left + _WIDTH // 2 + {"both": 0, "base": -10, "fixed": 10}[versions]
            return Arrow(versions, title, f"M{x} {one.y + _HEIGHT}V{two.y - _ARROW}", _head((x, two.y), (0, 1)))
        back = target <= source
        side = -1 if back else 1
        edge = self.left if back else self.left + _WIDTH
        lane = edge + side * (_NEAREST + _LANE * self.lanes[back][_Trunk(target, versions, back)])
        start, end = one.y + _HEIGHT - _ENDS[versions], two.y + _ENDS[versions]
        turn = _CORNER if end > start else -_CORNER
        path = (
            f"M{edge} {start}H{lane - side * _CORNER}Q{lane} {start} {lane} {start + turn}"
            f"V{end - turn}Q{lane} {end} {lane - side * _CORNER} {end}H{edge + side * _ARROW}"
        )
        return Arrow(versions, title, path, _head((edge, end), (-side, 0)))


def _head(tip: tuple[int, int], direction: tuple[int, int]) -> str:
    """A triangle that points in ``direction`` (a unit step) with its tip there."""
    (x, y), (dx, dy) = tip, direction
    back, half = (x - dx * (_ARROW + 1), y - dy * (_ARROW + 1)), 3
    return f"M{x} {y}L{back[0] - dy * half} {back[1] - dx * half}L{back[0] + dy * half} {back[1] + dx * half}Z"
