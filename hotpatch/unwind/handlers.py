"""Language-specific handlers: which one an entry names, what data follows, and which fields of it refer to code.

Formats: ``SCOPE_TABLE_AMD64`` and its Arm64 twin (winnt.h) for ``__C_specific_handler``; for stack cookies a word with the cookie's
place in the frame and three flags, and two more words where the frame is aligned. C++ functions have the RVA of their tables
(:mod:`hotpatch.unwind.cxx`), in front of a cookie's data where there is one.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Use
from hotpatch.errors import NotHotpatchable, Refusal, Rule
from hotpatch.unwind import cxx
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
_MAP_ALIGNMENTS = (8, 16)
_THUNK_SIZE = 16
_CHECK_SIZE = 64

_SCOPES = frozenset({"__C_specific_handler"})
_COOKIE = frozenset({"__GSHandlerCheck"})
_CXX = {
    "__CxxFrameHandler3": (3, False),
    "__GSHandlerCheck_EH": (3, True),
    "__CxxFrameHandler4": (4, False),
    "__GSHandlerCheck_EH4": (4, True),
}
"""Version of the tables that the handler reads, and whether it checks a stack cookie, whose data follow."""
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
    version, guarded = _cxx_form(image, handler)
    if version is None and handler_name(image, handler) is None:
        version, guarded = _cxx_shape(image, entry, data)
        if version is None:
            version, guarded = _cxx_of_others(image, entry)
    if version is not None:
        return _carry_cxx(image, entry, info, size, references[0], version, guarded=guarded)
    length, scopes = _data(image, entry, handler, data, frame)
    function = image.function_at(entry.range.start)
    for at in scopes:
        references += _scope_references(image, function, entry, info, at)
    return CarriedUnwind(entry, image.read(info, size + 4 + length), tuple(references))


def _cxx_form(image: Image, handler: int) -> tuple[int | None, bool]:
    """Which version of C++ tables the handler at RVA ``handler`` reads (``None``: another handler), and whether it checks a cookie too.

    Without a name, a handler that calls the frame handler of a version is the one that checks the cookie first.
    """
    name = handler_name(image, handler)
    if name is not None:
        return _CXX.get(name, (None, False))
    versions = {_CXX[called] for called in _called(image, handler) if called in _CXX}
    return (next(iter(versions))[0], True) if len(versions) == 1 else (None, False)


def _cxx_shape(image: Image, entry: UnwindEntry, data: int) -> tuple[int | None, bool]:
    """The same for a handler without a name that calls none with one (linked statically), where its data leaves no doubt."""
    func_info = image.u32(data)
    guarded = _has_cookie(image, data)
    if guarded is None:
        return None, False
    if cxx.is_version_3(image, func_info):
        return 3, guarded
    try:
        tables = cxx.carry(image, entry, func_info, 4)
    except cxx.Malformed:
        return None, False
    calls = any(reference.meaning in (Meaning.HANDLER, Meaning.CALLEE) for reference in tables.references)
    return (4, guarded) if calls else (None, False)


def _cxx_of_others(image: Image, entry: UnwindEntry) -> tuple[int | None, bool]:
    """The same where the data of another function with this handler leave no doubt, and those of ``entry`` are of that form, too.

    Tables of functions that must not throw name nothing that is called, so that by themselves they could be anything.
    """
    data, known = entry.handler_data, image.kept(_shapes)
    if entry.handler is None:
        return None, False
    if entry.handler not in known:
        found = ((other, other.handler_data) for other in image.unwind_entries_by_handler[entry.handler])
        shapes = (_cxx_shape(image, other, there) for other, there in found if there is not None)
        known[entry.handler] = next((shape for shape in shapes if shape[0] is not None), (None, False))
    version, guarded = known[entry.handler]
    if version is None or data is None or _has_cookie(image, data) is not guarded:
        return None, False
    try:
        cxx.carry(image, entry, image.u32(data), version)
    except cxx.Malformed:
        return None, False
    return version, guarded


def _shapes(_image: Image) -> dict[Rva, tuple[int | None, bool]]:
    """By handler: what the first of its functions' data that leave no doubt are."""
    return {}


def _has_cookie(image: Image, data: int) -> bool | None:
    """Whether a cookie's word follows the one that leads to ``FuncInfo``; ``None`` where something else does."""
    func_info = image.u32(data)
    maps = cxx.maps_of_version_3(image, func_info)
    size = min([_extent(image, data), *(start - data for start in (func_info, *maps) if start > data)])
    if data + size in maps:
        size = _without_filler(image, data, size)
    if size == _I32.size:
        return False
    return True if size == _I32.size + _cookie_size(image, data + _I32.size) else None


