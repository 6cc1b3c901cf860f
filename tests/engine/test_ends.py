"""Callbacks that refuse, fault or never end when all threads have left: the last step of a wait or of a transition, taken back."""

from __future__ import annotations

import pytest

import hotpatch
from hotpatch.address import Va
from hotpatch.arch import Machine
from hotpatch.engine import Consistency, PatchState
from hotpatch.engine.registry import Operation
from hotpatch.engine.target import PageRights
from hotpatch.errors import ApplyRefused, FaultKind, Rule
from hotpatch.patch import Moment

from .late import Late, images, patch_of
from .real import whole

BODIES = {
    Machine.X64: {"veto": bytes.fromhex("b803000000c3"), "fault": bytes.fromhex("0f0b"), "loop": bytes.fromhex("ebfe")},
    Machine.ARM64: {"veto": bytes.fromhex("60008052c0035fd6"), "fault": bytes(4), "loop": bytes.fromhex("00000014")},
}
"""A callback that answers 3, one that is no instruction, one that jumps to itself."""
MODELS = [Consistency.QUIESCENT, Consistency.PER_THREAD]
each_model = pytest.mark.parametrize("model", MODELS)
each_body = pytest.mark.parametrize("body", ["veto", "fault", "loop"])


class Scene:
    """A process that has counted five metres; one callback of the patch is replaced as its image is mapped, until :meth:`mend`."""

    def __init__(self, machine: Machine, moment: Moment, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("hotpatch.engine.callbacks.BUDGET", 10_000)
        self.patch = patch_of("hooks", machine)
        self.process = process = hotpatch.Process(images("hooks", machine)[0])
        process.call("add_metres", 5)
        row = next(row for row in self.patch.callbacks if row.moment is moment)
        self.symbol = moment.symbol
        real = process.guest.map

        def map_spoilt(va: Va, size: int, rights: PageRights, content: bytes) -> None:
            if size == self.patch.image.size_of_image:
                code = BODIES[machine][body]
                content = content[: row.patch_rva] + code + content[row.patch_rva + len(code) :]
            real(va, size, rights, content)

        monkeypatch.setattr(process.guest, "map", map_spoilt)

    def thread_inside(self, *, new: bool) -> int:
        """A thread in the base's or the patch's ``add_metres``, which will count one metre."""
        guest = self.process.guest
        thread = self.process.spawn("add_metres", 1)
        for _ in range(20):
            guest.step(thread, 1)
            pc = next(each.pc for each in guest.threads() if each.id == thread)
            owner = guest.system.module_at(pc)
            if owner is not None and (owner.va != guest.module.va) is new and (new or pc != self.process.address_of("add_metres")):
                return thread
        raise AssertionError("never came there")

    def check(self, refusal: hotpatch.Refusal, body: str) -> None:
        assert refusal.rule is (Rule.CALLBACK_VETO if body == "veto" else Rule.CALLBACK_FAULT)
        assert refusal.function == self.symbol
        kind = {"veto": None, "fault": FaultKind.ILLEGAL_INSTRUCTION, "loop": FaultKind.BUDGET}[body]
        assert refusal.evidence.get("kind") == (None if kind is None else kind.value)

    def check_settled(self) -> None:
        guest, flags = self.process.guest, self.process.guest.thread_flags
        registry = self.process.engine.snapshot()
        assert (registry.waiting, registry.transitions) == ({}, {})
        for thread in guest.threads():
            assert not any(guest.read(thread.block + flags.start, len(flags)))
        assert all(site.dispatcher is None for site in registry.sites.values())


@each_body
@each_model
def test_the_end_of_an_apply_is_taken_back(machine: Machine, model: Consistency, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Scene(machine, Moment.AFTER_APPLY, body, monkeypatch)
    process = here.process
    entry = process.address_of("add_metres")
    base = process.guest.read(entry, 16)
    thread = here.thread_inside(new=False)
    applied = process.apply(here.patch, model)
    assert not applied.settled
    with pytest.raises(ApplyRefused) as refused:
        process.wait(applied)
    (refusal,) = refused.value.refusals
    here.check(refusal, body)
    assert [item.rule for item in process.refused] == [refusal.rule]
    assert (applied.state, applied.refusals) == (PatchState.REFUSED, (refusal,))
    here.check_settled()
    assert process.guest.read(entry, 16) == base
    assert process.status().patches == ()
    process.run()
    assert process.guest.system.threads[thread].exit_code == 0
    assert [process.call("stored"), process.call("metres"), len(process.guest.system.shadows)] == [6, 6, 0]


@each_body
@each_model
def test_the_end_of_a_revert_is_taken_back(machine: Machine, model: Consistency, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The patch stays in force, with the data as it keeps them."""
    here = Scene(machine, Moment.AFTER_REVERT, body, monkeypatch)
    process = here.process
    applied = process.apply(here.patch)
    thread = here.thread_inside(new=True)
    applied.revert(model)
    assert applied.state is PatchState.REVERTING
    assert process.wait(applied) is PatchState.APPLIED
    (refusal,) = process.refused
    here.check(refusal, body)
    here.check_settled()
    process.run()
    assert process.guest.system.threads[thread].exit_code == 0
    assert [process.call("stored"), process.call("metres"), len(process.guest.system.shadows)] == [600, 1006, 1]
    before = whole(process.guest)
    with pytest.raises(hotpatch.RevertRefused):
        applied.revert(Consistency.IMMEDIATE)
    assert whole(process.guest) == before


# called off -------------------------------------------------------------------------------------------------------------------------------


class Transition:
    """``hooks`` on its way in or out by ``per-thread``, kept by a thread in ``add_metres``, which will count one metre to five."""

    def __init__(self, machine: Machine, operation: Operation, wait: int | None = None) -> None:
        self.late = late = Late("hooks", machine)
        self.process, (comes, how) = late.process, (operation is Operation.APPLY, Consistency.PER_THREAD)
        self.handle = late.load()
        late.call("add_metres", 5)
        applied = None if comes else self.process.apply(late.patch)
        late.stand("add_metres", 1)
        self.applied = applied or self.process.apply(late.patch, how, wait=wait)
        if not comes:
            self.process.revert(self.applied, how, wait=wait)
        assert not self.applied.settled

    def busy(self, value: int) -> None:
        datum = next(datum for datum in images("hooks", self.late.machine)[0].data_symbols if datum.name == "busy")
        self.process.guest.write_data(Va(self.handle + datum.rva), value.to_bytes(8, "little"))

    def left(self) -> tuple[PatchState, list[object], int]:
        """State of the patch, the callbacks that ran, and how many shadow data there are."""
        moments = [event.details["moment"] for event in self.process.events if event.kind == "callback"]
        return self.applied.state, moments, len(self.process.guest.system.shadows)


BEGUN = {Operation.APPLY: ["before-apply"], Operation.REVERT: ["before-apply", "after-apply", "before-revert"]}
ENDED = {
    Operation.APPLY: [*BEGUN[Operation.APPLY], "after-revert"],
    Operation.REVERT: [*BEGUN[Operation.REVERT], "after-apply"],
}
each_operation = pytest.mark.parametrize("operation", Operation)


@each_operation
@pytest.mark.parametrize("given_up", [False, True])
def test_what_the_first_callback_of_a_transition_did_is_taken_back(machine: Machine, operation: Operation, given_up: bool) -> None:
    """Whether somebody calls it off or its time is over: by the callback that ends its opposite."""
    here = Transition(machine, operation, 0 if given_up else None)
    assert here.left()[1:] == (BEGUN[operation], 1 if operation is Operation.APPLY else 2)
    if not given_up:
        here.applied.reverse()
    here.process.run()
    assert [item.rule for item in here.process.refused] == [Rule.NOT_QUIESCENT] * given_up
    if operation is Operation.APPLY:
        assert here.left() == (PatchState.REFUSED if given_up else PatchState.REVERSED, ENDED[operation], 0)
    else:
        assert here.left() == (PatchState.APPLIED, ENDED[operation], 1)
    assert here.late.call("stored") == (6 if operation is Operation.APPLY else 600)


@each_operation
def test_calling_the_calling_off_off_runs_what_was_to_run(machine: Machine, operation: Operation) -> None:
    here = Transition(machine, operation)
    here.applied.reverse()
    here.applied.reverse()
    here.process.run()
    state, last = (PatchState.APPLIED, "after-apply") if operation is Operation.APPLY else (PatchState.REVERTED, "after-revert")
    assert here.left() == (state, [*BEGUN[operation], last], 1 if operation is Operation.APPLY else 0)
    assert here.late.call("stored") == (600 if operation is Operation.APPLY else 6)


@each_operation
def test_what_was_called_off_ends_whatever_a_callback_says(machine: Machine, operation: Operation) -> None:
    """Or the two ways would call each other off for ever."""
    here = Transition(machine, operation)
    here.busy(3)
    here.applied.reverse()
    here.process.run()
    (refusal,) = here.process.refused
    assert (refusal.rule, refusal.evidence["answer"]) == (Rule.CALLBACK_VETO, 3)
    assert refusal.reason.endswith("the operation had been called off, and stays so")
    assert here.process.engine.snapshot().transitions == {}
    state = PatchState.REVERSED if operation is Operation.APPLY else PatchState.APPLIED
    assert here.left() == (state, BEGUN[operation], 1 if operation is Operation.APPLY else 2)


@each_operation
def test_an_unload_in_the_middle_gives_back_what_was_taken(machine: Machine, operation: Operation) -> None:
    here = Transition(machine, operation)
    (thread,) = (each.id for each in here.process.guest.threads())
    here.late.hold(thread)
    here.late.free(here.handle)
    assert here.left() == (
        PatchState.REGISTERED if operation is Operation.APPLY else PatchState.REVERTED,
        [*BEGUN[operation], "after-revert"],
        0,
    )


# shadow data ------------------------------------------------------------------------------------------------------------------------------


def test_shadow_data_belong_to_an_object_and_an_id(machine: Machine) -> None:
    process = hotpatch.Process(images("hooks", machine)[0])

    def call(name: str, *arguments: int) -> int:
        va = process.guest.system.gates.provided(f"hotpatch_shadow_{name}")
        assert va is not None
        return process.call(va, *arguments)

    blocks = {(obj, number): call("attach", obj, number, 24) for obj in (0, 0x1234) for number in (1, 2)}
    assert len(set(blocks.values())) == 4
    assert 0 not in blocks.values()
    process.guest.write_data(blocks[0x1234, 2], b"kept")
    process.guest.write_data(blocks[0, 1], b"gone")
    assert call("attach", 0x1234, 2, 24) == blocks[0x1234, 2]
    assert call("detach", 0, 1) == 1
    assert [call("get", 0, 1), call("detach", 0, 1)] == [0, 0]
    assert {key: call("get", *key) for key in blocks} == blocks | {(0, 1): 0}
    assert process.guest.read(blocks[0x1234, 2], 4) == b"kept"
    start = process.snapshot()
    again = call("attach", 0, 1, 24)
    assert (again, process.guest.read(again, 24)) == (blocks[0, 1], bytes(24))  # its memory was given back
    assert call("free_all", 1) == 2
    process.restore(start)
    assert call("free_all", 1) == 1
    assert [call("free_all", 1), call("free_all", 2), call("get", 0x1234, 2)] == [0, 2, 0]
    assert not process.guest.system.shadows
    assert [process.guest.system.heap.size(address) for address in blocks.values()] == [None] * 4
