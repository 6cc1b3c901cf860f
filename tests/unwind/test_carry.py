"""Unwind information carried out of an image: every reference in it is told, so that binding to the same places gives the same bytes."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from hotpatch.errors import NotHotpatchable, Rule
from hotpatch.image import Image, open_image
from hotpatch.unwind import Meaning, unwinder
from tests.image.conftest import FIXTURES
from tests.unwind.test_walk import TARGETS


def check_references(image, item):
    for reference in item.references:
        stored = struct.unpack_from("<I", item.info, reference.offset)[0]
        assert stored == reference.target + reference.addend
        if reference.meaning is Meaning.CODE:
            function = image.function_at(reference.target)
            assert reference.target in {part.start for part in function.ranges}
        elif reference.meaning is Meaning.HANDLER:
            assert image.function_of_entry(reference.target) is not None


def test_every_entry_of_the_fixtures(built_image, request):
    """All but that of the case which is about one that cannot be carried."""
    image = built_image
    walker = unwinder(image.machine)
    refused = {image.function_named("guarded").entry} if request.node.callspec.id.startswith("unwind-data-refused") else set()
    entries = [entry for entry in image.unwind_entries if entry.range.start not in refused]
    assert len(entries) == len(image.unwind_entries) - len(refused)
    items = [walker.carry(image, entry) for entry in entries]
    rows = []
    for item in items:
        check_references(image, item)
        assert (item.packed is None) == bool(item.info)
        if item.info:
            assert item.info == image.read(item.entry.info, len(item.info))
        second = item.entry.words[-1] if item.packed is None else item.packed
        rows.append((item.entry.range.start, item.entry.range.end, second))
    table = walker.pdata(reversed(rows))
    assert table == b"".join(struct.pack(f"<{len(item.entry.words)}I", *item.entry.words) for item in items)


@pytest.fixture(
    params=sorted(path for path in FIXTURES.glob("*/*/base.*") if path.suffix in {".dll", ".exe"}),
    ids=lambda path: f"{path.parts[-3]}-{path.parts[-2]}",
)
def built_image(request):
    return open_image(request.param)


@pytest.fixture(params=["x64", "arm64"])
def handled(request, tmp_path):
    pytest.importorskip("ziglang")
    source, dll = Path(__file__).with_name("handled.c"), tmp_path / "handled.dll"
    zig = [sys.executable, "-m", "ziglang"]
    options = ["-O2", "-g", "-gcodeview", "-ffreestanding", "-fms-extensions", "-fno-sanitize=all", "-fno-stack-protector"]
    subprocess.run([*zig, "cc", "-target", TARGETS[request.param], *options, "-c", source, "-o", tmp_path / "h.obj"], check=True)
    link = ["/dll", "/nodefaultlib", "/entry:_DllMainCRTStartup", "/debug", f"/out:{dll}", tmp_path / "h.obj"]
    subprocess.run([*zig, "lld-link", *link], check=True)
    return dll


def entry_of(image, name):
    return image.unwind_entry_at(image.function_named(name).entry)


@pytest.mark.parametrize("machine", ["x64", "arm64"])
def test_a_damaged_entry_is_refused_with_its_bytes(machine):
    """x64: it continues an entry that is not there. Arm64: a version that nobody knows."""
    good = open_image(FIXTURES / "unwind-data-refused" / machine / "base.dll")
    entry = entry_of(good, "guarded")
    info = entry.words[-1]
    bad, at = bytearray(good.data), good.data.index(good.read(info, 8))
    if machine == "x64":
        bad[at] = bad[at] & 7 | 4 << 3  # UNW_FLAG_CHAININFO
    else:
        bad[at + 2] |= 1 << 2
    image = Image.from_bytes(bytes(bad), "damaged.dll")
    with pytest.raises(NotHotpatchable) as caught:
        unwinder(image.machine).carry(image, entry_of(image, "guarded"))
    (refusal,) = caught.value.refusals
    assert (refusal.rule, refusal.function, refusal.rva) == (Rule.UNWIND, "guarded", entry.range.start)
    assert refusal.evidence["bytes"] == b"".join(word.to_bytes(4, "little") for word in entry.words).hex()
    if machine == "arm64":
        assert refusal.evidence["info_bytes"] == image.read(info, 16).hex()


@pytest.mark.compiler
@pytest.mark.parametrize("pdb", ["auto", None], ids=["named", "nameless"])
def test_scope_tables(handled, pdb):
    """With a name the handler says what its data is; without one its shape does."""
    image = open_image(handled, pdb=pdb)
    walker = unwinder(image.machine)
    for name, scopes in (("guarded", 1), ("cleaned", 1)):
        item = walker.carry(image, entry_of(image, name))
        check_references(image, item)
        handler, *fields = item.references
        assert handler.meaning is Meaning.HANDLER
        assert handler.target == open_image(handled).function_named("__C_specific_handler").entry
        size = item.references[0].offset + 4
        assert struct.unpack_from("<I", item.info, size)[0] == scopes
        assert len(item.info) == size + 4 + 16 * scopes
        assert {field.offset for field in fields} >= {size + 4, size + 8}
    assert walker.carry(image, entry_of(image, "plain")).references == ()


@pytest.mark.compiler
def test_data_of_another_format_is_refused(handled, tmp_path):
    """The count of the scope table made absurd: what stays is data of no known format."""
    good = open_image(handled)
    item = unwinder(good.machine).carry(good, entry_of(good, "guarded"))
    at = good.data.index(item.info) + item.references[0].offset + 4
    bad = bytearray(good.data)
    struct.pack_into("<I", bad, at, 0x12345678)
    path = tmp_path / "bad.dll"
    path.write_bytes(bad)
    image = open_image(path)
    with pytest.raises(NotHotpatchable) as caught:
        unwinder(image.machine).carry(image, entry_of(image, "guarded"))
    (refusal,) = caught.value.refusals
    assert refusal.rule is Rule.UNWIND
    assert refusal.function == "guarded"
    assert "leave this function out" in refusal.reason
    assert refusal.evidence["data"].startswith("78563412")
