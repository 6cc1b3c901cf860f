"""Damaged files end in an InputError that says what is wrong, never in anything else, and never take long."""

from __future__ import annotations

import contextlib
import struct
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotpatch.errors import HotpatchError, InputError, Refused, Rule
from hotpatch.image import Image, Symbols, open_image
from hotpatch.image.headers import MAX_SECTIONS
from hotpatch.image.parse import parse
from hotpatch.image.pdb import load
from hotpatch.unwind import unwinder
from tests.image.conftest import FIXTURES

FILES = (("jump-table", "base.dll"), ("overflow-check", "base.exe"))
SAMPLES = [FIXTURES / case / machine / name for case, name in FILES for machine in ("x64", "arm64")]
PE_AT = 0x3C


def header(data):
    return struct.unpack_from("<I", data, PE_AT)[0]


def changed(data, at, layout, *values):
    copy = bytearray(data)
    struct.pack_into(layout, copy, at, *values)
    return bytes(copy)


# name, how the file is made from a good one, what the message must say
BAD_FILES = [
    ("empty", lambda data: b"", "is empty"),
    ("text", lambda data: b"# hello\n" * 40, "not a PE file"),
    ("elf", lambda data: b"\x7fELF" + bytes(200), "not a PE file"),
    ("dos-program", lambda data: changed(data, header(data), "<4s", b"NE\0\0"), "not a PE file"),
    ("header-past-end", lambda data: changed(data, PE_AT, "<I", 0x7FFFFFFF), "truncated"),
    ("x86", lambda data: changed(data, header(data) + 4, "<H", 0x14C), "32-bit x86"),
    ("arm32", lambda data: changed(data, header(data) + 4, "<H", 0x1C4), "32-bit Arm"),
    ("riscv", lambda data: changed(data, header(data) + 4, "<H", 0x5064), "RISC-V"),
    ("unknown-machine", lambda data: changed(data, header(data) + 4, "<H", 0x1234), "unknown machine"),
    ("pe32", lambda data: changed(data, header(data) + 24, "<H", 0x10B), "PE32"),
    ("no-sections", lambda data: changed(data, header(data) + 6, "<H", 0), "0 sections"),
    ("many-sections", lambda data: changed(data, header(data) + 6, "<H", 0xFFFF), "65535 sections"),
    ("huge-image", lambda data: changed(data, header(data) + 24 + 56, "<I", 0xFFFFF000), "SizeOfImage"),
    ("small-image", lambda data: changed(data, header(data) + 24 + 56, "<I", 0x1000), "past the end of the image"),
    ("section-past-file", lambda data: changed(data, header(data) + 24 + 240 + 16, "<I", 0x1000000), "truncated: section .text"),
    ("cut-in-headers", lambda data: data[: header(data) + 40], "truncated"),
    ("cut-in-section-table", lambda data: data[: header(data) + 24 + 240 + 10], "truncated"),
    ("cut-in-sections", lambda data: data[:-16], "truncated"),
    ("directory-past-image", lambda data: changed(data, header(data) + 24 + 112, "<II", 0xFFFFFF0, 64), "data directory 0"),
]


@pytest.mark.parametrize(("make", "says"), [row[1:] for row in BAD_FILES], ids=[row[0] for row in BAD_FILES])
def test_what_is_wrong_is_said(tmp_path, basic, make, says):
    path = tmp_path / "bad.dll"
    path.write_bytes(make(basic.read_bytes()))
    with pytest.raises(InputError, match=r"bad\.dll") as caught:
        open_image(path)
    assert says in caught.value.problem
    assert "; " in caught.value.problem, "it ends with what to do"


