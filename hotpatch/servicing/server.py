"""The server on a device: an emulated process that is asked things, patched while it answers, and stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.errors import EmulatedFault, HotpatchError
from hotpatch.process import Process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.engine import AppliedPatch
    from hotpatch.image import Image
    from hotpatch.patch import Patch

BUDGET = 50_000_000
"""Instructions within which everything that was asked at once must be answered."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its reply, without the number that both bear."""

    request: str
    reply: str


class Server:
    """A running server.

    Attributes:
        process: The emulated process.
        history: Everything that it was ever asked, in order.
        applied: Hotpatches that are in force, oldest first.
    """

    def __init__(self, image: Image, *, seed: int, workers: int) -> None:
        """Start it.

        Raises:
            EmulatedFault: It does not come up.
        """
        self.process = Process(image, seed=seed, more_input=True, args=(str(workers),))
        self.history: list[str] = []
        self.applied: list[AppliedPatch] = []
        self._answered = 0
        self._shown = 0
        self.process.start()
        self._run()
        self._shown = len(self.process.output)

    def ask(self, requests: Sequence[str]) -> list[Exchange]:
        """Say all of ``requests`` at once and wait for the replies.

        Raises:
            EmulatedFault: The server faulted.
            HotpatchError: It ended, or answered something else than it was asked.
        """
        self.say(requests)
        return self.answers()

    def say(self, requests: Sequence[str]) -> None:
        """Put requests on its standard input; :meth:`answers` runs it."""
        self.process.feed("".join(f"{request}\n" for request in requests).encode())
        self.history += requests

    def go_on(self, instructions: int) -> None:
        """Run it for a while, to stop it in the middle of things."""
        self.process.run(instructions)

    def answers(self) -> list[Exchange]:
        """Run it until it waits for more, and take what it has answered since; raises as :meth:`ask` does."""
        self._run()
        replies = self.process.output[self._shown :].splitlines()
        asked = self.history[self._answered :]
        if len(replies) != len(asked):
            raise HotpatchError(f"the server was asked {len(asked)} things and gave {len(replies)} replies")
        found = []
        for number, (request, reply) in enumerate(zip(asked, replies, strict=True), self._answered + 1):
            mark, _, text = reply.partition(" ")
            if mark != f"#{number}":
                raise HotpatchError(f"request {number} was answered with {reply!r}")
            found.append(Exchange(request, text))
        self._answered, self._shown = len(self.history), len(self.process.output)
        return found

    def hotpatch(self, patch: Patch) -> None:
        """Apply a hotpatch now, wherever its threads are.

        Raises:
            ApplyRefused: With every reason; nothing has changed.
        """
        self.applied.append(self.process.apply(patch))

    def uninstall(self) -> int:
        """Take all hotpatches back, newest first; how many that were.

        Raises:
            RevertRefused: One cannot be taken back; those above it are.
        """
        count = 0
        while self.applied:
            self.applied[-1].revert()
            self.applied.pop()
            count += 1
        return count

    def stop(self) -> int | None:
        """End its input and let it finish what it does; its exit code.

        Raises:
            EmulatedFault: It faulted instead.
        """
        self.process.end_input()
        result = self.process.run()
        if result.fault is not None:
            raise EmulatedFault(result.fault)
        return result.exit_code

    def rehearse(self, requests: Sequence[str]) -> list[Exchange]:
        """What it would answer now; afterwards it stands where it stood, and was never asked."""
        snapshot, kept = self.process.snapshot(), (len(self.history), self._answered, self._shown)
        try:
            return self.ask(requests)
        finally:
            self.process.restore(snapshot)
            del self.history[kept[0] :]
            self._answered, self._shown = kept[1:]

    def _run(self) -> None:
        result = self.process.run(BUDGET)
        if result.fault is not None:
            raise EmulatedFault(result.fault)
        if result.finished:
            raise HotpatchError(f"the server ended by itself, with exit code {result.exit_code}")
        if not self.process.waits_for_input:
            raise HotpatchError(f"the server has not answered within {BUDGET} instructions")
