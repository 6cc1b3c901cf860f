"""What is run without its callers, and what one run of it did: values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from hotpatch.address import Va
    from hotpatch.verifier.micro_thread import Part


@dataclass(frozen=True, slots=True)
class Seen:
    """A call that the function made: callee, then argument registers, stack words, and words behind pointers into its frame."""

    callee: int
    words: tuple[int, ...]
    pointed: tuple[tuple[int, ...], ...]
    floats: tuple[int, ...]


@dataclass(slots=True)
class Observed:
    """What one run did.

    Attributes:
        end: ``returned``, a kind of fault, ``instruction-budget``, or ``call-at-the-end`` where nothing of the function's
            is behind a call but a trap.
        address: Of a fault, a VA.
        words: Result register, then those that a callee keeps; only where it returned.
        float_bits: The floating-point result register, all of it.
        floats: Of the floating-point registers that a callee keeps, the low 64 bits; only where it returned.
        calls: In order.
        written: Bytes that are not what they were, by VA: outside of the stack, and of the caller's part of it.
        executed: Instructions.
        visited: Their addresses, of the function's own.
        touched: VAs and sizes of what it read and wrote in the module and the patch, callees that were run included.
        own: Of these, what the function's own instructions did.
        stores: VAs, sizes and values of what the function's own instructions wrote, wherever that is.
        turns: At each of its conditional branches, whether it would have branched had nobody led it.
        after: By field (``calls``, ``turns``, ``own``, ``stores``), of each of it how many of ``touched`` there were by then.
        parts: Of each address that it read in part, where it was, what, and that part of it: where parts of addresses are made up.
    """

    end: str = ""
    address: int | None = None
    words: tuple[int, ...] = ()
    float_bits: int = 0
    floats: tuple[int, ...] = ()
    calls: list[Seen] = field(default_factory=list)
    written: dict[int, int] = field(default_factory=dict)
    executed: int = 0
    visited: set[int] = field(default_factory=set)
    touched: list[tuple[int, int]] = field(default_factory=list)
    own: list[tuple[int, int]] = field(default_factory=list)
    stores: list[tuple[int, int, int]] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    parts: list[tuple[int, int, bytes]] = field(default_factory=list)
    after: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in ("calls", "turns", "own", "stores")})

    @property
    def kept(self) -> tuple[int, ...]:
        """Registers that a callee keeps."""
        return self.words[1:]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a function is in its process.

    Attributes:
        call: VA that is called.
        body: VA of its first instruction; the same unless a redirect leads there.
        inside: Whether code at a VA is the function's own.
        through: Whether code at a VA only leads on (veneers, guard checks), so that a call that comes there goes on.
        leaf: Start and end of the callee at a VA where that is run and not answered, else ``None``.
        spared: The registers, no arguments, that the callee at a VA certainly leaves alone though it need not keep them.
        thread: Of the thread's block, what does not lie where the other side has it.
    """

    call: Va
    body: Va
    inside: Callable[[int], bool]
    through: Callable[[int], bool]
    leaf: Callable[[int], tuple[int, int] | None]
    spared: Callable[[int], frozenset[str]]
    thread: tuple[Part, ...] = ()
