"""Applying and reverting: what each does once it has been checked, and how each begins where threads are inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.arch import architecture
from hotpatch.engine import consistency, dispatch, hpat, redirect, threads, trampoline, transition
from hotpatch.engine.callbacks import callbacks_of
from hotpatch.engine.consistency import WAIT, Consistency
from hotpatch.engine.mapping import image_key, map_patch
from hotpatch.engine.occupancy import holders, versions, versions_of
from hotpatch.engine.plan import check_idle, check_own_redirects, topmost
from hotpatch.engine.registry import Ended, Operation, SiteKey, Transition, Waiting
from hotpatch.engine.stacking import Stacking, check_roll_back
from hotpatch.errors import Refusal, RevertRefused, Rule
from hotpatch.patch import Moment

if TYPE_CHECKING:
    from hotpatch.engine.locate import Locator
    from hotpatch.engine.occupancy import Holder
    from hotpatch.engine.plan import Plan
    from hotpatch.engine.registry import Application, Registry
    from hotpatch.engine.target import Target
    from hotpatch.engine.transaction import Transaction


def begin(step: Transaction, target: Target, locator: Locator, registry: Registry, plan: Plan, how: Consistency, wait: int | None) -> int:
    """Apply what can be applied now; returns the application's number. ``wait`` in instructions of the process."""
    now, patch, module = target.clock, plan.patch, plan.module
    inside: tuple[Holder, ...] = ()
    if how is not Consistency.IMMEDIATE:
        keys = [function.key for function in plan.functions]
        sides = versions(registry, target.modules(), module, patch, image_key(module, patch), keys, plan.dropped)
        inside = holders(target, locator, sides.under)
    if how is Consistency.QUIESCENT and inside:
        registry.applied += 1
        until = now + (WAIT if wait is None else wait)
        waiting = Waiting(registry.applied, Operation.APPLY, patch, module.va, plan.stacking, now, until, inside[0].thread)
        _await(step, registry, waiting, inside)
        return waiting.number
    return apply(step, target, registry, plan, how, None, inside, None if wait is None else now + wait).number


def _await(step: Transaction, registry: Registry, waiting: Waiting, inside: tuple[Holder, ...]) -> None:
    registry.waiting[waiting.module] = waiting
    step.event(
        "wait",
        patch=waiting.patch.image.name,
        sequence=waiting.patch.sequence,
        operation=waiting.operation.value,
        module_va=waiting.module,
        until=waiting.until,
        holders=[
            {
                "thread": each.thread,
                "function": each.function,
                "stack": list(each.stack),
                "reachable": each.returns,
                "endless": each.endless,
            }
            for each in inside
        ],
    )


def apply(
    step: Transaction,
    target: Target,
    registry: Registry,
    plan: Plan,
    how: Consistency,
    number: int | None = None,
    inside: tuple[Holder, ...] = (),
    until: int | None = None,
) -> Application:
    """Put a patch in: at once, or (where threads are ``inside``) by a transition that ``until`` bounds.

    Raises:
        Refused: It cannot be (out-of-reach, cannot-relocate and its kin, import-unavailable, callback-veto, callback-fault, …).
    """
    arch, patch, module, functions = plan.arch, plan.patch, plan.module, plan.functions
    step.event(
        "apply",
        patch=patch.image.name,
        sequence=patch.sequence,
        module=module.name,
        module_va=module.va,
        functions=len(functions),
        consistency=how.value,
        given_back=len(plan.dropped),
    )
    hpat.reserve_slots(step, target, registry, arch, functions)
    originals = trampoline.make_callable(step, target, registry, arch, functions)
    key, image = map_patch(step, target, registry, arch, module, patch, originals)
    application = registry.enter(key, patch, tuple(function.key for function in functions), plan.dropped, how, plan.stacking, number)
    callbacks = callbacks_of(step, registry, application)
    callbacks.run(Moment.BEFORE_APPLY)
    dispatchers: dict[SiteKey, Va] = {}
    if inside:
        rows = [
            (
                function.key,
                dispatch.before_of(registry, function.key, arch.entry_site(function.function.redirect).displaced),
                Va(image.va + function.function.patch_rva),
            )
            for function in functions
        ]
        rows += [(dropped, registry.sites[dropped].top.destination, registry.sites[dropped].original) for dropped in plan.dropped]
        dispatchers = transition.begin(step, target, registry, application, Operation.APPLY, rows, inside, until)
    switch = redirect.redirect(step, target, registry, arch, application, image, functions, plan.original, dispatchers)
    threads.move_out(step, target, registry, arch, functions)
    switch.throw(step)
    if not inside:
        callbacks.run(Moment.AFTER_APPLY)
    return application


