"""How each base function is redirected: the strategy that was asked for, or the first other one that its entry allows, and why."""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from typing import TYPE_CHECKING

from hotpatch.arch import Redirect, Use
from hotpatch.builder.evidence import instruction_evidence
from hotpatch.builder.model import Entrance
from hotpatch.errors import Refusal, Refused, Rule, counted
from hotpatch.image.flow import padding_length

if TYPE_CHECKING:
    from hotpatch.address import Rva
    from hotpatch.arch import Reference
    from hotpatch.image import Function, Image

FALLBACKS = {
    Redirect.HPAT: (Redirect.HPAT, Redirect.INLINE),
    Redirect.DIRECT: (Redirect.DIRECT, Redirect.INLINE),
    Redirect.INLINE: (Redirect.INLINE, Redirect.HPAT),
}
_LONGEST_FILLER = 16
_TRAMPOLINE_DISTANCE = 0x10000
"""Bytes past the image's end where the trial trampoline is placed; the engine maps real ones as near as it can."""


class Entrances:
    """Judges entries of the base."""

    def __init__(self, base: Image, requested: Redirect) -> None:
        """Prefer ``requested`` for functions of ``base``."""
        self._base, self._requested = base, requested
        self._arch = base.architecture

    def of(self, function: Function) -> Entrance | tuple[Refusal, ...]:
        """The first strategy that fits, or why none does, the one that was asked for first."""
        refusals: list[Refusal] = []
        for strategy in FALLBACKS[self._requested]:
            found = self._try(function, strategy)
            if isinstance(found, Entrance):
                instead = f"{strategy} because {refusals[0].reason.partition(';')[0]}" if refusals else ""
                return Entrance(found.redirect, found.entry_bytes, found.padding_bytes, instead)
            refusals.append(found)
        return tuple({(refusal.rule, refusal.reason): refusal for refusal in refusals}.values())

    def _try(self, function: Function, strategy: Redirect) -> Entrance | Refusal:
        site = self._arch.entry_site(strategy)
        base, entry = self._base, function.entry
        padding = base.read(entry - site.before, site.before)
        code = self._code(function)
        if len(code) < site.displaced:
            code += self._filler_after(function)
        for objection in (
            self._too_little_padding(function, site.before),
            self._too_short(function, site.displaced, code),
            self._unpatchable(function) if site.before else None,
            self._branch_into(function, site.displaced, code),
        ):
            if objection is not None:
                return objection
        trial = base.size_of_image + _TRAMPOLINE_DISTANCE
        try:  # as if loaded at 0, since addresses in refusals are RVAs
            self._arch.trampoline(code, source_va=entry, trampoline_va=trial, displaced=site.displaced)
        except Refused as cannot:
            why = cannot.refusals[0]
            return Refusal(why.rule, function.name, entry, why.reason, why.evidence)
        return Entrance(strategy, code, padding, "")

    def _too_little_padding(self, function: Function, needed: int) -> Refusal | None:
        found = self._base.padding_before(function) if needed else 0
        if found >= needed:
            return None
        return Refusal(
            Rule.NO_PADDING,
            function.name,
            function.entry,
            f"there {'is' if found == 1 else 'are'} {counted(found, 'byte')} of padding before the entry and {needed} are needed; "
            "link the base with /functionpadmin",
            {"padding": found, "needed": needed, "bytes": self._base.read(function.entry - needed, needed).hex()},
        )

    def _too_short(self, function: Function, displaced: int, code: bytes) -> Refusal | None:
        if len(code) >= displaced:
            return None
        return Refusal(
            Rule.FUNCTION_TOO_SHORT,
            function.name,
            function.entry,
            f"the function and the filler behind it have {counted(len(code), 'byte')} and the redirect overwrites {displaced}; "
            "link the base with /functionpadmin",
            {"size": function.ranges[0].size, "needed": displaced, "bytes": code.hex()},
        )

    def _unpatchable(self, function: Function) -> Refusal | None:
        if self._base.entry_patchable(function):
            return None
        return Refusal(
            Rule.ENTRY_NOT_PATCHABLE,
            function.name,
            function.entry,
            "the first instruction is too short for one store, or the function jumps back to it; compile the base with /hotpatch",
            instruction_evidence(self._base, function.entry, 16),
        )

    def _branch_into(self, function: Function, displaced: int, code: bytes) -> Refusal | None:
        """Nothing but what moves along may branch to what is overwritten.

        Calls of the entry are what the redirect is for. A loop of the function that goes back to the entry is not: its own state
        would be taken for the arguments of the new function.
        """
        covered = 0
        for instruction in self._arch.disassemble(code, function.entry):
            if covered >= displaced:
                break
            covered = instruction.address + instruction.size - function.entry
        overwritten = range(function.entry, function.entry + max(covered, displaced))
        index = bisect_left(self._targets, (function.entry, 0))
        while index < len(self._targets) and self._targets[index][0] in overwritten:
            target, source = self._targets[index]
            index += 1
            inside = any(source in part for part in function.ranges)
            enters = target == function.entry and (not inside or source in self._calls)
            if not enters and source not in overwritten:
                return Refusal(
                    Rule.BRANCH_INTO_DISPLACED,
                    function.name,
                    function.entry,
                    f"code at 0x{source:x} branches to 0x{target:x}, which the redirect overwrites; leave the function out with --except",
                    {"target": target, **instruction_evidence(self._base, source, 16)},
                )
        return None

    def _code(self, function: Function) -> bytes:
        """The function's first range up to the first table that stands in it."""
        part = function.ranges[0]
        tables = self._base.jump_tables(function)
        data = [place for table in tables for place in (table.address, *(table.index or ())[:1]) if place in part]
        return self._base.read(part.start, min(data, default=part.end) - part.start)

    def _filler_after(self, function: Function) -> bytes:
        """Filler between the function's end and the padding that the next function's own redirect would use."""
        end = function.ranges[0].end
        section = self._base.section_at(function.entry)
        stop: int = section.range.end if section else end
        index = bisect_left(self._starts, end)
        if index < len(self._starts):
            kept = max(self._arch.entry_site(strategy).before for strategy in Redirect)
            stop = min(stop, self._starts[index] - kept)
        for size in range(min(stop - end, _LONGEST_FILLER), 0, -1):
            code = self._base.read(end, size)
            if padding_length(self._arch, code) == size:
                return code
        return b""

    @cached_property
    def _starts(self) -> tuple[Rva, ...]:
        return tuple(sorted(part.start for function in self._base.functions for part in function.ranges))

    @cached_property
    def _targets(self) -> tuple[tuple[int, int], ...]:
        """Where branches of the base lead, those through tables too, with where they stand, sorted."""
        found = {(item.target, at) for at, item in self._code_references}
        for function in self._base.functions:
            found.update((target, table.address) for table in self._base.jump_tables(function) for target in table.ways)
        return tuple(sorted(found))

    @cached_property
    def _calls(self) -> frozenset[int]:
        return frozenset(at for at, item in self._code_references if item.use is Use.CALL)

    @cached_property
    def _code_references(self) -> tuple[tuple[int, Reference], ...]:
        return tuple(
            (part.start + item.offset, item)
            for function in self._base.functions
            for part, references in zip(function.ranges, self._base.references(function), strict=True)
            for item in references
            if item.use not in (Use.DATA, Use.UNUSED)
        )
