"""Which function and datum of the base is which of the fixed image, and whether it changed."""

from __future__ import annotations

from hotpatch.differ.images import diff_images
from hotpatch.differ.inlines import inlined_change
from hotpatch.differ.listing import Listing, ListingBlock, ListingExit, ListingLine, Listings, switch
from hotpatch.differ.model import DatumMatch, FunctionMatch, ImageDiff, Verdict

__all__ = [
    "DatumMatch",
    "FunctionMatch",
    "ImageDiff",
    "Listing",
    "ListingBlock",
    "ListingExit",
    "ListingLine",
    "Listings",
    "Verdict",
    "diff_images",
    "inlined_change",
    "switch",
]
