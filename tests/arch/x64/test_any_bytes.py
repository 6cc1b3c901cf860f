"""Whatever the bytes are, the x64 instruction set answers or refuses; it never fails otherwise."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hotpatch.arch import Machine, architecture
from hotpatch.errors import CannotRelocate

X64 = architecture(Machine.X64)
AT = 0x140001000

# Bytes that begin interesting instructions come up more often than chance would have it.
OPENINGS = st.sampled_from(
    [
        *map(bytes.fromhex, ("e8", "e9", "eb", "7405", "0f84", "0f87", "e3", "e2", "c7f8", "83f9", "ffe0", "ff24c2", "4803", "4863")),
        *map(bytes.fromhex, ("488d15", "488d05", "8b848a", "488b05", "c4", "c5", "62", "8f", "66", "67", "f3", "f2", "48", "0f38", "0f3a")),
    ]
)
CODE = st.lists(st.one_of(OPENINGS, st.binary(max_size=6)), max_size=24).map(b"".join)


@given(CODE)
@settings(max_examples=400, deadline=None)
def test_reading(code):
    lines = list(X64.disassemble(code, AT))
    assert sum(line.size for line in lines) <= len(code)
    found = X64.references(code, AT, image_base=AT & ~0xFFFF)
    assert list(found) == sorted(found, key=lambda reference: reference.field)
    sizes = {line.address - AT: line.size for line in lines}
    for reference in found:
        assert sizes[reference.offset] == reference.size
        width = X64.field_size(reference.kind)
        assert reference.offset < reference.field <= reference.offset + reference.size - width
        field = code[reference.field : reference.field + width]
        resolved = X64.resolve(reference.kind, field, AT + reference.field, image_base=AT & ~0xFFFF)
        assert resolved == reference.target + reference.addend
    assert len(X64.mask(code, found)) == len(code)


@given(CODE, st.binary(min_size=64, max_size=256))
@settings(max_examples=400, deadline=None)
def test_tables(code, data):
    for table in X64.jump_tables(code, AT, lambda address, size: data[address % 61 :][: size % 200]):
        assert table.targets


@given(CODE, st.integers(1, 12), st.sampled_from([AT + 0x100000, AT - 0x7000_0000, AT + 2**40]))
@settings(max_examples=800, deadline=None)
def test_moving(code, displaced, trampoline):
    try:
        moved = X64.trampoline(code, source_va=AT, trampoline_va=trampoline, displaced=displaced)
    except CannotRelocate as refused:
        assert refused.refusals
        return
    assert AT < moved.resume_va <= AT + len(code)
    starts = [line.address - AT for line in X64.disassemble(code, AT) if line.address < moved.resume_va]
    assert list(moved.offsets) == starts
    copied = {line.address - trampoline for line in X64.disassemble(moved.code, trampoline)}
    assert set(moved.offsets.values()) <= copied
