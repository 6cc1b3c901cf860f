"""What other rooms ask of an image: identity of a mapped copy, padding, entries, names, data."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from hotpatch.address import Rva
from hotpatch.errors import InputError, Refused, Rule
from hotpatch.image import Image, Range, digest, normalise, open_image
from hotpatch.image.flow import padding_length
from hotpatch.image.identity import read_only_sections
from tests.image.conftest import FIXTURES

MACHINES = ["x64", "arm64"]


def mapped_at(image, va):
    """The image's memory as a loader leaves it: relocated, imports bound."""
    memory = bytearray(image.mapped)
    for site in image.relocations:
        value = struct.unpack_from("<Q", memory, site)[0] + va - image.preferred_base
        struct.pack_into("<Q", memory, site, value)
    for entry in image.imports:
        struct.pack_into("<Q", memory, entry.slot, 0x7FF8_0000_1234)
    return memory


@pytest.mark.parametrize("va", [0x1_8000_0000, 0x1_4000_0000, 0x7FF6_1234_0000, 0x10000], ids=hex)
def test_a_mapped_copy_has_the_files_identity(built, va):
    memory = mapped_at(built, va)
    assert normalise(built, bytes(memory), va) == normalise(built, built.mapped, built.preferred_base)
    for section in read_only_sections(built):
        if section.virtual_size:
            memory[section.rva] ^= 1
    assert normalise(built, bytes(memory), va) != normalise(built, built.mapped, built.preferred_base)


@pytest.mark.parametrize("machine", MACHINES)
def test_what_the_program_writes_does_not_count(machine):
    image = open_image(FIXTURES / "state-kept" / machine / "base.dll")
    memory = mapped_at(image, image.preferred_base)
    changed = 0
    for section in image.sections:
        if section.writable:
            memory[section.rva] ^= 0xFF
            changed += 1
    assert changed
    assert normalise(image, bytes(memory), image.preferred_base) == normalise(image, image.mapped, image.preferred_base)


@pytest.mark.parametrize("machine", MACHINES)
def test_two_builds_differ(machine):
    base, fixed = (open_image(FIXTURES / "basic" / machine / f"{side}.dll") for side in ("base", "fixed"))
    assert digest(base) != digest(fixed)
    assert base.identity == open_image(base.path).identity


def test_padding_is_filler_between_functions(built):
    for function in built.functions:
        size = built.padding_before(function)
        assert size >= 0
        assert not any(built.function_at(function.entry - offset) for offset in range(1, size + 1))
        filler = built.read(function.entry - size, size)
        assert padding_length(built.architecture, filler) == size


def test_functionpadmin_shows():
    """/functionpadmin leaves six bytes before each function; a build without it does not."""
    padded = open_image(FIXTURES / "basic" / "x64" / "base.dll")
    bare = open_image(FIXTURES / "no-padding" / "x64" / "base.dll")
    assert all(padded.padding_before(function) >= 6 for function in padded.functions)
    assert any(bare.padding_before(function) < 6 for function in bare.functions)


def synthetic(machine, code, *, at=0):
    """The basic fixture with ``code`` in place of its first exported function."""
    image = open_image(FIXTURES / "basic" / machine / "base.dll")
    function = next(function for function in image.functions if function.size >= len(code))
    section = image.section_at(function.entry)
    data = bytearray(image.data)
    start = section.offset + function.entry - section.rva
    data[start : start + function.size] = code.ljust(function.size, b"\xcc" if machine == "x64" else b"\0")
    changed = Image.from_bytes(bytes(data), "synthetic.dll", image.symbols)
    return changed, changed.function_of_entry(function.entry)


# machine, code, whether its entry can be redirected
ENTRIES = [
    ("x64", "4883ec28c3", True),  # sub rsp, 0x28
    ("x64", "6690c3", True),  # xchg ax, ax
    ("x64", "53c3", False),  # push rbx: one byte
    ("x64", "c3", False),  # ret: one byte
    ("x64", "ffc975fcc3", False),  # dec ecx; jnz to the entry
    ("x64", "31c0ffc975fcc3", True),  # xor eax, eax; dec ecx; jnz to the second instruction
    ("x64", "31c0ffc9ebfbc3", False),  # … jmp into the middle of the first
    ("arm64", "00000091c0035fd6", True),
    ("arm64", "000400f1e1ffff54c0035fd6", False),  # subs x0, x0, #1; b.ne to the entry
    ("arm64", "1f2003d5000400f1e1ffff54c0035fd6", True),
]


@pytest.mark.parametrize(("machine", "code", "patchable"), ENTRIES, ids=[f"{row[0]}-{row[1]}" for row in ENTRIES])
def test_entries_that_can_be_redirected(machine, code, patchable):
    image, function = synthetic(machine, bytes.fromhex(code))
    assert image.entry_patchable(function) is patchable


