"""One device's life, day by day: updates as its policy decides them, requests all the while, attacks as soon as they are known."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from random import Random
from typing import TYPE_CHECKING

from hotpatch.errors import ApplyRefused, HotpatchError, RevertRefused
from hotpatch.process.foreign import hook
from hotpatch.servicing.clients import Clients
from hotpatch.servicing.equivalence import compare
from hotpatch.servicing.offers import Brings, offer_one
from hotpatch.servicing.results import DeviceLife, DeviceMonth, Equivalence, Event, What
from hotpatch.servicing.server import Server

if TYPE_CHECKING:
    from hotpatch.errors import Refusal
    from hotpatch.image import Image
    from hotpatch.servicing.calendar import Calendar
    from hotpatch.servicing.device import Device
    from hotpatch.servicing.offers import Offer
    from hotpatch.servicing.releases import Release
    from hotpatch.servicing.scenario import Scenario
    from hotpatch.servicing.server import Exchange
    from hotpatch.servicing.values import Month

_MIDDLE = 4_000
"""Instructions, at most, that the server is into the day's requests when a hotpatch goes in."""
_DAY = timedelta(1)


@dataclass(slots=True)
class _Tally:
    """What a month adds up to."""

    restarts: int = 0
    dropped: int = 0
    exposed: int = 0
    attacks: int = 0


