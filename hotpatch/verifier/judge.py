"""Telling what a run at a boundary is, from the versions of the call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.verifier.model import Action, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.verifier.boundaries import Trial
    from hotpatch.verifier.model import Outcome


@dataclass(frozen=True, slots=True)
class Judge:
    """Everything that a call may give.

    Attributes:
        action: What was done at the boundaries.
        old: By the base alone.
        new: With the patch from the beginning.
        versions: By how many calls of patched functions had begun when things changed over.
        last: The largest such number; ``None`` where the call was not walked to its end.
    """

    action: Action
    old: Outcome
    new: Outcome
    versions: Mapping[int, Outcome]
    last: int | None

    def kind(self, trial: Trial) -> Kind:
        """What a run is; where old and new are the same, what it would be if they were not."""
        outcome = trial.outcome
        matching = [begun for begun in trial.allowed if outcome == self.versions.get(begun)]
        if matching:
            # At the first boundaries every call changes over, at the last ones none does.
            first, last = (Kind.NEW, Kind.OLD) if self.action is Action.APPLY else (Kind.OLD, Kind.NEW)
            if outcome == self._pure(first) and (matching[0] != self.last or outcome != self._pure(last)):
                return first
            return last if outcome == self._pure(last) else Kind.PER_CALL
        explained = all(any(version.parts()[name] == part for version in self._all()) for name, part in outcome.parts().items())
        return Kind.MIXED if explained else Kind.WRONG

    def why(self, trial: Trial) -> str:
        """What is wrong with it, after ``the call``."""
        expected = self.versions.get(trial.begun)
        if expected is None:
            return "has no version to compare with: when it is led by hand, fewer calls of patched functions begin"
        if trial.outcome in self._all():
            return f"changed over elsewhere than at the next call of a patched function ({differences(trial.outcome, expected)})"
        return f"gave what neither the old nor the new code gives there ({differences(trial.outcome, expected)})"

    def checks(self) -> list[tuple[Kind, str]]:
        """What is wrong with the versions themselves: the two ends of them must be the base alone and the patch from the beginning."""
        first, last = (self.new, self.old) if self.action is Action.APPLY else (self.old, self.new)
        done, led = ("applied", "original") if self.action is Action.APPLY else ("taken back", "new")
        texts = [(0, first, f"with the patch {done} right before it, the call")]
        if self.last is not None:
            texts.append((self.last, last, f"with every call of a patched function led to the {led} code by hand, the call"))
        found = []
        for begun, wanted, text in texts:
            version = self.versions.get(begun)
            if version is not None and version != wanted:
                kind = Kind.MIXED if version in (self.old, self.new) else Kind.WRONG
                found.append((kind, f"{text} gives something else ({differences(version, wanted)})"))
        return found

    def _pure(self, kind: Kind) -> Outcome:
        return self.old if kind is Kind.OLD else self.new

    def _all(self) -> tuple[Outcome, ...]:
        return (self.old, self.new, *self.versions.values())


def differences(found: Outcome, expected: Outcome) -> str:
    """Which parts differ, found and expected."""
    others = expected.parts()
    texts = []
    for name, part in found.parts().items():
        if part == others.get(name):
            continue
        if name == "data":
            texts.append("the module's data differ")
        elif isinstance(part, bytes) or isinstance(others.get(name), bytes):
            texts.append(f"{name} {_hex(part)} instead of {_hex(others.get(name))}")
        else:
            texts.append(f"{name} {_plain(part)} instead of {_plain(others.get(name))}")
    return "; ".join(texts) or "no difference"


def _hex(part: object) -> str:
    return part.hex() if isinstance(part, bytes) else "nothing"


def _plain(part: object) -> str:
    if part is None:
        return "nothing"
    return f"0x{part:x}" if isinstance(part, int) else str(part) if " " not in str(part) else repr(part)
