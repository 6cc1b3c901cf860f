"""Threads: determinism, waits, time, thread-local storage, ends."""

from __future__ import annotations

import pytest

from hotpatch.emulator.layout import TICKS_PER_MILLISECOND
from hotpatch.emulator.threads import ThreadState
from hotpatch.errors import HotpatchError
from hotpatch.process import Process

from .bare import DATA, MACHINES, Bare

REQUESTS = b"".join(b"PUT k%d v%d\nGET k%d\nSTATS\n" % (i, i, i) for i in range(8))


def outcome(process: Process) -> tuple[object, ...]:
    process.start()
    result = process.run()
    return result, process.events, tuple(thread.executed for thread in process.guest.system.threads.values())


@pytest.mark.parametrize("machine", MACHINES)
def test_the_same_seed_gives_the_same_everything(machine, fixture_image):
    image = fixture_image("overflow-check", machine)
    one, other = (outcome(Process(image, args=["4"], stdin=REQUESTS, seed=11)) for _ in range(2))
    assert one == other


@pytest.mark.parametrize("machine", MACHINES)
def test_other_seeds_give_other_interleavings_and_the_same_output(machine, fixture_image):
    image = fixture_image("overflow-check", machine)
    found = [outcome(Process(image, args=["4"], stdin=REQUESTS, seed=seed)) for seed in range(6)]
    assert len({executed for _, _, executed in found}) > 1
    assert len({result.output for result, _, _ in found}) == 1


class Turns:
    """A schedule that a test writes down."""

    def __init__(self, quantum: int) -> None:
        self.quantum, self.turn, self.asked = quantum, 0, []

    def choose(self, ready):
        assert len(ready) >= 2
        assert list(ready) == sorted(ready)
        self.asked.append(tuple(ready))
        self.turn += 1
        return ready[self.turn % len(ready)], self.quantum

    def state(self):
        return self.turn

    def restore(self, state):
        self.turn = state


@pytest.mark.parametrize("machine", MACHINES)
def test_a_schedule_can_be_given(machine, fixture_image):
    schedule = Turns(50)
    process = Process(fixture_image("many-threads", machine), schedule=schedule)
    process.start()
    result = process.run()
    assert result.exit_code == 0
    assert schedule.asked


@pytest.mark.parametrize("machine", MACHINES)
def test_time_passes_by_instructions_and_while_everybody_sleeps(machine):
    bare = Bare(machine)
    bare.call_api("Sleep", 25)
    assert bare.system.now == 25 * TICKS_PER_MILLISECOND
    start = bare.call_api("GetTickCount64")
    bare.call_api("Sleep", 1000)
    assert bare.call_api("GetTickCount64") - start == 1000
    bare.call_api("QueryPerformanceFrequency", DATA)
    bare.call_api("QueryPerformanceCounter", DATA + 8)
    assert bare.peek(DATA) == 10_000_000
    assert bare.peek(DATA + 8) // 10_000 == bare.call_api("GetTickCount")


def adder(bare: Bare, *, exit_code: int, sleep: int = 0) -> int:
    """A thread function: sleep, add its argument to the number at DATA, return."""
    if bare.x64:
        return bare.code(
            f"push rbx\nsub rsp, 32\nmov rbx, rcx\nmov ecx, {sleep}\nCALL Sleep\nLOAD rdx {DATA}\nadd qword ptr [rdx], rbx\n"
            f"mov eax, {exit_code}\nadd rsp, 32\npop rbx\nret"
        )
    return bare.code(
        f"mov x20, x30\nmov x19, x0\nLOAD x0 {sleep}\nCALL Sleep\nLOAD x2 {DATA}\nldr x3, [x2]\nadd x3, x3, x19\nstr x3, [x2]\n"
        f"LOAD x0 {exit_code}\nret x20"
    )


@pytest.mark.parametrize("machine", MACHINES)
def test_threads_are_created_waited_for_and_asked(machine):
    bare = Bare(machine)
    start = adder(bare, exit_code=77, sleep=3)
    handles = [bare.call_api("CreateThread", 0, 0, start, amount, 0, DATA + 0x100) for amount in (1, 10, 100)]
    assert len(set(handles)) == 3
    assert bare.call_api("GetExitCodeThread", handles[0], DATA + 0x108) == 1
    assert bare.peek(DATA + 0x108, 4) == 259
    assert bare.call_api("WaitForSingleObject", handles[0], 1) == 258
    bare.poke(DATA + 0x200, b"".join(handle.to_bytes(8, "little") for handle in handles))
    assert bare.call_api("WaitForMultipleObjects", 3, DATA + 0x200, 1, 0xFFFFFFFF) == 0
    assert bare.peek(DATA) == 111
    assert bare.call_api("GetExitCodeThread", handles[2], DATA + 0x108) == 1
    assert bare.peek(DATA + 0x108, 4) == 77
    assert bare.call_api("CloseHandle", handles[2]) == 1
    assert bare.call_api("CloseHandle", handles[2]) == 0
    assert bare.last_error == 6


