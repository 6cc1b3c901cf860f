"""Make pairs of PE images of many functions, to see how time and memory grow.

Run: python tools/synthetic.py --functions N [--arch x64|arm64] FOLDER

Each function tests a constant, calls two others, takes the address of a constant and stores into a live datum; one in sixteen has the body
of others, so that only what it refers to tells it apart. A table of pointers with base relocations leads to every eighth. In the fixed
image ``CHANGED`` functions do one thing more, so that what follows has moved.
"""

from __future__ import annotations

import argparse
import struct
from dataclasses import dataclass
from pathlib import Path

from hotpatch.arch import Machine

CHANGED = 5
"""Functions of a pair that differ."""

_ADDITIONS = 4
"""Instructions that a changed function has more: enough to move what follows in spite of alignment."""
_BASE = 0x1_8000_0000
_PAGE = 0x1000
_FILE_ALIGNMENT = 0x200
_HEADERS = 0x400
_WORD = 4
_POINTER = 8
_STRIDE = 7
"""Functions between a caller and its second callee."""
_CODE_FLAGS, _CONSTANT_FLAGS, _LIVE_FLAGS = 0x60000020, 0x40000040, 0xC0000040
_X64_UNWIND = bytes((1, 4, 1, 0, 4, 0x42, 0, 0))
"""Version 1, a prologue of 4 bytes, one code: ``sub rsp, 28h``."""
_NUMBER = {Machine.X64: 0x8664, Machine.ARM64: 0xAA64}


@dataclass(frozen=True)
class _Layout:
    """Where things lie (RVAs), and which functions changed."""

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    constants: int
    live: int
    changed: frozenset[int]

    def callees(self, function: int) -> tuple[int, int]:
        """The entries of the two functions that ``function`` calls."""
        count = len(self.starts)
        return self.starts[(function + 1) % count], self.starts[(function * _STRIDE + 3) % count]


