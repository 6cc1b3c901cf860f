"""Programs run by Wine: an oracle for loader, calling convention, Win32 and exceptions that nobody here wrote."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

WINE = shutil.which("wine64") or "/usr/lib/wine/wine64"


def in_wine(image: Path, args: tuple[str, ...], stdin: bytes, prefix: Path) -> tuple[int, str]:
    """Exit code and output of a program, in the Wine prefix at ``prefix``; the test is skipped without Wine."""
    if not Path(WINE).is_file():
        pytest.skip("needs Wine: apt-get install wine64")
    environment = os.environ | {"WINEPREFIX": str(prefix), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml=", "DISPLAY": ""}
    done = subprocess.run(
        [WINE, str(image), *args], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=environment, check=False, timeout=180,
    )  # fmt: skip
    return done.returncode, done.stdout.decode()
