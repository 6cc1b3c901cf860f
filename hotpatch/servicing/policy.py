"""A Windows quality update policy, as it is managed in Microsoft Intune and Windows Autopatch.

::

    name = "Security updates, hotpatch where possible"
    kind = "windows-quality-update"
    managed_in = "Microsoft Intune"
    hotpatch = "allow"                       # or "block"

    [assigned]                               # to whom; a device in two of the lists is excluded where one of them is that
    groups = ["office"]
    devices = ["ada"]
    excluded = ["kiosk"]

    [restart]                                # of updates that need one
    deadline_days = 3                        # after the update is there
    grace_days = 2                           # after the deadline

    [[ring]]                                 # later for some; the first ring with one of the device's groups counts
    name = "broad"
    groups = ["office"]
    deferral_days = 7                        # after the release day
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from hotpatch.servicing.reading import Table, complaint, read_table

if TYPE_CHECKING:
    from pathlib import Path

    from hotpatch.servicing.device import Device

Days = Annotated[int, msgspec.Meta(ge=0, le=30)]
"""Intune's own limits: a deferral and a deadline of 0 to 30 days, a grace period of 0 to 7."""
GraceDays = Annotated[int, msgspec.Meta(ge=0, le=7)]


class Assigned(Table, frozen=True):
    """To which devices a policy is assigned."""

    groups: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


class Restart(Table, frozen=True):
    """When a device restarts that needs to: nobody does it before the last moment."""

    deadline_days: Days = 3
    grace_days: GraceDays = 2


class Ring(Table, frozen=True):
    """Devices that get updates later than on the release day."""

    name: str
    groups: tuple[str, ...]
    deferral_days: Days = 0


class Policy(Table, frozen=True):
    """The policy. The names are those of its file."""

    name: str
    kind: Literal["windows-quality-update"]
    managed_in: Literal["Microsoft Intune"]
    hotpatch: Literal["allow", "block"]
    assigned: Assigned
    restart: Restart = Restart()
    ring: tuple[Ring, ...] = ()

    def covers(self, device: Device) -> bool:
        """Whether it is assigned to ``device``."""
        if device.name in self.assigned.excluded:
            return False
        return device.name in self.assigned.devices or bool(set(device.groups) & set(self.assigned.groups))

    def ring_of(self, device: Device) -> Ring | None:
        """The ring that ``device`` is in."""
        return next((ring for ring in self.ring if set(ring.groups) & set(device.groups)), None)

    def install_after(self, device: Device) -> int:
        """Days from the release day to the installation."""
        ring = self.ring_of(device)
        return ring.deferral_days if ring else 0

    def restart_after(self, device: Device) -> int:
        """Days from the release day to the restart of an update that needs one."""
        return self.install_after(device) + self.restart.deadline_days + self.restart.grace_days


def read_policy(path: Path) -> Policy:
    """Read a policy's file.

    Raises:
        InputError: With file, line, key and what was expected.
    """
    policy = read_table(path, Policy)
    known = set(policy.assigned.groups)
    for index, ring in enumerate(policy.ring):
        strangers = sorted(set(ring.groups) - known)
        if strangers and not policy.assigned.devices:
            key = ("ring", index, "groups")
            raise complaint(path, key, f'expected groups that the policy is assigned to, found "{strangers[0]}"')
    return policy
