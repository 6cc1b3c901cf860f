"""From a path to an image: the file, the PDB beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.errors import InputError, InputRule
from hotpatch.image import pdb as pdb_files
from hotpatch.image.files import read_file
from hotpatch.image.image import Image, refuse_hybrid
from hotpatch.image.model import Symbols
from hotpatch.image.parse import parse

if TYPE_CHECKING:
    from os import PathLike

AUTO = "auto"


def open_image(path: str | PathLike[str], *, pdb: str | PathLike[str] | None = AUTO) -> Image:
    """Read the PE file at ``path``.

    ``pdb``: ``"auto"`` uses a PDB beside the image whose GUID and age match, ``None`` uses none, a path uses that file.

    Raises:
        InputError: The file or the PDB cannot be read or used; the message names it and says what is wrong.
        Refused: It holds code for two machines (rule hybrid-image).
    """
    subject = str(path)
    data = read_file(path)
    parsed = parse(data, subject)
    refuse_hybrid(parsed.hybrid, subject)
    found: str | None = None
    other: str | None = None
    symbols: Symbols | None = Symbols()
    if pdb == AUTO:
        found, symbols = pdb_files.find(subject, parsed.pdb, parsed.size_of_image)
        if found is None:
            other = next(map(str, pdb_files.beside(subject, parsed.pdb)), None)
    elif pdb is not None:
        found = str(pdb)
        symbols = pdb_files.load(found, parsed.pdb, parsed.size_of_image)
        if symbols is None:
            raise InputError(
                found, f"is not the PDB of {subject} (its GUID or age differs); give the one of that build", InputRule.WRONG_PDB
            )
    return Image(subject, data, parsed, symbols or Symbols(), found, other)
