"""Equivalent security, as the service promises: hotpatched or updated, the server answers the same, to friends and to attackers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.servicing.results import Equivalence
from hotpatch.servicing.server import Server

if TYPE_CHECKING:
    from hotpatch.image import Image
    from hotpatch.servicing.releases import Releases
    from hotpatch.servicing.values import Month


def compare(device: str, month: Month, server: Server, update: Image, releases: Releases, *, seed: int) -> Equivalence:
    """Hold ``server`` against one that is started from ``update`` and asked everything that ``server`` was asked in its life.

    Both are then asked all of the releases' requests, and the attacks of all months with them, known or not. Replies must agree to the
    letter, counters included. ``server`` is left as it was.

    Raises:
        EmulatedFault: One of them faulted.
    """
    hostile = [request for release in releases.release for request in release.attack]
    questions = [*releases.comparison, *hostile]
    other = Server(update, seed=seed, workers=releases.workers)
    other.ask(server.history)
    pairs = zip(server.rehearse(questions), other.ask(questions), strict=True)
    difference = next(((mine.request, mine.reply, its.reply) for mine, its in pairs if mine.reply != its.reply), None)
    return Equivalence(device, month, len(questions), len(hostile), difference)
