"""When a function may change over to its new code, chosen and never assumed.

Three models, one engine:

- ``immediate``: the switch is thrown at once. Calls already inside finish in old code.
- ``quiescent`` (:mod:`hotpatch.engine.quiescence`): nothing is done until no thread has a frame in a version that is to be left; then the
  switch is thrown at once. The process runs on meanwhile. At the end of a bounded wait the operation is refused, and nothing stays behind.
- ``per-thread`` (:mod:`hotpatch.engine.transition`): slots lead to a dispatcher for each function (:mod:`hotpatch.engine.dispatch`), which
  sends each thread to the version of its own side. A thread changes sides when it has no frame in a version that it is to leave. When all
  have, slots lead straight on and the dispatchers are gone. Called off half way, all go back by the same rule.

Which frames keep a thread is the same question for both (:mod:`hotpatch.engine.occupancy`).

The engine never runs the process. Whoever does calls :meth:`hotpatch.engine.Engine.poll` whenever no thread runs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from hotpatch.arch import Redirect
from hotpatch.errors import ApplyRefused, Refusal, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.engine.registry import Registry, SiteKey
    from hotpatch.patch import Patch

WAIT = 1_000_000
"""Instructions of the process for which ``quiescent`` waits, unless said otherwise."""


class Consistency(StrEnum):
    """How calls change over."""

    IMMEDIATE = "immediate"
    """As Windows does: calls already inside finish in old code, new calls get new code."""
    QUIESCENT = "quiescent"
    """As Ksplice and kpatch do: wait until no thread has a frame in a patched function."""
    PER_THREAD = "per-thread"
    """As Linux livepatch does: a thread changes over when it has left the old code."""


def require(consistency: Consistency, patch: Patch, registry: Registry, touched: Iterable[SiteKey]) -> None:
    """Check that ``patch``, which touches those functions, can be applied or taken back with ``consistency``.

    Raises:
        ApplyRefused: A redirect has no slot to change over through (consistency-needs-hpat).
    """
    if consistency is Consistency.IMMEDIATE:
        return
    wanted = {function.base_rva: (function.name, function.redirect) for function in patch.functions}
    for key in touched:
        site = registry.sites.get(key)
        if site is not None:
            wanted[key.rva] = (site.top.name, site.strategy)
    without_slot = [
        Refusal(
            Rule.CONSISTENCY_NEEDS_HPAT,
            name,
            rva,
            f"the redirect {redirect.value} has no slot through which {consistency.value} could change over; "
            "build the patch with --redirect hpat, or apply it with --consistency immediate",
            {"redirect": redirect.value, "consistency": consistency.value},
        )
        for rva, (name, redirect) in sorted(wanted.items())
        if redirect is not Redirect.HPAT
    ]
    if without_slot:
        raise ApplyRefused(without_slot)
