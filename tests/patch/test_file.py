"""The patch file: written, read back by three readers, and refused when damaged."""

from dataclasses import replace

import lief
import pefile
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Machine, Redirect
from hotpatch.errors import HotpatchError, InputError, Refused, Rule
from hotpatch.image import Image, open_image
from hotpatch.patch import Fixup, PatchImport, PatchSection, Space, hot_patch_info, is_patch, load, loads, save, write_patch
from hotpatch.patch.headers import LFANEW
from tests.patch.samples import CODE, FIXTURES, contents

FIELDS = ("machine", "base", "sequence", "functions", "carried", "fixups", "imports", "provenance", "overrides")


def test_everything_is_found_again(made):
    patch = loads(write_patch(made), "p.dll")
    assert {name: getattr(patch, name) for name in FIELDS} == {name: getattr(made, name) for name in FIELDS}


def test_the_same_contents_give_the_same_bytes(machine):
    assert write_patch(contents(machine)) == write_patch(contents(machine))


def test_other_contents_give_another_time_stamp(made):
    stamps = {loads(write_patch(replace(made, sequence=number)), "p").image.time_date_stamp for number in range(1, 5)}
    assert len(stamps) == 4


def test_save_and_load(made, tmp_path):
    patch = loads(write_patch(made), "p.dll")
    patch.save(tmp_path / "one.dll")
    save(patch, str(tmp_path / "two.dll"))
    assert (tmp_path / "one.dll").read_bytes() == (tmp_path / "two.dll").read_bytes() == patch.data
    assert load(tmp_path / "one.dll").functions == made.functions


@pytest.mark.parametrize("name", ["missing.dll", "folder", "with\0nul"])
def test_what_cannot_be_read_or_written_is_named(made, tmp_path, name):
    (tmp_path / "folder").mkdir()
    path = str(tmp_path / name)
    with pytest.raises(InputError, match=name.split("\0")[0]):
        load(path)
    if name != "missing.dll":
        with pytest.raises(InputError, match=name.split("\0")[0]):
            loads(write_patch(made), "p.dll").save(path)


def test_pefile_reads_it(made):
    data = write_patch(made)
    pe = pefile.PE(data=data)
    assert pe.verify_checksum()
    assert [section.Name.rstrip(b"\0").decode() for section in pe.sections] == [".text", ".data", ".idata", ".reloc", ".hpinfo", ".hpfix"]
    slots = {(entry.dll, item.name, item.ordinal): item.address for entry in pe.DIRECTORY_ENTRY_IMPORT for item in entry.imports}
    base = pe.OPTIONAL_HEADER.ImageBase
    assert slots == {(b"kernel32.dll", b"Sleep", None): base + 0x3000, (b"user32.dll", None, 7): base + 0x3010}
    relocated = [item.rva for block in pe.DIRECTORY_ENTRY_BASERELOC for item in block.entries if item.type == 10]
    assert relocated == [0x2000]
    assert pe.OPTIONAL_HEADER.SizeOfImage % 0x1000 == 0


def test_lief_reads_it(made):
    pe = lief.PE.parse(write_patch(made))
    assert pe is not None
    info = loads(write_patch(made), "p").image.load_configuration
    assert pe.load_configuration.hotpatch_table_offset == info.hot_patch_table
    assert {item.name: [entry.name for entry in item.entries if not entry.is_ordinal] for item in pe.imports} == {
        "kernel32.dll": ["Sleep"],
        "user32.dll": [],
    }
    assert "counter" in {symbol.name for symbol in pe.symbols}


def test_image_reads_names_from_it(made):
    image = Image.from_bytes(write_patch(made), "p.dll")
    assert image.function_named("grüße_the_world").entry == 0x1000
    assert [datum.name for datum in image.data_symbols if datum.rva == 0x2000] == ["counter"]


def test_public_structures(made):
    info = hot_patch_info(loads(write_patch(made), "p.dll").image)
    assert (info.version, info.sequence_number, info.min_sequence_number, len(info.bases)) == (3, 7, 1, 1)
    base = info.bases[0]
    assert (base.original_time_date_stamp, base.original_checksum, base.sequence_number) == (0x12345678, 0xABCD, 7)
    assert base.code_integrity == made.base_hashes
    told = {(row.type_name, row.source_rva, row.target_rva) for row in base.records}
    expected = {("function", 0x1010, 0x1000), ("absolute", 0x2008, 0x5000), ("call-target", None, 0x1000)}
    assert told == expected | ({("rel32", 0x1001, 0x1040)} if made.machine is Machine.X64 else set())


