"""Registers that a callee leaves alone although it might change them, as compilers see that have its code before them.

A call that is answered would put something made up into them, and code that goes on with what it had there would come upon that. What is
told here is certain: of all that the callee can come to, through tables of jumps and by calls, no instruction names the register.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch import Flow
from hotpatch.differ.follow import followed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hotpatch.arch import Instruction
    from hotpatch.image import Function, Image

_MOST = 16
"""Functions that a callee may come to, itself among them."""
_LONGEST = 4096
"""Bytes of code of all of these."""
NONE: frozenset[str] = frozenset()


class Spared:
    """Tells of the functions of one image which registers they leave alone."""

    def __init__(self, image: Image) -> None:
        """Judge code of ``image``."""
        self._image = image
        convention = image.architecture.convention
        handed = (
            *convention.integer_arguments,
            convention.result,
            *convention.preserved,
            convention.sp,
            convention.link,
            convention.thread,
        )
        self._candidates = image.architecture.scratch - {name for name in handed if name is not None}
        self._found: dict[int, frozenset[str]] = {}

    def by(self, entry: int) -> frozenset[str]:
        """The scratch registers, no arguments, that the function at the RVA ``entry`` certainly leaves alone, and all that it comes to."""
        found = self._found.get(entry)
        if found is None:
            found = self._found[entry] = self._walk(entry)
        return found

    def _walk(self, entry: int) -> frozenset[str]:
        left, pending, seen, size = self._candidates, [entry], {entry}, 0
        while pending and left:
            function = self._image.function_of_entry(pending.pop())
            size += 0 if function is None else function.size
            if function is None or len(seen) > _MOST or size > _LONGEST:
                return NONE
            for named, leaves_to in self._steps(function):
                if named is None or None in leaves_to:
                    return NONE
                left -= named
                pending += [target for target in leaves_to if target is not None and target not in seen]
                seen.update(target for target in leaves_to if target is not None)
        return left

    def _steps(self, function: Function) -> Iterator[tuple[frozenset[str] | None, tuple[int | None, ...]]]:
        """Of each instruction that ``function`` comes to: the registers that it may change, and where it leaves the function to.

        ``None`` where either is not known.
        """
        instructions, edges = followed(self._image, function)
        inside = {one.address: one for one in instructions}
        pending, seen = [int(function.entry)], {int(function.entry)}
        while pending:
            one = inside.get(pending.pop())
            if one is None:
                yield None, ()
                return
            within, without = _leads_to(one, edges, inside)
            yield self._image.architecture.may_change(one), without
            pending += [address for address in within if address not in seen]
            seen.update(within)


def _leads_to(
    one: Instruction, edges: Mapping[int, tuple[int, ...]], inside: Mapping[int, Instruction]
) -> tuple[tuple[int, ...], tuple[int | None, ...]]:
    """Where control goes from an instruction, in its function and out of it; ``None`` for where that is not known."""
    behind = one.address + one.size
    match one.flow:
        case Flow.RETURN | Flow.TRAP:
            return (), ()
        case Flow.CALL_INDIRECT:
            return (), (None,)
        case Flow.JUMP_INDIRECT:
            targets: tuple[int | None, ...] = edges.get(one.address, (None,))
        case Flow.CALL:
            return ((behind,) if behind in inside else ()), (one.target,)
        case Flow.JUMP:
            targets = (one.target,)
        case Flow.BRANCH:
            targets = (behind, one.target)
        case _:
            targets = (behind,)
    return tuple(at for at in targets if at in inside and at is not None), tuple(at for at in targets if at not in inside)
