"""What functions are called: every name at an address, best first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.address import Rva
    from hotpatch.image.image import Image


def function_names(image: Image) -> Mapping[Rva, tuple[str, ...]]:
    """Names by address: exports, then the PDB's (procedures before publics), COFF symbols, a cffi module's table."""
    found: dict[Rva, dict[str, None]] = {}
    for export in image.exports:
        if export.rva is not None and export.name is not None:
            found.setdefault(export.rva, {})[export.name] = None
    for rva, _, name in image.symbols.functions:
        found.setdefault(rva, {})[name] = None
    for symbol in image.coff_symbols:
        if symbol.is_function:
            found.setdefault(symbol.rva, {})[symbol.name] = None
    for rva, rows in image.cffi_names.items():
        found.setdefault(rva, {}).update(dict.fromkeys(rows))
    return {rva: tuple(names) for rva, names in found.items()}
