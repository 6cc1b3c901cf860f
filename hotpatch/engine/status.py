"""What is patched now: where, by which patch, in which state, and what it waits for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.engine import quiescence, transition
from hotpatch.engine.registry import Operation, Transition

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hotpatch.address import Rva
    from hotpatch.arch import Redirect
    from hotpatch.engine.occupancy import Holder
    from hotpatch.engine.registry import Application, Registration, Registry, SiteKey, Waiting
    from hotpatch.engine.target import Target, Thread
    from hotpatch.errors import Refusal


class PatchState(StrEnum):
    """What has become of a patch."""

    REGISTERED = "registered"
    """It goes in when its module is loaded, before any code of that runs."""
    WAITING = "waiting"
    """It goes in as soon as no thread is inside of what it replaces; nothing of it has been done."""
    TRANSITION = "in-transition"
    """It is in force for threads that have changed over."""
    REVERTING = "reverting"
    """It is on its way out: that waits for threads, or they go back one by one."""
    APPLIED = "applied"
    """At least one of its functions is the version in force."""
    SUPERSEDED = "superseded"
    """Newer patches replace all of its functions; it is still underneath."""
    REVERTED = "reverted"
    """It was taken back; its image may still be mapped."""
    REVERSED = "reversed"
    """It was called off before it was in force for all threads."""
    REFUSED = "refused"
    """It was given up, because threads did not leave what it replaces."""


@dataclass(frozen=True, slots=True)
class RegisteredStatus:
    """A patch that waits for its module.

    Attributes:
        number: Of the application to be.
        name: Of the patch.
        module: File name of its base.
        sequence: Of the patch.
        state: Always ``registered``.
        refusals: Why the module's last load went on without it; none where it was not loaded meanwhile.
    """

    number: int
    name: str
    module: str
    sequence: int
    state: PatchState
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class FunctionStatus:
    """A function that a patch replaces.

    Attributes:
        name: As the patch knows it.
        module: File name of its module.
        rva: Of its entry in the module.
        va: Of its entry in the process.
        patch: Number of the application, as in :attr:`PatchStatus.number`.
        sequence: Of the patch.
        state: ``applied`` where this is the version in force, else ``superseded``.
        redirect: Strategy of the redirect that stands.
        slot: HPAT slot, where the redirect goes through one.
        trampoline: Where the original can be called.
        destination: The new function.
        waits_for: What keeps it from being in force, one line each; always empty with consistency ``immediate``.
    """

    name: str | None
    module: str
    rva: Rva
    va: Va
    patch: int
    sequence: int
    state: PatchState
    redirect: Redirect
    slot: Va | None
    trampoline: Va
    destination: Va
    waits_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PatchStatus:
    """A patch that stands; ``image`` is where its image is mapped, ``size`` its bytes there."""

    number: int
    name: str
    module: str
    module_va: Va
    sequence: int
    state: PatchState
    image: Va
    size: int
    functions: int


@dataclass(frozen=True, slots=True)
class ThreadStatus:
    """A thread while a patch goes in or out: ``side`` is whose code its calls reach, ``old`` or ``new``; ``function`` keeps it there."""

    thread: int
    side: str
    function: str | None
    stack: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChangeStatus:
    """A patch on its way in or out.

    Attributes:
        number: Of the application.
        name: Of the patch.
        sequence: Of the patch.
        operation: ``apply`` or ``revert``.
        state: How far it is.
        since: Instructions that the process had executed when it began.
        until: When it is given up, or ``None``.
        waits_for: What keeps it, a line each.
        threads: By id.
    """

    number: int
    name: str
    sequence: int
    operation: Operation
    state: PatchState
    since: int
    until: int | None
    waits_for: tuple[str, ...]
    threads: tuple[ThreadStatus, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """All of it, in the order of application.

    Attributes:
        patches: What stands, oldest first.
        functions: By patch, then RVA.
        kept: Addresses of mappings that nothing standing needs but that threads or pointers may still reach.
        changes: What is on its way in or out.
        registered: What waits for its module.
    """

    patches: tuple[PatchStatus, ...]
    functions: tuple[FunctionStatus, ...]
    kept: tuple[Va, ...]
    changes: tuple[ChangeStatus, ...] = ()
    registered: tuple[RegisteredStatus, ...] = ()

    def document(self) -> dict[str, object]:
        """The same as a JSON-compatible document."""
        return asdict(self)


def function_statuses(
    registry: Registry, application: Application, module: str, waits_for: tuple[str, ...] = ()
) -> tuple[FunctionStatus, ...]:
    """What stands of a patch's functions, by RVA."""
    return tuple(_function(registry, application, key, module, waits_for) for key in application.sites)


