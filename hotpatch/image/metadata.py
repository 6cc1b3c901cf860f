"""Where an image keeps what the loader, the debugger and the unwinder read, as opposed to data of the program.

Linkers put these structures among the program's constants; knowing where they begin tells where a constant must end. Layouts: PE format,
"Optional Header Data Directories", "Debug Directory", "The .idata Section".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.image.funclets import MAGIC_MASK, MAGICS
from hotpatch.image.headers import check
from hotpatch.image.model import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.image.image import Image

_IMPORT, _CERTIFICATES, _DEBUG, _DELAY_IMPORT = 1, 4, 6, 13
_DEBUG_ENTRY = struct.Struct("<16xIII")
"""``IMAGE_DEBUG_DIRECTORY``: SizeOfData, AddressOfRawData, PointerToRawData."""
_DESCRIPTOR = struct.Struct("<I8xII")
"""``IMAGE_IMPORT_DESCRIPTOR``: OriginalFirstThunk, Name, FirstThunk."""
_DELAY_DESCRIPTOR = struct.Struct("<4xI24x")
"""``IMAGE_DELAYLOAD_DESCRIPTOR``: DllNameRVA."""
_FUNC_INFO, _FUNC_INFO_SIZE = struct.Struct("<IiIIIII"), 40
"""``FuncInfo`` (``ehdata.h`` of Visual C++): magic, then number and place of states, try blocks, states by address; bytes of all of it."""
_LONGEST_NAME = 260
_THUNK = struct.Struct("<Q")
_BY_ORDINAL = 1 << 63
UNWIND_HEAD = 4
"""Bytes of unwind information that :func:`metadata` knows of; how long it is depends on the machine."""
_LIMIT = 0x10000
"""Entries of one table that are looked at."""


def metadata(image: Image) -> tuple[Range, ...]:
    """The ranges of data directories and of what they lead to, sorted; they may overlap. What has no known size is given one byte."""
    directories = check(image.data, image.path).directories
    found = {Range(Rva(rva), Rva(rva + size)) for index, (rva, size) in enumerate(directories) if rva and size and index != _CERTIFICATES}
    found.update([Range(info, Rva(info + UNWIND_HEAD)) for info in image.unwind_infos])
    found.update(exception_tables(image))
    if len(directories) > _DEBUG:
        found.update(_debug(image, *directories[_DEBUG]))
    if len(directories) > _IMPORT:
        found.update(_imports(image, *directories[_IMPORT]))
    return tuple(sorted(found))


def exception_tables(image: Image) -> Iterator[Range]:
    """``FuncInfo`` of version 3 of all functions, with the maps that it leads to: linkers lay those of a library among its constants."""
    handled = {entry.handler_data for entry in image.unwind_entries if entry.handler_data is not None}
    for info in sorted({image.u32(data) for data in handled}):
        head = image.read(info, _FUNC_INFO.size)
        if len(head) < _FUNC_INFO.size:
            continue
        magic, states, unwind_map, tries, try_map, addresses, address_map = _FUNC_INFO.unpack(head)
        if magic & MAGIC_MASK not in MAGICS:
            continue
        yield Range(Rva(info), Rva(info + _FUNC_INFO_SIZE))
        for start, count, size in ((unwind_map, states, 8), (try_map, tries, 20), (address_map, addresses, 8)):
            if start and 0 < count <= _LIMIT:
                yield Range(Rva(start), Rva(start + count * size))


def delay_descriptors(image: Image) -> tuple[tuple[str, Rva], ...]:
    """The descriptors of delayed imports: the library's name in lower case, and where the descriptor lies."""
    directories = check(image.data, image.path).directories
    rva, size = directories[_DELAY_IMPORT] if len(directories) > _DELAY_IMPORT else (0, 0)
    found = []
    for at in range(rva, rva + size - _DELAY_DESCRIPTOR.size + 1, _DELAY_DESCRIPTOR.size) if rva else ():
        raw = image.read(Rva(at), _DELAY_DESCRIPTOR.size)
        (name,) = _DELAY_DESCRIPTOR.unpack(raw) if len(raw) == _DELAY_DESCRIPTOR.size else (0,)
        if not name:
            break
        text = image.read(Rva(name), _LONGEST_NAME).partition(b"\0")[0]
        found.append((text.decode("ascii", "replace").lower(), Rva(at)))
    return tuple(found)


def _debug(image: Image, rva: int, size: int) -> Iterator[Range]:
    table = image.read(rva, size)
    for length, start, _ in _DEBUG_ENTRY.iter_unpack(table[: len(table) - len(table) % _DEBUG_ENTRY.size]):
        if start and length:
            yield Range(Rva(start), Rva(start + length))


def _imports(image: Image, rva: int, size: int) -> Iterator[Range]:
    table = image.read(rva, size)
    for lookup, name, _ in _DESCRIPTOR.iter_unpack(table[: len(table) - len(table) % _DESCRIPTOR.size]):
        if not name:
            return
        yield Range(Rva(name), Rva(name + 1))
        if lookup:
            yield from _names(image, lookup)


def _names(image: Image, lookup: int) -> Iterator[Range]:
    for index in range(_LIMIT):
        thunk = image.u64(Rva(lookup + index * _THUNK.size))
        if not thunk:
            yield Range(Rva(lookup), Rva(lookup + index * _THUNK.size + _THUNK.size))
            return
        if not thunk & _BY_ORDINAL and thunk < image.size_of_image:
            yield Range(Rva(thunk), Rva(thunk + 1))
