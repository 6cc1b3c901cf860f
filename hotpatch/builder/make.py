"""The builder's road from a comparison to a patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch import Redirect
from hotpatch.builder.binding import bind
from hotpatch.builder.callbacks import callback_functions
from hotpatch.builder.emit import emit
from hotpatch.builder.link import Linked, link
from hotpatch.builder.model import Entrance
from hotpatch.builder.place import place
from hotpatch.builder.redirects import Entrances
from hotpatch.builder.rules import check, overrides
from hotpatch.builder.select import select
from hotpatch.builder.selfcheck import self_check
from hotpatch.builder.threads import unknown_offsets
from hotpatch.collection import without_collection
from hotpatch.errors import InputError, NothingToDo, NotHotpatchable, Refusal
from hotpatch.patch import Terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hotpatch.address import Rva
    from hotpatch.builder.model import Selected
    from hotpatch.differ import ImageDiff
    from hotpatch.image import Image
    from hotpatch.patch import Patch

LARGEST_SEQUENCE = 0xFFFFFFFF
DEFAULT_TERMS = Terms()


@without_collection()
def build_patch(
    diff: ImageDiff,
    *,
    only: Iterable[str] = (),
    leave_out: Iterable[str] = (),
    sequence: int = 1,
    redirect: Redirect = Redirect.HPAT,
    allow: Iterable[str] = (),
    terms: Terms = DEFAULT_TERMS,
) -> Patch:
    """Make the patch that gives ``diff.base`` the behaviour of ``diff.fixed``.

    Args:
        diff: The comparison.
        only: Functions (names, or ``rva:0x…``) to replace; everything that changed when empty.
        leave_out: Those of them that stay as they are.
        sequence: The patch's sequence number, from 1.
        redirect: The strategy asked for; a function that it does not fit gets another one, and its ``why`` says so.
        allow: Rules to override (:data:`hotpatch.builder.rules.OVERRIDABLE`); the patch records those that had something to object.
        terms: How the patch may be stacked and taken back.

    Raises:
        NotHotpatchable: With every refusal that was found.
        NothingToDo: There is no functional change.
        InputError: ``sequence`` or ``allow`` cannot be used, or ``only`` and ``leave_out`` contradict each other.
    """
    if not 1 <= sequence <= LARGEST_SEQUENCE:
        raise InputError(f"sequence {sequence}", f"is no sequence number; give one between 1 and {LARGEST_SEQUENCE}")
    if not 0 <= terms.state_version <= LARGEST_SEQUENCE:
        raise InputError(f"state version {terms.state_version}", f"is no state version; give one between 0 and {LARGEST_SEQUENCE}")
    allowed = overrides(allow)
    only, leave_out = tuple(only), tuple(leave_out)
    for name in [name for name in only if name in leave_out]:
        raise InputError(name, "is both to travel and to stay as it is; leave it out of one of the two lists")
    selected, refusals = select(diff, only, leave_out)
    objected, overridden = check(diff, selected, allowed)
    refusals += objected
    if not selected and not refusals and (only or leave_out):
        raise NothingToDo("every function that changed is left out")
    if not selected and not refusals:
        raise NothingToDo(f"{diff.fixed.path} does not differ from {diff.base.path} in function")
    entrances, objections = _entrances(diff.base, selected, redirect)
    callbacks = callback_functions(diff)
    bound, unbound = bind(diff, selected, callbacks.values())
    thread = unknown_offsets(diff, selected, (body.function for body in bound.bodies))
    _refuse((*refusals, *thread, *objections, *unbound))
    layout = place(bound, diff.fixed)
    linked = link(bound, layout, diff.fixed)
    if not isinstance(linked, Linked):
        raise NotHotpatchable(linked)
    patch = emit(
        diff, selected, entrances, bound, layout.placement, linked, callbacks, sequence=sequence, overrides=overridden, terms=terms
    )
    _refuse(self_check(patch, diff, bound, layout.placement))
    return patch


def _entrances(base: Image, selected: Sequence[Selected], requested: Redirect) -> tuple[dict[Rva, Entrance], tuple[Refusal, ...]]:
    judge = Entrances(base, requested)
    found: dict[Rva, Entrance] = {}
    refusals: list[Refusal] = []
    for item in selected:
        answer = judge.of(item.base)
        if isinstance(answer, Entrance):
            found[item.base.entry] = answer
        else:
            refusals += answer
    return found, tuple(refusals)


def _refuse(refusals: Iterable[Refusal]) -> None:
    """End here where there are refusals, each once, those of one function or datum together."""
    found: dict[str | int | None, list[Refusal]] = {}
    for refusal in refusals:
        together = found.setdefault(refusal.rva if refusal.function is None else refusal.function, [])
        if refusal not in together:
            together.append(refusal)
    if found:
        raise NotHotpatchable([refusal for together in found.values() for refusal in together])
