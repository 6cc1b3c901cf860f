"""What the engine knows of a process: which patch stands where, and what stays mapped for the next time.

A transaction works on a copy and the engine takes the copy over once everything has succeeded; a failed operation leaves the registry
untouched because nothing was ever done to it.

What is *standing* (``sites``, ``applications``, ``order``) goes away with a revert. What is *kept* (``images``, ``tables`` and their slots,
``trampolines``, ``chunks``) stays mapped, because threads, callbacks and live pointers may still lead there, and is used again when the
same patch, or another one for the same function, is applied. Only :meth:`hotpatch.engine.Engine.collect` gives it back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.engine.consistency import Consistency
from hotpatch.engine.stacking import Stacking

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hotpatch.address import Rva, Va
    from hotpatch.arch import Redirect
    from hotpatch.engine.hpat import HpatTable
    from hotpatch.engine.undo import UndoRecord
    from hotpatch.errors import Refusal
    from hotpatch.patch import Patch


class SiteKey(NamedTuple):
    """A function of a module in the process; a tuple, as a patch of many functions hashes and compares them all the time."""

    module: Va
    rva: Rva

    @property
    def entry(self) -> int:
        """VA of the function's entry."""
        return self.module + self.rva


@dataclass(frozen=True, slots=True, order=True)
class ImageKey:
    """A patch image mapped for a module: ``digest`` is the SHA-256 of its file, hexadecimal."""

    module: Va
    digest: str


class TrampolineKey(NamedTuple):
    """A trampoline of a function for a strategy that displaces so many bytes."""

    site: SiteKey
    displaced: int


