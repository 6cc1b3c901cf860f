"""Addresses in fields: bound, resolved, refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpatch.arch import FixupKind, Machine, Reference, Use, architecture
from hotpatch.errors import HotpatchError, OutOfReach, Rule

ARM64 = architecture(Machine.ARM64)
MI = 1 << 20
SITE = 0x140001000
K = FixupKind

# kind, word, distance from SITE to the target, word bound
BOUND = [
    (K.BRANCH26, 0x14000000, 128 * MI - 4, 0x15FFFFFF),
    (K.BRANCH26, 0x14000000, -128 * MI, 0x16000000),
    (K.BRANCH26, 0x97FFFFFF, 0x1000, 0x94000400),
    (K.BRANCH19, 0x54000001, MI - 4, 0x547FFFE1),
    (K.BRANCH19, 0x34000003, -MI, 0x34800003),
    (K.BRANCH19, 0xB5FFFFE3, 8, 0xB5000043),
    (K.BRANCH14, 0x36000005, 0x7FFC, 0x3603FFE5),
    (K.BRANCH14, 0xB7F80005, -0x8000, 0xB7FC0005),
    (K.LITERAL19, 0x58000010, 0x1000, 0x58008010),
    (K.LITERAL19, 0x9C000001, -4, 0x9CFFFFE1),
    (K.LITERAL19, 0xD8000000, MI - 4, 0xD87FFFE0),
    (K.REL21, 0x10000000, MI - 1, 0x707FFFE0),
    (K.REL21, 0x10000000, -MI, 0x10800000),
    (K.REL21, 0x10000000, -1, 0x70FFFFE0),
    (K.PAGEBASE_REL21, 0x90000000, 0x2345, 0xD0000000),
    (K.PAGEBASE_REL21, 0x90000000, -0x1001, 0xD0FFFFE0),
    (K.PAGEBASE_REL21, 0x90000000, -(1 << 32), 0x90800000),
    (K.PAGEBASE_REL21, 0x90000000, (1 << 32) - 0x1000, 0xF07FFFE0),
    (K.PAGEOFFSET_12A, 0x91000108, 0x2FFF, 0x913FFD08),
    (K.PAGEOFFSET_12L, 0x39400108, 0x2FFF, 0x397FFD08),
    (K.PAGEOFFSET_12L, 0x79400108, 0x2FFE, 0x795FFD08),
    (K.PAGEOFFSET_12L, 0xB9400108, 0x2FFC, 0xB94FFD08),
    (K.PAGEOFFSET_12L, 0xF9400108, 0x2FF8, 0xF947FD08),
    (K.PAGEOFFSET_12L, 0x3DC00108, 0x2FF0, 0x3DC3FD08),
    (K.PAGEOFFSET_12L, 0x3D800108, 0x2FF0, 0x3D83FD08),
    (K.PAGEOFFSET_12L, 0xFD400108, 0x2FF8, 0xFD47FD08),
    (K.PAGEOFFSET_12L, 0x3D400108, 0x2FFF, 0x3D7FFD08),
    (K.PAGEOFFSET_12L, 0xF9800100, 0x2008, 0xF9800500),
    (K.IMAGEREL_HIGH12A, 0x91400108, 0x122450, 0x91448D08),
    (K.IMAGEREL_LOW12A, 0x91000108, 0x122450, 0x91114108),
    (K.IMAGEREL_LOW12L, 0xB9400108, 0x122450, 0xB9445108),
]
IMAGE_BASE = 0x140000000


@pytest.mark.parametrize(("kind", "word", "distance", "expected"), BOUND)
def test_binds(kind: FixupKind, word: int, distance: int, expected: int):
    bound = ARM64.bind(kind, struct.pack("<I", word), SITE, SITE + distance, image_base=IMAGE_BASE)
    assert bound.hex() == struct.pack("<I", expected).hex()


# kind, word, distance that just does not fit
UNREACHABLE = [
    (K.BRANCH26, 0x14000000, 128 * MI),
    (K.BRANCH26, 0x14000000, -128 * MI - 4),
    (K.BRANCH26, 0x14000000, 2),
    (K.BRANCH19, 0x54000000, MI),
    (K.BRANCH19, 0x54000000, -MI - 4),
    (K.BRANCH14, 0x36000000, 0x8000),
    (K.BRANCH14, 0x36000000, -0x8004),
    (K.LITERAL19, 0x58000000, MI),
    (K.LITERAL19, 0x58000000, 6),
    (K.REL21, 0x10000000, MI),
    (K.REL21, 0x10000000, -MI - 1),
    (K.PAGEBASE_REL21, 0x90000000, 1 << 32),
    (K.PAGEBASE_REL21, 0x90000000, -(1 << 32) - 1),
    (K.PAGEOFFSET_12L, 0x79400000, 1),
    (K.PAGEOFFSET_12L, 0xB9400000, 2),
    (K.PAGEOFFSET_12L, 0xF9400000, 4),
    (K.PAGEOFFSET_12L, 0x3DC00000, 8),
    (K.IMAGEREL_HIGH12A, 0x91400000, 1 << 24),
    (K.IMAGEREL_HIGH12A, 0x91400000, -0x2000),
]


@pytest.mark.parametrize(("kind", "word", "distance"), UNREACHABLE)
def test_refuses_what_does_not_fit(kind: FixupKind, word: int, distance: int):
    with pytest.raises(OutOfReach) as caught:
        ARM64.bind(kind, struct.pack("<I", word), SITE, SITE + distance, image_base=IMAGE_BASE)
    (refusal,) = caught.value.refusals
    assert refusal.rule is Rule.OUT_OF_REACH
    assert refusal.evidence == {
        "kind": str(kind),
        "bytes": struct.pack("<I", word).hex(),
        "site": SITE,
        "target": SITE + distance,
        "distance": distance,
    }


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (K.BRANCH26, struct.pack("<I", 0xD503201F)),
        (K.BRANCH19, struct.pack("<I", 0x36000000)),
        (K.PAGEOFFSET_12A, struct.pack("<I", 0x91400000)),  # shifted
        (K.PAGEOFFSET_12A, struct.pack("<I", 0x91800000)),  # ADDG
        (K.PAGEOFFSET_12L, struct.pack("<I", 0x91000000)),
        (K.IMAGEREL_HIGH12A, struct.pack("<I", 0x91000000)),
        (K.PAGEBASE_REL21, struct.pack("<I", 0x10000000)),
        (K.BRANCH26, b"\0\0\0"),
        (K.REL8, b"\0"),
    ],
)
def test_a_field_that_holds_something_else_is_refused(kind: FixupKind, field: bytes):
    with pytest.raises(HotpatchError):
        ARM64.bind(kind, field, SITE, SITE)
    with pytest.raises(HotpatchError):
        ARM64.resolve(kind, field, SITE)


WORDS = {
    K.BRANCH26: (0x14000000, 0x94000000),
    K.BRANCH19: (0x54000000, 0x34000000, 0xB5000000),
    K.BRANCH14: (0x36000000, 0xB7000000),
    K.LITERAL19: (0x18000000, 0x58000000, 0x98000000, 0xD8000000, 0x1C000000, 0x5C000000, 0x9C000000),
    K.REL21: (0x10000000,),
}


@st.composite
def branch(draw):
    kind = draw(st.sampled_from(sorted(WORDS)))
    bits = {K.BRANCH26: 28, K.BRANCH19: 21, K.LITERAL19: 21, K.BRANCH14: 16, K.REL21: 21}[kind]
    step = 1 if kind is K.REL21 else 4
    distance = draw(st.integers(-(1 << (bits - 1)) // step, ((1 << (bits - 1)) - 1) // step)) * step
    return kind, draw(st.sampled_from(WORDS[kind])) | draw(st.integers(0, 31)), distance


@given(branch(), st.integers(0x10000, 1 << 47).map(lambda site: site & ~3))
def test_what_is_bound_resolves_to_the_target(case, site: int):
    kind, word, distance = case
    if site + distance < 0:
        return
    bound = ARM64.bind(kind, struct.pack("<I", word), site, site + distance)
    assert ARM64.resolve(kind, bound, site) == site + distance
    assert ARM64.bind(kind, bound, site, ARM64.resolve(kind, bound, site)) == bound


@given(
    st.integers(0, 1 << 47).map(lambda site: site & ~3),
    st.integers(-(1 << 31), (1 << 31) - 1),
    st.sampled_from([0x91000000, 0x39400000, 0x79400000, 0xB9400000, 0xF9400000, 0x3DC00000, 0xFD400000, 0xF9800000, 0x39800000]),
)
def test_page_and_low_bits_together_give_the_address(site: int, distance: int, low: int):
    kind = K.PAGEOFFSET_12A if low == 0x91000000 else K.PAGEOFFSET_12L
    size = {0x39400000: 1, 0x39800000: 1, 0x79400000: 2, 0xB9400000: 4, 0x3DC00000: 16}.get(low, 8) if kind is K.PAGEOFFSET_12L else 1
    target = max(site + distance, 0) // size * size
    page = ARM64.bind(K.PAGEBASE_REL21, struct.pack("<I", 0x90000008), site, target)
    offset = ARM64.bind(kind, struct.pack("<I", low | 8 << 5), site + 4, target)
    assert ARM64.resolve(K.PAGEBASE_REL21, page, site) + ARM64.resolve(kind, offset, site + 4) == target


@given(st.sampled_from([K.ADDR64, K.ADDR32NB]), st.integers(0, (1 << 32) - 1), st.integers(0, 1 << 47))
def test_data_fields(kind: FixupKind, distance: int, image_base: int):
    size = ARM64.field_size(kind)
    field = ARM64.bind(kind, bytes(size), 0, image_base + distance, image_base=image_base)
    assert len(field) == size == (8 if kind is K.ADDR64 else 4)
    assert ARM64.resolve(kind, field, 0, image_base=image_base) == image_base + distance


def test_data_fields_refuse_what_does_not_fit():
    with pytest.raises(OutOfReach):
        ARM64.bind(K.ADDR32NB, bytes(4), 0, 1 << 32)
    with pytest.raises(OutOfReach):
        ARM64.bind(K.ADDR64, bytes(8), 0, -1)


def test_masking_clears_the_immediates_and_nothing_else():
    code = struct.pack("<5I", 0x97FFFFFF, 0xF0FFFFE8, 0x913FFD08, 0x54FFFFE1, 0x37FFFFE5)
    kinds = (K.BRANCH26, K.PAGEBASE_REL21, K.PAGEOFFSET_12A, K.BRANCH19, K.BRANCH14)
    references = [Reference(4 * at, 4, 4 * at, kind, Use.DATA, 0) for at, kind in enumerate(kinds)]
    assert struct.unpack("<5I", ARM64.mask(code, references)) == (0x94000000, 0x90000008, 0x91000108, 0x54000001, 0x37F80005)
    assert ARM64.mask(code, references[1:2])[:4] == code[:4]
    assert ARM64.mask(code, ()) == code
