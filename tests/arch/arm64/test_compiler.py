"""References against what the compiler itself says: the relocations of its object files, and the image that the linker makes of them."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pefile
import pytest

from hotpatch.arch import FixupKind, Flow, Machine, architecture

pytestmark = pytest.mark.compiler
pytest.importorskip("ziglang")
ARM64 = architecture(Machine.ARM64)
K = FixupKind
RELOCATIONS = {3: K.BRANCH26, 4: K.PAGEBASE_REL21, 6: K.PAGEOFFSET_12A, 7: K.PAGEOFFSET_12L}
"""PE format, "COFF Relocations", Arm64."""

SOURCE = r"""
volatile int g; int arr[64]; static long long cnt; double fl[8]; char chars[100]; short shs[40]; float vec[16]; const char *names[4];
#define EXPORT __declspec(dllexport)
#define NOINLINE __attribute__((noinline))
EXPORT NOINLINE int e1(int x) { g += x; return g * 3; }
EXPORT NOINLINE int e2(int x) { g -= x; return g * 5 + arr[x & 63]; }
EXPORT NOINLINE int e3(int x, double y) { cnt++; fl[2] += y; chars[7]++; shs[9]--; return g * x; }
EXPORT int sw1(unsigned x, int y) {
    int r = 0;
    for (int i = 0; i < y; i++)
        switch ((x >> (i & 7) * 4) & 15) {
        case 0: r += e1(i); break;
        case 1: r ^= e2(i); break;
        case 2: r *= 3; break;
        case 3: r -= y; break;
        case 4: r = r << 3; break;
        case 5: g = r; break;
        case 6: arr[r & 63] = i; break;
        case 7: r += arr[i & 63]; break;
        case 8: cnt += r; break;
        default: r++;
        }
    return r;
}
#define C(n) case n: g += n * n; r += e1(n) * e2(r + n) * (n + 3); arr[n & 63] = r; break;
#define C4(n) C(n) C(n + 1) C(n + 2) C(n + 3)
#define C16(n) C4(n) C4(n + 4) C4(n + 8) C4(n + 12)
EXPORT int sw2(unsigned x, int r) { switch (x) { C16(0) C16(16) C16(32) default: r = 7; } return r + g; }
EXPORT const char *sw3(int x) {
    switch (x) { case 0: return "zero"; case 1: return "one"; case 2: return "two"; case 3: return "three"; case 4: return "four";
                 case 5: return "five"; default: return "many"; }
}
EXPORT float f5(float x) { for (int i = 0; i < 16; i++) vec[i] *= x; return x * 3.14159f + vec[3]; }
EXPORT double f6(const char *s) {
    double d = 0;
    for (; *s; s++) { if (*s == 'a') d += fl[1]; else if (*s == 'b') d *= fl[3]; else names[*s & 3] = s; }
    return d;
}
EXPORT int f7(int a, int b) {
    int t = 0;
    while (a-- > b) { if (a & 1) { t += arr[a & 63]; if (t > 1000) g = t; } else t -= e3(a, t); }
    return t + shs[b & 31];
}
int _fltused; int start(void *a, int b, void *c) { return 1; }
"""


def build(folder: Path, level: str) -> tuple[bytes, Path]:
    (folder / "source.c").write_text(SOURCE, encoding="utf-8")
    tool = [sys.executable, "-m", "ziglang"]
    flags = [
        "-target",
        "aarch64-windows-msvc",
        level,
        "-ffreestanding",
        "-fno-sanitize=all",
        "-fno-stack-protector",
        "-mno-stack-arg-probe",
    ]
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(folder / "cache"), "ZIG_LOCAL_CACHE_DIR": str(folder / "cache")}
    for command in (
        [*tool, "cc", *flags, "-c", "source.c", "-o", "source.obj"],
        [*tool, "lld-link", "/dll", "/nodefaultlib", "/entry:start", "/opt:noref,noicf", "/out:source.dll", "/Brepro", "source.obj"],
    ):
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=120)
    return (folder / "source.obj").read_bytes(), folder / "source.dll"


def relocations(obj: bytes):
    """Of .text: offset, type, symbol's index; and the offsets at which functions begin."""
    _, sections, _, symbols, count, header = struct.unpack_from("<HHIIIH", obj)
    text = next(n for n in range(sections) if obj[20 + header + 40 * n :].startswith(b".text\0"))
    fields = struct.unpack_from("<8sIIIIIIHHI", obj, 20 + header + 40 * text)
    size, raw, at, total = fields[3], fields[4], fields[5], fields[7]
    found = [struct.unpack_from("<IIH", obj, at + 10 * n) for n in range(total)]
    starts, n = set(), 0
    while n < count:
        _, value, section, kind, _, auxiliary = struct.unpack_from("<8sIhHBB", obj, symbols + 18 * n)
        if section == text + 1 and kind == 0x20:
            starts.add(value)
        n += 1 + auxiliary
    return obj[raw : raw + size], found, sorted(starts)


@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2", "-Os"])
def test_references_are_the_relocations(tmp_path: Path, level: str):
    obj, image = build(tmp_path, level)
    unlinked, table, starts = relocations(obj)
    with pefile.PE(str(image)) as pe:
        text = next(section for section in pe.sections if section.Name.startswith(b".text"))
        base, linked = text.VirtualAddress, text.get_data()[: len(unlinked)]
        content = pe.get_memory_mapped_image()
    wanted = {(offset, RELOCATIONS[kind]): symbol for offset, symbol, kind in table if kind in RELOCATIONS}
    addresses, targets = defaultdict(set), defaultdict(set)
    pages, seen = [], set()
    for start, end in zip(starts, [*starts[1:], len(linked)], strict=True):
        code = linked[start:end]
        for one in ARM64.references(code, base + start):
            at = start + one.offset
            symbol = wanted.get((at, one.kind))
            if symbol is None:
                assert not one.kind.startswith("page"), f"{one} is no relocation"
                continue
            seen.add((at, one.kind))
            if one.kind is K.PAGEBASE_REL21:
                pages.append((symbol, one.target))
            elif one.kind is not K.BRANCH26:
                targets[symbol].add(one.target)
                addresses[symbol].add(one.target - ARM64.resolve(one.kind, unlinked[at : at + 4], 0))
        tables = ARM64.jump_tables(code, base + start, lambda address, size: content[address : address + size])
        jumps = [line.address - base - start for line in ARM64.disassemble(code, base + start) if line.flow is Flow.JUMP_INDIRECT]
        assert [table.jump for table in tables] == jumps
    assert seen == set(wanted)
    assert all(len(named) == 1 for named in addresses.values()), "each symbol has one address, whoever refers to it"
    assert all(target in targets[symbol] for symbol, target in pages)
