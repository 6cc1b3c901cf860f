"""Which writer draws the program of a seed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.fuzz.closer import Closer
from tests.fuzz.program import Writer
from tests.fuzz.wider import Wider

if TYPE_CHECKING:
    from tests.fuzz.program import Program

WIDER = 100_000
"""From this seed on programs have more kinds of data."""
MERGED = 200_000
"""From this seed on the Arm64 compiler moreover puts globals that functions use together into one, which code reckons them from."""
CLOSER = 1_000_000
"""From this seed on changed functions moreover name what lies near what they named, and the odd seeds alone are compiled so."""
_MERGE_GLOBALS = ("-mllvm", "-aarch64-enable-global-merge=1")


def draw(seed: int) -> Program:
    """The program of a seed."""
    writer = Closer if seed >= CLOSER else Wider if seed >= WIDER else Writer
    program = writer(seed).program(seed)
    merged = seed >= MERGED and (seed < CLOSER or seed % 2)
    return replace(program, arm64_cflags=_MERGE_GLOBALS) if merged else program