def waiting(what: Waiting, target: Target, inside: Sequence[Holder]) -> ChangeStatus:
    """An operation that waits for quiescence."""
    side = "old" if what.operation is Operation.APPLY else "new"
    return _change(what, PatchState.WAITING, target, inside, lambda _: side)


def in_transition(what: Transition, target: Target, inside: Sequence[Holder]) -> ChangeStatus:
    """An operation during which each thread goes its own way."""
    change = _change(what, PatchState.TRANSITION, target, inside, lambda thread: transition.side(target, what, thread))
    kept_open = () if inside else tuple(f"{each.function} ({each.rule.value}): {each.reason}" for each in what.problems)
    return replace(change, waits_for=change.waits_for + kept_open)


def _change(
    what: Waiting | Transition, state: PatchState, target: Target, inside: Sequence[Holder], side: Callable[[Thread], str]
) -> ChangeStatus:
    by_thread = {found.thread: found for found in inside}
    rows = []
    for thread in target.threads():
        found = by_thread.get(thread.id)
        rows.append(ThreadStatus(thread.id, side(thread), found.function if found else None, found.stack if found else ()))
    name, sequence, lines = what.patch.image.name, what.patch.sequence, quiescence.lines(inside)
    return ChangeStatus(what.number, name, sequence, what.operation, state, what.since, what.until, lines, tuple(rows))


def patch_state(registry: Registry, number: int) -> PatchState:
    """What has become of an application."""
    under_way = registry.under_way(number)
    if isinstance(under_way, Transition):
        return PatchState.TRANSITION if under_way.to_new else PatchState.REVERTING
    if under_way is not None:
        return PatchState.WAITING if under_way.operation is Operation.APPLY else PatchState.REVERTING
    if number in registry.registered:
        return PatchState.REGISTERED
    application = registry.applications.get(number)
    if application is None:
        ended = registry.ended.get(number)
        return PatchState.REVERTED if ended is None else PatchState.REFUSED if ended.refusals else PatchState.REVERSED
    in_force = any(registry.sites[key].top.application == number for key in application.sites)
    return PatchState.APPLIED if in_force or not application.sites else PatchState.SUPERSEDED


def status(registry: Registry, target: Target, kept: tuple[Va, ...], changes: tuple[ChangeStatus, ...] = ()) -> Status:
    """The status of everything in ``registry``."""
    names = {module.va: module.name for module in target.modules()}
    patches = []
    functions: list[FunctionStatus] = []
    for number, application in sorted(registry.applications.items()):
        module_va = application.image.module
        image = registry.images[application.image]
        module = names.get(module_va, "")
        patches.append(
            PatchStatus(
                number,
                application.patch.image.name,
                module,
                module_va,
                application.patch.sequence,
                patch_state(registry, number),
                image.va,
                image.size,
                len(application.sites),
            )
        )
        waits_for = next((change.waits_for for change in changes if change.number == number), ())
        functions.extend(function_statuses(registry, application, module, waits_for))
    return Status(tuple(patches), tuple(functions), kept, changes, tuple(map(_registered, registry.registered.values())))


def _registered(what: Registration) -> RegisteredStatus:
    name, module = what.patch.image.name, what.patch.provenance.base_name.lower()
    return RegisteredStatus(what.number, name, module, what.patch.sequence, PatchState.REGISTERED, what.refusals)


def _function(registry: Registry, application: Application, key: SiteKey, module: str, waits_for: tuple[str, ...]) -> FunctionStatus:
    site = registry.sites[key]
    layer = next(layer for layer in site.layers if layer.application == application.number)
    return FunctionStatus(
        layer.name,
        module,
        key.rva,
        Va(key.entry),
        application.number,
        application.patch.sequence,
        PatchState.APPLIED if layer is site.top else PatchState.SUPERSEDED,
        site.strategy,
        site.slot,
        site.original,
        layer.destination,
        waits_for,
    )
