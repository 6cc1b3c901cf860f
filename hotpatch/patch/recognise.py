"""What a file is, of those that this program reads: told by how it begins, whatever else is wrong with it."""

from __future__ import annotations

from enum import StrEnum

from hotpatch.errors import InputError
from hotpatch.image.headers import check as check_headers
from hotpatch.patch.headers import SECTION_NAME

_PDB = b"Microsoft C/C++ MSF "
"""How a PDB begins."""


class FileKind(StrEnum):
    """Files that this program reads."""

    BUILD = "build"
    PATCH = "patch"
    PDB = "PDB"


def kind_of(data: bytes) -> FileKind | None:
    """What ``data`` is; ``None`` where it is nothing that this program reads."""
    if data.startswith(_PDB):
        return FileKind.PDB
    try:
        sections = check_headers(data, "").sections
    except InputError:
        return None
    return FileKind.PATCH if any(section.name == SECTION_NAME for section in sections) else FileKind.BUILD


def is_patch(data: bytes) -> bool:
    """Whether the bytes are a PE file with the section of our own (which may still be damaged)."""
    return kind_of(data) is FileKind.PATCH
