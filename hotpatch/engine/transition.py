"""Threads that change over one by one.

A transition begins when dispatchers stand in all slots that the operation touches and every thread that is inside of a version to be left
has its byte set. It goes on whenever it is asked (:func:`advance`): each thread that has left changes sides by that byte alone. It ends
when no thread is left. Called off, it goes on with the other side's byte and the other versions.

A thread's byte says where it stands; the engine keeps no list of threads, so that those that end are forgotten, and those that are born,
whose block is all zeros, begin on the side of the version that will be in force.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.arch import architecture
from hotpatch.engine import dispatch
from hotpatch.engine.occupancy import holders, is_inside
from hotpatch.engine.registry import Transition
from hotpatch.errors import Refusal, Refused, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hotpatch.engine.locate import Locator
    from hotpatch.engine.occupancy import Holder, Versions
    from hotpatch.engine.registry import Application, Operation, Registry, SiteKey
    from hotpatch.engine.target import Target, Thread
    from hotpatch.engine.transaction import Transaction

STAYS, WENT = b"\1", b"\0"
"""A thread's byte: it goes where calls led before the operation, or after it."""


def free_flag(registry: Registry, target: Target) -> int:
    """Offset of a byte that no other transition uses.

    Raises:
        Refused: All are in use (in-transition).
    """
    used = {transition.flag for transition in registry.transitions.values()}
    free = next((flag for flag in target.thread_flags if flag not in used), None)
    if free is None:
        reason = f"{len(used)} modules are in transition at once, and there are no more bytes for another; let one finish first"
        raise Refused([Refusal(Rule.IN_TRANSITION, None, None, reason, {"transitions": len(used)})])
    return free


def begin(
    step: Transaction,
    target: Target,
    registry: Registry,
    application: Application,
    operation: Operation,
    rows: Sequence[tuple[SiteKey, Va, Va]],
    inside: Iterable[Holder],
    until: int | None,
) -> dict[SiteKey, Va]:
    """Place the dispatchers (see :func:`hotpatch.engine.dispatch.place_stubs`), set the byte of each thread that is inside, and tell.

    Returns where each function's dispatcher is; nothing leads there yet.

    Raises:
        Refused: All bytes are in use (in-transition), or no memory is free (out-of-reach).
    """
    patch, module = application.patch, application.image.module
    flag = free_flag(registry, target)
    stubs, dispatchers = dispatch.place_stubs(step, target, registry, architecture(patch.machine), module, flag, rows)
    transition = Transition(application.number, operation, patch, module, stubs, flag, target.clock, until)
    keeps = {found.thread: found for found in inside}
    for thread in target.threads():
        if thread.id in keeps:
            _set(step, thread, transition, WENT, STAYS)
    registry.transitions[transition.module] = transition
    tell(step, transition, "begin", len(keeps), holders=_told(keeps.values()))
    return dispatchers


def turn_back(
    step: Transaction, target: Target, registry: Registry, transition: Transition, refusals: tuple[Refusal, ...] = ()
) -> Transition:
    """Call it off, or call the calling off off."""
    turned = replace(transition, reversed=not transition.reversed, refusals=refusals, until=None)
    registry.transitions[transition.module] = turned
    tell(step, turned, "reverse", sum(is_left(target, turned, thread) for thread in target.threads()))
    return turned


def advance(step: Transaction, target: Target, locator: Locator, transition: Transition, versions: Versions) -> int:
    """Let each thread that can change sides do so; returns how many cannot."""
    code = versions.under if transition.to_new else versions.over
    modules = target.modules()
    left = [thread for thread in target.threads() if is_left(target, transition, thread)]
    remaining = len(left)
    for thread in left:
        if is_inside(target, locator, modules, thread, code):
            continue
        remaining -= 1
        _set(step, thread, transition, *((WENT, STAYS) if transition.reversed else (STAYS, WENT)))
        names = ("old", "new") if transition.to_new else ("new", "old")
        tell(step, transition, "thread", remaining, moved_thread=thread.id, **{"from": names[0], "to": names[1]})
    return remaining


def clear(step: Transaction, target: Target, transition: Transition) -> None:
    """Every byte is 0 again."""
    for thread in target.threads():
        if _byte(target, transition, thread) == STAYS:
            _set(step, thread, transition, STAYS, WENT)


def is_left(target: Target, transition: Transition, thread: Thread) -> bool:
    """Whether a thread has not changed sides yet."""
    return _byte(target, transition, thread) == (WENT if transition.reversed else STAYS)


def side(target: Target, transition: Transition, thread: Thread) -> str:
    """``old`` or ``new``: whose code calls of the thread reach."""
    return "new" if transition.to_new is not is_left(target, transition, thread) else "old"


def keepers(target: Target, locator: Locator, transition: Transition, versions: Versions) -> tuple[Holder, ...]:
    """What keeps threads that have not changed sides."""
    left = {thread.id for thread in target.threads() if is_left(target, transition, thread)}
    code = versions.under if transition.to_new else versions.over
    return tuple(found for found in holders(target, locator, code) if found.thread in left)


def tell(step: Transaction, transition: Transition, stage: str, remaining: int, **details: object) -> None:
    """Keep an event: ``begin``, ``thread``, ``reverse`` or ``finish``; ``remaining`` threads are still to change sides."""
    step.event(
        "transition",
        stage=stage,
        patch=transition.patch.image.name,
        sequence=transition.patch.sequence,
        operation=transition.operation.value,
        module_va=transition.module,
        remaining=remaining,
        **details,
    )


def _told(found: Iterable[Holder]) -> list[dict[str, object]]:
    return [{"thread": each.thread, "function": each.function} for each in found]


def _byte(target: Target, transition: Transition, thread: Thread) -> bytes:
    return target.read(Va(thread.block + transition.flag), 1)


def _set(step: Transaction, thread: Thread, transition: Transition, before: bytes, after: bytes) -> None:
    step.write_data(Va(thread.block + transition.flag), before, after)
