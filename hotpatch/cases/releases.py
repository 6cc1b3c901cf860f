"""Real release pairs: files of public package indexes, pinned by SHA-256, fetched by pip or npm into a cache, never shipped."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from hotpatch.arch import Machine
from hotpatch.errors import InputError, InputRule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_BROKEN = (OSError, zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, KeyError, RuntimeError, ValueError)
"""What the readers of archives raise for one that is damaged."""
FETCH_SECONDS = 180
"""How long pip or npm may take for one file."""

_PLATFORM = {Machine.X64: "win_amd64", Machine.ARM64: "win_arm64"}
_NODE_PLATFORM = {Machine.X64: "win32-x64", Machine.ARM64: "win32-arm64"}
_PYTHON = "3.13"


class Index(StrEnum):
    """Where a package comes from, by the tool that fetches it."""

    PIP = "pip"
    NPM = "npm"


@dataclass(frozen=True, slots=True)
class Package:
    """One file of a package index.

    Attributes:
        distribution: Its project.
        version: Its version.
        file: Its file name.
        sha256: Its digest, hexadecimal.
        member: The PE file in it that is looked at.
        beside: Other files in it that belong beside that one, such as a PDB.
        index: Where it comes from.
    """

    distribution: str
    version: str
    file: str
    sha256: str
    member: str
    beside: tuple[str, ...] = ()
    index: Index = Index.PIP


@dataclass(frozen=True, slots=True)
class Release:
    """Two adjacent releases of one binary, for each machine."""

    name: str
    title: str
    base: Mapping[Machine, Package]
    fixed: Mapping[Machine, Package]


def _wheels(
    distribution: str, member: str, pins: Mapping[str, tuple[str, str]], *, tag: str = "cp313-cp313"
) -> dict[str, Mapping[Machine, Package]]:
    """The packages of each version; ``pins`` are SHA-256 for x64 and Arm64, ``{platform}`` in ``member`` is the wheel's."""
    found: dict[str, Mapping[Machine, Package]] = {}
    for version, digests in pins.items():
        found[version] = {
            machine: Package(
                distribution,
                version,
                f"{distribution.lower()}-{version}-{tag}-{_PLATFORM[machine]}.whl",
                sha256,
                member.format(platform=_PLATFORM[machine]),
            )
            for machine, sha256 in zip(Machine, digests, strict=True)
        }
    return found


def _pair(name: str, title: str, packages: Mapping[str, Mapping[Machine, Package]]) -> Release:
    base, fixed = packages.values()
    return Release(name, title, base, fixed)


CVE_2025_69277 = _pair(
    "cve-2025-69277",
    "libsodium takes a point outside the main subgroup for a valid one (CVE-2025-69277), as shipped in PyNaCl 1.6.1, fixed in 1.6.2",
    _wheels(
        "PyNaCl",
        "nacl/_sodium.pyd",
        {
            "1.6.1": (
                "a569a4069a7855f963940040f35e87d8bc084cb2d6347428d5ad20550a0a1a21",
                "5953e8b8cfadb10889a6e7bd0f53041a745d1b3d30111386a1bb37af171e6daf",
            ),
            "1.6.2": (
                "62985f233210dee6548c223301b6c25440852e13d59a8b81490203c3227c5ba0",
                "834a43af110f743a754448463e8fd61259cd4ab5bbedcf70f9dabad1d28a394c",
            ),
        },
        tag="cp38-abi3",
    ),
)

UJSON = _pair(
    "ujson",
    "ujson 5.12.0: integer overflow and memory leak fixes",
    _wheels(
        "ujson",
        "ujson.cp313-{platform}.pyd",
        {
            "5.11.0": (
                "34032aeca4510a7c7102bd5933f59a37f63891f30a0706fb46487ab6f0edf8f0",
                "ce076f2df2e1aa62b685086fbad67f2b1d3048369664b4cdccc50707325401f9",
            ),
            "5.12.0": (
                "15e555c4caca42411270b2ed2b2ebc7b3a42bb04138cef6c956e1f1d49709fe2",
                "bd03472c36fa3a386a6deb887113b9e3fa40efba8203eb4fe786d3c0ccc724f6",
            ),
        },
    ),
)

PILLOW = _pair(
    "pillow",
    "Pillow 12.1.1: thousands of functions; on Arm64 another compiler",
    _wheels(
        "pillow",
        "PIL/_imaging.cp313-{platform}.pyd",
        {
            "12.1.0": (
                "461f9dfdafa394c59cd6d818bdfdbab4028b83b02caadaff0ffd433faf4c9a7a",
                "9212d6b86917a2300669511ed094a9406888362e085f2431a7da985a6b124f45",
            ),
            "12.1.1": (
                "344cf1e3dab3be4b1fa08e449323d98a2a3f819ad20f4b22e77a0ede31f0faa1",
                "5c0dd1636633e7e6a0afe7bf6a51a14992b7f8e60de5789018ebbdfae55b040a",
            ),
        },
    ),
)

