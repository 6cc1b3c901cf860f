"""What the engine refuses, by which rule, with which evidence, and that nothing is changed by it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hotpatch.arch import Machine, Redirect
from hotpatch.engine import Consistency, Engine, Stacking
from hotpatch.errors import ApplyRefused, Refused, RevertRefused, Rule
from hotpatch.image import Image, SectionFlags

from .conftest import LOAD, world
from .fake import Fake
from .synthetic import CODE, Recipe, base_image, entry, make

X64_HOOK = b"\xe9\x00\x10\x00\x00"
ARM64_HOOK = (0x14000400).to_bytes(4, "little")


def refused(here, patch, *how):
    """The refusals of applying ``patch``; nothing has changed."""
    before = here.fake.snapshot()
    with pytest.raises(ApplyRefused) as caught:
        here.engine.apply(patch, *how)
    assert here.fake.snapshot() == before
    assert not here.fake.events
    return caught.value.refusals


def hook(here, index):
    here.fake.poke(here.entry(index), X64_HOOK if here.fake.machine is Machine.X64 else ARM64_HOOK)
    return here.entry(index) + (0x1005 if here.fake.machine is Machine.X64 else 0x1000)


def test_another_machine():
    patch = make(Recipe(base_image(Machine.ARM64), {1: 1}))
    (refusal,) = refused(world(Machine.X64), patch)
    assert refusal.rule is Rule.MACHINE_DIFFERS


def test_wrong_base_gives_both_values(here):
    other = base_image(here.fake.machine, stamp=0x5EED0002)
    (refusal,) = refused(here, make(Recipe(other, {1: 111})))
    assert refusal.rule is Rule.WRONG_BASE
    assert refusal.evidence["expected"]["time_date_stamp"] == 0x5EED0002
    assert refusal.evidence["found"]["time_date_stamp"] == 0x5EED0001


STAMP, SIZE, CHECKSUM = 64 + 4 + 4, 64 + 24 + 56, 64 + 24 + 64
"""Where the fields of the header are that tell builds apart, which lies at 64 in synthetic images."""


@pytest.mark.parametrize(("name", "at"), [("time_date_stamp", STAMP), ("checksum", CHECKSUM), ("size_of_image", SIZE)])
def test_wrong_base_where_one_field_of_the_header_differs(here, name, at):
    data = bytearray(here.base.data)
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "little") + 0x1000).to_bytes(4, "little")
    other = Image.from_bytes(bytes(data), "base.dll")
    (refusal,) = refused(here, make(Recipe(other, {1: 111})))
    assert refusal.rule is Rule.WRONG_BASE
    expected, found = refusal.evidence["expected"], refusal.evidence["found"]
    assert {field for field in expected if expected[field] != found[field]} == {name}


def test_wrong_base_with_the_same_headers(here):
    other = base_image(here.fake.machine, count=8, first=0)
    data = bytearray(other.data)
    data[0x400 + 5 * 48 + 16 + 8] ^= 1  # in a function that the patch does not touch
    other = type(other).from_bytes(bytes(data), "base.dll")
    (refusal,) = refused(here, make(Recipe(other, {1: 111})))
    assert refusal.rule is Rule.WRONG_BASE
    assert refusal.evidence["expected"]["digest"] == other.identity.digest
    assert refusal.evidence["found"]["digest"] == here.base.identity.digest


def test_another_patch_s_function_is_not_taken_for_the_base_s_where_somebody_changed_it(here):
    here.apply({1: 111})
    hook(here, 1)
    here.fake.events.clear()
    (refusal,) = refused(here, here.patch({2: 222}, sequence=2, name="second.dll"), Consistency.IMMEDIATE, Stacking.ADDITIONAL)
    assert (refusal.rule, refusal.rva) == (Rule.UNEXPECTED_BYTES, entry(1))


def test_a_process_of_one_module_is_meant_by_it(here):
    other = base_image(here.fake.machine, stamp=3)
    (refusal,) = refused(here, make(Recipe(other, {1: 111}, base_name="renamed.dll")))
    assert refusal.rule is Rule.WRONG_BASE
    assert refusal.evidence["module"] == "base.dll"


def test_module_not_loaded(here):
    other = base_image(here.fake.machine, stamp=3)
    here.fake.load(base_image(here.fake.machine, stamp=4), 0x190000000, "second.dll")
    (refusal,) = refused(here, make(Recipe(other, {1: 111}, base_name="absent.dll")))
    assert refusal.rule is Rule.NOT_LOADED


def test_names_are_not_trusted(machine):
    base = base_image(machine)
    fake = Fake(machine)
    fake.load(base_image(machine, stamp=9), LOAD, "base.dll")
    fake.load(base, LOAD + 0x100000, "renamed.dll")
    applied = Engine(fake).apply(make(Recipe(base, {1: 111})))
    assert applied.functions[0].module == "renamed.dll"


def test_foreign_hook_names_its_target(here):
    patch = here.patch({1: 111})
    target = hook(here, 1)
    (refusal,) = refused(here, patch)
    assert (refusal.rule, refusal.function, refusal.rva) == (Rule.FOREIGN_HOOK, "f1", entry(1))
    assert refusal.evidence["jump_target"] == target
    assert refusal.evidence["jump_module"] == "base.dll"


def test_foreign_hook_is_followed_to_where_it_ends(here):
    """By way of the padding (x64) and of a relay that jumps through a pointer."""
    hooks = here.fake.load(base_image(here.fake.machine, stamp=9), LOAD + 0x10_0000, "hooks.dll")
    f1, relay, end = here.entry(1), hooks.va + entry(2), hooks.va + entry(3)
    if here.fake.machine is Machine.X64:
        here.fake.poke(f1 - 5, b"\xe9" + (relay - f1).to_bytes(4, "little") + b"\xeb\xf9")
        here.fake.poke(relay, b"\xff\x25" + bytes(4) + end.to_bytes(8, "little"))
        through = [f1 - 5, relay]
    else:
        here.fake.poke(f1, (0x14000000 | (relay - f1) // 4).to_bytes(4, "little"))
        here.fake.poke(relay, bytes.fromhex("50000058 00021fd6") + end.to_bytes(8, "little"))
        through = [relay]
    (refusal,) = refused(here, here.patch({1: 111}))
    evidence = refusal.evidence
    assert refusal.rule is Rule.FOREIGN_HOOK
    assert (evidence["jump_target"], evidence["jump_module"], evidence["jump_rva"]) == (end, "hooks.dll", entry(3))
    assert evidence["jump_through_va"] == through
    assert refusal.reason.startswith(f"somebody else's jump to 0x{end:x} in hooks.dll stands at the entry")


def test_foreign_hook_that_leads_round_and_round(here):
    hooks = here.fake.load(base_image(here.fake.machine, stamp=9), LOAD + 0x10_0000, "hooks.dll")
    f1, relay = here.entry(1), hooks.va + entry(2)
    itself = {Machine.X64: b"\xeb\xfe", Machine.ARM64: bytes.fromhex("00000014")}[here.fake.machine]
    there = {
        Machine.X64: b"\xe9" + (relay - f1 - 5).to_bytes(4, "little"),
        Machine.ARM64: (0x14000000 | (relay - f1) // 4).to_bytes(4, "little"),
    }
    here.fake.poke(f1, there[here.fake.machine])
    here.fake.poke(relay, itself)
    (refusal,) = refused(here, here.patch({1: 111}))
    assert refusal.evidence["jump_target"] == relay


def test_foreign_hook_over_our_own_redirect(here):
    here.apply({1: 111})
    here.fake.events.clear()
    patch = here.patch({1: 1111}, sequence=2, name="second.dll")
    hook(here, 1)
    (refusal,) = refused(here, patch)
    assert refusal.rule is Rule.FOREIGN_HOOK


def test_unexpected_bytes_show_both(here):
    patch = here.patch({1: 111, 2: 222})
    here.fake.poke(here.entry(2) + 8, b"\x11\x22\x33\x44")
    (refusal,) = refused(here, patch)
    assert (refusal.rule, refusal.function) == (Rule.UNEXPECTED_BYTES, "f2")
    assert refusal.evidence["found"].startswith("11223344")
    assert refusal.evidence["va"] == here.entry(2) + 8


def test_changed_memory_elsewhere_is_unexpected_too(here):
    patch = here.patch({1: 111})
    here.fake.poke(here.entry(5) + 8, b"\x11\x22\x33\x44")
    (refusal,) = refused(here, patch)
    assert (refusal.rule, refusal.rva) == (Rule.UNEXPECTED_BYTES, entry(5) + 8)


def test_every_bad_function_is_named(here):
    patch = here.patch({1: 111, 2: 222, 3: 333})
    hook(here, 1)
    here.fake.poke(here.entry(3) + 8, b"\x11\x22\x33\x44")
    assert [(refusal.rule, refusal.function) for refusal in refused(here, patch)] == [
        (Rule.FOREIGN_HOOK, "f1"),
        (Rule.UNEXPECTED_BYTES, "f3"),
    ]


@pytest.mark.parametrize("sequence", [1, 2])
def test_not_newer_than_what_stands(here, sequence):
    here.apply({1: 111}, sequence=2)
    here.fake.events.clear()
    (refusal,) = refused(here, here.patch({2: 222}, sequence=sequence, name="second.dll"))
    assert refusal.rule is Rule.SEQUENCE
    assert refusal.evidence == {"standing": 2, "patch": sequence}


@pytest.mark.parametrize("how", [Consistency.QUIESCENT, Consistency.PER_THREAD])
def test_other_consistency_models_need_slots(here, how):
    direct = here.patch({1: 1, 2: 2}, redirects={2: Redirect.DIRECT})
    assert [(refusal.rule, refusal.function) for refusal in refused(here, direct, how)] == [(Rule.CONSISTENCY_NEEDS_HPAT, "f2")]


def test_import_that_the_process_lacks(here):
    patch = here.patch({1: 1}, imports=(("a.dll", "absent"), ("b.dll", "absent_too")))
    assert [(refusal.rule, refusal.evidence["name"]) for refusal in refused(here, patch)] == [
        (Rule.IMPORT_UNAVAILABLE, "absent"),
        (Rule.IMPORT_UNAVAILABLE, "absent_too"),
    ]


def fill_around(here, reach):
    """Leave no free memory within ``reach`` of the module."""
    start, end = here.module.va, here.module.va + here.module.size
    here.fake.reserve(end, reach + 0x10000)
    here.fake.reserve(start - reach - 0x10000, reach + 0x10000)


def test_out_of_reach_when_nothing_near_is_free():
    here = world(Machine.ARM64)
    fill_around(here, 1 << 27)
    (refusal,) = refused(here, here.patch({1: 111}))
    assert refusal.rule is Rule.OUT_OF_REACH


@pytest.mark.parametrize(("pages", "fits"), [(2, True), (1, False)])
def test_the_last_place_within_reach(pages, fits):
    """Arm64: a table of two pages just fits below module + 128 MiB - 4, or does not."""
    here = world(Machine.ARM64)
    patch = here.patch({1: 111}, redirect=Redirect.HPAT)
    end = here.module.va + here.module.size
    # The branch reaches 2**27 - 4 bytes forward from function 1, which stands in the first code page.
    last = here.module.va + 0x1000 + (1 << 27)
    here.fake.reserve(end, last - pages * 0x1000 - end)
    here.fake.reserve(last, 0x10000)
    here.fake.reserve(here.module.va - 0x20_0000, 0x10_0000)
    if fits:
        here.engine.apply(patch)
        assert here.result(1) == 111
        assert here.engine.status().functions[0].slot == last - 0x2000
    else:
        (refusal,) = refused(here, patch)
        assert refusal.rule is Rule.OUT_OF_REACH


def test_the_patch_image_may_stand_below_the_module(machine):
    here = world(machine)
    patch = here.patch({1: 0}, redirect=Redirect.DIRECT, calls_base=(1, 3))
    here.fake.reserve(here.module.va + here.module.size, 1 << 32)
    here.engine.apply(patch)
    assert here.engine.status().patches[0].image < here.module.va
    assert here.result(1) == 3


def test_redirects_over_one_another(here):
    patch = here.patch({1: 111, 2: 222})
    first, second = patch.functions
    patch = replace(patch, functions=(first, replace(second, base_rva=first.base_rva + 1)))
    (refusal,) = refused(here, patch)
    assert (refusal.rule, refusal.function) == (Rule.MALFORMED_PATCH, "f2")


def test_a_writable_code_section(here):
    patch = here.patch({1: 111})
    data = bytearray(patch.data)
    flags = data.index(b".text\0\0\0") + 36
    data[flags : flags + 4] = int(CODE | SectionFlags.WRITE).to_bytes(4, "little")
    (refusal,) = refused(here, replace(patch, data=bytes(data), image=Image.from_bytes(bytes(data), "fix.dll")))
    assert (refusal.rule, refusal.evidence["section"]) == (Rule.MALFORMED_PATCH, ".text")


def test_revert_twice(here):
    applied = here.apply({1: 111})
    applied.revert()
    with pytest.raises(RevertRefused) as caught:
        applied.revert()
    assert caught.value.refusals[0].rule is Rule.NOT_APPLIED


def test_revert_below_the_top(here):
    first = here.apply({1: 111})
    here.apply({2: 222}, sequence=2, name="second.dll")
    before = here.fake.snapshot()
    with pytest.raises(RevertRefused) as caught:
        first.revert()
    (refusal,) = caught.value.refusals
    assert refusal.rule is Rule.NOT_ON_TOP
    assert refusal.evidence["top"] == 2
    assert here.fake.snapshot() == before


@pytest.mark.parametrize(
    ("machine", "place"),
    [(Machine.X64, "entry"), (Machine.X64, "padding"), (Machine.X64, "pointer"), (Machine.ARM64, "entry"), (Machine.ARM64, "pointer")],
)
def test_revert_finds_its_redirect_changed(machine, place):
    here = world(machine)
    applied = here.apply({1: 111, 2: 222})
    slot = next(function.slot for function in applied.functions if function.name == "f2")
    va = {"entry": here.entry(2), "padding": here.entry(2) - 5, "pointer": slot + 0x1000}[place]
    here.fake.poke(va, b"\x90\x90")
    before = here.fake.snapshot()
    with pytest.raises(RevertRefused) as caught:
        applied.revert()
    (refusal,) = caught.value.refusals
    assert (refusal.rule, refusal.function) == (Rule.REDIRECT_CHANGED, "f2")
    assert refusal.evidence["found"].startswith("9090")
    assert refusal.evidence["expected"] != refusal.evidence["found"]
    assert here.fake.snapshot() == before


def test_original_of_a_function_that_the_patch_does_not_replace(here):
    applied = here.apply({1: 111})
    with pytest.raises(Refused) as caught:
        applied.original("f2")
    assert caught.value.refusals[0].rule is Rule.NO_SUCH_FUNCTION
    assert caught.value.refusals[0].evidence == {"functions": ["f1"]}


def test_a_failed_newer_patch_leaves_the_older_in_force(here):
    here.apply({1: 111})
    here.fake.events.clear()
    refused(here, here.patch({1: 1111}, sequence=2, name="second.dll", imports=(("a.dll", "absent"),)))
    assert here.result(1) == 111
    assert [patch.sequence for patch in here.engine.status().patches] == [1]