def test_an_ordinary_image_has_no_hot_patch_info():
    image = open_image(FIXTURES / "basic" / "x64" / "base.dll")
    assert hot_patch_info(image) is None
    assert not is_patch(image.data)
    with pytest.raises(InputError, match="is no hot patch"):
        loads(image.data, "base.dll")


def test_a_foreign_patch_can_be_inspected(made):
    """Somebody else's file: the public structures, a record of an unknown type, and no section of ours."""
    data = bytearray(write_patch(made))
    data[data.index(b".hpfix\0\0") : data.index(b".hpfix\0\0") + 8] = b".other\0\0"
    image = loads(write_patch(made), "p").image
    at = image.load_configuration.hot_patch_table
    section = image.section_at(at)
    table = data.index((0x40000000 | 0x1C000 | 12).to_bytes(4, "little"), section.offset)
    data[table : table + 4] = (0xFC000 | 12).to_bytes(4, "little")
    info = hot_patch_info(Image.from_bytes(bytes(data), "foreign.dll"))
    assert info.bases[0].records[0].type_name == "0xfc000"
    assert info.bases[0].records[0].raw.hex() == "0cc00f00" + "10100000" + "00100000"
    assert not is_patch(bytes(data))


def test_every_flipped_bit_is_noticed(made):
    data = write_patch(made)
    accepted = []
    for at in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[at] ^= 1 << (at % 8)
        try:
            loads(bytes(damaged), "p.dll")
        except InputError:
            continue
        accepted.append(at)
    assert not accepted


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_reported_and_nothing_else_happens(made, data):
    """Truncated, flipped, extended, overwritten: only the package's own errors, and never a patch."""
    file = write_patch(made)
    kind = data.draw(st.sampled_from(["truncate", "flip", "extend", "overwrite"]))
    at = data.draw(st.integers(0, len(file) - 1))
    match kind:
        case "truncate":
            damaged = file[:at]
        case "flip":
            damaged = file[:at] + bytes([file[at] ^ data.draw(st.integers(1, 255))]) + file[at + 1 :]
        case "extend":
            damaged = file + data.draw(st.binary(min_size=1, max_size=64))
        case _:
            new = data.draw(st.binary(min_size=1, max_size=64))
            damaged = file[:at] + new + file[at + len(new) :]
    if damaged == file:
        return
    with pytest.raises(HotpatchError):
        loads(damaged, "p.dll")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_no_patch(data):
    with pytest.raises(InputError):
        loads(data, "p.dll")


def test_a_newer_version_is_named(made):
    data = bytearray(write_patch(made))
    at = data.index(b"HPFX")
    data[at + 4] = 9
    with pytest.raises(InputError, match="version 9"):
        loads(bytes(data), "p.dll")


def test_the_pe_header_must_be_where_the_digest_expects_it(made):
    data = bytearray(write_patch(made))
    assert data[0x3C] == LFANEW
    moved = data[:0x40] + bytes(0x40) + data[0x40:]
    moved[0x3C] = LFANEW + 0x40
    with pytest.raises(InputError):
        loads(bytes(moved), "p.dll")


def function(made, **changes):
    return replace(made, functions=(replace(made.functions[0], **changes),))


def fixups(made, *rows):
    return replace(made, fixups=tuple(rows))