APSW = _pair(
    "apsw",
    "apsw 3.53.1.0, sqlite3_tool.dll: mostly line numbers",
    _wheels(
        "apsw",
        "apsw/sqlite_extra_binaries/sqlite3_tool.dll",
        {
            "3.53.0.0": (
                "952e22c84433eeb7977b8703ddb2399a711e4fbcfd3960c6417de6f16ea81333",
                "85a83f196f4110330d8695dec507a746d448bbe2f608edd1932ce4688035ebd4",
            ),
            "3.53.1.0": (
                "f039e2947f16b95fc4f8705e348c6e916b7eaf7fb48dbbf8751ddec9c7529b93",
                "805a9a11b6aec22c7e0ecb31e8e08f250efce5d4cedb222113c5fdc80be2250c",
            ),
        },
    ),
)

_ZSTANDARD = {
    "0.24.0": (
        "d64899cc0f33a8f446f1e60bffc21fa88b99f0e8208750d9144ea717610a80ce",
        "57be3abb4313e0dd625596376bbb607f40059d801d51c1a1da94d7477e63b255",
    ),
    "0.25.0": (
        "1f830a0dac88719af0ae43b8b2d6aef487d437036468ef3c2ea59c51f9d55fd5",
        "85304a43f4d513f5464ceb938aa02c1e78c2943b29f44a750b48b25ac999a049",
    ),
}
ZSTANDARD_CFFI = _pair(
    "zstandard-cffi",
    "zstandard 0.25.0, _cffi: nothing changed",
    _wheels("zstandard", "zstandard/_cffi.cp313-{platform}.pyd", _ZSTANDARD),
)
ZSTANDARD = _pair("zstandard", "zstandard 0.25.0, backend_c", _wheels("zstandard", "zstandard/backend_c.cp313-{platform}.pyd", _ZSTANDARD))

XXHASH = _pair(
    "xxhash",
    "xxhash 3.7.0: no change in the source, code generation only",
    _wheels(
        "xxhash",
        "xxhash/_xxhash.cp313-{platform}.pyd",
        {
            "3.6.0": (
                "757320d45d2fbcce8f30c42a6b2f47862967aea7bf458b9625b4bbe7ee390392",
                "457b8f85dec5825eed7b69c11ae86834a018b8e3df5e77783c999663da2f96d6",
            ),
            "3.7.0": (
                "875811ba23c543b1a1c3143c926e43996eb27ebb8f52d3500744aa608c275aed",
                "54a675cb300dda83d71daae2a599389d22db8021a0f8db0dd659e14626eb3ecc",
            ),
        },
    ),
)


def _node_pty(version: str, sha256: str) -> Mapping[Machine, Package]:
    return {
        machine: Package(
            "node-pty",
            version,
            f"node-pty-{version}.tgz",
            sha256,
            f"package/prebuilds/{platform}/conpty.node",
            (f"package/prebuilds/{platform}/conpty.pdb",),
            Index.NPM,
        )
        for machine, platform in _NODE_PLATFORM.items()
    }


NODE_PTY = Release(
    "node-pty",
    "node-pty 1.1.0, conpty.node: with PDBs",
    _node_pty("1.1.0-beta43", "db226b667d3b02feb1321af2f95bafdc3936a218e61310221758f0bf91703421"),
    _node_pty("1.1.0", "c7517f19083ddcb05f276904680eb2b11a6b5ecab778b8e4e5685a6d645b3f60"),
)

NODE_PTY_COMPILER = Release(
    "node-pty-compiler",
    "node-pty 1.1.0-beta43, conpty.node: with PDBs, another compiler",
    _node_pty("1.1.0-beta39", "a984e8bc1159fd19d12f2abef60b16e15697a96e4d056fc33d767fc7ad18d6b0"),
    NODE_PTY.base,
)

NODE_PTY_MUTEX = Release(
    "node-pty-mutex",
    "node-pty 1.2.0-beta.13, conpty.node: with PDBs, a new mutex around what is shared",
    _node_pty("1.2.0-beta.12", "45a012e37699bb70c9050cbf2e06e71b0b842de4cda58e938e3de973f6d5a36a"),
    _node_pty("1.2.0-beta.13", "827a8f8da8102b71221884ec6e0bb61708ef91a131e970b6973be44aed98ab45"),
)

WITH_PDBS = (NODE_PTY, NODE_PTY_COMPILER, NODE_PTY_MUTEX)

WRAPT = _pair(
    "wrapt",
    "wrapt 2.5.0: on Arm64 with another compiler and C run time",
    _wheels(
        "wrapt",
        "wrapt/_wrappers.cp313-{platform}.pyd",
        {
            "2.4.1": (
                "1fe758b9c2d49138231ec3efabd106fec665f86fec50b3d02d7edd75f08a69ca",
                "0c974c36e8205255a3947dad9c2fe000431b57dd522946e56c192174a7f92a0f",
            ),
            "2.5.0": (
                "77f0a74ff6f6cf89f5b673a732d5afe1911a6e6b1c017260836fdfdf85518dc1",
                "b620d7559b6b2197c5730332fab0867ecf1c8cb74d45533ebbcbcad1eacf4616",
            ),
        },
    ),
)

