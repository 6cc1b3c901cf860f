"""Changes to a target that are all made or not made at all.

Every step pushes its inverse. Whatever ends the transaction early, a refusal, a failing target, or an exception of the host such as a
keyboard interrupt, the inverses run in reverse order, and memory, mappings, modules and thread registers are as they were before.

Events are kept until the end: what a watcher is told has happened. A watcher that fails still takes the whole transaction back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from hotpatch.errors import HotpatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from hotpatch.address import Va
    from hotpatch.engine.target import PageRights, Target, Thread
    from hotpatch.image import Image


class RollbackError(HotpatchError):
    """An inverse failed: the target is not as it was. Its notes say which steps could not be taken back."""


class Transaction:
    """A run of changes to ``target``; use as a context manager and call :meth:`commit` last."""

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

    def commit(self) -> None:
        """Tell what happened. The changes stay once this has returned and the block ends."""
        for kind, details in self._events:
            self._target.event(kind, **details)

    def event(self, kind: str, **details: object) -> None:
        """Keep an event for :meth:`commit`."""
        self._events.append((kind, details))

    def map(self, va: Va, size: int, rights: PageRights, content: bytes) -> None:
        """See :meth:`hotpatch.engine.target.Target.map`."""
        self._target.map(va, size, rights, content)
        self._push("unmap", va, self._target.unmap, va)

    def write_data(self, va: Va, expected: bytes, new: bytes) -> None:
        """Replace data that stood before the transaction; the caller has read ``expected`` there."""
        self._push("restore data at", va, self._restore_data, va, expected)
        self._target.write_data(va, new)

    def write_code(self, va: Va, expected: bytes, new: bytes) -> None:
        """See :meth:`hotpatch.engine.target.Target.write_code`."""
        self._push("restore code at", va, self._restore_code, va, expected, new)
        self._target.write_code(va, expected, new)

    def move_thread(self, thread: Thread, registers: Mapping[str, int]) -> None:
        """Set some registers of a thread that stands as ``thread`` says."""
        before = {name: thread.registers[name] for name in registers}
        self._push("restore registers of thread", str(thread.id), self._target.set_registers, thread.id, before)
        self._target.set_registers(thread.id, registers)

    def keep(self, what: str) -> None:
        """Bring the target back to what it is now where this ends early, whoever changes it meanwhile; before ``what`` that is."""
        self._push("bring back the process as it was before", what, self._target.checkpoint())

    def call(self, va: Va, arguments: Sequence[int], budget: int) -> int:
        """See :meth:`hotpatch.engine.target.Target.call_between`; whatever the function did is taken back with the rest."""
        self.keep("a callback")
        return self._target.call_between(va, arguments, budget=budget)

    def add_module(self, name: str, va: Va, image: Image) -> None:
        """See :meth:`hotpatch.engine.target.Target.add_module`."""
        self._target.add_module(name, va, image)
        self._push("remove module", name, self._target.remove_module, va)

    def remove_module(self, name: str, va: Va, image: Image) -> None:
        """See :meth:`hotpatch.engine.target.Target.remove_module`; ``name`` and ``image`` are what it was added with."""
        order = [module.va for module in self._target.modules()]
        following = next(iter(order[order.index(va) + 1 :]), None)
        self._target.remove_module(va)
        self._push("add module", name, lambda: self._target.add_module(name, va, image, before=following))

    def adopt(self, inner: Transaction) -> None:
        """Take the changes and events of a transaction over that has ended well and was not committed."""
        self._inverses += inner._inverses
        self._events += inner._events

    def unmap(self, va: Va) -> None:
        """Give memory back. There is no inverse: it must be a transaction's last step."""
        self._target.unmap(va)

    def _restore_data(self, va: Va, expected: bytes) -> None:
        if self._target.read(va, len(expected)) != expected:
            self._target.write_data(va, expected)

    def _restore_code(self, va: Va, expected: bytes, new: bytes) -> None:
        if self._target.read(va, len(new)) == new != expected:
            self._target.write_code(va, new, expected)

    def _push(self, verb: str, what: int | str, inverse: Callable[..., object], *arguments: object) -> None:
        """Keep an inverse; ``what`` it is for is an address or a name. Nothing is put into words before it must be."""
        self._inverses.append((verb, what, inverse, arguments))

    def _roll_back(self, cause: BaseException) -> None:
        failed: list[str] = []
        while self._inverses:
            verb, what, inverse, arguments = self._inverses.pop()
            try:
                inverse(*arguments)
            except Exception as problem:
                failed.append(f"could not {verb} {what if isinstance(what, str) else hex(what)}: {problem}")
        if failed:
            error = RollbackError(f"taking back a failed change failed; the process is not as it was ({len(failed)} steps left standing)")
            for line in failed:
                error.add_note(line)
            raise error from cause