@pytest.mark.parametrize("count", [97, MAX_SECTIONS, MAX_SECTIONS + 1])
def test_more_sections_than_the_description_of_the_format_allows(basic, count):
    """It says that the loader takes at most 96, which is no longer so; linkers make more."""
    data = basic.read_bytes()
    at = header(data)
    few, end = struct.unpack_from("<H", data, at + 6)[0], struct.unpack_from("<I", data, at + 24 + 56)[0]
    table = at + 24 + 240 + 40 * few
    more = [struct.pack("<8s2I20xI", b".more", 16, end + 0x1000 * number, 0x4000_0040) for number in range(count - few)]
    data = changed(data, at + 6, "<H", count)
    data = changed(data, at + 24 + 56, "<I", end + 0x1000 * len(more))
    data = data[:table] + b"".join(more) + data[table + 40 * len(more) :]
    if count > MAX_SECTIONS:
        with pytest.raises(InputError, match=f"{count} sections"):
            Image.from_bytes(data, "many.dll")
    else:
        assert len(Image.from_bytes(data, "many.dll").sections) == count


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.dll: No such file"):
        open_image(tmp_path / "nothing.dll")


def test_folder(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        open_image(tmp_path)


def use(image):
    """Everything that reads the file's tables."""
    walker = unwinder(image.machine)
    for function in image.functions[:40]:
        image.references(function)
        image.jump_tables(function)
        image.padding_before(function)
        image.entry_patchable(function)
    for entry in image.unwind_entries[:40]:
        try:
            walker.carry(image, entry)
        except Refused:
            continue
    for datum in image.data_symbols[:40]:
        image.datum_at(datum.rva)
    assert image.cffi_names is not None
    if image.size_of_image < 1 << 24:
        assert image.identity.digest


VALUES = [b"\0", b"\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\x01", b"\x80"]


@st.composite
def damaged(draw, data):
    """``data`` cut, extended, or with some bytes changed, often in its headers and tables."""
    kind = draw(st.sampled_from(["cut", "extend", "flip", "flip", "flip"]))
    if kind == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if kind == "extend":
        return data + draw(st.binary(min_size=1, max_size=64))
    copy = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.one_of(st.integers(0, 0x400), st.integers(0, len(data) - 1)))
        value = draw(st.sampled_from(VALUES) | st.binary(min_size=1, max_size=4))
        copy[at : at + len(value)] = value[: len(copy) - at]
    return bytes(copy)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parts[-3]}-{path.parts[-2]}")
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_images_raise_only_our_errors(path, data):
    blob = data.draw(damaged(path.read_bytes()))
    started = time.monotonic()
    with contextlib.suppress(HotpatchError):
        use(Image.from_bytes(blob, "damaged.dll"))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("path", SAMPLES[:2], ids=lambda path: path.parts[-2])
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_pdbs_raise_only_our_errors(tmp_path_factory, path, data):
    image = path.read_bytes()
    parsed = parse(image, "base.dll")
    blob = data.draw(damaged(path.with_suffix(".pdb").read_bytes()))
    file = tmp_path_factory.getbasetemp() / "damaged.pdb"
    file.write_bytes(blob)
    started = time.monotonic()
    with contextlib.suppress(HotpatchError):
        symbols = load(str(file), parsed.pdb, parsed.size_of_image)
        use(Image("base.dll", image, parsed, symbols or Symbols(), None))
    assert time.monotonic() - started < 5


def test_pdb_of_another_build_is_passed_over(tmp_path, basic):
    other = basic.with_name("fixed.pdb")
    (tmp_path / "base.dll").write_bytes(basic.read_bytes())
    (tmp_path / "base.pdb").write_bytes(other.read_bytes())
    image = open_image(tmp_path / "base.dll")
    assert (image.has_symbols, image.other_pdb) == (False, str(tmp_path / "base.pdb"))
    with pytest.raises(Refused, match=r"base\.pdb lies beside it but is another build's"):
        image.function_named("nothing_like_it")
    assert open_image(tmp_path / "base.dll", pdb=None).other_pdb is open_image(basic).other_pdb is None
    with pytest.raises(InputError, match=r"base\.pdb: is not the PDB of"):
        open_image(tmp_path / "base.dll", pdb=tmp_path / "base.pdb")