class Life:
    """A device that lives through a scenario.

    Attributes:
        events: What happened, in order.
        equivalence: The comparisons that were made.
    """

    def __init__(self, scenario: Scenario, calendar: Calendar, device: Device, seed: int) -> None:
        """Begin: the device runs the update that its file names, and clients open their sessions."""
        self.events: list[Event] = []
        self.equivalence: list[Equivalence] = []
        self._scenario, self._calendar, self._device, self._seed = scenario, calendar, device, seed
        self._releases = scenario.catalogue.releases
        self._chance = Random(f"{seed}/{device.name}")
        self._clients = Clients(scenario.clients)
        self._starts = 0
        self._day = scenario.months[0].first
        self._tally = _Tally()
        self._hotpatches = 0
        self._due: list[tuple[date, Month, Brings]] = []
        self._open: dict[Month, Release] = {}
        self._failed: set[Month] = set()
        self._withstood: set[Month] = set()
        self._attacked: set[Month] = set()
        self._server = self._as_found()
        self._clients.connect(self._server)

    def live(self) -> DeviceLife:
        """Live through all months."""
        months = [self._month(month) for month in self._scenario.months]
        return DeviceLife(self._device.name, self._device.processor, self._hotpatches > 0, tuple(months))

    # time --------------------------------------------------------------------------------------------------------------------------------

    def _month(self, month: Month) -> DeviceMonth:
        self._tally = _Tally()
        brings = Brings.NOTHING
        self._day = month.first
        while self._day <= month.last:
            if self._day == month.release_day:
                self._disclose(self._scenario.catalogue.release(month))
            if self._day == month.release_day + timedelta(self._scenario.policy.install_after(self._device)):
                brings = self._offered(month).brings
            self._restart_where_due()
            self._requests()
            self._day += _DAY
        self._day = month.last
        if self._server.applied:
            self._compare(month)
        served = self._served()
        tally = self._tally
        return DeviceMonth(month, brings, tally.restarts, tally.dropped, tally.exposed, tally.attacks, self._starts, served)

    def _disclose(self, release: Release) -> None:
        """From now on everybody knows what the release repairs; only older mistakes that still work are tried besides."""
        self._open = {month: older for month, older in self._open.items() if month not in self._withstood}
        if release.attack:
            self._open[release.month] = release

    def _offered(self, month: Month) -> Offer:
        """What the policy brings this month; a hotpatch goes in at once, a restart is due later."""
        scenario = self._scenario
        offer = offer_one(scenario.policy, self._device, month, rules=scenario.rules, calendar=self._calendar)
        self._tell(What.OFFER, f"{month} brings {_WORDS[offer.brings]}: {offer.reason}", brings=offer.brings.value)
        if scenario.incident(self._device.name, month, "misses-update"):
            self._tell(What.MISSED, f"nothing is installed in {month}: the device is off when it should be")
        elif offer.brings is Brings.HOTPATCH:
            self._hotpatch(month)
        elif offer.restart_on is not None:
            self._due.append((offer.restart_on, month, offer.brings))
        return offer

    def _restart_where_due(self) -> None:
        for day, month, brings in [item for item in self._due if item[0] == self._day]:
            self._due.remove((day, month, brings))
            if self._device.updated >= month:
                continue
            baseline = self._calendar.baseline_of(month) if brings is Brings.BASELINE else month
            if month in self._failed:
                self._uninstall()
            self._restart(baseline)
            if baseline != month:
                self._hotpatch(month)

    # requests ----------------------------------------------------------------------------------------------------------------------------

    def _requests(self) -> None:
        """A day of the server: somebody looks after a session, somebody asks something, attackers try what they know."""
        visitors = self._clients.visits(self._day.toordinal())
        asked = self._clients.requests(visitors)
        exchanges = self._server.ask([*asked, self._chance.choice(self._releases.ordinary)])
        dropped = self._clients.judge(visitors, exchanges[: len(asked)])
        if dropped:
            others = self._clients.others()
            dropped += self._clients.judge(others, self._server.ask(self._clients.requests(others)))
            self._tally.dropped += len(dropped)
            gone = "the session is gone and a new one opened" if len(dropped) == 1 else "the sessions are gone and new ones opened"
            self._tell(What.DROPPED, f"{' and '.join(dropped)}: {gone}", clients=dropped)
            self._clients.connect(self._server)
        worked = [month for month, release in sorted(self._open.items()) if self._attack(release)]
        self._tally.exposed += bool(worked)

    def _attack(self, release: Release) -> bool:
        """Try what ``release`` repairs; whether it still works."""
        self._tally.attacks += 1
        exchanges = self._server.ask(release.attack)
        hit = next((exchange for exchange in exchanges if release.succeeds in exchange.reply), None)
        refused = next((exchange for exchange in exchanges if exchange.reply.startswith("ERR")), exchanges[-1])
        if hit is not None and release.month not in self._attacked:
            self._attacked.add(release.month)
            self._tell_attack(What.ATTACKED, release, hit)
        if hit is None and release.month not in self._withstood:
            self._withstood.add(release.month)
            self._tell_attack(What.WITHSTOOD, release, refused)
        return hit is not None

    def _tell_attack(self, what: What, release: Release, shown: Exchange) -> None:
        text = f"{shown.request} → {shown.reply}"
        self._tell(what, text, attack=str(release.month), request=shown.request, reply=shown.reply)

    def _served(self) -> int:
        """Requests that the process has counted."""
        reply = self._server.ask(["STATS"])[0].reply
        return int(reply.removeprefix("OK requests ").partition(",")[0])

    # updates -----------------------------------------------------------------------------------------------------------------------------

    def _hotpatch(self, month: Month) -> None:
        """Apply the month's hotpatch in the middle of the day's requests; where the engine refuses, the way back begins."""
        scenario, device = self._scenario, self._device
        incident = scenario.incident(device.name, month, "foreign-hook")
        if incident:
            where = hook(self._server.process, incident.function)
            text = f"another product puts a jump to 0x{where:x} at {incident.function}"
            self._tell(What.HOOK, text, function=incident.function, va=where)
        patch = scenario.catalogue.hotpatch(device.processor, device.baseline, month)
        self._server.say([self._chance.choice(self._releases.ordinary) for _ in range(4)])
        self._server.go_on(self._chance.randrange(_MIDDLE))
        at, waiting = self._server.process.instructions, len(self._server.history)
        try:
            self._server.hotpatch(patch)
        except ApplyRefused as error:
            self._server.answers()
            self._fail(month, error.refusals)
            return
        self._hotpatches += 1
        self._server.answers()
        names = [function.label for function in patch.functions]
        self._device = device.with_update(build=scenario.catalogue.release(month).build, updated=month)
        self._tell(
            What.HOTPATCH,
            f"hotpatch {patch.sequence} since {device.baseline}: {', '.join(names)}; no restart, process {self._starts} goes on",
            sequence=patch.sequence,
            functions=names,
            at=at,
            requests=waiting,
            sessions=self._clients.pings(),
        )

    def _fail(self, month: Month, refusals: tuple[Refusal, ...]) -> None:
        """A hotpatch that cannot be applied: there is no automatic rollback, the device takes the month's cumulative update instead."""
        restart = self._scenario.policy.restart
        day = self._day + timedelta(restart.deadline_days + restart.grace_days)
        reason = "; ".join(f"{item.rule}: {item.reason}" for item in refusals)
        self._tell(What.REFUSED, f"the hotpatch is refused, the process is as it was: {reason}", refusals=refusals)
        self._due.append((day, month, Brings.STANDARD))
        self._failed.add(month)

    def _restart(self, month: Month) -> None:
        """Restart into the cumulative update of ``month``; hotpatches end with the process that they were in."""
        code = self._server.stop()
        if code:
            raise HotpatchError(f"{self._device.name}: the server ended with exit code {code}")
        self._server = self._start(self._update(month))
        self._tally.restarts += 1
        build = self._scenario.catalogue.release(month).build
        self._device = self._device.with_update(build=build, updated=month, baseline=month)
        self._tell(What.RESTART, f"restart into the cumulative update of {month}, build {build}", month=str(month), build=str(build))

    def _uninstall(self) -> None:
        """The first step of the way back after a hotpatch that failed."""
        try:
            count = self._server.uninstall()
            text = f"{count} hotpatch{'es' * (count != 1)} uninstalled before the restart" if count else "no hotpatch is there to uninstall"
            self._tell(What.UNINSTALL, text, count=count)
        except RevertRefused as error:
            reason = "; ".join(f"{item.rule}: {item.reason}" for item in error.refusals)
            self._tell(What.REFUSED, f"uninstalling is refused, the restart takes it away: {reason}", refusals=error.refusals)

    # inside ------------------------------------------------------------------------------------------------------------------------------

    def _as_found(self) -> Server:
        """What runs when it begins: the baseline with its hotpatch where the device has taken one, else an update that was started."""
        device, catalogue = self._device, self._scenario.catalogue
        hotpatched = device.updated > device.baseline == self._calendar.baseline_of(device.updated)
        if not (hotpatched and catalogue.has(device.baseline)):
            return self._start(self._update(device.updated))
        server = self._start(self._update(device.baseline))
        server.hotpatch(catalogue.hotpatch(device.processor, device.baseline, device.updated))
        return server

    def _start(self, image: Image) -> Server:
        self._starts += 1
        return Server(image, seed=self._chance.getrandbits(32), workers=self._releases.workers)

    def _update(self, month: Month) -> Image:
        return self._scenario.catalogue.update(self._device.processor, month)

    def _compare(self, month: Month) -> None:
        update = self._update(self._device.updated)
        seed = self._chance.getrandbits(32)
        self.equivalence.append(compare(self._device.name, month, self._server, update, self._releases, seed=seed))

    def _tell(self, what: What, text: str, refusals: tuple[Refusal, ...] = (), **details: object) -> None:
        self.events.append(Event(self._day, self._device.name, what, text, refusals, details))


_WORDS = {
    Brings.HOTPATCH: "the hotpatch",
    Brings.STANDARD: "the standard update with its restart",
    Brings.BASELINE: "the baseline with its restart",
    Brings.NOTHING: "nothing",
}
