"""Fields of x64 code: written and read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.errors import HotpatchError, OutOfReach, Rule

X64 = architecture(Machine.X64)
KINDS = {FixupKind.ADDR64: 8, FixupKind.ADDR32NB: 4, FixupKind.REL32: 4, FixupKind.REL8: 1}
ADDRESSES = st.integers(0, 2**47 - 1)


@given(st.sampled_from(sorted(KINDS)), ADDRESSES, ADDRESSES, st.integers(-(2**32), 2**32))
def test_bind_then_resolve_is_the_identity(kind, site, image_base, distance):
    target = {FixupKind.ADDR64: distance % 2**64, FixupKind.ADDR32NB: image_base + distance}.get(kind, site + distance)
    try:
        field = X64.bind(kind, bytes(KINDS[kind]), site, target, image_base=image_base)
    except OutOfReach as refused:
        assert kind is not FixupKind.ADDR64
        assert refused.refusals[0].evidence["distance"] == target - site
    else:
        assert len(field) == KINDS[kind] == X64.field_size(kind)
        assert X64.resolve(kind, field, site, image_base=image_base) == target


@given(st.sampled_from(sorted(KINDS)), ADDRESSES, st.data())
def test_resolve_then_bind_is_the_identity(kind, site, data):
    field = data.draw(st.binary(min_size=KINDS[kind], max_size=KINDS[kind]))
    if kind is FixupKind.ADDR32NB:
        field = field[:3] + bytes((field[3] & 0x7F,))
    target = X64.resolve(kind, field, site, image_base=0x140000000)
    assert X64.bind(kind, bytes(KINDS[kind]), site, target, image_base=0x140000000) == field


SITE = 0x140001000
EDGES = (
    (FixupKind.REL8, 1 + 127, "7f", 1 + 128),
    (FixupKind.REL8, 1 - 128, "80", 1 - 129),
    (FixupKind.REL32, 4 + 2**31 - 1, "ffffff7f", 4 + 2**31),
    (FixupKind.REL32, 4 - 2**31, "00000080", 4 - 2**31 - 1),
    (FixupKind.ADDR32NB, 2**31 - 1 - SITE, "ffffff7f", 2**31 - SITE),
    (FixupKind.ADDR32NB, -SITE, "00000000", -SITE - 1),
    (FixupKind.ADDR64, 2**64 - 1 - SITE, "ff" * 8, 2**64 - SITE),
    (FixupKind.ADDR64, -SITE, "00" * 8, -SITE - 1),
)


@pytest.mark.parametrize(("kind", "last", "field", "beyond"), EDGES)
def test_reach(kind, last, field, beyond):
    assert X64.bind(kind, bytes(KINDS[kind]), SITE, SITE + last).hex() == field
    with pytest.raises(OutOfReach) as caught:
        X64.bind(kind, bytes(KINDS[kind]), SITE, SITE + beyond)
    (refusal,) = caught.value.refusals
    assert refusal.rule is Rule.OUT_OF_REACH
    assert refusal.evidence["site"] == SITE
    assert refusal.evidence["target"] == SITE + beyond


@pytest.mark.parametrize("kind", sorted(set(FixupKind) - set(KINDS)))
def test_kinds_of_the_other_machine(kind):
    with pytest.raises(HotpatchError):
        X64.field_size(kind)
    with pytest.raises(HotpatchError):
        X64.bind(kind, bytes(4), SITE, SITE)
    with pytest.raises(HotpatchError):
        X64.resolve(kind, bytes(4), SITE)


def test_a_field_of_another_length():
    with pytest.raises(HotpatchError):
        X64.resolve(FixupKind.REL32, bytes(3), SITE)
