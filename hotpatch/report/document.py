"""What all documents are made of."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Machine = Literal["x64", "arm64"]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all documents and their parts."""


class RefusalDocument(Document, frozen=True, kw_only=True):
    """Why something was not done."""

    rule: str
    function: str | None
    rva: int | None
    reason: str
    evidence: dict[str, Any]
