"""Real release pairs: Windows wheels of the public package index, pinned by SHA-256, fetched by pip into a cache, never shipped."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hotpatch.arch import Machine
from hotpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FETCH_SECONDS = 180
"""How long pip may take for one wheel."""

_PLATFORM = {Machine.X64: "win_amd64", Machine.ARM64: "win_arm64"}
_PYTHON = "3.13"


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file of the package index.

    Attributes:
        distribution: Its project.
        version: Its version.
        file: Its file name.
        sha256: Its digest, hexadecimal.
        member: The PE file in it that is looked at.
    """

    distribution: str
    version: str
    file: str
    sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class Release:
    """Two adjacent releases of one binary, for each machine."""

    name: str
    title: str
    base: Mapping[Machine, Wheel]
    fixed: Mapping[Machine, Wheel]


def _sodium(version: str, machine: Machine, sha256: str) -> Wheel:
    return Wheel("PyNaCl", version, f"pynacl-{version}-cp38-abi3-{_PLATFORM[machine]}.whl", sha256, "nacl/_sodium.pyd")


CVE_2025_69277 = Release(
    name="cve-2025-69277",
    title="libsodium takes a point outside the main subgroup for a valid one (CVE-2025-69277), as shipped in PyNaCl 1.6.1, fixed in 1.6.2",
    base={
        Machine.X64: _sodium("1.6.1", Machine.X64, "a569a4069a7855f963940040f35e87d8bc084cb2d6347428d5ad20550a0a1a21"),
        Machine.ARM64: _sodium("1.6.1", Machine.ARM64, "5953e8b8cfadb10889a6e7bd0f53041a745d1b3d30111386a1bb37af171e6daf"),
    },
    fixed={
        Machine.X64: _sodium("1.6.2", Machine.X64, "62985f233210dee6548c223301b6c25440852e13d59a8b81490203c3227c5ba0"),
        Machine.ARM64: _sodium("1.6.2", Machine.ARM64, "834a43af110f743a754448463e8fd61259cd4ab5bbedcf70f9dabad1d28a394c"),
    },
)


def extract(release: Release, machine: Machine, *, cache: Path, wheels: Path | None = None) -> tuple[Path, Path]:
    """The base and the fixed binary as files in ``cache``.

    Args:
        release: Which pair.
        machine: Which build of it.
        cache: Folder that keeps what was fetched.
        wheels: A folder with the wheels, instead of the package index.

    Raises:
        InputError: The index cannot be reached, a wheel is missing, or a file is not the pinned one.
    """
    base, fixed = release.base[machine], release.fixed[machine]
    return _binary(base, machine, cache, wheels), _binary(fixed, machine, cache, wheels)


def _binary(wheel: Wheel, machine: Machine, cache: Path, wheels: Path | None) -> Path:
    path = _provided(wheel, wheels) if wheels else _fetched(wheel, machine, cache)
    target = cache / wheel.sha256[:16] / Path(wheel.member).name
    try:
        with zipfile.ZipFile(path) as archive:
            data = archive.read(wheel.member)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise InputError(wheel.file, f"{wheel.member} cannot be taken out of it: {error}") from error
    return target


def _provided(wheel: Wheel, folder: Path) -> Path:
    """The wheel in a folder that the user names; index and pip spell the project's name in either case."""
    for path in sorted(_listing(folder)):
        if path.name.lower() == wheel.file.lower():
            _check(wheel, path)
            return path
    raise InputError(str(folder), f"does not hold {wheel.file}")


def _listing(folder: Path) -> Iterable[Path]:
    try:
        return tuple(folder.iterdir())
    except OSError as error:
        raise InputError(str(folder), f"cannot be read: {error.strerror}") from error


def _fetched(wheel: Wheel, machine: Machine, cache: Path) -> Path:
    path = cache / wheel.file
    if not path.exists():
        _download(wheel, machine, cache)
    _check(wheel, path)
    return path


def _download(wheel: Wheel, machine: Machine, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--retries",
        "1",
        "--no-deps",
    ]
    choice = ["--only-binary=:all:", "--platform", _PLATFORM[machine], "--python-version", _PYTHON, "--dest", str(cache)]
    try:
        done = subprocess.run(
            [*command, *choice, f"{wheel.distribution}=={wheel.version}"],
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(wheel.file, f"pip could not fetch it from the package index ({error}); {_ADVICE}") from error
    if done.returncode or not (cache / wheel.file).exists():
        raise InputError(wheel.file, f"pip could not fetch it from the package index; {_ADVICE}")


def _check(wheel: Wheel, path: Path) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != wheel.sha256:
        raise InputError(str(path), f"is not the pinned file: SHA-256 {found}, expected {wheel.sha256}")


_ADVICE = "with no way to the index, download the wheels elsewhere and pass their folder with --from"
