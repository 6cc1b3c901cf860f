"""Reading a patch file back: whole, authentic, and making sense, or an error that says what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.errors import InputError, InputRule, Refused
from hotpatch.image import Image, read_file
from hotpatch.image.headers import check as check_headers
from hotpatch.patch.checks import objections
from hotpatch.patch.container import DIGEST_OFFSET, content_digest, damaged, decode_body, read_section, time_stamp
from hotpatch.patch.headers import CHECKSUM_AT, LFANEW, SECTION_NAME, SECURITY_AT, TIME_DATE_STAMP_AT, pe_checksum
from hotpatch.patch.model import Patch

if TYPE_CHECKING:
    from os import PathLike


def load(path: str | PathLike[str]) -> Patch:
    """Read a patch file.

    Raises:
        InputError: The file is missing, unreadable, no patch of this project, or damaged.
        Refused: What it says contradicts itself (rule malformed-patch).
    """
    return loads(read_file(path), str(path))


def loads(data: bytes, name: str) -> Patch:
    """Read a patch file's bytes; ``name`` stands in errors. Raises as :func:`load`."""
    container_at, section = _own_section(data, name)
    container = read_section(section, name)
    _check_content(data, container.content_size, container_at, container.digest, name)
    told = decode_body(container.body, name)
    patch = Patch(
        machine=told.machine,
        base=told.base,
        sequence=told.sequence,
        functions=told.functions,
        carried=told.carried,
        fixups=told.fixups,
        imports=told.imports,
        provenance=told.provenance,
        overrides=told.overrides,
        data=data,
        image=Image.from_bytes(data, name=name),
        callbacks=told.callbacks,
        terms=told.terms,
    )
    found = objections(patch)
    if found:
        raise Refused(found)
    return patch


def save(patch: Patch, path: str | PathLike[str]) -> None:
    """Write a patch file.

    Raises:
        InputError: It cannot be written.
    """
    patch.save(path)


def _own_section(data: bytes, name: str) -> tuple[int, bytes]:
    sections = check_headers(data, name).sections
    own = next((section for section in sections if section.name == SECTION_NAME), None)
    if own is None:
        raise InputError(name, f"is no hot patch (it has no section {SECTION_NAME}); give what hotpatch build wrote", InputRule.NO_PATCH)
    if int.from_bytes(data[0x3C:0x40], "little") != LFANEW:
        raise damaged(name, f"its PE header is not at 0x{LFANEW:x}")
    return own.offset, data[own.offset : own.offset + min(own.virtual_size, own.raw_size)]


def _check_content(data: bytes, size: int, container_at: int, digest: bytes, name: str) -> None:
    """Every byte is accounted for: content up to ``size``, then nothing or the certificate table that the security directory names."""
    certificates, length = (int.from_bytes(data[at : at + 4], "little") for at in (SECURITY_AT, SECURITY_AT + 4))
    if size > len(data) or (certificates, length) not in {(0, 0), (size, len(data) - size)} or (not length and len(data) != size):
        raise damaged(name, f"{len(data)} bytes, of which its description accounts for {size + length}")
    found = content_digest(data, container_at + DIGEST_OFFSET, size)
    if found != digest:
        raise damaged(name, f"SHA-256 of its content is {found.hex()[:16]}…, expected {digest.hex()[:16]}…")
    stamp = int.from_bytes(data[TIME_DATE_STAMP_AT : TIME_DATE_STAMP_AT + 4], "little")
    if stamp != time_stamp(digest):
        raise damaged(name, f"TimeDateStamp is 0x{stamp:08x}, expected 0x{time_stamp(digest):08x}")
    checksum = int.from_bytes(data[CHECKSUM_AT : CHECKSUM_AT + 4], "little")
    if checksum != pe_checksum(data):
        raise damaged(name, f"CheckSum is 0x{checksum:x}, expected 0x{pe_checksum(data):x}")
