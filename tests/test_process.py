"""Process: what users hold in their hands, on real programs, patched and not."""

from __future__ import annotations

import gc
import weakref
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

import hotpatch
from hotpatch import Buffer, EmulatedFault, HotpatchError, InputError, Process, Refused
from hotpatch.arch import Machine, architecture
from hotpatch.errors import FaultKind, Rule
from hotpatch.patch import Patch

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
MACHINES = list(Machine)
REQUESTS = b"PUT milk two bottles\nGET milk\nECHO 60 hi\nNAME AAAAAAAAAAAAAAAAAAAA\nADMIN\nGET milk\n"

ADD = {Machine.X64: "488d0411c3", Machine.ARM64: "0000018bc0035fd6"}
SUM10 = {
    Machine.X64: "488d0411 4c01c0 4c01c8 4803442428 4803442430 4803442438 4803442440 4803442448 4803442450 c3",
    Machine.ARM64: "0000018b 0000028b 0000038b 0000048b 0000058b 0000068b 0000078b e80340f9 0000088b e80740f9 0000088b c0035fd6",
}
MIX = {
    Machine.X64: "660f28c1 f20f58c3 c3",  # movapd xmm0, xmm1; addsd xmm0, xmm3; ret: arguments 1 and 3
    Machine.ARM64: "0028611e c0035fd6",  # fadd d0, d0, d1; ret: the first two floating-point arguments
}


@cache
def image(case: str, machine: Machine, side: str = "base") -> hotpatch.Image:
    folder = FIXTURES / case / machine.value
    return hotpatch.open(next(path for path in (folder / f"{side}.dll", folder / f"{side}.exe") if path.exists()))


@cache
def patch_of(case: str, machine: Machine) -> Patch:
    return hotpatch.build(hotpatch.diff(image(case, machine), image(case, machine, "fixed")))


def with_code(machine: Machine, code: str) -> tuple[Process, int]:
    """A process with a function of the test's own."""
    process = Process(image("state-kept", machine))
    va = process.guest.find_room(0x1000, near=process.load_base, reach=1 << 26)
    process.guest.map(va, 0x1000, hotpatch.engine.Rights.READ | hotpatch.engine.Rights.EXECUTE, bytes.fromhex(code))
    return process, va


def server(machine: Machine, *, seed: int = 3, requests: bytes = REQUESTS, **keywords) -> Process:
    process = Process(image("overflow-check", machine), args=["3"], stdin=requests, seed=seed, **keywords)
    process.start()
    return process


# calls ------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("one", "other", "result"), [(2, 3, 5), (-1, 0, 2**64 - 1), (-1, 2, 1), (2**63, 2**63, 0), (2**64 - 1, 0, 2**64 - 1)]
)
def test_integers_are_64_bits(machine, one, other, result):
    process, va = with_code(machine, ADD[machine])
    assert process.call(va, one, other) == result


@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_past_the_registers_go_on_the_stack(machine):
    process, va = with_code(machine, SUM10[machine])
    assert process.call(va, *(10**index for index in range(10))) == 1111111111


@pytest.mark.parametrize("machine", MACHINES)
def test_floats_go_where_the_convention_says(machine):
    process, va = with_code(machine, MIX[machine])
    assert process.call_details(va, 7, 2.5, 8, 0.25).float_value == 2.75


@pytest.mark.parametrize("machine", MACHINES)
def test_buffers_are_read_back_and_bytes_and_text_are_not(machine):
    store = "c6015a 0fb602 c3" if machine is Machine.X64 else "480b8052 08000039 20004039 c0035fd6"
    process, va = with_code(machine, store)
    out = Buffer(4)
    assert process.call(va, out, b"\x07raw") == 7
    assert out.data == b"Z\0\0\0"
    assert process.last.buffers == (b"Z\0\0\0",)
    constant = b"constant"
    assert process.call(va, constant, "text") == ord("t")
    assert constant == b"constant"
    assert process.call(va, Buffer(1), "é") == 0xC3
    assert process.call(va, Buffer(1), "") == 0


def test_small_arguments_of_many_calls_find_room():
    process, va = with_code(Machine.X64, ADD[Machine.X64])
    for size in (3000, 3000, 70_000, 3000, 100):
        buffers = [Buffer(size), Buffer(size)]
        process.call(va, *buffers)
        assert [len(buffer.data) for buffer in buffers] == [size, size]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("argument", [2**64, -(2**63) - 1, None, [1]])
