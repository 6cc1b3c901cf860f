"""Commands that are forks do what commands that are processes do, so that the pages may be followed with them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.docs.follow import surroundings
from tests.docs.forks import CHANNEL, ROOT

BASE = "fixtures/basic/x64/base.dll"


@pytest.mark.skipif(shutil.which("sh") is None, reason="the pages' commands are for a POSIX shell")
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (f"cd fixtures && COLUMNS=60 hotpatch inspect {BASE.removeprefix('fixtures/')} 2>&1 | sed 5q; hotpatch call nosuch.dll f", 2),
        (f"hotpatch --version >version.txt; hotpatch call {BASE} nosuch | cat - version.txt; hotpatch call {BASE} nosuch", 4),
    ],
)
def test_a_fork_does_what_a_process_does(forks, command, code, tmp_path):
    environment = surroundings(tmp_path)
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    plain, fork = (
        subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=environment | more, capture_output=True, text=True, pass_fds=[forks], check=False
        )
        for more in ({}, {CHANNEL: str(forks)})
    )
    assert (fork.returncode, fork.stdout, fork.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    assert plain.returncode == code
    assert plain.stdout
