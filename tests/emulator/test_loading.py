"""Modules that come and go while the program runs: LoadLibrary, FreeLibrary, references, order, the loader lock, thread-local storage."""

from __future__ import annotations

import pytest

from hotpatch.address import Va
from hotpatch.arch import Machine
from hotpatch.emulator.guest import Guest
from hotpatch.emulator.threads import ThreadState
from hotpatch.engine import Module
from hotpatch.errors import EmulatedFault, FaultKind, HotpatchError, InputError
from hotpatch.image import Image

from .bare import MACHINES, assemble
from .pe import DATA, TEXT, Pe

MAIN = 0x1_8000_0000
LOG = MAIN + DATA
"""In the program: how many loader callbacks have run, then a word for each: its DLL's number and the reason."""
MOD_NOT_FOUND, BAD_EXE_FORMAT, INVALID_HANDLE, INVALID_PARAMETER, INIT_FAILED = 126, 193, 6, 87, 1114
ATTACH, DETACH, THREAD = 1, 0, 2
RESULT = {Machine.X64: "mov eax, {0}\nret", Machine.ARM64: "mov w0, #{0}\nret"}
each_machine = pytest.mark.parametrize("machine", MACHINES)


def logging(machine: Machine, number: int, result: int = 1, spin: int = 0) -> bytes:
    """A loader callback that notes itself, loops ``spin`` times and answers ``result``."""
    if machine is Machine.X64:
        text = f"mov r8, {LOG}\nmov rax, qword ptr [r8]\nmov r10d, {number}\nshl r10, 8\nmov edx, edx\nor r10, rdx\n"
        text += "mov qword ptr [r8 + rax*8 + 8], r10\ninc rax\nmov qword ptr [r8], rax\n"
        text += f"mov ecx, {spin + 1}\nagain: dec ecx\njnz again\n"
    else:
        text = f"movz x9, #{LOG & 0xFFFF}\nmovk x9, #{LOG >> 16 & 0xFFFF}, lsl #16\nmovk x9, #{LOG >> 32}, lsl #32\nldr x10, [x9]\n"
        text += f"mov w12, #{number}\nlsl x12, x12, #8\norr w12, w12, w1\nadd x11, x9, x10, lsl #3\nstr x12, [x11, #8]\nadd x10, x10, #1\n"
        text += f"str x10, [x9]\nmov w9, #{spin + 1}\nagain: subs w9, w9, #1\nb.ne again\n"
    return assemble(machine, text + RESULT[machine].format(result))


def dll(machine: Machine, number: int, *needs: str, result: int = 1, spin: int = 0, tls: bool = False, delay: bool = False) -> Image:
    """``d<number>.dll``, which notes when it is called and exports ``f``, which gives the number."""
    name = f"d{number}.dll"
    pe = Pe(machine, base=0x1_9000_0000, entry=TEXT)
    pe.put(TEXT, logging(machine, number, result, spin))
    pe.put(TEXT + 0x100, assemble(machine, RESULT[machine].format(number)))
    pe.exports(name, [("f", TEXT + 0x100)])
    if needs:
        pe.imports({need: ["f"] for need in needs}, delay=delay)
    if tls:
        pe.tls(b"template", 8, [])
    pe.pointer(DATA + 0x100, TEXT)
    return pe.build(name)


class Program:
    """A program that does nothing, and what it may load."""

    def __init__(self, machine: Machine, *available: Image, modules: tuple[Image, ...] = ()) -> None:
        self.guest = Guest(Pe(machine, base=MAIN).build("program.dll"), modules=modules, available=available)

    def gate(self, name: str) -> Va:
        va = self.guest.system.gates.provided(name)
        assert va is not None
        return va

    def name(self, text: str) -> int:
        return self.guest.allocate(text.encode() + b"\0")

    def call(self, name: str, *arguments: int | str) -> int:
        words = [self.name(argument) if isinstance(argument, str) else argument for argument in arguments]
        return self.guest.call(self.gate(name), words, budget=100_000).value

    def load(self, name: str) -> int:
        return self.call("LoadLibraryA", name)

    def free(self, handle: int) -> int:
        return self.call("FreeLibrary", handle)

    @property
    def log(self) -> list[tuple[int, int]]:
        words = [self.guest.system.read_word(LOG + 8 * index) for index in range(1, self.guest.system.read_word(LOG) + 1)]
        return [(word >> 8, word & 0xFF) for word in words]

    @property
    def names(self) -> list[str]:
        return [module.name for module in self.guest.modules()[1:]]

    @property
    def last_error(self) -> int:
        return self.guest.system.read_word(self.guest._host.teb + 0x68) & 0xFFFF_FFFF

    @property
    def references(self) -> dict[str, int]:
        counted = self.guest.system.loading.counted
        return {module.name: counted[module.va].references for module in self.guest.modules() if module.va in counted}


