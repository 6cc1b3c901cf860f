"""Waiting until no thread has a frame in a version that is to be left, and what is said when that takes too long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.engine.occupancy import holders, is_inside
from hotpatch.engine.registry import Operation
from hotpatch.errors import Refusal, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.address import Rva, Va
    from hotpatch.engine.locate import Locator
    from hotpatch.engine.occupancy import Code, Holder
    from hotpatch.engine.registry import Transition, Waiting
    from hotpatch.engine.target import Target
    from hotpatch.patch import Patch

SHOWN = 6
"""Functions of a stack that a sentence shows; the evidence has them all."""


def first_inside(target: Target, locator: Locator, code: Code, likely: int) -> int | None:
    """Some thread that has a frame in ``code``, ``likely`` being looked at first."""
    modules = target.modules()
    threads = sorted(target.threads(), key=lambda thread: (thread.id != likely, thread.id))
    return next((thread.id for thread in threads if is_inside(target, locator, modules, thread, code)), None)


def refusals(target: Target, locator: Locator, code: Code, what: Waiting | Transition, *, stands: bool = False) -> tuple[Refusal, ...]:
    """One for each thread that is still inside when the time is over, or (``stands``) when no thread can run (rule not-quiescent)."""
    return tuple(_refusal(what, found, target.clock - what.since, stands=stands) for found in holders(target, locator, code))


def _refusal(what: Waiting | Transition, found: Holder, waited: int, *, stands: bool) -> Refusal:
    deed = "applied" if what.operation is Operation.APPLY else "reverted"
    stack = " ← ".join(found.stack[:SHOWN])
    name = found.function or f"0x{found.va:x}"
    if found.returns and stands:
        end = "nothing of the process can run on by itself; let something run (by input, say) and try again, or use --consistency immediate"
    elif found.returns:
        end = "wait longer, or use --consistency immediate"
    else:
        end = (
            f"the code of {found.endless} never returns from there, so this cannot be waited for; "
            "use --consistency immediate, or end that thread"
        )
    return Refusal(
        Rule.NOT_QUIESCENT,
        found.function,
        rva_of(what.patch, found.function),
        f"the patch was not {deed} within {waited} instructions because thread {found.thread} is still in {name} ({stack}); {end}",
        {
            "thread": found.thread,
            "va": found.va,
            "stack": list(found.stack),
            "waited": waited,
            "stands": stands,
            "reachable": found.returns,
            "endless": found.endless,
            "returns": found.returns,
            "outermost": found.outermost,
            "walked": found.certain,
        },
    )


def lines(found: Iterable[Holder]) -> tuple[str, ...]:
    """What is waited for, a line each."""
    return tuple(f"thread {each.thread} in {each.function or hex(each.va)}" for each in found)


def rva_of(patch: Patch, function: str | None) -> Rva | None:
    """RVA in the base of a function of the patch, by name."""
    return next((patched.base_rva for patched in patch.functions if function is not None and patched.name == function), None)


def busy(what: Waiting | Transition, module: Va) -> Refusal:
    """Why nothing else can be done to a module (rule in-transition)."""
    return Refusal(
        Rule.IN_TRANSITION,
        None,
        None,
        f"{what.patch.image.name} is still on its way into or out of that module; let it finish, or call it off first",
        {"patch": what.patch.image.name, "sequence": what.patch.sequence, "operation": what.operation.value, "module_va": module},
    )