def test_pdb_of_another_age_is_passed_over(tmp_path, basic):
    image = basic.read_bytes()
    at = image.index(b"RSDS") + 20
    (tmp_path / "base.dll").write_bytes(changed(image, at, "<I", 7))
    (tmp_path / "base.pdb").write_bytes(basic.with_suffix(".pdb").read_bytes())
    assert not open_image(tmp_path / "base.dll").has_symbols


def test_pdb_is_found_by_the_recorded_name(tmp_path, basic):
    (tmp_path / "renamed.dll").write_bytes(basic.read_bytes())
    (tmp_path / "base.pdb").write_bytes(basic.with_suffix(".pdb").read_bytes())
    image = open_image(tmp_path / "renamed.dll")
    assert image.pdb_path == str(tmp_path / "base.pdb")


def test_damaged_pdb_is_named(tmp_path, basic):
    (tmp_path / "base.dll").write_bytes(basic.read_bytes())
    (tmp_path / "base.pdb").write_bytes(b"not a PDB")
    with pytest.raises(InputError, match=r"base\.pdb: damaged or unsupported PDB"):
        open_image(tmp_path / "base.dll")
    assert not open_image(tmp_path / "base.dll", pdb=None).has_symbols


def with_load_configuration(path, **fields):
    """The image with a load configuration in its last section's slack; ``chpe``: the CHPE metadata pointer."""
    data = bytearray(path.read_bytes())
    image = open_image(path, pdb=None)
    section = max((s for s in image.sections if s.raw_size - s.virtual_size >= 0x148 + 16), key=lambda s: s.rva)
    at = (section.virtual_size + 15) & ~15
    structure = bytearray(0x140)
    struct.pack_into("<I", structure, 0, 0x140)
    struct.pack_into("<Q", structure, 0xC8, fields.get("chpe", 0))
    struct.pack_into("<I", structure, 0xF0, fields.get("table", 0))
    data[section.offset + at : section.offset + at + len(structure)] = structure
    pe = header(data)
    struct.pack_into("<II", data, pe + 24 + 112 + 8 * 10, section.rva + at, 0x140)
    index = image.sections.index(section)
    struct.pack_into("<I", data, pe + 24 + 240 + 40 * index + 8, at + 0x140)
    return bytes(data)


def test_hybrid_is_refused_by_its_load_configuration(tmp_path, basic):
    path = tmp_path / "hybrid.dll"
    path.write_bytes(with_load_configuration(basic, chpe=open_image(basic).preferred_base + 0x2000))
    with pytest.raises(Refused) as caught:
        open_image(path)
    (refusal,) = caught.value.refusals
    assert refusal.rule is Rule.HYBRID_IMAGE
    assert "hybrid.dll" in refusal.reason


@pytest.mark.parametrize(("machine", "kind"), [(0xA641, "arm64ec"), (0xA64E, "arm64x")])
def test_hybrid_is_refused_by_its_machine(tmp_path, basic, machine, kind):
    path = tmp_path / "hybrid.dll"
    data = basic.read_bytes()
    path.write_bytes(changed(data, header(data) + 4, "<H", machine))
    with pytest.raises(Refused) as caught:
        open_image(path)
    assert caught.value.refusals[0].rule is Rule.HYBRID_IMAGE
    assert caught.value.refusals[0].evidence["hybrid"] == kind


def test_hot_patch_table_is_seen(tmp_path, basic):
    path = tmp_path / "patch.dll"
    path.write_bytes(with_load_configuration(basic, table=0x2010))
    configuration = open_image(path).load_configuration
    assert (configuration.hot_patch_table_offset, configuration.hot_patch_table) == (0x2010, 0x2010)
    assert open_image(basic).load_configuration is None


def test_reading_past_the_end(basic):
    image = open_image(basic)
    assert image.read(image.size_of_image - 4, 16) == bytes(4)
    assert image.read(image.size_of_image, 4) == b""
    assert image.read(-1, 4) == b""
    assert Path(image.path).name == image.name
