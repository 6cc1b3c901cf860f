"""Whether the memory to be replaced is what the builder saw.

Three answers, each by name: it is; somebody else's jump stands there (foreign-hook, with its target); or something else does
(unexpected-bytes).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from hotpatch.address import Rva, Va
from hotpatch.engine.redirect import changes
from hotpatch.engine.registry import SiteKey
from hotpatch.errors import ApplyRefused, HotpatchError, Refusal, Rule
from hotpatch.image import Range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hotpatch.arch import Architecture
    from hotpatch.engine.registry import Registry
    from hotpatch.engine.target import Module, Target
    from hotpatch.engine.undo import OriginalView
    from hotpatch.patch import Patch, PatchedFunction

    Reader = Callable[[int, int], bytes]

_ADDRESS_SIZE = 8
_HOPS = 16
"""Jumps of a hook that are followed."""
_SHOWN = 32
"""Bytes of evidence that a refusal shows from the first difference on."""


@dataclass(frozen=True, slots=True)
class CheckedFunction:
    """A function whose memory is what the builder saw; ``code`` is its first range as it stands in the process, without our redirects."""

    key: SiteKey
    entry: Va
    function: PatchedFunction
    code: bytes


def check_sequence(older: Iterable[Patch], patch: Patch) -> None:
    """Check that a patch is newer than those that stand, or are registered, on its module.

    Raises:
        ApplyRefused: Rule sequence.
    """
    newest = max((other.sequence for other in older), default=0)
    if patch.sequence <= newest:
        raise ApplyRefused(
            [
                Refusal(
                    Rule.SEQUENCE,
                    None,
                    None,
                    f"a patch with sequence {newest} stands, or is registered, and this one has {patch.sequence}; "
                    f"revert that one first, or build this one with --sequence {newest + 1}",
                    {"standing": newest, "patch": patch.sequence},
                )
            ]
        )


def check_redirects(target: Target, arch: Architecture, registry: Registry, keys: Iterable[SiteKey]) -> None:
    """Check that our own redirects of functions, where they have any, are what was written.

    Raises:
        ApplyRefused: With a refusal for each that is not: foreign-hook, unexpected-bytes.
    """
    refusals: list[Refusal] = []
    for key in keys:
        site = registry.sites.get(key)
        for va, expected, found in changes(target, site) if site else ():
            hook = arch.foreign_jump(key.entry, _reader(target))
            change = _Change(registry.sites[key].top.name, key.entry, key.rva, va, expected, found)
            refusals.append(_changed(target, arch, change, hook))
            break
    if refusals:
        raise ApplyRefused(refusals)


def check_functions(
    target: Target, arch: Architecture, module: Module, patch: Patch, original: OriginalView
) -> tuple[CheckedFunction, ...]:
    """Compare every function that the patch replaces with memory.

    Raises:
        ApplyRefused: With a refusal for each function that fails: malformed-patch, foreign-hook, unexpected-bytes.
    """
    refusals = list(_overlapping(arch, patch))
    if refusals:
        raise ApplyRefused(refusals)
    checked: list[CheckedFunction] = []
    for function in patch.functions:
        entry = Va(module.va + function.base_rva)
        key = SiteKey(module.va, function.base_rva)
        expected = _relocated(module, function.base_rva, function.entry_bytes)
        refusal = _compare(target, arch, function, entry, expected, original)
        if refusal:
            refusals.append(refusal)
        checked.append(CheckedFunction(key, entry, function, expected))
    if refusals:
        raise ApplyRefused(refusals)
    return tuple(checked)


def _overlapping(arch: Architecture, patch: Patch) -> Iterator[Refusal]:
    """Functions whose redirects would be written over one another."""
    taken: list[tuple[int, int, PatchedFunction]] = []
    for function in patch.functions:
        site = arch.entry_site(function.redirect)
        taken.append((function.base_rva - site.before, function.base_rva + site.displaced, function))
    taken.sort(key=lambda item: item[:2])
    for (_, end, first), (start, _, function) in pairwise(taken):
        if start < end:
            yield Refusal(
                Rule.MALFORMED_PATCH,
                function.name,
                function.base_rva,
                "the function's redirect takes bytes that another function's redirect takes too; build the patch again",
                {"start": start, "other_rva": first.base_rva, "other_end": end},
            )


def _relocated(module: Module, rva: Rva, code: bytes) -> bytes:
    """``code`` of the file at ``rva`` as the loader leaves it at the module's address."""
    delta = module.va - module.image.preferred_base
    if not delta:
        return code
    result = bytearray(code)
    for site in module.image.relocations_in(Range(rva, Rva(rva + len(code)))):
        offset = site - rva
        value = int.from_bytes(module.image.read(site, _ADDRESS_SIZE), "little") + delta
        field = (value % (1 << 64)).to_bytes(_ADDRESS_SIZE, "little")
        start, end = max(offset, 0), min(offset + _ADDRESS_SIZE, len(code))
        result[start:end] = field[start - offset : end - offset]
    return bytes(result)


