"""What a newer patch means for the functions of older ones that it does not replace itself."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from hotpatch.address import Va
    from hotpatch.engine.registry import Registry, SiteKey


class Stacking(StrEnum):
    """How a patch goes on top of older ones of the same module.

    Either way it is the version in force of every function that it replaces, and reverting it brings back exactly what was in force before.
    """

    CUMULATIVE = "cumulative"
    """As on Windows: a patch holds all changes up to its build, so functions that only older patches replace get their original back."""
    ADDITIONAL = "additional"
    """As Linux livepatches without ``replace``: functions that only older patches replace stay as they are."""


def given_back(registry: Registry, module: Va, replaced: Collection[SiteKey], how: Stacking) -> tuple[SiteKey, ...]:
    """Functions of a module whose original has to come back, by RVA: those that older patches have replaced and this one does not."""
    if how is Stacking.ADDITIONAL:
        return ()
    return tuple(
        sorted(
            key
            for key, site in registry.sites.items()
            if key.module == module and key not in replaced and site.top.destination != site.original
        )
    )