@each_machine
def test_what_is_needed_comes_first_and_goes_last(machine):
    program = Program(machine, dll(machine, 1, "d2.dll"), dll(machine, 2, "d3.dll"), dll(machine, 3))
    regions = program.guest.regions()
    handle = program.load("D1")
    assert program.log == [(3, ATTACH), (2, ATTACH), (1, ATTACH)]
    assert program.references == {"d3.dll": 1, "d2.dll": 1, "d1.dll": 1}
    assert program.free(handle) == 1
    assert program.log[3:] == [(1, DETACH), (2, DETACH), (3, DETACH)]
    assert not program.names
    kept = [region for region in program.guest.regions() if region.va < 0x2_0000_0000]
    assert kept == [region for region in regions if region.va < 0x2_0000_0000]
    assert [event.kind for event in program.guest.system.events[1:]] == ["load"] * 3 + ["unload"] * 3


@each_machine
def test_what_is_imported_late_does_not_come_along(machine):
    program = Program(machine, dll(machine, 1, "d2.dll", delay=True), dll(machine, 2))
    first = program.load("d1.dll")
    assert (program.names, program.log) == (["d1.dll"], [(1, ATTACH)])
    program.load("d2.dll")
    assert [program.free(first), program.names] == [1, ["d2.dll"]]


@each_machine
def test_a_module_stays_while_anybody_needs_it(machine):
    program = Program(machine, dll(machine, 1, "d2.dll"), dll(machine, 2))
    first, second = program.load("d1.dll"), program.load("C:\\somewhere\\d2.dll")
    assert program.load("d1.dll") == first
    assert program.references == {"d2.dll": 2, "d1.dll": 2}
    assert [program.free(first), program.names] == [1, ["d2.dll", "d1.dll"]]
    assert [program.free(first), program.names] == [1, ["d2.dll"]]
    assert program.guest.call(Va(program.call("GetProcAddress", second, "f")), [], budget=9).value == 2
    assert [program.free(second), program.names] == [1, []]
    assert program.log == [(2, ATTACH), (1, ATTACH), (1, DETACH), (2, DETACH)]


@each_machine
def test_handles_are_right_before_and_after(machine):
    program = Program(machine, dll(machine, 1))
    assert program.call("GetModuleHandleA", "d1.dll") == 0
    handle = program.load("d1")
    assert program.call("GetModuleHandleA", "d1.dll") == handle == program.guest.modules()[1].va
    place = program.guest.allocate(bytes(8))
    assert program.call("GetModuleHandleExA", 4, handle + TEXT, place) == 1
    assert (program.guest.system.read_word(place), program.references) == (handle, {"d1.dll": 2})
    assert program.call("GetModuleHandleExA", 2 | 4, handle + TEXT, place) == 1
    assert program.references == {"d1.dll": 2}
    program.free(handle)
    program.free(handle)
    assert program.call("GetModuleHandleA", "d1.dll") == 0
    assert (program.call("GetProcAddress", handle, "f"), program.last_error) == (0, INVALID_HANDLE)
    assert (program.free(handle), program.last_error) == (0, INVALID_HANDLE)
    assert program.load("d1") == handle
    assert program.call("GetModuleHandleExA", 1, program.name("d1.dll"), place) == 1
    program.free(handle)
    assert [program.free(handle), program.names] == [1, ["d1.dll"]]


@each_machine
def test_what_cannot_be_loaded_says_why(machine):
    stuck = Pe(machine, base=MAIN, characteristics=0x23)
    program = Program(machine, dll(machine, 1), stuck.build("stuck.dll"), modules=(dll(machine, 5),))
    assert (program.load("none.dll"), program.last_error) == (0, MOD_NOT_FOUND)
    assert (program.load("stuck.dll"), program.last_error) == (0, BAD_EXE_FORMAT)
    assert (program.call("LoadLibraryExA", "d1.dll", 0, 2), program.last_error) == (0, INVALID_PARAMETER)
    assert program.names == ["d5.dll"]
    fixed = program.load("d5.dll")
    assert [program.free(fixed), program.free(fixed), program.names] == [1, 1, ["d5.dll"]]
    assert program.free(program.load("kernel32.dll")) == 1
    assert program.guest.system.loading.owner == 0


