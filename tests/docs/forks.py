"""``hotpatch`` commands that need no interpreter of their own to start: a process that has imported everything forks into each of them.

A page types ``hotpatch`` some fifteen times, and importing takes several times as long as what it then does. The shell still starts a
program, with its own arguments, folder, environment and streams (:data:`CLIENT`); a socket takes them to the process that forks, and the
program ends as the fork does.

``python -m tests.docs.forks FD`` is that process; it ends when nobody holds the socket's other end any more.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import socket
import subprocess
import sys
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
CHANNEL = "HOTPATCH_FORKS"
"""The environment variable that holds the socket's descriptor, where commands are to be forks."""
CLIENT = f"""
import json, os, socket, sys
told, tell = os.pipe()
asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(socket.socket(fileno=int(os.environ["{CHANNEL}"])), [asked], [0, 1, 2, tell])
os.close(tell)
sys.exit((os.read(told, 1) or b"\\x46")[0])
"""
"""A command that ends without a word ends with 70."""
_LONGEST = 1 << 17


@contextmanager
def forking() -> Iterator[int]:
    """The process that forks; the descriptor to reach it by."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(there.fileno())],
            pass_fds=[there.fileno()],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
        )
    with server, here:
        yield here.fileno()


def serve(channel: socket.socket) -> None:
    """Fork into each command that is asked for, until nobody can ask any more."""
    import hotpatch

    for module in pkgutil.walk_packages(hotpatch.__path__, "hotpatch."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    while True:
        asked, streams, _, _ = socket.recv_fds(channel, _LONGEST, 4)
        if not asked:
            return
        if os.fork() == 0:
            channel.close()
            _become(*json.loads(asked), streams)
        for stream in streams:
            os.close(stream)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _become(arguments: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> None:
    """Run a command as a process that has just been started would, and end with its code."""
    from hotpatch.cli import main

    for at, stream in enumerate(streams[:3]):
        os.dup2(stream, at)
        os.close(stream)
    sys.stdin, sys.stdout = os.fdopen(0, encoding="utf-8"), os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8")
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["hotpatch", *arguments]
    try:
        main()
    except SystemExit as end:
        sys.stdout.flush()
        os.write(streams[3], bytes([end.code if isinstance(end.code, int) else 0]))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as asking:
        serve(asking)
