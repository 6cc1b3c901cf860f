"""Changes that do not hold, made behind a story's back."""

from __future__ import annotations

import pytest

from hotpatch.address import Va
from hotpatch.engine import AppliedPatch
from hotpatch.process import Process

_apply, _revert = Process.apply, AppliedPatch.revert


def old_entries_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back the entries' old bytes as soon as a patch is in, and the redirects again before it is taken back."""
    behind: list[tuple[Process, Va, bytes, bytes]] = []

    def apply(process: Process, *args: object, **options: object) -> AppliedPatch:
        since = len(process.events)
        applied = _apply(process, *args, **options)  # type: ignore[arg-type]
        for event in process.events[since:]:
            if event.kind == "redirect":
                before, after = (bytes.fromhex(event.details[key]) for key in ("before", "after"))
                process.guest.write_code(Va(event.details["va"]), after, before)
                behind.append((process, Va(event.details["va"]), before, after))
        return applied

    def revert(applied: AppliedPatch) -> None:
        while behind:
            process, va, before, after = behind.pop()
            process.guest.write_code(va, before, after)
        _revert(applied)

    monkeypatch.setattr(Process, "apply", apply)
    monkeypatch.setattr(AppliedPatch, "revert", revert)


def new_code_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking a patch back does nothing."""
    monkeypatch.setattr(AppliedPatch, "revert", lambda applied: None)
