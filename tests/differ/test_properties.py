"""What holds of every comparison, on every image of the cases."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import pytest
from hypothesis import HealthCheck, assume, example, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

from hotpatch.arch import Machine
from hotpatch.cases import case_names, find_case
from hotpatch.differ import Listings, Verdict, diff_images
from hotpatch.differ.flows import instructions
from hotpatch.differ.matching import Evidence
from hotpatch.differ.view import view_of
from hotpatch.errors import HotpatchError, Refused, Rule
from hotpatch.image import Image, open_image
from hotpatch.image.model import SectionFlags

_SAME = {Verdict.IDENTICAL, Verdict.RELOCATED}
_MIRROR = {Verdict.ADDED: Verdict.REMOVED, Verdict.REMOVED: Verdict.ADDED}
_MUTABLE = ["jump-table", "state-kept", "static-local", "tail-call"]

every_case = pytest.mark.parametrize("name", case_names())
every_machine = pytest.mark.parametrize("machine", Machine)
with_and_without = pytest.mark.parametrize("pdb", ["auto", None], ids=["pdb", "no-pdb"])


@cache
def _image(name: str, machine: Machine, side: str, pdb: str | None) -> Image:
    return open_image(find_case(name).image(machine, side), pdb=pdb)


@with_and_without
@every_machine
@every_case
def test_an_image_is_identical_to_itself(name, machine, pdb) -> None:
    one, again = _image(name, machine, "base", pdb), open_image(find_case(name).image(machine, "base"), pdb=pdb)
    diff = diff_images(one, again)
    assert [row.name for row in diff.functions if row.verdict is not Verdict.IDENTICAL or row.base != row.fixed] == []
    assert diff.findings == ()
    assert all(match.base == match.fixed for match in diff.data)


FOLDED = {"folded", "folded-by-fix"}


@with_and_without
@every_machine
@every_case
def test_both_ways_say_the_same(name, machine, pdb) -> None:
    if name in FOLDED:
        pytest.skip("two functions can become one, but one cannot become two")
    base, fixed = _image(name, machine, "base", pdb), _image(name, machine, "fixed", pdb)
    forth, back = diff_images(base, fixed), diff_images(fixed, base)
    there = {(row.base and row.base.entry, row.fixed and row.fixed.entry): row.verdict for row in forth.functions}
    here = {(row.fixed and row.fixed.entry, row.base and row.base.entry): _MIRROR.get(row.verdict, row.verdict) for row in back.functions}
    assert there == here


def assert_one_to_one(diff) -> None:
    """No function stands in two pairs, but for those that folding adds, of which each has a function that stands in another pair too."""
    pairs = [row for row in diff.functions if row.base and row.fixed]
    plain = [row for row in pairs if row.matched_by != Evidence.FOLDED]
    base, fixed = {row.base.entry for row in plain}, {row.fixed.entry for row in plain}
    assert len(plain) == len(base) == len(fixed)
    assert all(row.base.entry in base or row.fixed.entry in fixed for row in pairs)
    assert len({(row.base.entry, row.fixed.entry) for row in pairs}) == len(pairs)


@with_and_without
@every_machine
@every_case
def test_rows_and_data_keep_their_promises(name, machine, pdb) -> None:
    base, fixed = _image(name, machine, "base", pdb), _image(name, machine, "fixed", pdb)
    diff = diff_images(base, fixed)
    assert {row.base.entry for row in diff.functions if row.base} == {function.entry for function in base.functions}
    assert {row.fixed.entry for row in diff.functions if row.fixed} == {function.entry for function in fixed.functions}
    assert_one_to_one(diff)
    for one, two in zip(diff.data, diff.data[1:], strict=False):
        assert one.fixed + one.size <= two.fixed
    for match in diff.data:
        assert match.size > 0
        assert diff.base_datum(match.fixed) == match.base
        assert diff.base_datum(match.fixed + match.size - 1) == match.base + match.size - 1
    for row in diff.functions:
        assert (row.similarity == 1.0) is (row.verdict in _SAME)
        assert 0.0 <= row.similarity <= 1.0


@every_machine
@every_case
def test_the_comparison_repeats_itself(name, machine) -> None:
    paths = [find_case(name).image(machine, side) for side in ("base", "fixed")]
    one, two = (diff_images(*map(open_image, paths)) for _ in range(2))
    assert (one.functions, one.data, one.findings) == (two.functions, two.data, two.findings)


@every_machine
@every_case
def test_a_listing_holds_every_instruction_once_in_blocks_that_lead_to_blocks(name, machine) -> None:
    diff = diff_images(_image(name, machine, "base", "auto"), _image(name, machine, "fixed", "auto"))
    listings = Listings(diff)
    for row in diff.functions:
        blocks = listings.of(row).blocks
        for side, function, images in (("base", row.base, diff.base), ("fixed", row.fixed, diff.fixed)):
            shown = [getattr(line, f"{side}_rva") for block in blocks for line in block.lines if getattr(line, side) is not None]
            assert sorted(shown) == [step.address for step in instructions(view_of(images), function.entry)] if function else not shown
        labels = [block.label for block in blocks]
        assert len(set(labels)) == len(labels)
        assert {exit.label for block in blocks for exit in (*block.base_exits, *block.fixed_exits)} <= set(labels)
        if row.verdict in _SAME:
            assert not any(block.differs for block in blocks), row.name
        else:
            assert any(block.differs for block in blocks), row.name


@pytest.mark.parametrize(("first", "second"), list(permutations(Machine, 2)))
def test_two_machines_are_refused(first: Machine, second: Machine) -> None:
    with pytest.raises(Refused) as caught:
        diff_images(_image("basic", first, "base", None), _image("basic", second, "fixed", None))
    (refusal,) = caught.value.refusals
    assert (refusal.rule, refusal.evidence) == (Rule.MACHINE_DIFFERS, {"base": first.value, "fixed": second.value})
    assert refusal.reason == f"base.dll is for {first} and fixed.dll for {second}; compare two builds for one machine"


# a byte of the file is another: never overlooked ------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@drawn(st.sampled_from(_MUTABLE), st.sampled_from(list(Machine)), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
@example("state-kept", Machine.ARM64, 0.90625, 6)  # leads past the image's end
def test_no_changed_byte_of_code_is_overlooked(name, machine, where, flip) -> None:
    base = _image(name, machine, "base", "auto")
    bodies = [(function, part.start + at) for function in base.functions for part in function.ranges for at in range(part.size)]
    function, rva = bodies[int(where * len(bodies))]
    diff = diff_images(base, _mutant(base, rva, flip))
    row = next(row for row in diff.functions if row.base and row.base.entry == function.entry)
    assert row.verdict not in _SAME


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@drawn(st.sampled_from(_MUTABLE), st.sampled_from(list(Machine)), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_no_changed_initial_value_is_overlooked(name, machine, where, flip) -> None:
    base = _image(name, machine, "base", "auto")
    live = [datum for datum in base.data_symbols if datum.size and base.section_at(datum.rva).flags & SectionFlags.WRITE]
    stored = [datum.rva + at for datum in live for at in range(datum.size) if _offset(base, datum.rva + at) is not None]
    assume(stored)
    rva = stored[int(where * len(stored))]
    diff = diff_images(base, _mutant(base, rva, flip))
    assert Rule.DATA_INIT in {finding.rule for finding in diff.findings}


def _mutant(image: Image, rva: int, flip: int) -> Image:
    data = bytearray(image.data)
    data[_offset(image, rva)] ^= flip
    return Image.from_bytes(bytes(data), "mutant", image.symbols)


def _offset(image: Image, rva: int) -> int | None:
    section = image.section_at(rva)
    at = rva - section.rva
    return section.offset + at if at < section.raw_size else None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@drawn(
    st.sampled_from(_MUTABLE),
    st.sampled_from(list(Machine)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
)
def test_damaged_images_compare_without_surprise(name, machine, damage) -> None:
    base = _image(name, machine, "base", None)
    data = bytearray(base.data)
    for where, value in damage:
        data[int(where * len(data))] = value
    try:
        damaged = Image.from_bytes(bytes(data), "damaged")
        diff = diff_images(base, damaged)
    except HotpatchError:
        return
    assert {row.base.entry for row in diff.functions if row.base} == {function.entry for function in base.functions}
    listings = Listings(diff)
    assert all(listings.of(row).blocks for row in diff.functions)
