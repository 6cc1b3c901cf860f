"""Another product in the process: it puts jumps of its own where functions begin, or takes all address space around a module.

For stories and tests of what the engine then says.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.arch import Redirect, architecture
from hotpatch.engine import Rights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.process.process import Process

_PAGE = 0x1000
_LONGEST_ENTRY = 64
"""Bytes of the function that are read, so that branches back into what is displaced are seen."""


def hook(process: Process, function: str) -> Va:
    """Hook ``function``; calls still come out as before. Returns where the product's own code is.

    Raises:
        Refused: There is no such function, or it cannot be hooked.
    """
    arch = architecture(process.machine)
    entry = process.address_of(function)
    site = arch.entry_site(Redirect.DIRECT)
    guest = process.guest
    room = guest.find_room(_PAGE, near=entry, reach=arch.branch_reach)
    code = guest.read(entry, _LONGEST_ENTRY)
    moved = arch.trampoline(code, source_va=entry, trampoline_va=room, displaced=site.displaced)
    guest.map(room, _PAGE, Rights.READ | Rights.EXECUTE, moved.code)
    _jump(process, entry, room)
    return room


def crowd(process: Process) -> None:
    """Reserve whatever is free within a branch's reach of the first module."""
    guest = process.guest
    module = guest.modules()[0]
    reach = -(-architecture(process.machine).branch_reach // _PAGE) * _PAGE
    at, end = max(module.va - reach, _PAGE), module.va + module.size + reach
    taken = sorted((region.va, region.va + region.size) for region in guest.regions() if region.va < end)
    for start, behind in (*taken, (end, end)):
        if at < start:
            guest.map(Va(at), start - at, Rights.NONE)
        at = max(at, behind)


@contextmanager
def overwritten(process: Process, function: str) -> Iterator[Va]:
    """A jump to somewhere else stands at the entry of ``function`` meanwhile, over whatever redirect is there; gives where it leads.

    Raises:
        Refused: There is no such function.
    """
    entry = process.address_of(function)
    target = Va(entry + _LONGEST_ENTRY)
    before = _jump(process, entry, target)
    yield target
    for va, old, new in reversed(before):
        process.guest.write_code(va, new, old)


def _jump(process: Process, entry: Va, target: Va) -> list[tuple[Va, bytes, bytes]]:
    """Write a jump; what was written where, and what stood there before."""
    guest, written = process.guest, []
    for write in architecture(process.machine).redirect_writes(Redirect.DIRECT, entry, target):
        va = Va(write.va)
        old = guest.read(va, len(write.new))
        guest.write_code(va, old, write.new)
        written.append((va, old, write.new))
    return written
