"""Instruction counts are exact: the counter against Unicorn's own code hook, and long slices against single steps, on both machines."""

from __future__ import annotations

import pytest
from unicorn import unicorn_const as uc_const

from hotpatch.arch import Machine
from hotpatch.emulator.memory import RegionKind
from hotpatch.engine.target import Rights
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


REPEATED = [
    # set-up beside rdi = DATA and ecx = count, instruction, iterations, ecx afterwards
    ("mov eax, 0x41", "rep stosb", lambda count: count, lambda count: 0),
    (f"movabs rsi, 0x{DATA + 0x2000:x}", "rep movsq", lambda count: count, lambda count: 0),
    ("movabs r8, 0xffffffff00000000; or rcx, r8", ".byte 0x67, 0xf3, 0xaa", lambda count: count, lambda count: 0),
    ("mov eax, 7", "repne scasb", lambda count: min(count, 4), lambda count: max(count - 4, 0)),
    (f"movabs rsi, 0x{DATA + 0x2000:x}", "repe cmpsb", lambda count: min(count, 4), lambda count: max(count - 4, 0)),
]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 300])
@pytest.mark.parametrize("step", [1, 3, 1 << 30])
@pytest.mark.parametrize(("setup", "repeated", "iterations", "left"), REPEATED, ids=[row[1] for row in REPEATED])
def test_a_repeated_string_instruction_counts_its_iterations_and_nothing_else(setup, repeated, iterations, left, step, count):
    bare = Bare(Machine.X64)
    code = bare.code(
        f"mov ecx, {count}\nmovabs rdi, 0x{DATA:x}\n{setup.replace('; ', chr(10))}\n{repeated}\nmov ebx, ecx\njmp end\nend: ret"
    )
    bare.poke(DATA + 3, b"\x07")
    bare.system.memory.map(DATA & 0xFFFF_FFFF, 0x1000, Rights.READ | Rights.WRITE, RegionKind.HOST, "where 32-bit addresses lead")
    after = count + 1
    thread = bare.system.threads[bare.thread(code)]
    states = []
    while bare.system.counters.instructions < 5000 and bare.system.living() and not bare.system.fault:
        bare.run(min(bare.system.counters.instructions + step, 5000))
        if thread.alive:
            states.append((bare.system.counters.instructions, bare.system.registers(thread)))
    before = 2 + len(setup.split(";"))
    assert bare.system.counters.instructions == before + iterations(count) + 3
    if repeated == "rep stosb":
        assert bare.system.memory.read(DATA, after).replace(b"\x07", b"\0") == b"A" * count + b"\0"
    if step == 1:
        ecx = {at: registers["rcx"] & 0xFFFF_FFFF for at, registers in states}
        assert [ecx[before + n] for n in range(1, iterations(count) + 1)] == [count - n for n in range(1, iterations(count) + 1)]
        assert dict(states)[before + iterations(count) + 1]["rbx"] == left(count)


@pytest.mark.parametrize("step", [1, 4, 1 << 30])
def test_a_repeated_store_that_faults_counts_what_it_stored(step):
    bare = Bare(Machine.X64)
    bare.thread(bare.code(f"mov ecx, 100\nmovabs rdi, 0x{DATA + 0x4000 - 5:x}\nrep stosb\nret"))
    while bare.system.fault is None:
        bare.run(bare.system.counters.instructions + step)
    assert bare.system.counters.instructions == 2 + 5
    assert bare.system.fault.address == DATA + 0x4000
    registers = bare.system.registers(bare.system.threads[2])
    assert registers["rcx"] == 95


def test_repeated_instructions_are_found_in_code_that_is_written_later():
    bare = Bare(Machine.X64)
    va = bare.code(b"\x90" * 32 + b"\xc3")
    bare.system.memory.write(va + 4, bytes.fromhex("4889cfb908000000f3aa"))  # mov rdi, rcx; mov ecx, 8; rep stosb
    bare.system.memory.flush(va + 4, 10)
    bare.call(va, DATA)
    assert bare.system.counters.instructions == 4 + 2 + 8 + 18 + 1
    before = bare.system.counters.instructions
    bare.system.memory.write(va + 12, bytes.fromhex("9090"))
    bare.system.memory.flush(va + 12, 2)
    bare.call(va, DATA)
    assert bare.system.counters.instructions - before == 4 + 2 + 20 + 1


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
