"""What runs before a patch can be applied, and what the loader was told: callbacks, initialisers, subsystem, guard policy."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.differ.parts import POINTER_SIZE, PlaceKind
from hotpatch.errors import Refusal, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hotpatch.differ.correspond import Correspondence
    from hotpatch.differ.view import View
    from hotpatch.image import Image

_SYMBOLS = (("__xi_a", "__xi_z"), ("__xc_a", "__xc_z"))
"""First and last element of the C library's arrays of initialisers (``.CRT$XI*``, ``.CRT$XC*``)."""
_RUNNERS = frozenset({"_initterm", "_initterm_e"})
_THUNK_SIZE = 16
_ARRAY_LIMIT = 1 << 16
_GUI, _CUI = 2, 3
"""``IMAGE_SUBSYSTEM_WINDOWS_GUI`` and ``_CUI``, which say whether the system gives a program a console."""
_GUARD_CF = 0x4000
"""``IMAGE_DLLCHARACTERISTICS_GUARD_CF``."""
_GUARD_POLICY = 0x00C00300
"""``IMAGE_GUARD_CF_INSTRUMENTED``, ``CFW_INSTRUMENTED``, ``EH_CONTINUATION_TABLE_PRESENT``, ``XFG_ENABLED`` (winnt.h)."""


def startup_findings(relation: Correspondence) -> Iterator[Refusal]:
    """Callbacks and initialisers that the base does not have, or no longer has: the running program has run its own."""
    there, here = relation.base, relation.fixed
    tls = [view.image.tls.callbacks if view.image.tls is not None else () for view in (there, here)]
    yield from _compared(relation, "thread-local callbacks", tls[0], tls[1])
    yield from _compared(relation, "initialisers of the C library", _initialisers(there), _initialisers(here))


def policy_findings(base: Image, fixed: Image) -> Iterator[Refusal]:
    """What the loader set the process up for."""
    facts = {
        "subsystem": (_subsystem(base), _subsystem(fixed)),
        "guard_cf": (base.dll_characteristics & _GUARD_CF, fixed.dll_characteristics & _GUARD_CF),
        "guard_flags": (_guard(base), _guard(fixed)),
    }
    for what, (old, new) in facts.items():
        if old != new:
            reason = (
                f"{what} is 0x{old:x} in the base and 0x{new:x} in the fixed image, but the process was set up for the base's; "
                "build the fixed image with the base's policy"
            )
            yield Refusal(Rule.POLICY, None, None, reason, {"what": what, "base": old, "fixed": new})


def _subsystem(image: Image) -> int:
    """Of a DLL nobody asks whether it is for programs with a console."""
    return _GUI if image.is_dll and image.subsystem == _CUI else image.subsystem


def _guard(image: Image) -> int:
    configuration = image.load_configuration
    return 0 if configuration is None else configuration.guard_flags & _GUARD_POLICY


def _compared(relation: Correspondence, what: str, old: Sequence[int], new: Sequence[int]) -> Iterator[Refusal]:
    kept = {relation.matching.forward.get(entry) for entry in old} - {None}
    added = [entry for entry in new if entry not in kept and not _is_folded(relation, old, entry)]
    gone = [entry for entry in old if relation.matching.forward.get(entry) not in new]
    if not added and (not gone or len(old) == len(new)):
        return
    function = relation.fixed.functions.get(added[0]) if added else relation.base.functions.get(gone[0])
    place = Rva(gone[0]) if gone else None
    reason = (
        f"the {what} differ ({len(added)} new, {len(gone)} gone), but those of the base have run, and new ones never will; "
        "let new code set up what it needs, or restart with the fixed build"
    )
    yield Refusal(Rule.START_UP, function.name if function else None, place, reason, {"new_rvas": added, "gone_rvas": gone})


def _is_folded(relation: Correspondence, old: Sequence[int], entry: int) -> bool:
    return any((base, entry) in relation.matching.folded for base in old)


def _initialisers(view: View) -> tuple[int, ...]:
    """Entries of the functions in the arrays that start-up code runs, in order: by symbols, else by who runs them."""
    found: dict[int, None] = {}
    starts = {datum.name: datum.rva for datum in view.image.data_symbols}
    arrays = [(starts[first], starts[last]) for first, last in _SYMBOLS if first in starts and last in starts]
    for start, end in arrays or _arrays(view):
        found.update(dict.fromkeys(_elements(view, start, end) or ()))
    return tuple(found)


def ends_of_initialisers(view: View) -> frozenset[int]:
    """Where arrays end that ``_initterm`` is told to run, empty ones among them."""
    return frozenset(end for start, end in _between(view) if _elements(view, start, end) is not None)


def _arrays(view: View) -> Iterator[tuple[int, int]]:
    """Between which addresses ``_initterm`` is told to run functions: two constants that its caller names, with functions between."""
    return ((start, end) for start, end in _between(view) if _elements(view, start, end))


def _between(view: View) -> Iterator[tuple[int, int]]:
    """The constants that callers of ``_initterm`` name, each with the next."""
    slots = {slot for slot, entry in view.image.imports_by_slot.items() if entry.name in _RUNNERS}
    if not slots:
        return
    thunks = {entry for entry, body in view.bodies.items() if not slots.isdisjoint(body.targets) and body.function.size <= _THUNK_SIZE}
    runners = slots | thunks
    for entry, body in view.bodies.items():
        targets = body.targets
        if entry not in thunks and not runners.isdisjoint(targets):
            yield from pairwise(sorted({target for target in targets if view.place(target).kind is PlaceKind.CONSTANT}))


def _elements(view: View, start: int, end: int) -> tuple[int, ...] | None:
    """The functions from ``start`` to ``end``; ``None`` where something else stands there."""
    if not 0 < end - start <= _ARRAY_LIMIT or (end - start) % POINTER_SIZE:
        return None
    found = []
    for site in range(start, end, POINTER_SIZE):
        target = view.image.pointers.get(Rva(site))
        if target is None:
            if view.image.u64(Rva(site)):
                return None
        elif target in view.functions:
            found.append(int(target))
        else:
            return None
    return tuple(found)
