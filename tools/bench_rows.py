"""The lines of the benchmark's table, and how times are taken."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

REPEATS = 5


@dataclass(frozen=True)
class Row:
    """One line: what was measured, against what, and the design's aim."""

    what: str
    machine: str
    measured: str
    against: str
    ratio: float
    aim: str


def best(*jobs: Callable[[], object], repeats: int = REPEATS) -> list[float]:
    """Seconds of each job: the best of several interleaved runs."""
    times = [float("inf")] * len(jobs)
    for _ in range(repeats):
        for index, job in enumerate(jobs):
            start = time.perf_counter()
            job()
            times[index] = min(times[index], time.perf_counter() - start)
    return times