def _compare(
    target: Target, arch: Architecture, function: PatchedFunction, entry: Va, expected: bytes, original: OriginalView
) -> Refusal | None:
    before = len(function.padding_bytes)
    start = Va(entry - before)
    wanted = function.padding_bytes + expected
    found = original.read(start, len(wanted))
    if found == wanted:
        return None
    difference = next((index for index, (one, other) in enumerate(zip(wanted, found, strict=False)) if one != other), len(found))
    hook = arch.foreign_jump(entry, _reader(target)) if found[before:] != expected else None
    if hook is not None and hook == arch.foreign_jump(entry, _overlay(target, entry, expected)):
        hook = None  # the function itself begins with this jump
    shown = slice(difference, difference + _SHOWN)
    change = _Change(function.name, entry, function.base_rva, Va(start + difference), wanted[shown], found[shown])
    return _changed(target, arch, change, hook)


@dataclass(frozen=True, slots=True)
class _Change:
    """What stands at ``va`` in place of what was expected, at a function's redirect."""

    function: str | None
    entry: int
    rva: Rva
    va: Va
    expected: bytes
    found: bytes


def _changed(target: Target, arch: Architecture, change: _Change, hook: int | None) -> Refusal:
    """The refusal for a change; ``hook`` is where a jump at the entry leads, where somebody else's stands there."""
    evidence: dict[str, object] = {"va": change.va, "expected": change.expected.hex(), "found": change.found.hex()}
    if hook is None:
        reason = f"memory at 0x{change.va:x} does not hold what the patch was built for; find out what changed it before you apply"
        return Refusal(Rule.UNEXPECTED_BYTES, change.function, change.rva, reason, evidence)
    *through, end = _hops(target, arch, change.entry, hook)
    evidence["jump_target"] = end
    if through:
        evidence["jump_through_va"] = through
    module, name = _place(target, end)
    if module:
        evidence |= {"jump_module": module.name, "jump_rva": end - module.va} | ({"jump_function": name} if name else {})
    where = "" if module is None else f", in {name} of {module.name}," if name else f" in {module.name}"
    reason = f"somebody else's jump to 0x{end:x}{where} stands at the entry; remove that hook, then apply"
    return Refusal(Rule.FOREIGN_HOOK, change.function, change.rva, reason, evidence)


def _hops(target: Target, arch: Architecture, entry: int, hook: int) -> list[int]:
    """Where a jump at ``entry`` leads, jump by jump: hooks go by padding and relays. One that leads back into the function is left out."""
    found, home = [hook], _place(target, entry)
    for _ in range(_HOPS):
        following = arch.foreign_jump(found[-1], _reader(target))
        if following is None or following in found or (home[1] is not None and _place(target, following) == home):
            break
        found.append(following)
    return found


def _place(target: Target, va: int) -> tuple[Module | None, str | None]:
    """The module that ``va`` lies in, and what the function there is called."""
    module = next((module for module in target.modules() if module.va <= va < module.va + module.size), None)
    function = None if module is None else module.image.function_at(va - module.va)
    return module, None if function is None else function.label


def _reader(target: Target) -> Reader:
    """Reads that come out empty where nothing is mapped, as a hook's own pointers may be wrong."""

    def read(va: int, size: int) -> bytes:
        try:
            return target.read(Va(va), size)
        except HotpatchError:
            return b""

    return read


def _overlay(target: Target, entry: Va, code: bytes) -> Reader:
    """Memory as the builder saw it: ``code`` at ``entry``."""
    elsewhere = _reader(target)

    def read(va: int, size: int) -> bytes:
        found = bytearray(elsewhere(va, size))
        start, end = max(va, entry), min(va + len(found), entry + len(code))
        if start < end:
            found[start - va : end - va] = code[start - entry : end - entry]
        return bytes(found)

    return read
