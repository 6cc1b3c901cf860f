"""System functions as addresses. Nothing is mapped at a gate: a thread that arrives there has called the function, and the host serves it.

So a gate costs the program no instruction, and reading or patching system code is a fault that names the function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.emulator.layout import GATE_LIMIT, GATE_SIZE, GATE_VA
from hotpatch.emulator.win32 import functions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.emulator.win32.call import Api


@dataclass(frozen=True, slots=True)
class Gate:
    """A system function; ``api`` is ``None`` where the emulator does not provide it."""

    label: str
    api: Api | None


CALLBACK = Gate("(return to the system)", None)
"""Where functions that the system calls return to."""
THREAD = Gate("(thread start)", None)
"""Where threads begin, and what the host's thread stands at between calls."""


class Gates:
    """The gates of one process: the two special ones, every provided function by name, then unknown imports as they turn up."""

    def __init__(self) -> None:
        provided = functions()
        self._gates = [CALLBACK, THREAD, *(Gate(name, provided[name]) for name in sorted(provided))]
        self._index = {gate.label: at for at, gate in enumerate(self._gates)}
        self._provided = len(self._gates)

    @property
    def callback(self) -> Va:
        """VA of :data:`CALLBACK`."""
        return Va(GATE_VA)

    @property
    def thread(self) -> Va:
        """VA of :data:`THREAD`."""
        return Va(GATE_VA + GATE_SIZE)

    def provided(self, name: str) -> Va | None:
        """VA of a function that the emulator provides."""
        at = self._index.get(name)
        return Va(GATE_VA + GATE_SIZE * at) if at is not None and self._gates[at].api else None

    def unknown(self, library: str, symbol: str) -> Va:
        """VA that stands for an import nobody provides; a fault that names it, when it is used."""
        label = f"{library}!{symbol}"
        at = self._index.setdefault(label, len(self._gates))
        if at == len(self._gates):
            self._gates.append(Gate(label, None))
        return Va(GATE_VA + GATE_SIZE * at)

    def arrange(self, labels: Sequence[str]) -> None:
        """Give those that nobody provides new VAs, those of ``labels`` first: they are the same in every process then."""
        rest = [gate.label for gate in self._gates[self._provided :] if gate.label not in labels]
        self._gates[self._provided :] = [Gate(label, None) for label in (*labels, *rest)]
        self._index = {gate.label: at for at, gate in enumerate(self._gates)}

    def at(self, va: int) -> Gate | None:
        """The gate at exactly ``va``."""
        at, rest = divmod(va - GATE_VA, GATE_SIZE)
        return self._gates[at] if rest == 0 and 0 <= at < len(self._gates) else None

    def near(self, va: int) -> Gate | None:
        """The gate whose slot holds ``va``."""
        at = (va - GATE_VA) // GATE_SIZE
        return self._gates[at] if 0 <= at < min(len(self._gates), GATE_LIMIT) else None

    def state(self) -> int:
        """For a snapshot: how many there are."""
        return len(self._gates)

    def restore(self, state: int) -> None:
        """Forget gates that came after :meth:`state`."""
        for gate in self._gates[state:]:
            del self._index[gate.label]
        del self._gates[state:]
