"""Files that this program writes: whole or not at all, and never over what it reads."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from hotpatch.errors import InputError, InputRule, expect, printable
from hotpatch.image import read_file
from hotpatch.patch.recognise import FileKind, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_output(path: str | PathLike[str], *, replaces: FileKind | None = None) -> Path:
    """Find out whether a result can go to ``path``, of what this program reads at most over a file of the kind that it ``replaces``.

    Raises:
        InputError: It names no file, is a folder or has none to be in, or a build, a PDB or a patch is there.
    """
    expect(path, (str, PathLike), "a path", "give a str or a Path")
    subject, target = str(path), Path(path)
    if not subject:
        raise InputError("", "names no file; give a path", InputRule.OUTPUT)
    with _unwritable_where_it_fails(subject):
        if target.is_dir():
            raise InputError(subject, "cannot be written: is a folder; name a file", InputRule.OUTPUT)
        if not target.parent.is_dir():
            raise InputError(
                subject, f"cannot be written: there is no folder {printable(str(target.parent))}; make it first", InputRule.OUTPUT
            )
        found = kind_of(read_file(target)) if target.is_file() else None
    if found not in (None, replaces):
        raise InputError(subject, f"is a {found} and stays as it is; write to another file", InputRule.OUTPUT)
    return target


def write_file(path: str | PathLike[str], data: bytes, *, replaces: FileKind | None = None) -> None:
    """Write a file whole or not at all.

    Raises:
        InputError: As :func:`check_output`, or it cannot be written.
    """
    with writing(path, data, replaces=replaces):
        pass


@contextmanager
def writing(path: str | PathLike[str], data: bytes, *, replaces: FileKind | None = None) -> Iterator[None]:
    """Write a file whole once the block has ended well; where that raises, for an interrupt too, all stays as it was.

    What goes to a device or into a pipe cannot be taken back, so that it is written before the block tells of it.

    Raises:
        InputError: As :func:`check_output`, or it cannot be written.
    """
    target = check_output(path, replaces=replaces)
    if target.exists() and not target.is_file():  # a device or a pipe, which a file must not take the place of
        with _unwritable_where_it_fails(str(path)):
            target.write_bytes(data)
        yield
        return
    partial = target.parent / f"{target.name}.partial"
    try:
        with _unwritable_where_it_fails(str(path)):
            partial.write_bytes(data)
        yield
        with _unwritable_where_it_fails(str(path)):
            partial.replace(target)
    finally:
        with suppress(OSError, ValueError):
            partial.unlink()


@contextmanager
def _unwritable_where_it_fails(subject: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(subject, f"cannot be written: {why}; name a file that can be", InputRule.OUTPUT) from error
