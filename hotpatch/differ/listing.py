"""Two functions side by side, basic block by basic block, with addresses replaced by what they refer to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import Flow
from hotpatch.differ.block_pairs import BlockPairs, pair_blocks, pair_lines
from hotpatch.differ.blocks import Way, blocks
from hotpatch.differ.flows import Endings, instructions
from hotpatch.differ.nodes import Node
from hotpatch.differ.wording import Wording

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hotpatch.differ.lines import Line
    from hotpatch.differ.model import FunctionMatch, ImageDiff
    from hotpatch.differ.parts import Position
    from hotpatch.image import Function

_IN_OWN_CODE = "·"
"""Instead of a label, while it is not known which block is which."""
_OTHER_CONTENT = " (other content)"
"""Behind an instruction that refers to something of the same name, or of a text that begins alike, that is something else."""


@dataclass(frozen=True, slots=True)
class ListingLine:
    """One line: an instruction of either function, or one of both that align.

    Attributes:
        kind: ``same``, ``changed`` (same operation, other operands), ``removed`` or ``added``.
        base_rva: Of the base's instruction.
        base: Its text, addresses replaced.
        fixed_rva: Of the fixed image's.
        fixed: Its text.
    """

    kind: str
    base_rva: Rva | None
    base: str | None
    fixed_rva: Rva | None
    fixed: str | None


@dataclass(frozen=True, slots=True)
class ListingExit:
    """Where a block leads within its function: how, and the label of the block there."""

    way: Way
    label: str


@dataclass(frozen=True, slots=True)
class ListingBlock:
    """A basic block of either function, or one of both that align.

    Attributes:
        label: What both sides call it: ``B`` and its number in the base, or ``N`` and a number for those that only the fixed image has;
            capitals, because Arm64 has registers ``b0``, ``b1``, ….
        kind: ``same``, ``changed``, ``removed`` or ``added``.
        moved: Whether it stands elsewhere among the blocks that both have.
        lines: In both functions' order.
        base_exits: Where the base's leads.
        fixed_exits: Where the fixed image's leads.
        padding: Whether it is nothing but no-operations that nothing in the function leads to.
    """

    label: str
    kind: str
    moved: bool
    lines: tuple[ListingLine, ...]
    base_exits: tuple[ListingExit, ...]
    fixed_exits: tuple[ListingExit, ...]
    padding: bool = False

    @property
    def base_rva(self) -> Rva | None:
        """Where it begins in the base."""
        return next((line.base_rva for line in self.lines if line.base_rva is not None), None)

    @property
    def fixed_rva(self) -> Rva | None:
        """Where it begins in the fixed image."""
        return next((line.fixed_rva for line in self.lines if line.fixed_rva is not None), None)

    @property
    def differs(self) -> bool:
        """Whether it is not the same at the same place on both sides; padding never counts."""
        return not self.padding and (self.kind != "same" or self.moved)


@dataclass(frozen=True, slots=True)
class Listing:
    """Two versions of a function, or one of an added or removed function.

    Attributes:
        blocks: In the fixed image's order; removed ones behind what stands before them in the base.
        by_shape: How many blocks stood in one place where they were too many to be compared each with each, so that only those of the same
            operations could be paired; 0 where all were compared.
    """

    blocks: tuple[ListingBlock, ...]
    by_shape: int

    @property
    def lines(self) -> tuple[ListingLine, ...]:
        """Of all blocks."""
        return tuple(line for block in self.blocks for line in block.lines)


class Listings:
    """The functions of a comparison side by side; what is asked for is worked out then."""

    def __init__(self, diff: ImageDiff) -> None:
        """List functions of ``diff``."""
        self._wordings = Wording(diff, is_base=True), Wording(diff, is_base=False)
        self._endings = tuple(Endings(wording.view) for wording in self._wordings)

    def of(self, row: FunctionMatch) -> Listing:
        """The functions of ``row``."""
        base, fixed = (
            _Side(wording, function, endings)
            for wording, function, endings in zip(self._wordings, (row.base, row.fixed), self._endings, strict=True)
        )
        if row.elsewhere is not None:
            fixed.remarks[row.elsewhere.fixed] = f" (it {row.elsewhere.why})"
        found = pair_blocks(base.nodes(), fixed.nodes())
        base.take(found.base, _labels(len(found.base), {}, "B"))
        fixed.take(found.fixed, _labels(len(found.fixed), {f: f"B{b}" for b, f in found.pairs}, "N"))
        return Listing(tuple(_block(base, fixed, b, f, b in found.moved) for b, f in _order(found)), found.by_shape)


def _labels(count: int, known: Mapping[int, str], mark: str) -> Sequence[str]:
    """Of each block: what the other side calls it, else a number of its own."""
    labels: list[str] = []
    own = 0
    for index in range(count):
        if index in known:
            labels.append(known[index])
        else:
            labels.append(f"{mark}{own}")
            own += 1
    return labels


def _order(found: BlockPairs) -> Iterator[tuple[int | None, int | None]]:
    """All blocks in the order of :attr:`Listing.blocks`; a block that only one side has with ``None`` for the other."""
    backward = {f: b for b, f in found.pairs}
    gone = set(range(len(found.base))) - {b for b, _ in found.pairs}
    at = 0
    for f in range(len(found.fixed)):
        b = backward.get(f)
        if b is not None and b not in found.moved:
            yield from ((index, None) for index in range(at, b) if index in gone)
            at = b + 1
        yield b, f
    yield from ((index, None) for index in range(at, len(found.base)) if index in gone)


def switch(exits: Sequence[ListingExit]) -> tuple[str, ...]:
    """The labels of what a block leads to through its jump table, entry by entry."""
    return tuple(item.label for item in exits if item.way is Way.CASE)


class _Side:
    """One function's blocks and the texts of their instructions."""

    def __init__(self, wording: Wording, function: Function | None, endings: Endings) -> None:
        self.wording, self.function, self.endings = wording, function, endings
        self.lines: Sequence[Line] = wording.view.lines(function.entry) if function else ()
        self.blocks: Sequence[Node] = ()
        self.labels: Sequence[str] = ()
        self._label_at: dict[Position, str] = {}
        self.remarks: dict[Rva, str] = {}
        """What to say of instructions whose texts do not show what they refer to."""

    def nodes(self) -> Sequence[Node]:
        """The blocks to align."""
        if self.function is None:
            return ()
        tokens, shapes = [line.token for line in self.lines], [line.shape for line in self.lines]
        content = [self.wording.text(self.function, line, lambda _: _IN_OWN_CODE) for line in self.lines]
        return [
            Node(first, (tuple(content[first:end]), tuple(tokens[first:end]), tuple(shapes[first:end])), exits)
            for first, end, exits in blocks(self.wording.view, self.function.entry, self.endings)
        ]

    def take(self, nodes: Sequence[Node], labels: Sequence[str]) -> None:
        """Call the blocks, as they were aligned, by ``labels``."""
        self.blocks, self.labels = nodes, labels
        self._label_at = {self.lines[node.first].position: label for node, label in zip(nodes, labels, strict=True)}

    @cached_property
    def padding(self) -> frozenset[int]:
        """Blocks of nothing but no-operations that no other leads to: what aligns the code behind a jump."""
        if self.function is None:
            return frozenset()
        view = self.wording.view
        led_to = {0, *(item.target for number, node in enumerate(self.blocks) for item in node.exits if item.target != number)}
        idle = [
            step.flow is Flow.NEXT and view.image.read(step.address, step.size) in view.architecture.padding_bytes
            for step in instructions(view, self.function.entry)
        ]
        return frozenset(number for number, node in enumerate(self.blocks) if number not in led_to and all(idle[node.first : node.end]))

    def rva(self, index: int) -> Rva:
        position = self.lines[index].position
        start = self.function.ranges[position.part].start if self.function else Rva(0)
        return Rva(start + position.offset)

    def text(self, index: int) -> str:
        return self.wording.text(self.function, self.lines[index], self._label_at.get) if self.function else ""

    def names_other_content(self, index: int) -> bool:
        return self.function is not None and self.wording.names_other_content(self.function, self.lines[index])

    def exits(self, index: int) -> tuple[ListingExit, ...]:
        return tuple(ListingExit(way, self.labels[target]) for way, _, target in self.blocks[index].exits)