@each_machine
def test_a_dll_that_says_no_goes_with_all_that_came_for_it(machine):
    program = Program(machine, dll(machine, 1, "d2.dll", "d4.dll"), dll(machine, 2, "d3.dll", result=0), dll(machine, 3), dll(machine, 4))
    assert (program.load("d1.dll"), program.last_error) == (0, INIT_FAILED)
    assert program.log == [(3, ATTACH), (2, ATTACH), (2, DETACH), (3, DETACH)]
    assert not program.names
    assert program.load("d3.dll")
    assert program.references == {"d3.dll": 1}


@each_machine
def test_two_threads_load_one_module_once(machine):
    """The second waits for the loader lock until the first one's start-up code is done; a thread that is born meanwhile waits too."""
    program = Program(machine, dll(machine, 1, spin=30_000))
    guest, name = program.guest, program.name("d1.dll")
    loaders = [guest.spawn(program.gate("LoadLibraryA"), name) for _ in range(2)]
    while not (waiting := [guest.system.threads[each].wait for each in loaders if guest.system.threads[each].state is ThreadState.BLOCKED]):
        guest.run(guest.instructions + 100)
        assert guest.instructions < 50_000
    assert "the loader lock that thread" in waiting[0].describe(guest.system)
    assert program.log == [(1, ATTACH)]
    born = guest.spawn(Va(program.gate("GetCurrentThreadId")), 0)
    guest.run(guest.instructions + 200_000)
    (module,) = guest.modules()[1:]
    assert [guest.system.threads[thread].exit_code for thread in loaders] == [module.va & 0xFFFF_FFFF] * 2
    assert program.references == {"d1.dll": 2}
    assert set(program.log[1:]) == {(1, THREAD)}
    assert guest.system.threads[born].exit_code == born
    assert guest.system.loading.owner == 0


@each_machine
def test_a_thread_can_go_with_its_module(machine):
    program = Program(machine, dll(machine, 1))
    handle = program.load("d1.dll")
    thread = program.guest.spawn(program.gate("FreeLibraryAndExitThread"), handle)
    program.guest.run(program.guest.instructions + 1000)
    assert program.guest.system.threads[thread].state is ThreadState.ENDED
    assert not program.names
    assert program.log == [(1, ATTACH), (1, THREAD), (1, DETACH)]


@each_machine
def test_thread_local_storage_comes_and_goes(machine):
    program = Program(machine, dll(machine, 1, tls=True), dll(machine, 2, tls=True))
    guest = program.guest
    thread = guest.system.threads[guest.spawn(program.gate("GetCurrentThreadId"), 0)]
    array = guest.system.read_word(thread.teb + 0x58)
    first = program.load("d1.dll")
    block = guest.system.read_word(array)
    assert guest.system.memory.read(block, 16) == b"template" + bytes(8)
    guest.system.memory.write(block, b"12345678")
    program.free(first)
    assert guest.system.read_word(array) == 0
    second = program.load("d2.dll")
    assert guest.system.memory.read(guest.system.read_word(array), 16) == b"template" + bytes(8)
    assert guest.system.memory.read(second + DATA + 0xF00, 4) == bytes(4)
    program.load("d1.dll")
    assert guest.system.memory.read(guest.system.read_word(array + 8), 16) == b"template" + bytes(8)


@each_machine
@pytest.mark.parametrize("api", ["ExitProcess", "TerminateProcess"])
def test_the_end_of_the_process_is_told_last_first_and_once(machine, api):
    program = Program(machine, dll(machine, 1, "d2.dll"), dll(machine, 2), modules=(dll(machine, 5),))
    guest = program.guest
    program.load("d1.dll")
    begun = len(program.log)
    other = guest.spawn(program.gate("Sleep"), 0xFFFF_FFFF)
    guest.step(other, 100)
    assert guest.system.threads[other].state is ThreadState.BLOCKED
    attached = program.log[begun:]
    assert attached == [(5, THREAD), (2, THREAD), (1, THREAD)]
    with pytest.raises(HotpatchError, match=r"exit code 7"):
        program.call(api, *([7] if api == "ExitProcess" else [(1 << 64) - 1, 7]))
    assert program.log[begun + 3 :] == ([(1, DETACH), (2, DETACH), (5, DETACH)] if api == "ExitProcess" else [])
    assert (guest.exited, guest.system.counters.exit_code) == (True, 7)
    assert program.names == ["d5.dll", "d2.dll", "d1.dll"]


