"""A second reader, written from docs/patch-format.md alone, with nothing of the package: the page says enough, and says it right."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import msgspec
import pefile
import pytest

from hotpatch.address import Rva
from hotpatch.arch import Machine
from hotpatch.errors import Refused, Rule
from hotpatch.patch import Callback, Moment, Terms, loads, write_patch
from tests.patch.samples import contents

PAGE = Path(__file__).resolve().parents[2] / "docs" / "patch-format.md"
KINDS = ["", "addr64", "addr32nb", "rel32", "branch26", "pagebase-rel21", "pageoffset-12a", "pageoffset-12l"]
CHUNK_TYPES = {0x1C000: "function", 0x2C000: "absolute", 0x3C000: "rel32", 0x44000: "call-target"}


def own(data: bytes) -> dict:
    pe = pefile.PE(data=data)
    section = next(item for item in pe.sections if item.Name.rstrip(b"\0") == b".hpfix")
    raw = section.get_data()
    magic, version, header, body, content, digest = struct.unpack_from("<4sHHII32s", raw)
    assert (magic, version, header) == (b"HPFX", 1, 48)
    covered = bytearray(data[:content])
    checksum = pe.OPTIONAL_HEADER.get_field_absolute_offset("CheckSum")
    stamp = pe.FILE_HEADER.get_field_absolute_offset("TimeDateStamp")
    certificates = pe.OPTIONAL_HEADER.DATA_DIRECTORY[4].get_file_offset()
    for at, size in ((stamp, 4), (checksum, 4), (certificates, 8), (section.PointerToRawData + 16, 32)):
        covered[at : at + size] = bytes(size)
    assert hashlib.sha256(covered).digest() == digest
    assert struct.pack("<I", pe.FILE_HEADER.TimeDateStamp) == digest[:4]
    assert len(data) == content
    return msgspec.msgpack.decode(raw[48 : 48 + body])


def public(data: bytes) -> tuple[int, int, int, list[tuple]]:
    """Sequence number, time stamp, checksum, records."""
    pe = pefile.PE(data=data)
    load_config = pe.OPTIONAL_HEADER.DATA_DIRECTORY[10].VirtualAddress
    info = pe.get_dword_at_rva(load_config + 0xF0)
    assert (pe.get_dword_at_rva(info), pe.get_dword_at_rva(info + 4)) == (3, 0x24)
    base = info + pe.get_dword_at_rva(info + pe.get_dword_at_rva(info + 0x0C))
    table = info + pe.get_dword_at_rva(base + 0x18)
    rows = []
    while head := pe.get_dword_at_rva(table):
        words = [pe.get_dword_at_rva(table + at) for at in range(4, head & 0xFFF, 4)]
        step = bool(head & 0x8000) + bool(head & 0x4000)
        rows += [(CHUNK_TYPES[head & 0xFC000], *words[at : at + step]) for at in range(0, len(words), step)]
        table += head & 0xFFF
    return pe.get_dword_at_rva(info + 8), pe.get_dword_at_rva(base + 8), pe.get_dword_at_rva(base + 12), rows


@pytest.mark.parametrize("machine", Machine)
def test_the_second_reader_finds_what_the_first_does(machine):
    data = write_patch(contents(machine, extra=3))
    patch, told = loads(data, "p.dll"), own(data)
    assert told["machine"] == machine.value
    assert [(row["base_rva"], row["patch_rva"], row["redirect"]) for row in told["functions"]] == [(0x1010, 0x1000, "hpat")]
    fixups = [(KINDS[kind], site, ("base", "patch")[space], target, addend) for kind, site, space, target, addend in told["fixups"]]
    assert fixups == [(row.kind.value, row.site, row.space.value, row.target, row.addend) for row in patch.fixups]
    assert [(row["library"], row["name"], row["ordinal"], row["slot"]) for row in told["imports"]] == [
        (row.library, row.name, row.ordinal, row.slot) for row in patch.imports
    ]
    sequence, stamp, checksum, records = public(data)
    assert (sequence, stamp, checksum) == (told["sequence"], told["base"]["time_date_stamp"], told["base"]["checksum"])
    assert ("function", 0x1010, 0x1000) in records
    expected = [row for row in fixups if row[0] in ("rel32", "addr64") and row[2] == "base" and not row[4]]
    assert {(row[1], row[2]) for row in records if row[0] in ("rel32", "absolute")} == {(row[1], row[3]) for row in expected}


def test_the_page_names_every_kind_key_and_constant():
    from hotpatch.patch.container import KIND_CODES
    from hotpatch.patch.layout import CHUNK_TYPE_BITS

    text = PAGE.read_text("utf-8")
    for kind, code in KIND_CODES.items():
        assert f"| {code} | {kind.value.upper().replace('-', '_')} |" in text
    for kind, bits in CHUNK_TYPE_BITS.items():
        assert f"`{kind.value.upper().replace('-', '_')}` | 0x{bits:05X} |" in text
    for key in own(write_patch(contents(Machine.X64))):
        assert f"`{key}`" in text


@pytest.mark.parametrize("machine", Machine)
def test_the_second_reader_finds_callbacks_and_terms(machine):
    callbacks = (Callback(Moment.BEFORE_APPLY, Rva(0x1000)), Callback(Moment.AFTER_REVERT, Rva(0x1000)))
    for terms, flags in ((Terms(), 2), (Terms(3, obligatory=True, can_roll_back=False), 1), (Terms(0, obligatory=True), 3)):
        data = write_patch(replace(contents(machine), callbacks=callbacks, terms=terms))
        patch, told = loads(data, "p.dll"), own(data)
        assert [(row["moment"], row["patch_rva"]) for row in told["callbacks"]] == [("before-apply", 0x1000), ("after-revert", 0x1000)]
        assert (patch.callbacks, patch.terms) == (callbacks, terms)
        assert told["terms"] == {
            "state_version": terms.state_version,
            "obligatory": terms.obligatory,
            "can_roll_back": terms.can_roll_back,
        }
        pe = pefile.PE(data=data)
        info = pe.get_dword_at_rva(pe.OPTIONAL_HEADER.DATA_DIRECTORY[10].VirtualAddress + 0xF0)
        base = info + pe.get_dword_at_rva(info + pe.get_dword_at_rva(info + 0x0C))
        assert pe.get_dword_at_rva(base + 4) & 3 == flags


@pytest.mark.parametrize("machine", Machine)
def test_callbacks_outside_of_code_or_out_of_order_are_refused(machine):
    for callbacks in (
        (Callback(Moment.BEFORE_APPLY, Rva(0x2000)),),
        (Callback(Moment.AFTER_APPLY, Rva(0x1000)), Callback(Moment.BEFORE_APPLY, Rva(0x1000))),
        (Callback(Moment.AFTER_APPLY, Rva(0x1000)), Callback(Moment.AFTER_APPLY, Rva(0x1000))),
    ):
        with pytest.raises(Refused) as refused:
            loads(write_patch(replace(contents(machine), callbacks=callbacks)), "p.dll")
        assert refused.value.refusals[0].rule is Rule.MALFORMED_PATCH
