"""Exception tables of C++ functions: version 3 as clang makes it, version 4 by hand; what is not exactly that is not carried."""

from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hotpatch.address import Rva
from hotpatch.builder import build_patch
from hotpatch.differ import diff_images
from hotpatch.errors import NotHotpatchable, Rule
from hotpatch.image import Image, Range, open_image
from hotpatch.unwind import Meaning, cxx, handlers, unwinder
from tests.unwind.test_walk import TARGETS

if TYPE_CHECKING:
    from collections.abc import Sequence


# version 3 -------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["x64", "arm64"])
def thrown(request, tmp_path_factory):
    """Two builds that differ in one number within a try block."""
    pytest.importorskip("ziglang")
    source, folder = Path(__file__).with_name("thrown.cpp"), tmp_path_factory.mktemp("thrown")
    zig = [sys.executable, "-m", "ziglang"]
    options = ["-O1", "-g", "-gcodeview", "-ffreestanding", "-fcxx-exceptions", "-fexceptions", "-fno-sanitize=all", "-fno-stack-protector"]
    for change, name in enumerate(("base", "fixed"), 1):
        compile_it = [*zig, "cc", "-x", "c++", "-target", TARGETS[request.param], *options, f"-DCHANGE={change}"]
        subprocess.run([*compile_it, "-c", source, "-o", folder / f"{name}.obj"], check=True)
        link = ["/dll", "/nodefaultlib", "/entry:_DllMainCRTStartup", "/debug", f"/out:{folder / name}.dll", folder / f"{name}.obj"]
        subprocess.run([*zig, "lld-link", *link], check=True)
    return folder / "base.dll", folder / "fixed.dll"


@pytest.mark.compiler
@pytest.mark.parametrize("pdb", ["auto", None], ids=["named", "nameless"])
def test_a_function_with_try_and_catch_travels(thrown, pdb):
    """With its blocks, its tables and the type that it catches; the builder's own check reads them back."""
    base, fixed = (open_image(path, pdb=pdb) for path in thrown)
    diff = diff_images(base, fixed)
    patch = build_patch(diff)
    assert [row.base_rva for row in patch.functions] == [base.function_named("guarded").entry]
    (row,) = patch.functions
    entry = patch.image.unwind_entry_at(row.patch_rva)
    info = patch.image.u32(entry.info + _handler_at(fixed) + 4)
    assert patch.image.u32(info) & 0x1FFFFFFF == 0x19930522
    assert any(bytes(part) == b".H\0" for part in _names(patch))


def _handler_at(image):
    item = unwinder(image.machine).carry(image, image.unwind_entry_at(image.function_named("guarded").entry))
    return item.references[0].offset


def _names(patch):
    """The name of each type descriptor that came along."""
    return [patch.image.read(row.patch_rva + 16, row.size - 16) for row in patch.carried if row.kind.value == "data"]


@pytest.mark.compiler
def test_references_lead_where_the_tables_say(thrown):
    image = open_image(thrown[1])
    item = unwinder(image.machine).carry(image, image.unwind_entry_at(image.function_named("guarded").entry))
    meanings = {reference.meaning for reference in item.references}
    assert {Meaning.INFO, Meaning.CODE, Meaning.DATA} <= meanings
    for reference in item.references:
        stored = struct.unpack_from("<I", item.info, reference.offset)[0]
        if reference.meaning is Meaning.INFO:
            assert reference.target == item.entry.info
            assert 0 < reference.addend < len(item.info)
        else:
            assert stored == reference.target + reference.addend


