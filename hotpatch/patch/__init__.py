"""The patch: a value, its file form (a PE image), and the public hot patch structures of any image."""

from hotpatch.patch.headers import SECTION_NAME
from hotpatch.patch.imports import ImportTable, import_table
from hotpatch.patch.info import HotPatchBase, HotPatchInfo, hot_patch_info
from hotpatch.patch.layout import ChunkType
from hotpatch.patch.model import (
    ORIGINAL_PREFIX,
    SUPPORT_LIBRARY,
    Callback,
    Carried,
    CarriedKind,
    Fixup,
    Moment,
    Patch,
    PatchedFunction,
    PatchImport,
    Provenance,
    Space,
    Terms,
)
from hotpatch.patch.output import check_output, write_file, writing
from hotpatch.patch.pe import IMAGE_BASE, SECTION_ALIGNMENT, PatchContents, PatchSection, write_patch
from hotpatch.patch.reader import load, loads, save
from hotpatch.patch.recognise import FileKind, is_patch
from hotpatch.patch.records import Record

__all__ = [
    "IMAGE_BASE",
    "ORIGINAL_PREFIX",
    "SECTION_ALIGNMENT",
    "SECTION_NAME",
    "SUPPORT_LIBRARY",
    "Callback",
    "Carried",
    "CarriedKind",
    "ChunkType",
    "FileKind",
    "Fixup",
    "HotPatchBase",
    "HotPatchInfo",
    "ImportTable",
    "Moment",
    "Patch",
    "PatchContents",
    "PatchImport",
    "PatchSection",
    "PatchedFunction",
    "Provenance",
    "Record",
    "Space",
    "Terms",
    "check_output",
    "hot_patch_info",
    "import_table",
    "is_patch",
    "load",
    "loads",
    "save",
    "write_file",
    "write_patch",
    "writing",
]
