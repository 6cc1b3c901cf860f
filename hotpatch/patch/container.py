"""The section of our own, ``.hpfix``: what the public structures cannot say, in a versioned form (``docs/patch-format.md``).

A header of fixed size, then a MessagePack map. The header's digest covers the whole file but the fields that are written after it
(:func:`content_digest`), so no byte of code, data or description can change unnoticed; a signature appended later changes none of it.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Machine, Redirect
from hotpatch.errors import InputError, InputRule
from hotpatch.image.model import BaseIdentity
from hotpatch.patch.headers import CHECKSUM_AT, DIRECTORY, SECTION_NAME, SECURITY_AT, TIME_DATE_STAMP_AT
from hotpatch.patch.model import (
    Callback,
    Carried,
    CarriedKind,
    Fixup,
    Moment,
    PatchedFunction,
    PatchImport,
    Provenance,
    Space,
    Terms,
)

if TYPE_CHECKING:
    from hotpatch.patch.pe import PatchContents

MAGIC = b"HPFX"
VERSION = 1

_HEADER = struct.Struct("<4sHHII32s")
"""Magic, version, header size, body size, content size (all in bytes), digest."""
HEADER_SIZE = _HEADER.size
DIGEST_OFFSET = HEADER_SIZE - 32

KIND_CODES = {
    FixupKind.ADDR64: 1,
    FixupKind.ADDR32NB: 2,
    FixupKind.REL32: 3,
    FixupKind.BRANCH26: 4,
    FixupKind.PAGEBASE_REL21: 5,
    FixupKind.PAGEOFFSET_12A: 6,
    FixupKind.PAGEOFFSET_12L: 7,
    FixupKind.IMAGEREL_HIGH12A: 8,
    FixupKind.IMAGEREL_LOW12A: 9,
    FixupKind.IMAGEREL_LOW12L: 10,
}
"""The kinds that may leave a patch image, by their codes in the file; the others reach too little and are resolved within it."""
_KIND_OF_CODE = {code: kind for kind, code in KIND_CODES.items()}
SPACE_CODES = {Space.BASE: 0, Space.PATCH: 1}
_SPACE_OF_CODE = {code: space for space, code in SPACE_CODES.items()}


class _FixupRow(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    kind: int
    site: int
    space: int
    target: int
    addend: int


class _FunctionRow(msgspec.Struct, frozen=True):
    name: str | None
    base_rva: int
    patch_rva: int
    size: int
    redirect: str
    why: str
    entry_bytes: bytes
    padding_bytes: bytes


class _CarriedRow(msgspec.Struct, frozen=True):
    name: str | None
    patch_rva: int
    size: int
    kind: str


class _ImportRow(msgspec.Struct, frozen=True):
    library: str
    name: str | None
    ordinal: int | None
    slot: int


class _BaseRow(msgspec.Struct, frozen=True):
    time_date_stamp: int
    checksum: int
    size_of_image: int
    digest: str
    sha256: str


class _ProvenanceRow(msgspec.Struct, frozen=True):
    base_name: str
    base_sha256: str
    fixed_name: str
    fixed_sha256: str
    builder: str


class _CallbackRow(msgspec.Struct, frozen=True):
    moment: str
    patch_rva: int


class _TermsRow(msgspec.Struct, frozen=True):
    state_version: int
    obligatory: bool
    can_roll_back: bool


class _Body(msgspec.Struct, frozen=True):
    machine: str
    base: _BaseRow
    sequence: int
    functions: list[_FunctionRow]
    carried: list[_CarriedRow]
    fixups: list[_FixupRow]
    imports: list[_ImportRow]
    provenance: _ProvenanceRow
    overrides: list[str]
    callbacks: list[_CallbackRow]
    terms: _TermsRow


@dataclass(frozen=True, slots=True)
class Description:
    """What the section says, as the values of the model."""

    machine: Machine
    base: BaseIdentity
    sequence: int
    functions: tuple[PatchedFunction, ...]
    carried: tuple[Carried, ...]
    fixups: tuple[Fixup, ...]
    imports: tuple[PatchImport, ...]
    provenance: Provenance
    overrides: tuple[str, ...]
    callbacks: tuple[Callback, ...]
    terms: Terms


@dataclass(frozen=True, slots=True)
class Container:
    """The section as it stands: sizes in bytes, the digest, the body's bytes."""

    content_size: int
    digest: bytes
    body: bytes


