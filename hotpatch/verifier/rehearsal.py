"""Applying a patch to a fresh process and taking it back, before anybody else does: ``build --check``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.address import Rva, Va
from hotpatch.arch import HPAT_POINTER_DISTANCE, HPAT_SLOT_SIZE, Redirect, architecture
from hotpatch.engine import Rights
from hotpatch.errors import ApplyRefused, Refusal, Rule
from hotpatch.process import Process
from hotpatch.verifier.stand_ins import stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hotpatch.arch import Architecture
    from hotpatch.emulator.guest import Guest
    from hotpatch.engine import FunctionStatus, Region
    from hotpatch.image import Image
    from hotpatch.patch import Patch

_POINTER_SIZE = 8
_SHOWN = 16
"""Bytes of evidence where memory differs."""


@dataclass(frozen=True, slots=True)
class RehearsedFunction:
    """A function whose redirect was followed; VAs, and where it went through one, its slot."""

    name: str | None
    entry: Va
    slot: Va | None
    destination: Va
    trampoline: Va


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A patch that went in and came out again.

    Attributes:
        functions: Whose redirects were followed.
        compared: Bytes of the module that were the same afterwards.
        stood_for: Imports of the patch that the emulator does not know and that were taken to be there (:mod:`.stand_ins`).
        start_ended_at: What the base's start-up called that the emulator does not know, so that it ended there.
    """

    functions: tuple[RehearsedFunction, ...]
    compared: int
    stood_for: tuple[str, ...] = ()
    start_ended_at: tuple[str, ...] = ()


def rehearse(base: Image, patch: Patch) -> Rehearsal:
    """Apply ``patch`` to a fresh process of ``base``, follow every redirect from the bytes in memory, and revert it.

    Every patched function's entry must lead to the new function, through its slot's code and pointer where it has one, the original's
    trampoline must be memory that the program can run and not write, and after the revert the module's memory and rights must be what they
    were before. Imports that the base's own process would supply need not be known to the emulator.

    Raises:
        ApplyRefused: One of that does not hold (rule self-check, with the place and bytes), or the engine refuses the patch.
        RevertRefused: The engine refuses to take it back.
        EmulatedFault: The base does not even start up, though what the emulator does not know only ends that.
    """
    process = Process(base, partial_start=True)
    stood_for = stand_in(process, patch)
    before = _memory(process)
    applied = process.apply(patch)
    guest, arch = process.guest, architecture(patch.machine)
    new = {function.base_rva: function.patch_rva for function in patch.functions}
    image = next(status.image for status in process.status().patches if status.number == applied.number)
    functions = applied.functions
    refusals = [refusal for function in functions for refusal in _problems(guest, arch, function, Va(image + new[function.rva]))]
    missing = sorted(set(new) - {function.rva for function in functions})
    refusals += [_refusal(None, rva, "is not among what the engine redirected", {}) for rva in missing]
    applied.revert()
    refusals += _differences(process, before, _memory(process))
    if refusals:
        raise ApplyRefused(refusals)
    followed = tuple(RehearsedFunction(item.name, item.va, item.slot, item.destination, item.trampoline) for item in functions)
    return Rehearsal(followed, sum(len(content) for _, content in before.values()), stood_for, guest.start_ended_at)


def _problems(guest: Guest, arch: Architecture, function: FunctionStatus, new: Va) -> Iterator[Refusal]:
    """What is wrong with one function's redirect and trampoline."""
    name, rva = function.name, function.rva
    at = arch.redirect_destination(function.redirect, function.va, lambda va, size: guest.read(Va(va), size))
    if at is not None and function.redirect is Redirect.HPAT:
        slot = guest.read(Va(at), HPAT_SLOT_SIZE) if _runs(guest, Va(at)) else b""
        if slot != arch.hpat_slot():
            yield _refusal(name, rva, "leads to something that is no slot", {"slot_va": at, "found": slot.hex()})
            return
        at = int.from_bytes(guest.read(Va(at + HPAT_POINTER_DISTANCE), _POINTER_SIZE), "little")
    if at != new or not _runs(guest, new):
        yield _refusal(name, rva, "does not lead to the new function", {"destination_va": at, "expected_va": new})
    if not _runs(guest, function.trampoline):
        yield _refusal(name, rva, "has a trampoline that the program cannot run, or can write", {"trampoline_va": function.trampoline})


def _runs(guest: Guest, va: Va) -> bool:
    """Whether the program can run what is there, and cannot write it."""
    return any(
        region.va <= va < region.va + region.size and Rights.EXECUTE in region.rights and Rights.WRITE not in region.rights
        for region in guest.regions()
    )


def _memory(process: Process) -> Mapping[Va, tuple[Region, bytes]]:
    """The base module's memory by region."""
    module = process.guest.module
    inside = [region for region in process.guest.regions() if module.va <= region.va < module.va + module.size]
    return {region.va: (region, process.guest.read(region.va, region.size)) for region in inside}


def _differences(
    process: Process, before: Mapping[Va, tuple[Region, bytes]], after: Mapping[Va, tuple[Region, bytes]]
) -> Iterator[Refusal]:
    """Where the module's memory or rights are not what they were."""
    for va in sorted(before.keys() | after.keys()):
        old, new = before.get(va), after.get(va)
        if old is None or new is None or old[0] != new[0]:
            shown = {"before": str(old and old[0].rights), "after": str(new and new[0].rights)}
            yield _refusal(None, Rva(va - process.load_base), "has other rights after the revert", {"va": va, **shown})
        elif old[1] != new[1]:
            at = next(index for index, (one, other) in enumerate(zip(old[1], new[1], strict=True)) if one != other)
            shown = {"before": old[1][at : at + _SHOWN].hex(), "after": new[1][at : at + _SHOWN].hex()}
            place = Va(va + at)
            yield _refusal(
                process.guest.function_name(place),
                Rva(place - process.load_base),
                "has other bytes after the revert",
                {"va": place, **shown},
            )


def _refusal(name: str | None, rva: Rva, problem: str, evidence: Mapping[str, object]) -> Refusal:
    where = name or f"rva 0x{rva:x}"
    return Refusal(
        Rule.SELF_CHECK, name, rva, f"rehearsed in a fresh process, {where} {problem}; do not ship this patch, and report it", evidence
    )
