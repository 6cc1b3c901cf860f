"""Python's search for cyclic garbage, held off where there is none. Like ``errors``, every room may import this module."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Program:
    """What is known of the program that runs this."""

    has_frozen = False
    """Whether it was ever seen to have frozen something: counting that takes Python a walk through all of it, if there is any."""


@contextmanager
def without_collection() -> Iterator[None]:
    """Do not look for cyclic garbage meanwhile.

    Reading and comparing images makes hundreds of thousands of tuples that live on and form no cycles. Looking through them again and
    again takes up to a quarter of the time. What was made is not looked through at the end either, but counts as old: ``gc.freeze`` and
    ``gc.unfreeze`` say that of everything at once, and so are left to programs that have frozen something themselves.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        _Program.has_frozen = _Program.has_frozen or gc.get_freeze_count() > 0
        if not _Program.has_frozen:
            gc.freeze()
            gc.unfreeze()
        gc.enable()
