"""Which function of the base is which of the fixed image, as far as known."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Evidence(StrEnum):
    """Why two functions are held to be the same, or two stretches of data; strongest first."""

    NAME = "name"
    ENTRY_POINT = "entry-point"
    BODY = "body"
    REFERENCES = "references"
    MENTIONS = "mentions"
    """The same texts and imports."""
    CALL_GRAPH = "call-graph"
    """The same matched callers and callees."""
    FLOW_GRAPH = "flow-graph"
    """The same shape of control flow."""
    ORDER = "order"
    SIMILARITY = "similarity"
    ORDINAL = "ordinal"
    """Exports that have no name."""
    FOLDED = "folded"
    CONTENT = "content"
    VOTES = "votes"
    ALIGNMENT = "alignment"
    """Instructions of changed functions that align refer to it."""
    IMPORT = "import"
    HEADERS = "headers"


@dataclass(slots=True)
class Matching:
    """Pairs of functions by entry, one to one, and the extra pairs that folding makes.

    Attributes:
        forward: Base entry → fixed entry.
        backward: Fixed entry → base entry.
        evidence: Base entry → why.
        folded: Extra pairs (base entry, fixed entry) in which one of the two stands in ``forward`` with another partner.
        nameless: Those of them that only their bodies tell, not names.
    """

    forward: dict[int, int] = field(default_factory=dict)
    backward: dict[int, int] = field(default_factory=dict)
    evidence: dict[int, Evidence] = field(default_factory=dict)
    folded: set[tuple[int, int]] = field(default_factory=set)
    nameless: set[tuple[int, int]] = field(default_factory=set)

    def pair(self, base: int, fixed: int, evidence: Evidence) -> bool:
        """Match two functions unless one of them is taken; says whether it did."""
        if base in self.forward or fixed in self.backward:
            return False
        self.forward[base] = fixed
        self.backward[fixed] = base
        self.evidence[base] = evidence
        return True

    def same(self, base: int, fixed: int) -> bool:
        """Whether the two are held to be the same function."""
        return self.forward.get(base) == fixed or (base, fixed) in self.folded
