"""What the engine needs of a process, and nothing more: the engine's only door to it.

The emulator implements it. Another kind of target (a process, a core file) could; none does. All addresses are VAs, all sizes bytes.
While any method runs, no thread of the target runs: a target is stopped by definition when the engine is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Protocol

from hotpatch.address import Va

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hotpatch.arch import Machine
    from hotpatch.image import Image


class Rights(IntFlag):
    """What the program itself may do with a page."""

    NONE = 0
    READ = 1
    WRITE = 2
    EXECUTE = 4


PageRights = Rights | Sequence[Rights]
"""Of all pages alike, or of each."""


@dataclass(frozen=True, slots=True)
class Module:
    """An image as it stands in the process.

    Attributes:
        name: File name, lower case, without a folder.
        va: Of its first byte.
        size: ``SizeOfImage``.
        image: The image that the loader mapped.
    """

    name: str
    va: Va
    size: int
    image: Image


NO_BLOCK = Va(0)
"""Of a thread whose environment block is not known; transitions need it."""


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as it stands now.

    Attributes:
        id: The thread's; none is used twice.
        pc: Next instruction.
        sp: Stack pointer.
        registers: By lower-case name (``rip``/``pc`` and ``rsp``/``sp`` among them; on Arm64 with scalable vectors ``vg``, their length in
            units of 8 bytes).
        block: Its thread environment block, which holds :attr:`Target.thread_flags`.
        suspended: For each call of the system into the program that is under way, innermost first: the registers that differ, where the
            code behind it goes on, from what a walk finds at the end of the stack before it.
    """

    id: int
    pc: Va
    sp: Va
    registers: Mapping[str, int]
    block: Va = NO_BLOCK
    suspended: tuple[Mapping[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Region:
    """Committed memory of the process with the same rights throughout; ``size`` in bytes."""

    va: Va
    size: int
    rights: Rights


class ModuleWatcher(Protocol):
    """Who wants to know of modules that come and go while the program runs."""

    def modules_loaded(self, modules: tuple[Module, ...]) -> None:
        """They are mapped, relocated and bound, and none of their code has run yet. Those that others import come first.

        What it raises takes the load back.
        """

    def modules_unloading(self, modules: tuple[Module, ...]) -> None:
        """Their code has run for the last time, and they are about to be unmapped. What it raises keeps them where they are."""


class Target(Protocol):
    """A stopped process.

    Every method raises a :class:`hotpatch.errors.HotpatchError` on failure and then has changed nothing.
    """

    @property
    def machine(self) -> Machine:
        """The instruction set that its threads run."""

    @property
    def clock(self) -> int:
        """Instructions that the program has executed so far; waiting is bounded by them."""

    @property
    def thread_flags(self) -> range:
        """Offsets in a thread's environment block of bytes that nobody else uses; all are 0 in a new thread."""

    def modules(self) -> tuple[Module, ...]:
        """Loaded modules in load order, patch images included."""

    def threads(self) -> tuple[Thread, ...]:
        """Live threads by id."""

    def regions(self) -> tuple[Region, ...]:
        """All committed memory by address: modules, stacks, heaps, what :meth:`map` gave. Regions never overlap.

        A thread's stack reaches from its ``sp`` to the end of the region that holds it.
        """

    def set_registers(self, thread: int, registers: Mapping[str, int]) -> None:
        """Change some registers of a thread."""

    def read(self, va: Va, size: int) -> bytes:
        """Memory as it is, whatever the program's own rights."""

    def write_data(self, va: Va, data: bytes) -> None:
        """Store into memory that holds no code that has run, whatever the program's own rights."""

    def write_code(self, va: Va, expected: bytes, new: bytes) -> None:
        """Compare, store through a view that the program does not have, flush the instruction cache.

        ``expected`` and ``new`` have the same length. No page right changes hands.

        Raises:
            ApplyRefused: Memory does not hold ``expected`` (rule unexpected-bytes); nothing was stored.
        """

    def find_room(self, size: int, *, near: Va, reach: int, above: bool = True) -> Va:
        """Where free memory for :meth:`map` is, page aligned: nearest to ``near``, every byte within ``reach`` of it. Nothing is taken.

        ``above``: only past ``near``.

        Raises:
            ApplyRefused: None is free (rule no-address-space).
        """

    def map(self, va: Va, size: int, rights: PageRights, content: bytes = b"") -> None:
        """Map memory at ``va``, which must be free, holding ``content`` from the first moment on and zeros behind it.

        ``rights``: of all of it, or of each page; they never change. Threads and allocations of the program never get that memory.
        """

    def unmap(self, va: Va) -> None:
        """Give back what :meth:`map` mapped at ``va``."""

    def add_module(self, name: str, va: Va, image: Image, *, before: Va | None = None) -> None:
        """Make a mapped patch image known, so that faults name its functions and stacks are walked with its unwind data.

        It comes last in load order, or right ``before`` the module at that address.
        """

    def remove_module(self, va: Va) -> None:
        """Take back :meth:`add_module`."""

    def watch_modules(self, watcher: ModuleWatcher) -> None:
        """Tell ``watcher`` of every module of the program that comes or goes from now on. It is held weakly."""

    def resolve_import(self, library: str, name: str | None, ordinal: int | None) -> Va | None:
        """Where the process has that export (of a module or of the system), or ``None``."""

    def checkpoint(self) -> Callable[[], None]:
        """The process as it is now: calling the result brings all of it back (memory, mappings, rights, threads, modules)."""

    def call_between(self, va: Va, arguments: Sequence[int], *, budget: int) -> int:
        """Call a function of the process while none of its threads runs; its integer result register.

        What it executes counts for nobody. It must not wait for a thread of the program. Unlike other methods this one may leave changes
        behind when it fails: take a :meth:`checkpoint` before.

        Raises:
            EmulatedFault: It faulted, waited, ended its thread or the process, or executed more than ``budget`` instructions.
        """

    def event(self, kind: str, **details: object) -> None:
        """Tell whoever looks: ``register``, ``apply``, ``map``, ``redirect``, ``move``, ``wait``, ``transition``, ``revert``, ``collect``.

        ``details`` are JSON-compatible, and none is called ``at``, ``thread`` or ``kind``, which whoever keeps events adds.
        """
