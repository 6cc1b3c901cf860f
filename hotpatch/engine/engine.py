"""The engine: applies patches to a process, stacks them, takes them back."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from hotpatch.collection import without_collection
from hotpatch.engine import course, identity, operation, presence, status, transition
from hotpatch.engine.applied import AppliedPatch
from hotpatch.engine.collect import Collected, candidates, give_back, unreached
from hotpatch.engine.consistency import Consistency
from hotpatch.engine.course import Progress
from hotpatch.engine.locate import Locator
from hotpatch.engine.occupancy import holders, versions_of
from hotpatch.engine.plan import plan
from hotpatch.engine.registry import Registry, SiteKey
from hotpatch.engine.stacking import Stacking
from hotpatch.engine.transaction import RollbackError, change
from hotpatch.errors import ApplyRefused, HotpatchError, InputError, Refusal, Refused, RevertRefused, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hotpatch.address import Rva, Va
    from hotpatch.engine.collect import Candidate
    from hotpatch.engine.registry import Transition
    from hotpatch.engine.status import ChangeStatus, FunctionStatus, PatchState, Status
    from hotpatch.engine.target import Module, Target
    from hotpatch.engine.transaction import Transaction
    from hotpatch.patch import Patch
    from hotpatch.unwind import Located

_Result = TypeVar("_Result")
_NOTHING = Progress(busy=False)


@contextmanager
def _as(kind: type[ApplyRefused] | type[RevertRefused]) -> Iterator[None]:
    """Whatever refuses, it is said by a refusal of that kind."""
    try:
        yield
    except kind:
        raise
    except Refused as refused:
        raise kind(refused.refusals) from refused


@contextmanager
def _or_later() -> Iterator[None]:
    """Giving memory back may fail, since :meth:`Engine.collect` tries again; taking that failure back may not."""
    try:
        yield
    except RollbackError:
        raise
    except HotpatchError:
        pass


class Engine:
    """Patches one process. Between its calls the process runs; during them no thread of it does.

    There is one engine per process: another one would take this one's redirects for foreign hooks.
    """

    def __init__(self, target: Target) -> None:
        """Work on ``target``, which has no patches yet.

        Raises:
            InputError: It is none.
        """
        if not hasattr(target, "write_code"):
            raise InputError(repr(target), "is no Target; of a Process use process.apply, or process.engine")
        self._target = target
        self._registry = Registry()
        self._locator: tuple[Registry, Locator] | None = None
        target.watch_modules(self)

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
            patch: Newer (by its sequence) than what stands on that module, or is registered for it because its last load went on without.
            consistency: When calls change over.
            stacking: What becomes of functions that only older patches replace.
            wait: Instructions of the process after which it is given up; ``None``: as long as :data:`hotpatch.engine.WAIT`
                (``quiescent``) or for ever (``per-thread``).

        Raises:
            ApplyRefused: With every reason; the process is as it was.
        """

        def begin(step: Transaction, registry: Registry) -> int:
            module = identity.find_module(self._target, patch)
            presence.check_registered(registry, patch)
            checked = plan(self._target, registry, module, patch, consistency, stacking)
            return operation.begin(step, self._target, self._locate, registry, checked, consistency, wait)

        with _as(ApplyRefused), without_collection():
            return AppliedPatch(self, self._change(begin), patch)

    def register(
        self,
        patch: Patch,
        consistency: Consistency = Consistency.IMMEDIATE,
        stacking: Stacking = Stacking.CUMULATIVE,
        wait: int | None = None,
    ) -> AppliedPatch:
        """Apply a patch as :meth:`apply` does, or, while its module is not loaded, keep it until that is.

        It goes in when the module is loaded, before any code of that runs. The handle tells; :meth:`revert` takes it back either way.

        Raises:
            ApplyRefused: As :meth:`apply`; or another build of its module is loaded (wrong-base), or a patch is registered for the module
                that is as new (sequence).
        """
        if identity.base_of(self._target.modules(), patch) is not None:
            return self.apply(patch, consistency, stacking, wait)
        with _as(ApplyRefused):
            number = self._change(lambda step, registry: presence.register(step, self._target, registry, patch, consistency, stacking))
        return AppliedPatch(self, number, patch)

    def _change(self, work: Callable[[Transaction, Registry], _Result]) -> _Result:
        return change(self._target, self._know, self._registry, work)

    def _know(self, registry: Registry) -> None:
        """This is true of the process from now on."""
        self._registry = registry

    def revert(self, applied: AppliedPatch, consistency: Consistency | None = None, wait: int | None = None) -> None:
        """Take the topmost patch of a module back: what it superseded is in force again, else the original.

        The patch image, slots and trampolines stay mapped (:meth:`collect`). A patch that is still on its way in is called off, and so is
        one that waits for its module. Threads change back as they changed over unless ``consistency`` says otherwise; ``wait`` as for
        :meth:`apply`.

        Raises:
            RevertRefused: It does not stand (not-applied), another stands on top (not-on-top), it was built not to be reverted
                (cannot-roll-back), a redirect is no longer what was written (redirect-changed), a callback says no or faults
                (callback-veto, callback-fault), or something else is under way there (in-transition); the process is as it was.
        """

        def begin(step: Transaction, registry: Registry) -> None:
            if operation.coming(registry, applied.number):
                operation.call_off(step, self._target, registry, applied.number)
            else:
                operation.begin_revert(step, self._target, self._locate, registry, applied.number, consistency, wait)

        with _as(RevertRefused), without_collection():
            self._change(begin)

    def reverse(self, applied: AppliedPatch) -> None:
        """Call off what waits or is in transition: a patch on its way in goes out, one on its way out comes in again.

        Raises:
            RevertRefused: Nothing of it is under way (not-applied).
        """
        self._change(lambda step, registry: operation.call_off(step, self._target, registry, applied.number))

    # going on ----------------------------------------------------------------------------------------------------------------------------

    def poll(self) -> Progress:
        """Go on with what waits or is in transition, as far as threads let it now.

        To be called while no thread runs, and as often as may be: between slices, at system calls. It costs nothing where nothing waits.
        Where the target fails meanwhile, :meth:`unheard` tells what was refused before.
        """
        if not self._registry.waiting and not self._registry.transitions:
            return _NOTHING
        known = len(self._registry.untold)
        for waiting in tuple(self._registry.waiting.values()):
            course.go_on(self._target, self._locate, self._registry, waiting, self._know)
        for going in tuple(self._registry.transitions.values()):
            course.advance(self._target, self._locate, self._registry, going, self._know)
            if going.module not in self._registry.transitions:
                self._vacate(going)
        return Progress(bool(self._registry.waiting or self._registry.transitions), self._refused_since(known))

    def _refused_since(self, known: int) -> tuple[Refusal, ...]:
        """What was refused since there were ``known`` refusals untold; it is told with this."""
        refused = self._registry.untold[known:]
        if refused:
            told = self._registry.copy()
            told.untold = told.untold[:known]
            self._know(told)
        return refused

    def stand_still(self, applied: AppliedPatch) -> tuple[Refusal, ...]:
        """Give up what waits for quiescence of a patch, since no thread can run and bring it nearer; why (not-quiescent).

        What is in transition goes on: threads change over when they can.
        """
        waiting = next((each for each in self._registry.waiting.values() if each.number == applied.number), None)
        if waiting is None:
            return ()
        known = len(self._registry.untold)
        course.stand_still(self._target, self._locate, self._registry, waiting, self._know)
        return self._refused_since(known)

    def _vacate(self, going: Transition) -> None:
        """Give the dispatchers of a transition back that has ended."""
        with _or_later():
            self._give_back(next(candidate for candidate in candidates(self._registry) if candidate.va == going.stubs))

    def _give_back(self, mapping: Candidate) -> None:
        self._change(lambda step, registry: give_back(step, registry, mapping))

    # modules -----------------------------------------------------------------------------------------------------------------------------

    def modules_loaded(self, modules: tuple[Module, ...]) -> None:
        """Apply what is registered for modules that have been loaded; see :class:`hotpatch.engine.target.ModuleWatcher`.

        A patch that cannot be applied stays registered, and :meth:`unheard` tells why.
        """
        if not self._registry.registered:
            return

        def arrive(step: Transaction, registry: Registry) -> None:
            for module in modules:
                presence.arrive(step, self._target, registry, module)

        with without_collection():
            self._change(arrive)

    def modules_unloading(self, modules: tuple[Module, ...]) -> None:
        """Forget modules that are about to go, and register their patches again; see :class:`hotpatch.engine.target.ModuleWatcher`."""

        def depart(step: Transaction, registry: Registry) -> None:
            for module in modules:
                presence.depart(step, self._target, registry, module)
            with _or_later():
                for mapping in presence.leftovers(self._target, registry):
                    without = registry.copy()
                    with step.part():
                        give_back(step, without, mapping)
                    registry.become(without)

        self._change(depart)

    def unheard(self) -> tuple[Refusal, ...]:
        """What was refused because the program loaded or unloaded a module, or by a :meth:`poll` that failed; each is given once."""
        refusals, self._registry.untold = self._registry.untold, ()
        return refusals

    def module(self, applied: AppliedPatch) -> Va | None:
        """Address of the module of an applied patch, or of the one that is its base now; ``None`` where none is."""
        application, under_way = self._registry.applications.get(applied.number), self._registry.under_way(applied.number)
        if application is not None:
            return application.image.module
        if under_way is not None:
            return under_way.module
        module = identity.base_of(self._target.modules(), applied.patch)
        return None if module is None else module.va

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
            inside = holders(self._target, self._locate, course.left_by(self._target, self._registry, waiting))
            found.append(status.waiting(waiting, self._target, inside))
        for going in self._registry.transitions.values():
            sides = versions_of(self._registry, self._target.modules(), self._registry.applications[going.number])
            inside = transition.keepers(self._target, self._locate, going, sides)
            found.append(status.in_transition(going, self._target, inside))
        return tuple(sorted(found, key=lambda change: change.number))

    def _waits_for(self, number: int) -> tuple[str, ...]:
        return next((change.waits_for for change in self._changes() if change.number == number), ())

    def settled(self, applied: AppliedPatch) -> bool:
        """Whether nothing of it waits or is in transition."""
        return self._registry.under_way(applied.number) is None

    def refusals(self, applied: AppliedPatch) -> tuple[Refusal, ...]:
        """Why it never came into force, where it gave up; of one that is registered, why the module's last load went on without it."""
        ended = self._registry.ended.get(applied.number) or self._registry.registered.get(applied.number)
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
        module = self.module(applied)
        if module is None:
            raise Refused([Refusal(Rule.NOT_APPLIED, None, wanted, "the patch's module is not loaded; call the function once it is")])
        key = SiteKey(module, wanted)
        site = self._registry.sites.get(key)
        if site is not None:
            return site.original
        for trampoline_key, placed in self._registry.trampolines.items():
            if trampoline_key.site == key:
                return placed.va
        raise Refused(
            [Refusal(Rule.NOT_APPLIED, None, wanted, "the patch was reverted and its trampolines collected; call the function itself")]
        )
