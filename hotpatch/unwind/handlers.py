"""Language-specific handlers: which one an entry names, what data follows, and which fields of it refer to code.

Formats: ``SCOPE_TABLE_AMD64`` and its Arm64 twin (winnt.h) for ``__C_specific_handler``; for stack cookies a word with the cookie's
place in the frame and three flags, and two more words where the frame is aligned. C++ exception data is not carried.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind
from hotpatch.errors import NotHotpatchable, Refusal, Rule
from hotpatch.unwind.model import CarriedUnwind, Meaning, UnwindReference

if TYPE_CHECKING:
    from hotpatch.image import Function, Image, UnwindEntry

_I32 = struct.Struct("<i")
_SCOPE = struct.Struct("<IIII")
"""Begin, end, filter or finally block (1: always handle), target (0: a finally block); RVAs."""
_SCOPE_LIMIT = 4096
_HANDLE_ALWAYS = 1
_GS_HAS_ALIGNMENT = 4
_GS_FLAGS = 7
_GS_SIZE = 4
_GS_ALIGNED_SIZE = 12
_THUNK_SIZE = 16

_SCOPES = frozenset({"__C_specific_handler"})
_COOKIE = frozenset({"__GSHandlerCheck"})
_SCOPES_AND_COOKIE = frozenset({"__GSHandlerCheck_SEH", "__GSHandlerCheck_SEH_noexcept"})


def carry(image: Image, entry: UnwindEntry, info: int, size: int, frame: int) -> CarriedUnwind:
    """The unwind information at RVA ``info`` (``size`` bytes before the handler's RVA) with the handler and its data.

    ``frame``: bytes of stack that the prologue takes, by which a cookie's offset is told from an RVA.

    Raises:
        NotHotpatchable: The handler's data is of no format that can be carried (rule unwind-data).
    """
    handler = image.u32(info + size)
    data = info + size + 4
    references = [UnwindReference(size, Rva(handler), 0, FixupKind.ADDR32NB, Meaning.HANDLER)]
    length, scopes = _data(image, entry, handler, data, frame)
    function = image.function_at(entry.range.start)
    for at in scopes:
        references += _scope_references(image, function, entry, info, at)
    return CarriedUnwind(entry, image.read(info, size + 4 + length), tuple(references))


def handler_name(image: Image, handler: int) -> str | None:
    """What the handler at RVA ``handler`` is called, also where it is a thunk of an import."""
    function = image.function_at(handler)
    if function is None or function.entry != handler:
        return None
    if function.name is not None:
        return function.name
    if function.size > _THUNK_SIZE:
        return None
    slots = {image.imports_by_slot.get(Rva(reference.target)) for part in image.references(function) for reference in part}
    names = {slot.name for slot in slots if slot is not None}
    return names.pop() if len(names) == 1 else None


def _data(image: Image, entry: UnwindEntry, handler: int, data: int, frame: int) -> tuple[int, tuple[int, ...]]:
    """Bytes of the handler's data, and the RVAs of its scope entries."""
    name = handler_name(image, handler)
    if name in _COOKIE:
        return _cookie_size(image, data), ()
    if name in _SCOPES or name in _SCOPES_AND_COOKIE:
        scopes = _scopes(image, entry, data)
        if scopes is None:
            raise _refused(image, entry, name, image.read(data, _SCOPE.size))
        length = 4 + _SCOPE.size * len(scopes)
        return length + (_cookie_size(image, data + length) if name in _SCOPES_AND_COOKIE else 0), scopes
    if name is None:
        return _recognise(image, entry, data, frame)
    raise _refused(image, entry, name, image.read(data, _SCOPE.size))


def _recognise(image: Image, entry: UnwindEntry, data: int, frame: int) -> tuple[int, tuple[int, ...]]:
    """The data of a handler without a name, where its shape leaves no doubt."""
    extent = _extent(image, data)
    scopes = _scopes(image, entry, data)
    if scopes:
        length = 4 + _SCOPE.size * len(scopes)
        rest = extent - length
        if rest == 0:
            return length, scopes
        if rest == _cookie_size(image, data + length) and _is_cookie(image, data + length, frame):
            return extent, scopes
    elif extent == _cookie_size(image, data) and _is_cookie(image, data, frame):
        return extent, ()
    raise _refused(image, entry, None, image.read(data, min(extent, 32)))


def _cookie_size(image: Image, rva: int) -> int:
    return _GS_ALIGNED_SIZE if image.u32(rva) & _GS_HAS_ALIGNMENT else _GS_SIZE


def _is_cookie(image: Image, rva: int, frame: int) -> bool:
    """Whether the word at ``rva`` is a place in the frame (x64 counts up from its low end, Arm64 down from its top) and no RVA of data."""
    (value,) = _I32.unpack(image.read(rva, _I32.size).ljust(_I32.size, b"\0"))
    section = image.section_at(value)
    return -frame <= value & ~_GS_FLAGS < frame and (section is None or section.executable)


def _extent(image: Image, data: int) -> int:
    """Bytes from ``data`` to the next unwind information."""
    starts = sorted({entry.info for entry in image.unwind_entries if entry.info is not None})
    index = bisect_right(starts, data)
    section = image.section_at(data)
    end = section.range.end if section else data
    return (min(starts[index], end) if index < len(starts) else end) - data


def _scopes(image: Image, entry: UnwindEntry, data: int) -> tuple[int, ...] | None:
    """RVAs of the entries of a scope table at ``data``, or ``None`` where there is none for this function."""
    count = image.u32(data)
    function = image.function_at(entry.range.start)
    if not 1 <= count <= _SCOPE_LIMIT or function is None:
        return None
    found = tuple(data + 4 + _SCOPE.size * index for index in range(count))
    for at in found:
        raw = image.read(at, _SCOPE.size)
        if len(raw) < _SCOPE.size:
            return None
        begin, end, handler, target = _SCOPE.unpack(raw)
        inside = _place(function, begin) is not None and _place(function, end) is not None and begin <= end
        if not inside or not (handler == _HANDLE_ALWAYS or image.function_at(handler)) or (target and _place(function, target) is None):
            return None
    return found


def _scope_references(image: Image, function: Function | None, entry: UnwindEntry, info: int, at: int) -> list[UnwindReference]:
    begin, end, handler, target = _SCOPE.unpack(image.read(at, _SCOPE.size))
    fields = [(0, begin), (4, end), (8, 0 if handler == _HANDLE_ALWAYS else handler), (12, target)]
    found = []
    for offset, rva in fields:
        if not rva:
            continue
        place = _place(function, rva) if function else None
        behind = rva == handler and image.function_of_entry(rva) is not None
        if place is not None and not behind:
            reference = UnwindReference(at - info + offset, Rva(place), rva - place, FixupKind.ADDR32NB, Meaning.CODE)
        else:
            owner = image.function_at(rva)
            if owner is None or owner.entry != rva:
                raise _refused(image, entry, None, image.read(at, _SCOPE.size))
            reference = UnwindReference(at - info + offset, Rva(rva), 0, FixupKind.ADDR32NB, Meaning.HANDLER)
        found.append(reference)
    return found


def _place(function: Function, rva: int) -> int | None:
    """Start of the function's range that ``rva`` lies in or right behind."""
    return next((part.start for part in function.ranges if part.start <= rva <= part.end), None)


def _refused(image: Image, entry: UnwindEntry, name: str | None, data: bytes) -> NotHotpatchable:
    function = image.function_at(entry.range.start)
    handler = f"the handler {name}" if name else "a handler that has no name"
    reason = f"it has exception data for {handler}, of a form that cannot be carried; leave this function out of the patch."
    evidence: dict[str, object] = {"handler": name, "data": data.hex()}
    return NotHotpatchable([Refusal(Rule.UNWIND, function.name if function else None, entry.range.start, reason, evidence)])
