"""Files that this program writes: whole or not at all, and never over what it reads."""

from __future__ import annotations

from contextlib import suppress
from os import PathLike
from pathlib import Path

from hotpatch.errors import InputError, expect
from hotpatch.image import read_file
from hotpatch.patch.recognise import FileKind, kind_of


def check_output(path: str | PathLike[str], *, replaces: FileKind | None = None) -> Path:
    """Find out whether a result can go to ``path``, of what this program reads at most over a file of the kind that it ``replaces``.

    Raises:
        InputError: It names no file, is a folder or has none to be in, or a build, a PDB or a patch is there.
    """
    expect(path, (str, PathLike), "a path", "give a str or a Path")
    subject, target = str(path), Path(path)
    if not subject:
        raise InputError("", "names no file")
    try:
        if target.is_dir():
            raise InputError(subject, "cannot be written: is a folder; name a file")
        if not target.parent.is_dir():
            raise InputError(subject, f"cannot be written: there is no folder {target.parent}")
        found = kind_of(read_file(target)) if target.is_file() else None
    except (OSError, ValueError) as error:
        raise _unwritable(subject, error) from error
    if found not in (None, replaces):
        raise InputError(subject, f"is a {found} and stays as it is; write to another file")
    return target


def write_file(path: str | PathLike[str], data: bytes, *, replaces: FileKind | None = None) -> None:
    """Write a file whole or not at all.

    Raises:
        InputError: As :func:`check_output`, or it cannot be written.
    """
    target = check_output(path, replaces=replaces)
    partial = target.parent / f"{target.name}.partial"
    try:
        if target.exists() and not target.is_file():  # a device or a pipe, which a file must not take the place of
            target.write_bytes(data)
            return
        try:
            partial.write_bytes(data)
            partial.replace(target)
        except BaseException:  # an interrupt, too, leaves nothing behind
            with suppress(OSError, ValueError):
                partial.unlink()
            raise
    except (OSError, ValueError) as error:
        raise _unwritable(str(path), error) from error


def _unwritable(subject: str, error: OSError | ValueError) -> InputError:
    return InputError(subject, f"cannot be written: {getattr(error, 'strerror', None) or error}")