@pytest.mark.parametrize("machine", MACHINES)
def test_a_suspended_thread_runs_once_it_is_resumed(machine):
    bare = Bare(machine)
    handle = bare.call_api("CreateThread", 0, 0, adder(bare, exit_code=0), 5, 4, 0)
    assert bare.call_api("WaitForSingleObject", handle, 10) == 258
    assert bare.peek(DATA) == 0
    assert bare.call_api("ResumeThread", handle) == 1
    assert bare.call_api("WaitForSingleObject", handle, 0xFFFFFFFF) == 0
    assert bare.peek(DATA) == 5


@pytest.mark.parametrize("machine", MACHINES)
def test_thread_local_slots_are_each_threads_own(machine):
    bare = Bare(machine)
    slot = bare.call_api("TlsAlloc")
    assert bare.call_api("TlsSetValue", slot, 1234) == 1
    assert bare.call_api("TlsGetValue", slot) == 1234
    other = bare.system.new_thread(0, 0)
    assert bare.peek(other.teb + 0x1480 + 8 * slot) == 0
    bare.system.end_thread(other, 0)
    assert bare.call_api("TlsAlloc") != slot
    assert bare.call_api("TlsFree", slot) == 1
    assert bare.call_api("TlsFree", slot) == 0
    assert bare.call_api("TlsAlloc") == slot
    assert bare.call_api("TlsGetValue", slot) == 0


@pytest.mark.parametrize("machine", MACHINES)
def test_a_thread_block_is_what_compiled_code_expects(machine):
    bare = Bare(machine)
    load = "mov rax, qword ptr gs:[0x30]\nret" if bare.x64 else "ldr x0, [x18, #0x30]\nret"
    teb = bare.call(bare.code(load))
    assert teb == bare.host.teb
    assert bare.peek(teb + 0x48, 4) == bare.host.id == bare.call_api("GetCurrentThreadId")
    assert bare.peek(teb + 0x08) == bare.host.stack_top > bare.peek(teb + 0x10)
    peb = bare.peek(teb + 0x60)
    assert bare.peek(peb + 0x30) == bare.call_api("GetProcessHeap")


@pytest.mark.parametrize("machine", MACHINES)
def test_an_ended_process_runs_no_more(machine, fixture_image):
    process = Process(fixture_image("many-threads", machine))
    process.start()
    result = process.run()
    assert result.finished
    assert process.run(1000) == result
    assert not process.guest.threads()
    with pytest.raises(HotpatchError, match="ended"):
        process.call("start")


@pytest.mark.parametrize("machine", MACHINES)
def test_exit_thread_and_exit_process(machine):
    bare = Bare(machine)
    first = bare.thread(bare.code(f"LOAD {bare.argument(0)} 5\nCALL ExitThread"))
    bare.run()
    assert bare.system.threads[first].exit_code == 5
    assert bare.system.threads[first].state is ThreadState.ENDED
    bare.thread(bare.code(f"LOAD {bare.argument(0)} 6\nCALL ExitProcess"))
    bare.run()
    assert (bare.system.counters.exited, bare.system.counters.exit_code) == (True, 6)


@pytest.mark.parametrize("machine", MACHINES)
def test_stepping_one_thread_leaves_the_others_alone(machine, fixture_image):
    process = Process(fixture_image("many-threads", machine), seed=1)
    process.start()
    process.run_until(6000)
    threads = process.guest.threads()
    assert len(threads) >= 2
    chosen = next(thread for thread in threads if process.guest.system.threads[thread.id].state is ThreadState.READY)
    others = {thread.id: thread.registers for thread in threads if thread.id != chosen.id}
    before = process.instructions
    assert process.guest.step(chosen.id, 10) == 10
    assert process.instructions == before + 10
    assert {thread.id: thread.registers for thread in process.guest.threads() if thread.id != chosen.id} == others
