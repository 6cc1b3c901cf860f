"""Thread-local data without names: at which offsets in its thread's block code uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.differ.follow import followed
from hotpatch.differ.model import Verdict

if TYPE_CHECKING:
    from hotpatch.differ.model import ImageDiff
    from hotpatch.image import Function, Image


def thread_offsets(image: Image, function: Function) -> frozenset[int]:
    """The offsets that a function uses, in the image's thread-local data."""
    tls = image.tls
    if tls is None or not any(reference.target == tls.index for part in image.references(function) for reference in part):
        return frozenset()
    found = image.architecture.thread_offsets(*followed(image, function))
    return frozenset(offset for offset in found if 0 <= offset < tls.template.size + tls.zero_fill)


def unchanged_offsets(diff: ImageDiff) -> frozenset[int]:
    """The offsets that functions of the same body use: the base has there what the fixed image has."""
    kept = (row.fixed for verdict in (Verdict.IDENTICAL, Verdict.RELOCATED) for row in diff.of(verdict))
    return frozenset().union(*(thread_offsets(diff.fixed, function) for function in kept if function is not None))