CONTRADICTIONS = {
    "sequence-zero": lambda made: replace(made, sequence=0),
    "no-function": lambda made: replace(made, functions=()),
    "function-outside-of-code": lambda made: function(made, patch_rva=Rva(0x2000)),
    "function-outside-of-base": lambda made: function(made, base_rva=Rva(0xA000)),
    "function-without-entry-bytes": lambda made: function(made, entry_bytes=b""),
    "function-with-foreign-padding": lambda made: function(made, padding_bytes=b"\xcc" * 3),
    "function-of-no-bytes": lambda made: function(made, size=0),
    "functions-out-of-order": lambda made: replace(made, functions=made.functions * 2),
    "carried-outside": lambda made: replace(made, carried=(replace(made.carried[0], size=0x10000, name=None),)),
    "carried-of-no-bytes": lambda made: replace(made, carried=(replace(made.carried[0], size=0),)),
    "fixup-outside": lambda made: fixups(made, Fixup(FixupKind.ADDR64, Rva(0x2FFC), Space.BASE, Rva(0x1000), 0)),
    "fixup-in-headers": lambda made: fixups(made, Fixup(FixupKind.ADDR64, Rva(0x10), Space.BASE, Rva(0x1000), 0)),
    "fixup-to-nowhere": lambda made: fixups(made, Fixup(FixupKind.ADDR64, Rva(0x2000), Space.BASE, Rva(0x9000), 0)),
    "fixups-overlap": lambda made: fixups(made, *(Fixup(FixupKind.ADDR64, Rva(0x2000 + at), Space.BASE, Rva(0x10), 0) for at in (0, 4))),
    "import-outside": lambda made: replace(made, imports=(PatchImport("a.dll", "b", None, Rva(0x8000)),)),
    "import-unaligned": lambda made: replace(made, imports=(PatchImport("a.dll", "b", None, Rva(0x3004)),)),
    "import-without-name": lambda made: replace(made, imports=(PatchImport("a.dll", None, None, Rva(0x3000)),)),
    "import-with-both": lambda made: replace(made, imports=(PatchImport("a.dll", "b", 3, Rva(0x3000)),)),
    "hash-of-another-base": lambda made: replace(made, base_hashes=bytes(52)),
    "base-of-no-size": lambda made: replace(made, base=replace(made.base, size_of_image=0)),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_sound_file_that_contradicts_itself_is_refused(made, name):
    data = write_patch(CONTRADICTIONS[name](made))
    with pytest.raises(Refused) as refused:
        loads(data, "p.dll")
    assert {refusal.rule for refusal in refused.value.refusals} == {Rule.MALFORMED_PATCH}


def test_the_public_table_must_agree_with_the_description(made):
    """A file that somebody edited and sealed again."""
    from hotpatch.patch.headers import pe_checksum
    from hotpatch.patch.pe import seal

    data = bytearray(write_patch(made))
    table = data.index((0x40000000 | 0x1C000 | 12).to_bytes(4, "little"))
    data[table + 8] ^= 4
    own = data.index(b"HPFX")
    data[own + 16 : own + 48] = bytes(32)
    sealed = seal(bytes(data), own)
    assert pe_checksum(sealed) == int.from_bytes(sealed[LFANEW + 0x58 : LFANEW + 0x5C], "little")
    with pytest.raises(Refused, match="patch table"):
        loads(sealed, "p.dll")


def test_inline_redirects_need_no_padding():
    made = contents(Machine.X64)
    row = replace(made.functions[0], redirect=Redirect.INLINE, padding_bytes=b"", entry_bytes=b"\x90" * 5)
    assert loads(write_patch(replace(made, functions=(row,))), "p").functions == (row,)


def test_a_section_that_is_all_zero_takes_no_room_in_the_file():
    made = contents(Machine.X64)
    sections = (*made.sections[:1], replace(made.sections[1], data=b""), *made.sections[2:])
    plain = replace(made, sections=sections, fixups=made.fixups[:1])
    image = loads(write_patch(plain), "p").image
    assert image.section_at(0x2000).raw_size == 0
    assert image.read(0x2000, 0x40) == bytes(0x40)


def test_many_fixups():
    made = contents(Machine.ARM64, extra=450)
    assert loads(write_patch(made), "p").fixups == made.fixups


def test_names_of_eight_bytes_and_more():
    made = contents(Machine.X64)
    for name in ("a" * 8, "b" * 9, "?f@@YAXXZ"):
        row = replace(made.functions[0], name=name)
        assert loads(write_patch(replace(made, functions=(row,))), "p").image.functions[0].name == name


def test_a_code_section_is_what_functions_must_lie_in():
    made = contents(Machine.X64)
    hidden = PatchSection(".text", Rva(0x1000), 8, made.sections[0].data, CODE & ~0x20000000)
    with pytest.raises(Refused):
        loads(write_patch(replace(made, sections=(hidden, *made.sections[1:]))), "p")


def test_saving_never_writes_over_a_build(made, tmp_path):
    path, build = tmp_path / "base.dll", (FIXTURES / "basic" / made.machine.value / "base.dll").read_bytes()
    path.write_bytes(build)
    with pytest.raises(InputError, match="is a build and stays as it is; write to another file"):
        loads(write_patch(made), "p.dll").save(path)
    assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [("base.dll", build)]
