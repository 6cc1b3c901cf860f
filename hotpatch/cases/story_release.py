"""The story of a real release: a fix taken out of one stripped binary and put into the one before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.builder import build_patch
from hotpatch.cases.releases import extract
from hotpatch.cases.story import StepKind, Teller
from hotpatch.differ import diff_images
from hotpatch.image import open_image
from hotpatch.process import Process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hotpatch.arch import Machine
    from hotpatch.cases.releases import Release
    from hotpatch.cases.story import Step

_FIELD = 2**255 - 19
_BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_BASE_Y = 46316835694926478169428394003475163141307993866256225615783033603165251855960
"""Ed25519's base point B (RFC 8032, section 5.1)."""

IS_VALID_POINT = "crypto_core_ed25519_is_valid_point"


def encode_point(x: int, y: int) -> bytes:
    """A point of Ed25519 as RFC 8032, section 5.1.2 encodes it: 32 bytes."""
    return (y | (x & 1) << 255).to_bytes(32, "little")


BASE_POINT = encode_point(_BASE_X, _BASE_Y)
MIXED_ORDER_POINT = encode_point(_FIELD - _BASE_X, _FIELD - _BASE_Y)
"""B + (0, −1): adding the point of order two negates both coordinates (RFC 8032, section 5.1.4), and the sum is outside the main
subgroup."""


def tell_release(release: Release, machine: Machine, *, cache: Path, wheels: Path | None = None) -> Iterator[Step]:
    """Fetch both binaries, build the patch from them alone, and ask the module about two points before, with and without the patch.

    Raises:
        InputError: A wheel cannot be had.
    """
    tell = Teller(machine)
    paths = extract(release, machine, cache=cache, wheels=wheels)
    yield tell.step(StepKind.TITLE, f"{release.title} [{machine}]", case=release.name)
    base, fixed = map(open_image, paths)
    wheel, newer = release.base[machine], release.fixed[machine]
    yield tell.step(StepKind.SAY, f"base: {wheel.member} of {wheel.file}, SHA-256 of the wheel {wheel.sha256}")
    yield tell.step(StepKind.SAY, f"fixed: {newer.member} of {newer.file}, SHA-256 of the wheel {newer.sha256}")
    yield tell.step(
        StepKind.SAY, f"no symbols, no source: {len(base.functions)} functions in the base, {len(fixed.functions)} in the fixed image"
    )
    found = diff_images(base, fixed)
    patch = build_patch(found)
    yield from tell.built(found, patch)

    process = Process(base)
    yield tell.step(StepKind.ACT, "before: what the shipped binary says of the two points")
    yield from _ask(tell, process, patched=False)
    yield tell.step(StepKind.ACT, "the patch goes in")
    since = len(process.events)
    applied = process.apply(patch)
    yield from tell.changes(process, since)
    yield from _ask(tell, process, patched=True)
    yield tell.step(StepKind.ACT, "the patch is taken back")
    since = len(process.events)
    applied.revert()
    yield from tell.changes(process, since)
    yield from _ask(tell, process, patched=False)
    yield tell.step(StepKind.END, f"{process.instructions} instructions in one process", instructions=process.instructions)


def _ask(tell: Teller, process: Process, *, patched: bool) -> Iterator[Step]:
    for name, point in (("B", BASE_POINT), ("B + (0, −1)", MIXED_ORDER_POINT)):
        answer = process.call(IS_VALID_POINT, point) & 0xFFFFFFFF
        kind = StepKind.OUTPUT if point is BASE_POINT else (StepKind.BUG if answer else StepKind.GOOD)
        yield tell.step(kind, f"{IS_VALID_POINT}({name}) = {answer}", point=point.hex(), answer=answer, patched=patched)
