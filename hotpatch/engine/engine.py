"""The engine: applies patches to a process, stacks them, takes them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch import architecture
from hotpatch.collection import without_collection
from hotpatch.engine import checks, consistency, hpat, identity, redirect, status, threads, trampoline
from hotpatch.engine.collect import Collected, candidates, forget, unreached
from hotpatch.engine.consistency import Consistency
from hotpatch.engine.locate import Locator
from hotpatch.engine.mapping import map_patch
from hotpatch.engine.registry import Registry, SiteKey
from hotpatch.engine.stacking import Stacking, given_back
from hotpatch.engine.transaction import Transaction
from hotpatch.engine.undo import OriginalView
from hotpatch.errors import ApplyRefused, Refusal, Refused, RevertRefused, Rule

if TYPE_CHECKING:
    from hotpatch.address import Rva, Va
    from hotpatch.engine.registry import Application
    from hotpatch.engine.status import FunctionStatus, PatchState, Status
    from hotpatch.engine.target import Target
    from hotpatch.patch import Patch
    from hotpatch.unwind import Located

_RVA_PREFIX = "rva:"


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
        self, patch: Patch, consistency: Consistency = Consistency.IMMEDIATE, stacking: Stacking = Stacking.CUMULATIVE
    ) -> AppliedPatch:
        """Apply a patch, or change nothing.

        Find the module that it was written for and check that its memory is what the builder saw; take slots past its end; map the patch
        image within reach and bind it; make the originals callable; write slots and pads; move threads out of the way; then switch calls
        over.

        Args:
            patch: Newer (by its sequence) than what stands on that module.
            consistency: When calls change over.
            stacking: What becomes of functions that only older patches replace.

        Raises:
            ApplyRefused: With every reason; the process is as it was.
        """
        try:
            with without_collection(), Transaction(self._target) as step:
                registry = self._registry.copy()
                application = self._apply(step, registry, patch, consistency, stacking)
                step.commit()
        except ApplyRefused:
            raise
        except Refused as refused:
            raise ApplyRefused(refused.refusals) from refused
        self._registry = registry
        return AppliedPatch(self, application)

    def _apply(self, step: Transaction, registry: Registry, patch: Patch, how: Consistency, stacking: Stacking) -> Application:
        target, arch = self._target, architecture(patch.machine)
        consistency.require(how, patch)
        module = identity.find_module(target, patch)
        checks.check_sequence(registry.standing(module.va), patch)
        original = OriginalView(target.read, registry.records(module.va))
        replaced = {SiteKey(module.va, function.base_rva) for function in patch.functions}
        dropped = given_back(registry, module.va, replaced, stacking)
        checks.check_redirects(target, arch, registry, (*sorted(replaced), *dropped))
        functions = checks.check_functions(target, arch, module, patch, original)
        identity.check_memory(module, patch, original)
        step.event(
            "apply",
            patch=patch.image.name,
            sequence=patch.sequence,
            module=module.name,
            module_va=module.va,
            functions=len(functions),
            consistency=how.value,
            given_back=len(dropped),
        )
        hpat.reserve_slots(step, registry, arch, functions)
        key, image = map_patch(step, target, registry, arch, module, patch)
        application = registry.enter(key, patch, tuple(function.key for function in functions), dropped)
        trampoline.make_callable(step, registry, arch, functions)
        switch = redirect.redirect(step, target, registry, arch, application, image, functions, original)
        threads.move_out(step, target, registry, arch, functions)
        switch.throw(step)
        return application

    def revert(self, applied: AppliedPatch) -> None:
        """Take the topmost patch of a module back: what it superseded is in force again, else the original.

        The patch image, slots and trampolines stay mapped (:meth:`collect`).

        Raises:
            RevertRefused: It does not stand (not-applied), another stands on top (not-on-top), its module is gone (module-not-loaded), or a
                redirect is no longer what was written (redirect-changed); the process is as it was.
        """
        with without_collection(), Transaction(self._target) as step:
            registry = self._registry.copy()
            self._revert(step, registry, applied)
            step.commit()
        self._registry = registry

    def _revert(self, step: Transaction, registry: Registry, applied: AppliedPatch) -> None:
        target, arch = self._target, architecture(applied.patch.machine)
        application = self._topmost(registry, applied)
        self._check_redirects(registry, application)
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
            registry = self._registry.copy()
            with Transaction(self._target) as step:
                image = None if mapping.image is None else registry.images[mapping.image]
                forget(registry, mapping)
                if image is not None:
                    step.remove_module(image.patch.image.name.lower(), image.va, image.patch.image)
                step.unmap(mapping.va)
            self._registry = registry
        freed = tuple(mapping.va for mapping in garbage)
        kept = tuple(mapping.va for mapping in mappings if mapping.va not in freed)
        if freed:
            self._target.event("collect", freed=list(freed), kept=list(kept))
        return Collected(freed, kept)

    def snapshot(self) -> Registry:
        """What the engine knows of the process, to be kept together with a copy of the process itself."""
        return self._registry.copy()

    def restore(self, snapshot: Registry) -> None:
        """Know what :meth:`snapshot` knew; the process must have been put back to the same moment. May be called any number of times."""
        self._registry = snapshot.copy()

    def locate(self, va: Va) -> Located | None:
        """What lies at an address of the process, for walking stacks: trampolines and slots count as the base code that they stand for."""
        if self._locator is None or self._locator[0] is not self._registry:
            self._locator = (self._registry, Locator(self._registry))
        return self._locator[1].locate(va, self._target.modules())

    def status(self) -> Status:
        """What is patched now: where, by which patch, in which state."""
        kept = tuple(mapping.va for mapping in candidates(self._registry))
        return status.status(self._registry, self._target, kept)

    def state(self, applied: AppliedPatch) -> PatchState:
        """What has become of an applied patch."""
        return status.patch_state(self._registry, applied.number)

    def functions(self, applied: AppliedPatch) -> tuple[FunctionStatus, ...]:
        """What stands of an applied patch's functions, by RVA; none once it is reverted."""
        application = self._registry.applications.get(applied.number)
        if application is None:
            return ()
        module = next((module.name for module in self._target.modules() if module.va == application.image.module), "")
        return status.function_statuses(self._registry, application, module)

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


