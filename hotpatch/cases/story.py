"""The demo's story as values: what is done and what is seen, one step after the other, made while it happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.arch import HPAT_POINTER_DISTANCE, HPAT_SLOT_SIZE, Machine, architecture

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hotpatch.differ import ImageDiff
    from hotpatch.patch import Patch
    from hotpatch.process import Process


_WHAT = len("padding of set_name")
"""Width of what is written: with it the lines of the flagship's story fit 80 columns."""


class StepKind(StrEnum):
    """What a step of the story is about."""

    TITLE = "title"
    ACT = "act"
    SAY = "say"
    OUTPUT = "output"
    BUG = "bug"
    GOOD = "good"
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
            f"diff: {totals['identical'] + totals['relocated']} functions unchanged, {totals['changed']} changed, {totals['added']} new",
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

    def writes(self, process: Process, since: int) -> Iterator[Step]:
        """What the engine stored since event number ``since``, in its order: padding, slot, entry."""
        for event in process.events[since:]:
            if event.kind != "redirect":
                continue
            details = event.details
            name = str(details.get("function") or f"rva:0x{details['rva']:x}")
            entry = self._write(f"entry of {name}", details["va"], details["before"], details["after"])
            padding = [self._write(f"padding of {name}", part["va"], part["before"], part["after"]) for part in _parts(details["padding"])]
            if details["change"] == "removed":
                yield from (entry, *padding)
                continue
            yield from padding
            if details["slot"] is not None:
                yield self._slot(process, name, int(str(details["slot"])))
            yield entry

    def _slot(self, process: Process, name: str, slot: int) -> Step:
        code, pointer = process.guest.read(Va(slot), HPAT_SLOT_SIZE), process.guest.read(Va(slot + HPAT_POINTER_DISTANCE), 8)
        destination = int.from_bytes(pointer, "little")
        text = f"0x{slot:x}  {f'slot of {name}':<{_WHAT}} {self._text(code, slot)}: 0x{destination:x}"
        return self.step(StepKind.WRITE, text, slot=slot, pointer=destination)

    def _write(self, what: str, va: object, before: object, after: object) -> Step:
        address, new = int(str(va)), bytes.fromhex(str(after))
        return self.step(
            StepKind.WRITE,
            f"0x{address:x}  {what:<{_WHAT}} {before} → {after}  {self._text(new, address)}".rstrip(),
            va=address,
            before=before,
            after=after,
        )

    def _text(self, code: bytes, va: int) -> str:
        first = next(iter(architecture(self.machine).disassemble(code, va)), None)
        return f"{first.mnemonic} {first.operands}".rstrip() if first else ""


def _parts(padding: object) -> list[Mapping[str, object]]:
    return list(padding) if isinstance(padding, list) else []
