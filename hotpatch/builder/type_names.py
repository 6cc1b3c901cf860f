"""Names of C++ types that travel: types are told apart by them, so that one which the base has too must bear the base's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.errors import Refusal, Rule
from hotpatch.image.unnamed import HASH_SIZE, UnnamedNamespaces

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.image import Image, Range


def hashes_of_base(base: Image, fixed: Image, parts: Iterable[Range]) -> tuple[tuple[tuple[Rva, bytes], ...], list[Refusal]]:
    """What the hashes of unnamed namespaces in ``parts`` of the fixed image are in the base, by where they stand; and what is not clear."""
    theirs, ours = fixed.kept(UnnamedNamespaces), base.kept(UnnamedNamespaces)
    found: dict[Rva, bytes] = {}
    refusals: list[Refusal] = []
    for at in sorted({at for part in parts for at in theirs.hashes(part.start, part.end)}):
        try:
            own = ours.own_hash(at, theirs)
        except ValueError as several:
            reason = (
                f"it cannot be told which of the types {several} of unnamed namespaces is which: the two images have several that differ "
                "in nothing but the namespace's hash; build both in one folder"
            )
            evidence = {"image": "fixed", "rva": at, "bytes": fixed.read(Rva(at), HASH_SIZE).hex(), "name": str(several)}
            refusals.append(Refusal(Rule.UNRESOLVED_REFERENCE, None, Rva(at), reason, evidence))
            continue
        if own is not None:
            found[Rva(at)] = own
    return tuple(found.items()), refusals
