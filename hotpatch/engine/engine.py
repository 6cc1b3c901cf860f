"""The engine: applies patches to a process, stacks them, takes them back."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.arch import architecture
from hotpatch.collection import without_collection
from hotpatch.engine import checks, consistency, dispatch, hpat, identity, quiescence, redirect, status, threads, trampoline, transition
from hotpatch.engine.applied import AppliedPatch
from hotpatch.engine.callbacks import callbacks_of
from hotpatch.engine.collect import Collected, candidates, forget, unreached
from hotpatch.engine.consistency import WAIT, Consistency
from hotpatch.engine.locate import Locator
from hotpatch.engine.mapping import image_key, map_patch
from hotpatch.engine.occupancy import holders, versions
from hotpatch.engine.registry import Ended, Operation, Registry, SiteKey, Transition, Waiting
from hotpatch.engine.stacking import Stacking, check_roll_back, check_terms, given_back
from hotpatch.engine.transaction import Transaction
from hotpatch.engine.undo import OriginalView
from hotpatch.errors import ApplyRefused, HotpatchError, Refusal, Refused, RevertRefused, Rule
from hotpatch.patch import Moment

if TYPE_CHECKING:
    from collections.abc import Container

    from hotpatch.address import Rva
    from hotpatch.arch import Architecture
    from hotpatch.engine.checks import CheckedFunction
    from hotpatch.engine.collect import Candidate
    from hotpatch.engine.occupancy import Code, Holder, Versions
    from hotpatch.engine.registry import Application
    from hotpatch.engine.status import ChangeStatus, FunctionStatus, PatchState, Status
    from hotpatch.engine.target import Module, Target
    from hotpatch.patch import Patch
    from hotpatch.unwind import Located


@dataclass(frozen=True, slots=True)
class Progress:
    """What :meth:`Engine.poll` found: whether something still waits or is in transition, and what was refused in the end."""

    busy: bool
    refused: tuple[Refusal, ...] = ()


_NOTHING = Progress(busy=False)


@dataclass(frozen=True, slots=True)
class _Plan:
    """An application that has passed every check."""

    patch: Patch
    arch: Architecture
    module: Module
    functions: tuple[CheckedFunction, ...]
    original: OriginalView
    dropped: tuple[SiteKey, ...]
    stacking: Stacking


class Engine:
    """Patches one process. Between its calls the process runs; during them no thread of it does.

    There is one engine per process: another one would take this one's redirects for foreign hooks.
    """

    def __init__(self, target: Target) -> None:
        """Work on ``target``, which has no patches yet."""
        self._target = target
        self._registry = Registry()
        self._locator: tuple[Registry, Locator] | None = None

    def apply(
        self,
        patch: Patch,
        consistency: Consistency = Consistency.IMMEDIATE,
        stacking: Stacking = Stacking.CUMULATIVE,
        wait: int | None = None,
    ) -> AppliedPatch:
        """Apply a patch, or begin to, or change nothing.

        Find the module that it was written for and check that its memory is what the builder saw; take slots past its end; map the patch
        image within reach and bind it; make the originals callable; write slots and pads; move threads out of the way; then switch calls
        over.

        With ``quiescent`` nothing of that is done while a thread is inside, and with ``per-thread`` threads that are inside change over
        later: :meth:`poll` goes on with it, and the handle tells how far it is.

        Args:
            patch: Newer (by its sequence) than what stands on that module.
            consistency: When calls change over.
            stacking: What becomes of functions that only older patches replace.
            wait: Instructions of the process after which it is given up; ``None``: as long as :data:`WAIT` (``quiescent``) or for ever
                (``per-thread``).

        Raises:
            ApplyRefused: With every reason; the process is as it was.
        """
        try:
            with without_collection(), Transaction(self._target) as step:
                registry = self._registry.copy()
                plan = self._plan(registry, patch, consistency, stacking)
                number = self._begin(step, registry, plan, consistency, wait)
                step.commit()
        except ApplyRefused:
            raise
        except Refused as refused:
            raise ApplyRefused(refused.refusals) from refused
        self._registry = registry
        return AppliedPatch(self, number, patch, plan.module.va)

    def _plan(self, registry: Registry, patch: Patch, how: Consistency, stacking: Stacking) -> _Plan:
        """Check everything that can be checked before anything is done."""
        target, arch = self._target, architecture(patch.machine)
        module = identity.find_module(target, patch)
        self._check_idle(registry, module.va)
        checks.check_sequence(registry.standing(module.va), patch)
        original = OriginalView(target.read, registry.records(module.va))
        replaced = {SiteKey(module.va, function.base_rva) for function in patch.functions}
        dropped = given_back(registry, module.va, replaced, stacking)
        touched = (*sorted(replaced), *dropped)
        consistency.require(how, patch, registry, touched)
        check_terms(registry, module.va, patch, dropped)
        checks.check_redirects(target, arch, registry, touched)
        functions = checks.check_functions(target, arch, module, patch, original)
        identity.check_memory(module, patch, original)
        return _Plan(patch, arch, module, functions, original, dropped, stacking)

    def _begin(self, step: Transaction, registry: Registry, plan: _Plan, how: Consistency, wait: int | None) -> int:
        """Apply what can be applied now; returns the application's number."""
        now, patch, module = self._target.clock, plan.patch, plan.module
        inside: tuple[Holder, ...] = ()
        if how is not Consistency.IMMEDIATE:
            keys = [function.key for function in plan.functions]
            sides = versions(registry, self._target.modules(), module, patch, image_key(module, patch), keys, plan.dropped)
            inside = holders(self._target, self._locate, sides.under)
        if how is Consistency.QUIESCENT and inside:
            registry.applied += 1
            until = now + (WAIT if wait is None else wait)
            waiting = Waiting(registry.applied, Operation.APPLY, patch, module.va, plan.stacking, now, until, inside[0].thread)
            self._await(step, registry, waiting, inside)
            return waiting.number
        return self._apply(step, registry, plan, how, None, inside, None if wait is None else now + wait).number

    def _await(self, step: Transaction, registry: Registry, waiting: Waiting, inside: tuple[Holder, ...]) -> None:
        registry.waiting[waiting.module] = waiting
        step.event(
            "wait",
            patch=waiting.patch.image.name,
            sequence=waiting.patch.sequence,
            operation=waiting.operation.value,
            module_va=waiting.module,
            until=waiting.until,
            holders=[{"thread": each.thread, "function": each.function} for each in inside],
        )

    def _apply(
        self,
        step: Transaction,
        registry: Registry,
        plan: _Plan,
        how: Consistency,
        number: int | None = None,
        inside: tuple[Holder, ...] = (),
        until: int | None = None,
    ) -> Application:
        target, arch, patch, module, functions = self._target, plan.arch, plan.patch, plan.module, plan.functions
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
        hpat.reserve_slots(step, registry, arch, functions)
        originals = trampoline.make_callable(step, registry, arch, functions)
        key, image = map_patch(step, target, registry, arch, module, patch, originals)
        application = registry.enter(key, patch, tuple(function.key for function in functions), plan.dropped, how, number)
        callbacks = callbacks_of(step, registry, application)
        callbacks.run(Moment.BEFORE_APPLY)
        dispatchers: dict[SiteKey, Va] = {}
        if inside:
            flag = transition.free_flag(registry, target)
            rows = [
                (
                    function.key,
                    dispatch.before_of(registry, function.key, arch.entry_site(function.function.redirect).displaced),
                    Va(image.va + function.function.patch_rva),
                )
                for function in functions
            ]
            rows += [(dropped, registry.sites[dropped].top.destination, registry.sites[dropped].original) for dropped in plan.dropped]
            stubs, dispatchers = dispatch.place_stubs(step, registry, arch, module.va, flag, rows)
            began = Transition(application.number, Operation.APPLY, patch, module.va, stubs, flag, target.clock, until)
            transition.begin(step, target, registry, began, inside)
        switch = redirect.redirect(step, target, registry, arch, application, image, functions, plan.original, dispatchers)
        threads.move_out(step, target, registry, arch, functions)
        switch.throw(step)
        if not inside:
            callbacks.run(Moment.AFTER_APPLY)
        return application

    def revert(self, applied: AppliedPatch, consistency: Consistency | None = None, wait: int | None = None) -> None:
        """Take the topmost patch of a module back: what it superseded is in force again, else the original.

        The patch image, slots and trampolines stay mapped (:meth:`collect`). A patch that is still on its way in is called off. Threads
        change back as they changed over unless ``consistency`` says otherwise; ``wait`` as for :meth:`apply`.

        Raises:
            RevertRefused: It does not stand (not-applied), another stands on top (not-on-top), its module is gone (module-not-loaded), it
                was built not to be reverted (cannot-roll-back), a redirect is no longer what was written (redirect-changed), a callback
                says no or faults (callback-veto, callback-fault), or something else is under way there (in-transition); the process is as
                it was.
        """
        try:
            with without_collection(), Transaction(self._target) as step:
                registry = self._registry.copy()
                if self._coming(registry, applied):
                    self._call_off(step, registry, applied)
                else:
                    self._begin_revert(step, registry, applied, consistency, wait)
                step.commit()
        except RevertRefused:
            raise
        except Refused as refused:
            raise RevertRefused(refused.refusals) from refused
        self._registry = registry

    def reverse(self, applied: AppliedPatch) -> None:
        """Call off what waits or is in transition: a patch on its way in goes out, one on its way out comes in again.

        Raises:
            RevertRefused: Nothing of it is under way (not-applied).
        """
        with Transaction(self._target) as step:
            registry = self._registry.copy()
            self._call_off(step, registry, applied)
            step.commit()
        self._registry = registry

    def _coming(self, registry: Registry, applied: AppliedPatch) -> bool:
        waiting, going = registry.waiting.get(applied.module), registry.transitions.get(applied.module)
        if waiting is not None and waiting.number == applied.number:
            return waiting.operation is Operation.APPLY
        return going is not None and going.number == applied.number and going.to_new

    def _call_off(self, step: Transaction, registry: Registry, applied: AppliedPatch) -> None:
        waiting, going = registry.waiting.get(applied.module), registry.transitions.get(applied.module)
        if waiting is not None and waiting.number == applied.number:
            self._stop_waiting(step, registry, waiting, ())
        elif going is not None and going.number == applied.number:
            transition.turn_back(step, self._target, registry, going)
        else:
            reason = "nothing of the patch is under way; revert it, or apply it again"
            raise RevertRefused([Refusal(Rule.NOT_APPLIED, None, None, reason)])

    def _stop_waiting(self, step: Transaction, registry: Registry, waiting: Waiting, refusals: tuple[Refusal, ...]) -> None:
        del registry.waiting[waiting.module]
        if waiting.operation is Operation.APPLY:
            registry.ended[waiting.number] = Ended(refusals)
        if not refusals:
            step.event("wait", patch=waiting.patch.image.name, sequence=waiting.patch.sequence, called_off=True)

    def _begin_revert(
        self, step: Transaction, registry: Registry, applied: AppliedPatch, consistency_: Consistency | None, wait: int | None
    ) -> None:
        application = self._topmost(registry, applied)
        module_va, patch, now = application.image.module, application.patch, self._target.clock
        self._check_idle(registry, module_va)
        how = application.consistency if consistency_ is None else consistency_
        consistency.require(how, patch, registry, application.touched)
        check_roll_back(application)
        self._check_redirects(registry, application)
        inside: tuple[Holder, ...] = ()
        if how is not Consistency.IMMEDIATE:
            inside = holders(self._target, self._locate, self._versions(registry, application).over)
        if not inside:
            self._revert(step, registry, application)
        elif how is Consistency.QUIESCENT:
            until = now + (WAIT if wait is None else wait)
            waiting = Waiting(application.number, Operation.REVERT, patch, module_va, Stacking.CUMULATIVE, now, until, inside[0].thread)
            self._await(step, registry, waiting, inside)
        else:
            callbacks_of(step, registry, application).run(Moment.BEFORE_REVERT)
            arch, switch = architecture(patch.machine), redirect.Switch()
            flag = transition.free_flag(registry, self._target)
            rows = []
            for key in application.touched:
                site = registry.sites[key]
                rows.append((key, site.top.destination, site.layers[-2].destination if len(site.layers) > 1 else site.original))
            stubs, dispatchers = dispatch.place_stubs(step, registry, arch, module_va, flag, rows)
            until_ = None if wait is None else now + wait
            began = Transition(application.number, Operation.REVERT, patch, module_va, stubs, flag, now, until_)
            transition.begin(step, self._target, registry, began, inside)
            for key, stub in dispatchers.items():
                site = registry.sites[key]
                registry.sites[key] = redirect.lead(step, self._target, arch, key, site, site.layers, switch, stub)
            switch.throw(step)

    def _revert(self, step: Transaction, registry: Registry, application: Application, moments: Container[Moment] = tuple(Moment)) -> None:
        """Take back what stands, with those of the patch's callbacks whose moment is among ``moments``."""
        target, arch = self._target, architecture(application.patch.machine)
        callbacks = callbacks_of(step, registry, application)
        if Moment.BEFORE_REVERT in moments:
            callbacks.run(Moment.BEFORE_REVERT)
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
        if Moment.AFTER_REVERT in moments:
            callbacks.run(Moment.AFTER_REVERT)

    # going on ----------------------------------------------------------------------------------------------------------------------------

    def poll(self) -> Progress:
        """Go on with what waits or is in transition, as far as threads let it now.

        To be called while no thread runs, and as often as may be: between slices, at system calls. It costs nothing where nothing waits.
        """
        if not self._registry.waiting and not self._registry.transitions:
            return _NOTHING
        refused: list[Refusal] = []
        for waiting in tuple(self._registry.waiting.values()):
            refused += self._try(waiting)
        for going in tuple(self._registry.transitions.values()):
            if any(module.va == going.module for module in self._target.modules()):
                refused += self._advance(going)
            else:
                self._abandon(going)
        return Progress(bool(self._registry.waiting or self._registry.transitions), tuple(refused))

    def _try(self, waiting: Waiting) -> tuple[Refusal, ...]:
        """Do what waits if nobody is inside; the refusals if it was given up."""
        try:
            code = self._left_by(waiting)
            found = quiescence.first_holder(self._target, self._locate, code, waiting.holder)
            if found is not None:
                if self._target.clock < waiting.until:
                    self._registry.waiting[waiting.module] = replace(waiting, holder=found.thread)
                    return ()
                raise ApplyRefused(quiescence.refusals(self._target, self._locate, code, waiting))
            with Transaction(self._target) as step:
                registry = self._registry.copy()
                del registry.waiting[waiting.module]
                if waiting.operation is Operation.APPLY:
                    plan = self._plan(registry, waiting.patch, Consistency.QUIESCENT, waiting.stacking)
                    self._apply(step, registry, plan, Consistency.QUIESCENT, waiting.number)
                else:
                    application = registry.applications[waiting.number]
                    self._check_redirects(registry, application)
                    self._revert(step, registry, application)
                step.commit()
        except Refused as refused:
            with Transaction(self._target) as step:
                registry = self._registry.copy()
                self._stop_waiting(step, registry, waiting, refused.refusals)
                step.commit()
            self._registry = registry
            return refused.refusals
        self._registry = registry
        return ()

    def _left_by(self, waiting: Waiting) -> Code:
        """Code that nobody may be in when it is done."""
        if waiting.operation is Operation.REVERT:
            return self._versions(self._registry, self._registry.applications[waiting.number]).over
        module = identity.find_module(self._target, waiting.patch)
        keys = [SiteKey(module.va, function.base_rva) for function in waiting.patch.functions]
        dropped = given_back(self._registry, module.va, set(keys), waiting.stacking)
        return versions(
            self._registry, self._target.modules(), module, waiting.patch, image_key(module, waiting.patch), keys, dropped
        ).under

    def _advance(self, going: Transition) -> tuple[Refusal, ...]:
        """Let threads change sides, and finish when all have; the refusals if time ran out."""
        target = self._target
        application = self._registry.applications[going.number]
        refused: tuple[Refusal, ...] = ()
        with Transaction(target) as step:
            registry = self._registry.copy()
            kept = transition.advance(step, target, self._locate, going, self._versions(registry, application))
            if kept and going.until is not None and target.clock >= going.until:
                sides = self._versions(registry, application)
                refused = quiescence.refusals(target, self._locate, sides.under if going.to_new else sides.over, going)
                transition.turn_back(step, target, registry, going, refused)
            step.commit()
        self._registry = registry
        return refused if kept else self._finish(going)

    def _finish(self, going: Transition) -> tuple[Refusal, ...]:
        """All threads are on one side: lead slots straight there and give the dispatchers back; the refusals where that cannot be done."""
        target, arch = self._target, architecture(going.patch.machine)
        try:
            with Transaction(target) as step:
                registry = self._registry.copy()
                application = registry.applications[going.number]
                self._check_redirects(registry, application)
                through = [registry.sites[key] for key in application.touched]
                if going.to_new:
                    switch = redirect.Switch()
                    for key, site in zip(application.touched, through, strict=True):
                        registry.sites[key] = redirect.lead(step, target, arch, key, site, site.layers, switch)
                    switch.throw(step)
                    if going.operation is Operation.APPLY:
                        callbacks_of(step, registry, application).run(Moment.AFTER_APPLY)
                else:
                    # A patch that never came in has taken nothing over that would have to be given back.
                    self._revert(step, registry, application, (Moment.AFTER_REVERT,) if going.operation is Operation.REVERT else ())
                dispatch.vacate(step, target, arch, through)
                transition.clear(step, target, going)
                del registry.transitions[going.module]
                if not going.to_new and going.operation is Operation.APPLY:
                    registry.ended[going.number] = Ended(going.refusals)
                transition.tell(step, going, "finish", 0)
                step.commit()
        except RevertRefused as refused:
            self._registry.transitions[going.module] = replace(going, problems=refused.refusals)
            return () if going.problems == refused.refusals else refused.refusals
        except Refused as refused:
            with Transaction(target) as step:
                registry = self._registry.copy()
                transition.turn_back(step, target, registry, going, refused.refusals)
                step.commit()
            self._registry = registry
            return refused.refusals
        self._registry = registry
        with suppress(HotpatchError):  # collect() tries again
            self._give_back(next(candidate for candidate in candidates(registry) if candidate.va == going.stubs))
        return ()

    def _abandon(self, going: Transition) -> None:
        """The module is gone, and with it whatever led to its dispatchers."""
        with Transaction(self._target) as step:
            registry = self._registry.copy()
            transition.clear(step, self._target, going)
            del registry.transitions[going.module]
            step.commit()
        self._registry = registry

    def _versions(self, registry: Registry, application: Application) -> Versions:
        modules = self._target.modules()
        module = next(module for module in modules if module.va == application.image.module)
        return versions(registry, modules, module, application.patch, application.image, application.sites, application.given_back)

    def _check_idle(self, registry: Registry, module: Va) -> None:
        under_way = registry.waiting.get(module) or registry.transitions.get(module)
        if under_way is not None:
            raise Refused([quiescence.busy(under_way, module)])

    def _topmost(self, registry: Registry, applied: AppliedPatch) -> Application:
        application = registry.applications.get(applied.number)
        if application is None:
            raise RevertRefused(
                [Refusal(Rule.NOT_APPLIED, None, None, "the patch does not stand any more; apply it again before you revert it")]
            )
        if all(module.va != application.image.module for module in self._target.modules()):
            raise RevertRefused(
                [
                    Refusal(
                        Rule.NOT_LOADED,
                        None,
                        None,
                        "the module that was patched has been unloaded; there is nothing to revert",
                        {"module_va": application.image.module},
                    )
                ]
            )
        top = registry.standing(application.image.module)[-1]
        if top is not application:
            raise RevertRefused(
                [
                    Refusal(
                        Rule.NOT_ON_TOP,
                        None,
                        None,
                        f"the patch with sequence {top.patch.sequence} stands on top of this one, which has {application.patch.sequence}; "
                        "revert that one first",
                        {"sequence": application.patch.sequence, "top": top.patch.sequence, "top_patch": top.patch.image.name},
                    )
                ]
            )
        return application

    def _check_redirects(self, registry: Registry, application: Application) -> None:
        refusals = []
        for key in application.touched:
            site = registry.sites[key]
            refusals += [
                Refusal(
                    Rule.REDIRECT_CHANGED,
                    site.top.name,
                    key.rva,
                    f"somebody has written over the redirect at 0x{va:x}; take that away, then revert",
                    {"va": va, "expected": expected.hex(), "found": found.hex()},
                )
                for va, expected, found in redirect.changes(self._target, site)
            ]
        if refusals:
            raise RevertRefused(refusals)

    def collect(self) -> Collected:
        """Unmap what reverts left behind and nothing reaches any more; see :mod:`hotpatch.engine.collect` for what counts as reaching.

        Each mapping is given back in a transaction of its own: when the target fails at one, those before stay freed.
        """
        mappings = candidates(self._registry)
        garbage = unreached(self._target, mappings)
        for mapping in garbage:
            self._give_back(mapping)
        freed = tuple(mapping.va for mapping in garbage)
        kept = tuple(mapping.va for mapping in mappings if mapping.va not in freed)
        if freed:
            self._target.event("collect", freed=list(freed), kept=list(kept))
        return Collected(freed, kept)

    def _give_back(self, mapping: Candidate) -> None:
        registry = self._registry.copy()
        with Transaction(self._target) as step:
            image = None if mapping.image is None else registry.images[mapping.image]
            forget(registry, mapping)
            if image is not None:
                step.remove_module(image.patch.image.name.lower(), image.va, image.patch.image)
            step.unmap(mapping.va)
        self._registry = registry

    def snapshot(self) -> Registry:
        """What the engine knows of the process, to be kept together with a copy of the process itself."""
        return self._registry.copy()

    def restore(self, snapshot: Registry) -> None:
        """Know what :meth:`snapshot` knew; the process must have been put back to the same moment. May be called any number of times."""
        self._registry = snapshot.copy()

    def locate(self, va: Va) -> Located | None:
        """What lies at an address of the process, for walking stacks: trampolines and slots count as the base code that they stand for."""
        return self._locate.locate(va, self._target.modules())

    @property
    def _locate(self) -> Locator:
        if self._locator is None or self._locator[0] is not self._registry:
            self._locator = (self._registry, Locator(self._registry))
        return self._locator[1]

    def status(self) -> Status:
        """What is patched now: where, by which patch, in which state."""
        kept = tuple(mapping.va for mapping in candidates(self._registry))
        return status.status(self._registry, self._target, kept, self._changes())

    def _changes(self) -> tuple[ChangeStatus, ...]:
        """What waits or is in transition, by module."""
        found = []
        for waiting in self._registry.waiting.values():
            inside = holders(self._target, self._locate, self._left_by(waiting))
            found.append(status.waiting(waiting, self._target, inside))
        for going in self._registry.transitions.values():
            sides = self._versions(self._registry, self._registry.applications[going.number])
            inside = transition.keepers(self._target, self._locate, going, sides)
            found.append(status.in_transition(going, self._target, inside))
        return tuple(sorted(found, key=lambda change: change.number))

    def _waits_for(self, number: int) -> tuple[str, ...]:
        return next((change.waits_for for change in self._changes() if change.number == number), ())

    def settled(self, applied: AppliedPatch) -> bool:
        """Whether nothing of it waits or is in transition."""
        return self._registry.under_way(applied.number) is None

    def refusals(self, applied: AppliedPatch) -> tuple[Refusal, ...]:
        """Why it never came into force, where it gave up."""
        ended = self._registry.ended.get(applied.number)
        return () if ended is None else ended.refusals

    def state(self, applied: AppliedPatch) -> PatchState:
        """What has become of an applied patch."""
        return status.patch_state(self._registry, applied.number)

    def functions(self, applied: AppliedPatch) -> tuple[FunctionStatus, ...]:
        """What stands of an applied patch's functions, by RVA; none once it is reverted."""
        application = self._registry.applications.get(applied.number)
        if application is None:
            return ()
        module = next((module.name for module in self._target.modules() if module.va == application.image.module), "")
        return status.function_statuses(self._registry, application, module, self._waits_for(applied.number))

    def original(self, applied: AppliedPatch, function: str | Rva) -> Va:
        """Address at which the base's own version of a patched function can be called, also while it is redirected.

        It stays callable after a revert for as long as :meth:`collect` has not given it back.

        Raises:
            Refused: The patch has no such function (no-such-function), or its trampoline has been collected (not-applied).
        """
        wanted = applied.rva_of(function)
        key = SiteKey(applied.module, wanted)
        site = self._registry.sites.get(key)
        if site is not None:
            return site.original
        for trampoline_key, placed in self._registry.trampolines.items():
            if trampoline_key.site == key:
                return placed.va
        raise Refused(
            [Refusal(Rule.NOT_APPLIED, None, wanted, "the patch was reverted and its trampolines collected; call the function itself")]
        )