def test_arguments_that_cannot_be_passed_are_refused(machine, argument):
    process, va = with_code(machine, ADD[machine])
    with pytest.raises(InputError):
        process.call(va, argument, 1)
    assert process.instructions == 0


@pytest.mark.parametrize("machine", MACHINES)
def test_functions_are_found_by_name_rva_address_and_module(machine):
    process = Process(image("state-kept", machine))
    entry = process.base.function_named("balance").entry
    names = ("balance", f"rva:0x{entry:x}", process.load_base + entry, "base!balance", "BASE.DLL!balance")
    assert {process.call(name) for name in names} == {100}
    with pytest.raises(Refused) as refused:
        process.call("balanse")
    assert refused.value.refusals[0].rule is Rule.NO_SUCH_FUNCTION
    with pytest.raises(InputError):
        process.call("other!balance")


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("base", [None, 0x1_5000_0000, 0x7FF6_0000_0000, 0x7FFE_1234_0000])
def test_any_load_base_gives_the_same(machine, base):
    process = Process(image("state-kept", machine), load_base=base)
    assert process.load_base == (base or process.base.preferred_base)
    assert process.call("withdraw", 1, 30) == 70
    assert process.call("balance", 1) == 70
    instructions = process.instructions
    other = Process(image("state-kept", machine))
    other.call("withdraw", 1, 30)
    other.call("balance", 1)
    assert other.instructions == instructions


@pytest.mark.parametrize("base", [0x1234, 1, 1 << 47, -0x10000, 0x7FFF_D000_0000])
def test_a_load_base_that_cannot_be_is_an_input_error(base):
    with pytest.raises(InputError):
        Process(image("state-kept", Machine.X64), load_base=base)


def test_a_module_of_another_machine_is_an_input_error():
    with pytest.raises(InputError, match="arm64"):
        Process(image("basic", Machine.X64), modules=[image("state-kept", Machine.ARM64)])


# programs ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES)
def test_a_program_runs_and_tells(machine):
    process = server(machine)
    assert not process.finished
    result = process.run()
    assert (result.exit_code, result.finished, result.fault, result.threads) == (0, True, None, 4)
    assert result.output.startswith("memod 1.0 at your service, 3 workers")
    assert "SECRET-KEY" in result.output
    assert process.exit_code == 0
    kinds = [event.kind for event in process.events]
    assert kinds.count("spawn") == 4
    assert kinds[0] == "load"
    assert kinds[-1] == "exit"
    assert all(one.at <= other.at for one, other in pairwise(process.events))


def test_a_dll_is_no_program_and_a_program_starts_once():
    with pytest.raises(InputError, match="no program"):
        Process(image("basic", Machine.X64)).start()
    process = server(Machine.X64)
    with pytest.raises(InputError, match="started"):
        process.start()


@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_can_be_given_when_it_starts(machine):
    process = Process(image("overflow-check", machine), args=["7"], stdin=b"")
    process.start(["2"])
    assert "2 workers" in process.run().output


@pytest.mark.parametrize("machine", MACHINES)
def test_spawned_threads_run_beside_calls(machine):
    process = Process(image("static-local", machine))
    thread = process.spawn("next_order", 10)
    result = process.run(3)
    assert (result.instructions, result.finished) == (3, False)
    assert [view.id for view in process.stop_view()] == [thread]
    process.run()
    assert process.finished
    assert process.call("next_order", 0) == 9010


@pytest.mark.parametrize("machine", MACHINES)
def test_the_view_of_a_stop_shows_each_thread(machine):
    process = server(machine)
    process.run_until(5000)
    views = process.stop_view()
    assert [view.id for view in views] == [thread.id for thread in process.guest.threads()]
    arch = architecture(machine)
    for view in views:
        assert view.registers[arch.convention.pc] == view.pc
        assert view.stack[0].pc == view.pc
        assert view.stack[-1].function in ("start", "worker")
        assert view.function == view.stack[0].function
        assert (view.waits_for is None) == (view.state != "blocked")
        assert view.state == "blocked" or view.code[0].address == view.pc
    assert sum(view.executed for view in views) == 5000


