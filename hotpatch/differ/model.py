"""What a comparison of two images found."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.address import Rva

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.errors import Refusal
    from hotpatch.image import Function, Image, Range


class Verdict(StrEnum):
    """What became of a function."""

    IDENTICAL = "identical"
    RELOCATED = "relocated"
    CHANGED = "changed"
    ADDED = "added"
    REMOVED = "removed"


UNCHANGED = frozenset({Verdict.IDENTICAL, Verdict.RELOCATED})
"""Verdicts of functions that are the same, once what they refer to is resolved."""
COSMETIC = "cosmetic"
"""The note on a changed function that differs in line numbers, or in texts of versions and dates, alone."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """An instruction of two functions of the same instructions whose operands do not show that it refers to something else.

    Attributes:
        base: Where it is in the base.
        fixed: Where it is in the fixed image.
        why: What it refers to, as the end of a sentence that begins with "it".
    """

    base: Rva
    fixed: Rva
    why: str


class FunctionMatch(NamedTuple):
    """A function of either image or a pair of both.

    Attributes:
        base: ``None`` when added.
        fixed: ``None`` when removed.
        verdict: What became of it.
        matched_by: The evidence: ``name``, ``body``, ``references``, ``mentions``, ``call-graph``, ``flow-graph``, ``order`` …; ``""`` for
            added and removed.
        similarity: 1.0 for identical and relocated, 0.0 for added and removed.
        notes: Observations for a reader.
        elsewhere: Where a changed pair of the same instructions differs, if these do not show it.
    """

    base: Function | None
    fixed: Function | None
    verdict: Verdict
    matched_by: str
    similarity: float
    notes: tuple[str, ...] = ()
    elsewhere: Elsewhere | None = None

    @property
    def name(self) -> str | None:
        """The base's name, else the fixed image's."""
        return (self.base.name if self.base else None) or (self.fixed.name if self.fixed else None)

    @property
    def is_cosmetic(self) -> bool:
        """Whether it is changed in line numbers, or in texts of versions and dates, alone."""
        return COSMETIC in self.notes


@dataclass(frozen=True, slots=True)
class DatumMatch:
    """A stretch of data that both images have: ``fixed + i`` corresponds to ``base + i`` for ``0 ≤ i < size``.

    Attributes:
        matched_by: ``name``, ``content``, ``votes``, ``alignment`` (the weakest), ``import`` …
        writable: Whether the base's lies in a writable section.
    """

    base: Rva
    fixed: Rva
    size: int
    matched_by: str
    writable: bool
    name: str | None = None


@dataclass(frozen=True, slots=True)
class TextDatum:
    """A live datum that differs in nothing but the texts that it points at: ``refusal`` for whoever needs the new ones."""

    fixed: Range
    refusal: Refusal


@dataclass(frozen=True)
class ImageDiff:
    """The comparison of ``base`` and ``fixed``.

    Attributes:
        functions: One row per function or pair, by base RVA, then added ones by fixed RVA.
        data: Matched data, by fixed RVA, never overlapping.
        findings: What forbids a patch no matter which function travels: data layout, initial values, exports; refusals as values.
        texts: Live data that keep pointing at the base's texts, which forbids a patch only where code that travels uses them.
    """

    base: Image
    fixed: Image
    functions: tuple[FunctionMatch, ...]
    data: tuple[DatumMatch, ...]
    findings: tuple[Refusal, ...]
    texts: tuple[TextDatum, ...] = ()

    def __repr__(self) -> str:
        """The two images and what was found of their functions."""
        found = ", ".join(f"{count} {verdict}" for verdict, count in self.summary.items() if count)
        return f"<ImageDiff {self.base.name} → {self.fixed.name} [{self.base.machine}]: {found}>"

    def of(self, verdict: Verdict) -> tuple[FunctionMatch, ...]:
        """The rows with that verdict."""
        return tuple(row for row in self.functions if row.verdict is verdict)

    @cached_property
    def summary(self) -> Mapping[str, int]:
        """How many rows each verdict has."""
        return {verdict.value: len(self.of(verdict)) for verdict in Verdict}

    @cached_property
    def base_entries(self) -> Mapping[Rva, Rva]:
        """Fixed entry → base entry of every matched pair; of several that folding made one there, the last of the same body."""
        first = sorted(self.functions, key=lambda row: row.verdict is not Verdict.CHANGED)
        return {row.fixed.entry: row.base.entry for row in first if row.base and row.fixed}

    @cached_property
    def pairs(self) -> frozenset[tuple[Rva, Rva]]:
        """Base and fixed entry of every matched pair; where folding made one function of several, each of them has the other's."""
        return frozenset((row.base.entry, row.fixed.entry) for row in self.functions if row.base and row.fixed)

    @cached_property
    def folded(self) -> Mapping[Rva, tuple[Function, ...]]:
        """Fixed entry → the base's functions that folding made one in the fixed image, where there are several."""
        partners: dict[Rva, list[Function]] = {}
        for row in self.functions:
            if row.base and row.fixed:
                partners.setdefault(row.fixed.entry, []).append(row.base)
        return {entry: tuple(functions) for entry, functions in partners.items() if len(functions) > 1}

    def base_datum(self, fixed: Rva) -> Rva | None:
        """Where the base has the datum that the fixed image has at ``fixed``, or ``None`` when nothing matches it."""
        at = bisect_right(self._datum_starts, fixed) - 1
        if at < 0:
            return None
        match = self.data[at]
        return Rva(match.base + fixed - match.fixed) if fixed < match.fixed + match.size else None

    @cached_property
    def _datum_starts(self) -> tuple[int, ...]:
        return tuple(match.fixed for match in self.data)
