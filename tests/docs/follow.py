"""Following a page in a fresh folder: as its reader would, with the programs of this checkout.

``python -m tests.docs.follow PAGE …`` follows pages and writes what was printed into them wherever they show something else
(where lines are left out, it only tells: what to leave out is the author's decision).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.docs.document import ANYTHING, Kind, agrees, blocks
from tests.docs.forks import CHANNEL, CLIENT, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 120
_VOLATILE = re.compile(r"(?<=time stamp )0x\w+(, checksum 0x\w+)?|(?<=SHA-256 )[0-9a-f]{64}")
"""What depends on the folder that a reader compiles in, and is therefore never shown."""
_RUNNER = """
import contextlib, io, json, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    out, errors = io.StringIO(), ""
    with contextlib.redirect_stdout(out):
        try:
            exec(compile(json.loads(line), "<page>", "exec"), names)
        except BaseException:
            errors = traceback.format_exc()
    print(json.dumps([out.getvalue(), errors]), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Step:
    """What one command or Python block did."""

    what: str
    line: int
    shown: str | None
    shown_line: int
    printed: str
    errors: str
    code: int
    expected_code: int

    @property
    def right(self) -> bool:
        """Whether it did what the page says."""
        return self.code == self.expected_code and (self.shown is None or agrees(self.shown, self.printed))


def follow(page: Path, folder: Path, forks: int | None = None) -> Iterator[Step]:
    """Do everything that ``page`` says, in ``folder``, in order.

    With ``forks`` (``tests/docs/forks.py``) only the first commands of the page start interpreters, as its reader's do.
    """
    environment = surroundings(folder)
    (folder / "fixtures").symlink_to(ROOT / "fixtures")
    with subprocess.Popen(
        [sys.executable, "-c", _RUNNER], cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as python:
        try:
            yield from _steps(page, folder, environment, python, forks)
        finally:
            python.kill()


def _steps(page: Path, folder: Path, environment: dict[str, str], python: subprocess.Popen[str], forks: int | None) -> Iterator[Step]:
    passed: tuple[int, ...] = ()
    for block in blocks(page):
        match block.kind:
            case Kind.FILE:
                (folder / block.argument).write_text(block.content, encoding="utf-8")
            case Kind.COMMANDS:
                for command in block.commands:
                    done = subprocess.run(
                        ["sh", "-c", command.text],
                        cwd=folder,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        capture_output=True,
                        encoding="utf-8",
                        check=False,
                        timeout=SECONDS,
                        pass_fds=passed,
                    )
                    shown_line = command.line + 1
                    yield Step(
                        command.text, command.line, command.shown, shown_line, done.stdout, done.stderr, done.returncode, command.code
                    )
                if forks is not None:
                    environment, passed = environment | {CHANNEL: str(forks)}, (forks,)
            case Kind.PYTHON:
                assert python.stdin is not None and python.stdout is not None
                python.stdin.write(json.dumps(block.content) + "\n")
                python.stdin.flush()
                answer = python.stdout.readline()
                printed, errors = json.loads(answer) if answer else ("", "the interpreter ended")
                yield Step("python block", block.line, block.prints, block.prints_line, printed, errors, int(bool(errors)), 0)
            case Kind.SETUP | Kind.SHOWN:
                pass


def surroundings(folder: Path) -> dict[str, str]:
    """The environment in which ``python`` and ``hotpatch`` are this interpreter and checkout; nothing is kept outside of ``folder``."""
    tools = folder / ".tools"
    tools.mkdir()
    client = tools / "client.py"
    client.write_text(CLIENT, encoding="utf-8")
    fork = f'[ -z "${CHANNEL}" ] || exec "{sys.executable}" -I -S "{client}" "$@"\n'
    for name, lead, command in (("python", "", ""), ("hotpatch", fork, " -m hotpatch")):
        tool = tools / name
        tool.write_text(f'#!/bin/sh\n{lead}exec "{sys.executable}"{command} "$@"\n', encoding="utf-8")
        tool.chmod(0o755)
    cache = str(folder / ".cache")
    return os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
        "ZIG_LOCAL_CACHE_DIR": cache,
        "ZIG_GLOBAL_CACHE_DIR": cache,
    }


def complaint(page: Path, step: Step) -> str:
    """What is wrong, and how to refresh the page."""
    shown = "" if step.shown is None else f"\nshown:\n{step.shown}"
    return (
        f"{page.name}:{step.line}: {step.what}\nexit code {step.code}, expected {step.expected_code}{shown}\nprinted:\n{step.printed}"
        f"\n{step.errors}\nto refresh: python -m tests.docs.follow {page.relative_to(ROOT)}"
    )


def refresh(page: Path) -> int:
    """Write what was printed into ``page`` wherever it shows something else; returns how many places that were."""
    with tempfile.TemporaryDirectory() as folder:
        wrong = [step for step in follow(page, Path(folder)) if not step.right]
    lines = page.read_text(encoding="utf-8").splitlines()
    for step in reversed(wrong):
        sys.stderr.write(complaint(page, step) + "\n")
        if step.shown is not None and step.code == step.expected_code and ANYTHING not in step.shown.splitlines():
            at = step.shown_line - 1
            lines[at : at + len(step.shown.splitlines())] = [_VOLATILE.sub(ANYTHING, line.rstrip()) for line in step.printed.splitlines()]
    page.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(wrong)


if __name__ == "__main__":
    if shutil.which("sh") is None:
        sys.exit("the pages' commands are for a POSIX shell")
    sys.exit(1 if sum(refresh(ROOT / name) for name in sys.argv[1:]) else 0)
