"""Reading a file that a user named: its bytes, or what is wrong with it."""

from __future__ import annotations

import os
import stat
from os import PathLike
from pathlib import Path

from hotpatch.errors import InputError, InputRule, expect

_OTHERS = {stat.S_IFCHR: "device", stat.S_IFBLK: "device", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}


def read_file(path: str | PathLike[str], *, pipe: bool = False) -> bytes:
    """The bytes of the file at ``path``, whatever they are; ``pipe``: also of a pipe, up to when its other end is closed.

    Raises:
        InputError: It is missing, unreadable, a folder, a device, or a pipe where none is taken; the message names it as it was given.
    """
    expect(path, (str, PathLike), "a path", "give a str or a Path")
    subject = str(path)
    if not subject:
        raise InputError(subject, "names no file; give a path", InputRule.NO_FILE)
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(subject, "is a folder, not a file; name a file in it", InputRule.NOT_A_FILE)
        if not (stat.S_ISREG(mode) or (pipe and stat.S_ISFIFO(mode)) or subject == os.devnull):  # a device may never end
            raise InputError(
                subject,
                f"is a {_OTHERS.get(stat.S_IFMT(mode), 'special file')}, not a regular file; give a copy of it as a file",
                InputRule.NOT_A_FILE,
            )
        return Path(path).read_bytes()
    except OSError as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        rule = InputRule.NO_FILE if missing else InputRule.UNREADABLE
        raise InputError(subject, f"{error.strerror or error}; give a file that can be read", rule) from error
    except ValueError as error:  # an embedded NUL
        raise InputError(repr(subject), f"is no path ({error}); give one without it", InputRule.NO_FILE) from error
