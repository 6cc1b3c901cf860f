"""Programs run by Wine: an oracle for loader, calling convention, Win32 and exceptions that nobody here wrote."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WINE = shutil.which("wine64") or "/usr/lib/wine/wine64"


@contextmanager
def served(prefix: Path) -> Iterator[Path]:
    """The Wine prefix at ``prefix``, with a server that stays: one that goes whenever nothing runs can be met while it goes."""
    server = Path(WINE).resolve().with_name("wineserver")
    if not server.is_file():
        yield prefix
        return
    subprocess.run([server, "--persistent"], env=_environment(prefix), check=True, timeout=60)
    try:
        yield prefix
    finally:
        subprocess.run([server, "--kill"], env=_environment(prefix), check=False, timeout=60)


def in_wine(image: Path, args: tuple[str, ...], stdin: bytes, prefix: Path) -> tuple[int, str]:
    """Exit code and output of a program, in the Wine prefix at ``prefix``; the test is skipped without Wine."""
    if not Path(WINE).is_file():
        pytest.skip("needs Wine: apt-get install wine64")
    done = subprocess.run(
        [WINE, str(image), *args], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=_environment(prefix), check=False, timeout=180,
    )  # fmt: skip
    return done.returncode, done.stdout.decode()


def _environment(prefix: Path) -> dict[str, str]:
    return os.environ | {"WINEPREFIX": str(prefix), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml=", "DISPLAY": ""}
