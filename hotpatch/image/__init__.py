"""One PE file, read once and never changed: sections, functions with their bounds, symbols, relocations, imports, load configuration."""

from __future__ import annotations

from hotpatch.image.files import read_file
from hotpatch.image.headers import DOS_HEADER_SIZE
from hotpatch.image.identity import digest, normalise
from hotpatch.image.image import Image
from hotpatch.image.model import (
    BaseIdentity,
    Datum,
    DatumSource,
    Export,
    Function,
    FunctionSource,
    Hybrid,
    Import,
    InlineSite,
    LoadConfiguration,
    Range,
    Section,
    SectionFlags,
    Symbols,
    TlsDirectory,
    UnwindEntry,
    UnwindSteps,
)
from hotpatch.image.opening import open_image

__all__ = [
    "DOS_HEADER_SIZE",
    "BaseIdentity",
    "Datum",
    "DatumSource",
    "Export",
    "Function",
    "FunctionSource",
    "Hybrid",
    "Image",
    "Import",
    "InlineSite",
    "LoadConfiguration",
    "Range",
    "Section",
    "SectionFlags",
    "Symbols",
    "TlsDirectory",
    "UnwindEntry",
    "UnwindSteps",
    "digest",
    "normalise",
    "open_image",
    "read_file",
]
