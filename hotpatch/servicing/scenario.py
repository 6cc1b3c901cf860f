"""A scenario: which devices live through which months, and what goes wrong.

::

    title = "…"
    rules = "windows-11-enterprise-24h2"     # a shipped rule set, or a file
    policy = "../policies/hotpatch.toml"     # files: from here
    first = "2026-01"
    last = "2026-04"
    devices = ["devices/ada.toml"]
    clients = ["alice", "bob"]               # who has a session on each device's server

    [[instead]]                              # a month's release is another image of the folder server
    month = "2026-03"
    image = "2026-03-layout"

    [[incident]]
    device = "ada"
    month = "2026-03"
    kind = "foreign-hook"                    # another product's jump is at the function when the hotpatch comes; or
    function = "part"                        # "misses-update": nothing is installed in that month
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from hotpatch.errors import InputError
from hotpatch.servicing.device import Device, read_device
from hotpatch.servicing.policy import Policy, read_policy
from hotpatch.servicing.reading import Table, complaint, read_table
from hotpatch.servicing.releases import SERVER, Catalogue, read_releases
from hotpatch.servicing.rules import RuleSet, read_rules
from hotpatch.servicing.values import Month

DEFAULT = "january-to-april"
FOLDER = "scenarios"
RELEASES = "releases.toml"
_CLIENT = re.compile(r"[A-Za-z0-9]{1,15}")
"""What the server takes as a session's name without cutting it."""


class Instead(Table, frozen=True):
    """Another image for a month."""

    month: Month
    image: str


class Incident(Table, frozen=True):
    """Something that goes wrong on a device in a month."""

    device: str
    month: Month
    kind: Literal["misses-update", "foreign-hook"]
    function: str = ""


class ScenarioFile(Table, frozen=True):
    """The file. The names are its own."""

    title: str
    rules: str
    policy: str
    first: Month
    last: Month
    devices: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    clients: tuple[str, ...] = ()
    instead: tuple[Instead, ...] = ()
    incident: tuple[Incident, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario with everything that it names read."""

    name: str
    title: str
    rules: RuleSet
    policy: Policy
    months: tuple[Month, ...]
    devices: tuple[Device, ...]
    clients: tuple[str, ...]
    incidents: tuple[Incident, ...]
    catalogue: Catalogue

    def incident(self, device: str, month: Month, kind: str) -> Incident | None:
        """What goes wrong, if anything does."""
        return next((item for item in self.incidents if (item.device, item.month, item.kind) == (device, month, kind)), None)


def scenario_names(servicing: Path) -> tuple[str, ...]:
    """The shipped ones; ``servicing`` is the folder of the shipped servicing files."""
    return tuple(sorted(path.stem for path in (servicing / FOLDER).glob("*.toml")))


def read_scenario(name: str, servicing: Path) -> Scenario:
    """A shipped scenario by name, or one from a file (a path that ends in ``.toml``).

    Raises:
        InputError: With file, line, key and what was expected.
    """
    shipped = scenario_names(servicing)
    if not name.endswith(".toml") and name not in shipped:
        raise InputError(name, f"no such scenario; there are: {', '.join(shipped)}, or give a file that ends in .toml")
    path = Path(name) if name.endswith(".toml") else servicing / FOLDER / f"{name}.toml"
    said = read_table(path, ScenarioFile)
    releases = read_releases(servicing / RELEASES)
    catalogue = Catalogue(servicing, releases, {item.month: item.image for item in said.instead})
    known = {release.month for release in releases.release}
    for key, month in (("first", said.first), ("last", said.last)):
        if month not in known or month == releases.release[0].month:
            span = f"{releases.release[1].month} to {releases.release[-1].month}"
            raise complaint(path, (key,), f"expected a month of a release, {span}, found {month}")
    if said.last < said.first:
        raise complaint(path, ("last",), f"expected {said.first} or later, found {said.last}")
    devices = tuple(_device(path, index, text, known) for index, text in enumerate(said.devices))
    for index, client in enumerate(said.clients):
        if not _CLIENT.fullmatch(client) or client in said.clients[:index]:
            raise complaint(path, ("clients", index), f'expected a name of its own of 1 to 15 letters and digits, found "{client}"')
    names = [device.name for device in devices]
    for index, incident in enumerate(said.incident):
        if incident.device not in names:
            raise complaint(path, ("incident", index, "device"), f'expected one of {", ".join(names)}, found "{incident.device}"')
        if (incident.kind == "foreign-hook") != bool(incident.function):
            raise complaint(path, ("incident", index), 'expected a function for kind = "foreign-hook", and for no other')
    images = sorted({path.stem for path in (servicing / SERVER).glob("*/*.exe")})
    for index, other in enumerate(said.instead):
        if other.image not in images:
            raise complaint(path, ("instead", index, "image"), f'expected one of {", ".join(images)}, found "{other.image}"')
    months = tuple(sorted(month for month in known if said.first <= month <= said.last))
    rules = read_rules(str(path.parent / said.rules) if said.rules.endswith(".toml") else said.rules)
    policy = read_policy(path.parent / said.policy)
    return Scenario(path.stem, said.title, rules, policy, months, devices, said.clients, said.incident, catalogue)


def _device(path: Path, index: int, text: str, known: set[Month]) -> Device:
    device = read_device(path.parent / text)
    if device.updated not in known:
        raise complaint(path, ("devices", index), f"expected a device with a release that is there, found {text}, updated {device.updated}")
    return device