@dataclass(frozen=True, slots=True)
class MappedImage:
    """A patch image in the process.

    Attributes:
        va: Of its first byte.
        size: In bytes, whole pages, veneers included.
        patch: What it was mapped from.
        veneers: Behind the image, where it lies beyond its branches' reach: address of each, and where it leads.
    """

    va: Va
    size: int
    patch: Patch
    veneers: tuple[tuple[Va, Va], ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Pages that hold trampolines; ``size`` in bytes."""

    va: Va
    size: int


@dataclass(frozen=True, slots=True)
class PlacedTrampoline:
    """A trampoline in the process.

    Attributes:
        va: Of its first byte.
        code: Its bytes.
        resume_va: Where it continues in the original.
        offsets: Source offset of each moved instruction → its offset in ``code``.
        chunk: Address of the chunk that holds it.
    """

    va: Va
    code: bytes
    resume_va: Va
    offsets: Mapping[int, int]
    chunk: Va


@dataclass(frozen=True, slots=True)
class Layer:
    """One patch's version of a function.

    Attributes:
        application: Number of the application that put it there.
        name: Of the function, as that patch knows it.
        destination: Where calls go while this layer is on top: the new function, or the trampoline where a patch gives the original back.
    """

    application: int
    name: str | None
    destination: Va


@dataclass(frozen=True, slots=True)
class Site:
    """A redirected function.

    Attributes:
        strategy: Of the redirect that stands. It stays until the redirect is removed, also when a newer patch was built for another
            strategy.
        slot: HPAT slot that the redirect goes through, where it does.
        trampoline: Which trampoline makes the original callable.
        original: Address of that trampoline.
        records: What the redirect wrote, padding first, the entry last; ``before`` is always the base's own.
        layers: Versions in force and below, oldest first; never empty.
        dispatcher: While a transition sends each thread its own way: what the slot's pointer leads to.
    """

    strategy: Redirect
    slot: Va | None
    trampoline: TrampolineKey
    original: Va
    records: tuple[UndoRecord, ...]
    layers: tuple[Layer, ...]
    dispatcher: Va | None = None

    @property
    def top(self) -> Layer:
        """The version in force."""
        return self.layers[-1]

    @property
    def before(self) -> Va:
        """Where calls went before the version in force: to an older one, or the original."""
        return self.layers[-2].destination if len(self.layers) > 1 else self.original

    @property
    def leads_to(self) -> Va:
        """Where the redirect leads now: the version in force, or the dispatcher."""
        return self.top.destination if self.dispatcher is None else self.dispatcher


@dataclass(frozen=True, slots=True)
class Application:
    """A patch that stands.

    Attributes:
        number: Counts applications from 1.
        image: Its mapped image.
        patch: What was applied.
        sites: Functions that it replaces, by RVA.
        given_back: Functions of older patches whose original it brings back, by RVA.
        consistency: How calls changed over; reverting it goes the same way unless said otherwise.
        stacking: How it went on top of older ones.
    """

    number: int
    image: ImageKey
    patch: Patch
    sites: tuple[SiteKey, ...]
    given_back: tuple[SiteKey, ...] = ()
    consistency: Consistency = Consistency.IMMEDIATE
    stacking: Stacking = Stacking.CUMULATIVE

    @property
    def touched(self) -> tuple[SiteKey, ...]:
        """Every function that reverting it changes."""
        return (*self.sites, *self.given_back)


class Operation(StrEnum):
    """What waits or is in transition."""

    APPLY = "apply"
    REVERT = "revert"


@dataclass(frozen=True, slots=True)
class Waiting:
    """An operation that waits for quiescence; nothing of it has been done.

    Attributes:
        number: Of the application: the one to be, or the one to revert.
        operation: Which of the two.
        patch: Its patch.
        module: Address of the module.
        stacking: Of an application to be.
        since: :attr:`~hotpatch.engine.target.Target.clock` when it began.
        until: When it gives up.
        holder: Thread that was found inside last, to be looked at first.
    """

    number: int
    operation: Operation
    patch: Patch
    module: Va
    stacking: Stacking
    since: int
    until: int
    holder: int = 0


@dataclass(frozen=True, slots=True)
class Transition:
    """An operation during which each thread goes its own way.

    Attributes:
        number: Of the application that goes in or out.
        operation: Which of the two.
        patch: Its patch.
        module: Address of the module.
        stubs: Mapping that holds the dispatchers.
        flag: Offset in each thread's environment block of the byte that is 1 while the thread stays with what was in force before.
        since: :attr:`~hotpatch.engine.target.Target.clock` when it began.
        until: When it is called off, or ``None``.
        reversed: Whether it was called off, and threads go back.
        refusals: Why it was called off, where its time was over.
        problems: What refused the last try to finish it.
    """

    number: int
    operation: Operation
    patch: Patch
    module: Va
    stubs: Va
    flag: int
    since: int
    until: int | None
    reversed: bool = False
    refusals: tuple[Refusal, ...] = ()
    problems: tuple[Refusal, ...] = ()

    @property
    def to_new(self) -> bool:
        """Whether threads are on their way to the patch's code, and not away from it."""
        return (self.operation is Operation.APPLY) is not self.reversed


@dataclass(frozen=True, slots=True)
class Ended:
    """An application that never came into force: ``refusals`` where it gave up, none where it was called off."""

    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class Registration:
    """A patch that waits for its module to be loaded.

    Attributes:
        number: Of the application to be.
        patch: Its patch.
        consistency: How it is reverted, unless said otherwise; when it goes in, no thread is inside.
        stacking: How it goes on top of older ones.
        refusals: Why the module's last load went on without it.
    """

    number: int
    patch: Patch
    consistency: Consistency
    stacking: Stacking
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class Orphan:
    """What was mapped for a module that is gone: an image of ``patch``, or trampolines or dispatchers; ``size`` in bytes."""

    va: Va
    size: int
    patch: Patch | None = None


@dataclass(slots=True)
class Registry:
    """All of it; compared by value."""

    applied: int = 0
    sites: dict[SiteKey, Site] = field(default_factory=dict)
    applications: dict[int, Application] = field(default_factory=dict)
    order: dict[Va, tuple[int, ...]] = field(default_factory=dict)
    images: dict[ImageKey, MappedImage] = field(default_factory=dict)
    tables: tuple[HpatTable, ...] = ()
    slots: dict[SiteKey, Va] = field(default_factory=dict)
    trampolines: dict[TrampolineKey, PlacedTrampoline] = field(default_factory=dict)
    chunks: tuple[Chunk, ...] = ()
    waiting: dict[Va, Waiting] = field(default_factory=dict)
    transitions: dict[Va, Transition] = field(default_factory=dict)
    ended: dict[int, Ended] = field(default_factory=dict)
    registered: dict[int, Registration] = field(default_factory=dict)
    orphans: tuple[Orphan, ...] = ()
    untold: tuple[Refusal, ...] = ()
    """Refusals that nobody could be told when they came up, because the program caused them."""

    def copy(self) -> Registry:
        """A copy to work on; values are frozen and shared, but for the tables' lists of free slots."""
        return Registry(
            self.applied,
            dict(self.sites),
            dict(self.applications),
            dict(self.order),
            dict(self.images),
            tuple(table.copy() for table in self.tables),
            dict(self.slots),
            dict(self.trampolines),
            self.chunks,
            dict(self.waiting),
            dict(self.transitions),
            dict(self.ended),
            dict(self.registered),
            self.orphans,
            self.untold,
        )

    def become(self, other: Registry) -> None:
        """Know what ``other`` knows, which is not used any more."""
        for own in fields(self):
            setattr(self, own.name, getattr(other, own.name))

    def under_way(self, number: int) -> Waiting | Transition | None:
        """What waits or is in transition of an application."""
        every: tuple[Waiting | Transition, ...] = (*self.waiting.values(), *self.transitions.values())
        return next((each for each in every if each.number == number), None)

    def standing(self, module: Va) -> tuple[Application, ...]:
        """Patches that stand on a module, oldest first."""
        return tuple(self.applications[number] for number in self.order.get(module, ()))

    def records(self, module: Va) -> Iterator[UndoRecord]:
        """Everything that our redirects have written into a module."""
        for key, site in self.sites.items():
            if key.module == module:
                yield from site.records

    def enter(
        self,
        key: ImageKey,
        patch: Patch,
        sites: tuple[SiteKey, ...],
        given_back: tuple[SiteKey, ...],
        consistency: Consistency = Consistency.IMMEDIATE,
        stacking: Stacking = Stacking.CUMULATIVE,
        number: int | None = None,
    ) -> Application:
        """Put a patch on top of its module; ``number`` where it was given one when it began to wait."""
        if number is None:
            self.applied += 1
            number = self.applied
        application = Application(number, key, patch, sites, given_back, consistency, stacking)
        self.applications[application.number] = application
        self.order[key.module] = (*self.order.get(key.module, ()), application.number)
        return application

    def leave(self, application: Application) -> None:
        """Take the topmost patch of a module away; its sites have been dealt with."""
        module = application.image.module
        del self.applications[application.number]
        remaining = self.order[module][:-1]
        if remaining:
            self.order[module] = remaining
        else:
            del self.order[module]
