"""Functions in which the process ends whenever they are called: what reports that a stack cookie is broken, say.

What they write nobody reads in a process that goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch import Flow
from hotpatch.differ.flows import instructions
from hotpatch.differ.parts import ENTRY, PlaceKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.arch import Instruction
    from hotpatch.differ.view import View

_OWN_PROCESS, _TERMINATE = "GetCurrentProcess", "TerminateProcess"
_QUIET = frozenset(
    {
        *("GetCurrentProcess", "IsDebuggerPresent", "IsProcessorFeaturePresent", "RtlCaptureContext", "RtlLookupFunctionEntry"),
        *("RtlVirtualUnwind", "SetUnhandledExceptionFilter", "UnhandledExceptionFilter"),
    }
)
"""Functions of Windows that such code calls on the way, and that come back to it: they neither raise exceptions nor run other code of the
process (of ``UnhandledExceptionFilter`` that is so as the filter was taken away before)."""


class ProcessEnds:
    """Tells the functions of an image that end the process; remembers.

    A function does where every way from its entry leads forward to a fast fail, to ``TerminateProcess`` for the own process or to another
    such function, and all that is called on the way comes back. Whatever cannot be told counts as one that does not.
    """

    def __init__(self, view: View) -> None:
        """Judge the functions of ``view``."""
        self._view = view
        self._known: dict[int, bool] = {}
        self._quiet: dict[int, bool] = {}

    def ends(self, entry: int) -> bool:
        """Whether the process ends whenever the function at ``entry`` is called."""
        if entry not in self._known:
            self._known[entry] = False  # one that calls itself is none
            self._known[entry] = not self._has_handler(entry) and self._always_ends(entry)
        return self._known[entry]

    def _always_ends(self, entry: int) -> bool:
        steps = tuple(instructions(self._view, entry))
        numbers = {step.address: number for number, step in enumerate(steps)}
        waiting, seen = [0] if steps else [], set[int]()
        while waiting:
            number = waiting.pop()
            if number in seen:
                continue
            seen.add(number)
            following = self._following(entry, steps, number)
            if following is None or any(address not in numbers or numbers[address] <= number for address in following):
                return False
            waiting += [numbers[address] for address in following]
        return bool(seen)

    def _following(self, entry: int, steps: Sequence[Instruction], number: int) -> Sequence[int] | None:
        """Where the function goes on behind an instruction: nowhere where the process ends; ``None`` where that is unknown."""
        step = steps[number]
        behind = step.address + step.size
        match step.flow:
            case Flow.NEXT:
                return (behind,)
            case Flow.TRAP if self._view.architecture.ends_process(step):
                return ()
            case Flow.CALL:
                called = self._entry_at(step.target)
                if called is not None and self.ends(called):
                    return ()
                return (behind,) if called is not None and self._is_quiet(called) else None
            case Flow.CALL_INDIRECT | Flow.JUMP_INDIRECT:
                name = self._import(entry, number)
                if name == _TERMINATE:
                    return () if self._is_of_own_process(entry, steps, number) else None
                return (behind,) if step.flow is Flow.CALL_INDIRECT and name in _QUIET else None
            case Flow.JUMP | Flow.BRANCH if step.target is not None:
                on = (behind,) if step.flow is Flow.BRANCH else ()
                elsewhere = self._entry_at(step.target)
                return on if elsewhere is not None and elsewhere != entry and self.ends(elsewhere) else (step.target, *on)
            case _:
                return None

    def _is_of_own_process(self, entry: int, steps: Sequence[Instruction], number: int) -> bool:
        """Whether the first argument of a call is what ``GetCurrentProcess`` gave right before."""
        led_to = {step.target for step in steps if step.flow in (Flow.JUMP, Flow.BRANCH)}
        first = number
        while first and steps[first].address not in led_to and steps[first - 1].flow is Flow.NEXT:
            first -= 1
        made = first and steps[first].address not in led_to and steps[first - 1].flow is Flow.CALL_INDIRECT
        if not made or self._import(entry, first - 1) != _OWN_PROCESS:
            return False
        return self._view.architecture.hands_result_on(steps[first:number])

    def _is_quiet(self, entry: int) -> bool:
        """Whether a function calls nothing that does not come back, or that is not known."""
        if entry not in self._quiet:
            self._quiet[entry] = False
            steps = enumerate(instructions(self._view, entry))
            self._quiet[entry] = not self._has_handler(entry) and all(self._stays_quiet(entry, *step) for step in steps)
        return self._quiet[entry]

    def _stays_quiet(self, entry: int, number: int, step: Instruction) -> bool:
        match step.flow:
            case Flow.NEXT | Flow.RETURN:
                return True
            case Flow.CALL:
                called = self._entry_at(step.target)
                return called is not None and self._is_quiet(called)
            case Flow.CALL_INDIRECT | Flow.JUMP_INDIRECT:
                return self._import(entry, number) in _QUIET
            case Flow.JUMP | Flow.BRANCH:
                return step.target is not None and any(step.target in part for part in self._view.functions[entry].ranges)
            case _:
                return False

    def _entry_at(self, target: int | None) -> int | None:
        place = self._view.place(target) if target is not None else None
        is_entry = place is not None and place.kind is PlaceKind.FUNCTION and place.position == ENTRY
        return place.function.entry if place is not None and is_entry and place.function is not None else None

    def _import(self, entry: int, number: int) -> str | None:
        """The name of the function that a call or jump through an import slot leads to."""
        line, links = self._view.lines(entry)[number], self._view.links(entry)
        slots = [self._view.place(links[link].target).slot for link in line.links]
        return slots[0].name if len(slots) == 1 and slots[0] is not None else None

    def _has_handler(self, entry: int) -> bool:
        """Whether exceptions are handled in the function."""
        ranges = self._view.functions[entry].ranges
        return any(item.handler is not None for item in self._view.image.unwind_entries if any(item.range.start in part for part in ranges))
