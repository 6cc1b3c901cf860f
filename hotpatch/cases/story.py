"""The demo's story as values: what is done and what is seen, one step after the other, made while it happens."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from hotpatch.address import Va
from hotpatch.arch import HPAT_POINTER_DISTANCE, Machine, architecture
from hotpatch.errors import HotpatchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hotpatch.differ import ImageDiff
    from hotpatch.errors import Refused
    from hotpatch.patch import Patch
    from hotpatch.process import Process


_WRITE_WIDTH, _WRITE_INDENT = 76, 13
"""Columns of a line about a write, so that a story fits 80 with its indentation; where the second line begins."""


class StepKind(StrEnum):
    """What a step of the story is about."""

    TITLE = "title"
    ACT = "act"
    SAY = "say"
    REQUEST = "request"
    OUTPUT = "output"
    BUG = "bug"
    GOOD = "good"
    KEPT = "kept"
    THREAD = "thread"
    WRITE = "write"
    CALL = "call"
    END = "end"


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        machine: On which machine's build it happens.
        kind: What it is about.
        text: For people: one line, or a few.
        details: For programs, JSON-compatible.
    """

    machine: Machine
    kind: StepKind
    text: str
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Teller:
    """Makes the steps that several stories share."""

    machine: Machine

    def step(self, kind: StepKind, text: str, **details: object) -> Step:
        """A step on this machine."""
        return Step(self.machine, kind, text, details)

    def built(self, found: ImageDiff, patch: Patch) -> Iterator[Step]:
        """What the differ found and the builder made of it."""
        totals = found.summary
        yield self.step(
            StepKind.SAY,
            f"diff: of the base's functions {totals['identical'] + totals['relocated']} are as they were, {totals['changed']} changed, "
            f"{totals['added']} new",
            **totals,
        )
        new = sum(function.size for function in patch.functions)
        for function in patch.functions:
            yield self.step(
                StepKind.SAY,
                f"build: {function.name or f'rva:0x{function.base_rva:x}'} travels, {function.size} bytes, "
                f"redirect {function.redirect} ({function.why})",
                function=function.name,
                size=function.size,
                redirect=function.redirect.value,
            )
        yield self.step(
            StepKind.SAY, f"patch: {len(patch.data)} bytes of PE file for {new} bytes of new code", bytes=len(patch.data), code=new
        )

    def refused(self, refused: Refused) -> Iterator[Step]:
        """Each reason why something is refused."""
        for item in refused.refusals:
            place = "" if item.function is None or item.reason.startswith(f"{item.function} ") else f"{item.function}: "
            yield self.step(
                StepKind.CALL,
                f"refused: {item.rule}: {place}{item.reason}",
                rule=item.rule.value,
                function=item.function,
                evidence=dict(item.evidence),
            )

    def changes(self, process: Process, since: int) -> Iterator[Step]:
        """What the engine did since event number ``since``, in its order: callbacks, what it waits for, and each thing that it stored."""
        events = process.events[since:]
        names = [_named(event.details) for event in events if event.kind == "redirect"]
        width = max((len(f"padding of {name}") for name in names), default=0)
        for event in events:
            details = event.details
            match event.kind:
                case "redirect":
                    yield from self._stored(process, details, width)
                case "callback":
                    yield self.step(StepKind.SAY, f"the patch's callback {details['moment']} is called", moment=details["moment"])
                case "wait" if not details.get("called_off"):
                    yield self.step(StepKind.SAY, f"[{event.at}] waits for {_holders(details)}", at=event.at)
                case "transition":
                    yield self.step(StepKind.SAY, f"[{event.at}] {_stage(details)}", at=event.at, stage=details["stage"])
                case _:
                    pass

    def _stored(self, process: Process, details: Mapping[str, Any], width: int) -> Iterator[Step]:
        name = _named(details)
        entry, padding, slot = (f"{place + name:<{width}}" for place in ("entry of ", "padding of ", "slot of "))
        if details["va"] == details["pointer"]:
            yield self._pointer(slot, details["va"], details["before"], details["after"])
            return
        at_entry = self._write(entry, details["va"], details["before"], details["after"])
        before_it = [self._write(padding, part["va"], part["before"], part["after"]) for part in details["padding"]]
        if details["change"] == "removed":
            yield from (at_entry, *before_it)
            return
        yield from before_it
        if details["slot"] is not None:
            yield self._slot(process, slot, details["slot"], details["destination"])
        yield at_entry

    def _pointer(self, what: str, va: int, before: str, after: str) -> Step:
        old, new = (int.from_bytes(bytes.fromhex(text), "little") for text in (before, after))
        return self.step(StepKind.WRITE, f"0x{va:x}  {what} 0x{old:x} → 0x{new:x}", va=va, before=before, after=after, pointer=new)

    def _slot(self, process: Process, what: str, slot: int, destination: int) -> Step:
        with suppress(HotpatchError):  # the module has been unloaded since
            destination = int.from_bytes(process.guest.read(Va(slot + HPAT_POINTER_DISTANCE), 8), "little")
        text = _with_text(f"0x{slot:x}  {what}", " ", f"{self._text(self._slot_code, slot)} → 0x{destination:x}")
        return self.step(StepKind.WRITE, text, slot=slot, pointer=destination)

    @property
    def _slot_code(self) -> bytes:
        return architecture(self.machine).hpat_slot()

    def _write(self, what: str, va: int, before: str, after: str) -> Step:
        text = _with_text(f"0x{va:x}  {what} {before} → {after}", "  ", self._text(bytes.fromhex(after), va))
        return self.step(StepKind.WRITE, text, va=va, before=before, after=after)

    def _text(self, code: bytes, va: int) -> str:
        first = next(iter(architecture(self.machine).disassemble(code, va)), None)
        return f"{first.mnemonic} {first.operands}".rstrip() if first else ""


def _with_text(bytes_: str, gap: str, instruction: str) -> str:
    """What is written, and what that says: on the same line where it fits, else on a line of its own."""
    line = f"{bytes_}{gap}{instruction}".rstrip()
    return line if len(line) <= _WRITE_WIDTH else f"{bytes_.rstrip()}\n{' ' * _WRITE_INDENT}{instruction}"


def _named(details: Mapping[str, Any]) -> str:
    return details["function"] or f"rva:0x{details['rva']:x}"


def _holders(details: Mapping[str, Any]) -> str:
    return ", ".join(f"thread {each['thread']} in {each['function'] or '?'}" for each in details["holders"]) or "nobody"


def _stage(details: Mapping[str, Any]) -> str:
    left = f"{details['remaining']} left"
    match details["stage"]:
        case "begin":
            return f"threads change over one by one; inside are {_holders(details)}"
        case "thread":
            return f"thread {details['moved_thread']} goes from {details['from']} to {details['to']} code, {left}"
        case "reverse":
            return f"called off: threads go back, {left}"
        case _:
            return "all threads have changed over"
