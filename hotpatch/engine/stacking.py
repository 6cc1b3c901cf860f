"""What a newer patch means for older ones: for functions that it does not replace itself, for their data, and under their terms."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from hotpatch.errors import ApplyRefused, Refusal, RevertRefused, Rule

if TYPE_CHECKING:
    from collections.abc import Collection

    from hotpatch.address import Va
    from hotpatch.engine.registry import Application, Registry, SiteKey
    from hotpatch.patch import Patch


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


def check_terms(registry: Registry, module: Va, patch: Patch, dropped: Collection[SiteKey]) -> None:
    """Check that ``patch``, which gives the originals of ``dropped`` back, may go on top of what stands on a module.

    Raises:
        ApplyRefused: An obligatory patch's function would get its original back (obligatory), or the data that older patches keep have a
            newer version than it knows (state-version).
    """
    standing = registry.standing(module)
    refusals = [
        Refusal(
            Rule.OBLIGATORY,
            registry.sites[key].top.name,
            key.rva,
            f"the patch with sequence {owner.patch.sequence} is obligatory and this one would give the function's original back; "
            "build one that replaces the function too, or apply it as an additional patch",
            {"sequence": owner.patch.sequence, "patch": owner.patch.image.name},
        )
        for key in dropped
        for owner in standing
        if owner.patch.terms.obligatory and key in owner.sites
    ]
    newest = max((application.patch.terms.state_version for application in standing), default=0)
    if patch.terms.state_version < newest:
        refusals.append(
            Refusal(
                Rule.STATE_VERSION,
                None,
                None,
                f"patches that stand keep data of state version {newest} and this one knows version {patch.terms.state_version}; "
                f"build it with --state-version {newest} once its callbacks know those data",
                {"standing": newest, "patch": patch.terms.state_version},
            )
        )
    if refusals:
        raise ApplyRefused(refusals)


def check_roll_back(application: Application) -> None:
    """Check that a patch may be reverted.

    Raises:
        RevertRefused: It was built so that it may not (cannot-roll-back).
    """
    if not application.patch.terms.can_roll_back:
        raise RevertRefused(
            [
                Refusal(
                    Rule.CANNOT_ROLL_BACK,
                    None,
                    None,
                    "the patch was built not to be reverted; put a newer one on top, or restart the program",
                    {"sequence": application.patch.sequence, "patch": application.patch.image.name},
                )
            ]
        )