def encode_body(contents: PatchContents) -> bytes:
    """The MessagePack body; the same contents always give the same bytes."""
    base, origin = contents.base, contents.provenance
    body = _Body(
        machine=contents.machine.value,
        base=_BaseRow(base.time_date_stamp, base.checksum, base.size_of_image, base.digest, base.sha256),
        sequence=contents.sequence,
        functions=[
            _FunctionRow(row.name, row.base_rva, row.patch_rva, row.size, row.redirect.value, row.why, row.entry_bytes, row.padding_bytes)
            for row in contents.functions
        ],
        carried=[_CarriedRow(row.name, row.patch_rva, row.size, row.kind.value) for row in contents.carried],
        fixups=[_FixupRow(KIND_CODES[row.kind], row.site, SPACE_CODES[row.space], row.target, row.addend) for row in contents.fixups],
        imports=[_ImportRow(row.library, row.name, row.ordinal, row.slot) for row in contents.imports],
        provenance=_ProvenanceRow(origin.base_name, origin.base_sha256, origin.fixed_name, origin.fixed_sha256, origin.builder),
        overrides=list(contents.overrides),
        callbacks=[_CallbackRow(row.moment.value, row.patch_rva) for row in contents.callbacks],
        terms=_TermsRow(contents.terms.state_version, contents.terms.obligatory, contents.terms.can_roll_back),
    )
    return msgspec.msgpack.encode(body)


def write_section(body: bytes, content_size: int, digest: bytes = bytes(32)) -> bytes:
    """The section's bytes."""
    return _HEADER.pack(MAGIC, VERSION, HEADER_SIZE, len(body), content_size, digest) + body


def content_digest(data: bytes, digest_at: int, content_size: int) -> bytes:
    """SHA-256 of the first ``content_size`` bytes of a file; stamp, checksum, certificate entry and digest count as zero."""
    covered = bytearray(data[:content_size])
    for at, size in ((TIME_DATE_STAMP_AT, 4), (CHECKSUM_AT, 4), (SECURITY_AT, DIRECTORY.size), (digest_at, 32)):
        covered[at : at + size] = bytes(size)
    return hashlib.sha256(covered).digest()


def time_stamp(digest: bytes) -> int:
    """The COFF TimeDateStamp that goes with a digest: its first four bytes, never 0."""
    return int.from_bytes(digest[:4], "little") or 1


def damaged(name: str, problem: str) -> InputError:
    """A patch file that is not as it was written: what is wrong with it, and what to do."""
    return InputError(name, f"damaged patch: {problem}; get it anew, or build it anew", InputRule.DAMAGED)


def read_section(section: bytes, name: str) -> Container:
    """Take the section apart.

    Raises:
        InputError: It is not such a section, is of a newer version, or is truncated.
    """
    if len(section) < HEADER_SIZE:
        raise damaged(name, f"{SECTION_NAME} has {len(section)} bytes, its header needs {HEADER_SIZE}")
    magic, version, header_size, body_size, content_size, digest = _HEADER.unpack_from(section)
    if magic != MAGIC:
        raise damaged(name, f"{SECTION_NAME} begins with {magic.hex()}, expected {MAGIC.hex()}")
    if version != VERSION:
        what = f"patch format version {version}, and this program reads version {VERSION}; build the patch anew"
        raise InputError(name, what, InputRule.PATCH_VERSION)
    if header_size != HEADER_SIZE or header_size + body_size > len(section):
        raise damaged(name, f"{SECTION_NAME} needs {header_size} + {body_size} bytes and has {len(section)}")
    return Container(content_size, digest, section[header_size : header_size + body_size])


def decode_body(body: bytes, name: str) -> Description:
    """Read the body.

    Raises:
        InputError: It is not MessagePack of the right shape, or uses a name or code that this version does not know.
    """
    try:
        row = msgspec.msgpack.decode(body, type=_Body)
        return Description(
            machine=Machine(row.machine),
            base=BaseIdentity(row.base.time_date_stamp, row.base.checksum, row.base.size_of_image, row.base.digest, row.base.sha256),
            sequence=row.sequence,
            functions=tuple(
                PatchedFunction(
                    item.name,
                    Rva(item.base_rva),
                    Rva(item.patch_rva),
                    item.size,
                    Redirect(item.redirect),
                    item.why,
                    item.entry_bytes,
                    item.padding_bytes,
                )
                for item in row.functions
            ),
            carried=tuple(Carried(item.name, Rva(item.patch_rva), item.size, CarriedKind(item.kind)) for item in row.carried),
            fixups=tuple(
                Fixup(_KIND_OF_CODE[item.kind], Rva(item.site), _SPACE_OF_CODE[item.space], Rva(item.target), item.addend)
                for item in row.fixups
            ),
            imports=tuple(PatchImport(item.library, item.name, item.ordinal, Rva(item.slot)) for item in row.imports),
            provenance=Provenance(
                row.provenance.base_name,
                row.provenance.base_sha256,
                row.provenance.fixed_name,
                row.provenance.fixed_sha256,
                row.provenance.builder,
            ),
            overrides=tuple(row.overrides),
            callbacks=tuple(Callback(Moment(item.moment), Rva(item.patch_rva)) for item in row.callbacks),
            terms=Terms(row.terms.state_version, row.terms.obligatory, row.terms.can_roll_back),
        )
    except (msgspec.MsgspecError, ValueError, KeyError, RecursionError) as error:
        raise damaged(name, f"the description in {SECTION_NAME} cannot be read ({error})") from error
