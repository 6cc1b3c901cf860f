"""What two functions do with live data, where it is the same in the same order although the functions differ elsewhere.

A frame that grew, say, leaves a function's own slots at other distances: then instructions align that store one thing where the base stored
the next but one, and with them those that load the two. What is loaded in turn tells better, as long as nothing came or went.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch import WHOLE_KINDS
from hotpatch.differ.parts import PlaceKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hotpatch.differ.lines import Token
    from hotpatch.differ.parts import Link
    from hotpatch.differ.view import View
    from hotpatch.differ.votes import Pair

_KNOWN = 8
"""So many live data must be known to be the same for others between them to be told by their turn."""


def in_turn(base: View, fixed: View, functions: Pair, known: Mapping[int, int]) -> list[tuple[Link, Link]] | None:
    """The references to live data of two functions (by entry), where all of them are the same instructions but for the address, in turn.

    ``None`` where they are not, where one datum would be two others, where that contradicts what is ``known`` (base start → fixed start),
    or where too little is.
    """
    there, here = ([*_accesses(view, entry)] for view, entry in zip((base, fixed), functions, strict=True))
    if [token for token, _ in there] != [token for token, _ in here]:
        return None
    links = [(old, new) for (_, old), (_, new) in zip(there, here, strict=True)]
    pairs = {(old.target, new.target) for old, new in links}
    forward = dict(pairs)
    if len(forward) != len(pairs) or len(set(forward.values())) != len(pairs):
        return None
    settled = {fixed: base for base, fixed in known.items()}
    if any(known.get(old, new) != new or settled.get(new, old) != old for old, new in pairs):
        return None
    return links if sum(old in known for old in forward) >= _KNOWN else None


def _accesses(view: View, entry: int) -> Iterator[tuple[Token, Link]]:
    """Each reference of a function to live data with its instruction but for the address."""
    links, lines = view.links(entry), view.lines(entry)
    for index, token in enumerate(lines.tokens):
        for link in (links[number] for number in lines.links_of(index)):
            if link.kind in WHOLE_KINDS and view.place(link.target).kind is PlaceKind.WRITABLE:
                yield token, link
