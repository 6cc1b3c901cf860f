"""Files as users name them: opened, and of the machine that the others are for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hotpatch.errors import InputError, InputRule

if TYPE_CHECKING:
    from hotpatch.cli.console import Output
    from hotpatch.image import Image
    from hotpatch.patch import Patch

_Opened = TypeVar("_Opened", "Image", "Patch")


def open_pair(base: str, fixed: str, out: Output) -> tuple[Image, Image]:
    """Two builds for one machine; a PDB that does not belong to one of them, and is not used, is told to ``out``.

    Raises:
        InputError: A file cannot be used or is a patch, or they are for two machines.
    """
    from hotpatch.api import expect_builds, open

    first = open(base)
    second = open_for(fixed, first, base)
    expect_builds(first, second)
    for image, path in ((first, base), (second, fixed)):
        warn_of_other_pdb(image, path, out)
    return first, second


def warn_of_other_pdb(image: Image, path: str, out: Output) -> None:
    """Say that the PDB beside ``image``, typed as ``path``, is another build's: without its names much less is known."""
    if image.other_pdb:
        out.warn(f"{image.other_pdb} lies beside {path} but is another build's (its GUID or age differs), so it is not used")


def open_for(path: str, image: Image, image_path: str) -> Image:
    """The image at ``path``, which must be for the machine of ``image``, typed as ``image_path``.

    Raises:
        InputError: The file cannot be used, or is for another machine.
    """
    from hotpatch.api import open

    return _for_one_machine(open(path), path, "is", image, image_path)


def open_program(path: str) -> Image:
    """The image at ``path``, of which a process is made.

    Raises:
        InputError: The file cannot be used, or is a patch.
    """
    from hotpatch.api import open

    return _no_patch(open(path), path, "give the build that it is for, and the patch with --patch")


def open_module(path: str, image: Image, image_path: str) -> Image:
    """The image at ``path``, another module of the process of ``image``, which was typed as ``image_path``.

    Raises:
        InputError: The file cannot be used, is for another machine, or is a patch.
    """
    return _no_patch(open_for(path, image, image_path), path, "give DLLs of the program")


def _no_patch(image: Image, path: str, advice: str) -> Image:
    from hotpatch.patch import is_patch

    if is_patch(image.data):
        raise InputError(path, f"is a hot patch, which goes into a process and makes none; {advice}", InputRule.NO_IMAGE)
    return image


def load_for(path: str, image: Image, image_path: str) -> Patch:
    """The patch at ``path``, which must be for the machine of ``image``, typed as ``image_path``.

    Raises:
        InputError: The file cannot be used, or is for another machine.
    """
    from hotpatch.api import load

    return _for_one_machine(load(path), path, "is a patch", image, image_path)


def _for_one_machine(opened: _Opened, path: str, what: str, image: Image, image_path: str) -> _Opened:
    if opened.machine is not image.machine:
        raise InputError(
            path, f"{what} for {opened.machine}, but {image_path} is for {image.machine}; take files for one machine", InputRule.MACHINE
        )
    return opened


def contents(path: str | None) -> bytes:
    """What the file at ``path`` holds; nothing where there is none.

    Raises:
        InputError: It cannot be read.
    """
    from hotpatch.image import read_file

    return b"" if path is None else read_file(path, pipe=True)


def path_of(text: str) -> Path:
    """``text`` as a path; an empty one would be the current folder.

    Raises:
        InputError: It is empty.
    """
    if not text:
        raise InputError(text, "names no file; give a path", InputRule.NO_FILE)
    return Path(text)