def make(machine: Machine, functions: int, *, fixed: bool) -> bytes:
    """An image of so many functions; ``fixed`` makes the newer build of it."""
    changed = frozenset(functions * part // (CHANGED + 1) for part in range(1, CHANGED + 1)) if fixed else frozenset()
    code_of = _x64 if machine is Machine.X64 else _arm64
    empty = _Layout((_PAGE,) * functions, (), _PAGE, _PAGE, changed)
    sizes = tuple(len(code_of(empty, function)) for function in range(functions))
    starts, at = [], _PAGE
    for size in sizes:
        starts.append(at)
        at += size + -size % 16
    constants = _page(at)
    table = constants + functions * _WORD + -functions * _WORD % 16
    pointers = range(0, functions, 8)
    unwind = table + len(pointers) * _POINTER
    live = _page(unwind + len(_X64_UNWIND))
    layout = _Layout(tuple(starts), sizes, constants, live, changed)
    filler = b"\xcc" if machine is Machine.X64 else b"\x1f\x20\x03\xd5"
    text = b"".join(code + filler * (-len(code) % 16 // len(filler)) for code in (code_of(layout, each) for each in range(functions)))
    values = b"".join(struct.pack("<I", each * 0x9E3779B1 & 0xFFFFFFFF | 1) for each in range(functions)).ljust(table - constants, b"\0")
    data = values + b"".join(struct.pack("<Q", _BASE + starts[each]) for each in pointers) + _X64_UNWIND
    directory = _page(live + functions * _WORD)
    entries = b"".join(_unwind_entry(machine, start, size, unwind) for start, size in zip(starts, sizes, strict=True))
    relocations = _page(directory + len(entries))
    blocks = _relocations([table + number * _POINTER for number in range(len(pointers))])
    sections = (
        (b".text", _PAGE, text, _CODE_FLAGS),
        (b".rdata", constants, data, _CONSTANT_FLAGS),
        (b".data", live, struct.pack("<I", 1) * functions, _LIVE_FLAGS),
        (b".pdata", directory, entries, _CONSTANT_FLAGS),
        (b".reloc", relocations, blocks, _CONSTANT_FLAGS | 0x02000000),
    )
    return _file(machine, sections, {3: (directory, len(entries)), 5: (relocations, len(blocks))}, stamp=0x60000000 + fixed)


def write_pair(machine: Machine, functions: int, folder: Path) -> tuple[Path, Path]:
    """Both images as files in ``folder``."""
    paths = folder / f"base-{machine}-{functions}.dll", folder / f"fixed-{machine}-{functions}.dll"
    for path, fixed in zip(paths, (False, True), strict=True):
        path.write_bytes(make(machine, functions, fixed=fixed))
    return paths


def _page(rva: int) -> int:
    return rva + -rva % _PAGE


def _constant(function: int) -> int:
    """What the function's body holds: one in sixteen has that of others."""
    return 0 if function % 16 == 15 else function + 1


def _x64(layout: _Layout, function: int) -> bytes:
    code = bytearray()
    start = layout.starts[function]

    def relative(opcode: bytes, target: int) -> None:
        nonlocal code
        code += opcode + struct.pack("<i", target - (start + len(code) + len(opcode) + 4))

    near, far = layout.callees(function)
    code += b"\x48\x83\xec\x28\xb8" + struct.pack("<I", _constant(function))  # sub rsp, 28h; mov eax, constant
    relative(b"\x48\x8d\x0d", layout.constants + function * _WORD)  # lea rcx, [constant]
    code += b"\x85\xc9\x74\x05"  # test ecx, ecx; je over the call
    relative(b"\xe8", near)
    relative(b"\x89\x05", layout.live + function * _WORD)  # mov [datum], eax
    if function in layout.changed:
        code += b"\x83\xc0\x2a" * _ADDITIONS  # add eax, 42
    relative(b"\xe8", far)
    return bytes(code + b"\x48\x83\xc4\x28\xc3")


def _arm64(layout: _Layout, function: int) -> bytes:
    words: list[int] = [0xA9BF7BFD]  # stp x29, x30, [sp, #-16]!
    start = layout.starts[function]

    def here() -> int:
        return start + len(words) * _WORD

    def page(register: int, target: int) -> int:
        distance = (target >> 12) - (here() >> 12)
        return 0x90000000 | (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5 | register

    def call(target: int) -> int:
        return 0x94000000 | (target - here() >> 2) & 0x3FFFFFF

    near, far = layout.callees(function)
    number = _constant(function)
    constant, datum = layout.constants + function * _WORD, layout.live + function * _WORD
    words += (0x52800000 | (number & 0xFFFF) << 5, 0x72A00000 | (number >> 16) << 5)  # movz w0; movk w0
    words.append(page(1, constant))
    words.append(0x91000021 | (constant & 0xFFF) << 10)  # add x1, x1, #low
    words.append(0x34000040)  # cbz w0 over the call
    words.append(call(near))
    words.append(page(2, datum))
    words.append(0xB9000040 | (datum & 0xFFF) >> 2 << 10)  # str w0, [x2, #low]
    if function in layout.changed:
        words += [0x1100A800] * _ADDITIONS  # add w0, w0, #42
    words.append(call(far))
    words += (0xA8C17BFD, 0xD65F03C0)  # ldp x29, x30, [sp], #16; ret
    return struct.pack(f"<{len(words)}I", *words)


def _unwind_entry(machine: Machine, start: int, size: int, unwind: int) -> bytes:
    if machine is Machine.X64:
        return struct.pack("<3I", start, start + size, unwind)
    return struct.pack("<2I", start, 1 | (size // _WORD) << 2 | 3 << 21 | 1 << 23)  # packed: frame chain, 16 bytes of stack


def _relocations(sites: list[int]) -> bytes:
    pages: dict[int, list[int]] = {}
    for site in sites:
        pages.setdefault(site & -_PAGE, []).append(10 << 12 | site % _PAGE)
    blocks = []
    for page, entries in pages.items():
        padded = entries + [0] * (len(entries) % 2)
        blocks.append(struct.pack(f"<2I{len(padded)}H", page, 8 + 2 * len(padded), *padded))
    return b"".join(blocks)


def _file(
    machine: Machine, sections: tuple[tuple[bytes, int, bytes, int], ...], directories: dict[int, tuple[int, int]], stamp: int
) -> bytes:
    """The PE file of ``sections`` (name, RVA, bytes, characteristics)."""
    end = _page(sections[-1][1] + len(sections[-1][2]))
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", _NUMBER[machine], len(sections), stamp, 0, 0, 240, 0x2022)
    optional = struct.pack("<HBBIIIII", 0x20B, 14, 0, len(sections[0][2]), 0, 0, 0, _PAGE)
    optional += struct.pack("<QIIHHHHHHIIIIHH", _BASE, _PAGE, _FILE_ALIGNMENT, 6, 0, 0, 0, 6, 0, 0, end, _HEADERS, 0, 3, 0x160)
    optional += struct.pack("<QQQQII", 0x100000, 0x1000, 0x100000, 0x1000, 0, 16)
    optional += b"".join(struct.pack("<2I", *directories.get(number, (0, 0))) for number in range(16))
    table, bodies, offset = b"", [], _HEADERS
    for name, rva, data, flags in sections:
        raw = data + bytes(-len(data) % _FILE_ALIGNMENT)
        table += struct.pack("<8sIIIIIIHHI", name, len(data), rva, len(raw), offset, 0, 0, 0, 0, flags)
        bodies.append(raw)
        offset += len(raw)
    return (dos + coff + optional + table).ljust(_HEADERS, b"\0") + b"".join(bodies)


def main() -> None:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(description="Make a pair of images of many functions.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--functions", type=int, default=1000)
    parser.add_argument("--arch", type=Machine, choices=list(Machine), default=Machine.X64)
    given = parser.parse_args()
    for path in write_pair(given.arch, given.functions, given.folder):
        print(path)


if __name__ == "__main__":
    main()
