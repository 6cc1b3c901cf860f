"""Going on with what waits for threads or is in transition, as far as they let it now.

Each function works on a copy of the registry, which ``know`` is given once it is true; what was refused stands in its ``untold``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hotpatch.arch import architecture
from hotpatch.engine import dispatch, operation, quiescence, redirect, transition
from hotpatch.engine.callbacks import callbacks_of
from hotpatch.engine.consistency import Consistency
from hotpatch.engine.mapping import image_key
from hotpatch.engine.occupancy import versions, versions_of
from hotpatch.engine.plan import check_own_redirects, plan
from hotpatch.engine.registry import Ended, Operation, SiteKey
from hotpatch.engine.stacking import given_back
from hotpatch.engine.transaction import change
from hotpatch.errors import ApplyRefused, Refusal, Refused, RevertRefused
from hotpatch.patch import Moment

if TYPE_CHECKING:
    from hotpatch.engine.locate import Locator
    from hotpatch.engine.occupancy import Code
    from hotpatch.engine.registry import Registry, Transition, Waiting
    from hotpatch.engine.target import Module, Target
    from hotpatch.engine.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Progress:
    """What :meth:`hotpatch.engine.Engine.poll` found: whether something still waits or is in transition, what was refused in the end."""

    busy: bool
    refused: tuple[Refusal, ...] = ()


Know = Callable[["Registry"], object]


def go_on(target: Target, locator: Locator, registry: Registry, waiting: Waiting, know: Know) -> None:
    """Do what waits if nobody is inside, or give it up."""
    try:
        code = left_by(target, registry, waiting)
        inside = quiescence.first_inside(target, locator, code, waiting.holder)
        if inside is not None:
            if target.clock >= waiting.until:
                raise ApplyRefused(quiescence.refusals(target, locator, code, waiting))
            if inside != waiting.holder:
                looked = registry.copy()
                looked.waiting[waiting.module] = replace(waiting, holder=inside)
                know(looked)
            return
        change(target, know, registry, lambda step, done: _do(step, target, done, waiting))
    except Refused as refused:
        _give_up(target, registry, waiting, refused.refusals, know)


def _do(step: Transaction, target: Target, registry: Registry, waiting: Waiting) -> None:
    """What waits; nobody is inside."""
    del registry.waiting[waiting.module]
    if waiting.operation is Operation.APPLY:
        checked = plan(target, registry, _module(target, waiting), waiting.patch, Consistency.QUIESCENT, waiting.stacking)
        operation.apply(step, target, registry, checked, Consistency.QUIESCENT, waiting.number)
    else:
        application = registry.applications[waiting.number]
        check_own_redirects(target, registry, application)
        operation.revert(step, target, registry, application)


def stand_still(target: Target, locator: Locator, registry: Registry, waiting: Waiting, know: Know) -> None:
    """No thread can run: give up what waits for those that are inside."""
    refused = quiescence.refusals(target, locator, left_by(target, registry, waiting), waiting, stands=True)
    if refused:
        _give_up(target, registry, waiting, refused, know)


def _give_up(target: Target, registry: Registry, waiting: Waiting, refused: tuple[Refusal, ...], know: Know) -> None:
    def give_up(step: Transaction, registry: Registry) -> None:
        operation.stop_waiting(step, registry, waiting, refused)
        registry.untold += refused

    change(target, know, registry, give_up)


def left_by(target: Target, registry: Registry, waiting: Waiting) -> Code:
    """Code that nobody may be in when it is done."""
    modules = target.modules()
    if waiting.operation is Operation.REVERT:
        return versions_of(registry, modules, registry.applications[waiting.number]).over
    module = _module(target, waiting)
    keys = [SiteKey(module.va, function.base_rva) for function in waiting.patch.functions]
    dropped = given_back(registry, module.va, set(keys), waiting.stacking)
    return versions(registry, modules, module, waiting.patch, image_key(module, waiting.patch), keys, dropped).under


def _module(target: Target, waiting: Waiting) -> Module:
    return next(module for module in target.modules() if module.va == waiting.module)


def advance(target: Target, locator: Locator, registry: Registry, going: Transition, know: Know) -> None:
    """Let threads change sides, and finish when all have, or turn back when time has run out."""

    def move(step: Transaction, registry: Registry) -> Registry | None:
        """What is known then, where all have changed sides."""
        sides = versions_of(registry, target.modules(), registry.applications[going.number])
        if not transition.advance(step, target, locator, going, sides):
            return registry
        if going.until is not None and target.clock >= going.until:
            refused = quiescence.refusals(target, locator, sides.under if going.to_new else sides.over, going)
            _turn_back(step, target, registry, going, refused)
        return None

    moved = change(target, know, registry, move)
    if moved is not None:
        _finish(target, moved, going, know)


def _finish(target: Target, registry: Registry, going: Transition, know: Know) -> None:
    """All threads are on one side: end the transition, or turn back where that cannot be done."""
    try:
        change(target, know, registry, lambda step, done: _end(step, target, done, going))
    except RevertRefused as refused:
        if going.problems != refused.refusals:
            stopped = registry.copy()
            stopped.transitions[going.module] = replace(going, problems=refused.refusals)
            stopped.untold += refused.refusals
            know(stopped)
    except Refused as refused:
        reasons = refused.refusals
        change(target, know, registry, lambda step, turned: _turn_back(step, target, turned, going, reasons))


def _end(step: Transaction, target: Target, registry: Registry, going: Transition) -> None:
    """Lead slots straight to where all threads are, so that the dispatchers can go.

    One that was called off ends in any case: what a callback refuses then is told.
    """
    arch, application = architecture(going.patch.machine), registry.applications[going.number]
    check_own_redirects(target, registry, application)
    through = {key: registry.sites[key] for key in application.touched}
    callbacks = replace(callbacks_of(step, registry, application), called_off=going.reversed)
    moment = Moment.AFTER_APPLY if going.to_new else Moment.AFTER_REVERT
    if going.to_new:
        switch = redirect.Switch()
        for key, site in through.items():
            registry.sites[key] = redirect.lead(step, target, arch, key, site, site.layers, switch)
        switch.throw(step)
    else:
        operation.take_back(step, target, registry, application)
    told: tuple[Refusal, ...] = ()
    if going.reversed:
        told = callbacks.run_regardless((moment,), "the operation had been called off, and stays so")
    else:
        callbacks.run(moment)
    dispatch.vacate(step, target, arch, through.values())
    transition.clear(step, target, going)
    del registry.transitions[going.module]
    if not going.to_new and going.operation is Operation.APPLY:
        registry.ended[going.number] = Ended(going.refusals and going.refusals + told)
    transition.tell(step, going, "finish", 0)
    registry.untold += told


def _turn_back(step: Transaction, target: Target, registry: Registry, going: Transition, refusals: tuple[Refusal, ...]) -> None:
    transition.turn_back(step, target, registry, going, refusals)
    registry.untold += refusals
