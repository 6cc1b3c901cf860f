"""Which threads have a frame in which version of a function.

A thread is inside a version when its program counter, or the call before a return address on its stack, lies in it. Stacks are walked by
unwind data, through calls of the system back into the program too. Where a walk ends inside the program because something has no unwind
data, every word of the rest of the stack counts.

On the way into a function, in the padding before it, a slot or a dispatcher, a thread may have taken either side: it is inside of both.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from hotpatch.address import Rva, Va
from hotpatch.arch import HPAT_SLOT_SIZE, Flow, architecture
from hotpatch.engine.dispatch import STUB_SIZE
from hotpatch.engine.stacks import stack_words
from hotpatch.errors import HotpatchError
from hotpatch.unwind import unwinder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hotpatch.engine.locate import Locator
    from hotpatch.engine.registry import Application, ImageKey, Registry, SiteKey
    from hotpatch.engine.target import Module, Target, Thread
    from hotpatch.image import Function, Image
    from hotpatch.patch import Patch, PatchedFunction
    from hotpatch.unwind import Frame

_MOST_FRAMES = 1 << 16


class Span(NamedTuple):
    """Code of a version: first address, address past the last, function (``None``: as the patch image says), where it lies."""

    start: int
    end: int
    name: str | None
    module: Va
    image: Image | None


class Code:
    """Spans to look addresses up in."""

    def __init__(self, spans: Iterable[Span]) -> None:
        """Spans do not overlap, but for the same one given twice."""
        self._spans = sorted(spans, key=lambda span: span[:2])
        self._starts = [span.start for span in self._spans]

    def at(self, va: int) -> Span | None:
        """The span that holds ``va``."""
        index = bisect_right(self._starts, va) - 1
        return self._spans[index] if index >= 0 and va < self._spans[index].end else None


@dataclass(frozen=True, slots=True)
class Holder:
    """A frame that keeps a thread.

    Attributes:
        thread: The thread's.
        function: That the frame is in, where known.
        va: Its program counter or return address.
        stack: The thread's functions, innermost first.
        certain: Whether unwind data says so; otherwise a word of a stack that cannot be walked looks like it.
        outermost: Whether nothing of the program is below it: when it returns, the thread ends.
        endless: The function of the first of the thread's frames in the code from which its own code leads to no way out; unknown counts
            as one that does.
    """

    thread: int
    function: str | None
    va: Va
    stack: tuple[str, ...]
    certain: bool
    outermost: bool
    endless: str | None

    @property
    def returns(self) -> bool:
        """Whether waiting for the thread may end."""
        return self.endless is None


@dataclass(frozen=True, slots=True)
class Versions:
    """Code on either side of a patch: ``under`` it, what was in force before; ``over``, its own."""

    under: Code
    over: Code


def versions(
    registry: Registry,
    modules: Sequence[Module],
    module: Module,
    patch: Patch,
    image: ImageKey,
    replaced: Iterable[SiteKey],
    given_back: Iterable[SiteKey],
) -> Versions:
    """The versions of the functions that ``patch``, whose image is or would be ``image``, replaces or gives back.

    Where the module's image does not know a function that a patch replaces, everything up to the next one that it knows counts.
    Images of other patches of the module count as ``under`` as a whole: what they carry along belongs to the versions that use it.
    """
    replaced, given_back = tuple(replaced), tuple(given_back)
    known = {
        function.base_rva: function
        for each in (*(mapped.patch for key, mapped in registry.images.items() if key.module == module.va), patch)
        for function in each.functions
    }
    entering = [span for key in (*replaced, *given_back) for span in _entering(registry, key)]
    under = [span for key in replaced for span in _original(registry, module, key, known.get(key.rva))]
    over = [span for key in given_back for span in _original(registry, module, key, known.get(key.rva))]
    for key, mapped in registry.images.items():
        if key.module == module.va and any(each.va == mapped.va for each in modules):
            span = Span(mapped.va, mapped.va + mapped.size, None, mapped.va, mapped.patch.image)
            (over if key == image else under).append(span)
    return Versions(Code([*entering, *under]), Code([*entering, *over]))


def versions_of(registry: Registry, modules: Sequence[Module], application: Application) -> Versions:
    """The versions on either side of a patch that stands, or is in transition."""
    module = next(module for module in modules if module.va == application.image.module)
    return versions(registry, modules, module, application.patch, application.image, application.sites, application.given_back)


def _entering(registry: Registry, key: SiteKey) -> Iterable[Span]:
    site = registry.sites.get(key)
    slot = registry.slots.get(key)
    name = site.top.name if site else None
    if slot is not None:
        yield Span(slot, slot + HPAT_SLOT_SIZE, name, key.module, None)
    if site is not None and site.dispatcher is not None:
        yield Span(site.dispatcher, site.dispatcher + STUB_SIZE, name, key.module, None)
    for record in site.records[:-1] if site else ():
        yield Span(record.va, record.end, name, key.module, None)
    if site is not None:
        yield Span(key.entry, key.entry + 1, name, key.module, None)


def _original(registry: Registry, module: Module, key: SiteKey, patched: PatchedFunction | None) -> Iterable[Span]:
    function = module.image.function_of_entry(key.rva)
    name = (patched.name if patched else None) or (function.label if function else None)
    ranges = {(part.start, part.end) for part in function.ranges} if function else set()
    if patched is not None and not ranges:
        following = (each.entry for each in module.image.functions if each.entry > key.rva)
        ranges.add((key.rva, min(following, default=Rva(key.rva + len(patched.entry_bytes)))))
    redirected = key in registry.sites
    for first, end in sorted(ranges):
        start = first + (redirected and first == key.rva)  # the entry itself counts as entering
        yield Span(module.va + start, module.va + end, name, module.va, module.image)
    for made, placed in registry.trampolines.items():
        if made.site == key:
            yield Span(placed.va, placed.va + len(placed.code), name, module.va, None)


def holders(target: Target, locator: Locator, code: Code) -> tuple[Holder, ...]:
    """The frame that keeps each thread that has one in ``code``, by thread."""
    modules = target.modules()
    found = (holder(target, locator, modules, thread, code) for thread in target.threads())
    return tuple(each for each in found if each is not None)


def walk(target: Target, locator: Locator, modules: Sequence[Module], thread: Thread) -> tuple[list[tuple[Frame, bool]], bool]:
    """Frames of a thread through every call of the system into the program, innermost first, and whether they are all.

    With each, whether its program counter is a return address. Where memory cannot be read, there may be more.
    """
    walker, unread = unwinder(target.machine), False

    def read(va: int, size: int) -> bytes:
        nonlocal unread
        try:
            return target.read(Va(va), size)
        except HotpatchError:
            unread = True
            raise

    registers = dict(thread.registers)
    suspended = list(thread.suspended)
    found: list[tuple[Frame, bool]] = []
    while True:
        frames = walker.walk(registers, read, lambda va: locator.locate(va, modules), _MOST_FRAMES - len(found))
        found += [(frame, frame.called) for frame in frames]
        last = frames[-1]
        if last.module is not None or unread or not suspended:
            return found, last.module is None and not unread
        registers = {**last.registers, **suspended.pop(0)}


def is_inside(target: Target, locator: Locator, modules: Sequence[Module], thread: Thread, code: Code) -> bool:
    """Whether a thread has a frame in ``code``: whether :func:`holder` would find one, without all that it says of it."""
    frames, complete = walk(target, locator, modules, thread)
    if any(code.at(frame.pc - called) is not None for frame, called in frames):
        return True
    return not complete and any(code.at(word - 1) is not None for word in _rest(target, thread, frames[-1][0]))


def holder(target: Target, locator: Locator, modules: Sequence[Module], thread: Thread, code: Code) -> Holder | None:
    """The innermost frame of a thread that lies in ``code``, or ``None``."""
    frames, complete = walk(target, locator, modules, thread)
    inside = [frame for frame, _ in frames if frame.module is not None]
    kept = [(frame, _name(span, at)) for frame, called in frames if (span := code.at(at := frame.pc - called)) is not None]
    if kept:
        frame, name = kept[0]
        stuck = (owner or f"0x{one.pc:x}" for one, owner in kept if one.function is not None and not may_return(target, one, modules))
        outermost = complete and (not inside or frame is inside[-1])
        return Holder(thread.id, name, frame.pc, _names(inside), True, outermost, next(stuck, None))
    if not complete:
        for word in _rest(target, thread, frames[-1][0]):
            span = code.at(word - 1)
            if span is not None:
                return Holder(thread.id, _name(span, word - 1), Va(word), _names(inside), False, False, None)
    return None


def _rest(target: Target, thread: Thread, last: Frame) -> Iterable[int]:
    """What a thread may return to behind the ``last`` frame of a walk: by its link register, under a call of the system, by its stack."""
    link = architecture(target.machine).convention.link
    if link is not None:
        yield last.registers[link]
        yield from (registers[link] for registers in thread.suspended if link in registers)
    yield from (word for _, word in stack_words(target, last.sp))


def _names(frames: Sequence[Frame]) -> tuple[str, ...]:
    return tuple(frame.function.label if frame.function else f"0x{frame.pc:x}" for frame in frames)


def _name(span: Span, va: int) -> str | None:
    if span.name is not None or span.image is None:
        return span.name
    function = span.image.function_at(va - span.module)
    return function.label if function else None


def may_return(target: Target, frame: Frame, modules: Sequence[Module]) -> bool:
    """Whether the code of a frame's function leads from the frame to a way out of it: a return, a tail call, an indirect jump."""
    module = next((module for module in modules if module.va == frame.module), None)
    if module is None or frame.function is None:
        return True
    function, arch = frame.function, architecture(target.machine)
    start = Rva(frame.pc - module.va)
    if not _holds(function, start) and not _holds(function, Rva(start - 1)):
        return True  # a trampoline, whose code is not followed
    work, seen = [int(start)], set()
    while work:
        rva = work.pop()
        part = next((part for part in function.ranges if rva in part), None)
        if part is None:
            continue
        try:
            code = target.read(Va(module.va + rva), part.end - rva)
        except HotpatchError:
            return True
        for item in arch.disassemble(code, rva):
            if item.address in seen:
                break
            seen.add(item.address)
            if item.flow in (Flow.RETURN, Flow.JUMP_INDIRECT):
                return True
            if item.flow in (Flow.JUMP, Flow.BRANCH) and item.target is not None:
                if not _holds(function, Rva(item.target)):
                    return True
                work.append(item.target)
            if item.flow in (Flow.JUMP, Flow.TRAP):
                break
    return False


def _holds(function: Function, rva: Rva) -> bool:
    return any(rva in part for part in function.ranges)