def _block(base: _Side, fixed: _Side, b: int | None, f: int | None, moved: bool) -> ListingBlock:
    if b is None or f is None:
        side, index = (base, b) if b is not None else (fixed, f or 0)
        kind = "removed" if f is None else "added"
        numbers = range(side.blocks[index].first, side.blocks[index].end)
        lines = tuple(_alone(side, kind, number) for number in numbers)
        exits = side.exits(index)
        padding = index in side.padding
        return ListingBlock(side.labels[index], kind, False, lines, exits if f is None else (), () if f is None else exits, padding)
    lines = tuple(_aligned(base, fixed, base.blocks[b], fixed.blocks[f]))
    old, new = base.exits(b), fixed.exits(f)
    same = all(line.kind == "same" for line in lines) and switch(old) == switch(new)
    return ListingBlock(base.labels[b], "same" if same else "changed", moved, lines, old, new, b in base.padding and f in fixed.padding)


def _aligned(base: _Side, fixed: _Side, old: Node, new: Node) -> Iterator[ListingLine]:
    b0, f0 = old.first, new.first
    pairs = [(old.first + b, new.first + f) for b, f in pair_lines(old, new)]
    for b, f in (*pairs, (old.end, new.end)):
        yield from (_alone(base, "removed", number) for number in range(b0, b))
        yield from (_alone(fixed, "added", number) for number in range(f0, f))
        if b < old.end:
            there, here = base.text(b), fixed.text(f)
            if there == here and fixed.names_other_content(f):
                here += _OTHER_CONTENT
            here += fixed.remarks.get(fixed.rva(f), "")
            yield ListingLine("same" if there == here else "changed", base.rva(b), there, fixed.rva(f), here)
        b0, f0 = b + 1, f + 1


def _alone(side: _Side, kind: str, number: int) -> ListingLine:
    rva, text = side.rva(number), side.text(number)
    return ListingLine(kind, rva, text, None, None) if kind == "removed" else ListingLine(kind, None, None, rva, text)