@pytest.mark.compiler
@pytest.mark.parametrize(
    ("at", "value"), [(0, 0x12345678), (4, 0x7FFFFFFF), (12, 0x7FFFFFFF), (20, -1)], ids=["magic", "states", "try-blocks", "places"]
)
def test_damaged_tables_are_refused(thrown, tmp_path, at, value):
    good = open_image(thrown[1])
    entry = good.unwind_entry_at(good.function_named("guarded").entry)
    info = good.u32(entry.info + _handler_at(good) + 4)
    section = good.section_at(info)
    bad = bytearray(good.data)
    struct.pack_into("<i", bad, section.offset + info - section.rva + at, value)
    path = tmp_path / "bad.dll"
    path.write_bytes(bad)
    image = open_image(path)
    with pytest.raises(NotHotpatchable) as caught:
        unwinder(image.machine).carry(image, image.unwind_entry_at(entry.range.start))
    assert caught.value.refusals[0].rule is Rule.UNWIND


# version 4 -------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Section:
    range: Range
    executable: bool
    writable: bool = False


@dataclass(frozen=True)
class _Function:
    entry: int
    ranges: tuple[Range, ...]


@dataclass
class _Image:
    """Functions at 0x1000 (0x100 bytes), 0x1100 and 0x1140 (0x20 each); tables from 0x2000; a type descriptor at 0x3000."""

    tables: bytes
    pointers: dict = field(default_factory=lambda: {0x3000: 0x2800})
    name: bytes = b".?AVerror@@"
    unwind_entries: Sequence[object] = ()
    functions: Sequence[_Function] = tuple(
        _Function(start, (Range(Rva(start), Rva(start + size)),)) for start, size in ((0x1000, 0x100), (0x1100, 0x20), (0x1140, 0x20))
    )

    unwind_infos = property(Image.unwind_infos.func)
    unwind_entries_by_handler = property(Image.unwind_entries_by_handler.func)

    def kept(self, make):
        return make(self)

    def u32(self, rva):
        return int.from_bytes(self.read(rva, 4), "little")

    def read(self, rva, size):
        memory = bytes(0x2000) + self.tables.ljust(0x1000, b"\0") + bytes(16) + self.name + bytes(64)
        return memory[rva : rva + size]

    def section_at(self, rva):
        if 0x1000 <= rva < 0x2000:
            return _Section(Range(Rva(0x1000), Rva(0x2000)), executable=True)
        return _Section(Range(Rva(0x2000), Rva(0x3000)), executable=False) if 0x2000 <= rva < 0x3000 else None

    def function_at(self, rva):
        return next((function for function in self.functions if rva in function.ranges[0]), None)


@dataclass(frozen=True)
class _Entry:
    range: Range = field(default_factory=lambda: Range(Rva(0x1000), Rva(0x1100)))
    info: int = 0x2F00


def _word(value):
    return struct.pack("<i", value)


def _compressed(value):
    """One or two bytes; the form of Visual C++'s ``ehdata4``: the low bits say how long."""
    return bytes([value << 1]) if value < 128 else struct.pack("<H", value << 2 | 1)


UNWIND_AT, TRY_AT, CATCH_AT, IP_AT = 0x2020, 0x2040, 0x2060, 0x2080
PARTS = {
    0x2000: bytes([0x18]) + _word(UNWIND_AT) + _word(TRY_AT) + _word(IP_AT),
    # three states: one unwound by a destructor called as such, one by a block, one by nothing
    UNWIND_AT: _compressed(3) + _compressed(1) + _word(0x1100) + _compressed(32) + _compressed(6 << 2 | 3) + _word(0x1140) + _compressed(0),
    TRY_AT: _compressed(1) + _compressed(1) + _compressed(1) + _compressed(2) + _word(CATCH_AT),
    CATCH_AT: _compressed(1) + bytes([0x17]) + _compressed(8) + _word(0x3000) + _compressed(40) + _word(0x1140) + _compressed(0x90),
    IP_AT: _compressed(2) + _compressed(0x10) + _compressed(1) + _compressed(0x80) + _compressed(2),
}


def _tables(parts):
    raw = bytearray(0x200)
    for at, part in parts.items():
        raw[at - 0x2000 : at - 0x2000 + len(part)] = part
    return _Image(bytes(raw))


