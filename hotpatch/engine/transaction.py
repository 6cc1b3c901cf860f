"""Changes to a target that are all made or not made at all.

Every step keeps its inverse before it does anything. Whatever ends the transaction early, a refusal, a failing target, or an exception of
the host such as a keyboard interrupt, at whichever instruction, the inverses run in reverse order, and memory, mappings, modules and thread
registers are as they were before. An inverse can run where its step did nothing, or half of it, and it can run twice, so that a second
interrupt cannot keep the first one's roll-back from its end.

Events are kept until the end: what a watcher is told has happened. A watcher that fails still takes the whole transaction back. What is
known of the target changes with it (:meth:`Transaction.commit`): whatever comes after that finds both done.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TypeVar

from hotpatch.engine.mapping import PAGE
from hotpatch.errors import ApplyRefused, HotpatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from hotpatch.address import Va
    from hotpatch.engine.registry import Registry
    from hotpatch.engine.target import PageRights, Target, Thread
    from hotpatch.image import Image

_Result = TypeVar("_Result")
_PATIENCE = 16
"""Interrupts of a roll-back after which it is given up."""


class RollbackError(HotpatchError):
    """An inverse failed: the target is not as it was. Its notes say which steps could not be taken back."""


def change(
    target: Target, know: Callable[[Registry], object], before: Registry, work: Callable[[Transaction, Registry], _Result]
) -> _Result:
    """Let ``work`` change the target and a copy of ``before``, what is known of it, which ``know`` is given then; or change nothing.

    There are two who take it back: where an interrupt keeps the inner one from beginning, or ends it, the outer one does.

    Raises:
        HotpatchError: Whatever ended the work; the target and what is known are as they were.
        RollbackError: They are not.
    """
    with Transaction(target) as step, step.part():
        after = before.copy()
        result = work(step, after)
        step.commit(know, before, after)
        return result


class Transaction:
    """A run of changes to ``target``; use as a context manager, and call :meth:`commit` last."""

    def __init__(self, target: Target) -> None:
        """Begin on ``target``."""
        self._target = target
        self._inverses: list[tuple[str, int | str, Callable[..., object], tuple[object, ...]]] = []
        self._events: list[tuple[str, dict[str, object]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._roll_back(error)

    def commit(self, know: Callable[[Registry], object], before: Registry, after: Registry) -> None:
        """Tell what happened, and let ``know`` have ``after``, what is known of the target now, instead of ``before``.

        The changes stay once this has returned. Where it fails, they and what is known are as before.
        """
        for kind, details in self._events:
            self._target.event(kind, **details)
        self._push("bring back what was known of", "the process", know, before)
        know(after)
        self._inverses.clear()

    @contextmanager
    def part(self) -> Iterator[None]:
        """Changes that are taken back where this block fails, and with the rest where that fails."""
        changes, events = len(self._inverses), len(self._events)
        try:
            yield
        except BaseException as error:
            self._roll_back(error, changes)
            del self._events[events:]
            raise

    def event(self, kind: str, **details: object) -> None:
        """Keep an event for :meth:`commit`."""
        self._events.append((kind, details))

    def map(self, va: Va, size: int, rights: PageRights, content: bytes) -> None:
        """See :meth:`hotpatch.engine.target.Target.map`."""
        self._push("unmap", va, self._unmap, va)
        try:
            self._target.map(va, size, rights, content)
        except HotpatchError:
            self._inverses.pop()  # nothing was mapped, and what lies there is somebody else's
            raise

    def unmap(self, va: Va, size: int) -> None:
        """Give memory back that :meth:`map` mapped, here or in an earlier transaction."""
        parts = [(max(region.va, va), min(region.va + region.size, va + size), region.rights) for region in self._target.regions()]
        rights = [own for start, end, own in parts for _ in range(start, end, PAGE)]
        self._push("map again", va, self._map_again, va, size, rights, self._target.read(va, size))
        self._target.unmap(va)

    def write_data(self, va: Va, expected: bytes, new: bytes) -> None:
        """Replace data that stood before the transaction; the caller has read ``expected`` there."""
        self._push("restore data at", va, self._target.write_data, va, expected)
        self._target.write_data(va, new)

    def write_code(self, va: Va, expected: bytes, new: bytes) -> None:
        """See :meth:`hotpatch.engine.target.Target.write_code`."""
        self._push("restore code at", va, self._restore_code, va, expected, new)
        try:
            self._target.write_code(va, expected, new)
        except ApplyRefused:
            self._inverses.pop()  # nothing was stored, and what stands there is somebody else's
            raise

    def move_thread(self, thread: Thread, registers: Mapping[str, int]) -> None:
        """Set some registers of a thread that stands as ``thread`` says."""
        before = {name: thread.registers[name] for name in registers}
        self._push("restore registers of thread", str(thread.id), self._target.set_registers, thread.id, before)
        self._target.set_registers(thread.id, registers)

    def call(self, va: Va, arguments: Sequence[int], budget: int) -> int:
        """See :meth:`hotpatch.engine.target.Target.call_between`; whatever the function did is taken back with the rest."""
        self._push("bring back the process as it was before", "a callback", self._target.checkpoint())
        return self._target.call_between(va, arguments, budget=budget)

    def add_module(self, name: str, va: Va, image: Image) -> None:
        """See :meth:`hotpatch.engine.target.Target.add_module`."""
        self._push("remove module", name, self._remove_module, va)
        self._target.add_module(name, va, image)

    def remove_module(self, name: str, va: Va, image: Image) -> None:
        """See :meth:`hotpatch.engine.target.Target.remove_module`; ``name`` and ``image`` are what it was added with."""
        order = [module.va for module in self._target.modules()]
        following = next(iter(order[order.index(va) + 1 :]), None)
        self._push("add module", name, self._add_module_again, name, va, image, following)
        self._target.remove_module(va)

    # inverses: each asks the target, which did all of the step, nothing, or some ----------------------------------------------------------

    def _unmap(self, va: Va) -> None:
        if self._is_mapped(va):
            self._target.unmap(va)

    def _map_again(self, va: Va, size: int, rights: PageRights, content: bytes) -> None:
        if not self._is_mapped(va):
            self._target.map(va, size, rights, content)

    def _is_mapped(self, va: Va) -> bool:
        return any(region.va <= va < region.va + region.size for region in self._target.regions())

    def _remove_module(self, va: Va) -> None:
        if self._is_module(va):
            self._target.remove_module(va)

    def _add_module_again(self, name: str, va: Va, image: Image, following: Va | None) -> None:
        if not self._is_module(va):
            self._target.add_module(name, va, image, before=following)

    def _is_module(self, va: Va) -> bool:
        return any(module.va == va for module in self._target.modules())

    def _restore_code(self, va: Va, expected: bytes, new: bytes) -> None:
        """Store ``expected`` also where it stands, since it may not be flushed; not over what neither the base nor the step put there."""
        found = self._target.read(va, len(new))
        if all(byte in (old, fresh) for byte, old, fresh in zip(found, expected, new, strict=True)):
            self._target.write_code(va, found, expected)

    # rolling back -------------------------------------------------------------------------------------------------------------------------

    def _push(self, verb: str, what: int | str, inverse: Callable[..., object], *arguments: object) -> None:
        """Keep an inverse; ``what`` it is for is an address or a name. Nothing is put into words before it must be."""
        self._inverses.append((verb, what, inverse, arguments))

    def _roll_back(self, cause: BaseException, keep: int = 0) -> None:
        """Run the inverses but for the first ``keep``, come what may."""
        failed: list[str] = []
        interrupt: BaseException | None = None
        for _ in range(_PATIENCE):
            try:
                self._take_back(keep, failed)
                break
            except BaseException as error:
                interrupt = error
        failed += [f"{_named(verb, what)}: interrupted" for verb, what, _, _ in self._inverses[keep:]]
        if failed:
            problem = RollbackError(f"taking back a failed change failed; the process is not as it was ({len(failed)} steps left standing)")
            for line in failed:
                problem.add_note(line)
            raise problem from cause
        if interrupt is not None:
            raise interrupt from cause

    def _take_back(self, keep: int, failed: list[str]) -> None:
        while len(self._inverses) > keep:
            verb, what, inverse, arguments = self._inverses[-1]
            try:
                inverse(*arguments)
            except Exception as problem:
                failed.append(f"{_named(verb, what)}: {problem}")
            self._inverses.pop()


def _named(verb: str, what: int | str) -> str:
    return f"could not {verb} {what if isinstance(what, str) else hex(what)}"
