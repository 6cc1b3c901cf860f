"""The table of x64 encodings says what Capstone says, and the scan that is made of it finds what decoding finds."""

from __future__ import annotations

from itertools import islice, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotpatch.arch import Flow
from hotpatch.arch import x64_encoding as encoding
from hotpatch.arch.common import holds
from hotpatch.arch.x64_forms import FORMS, Operand, numbers
from hotpatch.arch.x64_references import decoded, rows
from hotpatch.arch.x64_scan import scan

AT = 0x140001000
_DISPLACEMENTS = {0: b"", 1: b"\x11", 2: b"\x11\x22\x33\x44"}
_SIBS = (0x20, 0x24, 0x25, 0xC0, 0xE5, 0x0D, 0x44)
"""With and without index, displacement, scale."""
PIECE = 20_000
_GOES_ON = {None, Flow.TRAP, Flow.RETURN}
IDS = [f"{number}-{form.opcodes.split()[0]}" for number, form in enumerate(FORMS)]


def operands(form):
    """Every ModRM byte with what belongs to it, and whether it is RIP-relative."""
    if form.operand is Operand.NOTHING:
        return [(b"", False)]
    found = []
    for modrm in range(256):
        mode, base = modrm >> 6, modrm & 7
        if modrm >> 3 & 7 not in form.fields or form.operand is (Operand.MEMORY if mode == 3 else Operand.REGISTER):
            continue
        if mode == 3:
            found.append((bytes((modrm,)), False))
        elif base == 4:
            for sib in _SIBS:
                absolute = mode == 0 and sib & 7 == 5
                found.append((bytes((modrm, sib)) + _DISPLACEMENTS[2 if absolute else mode], False))
        else:
            relative = mode == 0 and base == 5
            found.append((bytes((modrm,)) + _DISPLACEMENTS[2 if relative else mode], relative))
    return found


def encodings(form, leads, rests):
    """Encodings of ``form``, and whether each is RIP-relative."""
    immediates = (b"\x55\x66\x77\x08\x09\x0a\x0b\x0c", bytes(8))
    for lead, opcode, (rest, relative) in product(leads, numbers(form.opcodes), rests):
        immediate = immediates[len(rest) % 2][: form.immediate]
        yield lead + form.escape + bytes((opcode,)) + rest + immediate, relative


def leads(form):
    return [bytes(values) for sets in form.lead for values in product(*sets)]


def compare(some):
    """In pieces: one form has eight million encodings."""
    encodings, seen = iter(some), 0
    while codes := list(islice(encodings, PIECE)):
        rows = list(encoding.decoder().rows(b"".join(code for code, _ in codes), 0))
        for (code, relative), (number, _, size, _, _, text) in zip(codes, rows, strict=True):
            assert size == len(code), code.hex()
            assert holds(text, b"[rip") is relative, code.hex()
            assert encoding.FLOW.get(number) in _GOES_ON, code.hex()
        seen += len(codes)
    assert seen


@pytest.mark.parametrize("form", FORMS, ids=IDS)
def test_form(form):
    compare(encodings(form, leads(form), operands(form)[::29]))
    compare(encodings(form, [leads(form)[0], leads(form)[-1]], operands(form)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("form", FORMS, ids=IDS)
def test_whole_form(form):
    compare(encodings(form, leads(form), operands(form)))


@pytest.mark.parametrize("form", FORMS, ids=IDS)
def test_scan_of_form(form):
    code = b"".join(code for code, _ in encodings(form, leads(form)[:2], operands(form)))
    found = scan(code, AT)
    assert found is not None
    assert found.rows == decoded(encoding.decoder().rows(code, AT), code, AT)
    assert not found.dispatches


BRANCHES = tuple(map(bytes.fromhex, ("e811223344", "e911223344", "0f8411223344", "eb10", "7510", "e2f0", "ff15f0000000", "ff25f0000000")))
SOME = tuple(code for form in FORMS for code, _ in list(encodings(form, leads(form)[::7], operands(form)[::17]))[::5])


@given(st.lists(st.sampled_from(SOME + BRANCHES * 20), max_size=60).map(b"".join))
@settings(max_examples=300, deadline=None)
def test_scan_of_code(code):
    found = scan(code, AT)
    assert found is not None
    assert found.rows == decoded(encoding.decoder().rows(code, AT), code, AT)


@given(st.lists(st.one_of(st.sampled_from(SOME + BRANCHES * 20), st.binary(max_size=3)), max_size=40).map(b"".join))
@settings(max_examples=1000, deadline=None)
def test_scan_of_anything(code):
    found = scan(code, AT)
    assert found is None or found.rows == decoded(encoding.decoder().rows(code, AT), code, AT)


@pytest.mark.parametrize(
    ("code", "dispatches"),
    [("ffe0c3", True), ("41ff24c2", True), ("ff6008", True), ("48ff25f0000000", False), ("ffd0c3", False), ("ff15f0000000", False)],
)
def test_dispatches(code, dispatches):
    assert scan(bytes.fromhex(code), AT).dispatches is dispatches


@pytest.mark.parametrize(
    "code", ["62f17c481005f60f0000", "67e30f", "9090e8112233", "f2e9fa0f0000", "48", "0f0f0505050505b7", "6705f60f0000"]
)
def test_left_to_the_decoder(code):
    """Forms that the table leaves out, instructions cut short, and what is none."""
    raw = bytes.fromhex(code)
    assert scan(raw, AT) is None
    assert rows(raw, AT) == decoded(encoding.decoder().rows(raw, AT), raw, AT)
