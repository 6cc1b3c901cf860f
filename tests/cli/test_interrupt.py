"""Ctrl-C, at whatever moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="no signal can be sent to one process there")

_INTERRUPTED_AT = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Interrupt(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == wanted:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

wanted = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupt())
from hotpatch.__main__ import main
main()
"""
"""A command that gets SIGINT when it begins to import the module that is its first argument."""


@pytest.mark.parametrize("module", ["hotpatch.cli", "cyclopts", "rich.console", "hotpatch.cli.story", "lief", "capstone", "unicorn"])
def test_during_imports(module: str) -> None:
    command = [sys.executable, "-c", _INTERRUPTED_AT, module, "demo", "--arch", "x64"]
    ended = subprocess.run(command, capture_output=True, cwd=ROOT, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (130, b""), module


_BEGUN = "import os; from hotpatch.__main__ import main; os.write(1, b'begun\\n'); main()"


@pytest.mark.parametrize("delay", [0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4])
def test_after_any_time(delay: float) -> None:
    """From when Python itself has started; native libraries are being imported for most of these."""
    command = [sys.executable, "-c", _BEGUN, "demo", "--arch", "x64"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as running:
        assert running.stdout
        assert running.stdout.readline() == b"begun\n"
        time.sleep(delay)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=60)
    assert (running.returncode, told) == (130, b"")
