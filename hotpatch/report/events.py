"""What happened in a process, one line for each event that a reader of a run wants to know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hotpatch.engine.quiescence import SHOWN
from hotpatch.errors import counted
from hotpatch.report.refused import told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_UNTOLD = frozenset({"spawn", "exit", "map", "fault"})
"""Told elsewhere in the text, or of no interest there; documents have them."""
_CHANGES = {
    "entry": "goes to the new code",
    "pointer": "goes to the new code, by its slot",
    "branch": "goes to the new code",
    "dispatch": "goes where each thread's side is, by its slot",
    "removed": "is the base's again",
}

_WAITS = {
    "not-loaded": "waits for {}, which is not loaded",
    "unloaded": "waits for {}, which was unloaded",
    "called-off": "does not wait for {} any more",
}


def line(event: Mapping[str, Any]) -> str:
    """``event`` of a run's document as text of a line or a few; empty where it is not told."""
    kind = str(event["kind"])
    if kind in _UNTOLD or (kind == "load" and not event["at"]):
        return ""
    return f"[{event['at']}] {kind:<8}  {_TELL.get(kind, _others)(event)}"


def _module(event: Mapping[str, Any]) -> str:
    return f"{event['module']} at 0x{event['va']:x}"


def _register(event: Mapping[str, Any]) -> str:
    what = f"{event['patch']}, sequence {event['sequence']}"
    return f"{what}: {_WAITS[event['why']].format(event['module'])}"


def _apply(event: Mapping[str, Any]) -> str:
    back = f", {counted(event['given_back'], 'function')} given back to what was before" if event.get("given_back") else ""
    what = f"{event['patch']}, sequence {event['sequence']}, to {event['module']}"
    return f"{what}: {counted(event['functions'], 'function')}, {event['consistency']}{back}"


def _revert(event: Mapping[str, Any]) -> str:
    return f"{event['patch']}, sequence {event['sequence']}: {counted(event['functions'], 'function')}"


def _redirect(event: Mapping[str, Any]) -> str:
    name = event["function"] or f"rva:0x{event['rva']:x}"
    lines = [f"{name} {_CHANGES.get(event['change'], event['change'])} ({event['strategy']})"]
    writes = [("padding", part) for part in event["padding"]]
    own = ("slot" if event["va"] == event["pointer"] else "entry", event)
    for what, part in [own, *writes] if event["change"] == "removed" else [*writes, own]:
        lines.append(f"    {what:<7}  0x{part['va']:x}  {part['before']} → {part['after']}")
    return "\n".join(lines)


def _refused(event: Mapping[str, Any]) -> str:
    return ", ".join(str(event[key]) for key in ("rule", "function") if event.get(key)) + f": {event['reason']}"


def _move(event: Mapping[str, Any]) -> str:
    return f"thread {event['moved_thread']} from 0x{event['from']:x} to 0x{event['to']:x}: it {event['why']}"


def _wait(event: Mapping[str, Any]) -> str:
    if event.get("called_off"):
        return f"{event['patch']}, sequence {event['sequence']}: called off"
    what = f"{event['patch']}, sequence {event['sequence']}"
    return f"{what}: {event['operation']} waits for {held(event['holders'])}, until instruction {event['until']}"


def _transition(event: Mapping[str, Any]) -> str:
    left = f"{counted(event['remaining'], 'thread')} left"
    what = f"{event['patch']}, sequence {event['sequence']}"
    match event["stage"]:
        case "thread":
            return f"thread {event['moved_thread']} from {event['from']} to {event['to']} code of {what}, {left}"
        case "begin":
            return f"{what}: {event['operation']} thread by thread begins, held by {held(event['holders'])}"
        case "reverse":
            return f"{what}: called off, threads go back, {left}"
        case _:
            return f"{what}: all threads have changed over"


def held(holders: Iterable[Mapping[str, Any]], *, stacks: bool = False) -> str:
    """The threads that something waits for, from an event's ``holders``; with the innermost functions of their ``stacks``."""
    return ", ".join(
        f"thread {each['thread']} in {each['function'] or '?'}" + (f" ({' ← '.join(each['stack'][:SHOWN])})" if stacks else "")
        for each in holders
    )


def _debug(event: Mapping[str, Any]) -> str:
    return f"thread {event['thread']} says {event['text']!r}"


def _others(event: Mapping[str, Any]) -> str:
    details = ((key, value) for key, value in event.items() if key not in ("at", "thread", "kind"))
    return ", ".join(f"{key.replace('_', ' ')} {told(key, value)}" for key, value in details)


_TELL: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "load": _module,
    "unload": _module,
    "register": _register,
    "apply": _apply,
    "revert": _revert,
    "redirect": _redirect,
    "refused": _refused,
    "move": _move,
    "wait": _wait,
    "transition": _transition,
    "debug": _debug,
}