def _without_filler(image: Image, data: int, size: int) -> int:
    """``size`` of the data at ``data`` without the zeros that align the map behind it; a cookie's word may be zero and stays."""
    filled = len(image.read(data, size).rstrip(b"\0"))
    own = max(-(-filled // _I32.size) * _I32.size, min(size, 2 * _I32.size))
    return own if any(own < size == own + -(data + own) % alignment for alignment in _MAP_ALIGNMENTS) else size


def _called(image: Image, handler: int) -> frozenset[str | None]:
    """The names of what the function at RVA ``handler`` calls or jumps to; ``None`` for what has none."""
    function = image.function_of_entry(Rva(handler))
    found: set[str | None] = set()
    for reference in (item for part in image.references(function) for item in part) if function is not None else ():
        slot = image.imports_by_slot.get(Rva(reference.target))
        if slot is not None:
            found.add(slot.name)
        elif reference.use is not Use.DATA and image.function_at(reference.target) is not function:
            found.add(handler_name(image, reference.target))
    return frozenset(found)


def _ignores_data(image: Image, handler: int) -> bool:
    """Whether the handler never looks at its fourth argument, by which it would find its data, and calls nobody."""
    function = image.function_of_entry(Rva(handler))
    if function is None or len(function.ranges) > 1:
        return False
    (part,) = function.ranges
    return image.architecture.never_reads(image.code(part), part.start, 0, image.architecture.convention.integer_arguments[3])


def _carry_cxx(
    image: Image, entry: UnwindEntry, info: int, size: int, handler: UnwindReference, version: int, *, guarded: bool
) -> CarriedUnwind:
    """The unwind information of a C++ function with its tables behind it."""
    data = info + size + 4
    length = size + 8 + (_cookie_size(image, data + 4) if guarded else 0)
    try:
        tables = cxx.carry(image, entry, image.u32(data), version)
    except cxx.Malformed as problem:
        raise _refused(image, entry, handler_name(image, int(handler.target)), image.read(data, _SCOPE.size), str(problem)) from problem
    raw = image.read(info, length)
    start = length + -length % 4
    references = [handler, UnwindReference(size + 4, Rva(info), start + tables.first, FixupKind.ADDR32NB, Meaning.INFO)]
    for reference in tables.references:
        addend = reference.addend + (start if reference.meaning is Meaning.INFO else 0)
        references.append(replace(reference, offset=start + reference.offset, addend=addend))
    return CarriedUnwind(entry, raw + bytes(start - length) + tables.data, tuple(references))


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
        try:
            return _recognise(image, entry, data, frame, is_cookie=_only_checks_cookie(image, handler))
        except NotHotpatchable:
            if not _ignores_data(image, handler):
                raise
            return _extent(image, data), ()
    raise _refused(image, entry, name, image.read(data, _SCOPE.size))


def _only_checks_cookie(image: Image, handler: int) -> bool:
    """Whether a handler without a name is as short as ``__GSHandlerCheck`` and calls one function, as short and without a name itself."""
    function = image.function_of_entry(Rva(handler))
    return function is not None and function.size <= _CHECK_SIZE and _called(image, handler) == {None}


def _recognise(image: Image, entry: UnwindEntry, data: int, frame: int, *, is_cookie: bool) -> tuple[int, tuple[int, ...]]:
    """The data of a handler without a name, where its shape leaves no doubt; ``is_cookie`` where the handler says so."""
    place = _I32.unpack(image.read(data, _I32.size).ljust(_I32.size, b"\0"))[0] & ~_GS_FLAGS
    if is_cookie and -frame <= place < frame and not place % 8:
        return _cookie_size(image, data), ()
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
    starts = image.unwind_infos
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


def _refused(image: Image, entry: UnwindEntry, name: str | None, data: bytes, problem: str = "") -> NotHotpatchable:
    function = image.function_at(entry.range.start)
    handler = f"the handler {name}" if name else "a handler that has no name"
    why = f" ({problem})" if problem else ""
    reason = f"it has exception data for {handler}, of a form that cannot be carried{why}; leave this function out of the patch"
    evidence: dict[str, object] = {"handler": name, "data": data.hex()}
    return NotHotpatchable([Refusal(Rule.UNWIND, function.name if function else None, entry.range.start, reason, evidence)])
