"""What has become of the patches of a process: those given out, those that go in by themselves, and what was refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.engine import PatchState
from hotpatch.process.model import AppliedAt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.emulator.guest import Guest
    from hotpatch.engine import AppliedPatch
    from hotpatch.errors import Refusal
    from hotpatch.patch import Patch

_GONE = frozenset({PatchState.REVERTED, PatchState.REVERSED, PatchState.REFUSED})
"""States of a patch that does not stand any more, or never did."""
_TO_COME = frozenset({PatchState.WAITING, PatchState.REGISTERED})
"""States of a patch that does not stand yet."""


@dataclass(frozen=True, slots=True)
class PatchesState:
    """What :meth:`Patches.state` gives."""

    applied: tuple[AppliedAt, ...]
    refused: tuple[Refusal, ...]
    handles: tuple[AppliedPatch, ...]
    awaited: tuple[AppliedPatch, ...]


class Patches:
    """Of one process.

    Attributes:
        applied: Patches that went in at an instruction count.
        refused: What was met on the way.
    """

    def __init__(self, guest: Guest) -> None:
        """Of ``guest``, which has none yet."""
        self.applied: list[AppliedAt] = []
        self.refused: list[Refusal] = []
        self._guest = guest
        self._handles: list[AppliedPatch] = []
        self._awaited: tuple[AppliedPatch, ...] = ()

    def given(self, handle: AppliedPatch) -> AppliedPatch:
        """Remember a handle that is given out."""
        self._handles.append(handle)
        return handle

    def newest(self, patch: Patch) -> AppliedPatch | None:
        """The newest application of ``patch`` that stands or is on its way."""
        standing = [handle for handle in self._handles if handle.patch is patch and handle.state not in _GONE]
        return standing[-1] if standing else None

    def expect(self, handle: AppliedPatch) -> None:
        """Note that a patch has gone in as soon as it has."""
        self._awaited = (*self._awaited, handle)
        self.note()

    def note(self) -> None:
        """Remember which of those that are awaited have gone in."""
        if not self._awaited:
            return
        waiting = []
        for handle in self._awaited:
            if handle.state in _TO_COME:
                waiting.append(handle)
            elif handle.state not in _GONE:
                self.applied.append(AppliedAt(handle.patch.image.name, self._guest.instructions, len(handle.patch.functions)))
        self._awaited = tuple(waiting)

    def refuse(self, refusals: Sequence[Refusal]) -> None:
        """Remember refusals, and tell of them."""
        self.refused.extend(refusals)
        for refusal in refusals:
            self._guest.event("refused", rule=refusal.rule.value, function=refusal.function, reason=refusal.reason)

    def state(self) -> PatchesState:
        """All of it as it is."""
        return PatchesState(tuple(self.applied), tuple(self.refused), tuple(self._handles), self._awaited)

    def restore(self, state: PatchesState) -> None:
        """As :meth:`state` found it."""
        self.applied[:], self.refused[:], self._handles[:] = state.applied, state.refused, state.handles
        self._awaited = state.awaited