def test_version_4_is_read_whole():
    tables = cxx.carry(_tables(PARTS), _Entry(), 0x2000, 4)
    found = {(reference.meaning, int(reference.target)) for reference in tables.references if reference.meaning is not Meaning.INFO}
    assert found == {(Meaning.CALLEE, 0x1100), (Meaning.HANDLER, 0x1140), (Meaning.DATA, 0x3000)}
    inner = [reference for reference in tables.references if reference.meaning is Meaning.INFO]
    starts = [reference.addend for reference in inner]
    assert [tables.data[at : at + 4] for at in starts] == [PARTS[at][:4] for at in (UNWIND_AT, TRY_AT, IP_AT, CATCH_AT)]
    assert tables.data[tables.first : tables.first + 1] == b"\x18"


@pytest.mark.parametrize(
    ("name", "known"), [(b".H", True), (b"rust_panic", True), (b"rust_panics", False), (b"a text", False), (b"", False)]
)
def test_names_of_types_that_are_caught(name, known):
    image = replace(_tables({}), name=name)
    if known:
        assert cxx.descriptor_range(image, 0x3000) == Range(Rva(0x3000), Rva(0x3010 + len(name) + 1))
        return
    with pytest.raises(cxx.Malformed):
        cxx.descriptor_range(image, 0x3000)


def test_version_4_of_a_block_that_destroys_nothing():
    """A catch block's, say: it has a map of places, and no place in it."""
    tables = cxx.carry(_tables({**PARTS, IP_AT: _compressed(0)}), _Entry(), 0x2000, 4)
    assert [reference.meaning for reference in tables.references].count(Meaning.INFO) == 4


@pytest.mark.parametrize(("flags", "state", "carried"), [(5, 0, True), (1, 0, False), (5, 1, False)])
def test_version_3_of_a_function_that_throws_nothing(flags, state, carried):
    """``noexcept`` has a state that no map describes."""
    info = struct.pack("<10i", 0x19930522, 0, 0, 0, 0, 2, IP_AT, -0x20, 0, flags)
    image, places = _tables({0x2000: info, IP_AT: struct.pack("<4i", 0x1000, state, 0x1010, -1)}), []
    if carried:
        places = [one.target for one in cxx.carry(image, _Entry(), 0x2000, 3).references if one.meaning is Meaning.CODE]
        assert places == [0x1000, 0x1000]
        return
    with pytest.raises(cxx.Malformed, match="state"):
        cxx.carry(image, _Entry(), 0x2000, 3)


@pytest.mark.parametrize(("cookie", "form"), [((), (3, False)), ((-0x30,), (3, True)), ((-0x30, 0), (None, False))])
def test_data_of_a_handler_without_a_name_ends_where_its_own_tables_begin(cookie, form):
    """MSVC for Arm64, linked with its runtime: the maps of version 3 stand right behind the word that leads to ``FuncInfo``."""
    data = struct.pack(f"<I{len(cookie)}i", 0x2000, *cookie)
    info = struct.pack("<10i", 0x19930522, 1, 0x2100 + len(data), 0, 0, 1, IP_AT, -0x20, 0, 1)
    places = struct.pack("<2i", 0x1000, -1)
    image = _tables({0x2000: info, IP_AT: places, 0x2100: data + struct.pack("<2i", -1, 0x1140)})
    assert handlers._cxx_shape(image, _Entry(), 0x2100) == form


