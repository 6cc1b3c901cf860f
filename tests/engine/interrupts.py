"""An interrupt of the host's at a chosen line of the engine, or of the emulator's that the engine asks, as Ctrl-C may come anywhere."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

import hotpatch.emulator
import hotpatch.engine

ENGINE, EMULATOR = (str(Path(room.__file__).parent) for room in (hotpatch.engine, hotpatch.emulator))
PER_INSTRUCTION = f"{ENGINE}/transaction.py"
ASKED = tuple(
    f"{EMULATOR}/{name}.py"
    for name in ("guest", "memory", "mappings", "snapshots", "system", "cpu", "binding", "repeats", "interjected", "kernel")
)
Place = tuple[CodeType, int]
"""A line of a function, or (in ``transaction.py``) an instruction."""


def places(deed: Callable[[], object], within: str | None = None) -> list[Place]:
    """Where an interrupt may come while something is done, or while a function of that name runs in it; in order."""
    found: list[Place] = []
    _traced(deed, lambda place: found.append(place), within)
    return found


def interrupted(deed: Callable[[], object], number: int, within: str | None = None) -> BaseException | None:
    """Do something with a keyboard interrupt at the place of that number (from 0) of :func:`places`; what came of it."""
    left = number

    def met(_place: Place) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            raise KeyboardInterrupt

    try:
        _traced(deed, met, within)
    except BaseException as error:
        assert left < 0, error
        return error
    assert left < 0
    return None


def chosen(places: list[Place]) -> list[int]:
    """The first and the last time that each place is come to."""
    first = {place: number for number, place in reversed(list(enumerate(places)))}
    last = {place: number for number, place in enumerate(places)}
    return sorted({*first.values(), *last.values()})


def _traced(deed: Callable[[], object], met: Callable[[Place], None], within: str | None) -> None:
    depth = int(within is None)

    def local(frame: FrameType, event: str, _argument: object) -> object:
        nonlocal depth
        code = frame.f_code
        if event == ("opcode" if frame.f_trace_opcodes else "line") and depth:
            met((code, frame.f_lasti if frame.f_trace_opcodes else frame.f_lineno))
        elif event == "return" and code.co_name == within:
            depth -= 1
        return local

    def called(frame: FrameType, _event: str, _argument: object) -> object:
        nonlocal depth
        code = frame.f_code
        if not (code.co_filename.startswith(ENGINE) or code.co_filename in ASKED):
            return None
        depth += code.co_name == within
        frame.f_trace_opcodes = code.co_filename == PER_INSTRUCTION
        return local

    collects = gc.isenabled()
    gc.disable()  # what another process leaves behind ends in the emulator's lines, whenever it is found
    sys.settrace(called)
    try:
        deed()
    finally:
        sys.settrace(None)
        if collects:
            gc.enable()