class AppliedPatch:
    """A patch that was applied: the handle to take it back by, and to call the originals."""

    def __init__(self, engine: Engine, application: Application) -> None:
        """Made by :meth:`Engine.apply`."""
        self._engine = engine
        self._application = application

    @property
    def patch(self) -> Patch:
        """What was applied."""
        return self._application.patch

    @property
    def number(self) -> int:
        """Counts applications from 1; the same patch applied again has another number."""
        return self._application.number

    @property
    def module(self) -> Va:
        """Address of the module that was patched."""
        return self._application.image.module

    @property
    def state(self) -> PatchState:
        """What has become of it."""
        return self._engine.state(self)

    @property
    def functions(self) -> tuple[FunctionStatus, ...]:
        """What stands of it, by RVA; none once it is reverted."""
        return self._engine.functions(self)

    def original(self, function: str | Rva) -> Va:
        """See :meth:`Engine.original`; ``function`` is a name, ``rva:0x…``, or the RVA of the base's entry."""
        return self._engine.original(self, function)

    def revert(self) -> None:
        """See :meth:`Engine.revert`."""
        self._engine.revert(self)

    def rva_of(self, function: str | Rva) -> Rva:
        """RVA in the base of one of the patch's functions, given by name, ``rva:0x…``, or that RVA.

        Raises:
            Refused: The patch has no such function (no-such-function).
        """
        for patched in self.patch.functions:
            if function in (patched.name, patched.base_rva) or _rva(function) == patched.base_rva:
                return patched.base_rva
        names = sorted(patched.name or f"rva:0x{patched.base_rva:x}" for patched in self.patch.functions)
        raise Refused(
            [
                Refusal(
                    Rule.NO_SUCH_FUNCTION,
                    str(function),
                    None,
                    "the patch does not replace that function; name one that it replaces",
                    {"functions": names},
                )
            ]
        )


def _rva(text: str | int) -> int | None:
    """The number of ``rva:0x…``."""
    if not isinstance(text, str) or not text.startswith(_RVA_PREFIX):
        return None
    try:
        return int(text.removeprefix(_RVA_PREFIX), 0)
    except ValueError:
        return None