@pytest.mark.parametrize(
    ("at", "data", "form"),
    [
        (0x2100, (0, 0, 0), (3, True)),
        (0x2104, (-0x30, 0), (3, True)),
        (0x2104, (0, 0), (3, True)),
        (0x2104, (-0x30, 1), (None, False)),
        (0x2104, (-0x30, 0, 0, 0), (None, False)),
        (0x2100, (0, 0, 0, 0), (None, False)),
    ],
)
def test_zeros_that_align_the_first_map_are_no_data_of_the_handler(at, data, form):
    """MSVC for Arm64: a map of version 3 begins at a multiple of 8 or 16; a cookie's word among the zeros travels."""
    data = struct.pack(f"<I{len(data)}i", 0x2000, *data)
    info = struct.pack("<10i", 0x19930522, 1, at + len(data), 0, 0, 1, IP_AT, -0x20, 0, 1)
    image = _tables({0x2000: info, IP_AT: struct.pack("<2i", 0x1000, -1), at: data + struct.pack("<2i", -1, 0x1140)})
    assert handlers._cxx_shape(image, _Entry(), at) == form


NOTHING_THROWN = {0x2120: bytes([0x60]) + _word(0x2130), 0x2130: _compressed(1) + _compressed(0x10) + _compressed(0)}
"""``FuncInfo`` of version 4 of a function that must not throw (with a map of places, nothing else), as Visual C++ 19.51 makes it."""


@dataclass(frozen=True)
class _Handled(_Entry):
    handler: int | None = None
    handler_data: int | None = None


@pytest.mark.parametrize(
    ("other", "parts", "form"),
    [
        (0x1140, {}, (4, False)),
        (0x1100, {}, (None, False)),
        (0x1140, {0x2000: bytes([0x1A])}, (None, False)),
        (0x1140, {0x2120: bytes([0x62])}, (None, False)),
        (0x1140, {0x210C: _word(-0x30)}, (None, False)),
    ],
    ids=["the-same-handler", "another-handler", "of-no-known-form", "itself-of-no-known-form", "with-a-cookie"],
)
def test_tables_that_name_nothing_are_known_by_another_function_with_the_handler(other, parts, form):
    image = _tables({**PARTS, **NOTHING_THROWN, 0x2100: _word(0x2000), 0x2108: _word(0x2120), **parts})
    end = 0x2110 if 0x210C in parts else 0x210C
    entry = _Handled(info=0x2104, handler=0x1140, handler_data=0x2108)
    image.unwind_entries = (_Handled(info=0x20F0, handler=other, handler_data=0x2100), entry, _Handled(info=end))
    assert handlers._cxx_shape(image, entry, 0x2108) == (None, False)
    assert handlers._cxx_of_others(image, entry) == form


BROKEN = {
    "separated": {0x2000: bytes([0x1A]) + PARTS[0x2000][1:]},
    "a-flag-that-is-not-known": {0x2000: bytes([0x98]) + PARTS[0x2000][1:]},
    "a-map-in-code": {0x2000: bytes([0x08]) + _word(0x1000) + _word(IP_AT)},
    "no-function-to-call": {UNWIND_AT: _compressed(1) + _compressed(1) + _word(0x1104) + _compressed(32)},
    "an-entry-that-continues-before-the-map": {UNWIND_AT: _compressed(1) + _compressed(60 << 2 | 3) + _word(0x1140)},
    "no-type": {CATCH_AT: _compressed(1) + bytes([0x02]) + _word(0x2800) + _word(0x1140)},
    "a-place-behind-the-function": {IP_AT: _compressed(1) + _compressed(0x101) + _compressed(0)},
    "a-state-that-does-not-exist": {IP_AT: _compressed(1) + _compressed(0x10) + _compressed(9)},
    "a-count-of-nothing": {UNWIND_AT: _compressed(0)},
    "a-count-that-cannot-be": {IP_AT: _compressed(9000)},
    "try-block-without-states": {TRY_AT: _compressed(1) + _compressed(7) + _compressed(8) + _compressed(9) + _word(CATCH_AT)},
}


@pytest.mark.parametrize("name", BROKEN)
def test_version_4_that_is_not_exactly_that(name):
    with pytest.raises(cxx.Malformed):
        cxx.carry(_tables({**PARTS, **BROKEN[name]}), _Entry(), 0x2000, 4)
