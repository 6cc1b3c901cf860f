"""Another product on the device: it has put a jump at a function's entry, to look at every call before letting it go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.arch import Redirect, architecture
from hotpatch.engine import Rights

if TYPE_CHECKING:
    from hotpatch.process import Process

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
    room = guest.map(_PAGE, Rights.READ | Rights.EXECUTE, near=entry, reach=arch.branch_reach)
    code = guest.read(entry, _LONGEST_ENTRY)
    moved = arch.trampoline(code, source_va=entry, trampoline_va=room, displaced=site.displaced)
    guest.write_data(room, moved.code)
    for write in arch.redirect_writes(Redirect.DIRECT, entry, room):
        va = Va(write.va)
        guest.write_code(va, guest.read(va, len(write.new)), write.new)
    return room
