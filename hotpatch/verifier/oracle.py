"""What a call must give when some calls of patched functions are old and the later ones new (or the other way round).

This knows nothing of when the engine does what. The patch is applied before the call and stays (or was taken back before the call and stays
away); the thread is stepped, and each time it arrives at the entry of a patched function it is led by hand to the other version: to the
trampoline of the original, or to the new function. From the k-th such call on it is left alone. So version k of a call depends on the two
codes and on k, never on an instruction at which something was written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.verifier.model import Action

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from hotpatch.address import Va
    from hotpatch.patch import Patch
    from hotpatch.process import ProcessSnapshot
    from hotpatch.verifier.model import Outcome
    from hotpatch.verifier.runs import Scene


@dataclass(frozen=True, slots=True)
class Versions:
    """Both versions of a patched function in the process: its entry, the callable original, the new function."""

    entry: Va
    original: Va
    new: Va


def prepare(scene: Scene, patch: Patch) -> tuple[Versions, ...]:
    """Apply the patch and take it back, so that its image, slots and trampolines are mapped and the versions have addresses.

    A patch that goes in later uses them again and writes nothing but redirects, which makes trying thousands of boundaries cheap.

    Raises:
        ApplyRefused: The patch does not go in at all.
        RevertRefused: It does not come out again.
    """
    applied = scene.process.apply(patch)
    versions = tuple(Versions(function.va, function.trampoline, function.destination) for function in applied.functions)
    applied.revert()
    return versions


def versions_of(
    scene: Scene, start: ProcessSnapshot, patch: Patch, functions: tuple[Versions, ...], action: Action, wanted: Collection[int]
) -> Mapping[int, Outcome]:
    """The outcome of version k of the call for every k of ``wanted``; ``start`` is the call's begin without the patch.

    A k larger than the number of such calls gets none.
    """
    scene.restore(start)
    if action is Action.APPLY:
        scene.process.apply(patch)
    elsewhere = {item.entry: item.original if action is Action.APPLY else item.new for item in functions}
    found: dict[int, Outcome] = {}
    largest = max(wanted, default=0)
    for count in range(largest + 1):
        if count in wanted:
            here = scene.snapshot()
            found[count] = scene.finish()
            scene.restore(here)
        if count < largest and not _divert_next(scene, elsewhere):
            break
    return found


def _divert_next(scene: Scene, elsewhere: Mapping[Va, Va]) -> bool:
    """Lead the next call of a patched function to its other version; whether there was one."""
    under_way = True
    while under_way and (pc := scene.pc) not in elsewhere:
        under_way = scene.step()
    if not under_way:
        return False
    scene.divert(elsewhere[pc])
    return True
