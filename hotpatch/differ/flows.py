"""Where control goes after each instruction of a function, and which calls it does not come back from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch import Flow
from hotpatch.differ.parts import ENTRY, PlaceKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.arch import Instruction
    from hotpatch.differ.lines import Line
    from hotpatch.differ.view import View

_DEPTH = 4
"""Jumps from function to function that are followed to find out whether a call comes back."""
_ENDING_IMPORTS = frozenset(
    {
        *("ExitProcess", "ExitThread", "FatalExit", "FreeLibraryAndExitThread", "RtlExitUserProcess", "RtlExitUserThread"),
        *("abort", "exit", "_exit", "_Exit", "quick_exit", "longjmp", "terminate", "?terminate@@YAXXZ", "_CxxThrowException"),
        *("_invalid_parameter_noinfo_noreturn", "_invoke_watson", "_amsg_exit"),
    }
)
"""Functions of Windows and its C library that are declared never to return (``__declspec(noreturn)`` in the Windows SDK's headers)."""


def instructions(view: View, entry: int) -> Iterator[Instruction]:
    """Of each of :meth:`View.lines`, in their order; addresses are RVAs."""
    for stretch in view.functions[entry].ranges:
        yield from view.image.instructions_in(stretch)


def flows(view: View, entry: int) -> tuple[Flow, ...]:
    """Of each of :meth:`View.lines`, in their order."""
    return tuple(instruction.flow for instruction in instructions(view, entry))


class Endings:
    """Which functions and calls of an image never return, as far as code shows; remembers.

    A function does where it has no return and neither runs on behind its end nor jumps to what may return. Whatever cannot be told apart
    counts as returning.
    """

    def __init__(self, view: View) -> None:
        """Judge the functions of ``view``."""
        self._view = view
        self._known: dict[int, bool] = {}

    def is_last(self, entry: int, line: Line, instruction: Instruction) -> bool:
        """Whether the call that ``instruction`` is (``line`` of the function at ``entry``) never returns."""
        match instruction.flow:
            case Flow.CALL:
                return instruction.target is not None and self._ends_at(instruction.target, _DEPTH)
            case Flow.CALL_INDIRECT:
                links = self._view.links(entry)
                return any(self._is_ending_import(links[number].target) for number in line.links)
            case _:
                return False

    def _ends_at(self, target: int, depth: int) -> bool:
        place = self._view.place(target)
        if place.kind is not PlaceKind.FUNCTION or place.function is None or place.position != ENTRY:
            return False
        known = self._known.get(place.function.entry)
        if known is None and depth:
            self._known[place.function.entry] = False
            known = self._known[place.function.entry] = self._never_returns(place.function.entry, depth)
        return bool(known)

    def _never_returns(self, entry: int, depth: int) -> bool:
        function = self._view.functions[entry]
        last = Flow.NEXT
        for number, instruction in enumerate(instructions(self._view, entry)):
            last = instruction.flow
            target = instruction.target
            inside = target is not None and any(target in part for part in function.ranges)
            match last:
                case Flow.RETURN:
                    return False
                case Flow.JUMP | Flow.BRANCH if not inside and not (target is not None and self._ends_at(target, depth - 1)):
                    return False
                case Flow.JUMP_INDIRECT if not self._jumps_to_the_end(entry, number):
                    return False
        return last in (Flow.CALL, Flow.JUMP, Flow.JUMP_INDIRECT, Flow.TRAP)

    def _jumps_to_the_end(self, entry: int, number: int) -> bool:
        """Whether an indirect jump is one through the slot of an import that never returns."""
        line, links = self._view.lines(entry)[number], self._view.links(entry)
        return any(self._is_ending_import(links[link].target) for link in line.links)

    def _is_ending_import(self, target: int) -> bool:
        slot = self._view.place(target).slot
        return slot is not None and slot.label.rpartition("!")[2] in _ENDING_IMPORTS
