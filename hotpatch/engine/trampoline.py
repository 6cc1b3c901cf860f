"""Making originals callable: a trampoline for each function that is redirected, in pages near its module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.engine.mapping import find_place, whole_pages
from hotpatch.engine.refusals import located
from hotpatch.engine.registry import Chunk, PlacedTrampoline, TrampolineKey
from hotpatch.engine.target import Rights
from hotpatch.errors import ApplyRefused, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hotpatch.arch import Architecture
    from hotpatch.engine.checks import CheckedFunction
    from hotpatch.engine.registry import Registry
    from hotpatch.engine.target import Target
    from hotpatch.engine.transaction import Transaction
    from hotpatch.errors import Refusal

_ALIGNMENT = 16
_ROOM = 64
"""Bytes that a trampoline usually takes at most; pages are mapped by it, and more of them where it does not do."""


class _Writer:
    """Puts trampolines one behind another into fresh pages, which are mapped once their code is there."""

    def __init__(
        self, step: Transaction, target: Target, registry: Registry, arch: Architecture, functions: Sequence[CheckedFunction]
    ) -> None:
        self._step = step
        self._target = target
        self._registry = registry
        self._arch = arch
        self._low = Va(min(function.entry for function in functions))
        self._high = Va(max(function.entry for function in functions))
        self._module = functions[0].key.module
        self._left = len(functions)
        self._chunk: Chunk | None = None
        self._code = bytearray()

    def add(self, function: CheckedFunction, key: TrampolineKey) -> None:
        if not (self._chunk and self._fit(self._chunk, function, key)):
            self.flush()
            size = whole_pages(self._left * _ROOM)
            self._chunk = Chunk(self._place(size), size)
            self._registry.chunks = (*self._registry.chunks, self._chunk)
            self._fit(self._chunk, function, key)
        self._left -= 1

    def _place(self, size: int) -> Va:
        try:
            return find_place(self._target, size, self._low, self._high, self._arch.branch_reach)
        except ApplyRefused:
            if self._arch.veneer_reach <= self._arch.branch_reach:
                raise
        return find_place(self._target, size, self._low, self._high, self._arch.veneer_reach)

    def flush(self) -> None:
        """Map the current pages with what was put there."""
        if self._chunk:
            self._step.map(self._chunk.va, self._chunk.size, Rights.READ | Rights.EXECUTE, bytes(self._code))
            self._step.event("map", what="trampolines", va=self._chunk.va, size=self._chunk.size, module=self._module)
        self._chunk = None
        self._code.clear()

    def _fit(self, chunk: Chunk, function: CheckedFunction, key: TrampolineKey) -> bool:
        offset = -(-len(self._code) // _ALIGNMENT) * _ALIGNMENT
        va = Va(chunk.va + offset)
        made = self._arch.trampoline(function.code, source_va=function.entry, trampoline_va=va, displaced=key.displaced)
        if offset + len(made.code) > chunk.size:
            return False
        self._code.extend(bytes(offset - len(self._code)) + made.code)
        self._registry.trampolines[key] = PlacedTrampoline(va, made.code, Va(made.resume_va), dict(made.offsets), chunk.va)
        return True


def make_callable(
    step: Transaction, target: Target, registry: Registry, arch: Architecture, functions: Sequence[CheckedFunction]
) -> Mapping[str, Va]:
    """Give each function that is not redirected yet the trampoline that its redirect needs, unless it has it from an earlier time.

    Returns where the originals can be called, by the functions' names.

    Raises:
        ApplyRefused: With every entry that cannot be moved (cannot-relocate and its kin), or out-of-reach.
    """
    wanted = {
        TrampolineKey(function.key, arch.entry_site(function.function.redirect).displaced): function
        for function in functions
        if function.key not in registry.sites
    }
    missing = {key: function for key, function in wanted.items() if key not in registry.trampolines}
    if missing:
        _write(step, target, registry, arch, missing)
    originals: dict[str, Va] = {}
    for function in functions:
        site = registry.sites.get(function.key)
        displaced = arch.entry_site(function.function.redirect).displaced
        if function.function.name is not None:
            here = registry.trampolines[site.trampoline if site else TrampolineKey(function.key, displaced)]
            originals[function.function.name] = here.va
    return originals


def _write(
    step: Transaction, target: Target, registry: Registry, arch: Architecture, missing: Mapping[TrampolineKey, CheckedFunction]
) -> None:
    writer = _Writer(step, target, registry, arch, list(missing.values()))
    refusals: list[Refusal] = []
    for key, function in missing.items():
        try:
            writer.add(function, key)
        except ApplyRefused:
            raise
        except Refused as refused:
            refusals.extend(located(refused, function.function))
    if refusals:
        raise ApplyRefused(refusals)
    writer.flush()
