r"""A device as its file says it: what a management service knows of it.

::

    name = "ada"
    product = "Windows 11"                   # or "Windows Server"
    edition = "Enterprise"
    version = "24H2"
    build = "26100.9001"                     # two integers, in quotes
    licence = "Windows 11 Enterprise E3"
    processor = "x64"                        # or "arm64"
    managed_by = "Microsoft Intune"
    groups = ["office"]                      # what policies are assigned to
    virtualization_based_security = true     # running, not only asked for
    baseline = "2026-01"                     # month of the update that it last started from
    updated = "2026-01"                      # month of the last update that is in force, hotpatches included

    [arm64]                                  # only on Arm64
    HotPatchRestrictions = 1                 # DWORD under HKLM\SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management
    restarted = true                         # since it was set
    csp_policy = false                       # the same by policy
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from hotpatch.arch import Machine
from hotpatch.errors import InputError, InputRule
from hotpatch.servicing.reading import Table, read_table
from hotpatch.servicing.values import Build, Month

if TYPE_CHECKING:
    from pathlib import Path


class Arm64OptIn(Table, frozen=True):
    """How an Arm64 device has opted in to the preview."""

    hot_patch_restrictions: Literal[0, 1] = msgspec.field(default=0, name="HotPatchRestrictions")
    restarted: bool = False
    csp_policy: bool = False


class Device(Table, frozen=True):
    """A device. The names are those of its file."""

    name: str
    product: Literal["Windows 11", "Windows Server"]
    edition: str
    version: str
    build: Build
    licence: str
    processor: Machine
    managed_by: str
    virtualization_based_security: bool
    baseline: Month
    updated: Month
    groups: tuple[str, ...] = ()
    arm64: Arm64OptIn | None = None

    def __post_init__(self) -> None:
        """Check what hangs together.

        Raises:
            ValueError: Something does not; msgspec passes it on.
        """
        if not self.name or self.name != self.name.strip():
            raise ValueError("expected a name without blanks around it")
        if self.arm64 is not None and self.processor is not Machine.ARM64:
            raise ValueError(f'the table "arm64" is for Arm64 devices; expected processor = "arm64", found "{self.processor}"')
        if self.updated < self.baseline:
            raise ValueError(f"updated ({self.updated}) is before baseline ({self.baseline}); expected that month or a later one")

    def with_update(self, *, build: Build, updated: Month, baseline: Month | None = None) -> Device:
        """The device after an update; ``baseline`` where it restarted into it."""
        return msgspec.structs.replace(self, build=build, updated=updated, baseline=baseline or self.baseline)


def read_device(path: Path) -> Device:
    """Read a device's file.

    Raises:
        InputError: With file, line, key and what was expected.
    """
    return read_table(path, Device)


def read_devices(folder: Path) -> tuple[Device, ...]:
    """Every ``*.toml`` in ``folder``, by name.

    Raises:
        InputError: There is no such folder, no device in it, two with one name, or one that cannot be read.
    """
    if not folder.is_dir():
        raise InputError(str(folder), "is no folder; give one with a file for each device", InputRule.NO_FILE)
    found: dict[str, Device] = {}
    for path in sorted(folder.glob("*.toml")):
        device = read_device(path)
        if device.name in found:
            raise InputError(
                str(path), f'key "name": another device of {folder} is called {device.name}; expected a name of its own', InputRule.DOCUMENT
            )
        found[device.name] = device
    if not found:
        raise InputError(str(folder), "holds no device; expected files such as ada.toml", InputRule.NO_FILE)
    return tuple(found[name] for name in sorted(found))
