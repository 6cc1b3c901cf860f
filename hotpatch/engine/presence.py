"""Modules that come and go: patches that wait for theirs, what is done when it is loaded, and when it is unloaded.

A patch that is registered is no part of the process yet. When its module is loaded, and before any code of that runs, it is applied; no
thread can be inside, so there is nothing to wait for. A patch that cannot be applied then does not keep the module from being loaded: the
program gets it unpatched, the refusal is told and kept with the registration, and the next load is another try.

When a patched module is unloaded, its patches are registered again, in their order, but for those that were on their way out. Their revert
callbacks run before it goes, and may not refuse. What the engine knows of the module at that address is forgotten, so that another one that
comes there is not taken for it. What was mapped for it goes along, but for what a thread stands in or will return to: that stays until
nothing reaches it (:meth:`hotpatch.engine.Engine.collect`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.arch import HPAT_SLOT_SIZE
from hotpatch.engine import checks, consistency, identity, operation, redirect, transition
from hotpatch.engine.callbacks import callbacks_of
from hotpatch.engine.collect import candidates, held_by_threads
from hotpatch.engine.consistency import Consistency
from hotpatch.engine.plan import plan
from hotpatch.engine.registry import Ended, Operation, Orphan, Registration
from hotpatch.errors import Refusal, Refused
from hotpatch.patch import Moment

if TYPE_CHECKING:
    from hotpatch.engine.collect import Candidate
    from hotpatch.engine.registry import Application, Registry, Transition
    from hotpatch.engine.stacking import Stacking
    from hotpatch.engine.target import Module, Target
    from hotpatch.engine.transaction import Transaction
    from hotpatch.patch import Patch


def register(step: Transaction, target: Target, registry: Registry, patch: Patch, how: Consistency, stacking: Stacking) -> int:
    """Keep a patch whose module is not loaded; returns its number.

    Raises:
        Refused: It is for another machine (machine-differs), another build of the module is loaded (wrong-base), a patch that is registered
            for the same module is as new (sequence), or it cannot change over in that way (consistency-needs-hpat).
    """
    identity.check_machine(target, patch)
    other = identity.other_build(target.modules(), patch)
    if other is not None:
        raise identity.wrong_base(other, patch)
    check_registered(registry, patch)
    consistency.require(how, patch, registry, ())
    registry.applied += 1
    registry.registered[registry.applied] = Registration(registry.applied, patch, how, stacking)
    _tell(step, patch, "not-loaded")
    return registry.applied


def check_registered(registry: Registry, patch: Patch) -> None:
    """Check that a patch is newer than those that are registered for its module; a module that is loaded can have some that were refused.

    Raises:
        ApplyRefused: It is not (sequence).
    """
    checks.check_sequence((each.patch for each in registry.registered.values() if each.patch.base == patch.base), patch)


def _tell(step: Transaction, patch: Patch, why: str) -> None:
    step.event("register", patch=patch.image.name, sequence=patch.sequence, module=patch.provenance.base_name.lower(), why=why)


# loading ----------------------------------------------------------------------------------------------------------------------------------


def arrive(step: Transaction, target: Target, registry: Registry, module: Module) -> None:
    """A module has been loaded: apply what is registered for it, oldest first."""
    for number, registration in tuple(registry.registered.items()):
        patch = registration.patch
        if not identity.is_base(module, patch):
            if identity.has_name(module, patch):
                _refuse(step, registry, registration, identity.wrong_base(module, patch).refusals)
            continue
        trial = registry.copy()
        del trial.registered[number]
        try:
            with step.part():
                checked = plan(target, trial, module, patch, registration.consistency, registration.stacking)
                operation.apply(step, target, trial, checked, registration.consistency, number)
        except Refused as refused:
            _refuse(step, registry, registration, refused.refusals)
        else:
            registry.become(trial)


def _refuse(step: Transaction, registry: Registry, registration: Registration, refusals: tuple[Refusal, ...]) -> None:
    registry.registered[registration.number] = replace(registration, refusals=refusals)
    _remember(step, registry, refusals)


def _remember(step: Transaction, registry: Registry, refusals: tuple[Refusal, ...]) -> None:
    for refusal in refusals:
        step.event("refused", rule=refusal.rule.value, function=refusal.function, reason=refusal.reason)
    registry.untold += refusals


# unloading --------------------------------------------------------------------------------------------------------------------------------


def depart(step: Transaction, target: Target, registry: Registry, module: Module) -> None:
    """A module is about to be unmapped: forget it, and keep its patches for the next time."""
    waiting, going = registry.waiting.pop(module.va, None), registry.transitions.pop(module.va, None)
    leaving = {each.number for each in (waiting, going) if each is not None and not operation.comes(each)}
    standing = registry.standing(module.va)
    for application in reversed(standing):
        _run_down(step, target, registry, application, going)
        registry.leave(application)
    if going is not None:
        transition.clear(step, target, going)
        if going.number in leaving and going.operation is Operation.APPLY:
            registry.ended[going.number] = Ended(going.refusals)
    back = [Registration(each.number, each.patch, each.consistency, each.stacking) for each in standing if each.number not in leaving]
    if waiting is not None and waiting.operation is Operation.APPLY:
        back.append(Registration(waiting.number, waiting.patch, Consistency.QUIESCENT, waiting.stacking))
    for registration in back:
        registry.registered[registration.number] = registration
        _tell(step, registration.patch, "unloaded")
    _forget(step, target, registry, module.va, going)


def _run_down(step: Transaction, target: Target, registry: Registry, application: Application, going: Transition | None) -> None:
    """Run the revert callbacks of the topmost patch of a module, those that have not run yet; what one refuses is only told."""
    callbacks = callbacks_of(step, registry, application)
    moments: tuple[Moment, ...] = (Moment.BEFORE_REVERT, Moment.AFTER_REVERT)
    if going is not None and going.number == application.number:
        callbacks = replace(callbacks, called_off=going.operation is Operation.APPLY)
        moments = (Moment.AFTER_REVERT,)
    _remember(step, registry, callbacks.run_regardless(moments, "its module was unloaded all the same"))


def _forget(step: Transaction, target: Target, registry: Registry, module: Va, going: Transition | None) -> None:
    """Take everything that is known by a module's address out of the registry; what was mapped for it becomes an orphan."""
    orphans = [Orphan(image.va, image.size, image.patch) for key, image in registry.images.items() if key.module == module]
    chunks = {placed.chunk for key, placed in registry.trampolines.items() if key.site.module == module}
    chunks |= set() if going is None else {going.stubs}
    orphans += [Orphan(chunk.va, chunk.size) for chunk in registry.chunks if chunk.va in chunks]
    registry.orphans += tuple(orphans)
    registry.images = {key: image for key, image in registry.images.items() if key.module != module}
    registry.trampolines = {key: placed for key, placed in registry.trampolines.items() if key.site.module != module}
    registry.chunks = tuple(chunk for chunk in registry.chunks if chunk.va not in chunks)
    registry.sites = {key: site for key, site in registry.sites.items() if key.module != module}
    _vacate_slots(step, target, registry, module)


def _vacate_slots(step: Transaction, target: Target, registry: Registry, module: Va) -> None:
    """Lead the slots of a module's functions to where the entries were, and give those back in which no thread stands.

    A thread that comes through one then meets what it would have met without a patch.
    """
    slots = {key: slot for key, slot in registry.slots.items() if key.module == module}
    redirect.lead_slots(step, target, [(slot, Va(key.entry)) for key, slot in slots.items()])
    busy = {thread.pc - thread.pc % HPAT_SLOT_SIZE for thread in target.threads()} if slots else set()
    for key, slot in slots.items():
        if slot not in busy:
            del registry.slots[key]
            next(table for table in registry.tables if slot in table).give(slot)


def leftovers(target: Target, registry: Registry) -> tuple[Candidate, ...]:
    """What was mapped for modules that are gone, but for what a thread is in."""
    tables = {table.va for table in registry.tables if not any(slot in table for slot in registry.slots.values())}
    orphans = {orphan.va for orphan in registry.orphans}
    mappings = [each for each in candidates(registry) if each.va in orphans or each.va in tables]
    held = held_by_threads(target, mappings)
    return tuple(each for each in mappings if each not in held)