class Watcher:
    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[str, ...], int]] = []
        self.failure: BaseException | None = None

    def note(self, what: str, modules: tuple[Module, ...], guest: Guest) -> None:
        if self.failure is not None:
            raise self.failure
        self.seen.append((what, tuple(module.name for module in modules), guest.system.read_word(LOG)))
        assert all(guest.read(module.va, 2) == b"MZ" for module in modules)


def watched(program: Program) -> Watcher:
    watcher = Watcher()
    watcher.modules_loaded = lambda modules: watcher.note("loaded", modules, program.guest)
    watcher.modules_unloading = lambda modules: watcher.note("unloading", modules, program.guest)
    program.guest.watch_modules(watcher)
    return watcher


@each_machine
def test_watchers_hear_before_the_first_code_and_after_the_last(machine):
    program = Program(machine, dll(machine, 1, "d2.dll"), dll(machine, 2))
    watcher = watched(program)
    program.free(program.load("d1.dll"))
    assert watcher.seen == [("loaded", ("d2.dll", "d1.dll"), 0), ("unloading", ("d1.dll", "d2.dll"), 4)]


@each_machine
@pytest.mark.parametrize("failure", [HotpatchError("no"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_what_a_watcher_raises_takes_the_step_back(machine, failure):
    """The thread stands at its call again: going on tries once more."""
    program = Program(machine, dll(machine, 1))
    guest, watcher = program.guest, watched(program)

    def tried(name: str, argument: int) -> int:
        watcher.failure = failure
        gate = program.gate(name)
        guest.begin_call(gate, [argument])
        for _ in range(3):
            with pytest.raises(type(failure)):
                guest.run_call(guest.instructions + 1000)
            assert program.names == ([] if name == "LoadLibraryA" else ["d1.dll"])
        watcher.failure = None
        return guest.finish_call(guest.instructions, gate, budget=1000).value

    handle = tried("LoadLibraryA", program.name("d1.dll"))
    assert (program.names, program.log) == (["d1.dll"], [(1, ATTACH)])
    assert tried("FreeLibrary", handle) == 1
    assert (program.names, program.log) == ([], [(1, ATTACH), (1, DETACH)])
    assert guest.system.loading.owner == 0
    assert [event.kind for event in guest.system.events[1:]] == ["load", "unload"]


@each_machine
def test_nothing_is_loaded_while_the_host_calls_in_between(machine):
    program = Program(machine, dll(machine, 1), dll(machine, 2))
    handle = program.load("d1.dll")
    for name, argument in (("LoadLibraryA", program.name("d2.dll")), ("FreeLibrary", handle)):
        with pytest.raises(EmulatedFault) as raised:
            program.guest.call_between(program.gate(name), [argument], budget=1000)
        assert raised.value.fault.kind is FaultKind.DEADLOCK
    assert program.names == ["d1.dll"]
    assert program.free(handle) == 1


@each_machine
def test_a_snapshot_takes_loads_along(machine):
    program = Program(machine, dll(machine, 1, "d2.dll", tls=True), dll(machine, 2))
    before = program.guest.snapshot()
    handle = program.load("d1.dll")
    after = program.guest.snapshot()
    for _ in range(2):
        program.guest.restore(before)
        assert (program.names, program.references, program.log) == ([], {}, [])
        assert program.load("d1.dll") == handle
        program.guest.restore(after)
        assert program.references == {"d2.dll": 1, "d1.dll": 1}
        assert program.free(handle) == 1
        assert not program.names


@each_machine
def test_files_that_no_program_could_load_are_input_errors(machine):
    other = next(each for each in Machine if each is not machine)
    exe = Pe(machine, dll=False).build("program.exe")
    for bad in ([dll(other, 1)], [exe], [dll(machine, 1), dll(machine, 1)]):
        with pytest.raises(InputError):
            Program(machine, *bad)
