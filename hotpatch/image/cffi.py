"""Names from a cffi module: the table that its generated C source holds names each wrapped function.

The table is an array of ``_cffi_global_s`` (python-cffi ``src/cffi/parse_c_type.h``). For a function, ``address`` is the wrapper that
Python calls (``_cffi_f_NAME``), and ``size_or_direct_fn`` is a plain C function of the same signature (``_cffi_d_NAME``) that does
nothing but call ``NAME``: compiled, one jump to it, unless the compiler put the body there.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import LONGEST_INSTRUCTION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hotpatch.image.image import Image

_GLOBAL = struct.Struct("<QQQQ")
"""``_cffi_global_s``: name, address, type_op, size_or_direct_fn."""
_ADDRESS = 8
_TYPE_OP = 16
_DIRECT = 24
_FUNCTION_OPCODES = frozenset({23, 25, 27})
"""``_CFFI_OP_CPYTHON_BLTN_V``, ``_N``, ``_O``: the low byte of ``type_op``."""

_MODULE_EXPORTS = ("PyInit_", "_cffi_pypyinit_")
_IDENTIFIER = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*\0")
_NAME_LIMIT = 256


def function_names(image: Image) -> Mapping[Rva, tuple[str, ...]]:
    """Entry → names of the functions in the table of a cffi module; empty for other images."""
    if not any(name.startswith(_MODULE_EXPORTS) for name in image.exports_by_name):
        return {}
    found: dict[Rva, list[str]] = {}
    for name, wrapper, direct in _rows(image):
        plain = _behind(image, direct)
        found.setdefault(plain, []).append(name)
        found.setdefault(direct, []).append(f"_cffi_d_{name}")
        found.setdefault(wrapper, []).append(f"_cffi_f_{name}")
    return {entry: (*names,) if len(names) == 1 else tuple(sorted(set(names), key=_plain_first)) for entry, names in found.items()}


def _plain_first(name: str) -> tuple[bool, str]:
    return name.startswith("_cffi_"), name


def _rows(image: Image) -> Iterator[tuple[str, Rva, Rva]]:
    """Name, wrapper and direct function of each row; all three fields are pointers that the loader relocates."""
    sites, base = frozenset(image.relocations), image.preferred_base
    for site in image.relocations:
        if site + _ADDRESS not in sites or site + _DIRECT not in sites or site + _TYPE_OP in sites:
            continue
        raw = image.read(site, _GLOBAL.size)
        if len(raw) < _GLOBAL.size or raw[_TYPE_OP] not in _FUNCTION_OPCODES:
            continue
        name_at, wrapper, _, direct = _GLOBAL.unpack(raw)
        name = _IDENTIFIER.match(image.read(name_at - base, _NAME_LIMIT))
        if name and _is_code(image, wrapper - base) and _is_code(image, direct - base):
            yield name[0][:-1].decode(), Rva(wrapper - base), Rva(direct - base)


def _is_code(image: Image, rva: int) -> bool:
    section = image.section_at(rva)
    return section is not None and section.executable


def _behind(image: Image, direct: Rva) -> Rva:
    """The function that ``direct`` jumps to with its first instruction, or ``direct`` itself."""
    target = image.architecture.first_jump(image.read(direct, LONGEST_INSTRUCTION), direct)
    return Rva(target) if target is not None and _is_code(image, target) else direct
