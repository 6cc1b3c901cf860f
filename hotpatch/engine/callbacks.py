"""The callbacks of a patch: functions of its image that may refuse an operation, and take data over.

They run while no thread of the program does. Each gets six numbers: the patch's sequence and state version; the sequence and state version
of the patch below it (or, at a revert, of the one that is in force again), 0 where there is none; the VA of the module; and whether it ends
an operation that was called off. 0 goes on; anything else, and any fault, takes the whole operation back, with all that the callbacks have
done.

An operation that has begun and is called off later ends as its opposite does: what ``before-apply`` did, ``after-revert`` takes back, and
what ``before-revert`` did, ``after-apply``, as with Linux livepatches (klp_complete_transition). Nothing is left to be called off then:
what such a callback refuses is told, and keeps nothing.

As with livepatches that replace others, a newer patch's callbacks alone run when it goes on top: it knows its predecessors, they do not
know it. It finds what they left by the state version, and in shadow data, which belong to the process and outlive patches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.errors import EmulatedFault, Refusal, Refused, Rule

if TYPE_CHECKING:
    from hotpatch.engine.registry import Application, Registry
    from hotpatch.engine.transaction import Transaction
    from hotpatch.patch import Moment, Patch

BUDGET = 10_000_000
"""Instructions that one callback may execute."""
_CALLED_OFF = "the operation was called off"


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The callbacks of one operation on ``patch``, whose image is at ``image``; ``below`` is the patch under it.

    ``called_off`` tells those that end an operation of which nothing has come; ``outcome`` is what follows from one that refuses.
    """

    step: Transaction
    patch: Patch
    image: Va
    module: Va
    below: Patch | None
    called_off: bool = False
    outcome: str = ""

    def run(self, moment: Moment) -> None:
        """Run the callback of ``moment``, if there is one.

        Raises:
            Refused: It said no (callback-veto), or faulted (callback-fault).
        """
        for callback in self.patch.callbacks:
            if callback.moment is moment:
                self._run(moment, Va(self.image + callback.patch_rva))

    def _run(self, moment: Moment, va: Va) -> None:
        below = (0, 0) if self.below is None else (self.below.sequence, self.below.terms.state_version)
        arguments = (self.patch.sequence, self.patch.terms.state_version, *below, self.module, int(self.called_off))
        evidence: dict[str, object] = {"moment": moment.value, "va": va, "patch": self.patch.image.name}
        try:
            answer = self.step.call(va, arguments, BUDGET) & 0xFFFF_FFFF
        except EmulatedFault as error:
            fault = error.fault
            evidence |= {"kind": fault.kind.value, "pc": fault.pc, "address": fault.address}
            reason = f"the patch's callback {moment} ended with {error}; {self.outcome or f'{_CALLED_OFF}, repair the patch'}"
            raise Refused([Refusal(Rule.CALLBACK_FAULT, moment.symbol, None, reason, evidence)]) from error
        if answer:
            evidence["answer"] = answer
            reason = f"the patch's callback {moment} answered no ({answer}); {self.outcome or f'{_CALLED_OFF}, try again when it agrees'}"
            raise Refused([Refusal(Rule.CALLBACK_VETO, moment.symbol, None, reason, evidence)])
        self.step.event("callback", moment=moment.value, patch=self.patch.image.name, va=va)

    def run_regardless(self, moments: tuple[Moment, ...], outcome: str) -> tuple[Refusal, ...]:
        """Run all of ``moments`` or, where one refuses, none; its refusal, which keeps nothing from happening.

        ``outcome`` says what happens all the same.
        """
        try:
            with self.step.part():
                for moment in moments:
                    replace(self, outcome=outcome).run(moment)
        except Refused as refused:
            return refused.refusals
        return ()


def callbacks_of(step: Transaction, registry: Registry, application: Application) -> Callbacks:
    """Those of the topmost patch of a module."""
    standing = registry.standing(application.image.module)
    below = standing[-2].patch if len(standing) > 1 else None
    return Callbacks(step, application.patch, registry.images[application.image].va, application.image.module, below)
