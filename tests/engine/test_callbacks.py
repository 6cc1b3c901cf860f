"""Callbacks of a patch: they refuse, take data over, fault, and are undone with all that they did."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import hotpatch
from hotpatch.address import Va
from hotpatch.arch import Machine
from hotpatch.cases import BuildOptions, find_case
from hotpatch.emulator.layout import THREAD_FLAGS
from hotpatch.engine import Consistency
from hotpatch.engine.target import PageRights
from hotpatch.errors import RevertRefused, Rule
from hotpatch.patch import Moment, loads
from tests.mixing import Watch
from tools import build_fixtures

from .real import whole
from .steps import Stepped


@cache
def parts(case: str, machine: Machine, **terms: object) -> tuple[hotpatch.Image, hotpatch.Patch]:
    found = find_case(case)
    base = hotpatch.open(found.image(machine))
    return base, hotpatch.build(hotpatch.diff(base, hotpatch.open(found.image(machine, "fixed"))), **terms)


@pytest.fixture
def scene(machine: Machine) -> tuple[hotpatch.Process, hotpatch.Patch]:
    base, patch = parts("hooks", machine)
    process = hotpatch.Process(base)
    process.call("add_metres", 5)
    return process, patch


def test_the_patch_names_its_callbacks(machine: Machine) -> None:
    _, patch = parts("hooks", machine)
    assert [row.moment for row in patch.callbacks] == list(Moment)
    assert loads(patch.data, "again.dll").callbacks == patch.callbacks


@pytest.mark.parametrize("answer", [3, 0x100, 0x8000_0000])
def test_a_callback_refuses_and_nothing_is_changed(scene, answer) -> None:
    process, patch = scene
    process.call("set_busy", answer)
    before = whole(process.guest)
    with pytest.raises(hotpatch.ApplyRefused) as refused:
        process.apply(patch)
    (refusal,) = refused.value.refusals
    assert (refusal.rule, refusal.function, refusal.evidence["answer"]) == (Rule.CALLBACK_VETO, "__hotpatch_before_apply", answer)
    assert whole(process.guest) == before
    process.call("set_busy", 0)
    applied = process.apply(patch)
    process.call("set_busy", 4)
    before = whole(process.guest)
    with pytest.raises(RevertRefused) as kept:
        applied.revert()
    assert kept.value.refusals[0].rule is Rule.CALLBACK_VETO
    assert whole(process.guest) == before
    assert applied.state == "applied"


def test_data_are_converted_and_converted_back(scene) -> None:
    process, patch = scene
    applied = process.apply(patch)
    assert process.call("stored") == 500
    process.call("add_metres", 2)
    assert process.call("metres") == 7 + 1000
    assert len(process.guest.system.shadows) == 1
    applied.revert()
    assert process.call("stored") == 7
    assert not process.guest.system.shadows


def test_what_callbacks_execute_counts_for_nobody(scene) -> None:
    process, patch = scene
    before = process.instructions
    process.apply(patch).revert()
    assert process.instructions == before


@pytest.mark.parametrize("lost", [False, True])
def test_callbacks_leave_the_call_that_they_interrupt_on_its_side(machine: Machine, tmp_path: Path, lost: bool, monkeypatch) -> None:
    """The call is in the middle of another patch's transition, which must not lose what it knows of the thread.

    Where that is ``lost``, the host's outer frames are in old code and its next calls in new: the watch must see it, or it proves nothing.
    """
    if lost:
        monkeypatch.setattr("hotpatch.emulator.interjected.THREAD_FLAGS", range(THREAD_FLAGS.start, THREAD_FLAGS.start))
    base, patch = parts("mutual-recursion", machine)
    other, hooks = parts("hooks", machine)
    renamed = shutil.copy(other.path, tmp_path / "other.dll")  # each module of a process has its own name
    process = hotpatch.Process(base, modules=[hotpatch.open(renamed)])
    watch = Watch(process, patch)
    length = process.call_details("even_step", 100, 0).instructions
    start = process.instructions
    process.apply_at(start + length // 3, patch, "per-thread")
    process.apply_at(start + length // 3, hooks)  # so that all old frames were there before anything was patched
    watch.called()
    if lost:
        process.call("even_step", 100, 0)
        assert {side for *_, side in watch.mixed} == {"new"}
        return
    assert process.call("even_step", 100, 0) == 25
    assert not process.refused
    kinds = [(event.kind, event.details.get("stage")) for event in process.events if event.kind in ("transition", "callback")]
    assert kinds == [("transition", "begin"), *[("callback", None)] * 2, ("transition", "thread"), ("transition", "finish")]
    assert not watch.mixed
    watch.called()
    assert process.call("even_step", 100, 0) == 115
    assert not watch.mixed


@pytest.mark.parametrize("how", [Consistency.QUIESCENT, Consistency.PER_THREAD])
def test_data_are_taken_over_once_at_any_instruction_of_a_call(machine: Machine, how: Consistency) -> None:
    """Callbacks run in the middle of the host's own calls; with ``immediate`` an old call under way could store the old unit afterwards."""
    base, patch = parts("hooks", machine)
    process = hotpatch.Process(base, consistency=how)
    process.call("add_metres", 5)
    start = process.snapshot()
    length = process.call_details("add_metres", 1).instructions
    process.restore(start)
    for at in range(length):
        process.apply_at(process.instructions + at, patch)
        assert process.call("add_metres", 1) == 0
        assert process.call("metres") % 1000 == 6
        assert process.call("stored") == 600
        assert not process.refused
        process.restore(start)


