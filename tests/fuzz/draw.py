"""Which writer draws the program of a seed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.fuzz.program import Writer
from tests.fuzz.wider import Wider

if TYPE_CHECKING:
    from tests.fuzz.program import Program

WIDER = 100_000
"""From this seed on programs have more kinds of data."""
MERGED = 200_000
"""From this seed on the Arm64 compiler moreover puts globals that functions use together into one, which code reckons them from."""
_MERGE_GLOBALS = ("-mllvm", "-aarch64-enable-global-merge=1")


def draw(seed: int) -> Program:
    """The program of a seed."""
    program = (Wider if seed >= WIDER else Writer)(seed).program(seed)
    return replace(program, arm64_cflags=_MERGE_GLOBALS) if seed >= MERGED else program
