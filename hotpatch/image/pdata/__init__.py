"""Function tables (``.pdata``), read per machine: what code each entry covers and whose function it belongs to."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from hotpatch.arch import Machine
    from hotpatch.image.model import Range, UnwindEntry

    Read = Callable[[int, int], bytes]


def read_function_table(machine: Machine, table: Range, read: Read) -> tuple[UnwindEntry, ...]:
    """The entries of ``table`` by start; ``read(rva, size)`` gives the image's bytes. Entries that make no sense are left out."""
    module = import_module(f"hotpatch.image.pdata.{machine.value}")
    return cast("Callable[[Range, Read], tuple[UnwindEntry, ...]]", module.entries)(table, read)
