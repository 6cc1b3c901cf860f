"""Matched functions whose bodies are the same, and what they refer to together.

Nearly all functions are such, and their thousands of references lead to some hundreds of things: these are looked at, each once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from hotpatch.differ.alignments import Alignments
    from hotpatch.differ.matching import Matching
    from hotpatch.differ.parts import Body
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair


@dataclass(frozen=True)
class Twins:
    """All matched functions, by whether their bodies are the same.

    Attributes:
        bodies: In both images, of those of the same body; by base entry.
        unlike: The entries of the others.
        alignments: Of these.
    """

    bodies: tuple[tuple[Body, Body], ...]
    unlike: tuple[Pair, ...]
    alignments: Alignments

    @classmethod
    def of(cls, base: View, fixed: View, matching: Matching, alignments: Alignments) -> Twins:
        """Of what ``matching`` says of the functions of two images; extra pairs, which folding makes, apart."""
        there, here = base.bodies, fixed.bodies
        bodies: list[tuple[Body, Body]] = []
        unlike: list[Pair] = []
        for pair in sorted(matching.forward.items()):
            old, new = there[pair[0]], here[pair[1]]
            if old.is_like(new):
                bodies.append((old, new))
            else:
                unlike.append(pair)
        return cls(tuple(bodies), tuple(unlike), alignments)

    @cached_property
    def targets(self) -> Collection[Pair]:
        """The addresses that two of the same body refer to in the same place: each pair once, in the order of functions and references."""
        return dict.fromkeys(chain.from_iterable(zip(old.targets, new.targets, strict=True) for old, new in self.bodies)).keys()