def begin_revert(
    step: Transaction, target: Target, locator: Locator, registry: Registry, number: int, wanted: Consistency | None, wait: int | None
) -> None:
    """Take an application back, or begin to; as it was applied unless ``wanted`` says otherwise.

    Raises:
        Refused: It cannot be, or something else is under way.
    """
    application = topmost(registry, number)
    module_va, patch, now = application.image.module, application.patch, target.clock
    check_idle(registry, module_va)
    how = application.consistency if wanted is None else wanted
    consistency.require(how, patch, registry, application.touched)
    check_roll_back(application)
    check_own_redirects(target, registry, application)
    inside: tuple[Holder, ...] = ()
    if how is not Consistency.IMMEDIATE:
        inside = holders(target, locator, versions_of(registry, target.modules(), application).over)
    if not inside:
        revert(step, target, registry, application)
    elif how is Consistency.QUIESCENT:
        until = now + (WAIT if wait is None else wait)
        waiting = Waiting(application.number, Operation.REVERT, patch, module_va, Stacking.CUMULATIVE, now, until, inside[0].thread)
        _await(step, registry, waiting, inside)
    else:
        callbacks_of(step, registry, application).run(Moment.BEFORE_REVERT)
        arch, switch = architecture(patch.machine), redirect.Switch()
        sites = {key: registry.sites[key] for key in application.touched}
        rows = [(key, site.top.destination, site.before) for key, site in sites.items()]
        bound = None if wait is None else now + wait
        dispatchers = transition.begin(step, target, registry, application, Operation.REVERT, rows, inside, bound)
        for key, site in sites.items():
            registry.sites[key] = redirect.lead(step, target, arch, key, site, site.layers, switch, dispatchers[key])
        switch.throw(step)


def revert(step: Transaction, target: Target, registry: Registry, application: Application) -> None:
    """Take back what stands, between the patch's callbacks.

    Raises:
        Refused: A callback says no or faults.
    """
    callbacks = callbacks_of(step, registry, application)
    callbacks.run(Moment.BEFORE_REVERT)
    take_back(step, target, registry, application)
    callbacks.run(Moment.AFTER_REVERT)


def take_back(step: Transaction, target: Target, registry: Registry, application: Application) -> None:
    """Lead calls to what was in force before, and forget the application."""
    arch = architecture(application.patch.machine)
    step.event(
        "revert",
        patch=application.patch.image.name,
        sequence=application.patch.sequence,
        module_va=application.image.module,
        functions=len(application.sites),
    )
    switch = redirect.Switch()
    removed = []
    for key in application.touched:
        site = registry.sites[key]
        below = site.layers[:-1]
        if below:
            registry.sites[key] = redirect.lead(step, target, arch, key, site, below, switch)
        else:
            removed.append((key, registry.sites.pop(key)))
    registry.leave(application)
    switch.throw(step)
    redirect.remove(step, target, arch, removed)


def comes(under_way: Waiting | Transition) -> bool:
    """Whether what is under way leads to the patch's code, and not away from it."""
    return under_way.to_new if isinstance(under_way, Transition) else under_way.operation is Operation.APPLY


def coming(registry: Registry, number: int) -> bool:
    """Whether an application is on its way in, or waits for its module."""
    under_way = registry.under_way(number)
    return number in registry.registered if under_way is None else comes(under_way)


def call_off(step: Transaction, target: Target, registry: Registry, number: int) -> None:
    """Call off what is under way of an application, or its registration.

    Raises:
        RevertRefused: Nothing is (not-applied).
    """
    under_way = registry.under_way(number)
    if isinstance(under_way, Transition):
        transition.turn_back(step, target, registry, under_way)
    elif under_way is not None:
        stop_waiting(step, registry, under_way, ())
    elif number in registry.registered:
        patch = registry.registered.pop(number).patch
        step.event("register", patch=patch.image.name, sequence=patch.sequence, module=patch.provenance.base_name.lower(), why="called-off")
    else:
        reason = "nothing of the patch is under way; revert it, or apply it again"
        raise RevertRefused([Refusal(Rule.NOT_APPLIED, None, None, reason)])


def stop_waiting(step: Transaction, registry: Registry, waiting: Waiting, refusals: tuple[Refusal, ...]) -> None:
    """Wait no longer: it was given up because of ``refusals``, or called off where there are none."""
    del registry.waiting[waiting.module]
    if waiting.operation is Operation.APPLY:
        registry.ended[waiting.number] = Ended(refusals)
    if not refusals:
        step.event("wait", patch=waiting.patch.image.name, sequence=waiting.patch.sequence, called_off=True)
