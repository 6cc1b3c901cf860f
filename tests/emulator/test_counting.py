"""Instruction counts are exact: the counter against Unicorn's own code hook, and long slices against single steps, on both machines."""

from __future__ import annotations

import pytest
from unicorn import unicorn_const as uc_const

from hotpatch.arch import Machine
from hotpatch.process import Process

from .bare import COUNT_LOOP, DATA, MACHINES, UNMAPPED, Bare

REQUESTS = b"PUT milk two bottles\nGET milk\nSUM 4 8 15\nECHO 5 hello\nHASH abc\nSTATS\n"


def watch(system, counted: list[int]) -> None:
    """Count each instruction by a hook that the emulator knows nothing of."""

    def hook(_uc, _address, _size, _data) -> None:
        counted[0] += 1

    system.cpu._uc.hook_add(uc_const.UC_HOOK_CODE, hook)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_counts_what_a_code_hook_counts(machine, seed, fixture_image):
    process = Process(fixture_image("overflow-check", machine), args=["3"], stdin=REQUESTS, seed=seed)
    counted = [0]
    watch(process.guest.system, counted)
    process.start()
    result = process.run()
    assert result.exit_code == 0
    assert result.instructions == counted[0] > 1000
    assert result.instructions == sum(thread.executed for thread in process.guest.system.threads.values())


@pytest.mark.parametrize("machine", MACHINES)
def test_stops_anywhere_and_goes_on_as_if_never_stopped(machine, fixture_image):
    image = fixture_image("many-threads", machine)
    whole = Process(image, seed=7)
    whole.start()
    expected = whole.run()
    stepped = Process(image, seed=7)
    stepped.start()
    for at in [*range(1, 400), *range(400, expected.instructions, 997)]:
        assert stepped.run_until(at).instructions == at
    assert stepped.run() == expected
    assert stepped.events == whole.events


@pytest.mark.parametrize("machine", MACHINES)
def test_registers_at_n_are_those_of_n_single_steps(machine):
    def states(step: int) -> dict[int, dict[str, int]]:
        bare = Bare(machine)
        thread = bare.thread(bare.code(COUNT_LOOP[machine]), 50)
        found = {}
        for at in range(step, 120, step):
            bare.run(at)
            assert bare.system.counters.instructions == at
            found[at] = bare.system.registers(bare.system.threads[thread])
        return found

    singles, sevens = states(1), states(7)
    assert len(sevens) == 17
    for at, registers in sevens.items():
        assert registers == singles[at]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("rounds", [1, 2, 3, 100, 5000])
def test_counts_a_loop(machine, rounds):
    bare = Bare(machine)
    thread = bare.thread(bare.code(COUNT_LOOP[machine]), rounds)
    bare.run()
    assert bare.system.counters.instructions == 3 * rounds + 3 == bare.system.threads[thread].executed
    assert not bare.system.fault


@pytest.mark.parametrize("count", [0, 1, 5, 300])
@pytest.mark.parametrize("step", [1, 3, 1 << 30])
def test_rep_counts_each_iteration_and_the_last_look_at_the_counter(count, step):
    bare = Bare(Machine.X64)
    code = bare.code(f"mov ecx, {count}\nmovabs rdi, 0x{DATA:x}\nmov eax, 0x41\nrep stosb\nret")
    bare.thread(code)
    while bare.system.counters.instructions < 5000 and bare.system.living():
        bare.run(min(bare.system.counters.instructions + step, 5000))
    assert bare.system.counters.instructions == 3 + (count + 1) + 1
    assert bare.system.memory.read(DATA, count + 1) == b"A" * count + b"\0"


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("before", [0, 1, 40])
def test_a_faulting_instruction_is_not_counted(machine, before):
    bare = Bare(machine)
    nops = "nop\n" * before
    load = "mov rcx, qword ptr [rdx]" if bare.x64 else "ldr x0, [x1]"
    bare.thread(bare.code(f"{nops}LOAD {'rdx' if bare.x64 else 'x1'} {UNMAPPED}\n{load}\nret"))
    bare.run()
    assert bare.system.fault is not None
    assert bare.system.counters.instructions == before + len(bare.load("rdx" if bare.x64 else "x1", UNMAPPED))


@pytest.mark.parametrize("machine", MACHINES)
def test_system_functions_cost_nothing(machine):
    bare = Bare(machine)
    call = (
        "sub rsp, 40\n" + "CALL GetTickCount\n" * 3 + "add rsp, 40\nret"
        if bare.x64
        else "mov x19, x30\n" + "CALL GetTickCount\n" * 3 + "ret x19"
    )
    bare.thread(bare.code(call))
    bare.run()
    per_call = 2 if bare.x64 else len(bare.load("x16", bare.system.gates.provided("GetTickCount"))) + 1
    assert bare.system.counters.instructions == 3 * per_call + (3 if bare.x64 else 2)
    assert bare.system.counters.exit_code is None


@pytest.mark.parametrize("machine", MACHINES)
def test_start_up_of_dlls_is_not_counted(machine, fixture_image):
    process = Process(fixture_image("state-kept", machine))
    assert process.instructions == 0
    assert process.call("balance") == 100
    assert process.instructions == process.last.instructions > 0
