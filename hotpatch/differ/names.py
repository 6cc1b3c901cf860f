"""What names say about functions, and about folded ones: two names at one address in one image, at two in the other."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from hotpatch.differ.matching import Evidence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.differ.matching import Matching
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair


class Names:
    """The names of two images' functions, as far as they tell which are the same.

    The number of a block of exception data (``dtor$3``) is none: compilers count the blocks of a function. Where the two images have other
    numbers, a block came or went, and what has the same number is another.
    """

    def __init__(self, base: View, fixed: View) -> None:
        """Compare names of ``base`` with names of ``fixed``."""
        self._views = base, fixed
        there, here = _numbers(base), _numbers(fixed)
        self._counted = frozenset(family for family in there.keys() | here.keys() if there.get(family) != here.get(family))
        self._known = self._all(base), self._all(fixed)

    def of(self, view: View, entry: int) -> tuple[str, ...]:
        """The names of the function that starts at ``entry``."""
        names = view.functions[entry].names
        return tuple([name for name in names if _family(name) not in self._counted]) if self._counted else names

    def allow(self, base: int, fixed: int) -> bool:
        """Whether names do not speak against a pair: they do, where either has a name that the other image gives to another function."""
        old, new = self.of(self._views[0], base), self.of(self._views[1], fixed)
        if not old or not new or set(old) & set(new):
            return True
        there, here = self._known
        return not any(name in here for name in old) and not any(name in there for name in new)

    def match(self, matching: Matching) -> None:
        """Pair functions that share a name which either image has once.

        Where folding makes several functions share names with one, the pair with the same body wins, then the one that shares more names;
        the others become extra pairs: always where the base has them apart (each of its entries must lead to what its name means in the
        fixed image), and only with the same body where the fixed image has them apart (the base's one body cannot become two).
        """
        base, fixed = self._views
        there, here = self._owners(base), self._owners(fixed)
        shared: dict[Pair, int] = defaultdict(int)
        for name, owner in there.items():
            if name in here:
                shared[owner, here[name]] += 1
        ranked = sorted(
            shared, key=lambda pair: (not _same_body(base, fixed, *pair), -shared[pair], not _best_names(base, fixed, *pair), pair)
        )
        for pair in ranked:
            if matching.pair(*pair, Evidence.NAME):
                continue
            if pair[0] not in matching.forward or _same_body(base, fixed, *pair):
                matching.folded.add(pair)
        for pair in ranked:
            if pair[0] not in matching.forward:
                matching.folded.add(pair)

    def _owners(self, view: View) -> Mapping[str, int]:
        """Names that only one function has → its entry."""
        count: dict[str, list[int]] = defaultdict(list)
        for entry in view.functions:
            for name in self.of(view, entry):
                count[name].append(entry)
        return {name: entries[0] for name, entries in count.items() if len(entries) == 1}

    def _all(self, view: View) -> frozenset[str]:
        return frozenset([name for entry in view.functions for name in self.of(view, entry)])


_NUMBERED = re.compile(r"(?<=[:?])(dtor|catch|filt|fin)\$(\d+)")
"""What Microsoft's and LLVM's compilers call blocks: ```f'::`1'::dtor$3`` and ``?dtor$3@?0??f@@YAXXZ@4HA``."""


def _family(name: str) -> str | None:
    """A block's name without its number."""
    return _NUMBERED.sub(r"\1", name, count=1) if "$" in name and _NUMBERED.search(name) else None


def _numbers(view: View) -> Mapping[str, frozenset[str]]:
    """The numbers of the blocks of each function and kind."""
    found: dict[str, set[str]] = {}
    for function in view.functions.values():
        for name in function.names:
            numbered = _NUMBERED.search(name) if "$" in name else None
            if numbered is not None:
                found.setdefault(_NUMBERED.sub(r"\1", name, count=1), set()).add(numbered[2])
    return {family: frozenset(numbers) for family, numbers in found.items()}


def _same_body(base: View, fixed: View, base_entry: int, fixed_entry: int) -> bool:
    return base.bodies[base_entry].is_like(fixed.bodies[fixed_entry])


def _best_names(base: View, fixed: View, base_entry: int, fixed_entry: int) -> bool:
    return base.functions[base_entry].name == fixed.functions[fixed_entry].name
