"""Which writer draws the program of a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fuzz.program import Writer
from tests.fuzz.wider import Wider

if TYPE_CHECKING:
    from tests.fuzz.program import Program

WIDER = 100_000
"""From this seed on programs have more kinds of data."""


def draw(seed: int) -> Program:
    """The program of a seed."""
    return (Wider if seed >= WIDER else Writer)(seed).program(seed)