def test_every_failure_takes_back_what_callbacks_did(machine: Machine) -> None:
    base, patch = parts("hooks", machine)
    process = hotpatch.Process(base)
    process.call("add_metres", 5)
    here = Stepped(process.guest)
    applied = here.fail(lambda: here.engine.apply(patch))
    assert process.call("stored") == 500
    here.fail(applied.revert)
    assert process.call("stored") == 5
    assert {"call_between", "checkpoint"} <= here.made
    assert {("target", "call_between"), ("callback-fault", "call_between")} <= here.failures


BAD = {
    Machine.X64: {"fault": b"\x0f\x0b", "loop": b"\xeb\xfe"},
    Machine.ARM64: {"fault": b"\x00\x00\x00\x00", "loop": b"\x00\x00\x00\x14"},
}


@pytest.mark.parametrize("kind", ["fault", "loop"])
def test_a_callback_that_faults_or_never_ends_takes_all_back(scene, machine: Machine, kind: str, monkeypatch) -> None:
    """The callback's code is replaced as the patch image is mapped."""
    process, patch = scene
    monkeypatch.setattr("hotpatch.engine.callbacks.BUDGET", 10_000)
    after = next(row for row in patch.callbacks if row.moment is Moment.AFTER_APPLY)
    real = process.guest.map

    def map_spoilt(va: Va, size: int, rights: PageRights, content: bytes) -> None:
        if size == patch.image.size_of_image:
            code = BAD[machine][kind]
            content = content[: after.patch_rva] + code + content[after.patch_rva + len(code) :]
        real(va, size, rights, content)

    monkeypatch.setattr(process.guest, "map", map_spoilt)
    before = whole(process.guest)
    with pytest.raises(hotpatch.ApplyRefused) as refused:
        process.apply(patch)
    (refusal,) = refused.value.refusals
    assert refusal.rule is Rule.CALLBACK_FAULT
    assert refusal.evidence["kind"] == {"fault": "illegal-instruction", "loop": "instruction-budget"}[kind]
    assert whole(process.guest) == before


# terms -----------------------------------------------------------------------------------------------------------------------------------


def test_a_patch_that_may_not_be_rolled_back_is_not(machine: Machine) -> None:
    base, patch = parts("basic", machine, can_roll_back=False)
    process = hotpatch.Process(base)
    applied = process.apply(patch)
    before = whole(process.guest)
    with pytest.raises(RevertRefused) as refused:
        applied.revert()
    assert [item.rule for item in refused.value.refusals] == [Rule.CANNOT_ROLL_BACK]
    assert whole(process.guest) == before


@cache
def later(machine: Machine, case: str, sequence: int = 2, **terms: object) -> hotpatch.Patch:
    found = find_case(case)
    images = [hotpatch.open(found.image(machine, side)) for side in ("base", "other")]
    return hotpatch.build(hotpatch.diff(*images), sequence=sequence, **terms)


def test_an_obligatory_patch_keeps_its_functions(machine: Machine) -> None:
    base, patch = parts("fewer-functions", machine, obligatory=True)
    process = hotpatch.Process(base)
    process.apply(patch)
    before = whole(process.guest)
    with pytest.raises(hotpatch.ApplyRefused) as refused:
        process.apply(later(machine, "fewer-functions"))
    assert [(item.rule, item.function) for item in refused.value.refusals] == [(Rule.OBLIGATORY, "second")]
    assert whole(process.guest) == before


def test_an_older_state_version_does_not_go_on_top(machine: Machine) -> None:
    base, patch = parts("stacked", machine, state_version=2)
    process = hotpatch.Process(base)
    process.apply(patch)
    with pytest.raises(hotpatch.ApplyRefused) as refused:
        process.apply(later(machine, "stacked", state_version=1))
    assert [item.rule for item in refused.value.refusals] == [Rule.STATE_VERSION]
    assert process.apply(later(machine, "stacked", state_version=2)).state == "applied"