def test_function_by_name_and_address(basic):
    image = open_image(basic)
    for export in image.exports:
        function = image.function_named(export.name)
        assert function.entry == export.rva
        assert function.name == export.name
        assert image.function_named(f"rva:0x{export.rva:x}") is function
        assert image.function_named(f"rva:{export.rva}") is function


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no_such_thing_at_all", "hotpatch inspect lists"),
        ("0x1220", "for the one at that address write rva:0x1220"),
        ("1220", "for the one at that address write rva:0x1220"),
        ("27cf0", "for the one at that address write rva:0x27cf0"),
        ("rva:0x1", "no function of base.dll begins at 0x1"),
    ],
)
def test_names_that_are_not_there(basic, text, says):
    with pytest.raises(Refused) as caught:
        open_image(basic).function_named(text)
    (refusal,) = caught.value.refusals
    assert refusal.rule is Rule.NO_SUCH_FUNCTION
    assert says in refusal.reason


@pytest.mark.parametrize("machine", MACHINES)
def test_an_address_inside_of_a_nameless_function_is_told_once_where_that_begins(machine):
    image = open_image(FIXTURES / "overflow-check" / machine / "base.exe", pdb=None)
    function = next(one for one in image.functions if one.name is None and one.ranges[0].size > 4)
    with pytest.raises(Refused, match=f"; that is inside of the function at rva:0x{function.entry:x}$") as caught:
        image.function_named(f"rva:0x{function.entry + 4:x}")
    assert caught.value.refusals[0].reason.count(f"0x{function.entry:x}") == 1


def test_a_text_that_is_no_address_is_bad_input(basic):
    with pytest.raises(InputError, match="rva:xyz: is no RVA"):
        open_image(basic).function_named("rva:xyz")


def test_a_near_name_is_offered(basic):
    image = open_image(basic)
    name = image.exports[0].name
    with pytest.raises(Refused) as caught:
        image.function_named(name + "x")
    assert name in caught.value.refusals[0].reason
    with pytest.raises(Refused, match="hotpatch inspect lists what it has") as none_near:
        image.function_named("?")
    assert [refused.value.refusals[0].evidence for refused in (caught, none_near)] == [{"near": [name]}, {}]
    inside = image.function_named(name)
    with pytest.raises(Refused, match=f"inside of {name}"):
        image.function_named(f"rva:0x{inside.entry + inside.size - 1:x}")


@pytest.mark.parametrize("machine", MACHINES)
def test_two_functions_of_one_name(machine):
    image = open_image(FIXTURES / "basic" / machine / "base.dll")
    first, second = image.functions[:2]
    rows = ((first.entry, first.size, "twin"), (second.entry, second.size, "twin"))
    twins = Image.from_bytes(image.data, "twins.dll", replace(image.symbols, functions=rows))
    with pytest.raises(Refused, match=f"rva:0x{first.entry:x}, rva:0x{second.entry:x}"):
        twins.function_named("twin")


# case, datum, bytes
SIZES = [
    ("data-layout-refused", "entries", 64),
    ("data-layout-refused", "journal", 32),
    ("data-layout-refused", "used", 4),
    ("function-pointer", "table", 24),
    ("state-kept", "accounts", 64),
    ("inlined-caller", "items", 128),
]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("case", "name", "size"), SIZES, ids=[f"{row[0]}-{row[1]}" for row in SIZES])
def test_sizes_of_globals(machine, case, name, size):
    image = open_image(FIXTURES / case / machine / "base.dll")
    (datum,) = (datum for datum in image.data_symbols if datum.name == name)
    assert datum.size == size
    assert image.datum_at(datum.rva) == datum
    assert image.datum_at(datum.rva + size - 1) == datum
    assert image.datum_at(datum.rva + size) != datum


@pytest.mark.parametrize("machine", MACHINES)
def test_static_locals_are_told_apart(machine):
    image = open_image(FIXTURES / "static-local" / machine / "base.dll")
    assert {datum.scope for datum in image.data_symbols if datum.name == "last"} == {"next_ticket", "next_order"}


def test_inlined_bodies():
    """On x64 only: clang writes no inline sites for Arm64."""
    image = open_image(FIXTURES / "inlined-caller" / "x64" / "base.dll")
    assert {(image.function_of_entry(site.caller).name, site.name) for site in image.inlines} == {
        ("read_item", "valid"),
        ("write_item", "valid"),
        ("add_item", "valid"),
    }
    for site in image.inlines:
        caller = image.function_of_entry(site.caller)
        assert all(part.start in caller.ranges[0] for part in site.ranges)


def test_references_lead_somewhere(built):
    for function in built.functions:
        for part, found in zip(function.ranges, built.references(function), strict=True):
            assert built.references_in(Range(part.start, part.end)) is found
            for reference in found:
                assert 0 <= reference.offset < part.size
                assert 0 <= reference.target < built.size_of_image


def test_relocations_of_a_range(built):
    everything = Range(Rva(0), Rva(built.size_of_image))
    assert built.relocations_in(everything) == built.relocations
    for section in built.sections:
        assert built.relocations_in(section.range) == tuple(site for site in built.relocations if site in section.range)


def test_instructions_can_be_had_of_an_image_that_nobody_else_holds():
    path = FIXTURES / "two-level-switch" / "arm64" / "base.dll"
    (part,) = open_image(path).function_named("kind").ranges
    found = open_image(path).instructions_in(part)
    assert sum(instruction.size for instruction in found) == part.size
