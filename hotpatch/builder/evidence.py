"""What a refusal shows of an image: the instruction and its bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hotpatch.builder.model import Site
    from hotpatch.image import Image


def advice(base: Image, fixed: Image) -> str:
    """What to do about a reference that is not resolved: symbols can tell more, where they are not known yet."""
    leave_out = "leave this function out with --except"
    return leave_out if base.has_symbols and fixed.has_symbols else f"build both images with PDBs, or {leave_out}"


def instruction_evidence(image: Image, rva: int, size: int) -> dict[str, object]:
    """Bytes and text of the instruction at ``rva``; no text where that is a pointer in data."""
    code, section = image.read(rva, size), image.section_at(rva)
    is_code = section is not None and image.holds_code(section)
    first = next(iter(image.architecture.disassemble(code, rva)), None) if is_code else None
    text = f"{first.mnemonic} {first.operands}".rstrip() if first else None
    return {"rva": int(rva), "bytes": code.hex(), "instruction": text}


def site_evidence(image: Image, site: Site) -> dict[str, object]:
    """The same of a reference, with how and what it refers to."""
    return {
        "image": "fixed",
        **instruction_evidence(image, site.instruction, site.size),
        "kind": site.kind.value,
        "target": int(site.target),
    }