@pytest.mark.parametrize("how", Consistency)
def test_state_is_handed_from_patch_to_patch(machine: Machine, how: Consistency) -> None:
    """Each callback of the newer patch is told what is below it, takes that state over in its own form, and gives it back."""
    case = "state-handed-over"
    base, patch = parts(case, machine, state_version=1)
    process = hotpatch.Process(base, consistency=how)

    def told() -> list[int]:
        return [process.call("told", index) for index in range(6)]

    first = process.apply(patch)
    assert told() == [1, 1, 0, 0, process.load_base, 0]
    for amount in (3, 4):
        process.call("add", amount)
    assert process.call("calls") == 2
    second = process.apply(later(machine, case, state_version=2))
    assert told() == [2, 2, 1, 1, process.load_base, 0]
    assert process.call("calls") == 20
    process.call("add", 5)
    assert process.call("calls") == 30
    before = whole(process.guest)
    with pytest.raises(RevertRefused) as refused:
        first.revert()
    assert [item.rule for item in refused.value.refusals] == [Rule.NOT_ON_TOP]
    assert whole(process.guest) == before
    with pytest.raises(hotpatch.ApplyRefused) as vetoed:
        process.apply(later(machine, case, sequence=3, state_version=2))  # told of the second, not of the first
    assert [item.rule for item in vetoed.value.refusals] == [Rule.CALLBACK_VETO]
    assert whole(process.guest) == before
    second.revert()
    assert (process.call("calls"), told()) == (3, [2, 2, 1, 1, process.load_base, 0])
    with pytest.raises(hotpatch.ApplyRefused) as vetoed:
        process.apply(later(machine, case, sequence=3, state_version=0))
    assert [item.rule for item in vetoed.value.refusals] == [Rule.STATE_VERSION]
    first.revert()
    assert (process.call("add", 0), process.call("calls"), process.guest.system.shadows) == (12, 0, {})


def test_superseding_and_going_back_write_no_code(machine: Machine) -> None:
    """One pointer a function: the first patch's function, and the second's for the same one; only new functions get an entry."""
    base, patch = parts("fewer-functions", machine)
    process = hotpatch.Process(base)
    process.apply(patch)
    writes: list[str] = []
    real = process.guest.write_code
    process.guest.write_code = lambda *args: (writes.append("code"), real(*args))
    second = process.apply(later(machine, "fewer-functions"))
    assert [process.call("first", 10), process.call("second", 10)] == [14, 30]
    second.revert()
    assert [process.call("first", 10), process.call("second", 10)] == [12, 50]
    assert not writes


def test_what_a_callback_of_the_program_reaches_stays_mapped(machine: Machine) -> None:
    base, patch = parts("callback-outlives", machine)
    process = hotpatch.Process(base)
    applied = process.apply(patch)
    process.call("subscribe")
    image = process.status().patches[0].image
    applied.revert()
    assert image in process.engine.collect().kept
    assert process.call("fire", 5000) == 1000
    process.call("subscribe")
    assert image in process.engine.collect().freed
    assert process.call("fire", 5000) == 5001


@dataclass(frozen=True)
class Raising:
    """The two builds of ``raising.c``."""

    name: str = "raising"
    kind: str = "exe"
    sides: tuple[str, ...] = ("base", "fixed")

    def build_options(self, machine: Machine, side: str) -> BuildOptions:
        callback = ("/include:__hotpatch_before_apply",) if side == "fixed" else ()
        return BuildOptions(kernel32=True, ntdll=True, common=("console.c",), cflags=("-fms-extensions",), ldflags=callback)


def raising(folder: Path, machine: Machine) -> list[hotpatch.Image]:
    pytest.importorskip("ziglang")
    sources = folder / "sources"
    shutil.copytree(build_fixtures.FIXTURES / "common", sources / "common")
    (sources / "raising").mkdir()
    source = Path(__file__).with_name("raising.c").read_text(encoding="ascii")
    images = []
    for side, lead in (("base", ""), ("fixed", "#define FIXED\n")):
        (sources / "raising" / f"{side}.c").write_text(lead + source, encoding="ascii")
        build_fixtures.build(build_fixtures.Job(Raising(), machine, side), sources, folder / "out", folder)
        images.append(hotpatch.open(folder / "out" / "raising" / machine / f"{side}.exe"))
    return images


@pytest.mark.compiler
def test_an_exception_in_a_callback_is_handled_there_or_takes_all_back(machine: Machine, tmp_path: Path) -> None:
    """The program's vectored handler sees it either way, and only what the callback handles leaves a trace."""
    base, fixed = raising(tmp_path, machine)
    diff = hotpatch.diff(base, fixed)
    for sequence, code in ((1, 0x11), (2, 0x05)):
        process = hotpatch.Process(base)
        assert process.call("arm") == 0
        process.apply(hotpatch.build(diff, sequence=sequence))
        assert (process.call("add", 2), process.call("handled")) == (100 + 20, code)
    process = hotpatch.Process(base)
    assert process.call("arm") == 0
    before = whole(process.guest)
    for sequence in (3, 4, 5, 6):
        with pytest.raises(hotpatch.ApplyRefused) as refused:
            process.apply(hotpatch.build(diff, sequence=sequence))
        (refusal,) = refused.value.refusals
        assert refusal.rule is Rule.CALLBACK_FAULT
        assert refusal.evidence["kind"] == ("unhandled-exception" if sequence % 2 else "access-violation")
        assert whole(process.guest) == before
    assert (process.call("add", 2), process.call("handled")) == (2, 0)