# patching ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES)
def test_a_patch_goes_in_while_the_program_runs_and_out_again(machine):
    whole = server(machine).run()
    process = server(machine)
    patch = patch_of("overflow-check", machine)
    process.apply_at(2000, patch)
    process.revert_at(whole.instructions - 2000, patch)
    result = process.run()
    assert result.exit_code == 0
    assert "SECRET-KEY" not in result.output
    assert "two bottles" in result.output
    assert [(applied.at, applied.functions) for applied in process.applied] == [(2000, 2)]
    assert not process.refused
    assert [event.at for event in process.events if event.kind == "apply"] == [2000]
    assert any(event.kind == "revert" for event in process.events)
    assert not process.status().patches


@pytest.mark.parametrize("machine", MACHINES)
def test_a_refusal_at_a_count_is_kept_and_the_program_goes_on(machine):
    process = server(machine)
    patch = patch_of("overflow-check", machine)
    process.revert_at(100, patch)
    process.apply_at(200, patch)
    process.apply_at(300, patch)
    assert process.run().exit_code == 0
    assert [refusal.rule for refusal in process.refused] == [Rule.NOT_APPLIED, Rule.SEQUENCE]
    assert len(process.applied) == 1


@pytest.mark.parametrize("machine", MACHINES)
def test_a_snapshot_takes_patches_along(machine):
    process = server(machine)
    process.run_until(3000)
    clean = process.snapshot()
    applied = process.apply(patch_of("overflow-check", machine))
    patched = process.snapshot()
    with_patch = process.run().output
    process.restore(clean)
    assert not process.status().patches
    assert "SECRET-KEY" in process.run().output
    process.restore(patched)
    assert len(process.status().patches) == 1
    assert process.run().output == with_patch
    process.restore(patched)
    applied.revert()
    assert "SECRET-KEY" in process.run().output


@pytest.mark.parametrize("machine", MACHINES)
def test_the_original_stays_callable(machine):
    process = Process(image("state-kept", machine))
    applied = process.apply(patch_of("state-kept", machine))
    name = applied.patch.functions[0].name
    assert process.address_of(name) != applied.original(name)
    fresh = Process(image("state-kept", machine))
    assert process.call(applied.original(name), 30) == fresh.call(name, 30)


@pytest.mark.parametrize("machine", MACHINES)
def test_stacks_are_walked_out_of_patched_code(machine):
    process = server(machine)
    process.apply(patch_of("overflow-check", machine))
    patched = {function.name for function in patch_of("overflow-check", machine).functions}
    seen = False
    for _ in range(4000):
        if process.finished:
            break
        process.run(7)
        for view in process.stop_view():
            module = process.guest.system.module_at(view.pc)
            if module is not None and module.va != process.load_base and view.function in patched:
                seen = True
                assert view.stack[-1].function == "worker"
    assert seen


@pytest.mark.parametrize("machine", MACHINES)
def test_an_action_at_a_count_runs_before_that_instruction(machine):
    process = server(machine)
    seen = []
    for at in (50, 10, 10, 0):
        process.at(at, lambda: seen.append(process.instructions))
    process.run(30)
    assert seen == [0, 10, 10]
    process.run(30)
    assert seen == [0, 10, 10, 50]


@pytest.mark.parametrize("machine", MACHINES)
def test_faults_are_hotpatch_errors_with_everything(machine):
    process = Process(image("state-kept", machine))
    with pytest.raises(EmulatedFault) as raised:
        process.call(0x6666_0000)
    fault = raised.value.fault
    assert isinstance(raised.value, HotpatchError)
    assert (fault.kind, fault.address, fault.pc, fault.access) == (FaultKind.ACCESS_VIOLATION, 0x6666_0000, 0x6666_0000, "execute")


def test_an_unknown_consistency_is_an_input_error():
    process = Process(image("state-kept", Machine.X64))
    with pytest.raises(InputError, match="immediate"):
        process.apply(patch_of("state-kept", Machine.X64), "sometimes")


@pytest.mark.parametrize("machine", MACHINES)
def test_a_process_that_is_let_go_frees_its_memory_at_once(machine):
    process = Process(image("state-kept", machine))
    process.call("balance", 1)
    memory = weakref.ref(process.guest.system.memory)
    gc.disable()
    try:
        del process
        assert memory() is None
    finally:
        gc.enable()
