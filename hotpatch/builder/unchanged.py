"""Functions that have the same body in both images: what they name and reach is the same thing in either."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.builder.bodies import body_of
from hotpatch.builder.model import Body
from hotpatch.builder.reaches import reaches
from hotpatch.differ import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hotpatch.builder.model import Site
    from hotpatch.builder.reaches import Reach
    from hotpatch.differ import ImageDiff
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair
    from hotpatch.image import Function


class Unchanged:
    """Such functions, by their number; each is taken apart when it is first asked what it reaches."""

    def __init__(self, diff: ImageDiff, fixed: View, base: View) -> None:
        """Those of ``diff``, with its images seen as ``fixed`` and ``base``."""
        self._diff, self._fixed, self._base = diff, fixed, base
        self._reached: dict[int, tuple[Body | None, Mapping[Site, tuple[Reach, ...]]]] = {}

    @cached_property
    def named(self) -> Sequence[Sequence[Pair]]:
        """What each names by whole addresses, in the base and in the fixed image."""
        return [self._named(base, fixed) for base, fixed in self._functions]

    def naming(self, base: int, fixed: int) -> Iterator[int]:
        """The functions that name ``fixed`` where the base's version names ``base``."""
        return (number for number in self._by_fixed.get(fixed, ()) if (base, fixed) in self.named[number])

    def reached(self, number: int) -> tuple[Body | None, Mapping[Site, tuple[Reach, ...]]]:
        """The fixed image's version taken apart, ``None`` where it cannot be, and what it reaches, by site."""
        found = self._reached.get(number)
        if found is None:
            body = body_of(self._diff.fixed, self._functions[number][1])
            found = self._reached[number] = (body, reaches(self._diff.fixed, body)) if isinstance(body, Body) else (None, {})
        return found

    @cached_property
    def _functions(self) -> Sequence[tuple[Function, Function]]:
        rows = (*self._diff.of(Verdict.IDENTICAL), *self._diff.of(Verdict.RELOCATED))
        return [(row.base, row.fixed) for row in rows if row.base is not None and row.fixed is not None]

    @cached_property
    def _by_fixed(self) -> Mapping[int, Sequence[int]]:
        found: dict[int, list[int]] = defaultdict(list)
        for number, pairs in enumerate(self.named):
            for fixed in dict.fromkeys(fixed for _, fixed in pairs):
                found[fixed].append(number)
        return found

    def _named(self, base: Function, fixed: Function) -> Sequence[Pair]:
        old, new = self._base.body(base.entry), self._fixed.body(fixed.entry)
        return tuple(dict.fromkeys(zip(old.whole_targets, new.whole_targets, strict=True))) if old.is_like(new) else ()
