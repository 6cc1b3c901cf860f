"""The documents of a comparison, as types."""

from __future__ import annotations

from typing import Literal

import msgspec

from hotpatch.report.document import Document, Machine, RefusalDocument

VerdictName = Literal["identical", "relocated", "changed", "added", "removed"]
SideKind = Literal["same", "changed", "added", "removed"]


class ImageSummary(Document, frozen=True, kw_only=True):
    """One of the two images of a comparison; ``path`` as typed."""

    path: str
    sha256: str
    time_date_stamp: int
    checksum: int
    function_count: int


class FunctionVerdict(Document, frozen=True, kw_only=True):
    """One row of a comparison; RVAs, sizes in bytes."""

    name: str | None
    base_rva: int | None
    fixed_rva: int | None
    base_size: int | None
    fixed_size: int | None
    verdict: VerdictName
    matched_by: str
    similarity: float
    notes: list[str]


class DiffSummary(Document, frozen=True, kw_only=True):
    """How many functions have each verdict."""

    identical: int
    relocated: int
    changed: int
    added: int
    removed: int


class SideLine(Document, frozen=True, kw_only=True):
    """One line of the side-by-side listing: the instruction of each side, addresses abstracted away."""

    kind: SideKind
    block: str
    base_rva: int | None
    base: str | None
    fixed_rva: int | None
    fixed: str | None


class BlockExitDocument(Document, frozen=True, kw_only=True):
    """Where a basic block leads within its function: on to the next one, by its branch or jump, or through a jump table; ``to`` a label."""

    way: Literal["next", "taken", "jump", "case"]
    to: str


class BlockDocument(Document, frozen=True, kw_only=True):
    """A basic block of the listing; its lines are those with its label as ``block``. ``moved``: it stands elsewhere in the fixed image."""

    label: str
    kind: SideKind
    moved: bool
    base_rva: int | None
    fixed_rva: int | None
    base_exits: list[BlockExitDocument]
    fixed_exits: list[BlockExitDocument]


class DiffDocument(Document, frozen=True, kw_only=True):
    """``hotpatch diff``; ``listing`` and ``blocks`` of one function, where one was asked for.

    ``blocks_by_shape``: how many blocks stood in one place where they were too many to be compared each with each; else 0.
    """

    schema: Literal["hotpatch.diff/1"] = "hotpatch.diff/1"
    machine: Machine
    base: ImageSummary
    fixed: ImageSummary
    functions: list[FunctionVerdict]
    summary: DiffSummary
    findings: list[RefusalDocument] = msgspec.field(default_factory=list)
    listing: list[SideLine] | None = None
    blocks: list[BlockDocument] | None = None
    blocks_by_shape: int = 0
