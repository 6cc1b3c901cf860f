"""What names say about functions, and about folded ones: two names at one address in one image, at two in the other."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from hotpatch.differ.matching import Evidence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.differ.matching import Matching
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair


def match_names(base: View, fixed: View, matching: Matching) -> None:
    """Pair functions that share a name which either image has once.

    Where folding makes several functions share names with one, the pair with the same body wins, then the one that shares more names; the
    others become extra pairs: always where the base has them apart (each of its entries must lead to what its name means in the fixed
    image), and only with the same body where the fixed image has them apart (the base's one body cannot become two).
    """
    there, here = _owners(base), _owners(fixed)
    shared: dict[Pair, int] = defaultdict(int)
    for name, owner in there.items():
        if name in here:
            shared[owner, here[name]] += 1
    ranked = sorted(shared, key=lambda pair: (not _same_body(base, fixed, *pair), -shared[pair], not _best_names(base, fixed, *pair), pair))
    for pair in ranked:
        if matching.pair(*pair, Evidence.NAME):
            continue
        if pair[0] not in matching.forward or _same_body(base, fixed, *pair):
            matching.folded.add(pair)
    for pair in ranked:
        if pair[0] not in matching.forward:
            matching.folded.add(pair)


def same_names(base: View, fixed: View, base_entry: int, fixed_entry: int) -> bool:
    """Whether names speak neither for nor against: not, where either has a name that the other image gives to another function."""
    old, new = base.functions[base_entry].names, fixed.functions[fixed_entry].names
    if not old or not new or set(old) & set(new):
        return True
    there, here = base.names, fixed.names
    return not any(name in here for name in old) and not any(name in there for name in new)


def _owners(view: View) -> Mapping[str, int]:
    """Names that only one function has → its entry."""
    count: dict[str, list[int]] = defaultdict(list)
    for entry, function in view.functions.items():
        for name in function.names:
            count[name].append(entry)
    return {name: entries[0] for name, entries in count.items() if len(entries) == 1}


def _same_body(base: View, fixed: View, base_entry: int, fixed_entry: int) -> bool:
    return base.bodies[base_entry].is_like(fixed.bodies[fixed_entry])


def _best_names(base: View, fixed: View, base_entry: int, fixed_entry: int) -> bool:
    return base.functions[base_entry].name == fixed.functions[fixed_entry].name
