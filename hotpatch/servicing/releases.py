"""What comes out each month: the server's cumulative update, the hotpatch that this project builds for it, and what it repairs.

::

    product = "memod"
    workers = 2                              # threads that serve
    ordinary = ["SUM 1 2"]                   # what clients say
    comparison = ["GET milk"]                # what two servers that must answer the same are asked

    [[release]]                              # in the order of time; the first is what devices run when it begins
    month = "2026-02"
    build = "26100.9002"                     # what the device is at, once it is in force
    repairs = "…"                            # one line
    attack = ["NAME AAAA…", "ADMIN"]         # what somebody says to a server that does not have it
    succeeds = "OK you are"                  # what is in a reply where that works

The images lie beside it: ``server/<machine>/<month>.exe``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.builder import build_patch
from hotpatch.differ import diff_images
from hotpatch.errors import InputError, NotHotpatchable
from hotpatch.image import open_image
from hotpatch.servicing.reading import Table, complaint, read_table
from hotpatch.servicing.values import Build, Month

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from hotpatch.arch import Machine
    from hotpatch.errors import Refusal
    from hotpatch.image import Image
    from hotpatch.patch import Patch
    from hotpatch.servicing.calendar import Calendar

SERVER = "server"
"""Folder of the images, beside the file."""


class Release(Table, frozen=True):
    """A month's release. The names are those of its file."""

    month: Month
    build: Build
    repairs: str
    attack: tuple[str, ...] = ()
    succeeds: str = ""


class Releases(Table, frozen=True):
    """All of them. The names are those of its file."""

    product: str
    workers: int
    ordinary: tuple[str, ...]
    comparison: tuple[str, ...]
    release: tuple[Release, ...]


def read_releases(path: Path) -> Releases:
    """Read the file of the releases.

    Raises:
        InputError: With file, line, key and what was expected.
    """
    releases = read_table(path, Releases)
    for index, release in enumerate(releases.release):
        if index and release.month <= releases.release[index - 1].month:
            raise complaint(path, ("release", index, "month"), f"expected a month after the one before it, found {release.month}")
        if bool(release.attack) != bool(release.succeeds):
            raise complaint(path, ("release", index), "expected both attack and succeeds, or neither")
    return releases


@dataclass(frozen=True, slots=True)
class Unbuildable:
    """A month whose fix the builder refuses to make a hotpatch of."""

    month: Month
    machine: Machine
    refusals: tuple[Refusal, ...]


class Catalogue:
    """The releases with their images and hotpatches, each opened and built once."""

    def __init__(self, folder: Path, releases: Releases, instead: Mapping[Month, str] | None = None) -> None:
        """Take images from ``folder``; ``instead`` names those that stand in for a month's own."""
        self.releases = releases
        self._folder = folder / SERVER
        self._instead = dict(instead or {})
        self._by_month = {release.month: release for release in releases.release}
        self._images: dict[tuple[Machine, Month], Image] = {}
        self._hotpatches: dict[tuple[Machine, Month, Month], Patch] = {}

    def has(self, month: Month) -> bool:
        """Whether there is a release of ``month``."""
        return month in self._by_month

    def release(self, month: Month) -> Release:
        """The release of ``month``.

        Raises:
            InputError: There is none.
        """
        if month not in self._by_month:
            months = f"{self.releases.release[0].month} to {self.releases.release[-1].month}"
            raise InputError(str(month), f"no release of {self.releases.product} is there for this month; there are {months}")
        return self._by_month[month]

    def update(self, machine: Machine, month: Month) -> Image:
        """The month's cumulative update: the whole new image.

        Raises:
            InputError: There is none, or it cannot be read.
        """
        key = machine, self.release(month).month
        if key not in self._images:
            self._images[key] = open_image(self._folder / machine / f"{self._instead.get(month, str(month))}.exe")
        return self._images[key]

    def hotpatch(self, machine: Machine, baseline: Month, month: Month) -> Patch:
        """The month's hotpatch: all that changed since ``baseline``; its sequence number counts the months since then.

        Raises:
            NotHotpatchable: The builder refuses, with every reason.
            InputError: A release is missing.
        """
        key = machine, baseline, month
        if key not in self._hotpatches:
            found = diff_images(self.update(machine, baseline), self.update(machine, month))
            self._hotpatches[key] = build_patch(found, sequence=month.number - baseline.number)
        return self._hotpatches[key]

    def unbuildable(self, calendar: Calendar, month: Month, machines: Iterable[Machine]) -> tuple[Unbuildable, ...]:
        """For which machines a hotpatch month's fix cannot be hotpatched; building is trying."""
        found = []
        for machine in machines:
            try:
                self.hotpatch(machine, calendar.baseline_of(month), month)
            except NotHotpatchable as error:
                found.append(Unbuildable(month, machine, error.refusals))
        return tuple(found)
