"""Threads that stand where bytes are written, and those that may stay where they are."""

from __future__ import annotations

import pytest

from hotpatch.arch import Machine, Redirect, architecture
from hotpatch.errors import ApplyRefused, Rule

from .conftest import World, world
from .fake import STACK, STACK_SIZE

SECOND = 4
"""Offset of the second instruction of a synthetic function; five bytes over its entry displace both."""


def pc_of(here: World, number: int) -> int:
    return here.fake.register_sets[number][architecture(here.fake.machine).convention.pc]


def test_inline_moves_a_thread_out_of_the_displaced_bytes():
    here = world(Machine.X64)
    here.fake.thread(1, here.entry(1) + SECOND, rax=77)
    applied = here.apply({1: 111}, redirect=Redirect.INLINE)
    assert pc_of(here, 1) == applied.original("f1") + SECOND
    assert here.fake.register_sets[1]["rax"] == 77
    moves = [details for kind, details in here.fake.events if kind == "move"]
    assert [(move["moved_thread"], move["from"], move["to"]) for move in moves] == [
        (1, here.entry(1) + SECOND, applied.original("f1") + SECOND)
    ]


@pytest.mark.parametrize("offset", [0, 9, 13])
def test_inline_leaves_threads_at_the_entry_and_behind(offset):
    here = world(Machine.X64)
    here.fake.thread(1, here.entry(1) + offset)
    here.apply({1: 111}, redirect=Redirect.INLINE)
    assert pc_of(here, 1) == here.entry(1) + offset


@pytest.mark.parametrize(
    ("machine", "strategy"), [(Machine.X64, Redirect.HPAT), (Machine.X64, Redirect.DIRECT), (Machine.ARM64, Redirect.HPAT)]
)
def test_other_redirects_move_no_thread(machine, strategy):
    here = world(machine)
    for number, offset in enumerate((0, SECOND)):
        here.fake.thread(number, here.entry(1) + offset)
        here.fake.push(number, 8, here.entry(1) + SECOND)
    before = {number: dict(registers) for number, registers in here.fake.register_sets.items()}
    here.apply({1: 111}, redirect=strategy)
    assert here.fake.register_sets == before


def test_inline_refuses_a_return_address_in_the_displaced_bytes():
    here = world(Machine.X64)
    here.fake.thread(3, here.entry(5))
    here.fake.push(3, 16, here.entry(1) + SECOND)
    before = here.fake.snapshot()
    with pytest.raises(ApplyRefused) as caught:
        here.apply({1: 111}, redirect=Redirect.INLINE)
    (refusal,) = caught.value.refusals
    assert (refusal.rule, refusal.function) == (Rule.THREAD_IN_DISPLACED, "f1")
    assert refusal.evidence == {"thread": 3, "va": here.entry(1) + SECOND, "stack": here.fake.register_sets[3]["rsp"] + 16}
    assert here.fake.snapshot() == before


def test_inline_does_not_mind_what_lies_below_the_stack_pointer():
    here = world(Machine.X64)
    here.fake.thread(3, here.entry(5))
    here.fake.push(3, -16, here.entry(1) + SECOND)
    here.apply({1: 111}, redirect=Redirect.INLINE)


def test_inline_refuses_a_thread_between_instructions():
    here = world(Machine.X64)
    here.fake.thread(1, here.entry(1) + 2)
    with pytest.raises(ApplyRefused) as caught:
        here.apply({1: 111}, redirect=Redirect.INLINE)
    assert caught.value.refusals[0].rule is Rule.THREAD_IN_DISPLACED


def test_a_return_to_the_first_kept_instruction_is_fine():
    here = world(Machine.X64)
    here.fake.thread(1, here.entry(5))
    here.fake.push(1, 0, here.entry(1) + 9)
    here.apply({1: 111}, redirect=Redirect.INLINE)
    assert here.result(1) == 111


def test_superseding_an_inline_redirect_moves_nobody():
    here = world(Machine.X64)
    applied = here.apply({1: 111}, redirect=Redirect.INLINE)
    here.fake.thread(1, applied.original("f1") + SECOND)
    here.fake.push(1, 16, here.entry(1) + SECOND)  # by chance: no call can return there any more
    before = dict(here.fake.register_sets[1])
    here.apply({1: 1111}, redirect=Redirect.INLINE, sequence=2, name="second.dll")
    assert here.fake.register_sets[1] == before
    assert here.result(1) == 1111


@pytest.mark.parametrize("strategy", [Redirect.HPAT, Redirect.DIRECT])
def test_revert_puts_a_thread_in_the_padding_back_to_the_entry(strategy):
    here = world(Machine.X64)
    applied = here.apply({1: 111}, redirect=strategy)
    here.fake.thread(1, here.entry(1) - 5)
    applied.revert()
    assert pc_of(here, 1) == here.entry(1)
    assert here.result(1) == 1


def test_after_revert_the_slot_leads_to_the_original(here):
    from .run import call

    applied = here.apply({1: 111})
    slot = applied.functions[0].slot
    applied.revert()
    assert call(here.fake, slot)[0] == 1


def test_stack_is_read_to_its_end():
    here = world(Machine.X64)
    here.fake.thread(1, here.entry(5))
    here.fake.poke(STACK + 0x100000 + STACK_SIZE - 8, (here.entry(1) + SECOND).to_bytes(8, "little"))
    with pytest.raises(ApplyRefused):
        here.apply({1: 111}, redirect=Redirect.INLINE)