PYMONGO = _pair(
    "pymongo",
    "PyMongo 4.18.3: one function of the codec of BSON; on Arm64 another compiler",
    _wheels(
        "pymongo",
        "bson/_cbson.cp313-{platform}.pyd",
        {
            "4.18.2": (
                "84f99563560a94321b7c3eb4a3bd0dc81f29a2f67a1da065f78641eff42f4a81",
                "f319857f858a17e1c0e48159b65c89abe93d5ebf3423bb3e3891d8b67a68accd",
            ),
            "4.18.3": (
                "6fed3281c93aafb79748c9448f32a1658a870499f09c0d70129f153c1a5833ef",
                "ff7585de6e5befc06eec004ac6352507685f901eac92ea0c79ae5defae374a96",
            ),
        },
    ),
)

RELEASES = (CVE_2025_69277, UJSON, PILLOW, APSW, ZSTANDARD_CFFI, ZSTANDARD, XXHASH, *WITH_PDBS, WRAPT, PYMONGO)
"""The pairs that the comparison and the builder are developed on."""


def extract(release: Release, machine: Machine, *, cache: Path, wheels: Path | None = None) -> tuple[Path, Path]:
    """The base and the fixed binary as files in ``cache``.

    Args:
        release: Which pair.
        machine: Which build of it.
        cache: Folder that keeps what was fetched.
        wheels: A folder with the packages, instead of the package index.

    Raises:
        InputError: The index cannot be reached, a package is missing, or a file is not the pinned one.
    """
    base, fixed = release.base[machine], release.fixed[machine]
    return _binary(base, machine, cache, wheels), _binary(fixed, machine, cache, wheels)


def _binary(package: Package, machine: Machine, cache: Path, wheels: Path | None) -> Path:
    path = _provided(package, wheels) if wheels else _fetched(package, machine, cache)
    folder = cache / package.sha256[:16] / machine
    for member in (package.member, *package.beside):
        try:
            data = _member(path, member)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / Path(member).name).write_bytes(data)
        except _BROKEN as error:
            raise InputError(package.file, f"{member} cannot be taken out of it: {error}; {_ANEW}", InputRule.PACKAGE) from error
    return folder / Path(package.member).name


def _member(path: Path, member: str) -> bytes:
    """One file of a wheel or an npm package.

    Raises:
        KeyError: It has no such file.
    """
    if path.suffix == ".tgz":
        with tarfile.open(path) as tarball:
            content = tarball.extractfile(member)
            if content is None:
                raise KeyError(member)
            return content.read()
    with zipfile.ZipFile(path) as archive:
        return archive.read(member)


def _provided(package: Package, folder: Path) -> Path:
    """The file in a folder that the user names; index and pip spell the project's name in either case."""
    for path in sorted(_listing(folder)):
        if path.name.lower() == package.file.lower():
            _check(package, path)
            return path
    raise InputError(str(folder), f"does not hold {package.file}; put it there, or name another folder", InputRule.PACKAGE)


def _listing(folder: Path) -> Iterable[Path]:
    try:
        return tuple(folder.iterdir())
    except OSError as error:
        raise InputError(str(folder), f"cannot be read: {error.strerror}; name another folder", InputRule.PACKAGE) from error


def _fetched(package: Package, machine: Machine, cache: Path) -> Path:
    path = cache / package.file
    if not path.exists():
        _download(package, machine, cache)
    _check(package, path)
    return path


def _download(package: Package, machine: Machine, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            _command(package, machine, cache),
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS,
            stdin=subprocess.DEVNULL,
            cwd=cache,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(
            package.file, f"{package.index} could not fetch it from the package index ({error}); {_ADVICE}", InputRule.PACKAGE
        ) from error
    if done.returncode or not (cache / package.file).exists():
        raise InputError(package.file, f"{package.index} could not fetch it from the package index; {_ADVICE}", InputRule.PACKAGE)


def _command(package: Package, machine: Machine, cache: Path) -> list[str]:
    """What fetches the package into ``cache``."""
    if package.index is Index.NPM:
        return ["npm", "pack", "--silent", f"{package.distribution}@{package.version}"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--retries", "1", "--no-deps"]
    choice = ["--only-binary=:all:", "--platform", _PLATFORM[machine], "--python-version", _PYTHON, "--dest", str(cache.resolve())]
    return [*pip, *choice, f"{package.distribution}=={package.version}"]


def _check(package: Package, path: Path) -> None:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}; {_ANEW}", InputRule.PACKAGE) from error
    if found != package.sha256:
        raise InputError(str(path), f"is not the pinned file: SHA-256 {found}, expected {package.sha256}; {_ANEW}", InputRule.PACKAGE)


_ANEW = "take it away, so that it is fetched anew"
_ADVICE = "with no way to the index, download the files elsewhere and pass their folder with --from"
