"""x64: writing an address into a field and reading it back."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.arch.common import out_of_reach
from hotpatch.arch.model import FixupKind
from hotpatch.errors import HotpatchError

if TYPE_CHECKING:
    from hotpatch.arch.model import Columns


@dataclass(frozen=True, slots=True)
class _Field:
    """One little-endian integer; ``lowest`` to ``highest`` is what it may hold, in bytes."""

    size: int
    lowest: int
    highest: int


_FIELDS = {
    FixupKind.ADDR64: _Field(8, 0, 2**64 - 1),
    # A displacement is sign-extended and a table entry zero-extended: only what means the same in both is taken.
    FixupKind.ADDR32NB: _Field(4, 0, 2**31 - 1),
    FixupKind.REL32: _Field(4, -(2**31), 2**31 - 1),
    FixupKind.REL8: _Field(1, -(2**7), 2**7 - 1),
}


_STORES = {kind: struct.Struct({8: "<Q", 4: "<I", 1: "<B"}[field.size]).pack_into for kind, field in _FIELDS.items()}


def _field(kind: FixupKind) -> _Field:
    try:
        return _FIELDS[kind]
    except KeyError:
        raise HotpatchError(f"x64 code has no fields of kind {kind}") from None


def _origin(kind: FixupKind, site: int, size: int, image_base: int) -> int:
    """What the number in the field is relative to."""
    if kind is FixupKind.ADDR64:
        return 0
    return image_base if kind is FixupKind.ADDR32NB else site + size


def field_size(kind: FixupKind) -> int:
    """Bytes that a field of ``kind`` takes.

    Raises:
        HotpatchError: x64 has no such field.
    """
    return _field(kind).size


def bind(kind: FixupKind, site: int, target: int, image_base: int = 0) -> bytes:
    """The field at address ``site`` that refers to ``target`` (addend included).

    Raises:
        OutOfReach: The distance does not fit.
        HotpatchError: x64 has no such field.
    """
    field = _field(kind)
    value = target - _origin(kind, site, field.size, image_base)
    if not field.lowest <= value <= field.highest:
        raise out_of_reach(site, target, f"{field.lowest} to {field.highest} bytes", f"a {kind} field")
    return value.to_bytes(field.size, "little", signed=field.lowest < 0)


def resolve(kind: FixupKind, field: bytes, site: int, image_base: int = 0) -> int:
    """What ``field`` at address ``site`` refers to (addend included).

    Raises:
        HotpatchError: x64 has no such field, or ``field`` has another length.
    """
    layout = _field(kind)
    if len(field) != layout.size:
        raise HotpatchError(f"a {kind} field takes {layout.size} bytes, not {len(field)}")
    return int.from_bytes(field, "little", signed=layout.lowest < 0) + _origin(kind, site, layout.size, image_base)


def blank(code: bytes, references: Columns) -> bytes:
    """``code`` with the field of each of ``references`` zeroed."""
    masked = bytearray(code)
    for offset, (_, field, kind, _, _) in zip(*references, strict=True):
        _STORES[kind](masked, offset + field, 0)
    return bytes(masked)
