"""When a function may change over to its new code, chosen and never assumed."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from hotpatch.arch import Redirect
from hotpatch.errors import ApplyRefused, Refusal, Rule

if TYPE_CHECKING:
    from hotpatch.patch import Patch


class Consistency(StrEnum):
    """How calls change over.

    Only ``immediate`` is offered so far; the others are refused by name (rule consistency-unsupported).
    """

    IMMEDIATE = "immediate"
    """As Windows does: calls already inside finish in old code, new calls get new code."""
    QUIESCENT = "quiescent"
    """As Ksplice and kpatch do: wait until no thread has a frame in a patched function."""
    PER_THREAD = "per-thread"
    """As Linux livepatch does: a thread changes over when it has left the old code."""


def require(consistency: Consistency, patch: Patch) -> None:
    """Check that ``patch`` can be applied with ``consistency``.

    Raises:
        ApplyRefused: A redirect has no slot to change over through (consistency-needs-hpat), or the model is not offered
            (consistency-unsupported).
    """
    if consistency is Consistency.IMMEDIATE:
        return
    without_slot = [
        Refusal(
            Rule.CONSISTENCY_NEEDS_HPAT,
            function.name,
            function.base_rva,
            f"the redirect {function.redirect.value} has no slot through which {consistency.value} could change over; "
            "build the patch with --redirect hpat, or apply it with --consistency immediate",
            {"redirect": function.redirect.value, "consistency": consistency.value},
        )
        for function in patch.functions
        if function.redirect is not Redirect.HPAT
    ]
    if without_slot:
        raise ApplyRefused(without_slot)
    raise ApplyRefused(
        [
            Refusal(
                Rule.CONSISTENCY_UNSUPPORTED,
                None,
                None,
                f"the engine does not offer {consistency.value} yet; apply with --consistency immediate",
                {"consistency": consistency.value, "offered": [Consistency.IMMEDIATE.value]},
            )
        ]
    )
