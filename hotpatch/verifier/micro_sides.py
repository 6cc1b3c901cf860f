"""One function on both sides, and a pair of runs of it: values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hotpatch.image import Function
    from hotpatch.verifier.micro_correlation import Correlation
    from hotpatch.verifier.micro_observed import Observed, Place
    from hotpatch.verifier.micro_paths import Shape
    from hotpatch.verifier.micro_run import Runner
    from hotpatch.verifier.micro_scenery import Scenery


@dataclass(frozen=True, slots=True)
class Sides:
    """One function in the two processes.

    Attributes:
        mine: Runs the patched base, or the base as it is.
        place: Where the function is there.
        theirs: Runs the fixed image.
        place_in: Where the function is in a process of the fixed image.
        elsewhere: Runs the fixed image at another address, as far away as is asked, or anywhere; gives ``None`` where it can't lie there.
        correlation: Of the two processes' addresses.
        fixed: The function in the fixed image.
        shape: Its control flow in the process of ``theirs``.
        own: Addresses of the code compared, in the process of ``mine``.
        alike: Whether the two should be the same instruction by instruction.
        constants: Numbers from the code, which the made-up state holds among others.
    """

    mine: Runner
    place: Place
    theirs: Runner
    place_in: Callable[[Runner], Place]
    elsewhere: Callable[[int | None], Runner | None]
    correlation: Correlation
    fixed: Function
    shape: Shape
    own: range
    alike: bool
    constants: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Runs:
    """One run on either side.

    Attributes:
        scenery: What they ran on.
        forced: How both were led.
        mine: What the patched base did, or the base as it is.
        theirs: What the fixed image did.
    """

    scenery: Scenery
    forced: Mapping[int, int]
    mine: Observed
    theirs: Observed
