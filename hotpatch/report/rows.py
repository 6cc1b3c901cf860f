"""What the text and the page of a comparison both show of a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hotpatch.report.diff_documents import FunctionVerdict


def label_of(row: FunctionVerdict) -> str:
    """The name, or the address as ``--function`` takes it: in the base, where the base has the function."""
    if row.name:
        return row.name
    return f"fixed:0x{row.fixed_rva:x}" if row.base_rva is None else f"rva:0x{row.base_rva:x}"


def alike(row: FunctionVerdict) -> str:
    """How alike both versions are, two digits, never rounded up to all; nothing where there is but one."""
    if row.base_rva is None or row.fixed_rva is None:
        return ""
    return f"{share(row.similarity):.2f}"


def share(value: float) -> float:
    """``value`` so that no rounding to two digits makes all of it out of less."""
    return min(value, 0.99) if value < 1 else value


def sizes(row: FunctionVerdict) -> str:
    """Bytes in the base and in the fixed image."""
    return " → ".join("-" if size is None else str(size) for size in (row.base_size, row.fixed_size))
