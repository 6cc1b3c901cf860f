"""Who uses the server while updates come and go: each has a session that it looks after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.errors import HotpatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.servicing.server import Exchange, Server


@dataclass(slots=True)
class _Session:
    """What a client believes: the session's number, and how often it has asked."""

    number: str
    pings: int = 0


class Clients:
    """Clients with a session each. A session that the server no longer knows, or whose counter is wrong, was dropped."""

    def __init__(self, names: Sequence[str]) -> None:
        """Nobody has a session yet."""
        self._names = tuple(names)
        self._sessions: dict[str, _Session] = {}

    def connect(self, server: Server) -> None:
        """Open a session for everybody who has none.

        Raises:
            HotpatchError: The server has no room for one.
        """
        missing = [name for name in self._names if name not in self._sessions]
        for name, exchange in zip(missing, server.ask([f"OPEN {name}" for name in missing]), strict=True):
            verdict, _, number = exchange.reply.partition(" ")
            if verdict != "OK":
                raise HotpatchError(f"the server gives {name} no session: {exchange.reply}; let fewer clients take part")
            self._sessions[name] = _Session(number)

    def visits(self, day: int) -> list[str]:
        """Who looks after the session on that day: everybody in turn."""
        return [self._names[day % len(self._names)]] if self._names else []

    def others(self) -> list[str]:
        """Who else has a session, as far as they know: who hears that one is gone looks after their own."""
        return sorted(self._sessions)

    def requests(self, names: Sequence[str]) -> list[str]:
        """What they say."""
        return [f"PING {self._sessions[name].number}" for name in names]

    def judge(self, names: Sequence[str], exchanges: Sequence[Exchange]) -> list[str]:
        """Compare the replies with what they believe; whose session was dropped."""
        dropped = []
        for name, exchange in zip(names, exchanges, strict=True):
            session = self._sessions[name]
            session.pings += 1
            if exchange.reply != f"OK {name} {session.pings}":
                dropped.append(name)
                del self._sessions[name]
        return dropped

    def pings(self) -> dict[str, int]:
        """How often each living session was looked after."""
        return {name: session.pings for name, session in sorted(self._sessions.items())}
