"""Windows functions, a family at a time, called as a program calls them."""

from __future__ import annotations

import pytest

from hotpatch.emulator.exception_records import Flags, Record
from hotpatch.emulator.win32 import functions
from hotpatch.errors import FaultKind

from .bare import DATA, MACHINES, READ_ONLY, Bare

INFINITE = 0xFFFF_FFFF
TIMEOUT = 258


@pytest.fixture(params=MACHINES)
def bare(request):
    return Bare(request.param, stdin=b"hello world")


# streams ----------------------------------------------------------------------------------------------------------------------------------


def test_standard_streams(bare):
    output, errors, stdin = (bare.call_api("GetStdHandle", which & INFINITE) for which in (-11, -12, -10))
    assert len({output, errors, stdin}) == 3
    bare.poke(DATA, b"text\n")
    assert bare.call_api("WriteFile", output, DATA, 5, DATA + 0x100, 0) == 1
    assert bare.peek(DATA + 0x100, 4) == 5
    bare.poke(DATA, "wide é".encode("utf-16-le"))
    assert bare.call_api("WriteConsoleW", errors, DATA, 6, 0, 0) == 1
    assert bare.output == "text\nwide é"
    assert bare.call_api("ReadFile", stdin, DATA, 5, DATA + 0x100, 0) == 1
    assert bare.system.memory.read(DATA, 5) == b"hello"
    assert bare.call_api("ReadFile", stdin, DATA, 100, DATA + 0x100, 0) == 1
    assert (bare.peek(DATA + 0x100, 4), bare.system.memory.read(DATA, 6)) == (6, b" world")
    assert bare.call_api("ReadFile", stdin, DATA, 100, DATA + 0x100, 0) == 1
    assert bare.peek(DATA + 0x100, 4) == 0


def test_wrong_handles_are_errors(bare):
    assert bare.call_api("GetStdHandle", 5) == 0xFFFF_FFFF_FFFF_FFFF
    for name, *arguments in (("WriteFile", 4, DATA, 1, 0, 0), ("ReadFile", 4, DATA, 1, 0, 0), ("SetEvent", 4), ("ReleaseMutex", 4)):
        bare.call_api("SetLastError", 0)
        assert bare.call_api(name, *arguments) == 0
        assert bare.last_error == bare.call_api("GetLastError") == 6
    assert bare.call_api("WaitForSingleObject", 4, 0) == INFINITE


def test_handles_are_duplicated_and_closed(bare):
    event = bare.call_api("CreateEventW", 0, 1, 0, 0)
    process = bare.call_api("GetCurrentProcess")
    assert bare.call_api("DuplicateHandle", process, event, process, DATA, 0, 0, 2) == 1
    other = bare.peek(DATA)
    assert other not in (event, 0)
    assert bare.call_api("CloseHandle", event) == 1
    assert bare.call_api("SetEvent", event) == 0
    assert bare.call_api("SetEvent", other) == 1
    assert bare.call_api("WaitForSingleObject", other, 0) == 0


# kernel objects ---------------------------------------------------------------------------------------------------------------------------


def test_events_reset_themselves_or_not(bare):
    automatic = bare.call_api("CreateEventW", 0, 0, 1, 0)
    assert [bare.call_api("WaitForSingleObject", automatic, 0) for _ in range(2)] == [0, TIMEOUT]
    manual = bare.call_api("CreateEventA", 0, 1, 0, 0)
    assert bare.call_api("WaitForSingleObject", manual, 5) == TIMEOUT
    bare.call_api("SetEvent", manual)
    assert [bare.call_api("WaitForSingleObject", manual, INFINITE) for _ in range(2)] == [0, 0]
    bare.call_api("ResetEvent", manual)
    assert bare.call_api("WaitForSingleObject", manual, 0) == TIMEOUT


def test_names_lead_to_the_same_object(bare):
    bare.poke(DATA, "ready\0".encode("utf-16-le"))
    first = bare.call_api("CreateEventW", 0, 1, 0, DATA)
    second = bare.call_api("CreateEventW", 0, 1, 0, DATA)
    assert bare.last_error == 183
    assert first != second
    bare.call_api("SetEvent", second)
    assert bare.call_api("WaitForSingleObject", first, 0) == 0


def test_semaphores_count(bare):
    semaphore = bare.call_api("CreateSemaphoreW", 0, 1, 3, 0)
    assert [bare.call_api("WaitForSingleObject", semaphore, 0) for _ in range(2)] == [0, TIMEOUT]
    assert bare.call_api("ReleaseSemaphore", semaphore, 2, DATA) == 1
    assert bare.peek(DATA, 4) == 0
    assert bare.call_api("ReleaseSemaphore", semaphore, 2, DATA) == 0
    assert bare.last_error == 298
    assert [bare.call_api("WaitForSingleObject", semaphore, 0) for _ in range(3)] == [0, 0, TIMEOUT]
    assert bare.call_api("CreateSemaphoreW", 0, 4, 3, 0) == 0


def test_mutexes_nest_and_belong_to_a_thread(bare):
    mutex = bare.call_api("CreateMutexW", 0, 1, 0)
    assert bare.call_api("WaitForSingleObject", mutex, 0) == 0
    assert [bare.call_api("ReleaseMutex", mutex) for _ in range(3)] == [1, 1, 0]
    assert bare.last_error == 288
    loads = f"LOAD {bare.argument(0)} {mutex}\nLOAD {bare.argument(1)} {INFINITE}\n"
    bare.thread(
        bare.code(("sub rsp, 40\n" if bare.x64 else "") + loads + f"CALL WaitForSingleObject\nLOAD {bare.argument(0)} 0\nCALL ExitThread")
    )
    bare.run()
    assert bare.call_api("WaitForSingleObject", mutex, 0) == 0x80
    assert bare.call_api("WaitForSingleObject", mutex, 0) == 0


def test_waiting_for_one_of_several_takes_the_first_only(bare):
    events = [bare.call_api("CreateEventW", 0, 0, state, 0) for state in (0, 1, 1)]
    bare.poke(DATA, b"".join(event.to_bytes(8, "little") for event in events))
    assert bare.call_api("WaitForMultipleObjects", 3, DATA, 0, 0) == 1
    assert bare.call_api("WaitForMultipleObjects", 3, DATA, 1, 0) == TIMEOUT
    assert bare.call_api("WaitForMultipleObjects", 3, DATA, 0, 0) == 2
    assert bare.call_api("WaitForMultipleObjects", 0, DATA, 0, 0) == INFINITE


# locks in memory --------------------------------------------------------------------------------------------------------------------------


def contender(bare: Bare, enter: str, leave: str, lock: int, rounds: int = 30) -> int:
    """A thread function: takes the lock, adds one to the number at DATA in steps that can be interleaved, gives it up, and again."""
    pause = "nop\n" * 40
    if bare.x64:
        return bare.code(
            f"push rbx\npush rsi\nsub rsp, 40\nmov ebx, {rounds}\nagain:\nLOAD rcx {lock}\nCALL {enter}\nLOAD rdx {DATA}\n"
            f"mov rsi, qword ptr [rdx]\n{pause}add rsi, 1\nLOAD rdx {DATA}\nmov qword ptr [rdx], rsi\nLOAD rcx {lock}\nCALL {leave}\n"
            "dec ebx\njnz again\nadd rsp, 40\npop rsi\npop rbx\nret"
        )
    return bare.code(
        f"mov x20, x30\nmov x19, #{rounds}\nagain:\nLOAD x0 {lock}\nCALL {enter}\nLOAD x2 {DATA}\nldr x21, [x2]\n{pause}add x21, x21, #1\n"
        f"LOAD x2 {DATA}\nstr x21, [x2]\nLOAD x0 {lock}\nCALL {leave}\nsubs x19, x19, #1\nb.ne again\nret x20"
    )


@pytest.mark.parametrize(
    ("initialise", "enter", "leave"),
    [
        ("InitializeCriticalSection", "EnterCriticalSection", "LeaveCriticalSection"),
        ("InitializeSRWLock", "AcquireSRWLockExclusive", "ReleaseSRWLockExclusive"),
        (None, "GetTickCount", "GetTickCount"),
    ],
)
def test_locks_exclude(bare, initialise, enter, leave):
    lock = DATA + 0x100
    if initialise:
        bare.call_api(initialise, lock)
    start = contender(bare, enter, leave, lock)
    for _ in range(3):
        bare.thread(start)
    bare.run()
    assert bare.system.fault is None
    assert not bare.system.living()
    total = bare.peek(DATA)
    assert total == 90 if initialise else total < 90


def test_critical_sections_nest_and_show_their_owner(bare):
    section = DATA + 0x100
    assert bare.call_api("InitializeCriticalSectionAndSpinCount", section, 4000) == 1
    assert bare.call_api("TryEnterCriticalSection", section) == 1
    bare.call_api("EnterCriticalSection", section)
    assert (bare.peek(section + 0x10), bare.peek(section + 0x0C, 4)) == (bare.host.id, 2)
    bare.call_api("LeaveCriticalSection", section)
    bare.call_api("LeaveCriticalSection", section)
    assert (bare.peek(section + 0x10), bare.peek(section + 0x08, 4)) == (0, 0xFFFF_FFFF)


def test_readers_share_and_writers_do_not(bare):
    lock = DATA + 0x100
    bare.call_api("AcquireSRWLockShared", lock)
    assert bare.call_api("TryAcquireSRWLockShared", lock) & 0xFF == 1
    assert bare.call_api("TryAcquireSRWLockExclusive", lock) & 0xFF == 0
    bare.call_api("ReleaseSRWLockShared", lock)
    bare.call_api("ReleaseSRWLockShared", lock)
    assert bare.call_api("TryAcquireSRWLockExclusive", lock) & 0xFF == 1
    assert bare.call_api("TryAcquireSRWLockShared", lock) & 0xFF == 0


@pytest.mark.parametrize("wake", ["WakeConditionVariable", "WakeAllConditionVariable"])
def test_condition_variables_wake_and_time_out(bare, wake):
    section, condition = DATA + 0x100, DATA + 0x140
    bare.call_api("InitializeCriticalSection", section)
    bare.call_api("EnterCriticalSection", section)
    assert bare.call_api("SleepConditionVariableCS", condition, section, 5) == 0
    assert bare.last_error == 1460
    assert bare.peek(section + 0x10) == bare.host.id
    loads = f"LOAD {bare.argument(0)} {condition}\nCALL {wake}\nLOAD {bare.argument(0)} 0\nCALL ExitThread"
    bare.thread(bare.code(("sub rsp, 40\n" if bare.x64 else "") + loads))
    assert bare.call_api("SleepConditionVariableCS", condition, section, INFINITE) == 1
    assert (bare.peek(section + 0x10), bare.peek(section + 0x0C, 4)) == (bare.host.id, 1)


def test_once_initialisation_runs_once(bare):
    once, context, counter = DATA + 0x100, DATA + 0x108, DATA
    if bare.x64:
        body = f"LOAD rax {counter}\nadd qword ptr [rax], 1\nmov qword ptr [r8], rdx\nmov eax, 1\nret"
    else:
        body = f"LOAD x9 {counter}\nldr x10, [x9]\nadd x10, x10, #1\nstr x10, [x9]\nstr x1, [x2]\nmov x0, #1\nret"
    callback = bare.code(body)
    for _ in range(3):
        bare.poke(context, bytes(8))
        assert bare.call_api("InitOnceExecuteOnce", once, callback, 0x1230, context) == 1
        assert bare.peek(context) == 0x1230
    assert bare.peek(counter) == 1


# memory -----------------------------------------------------------------------------------------------------------------------------------


def test_heap_blocks_keep_their_contents(bare):
    heap = bare.call_api("GetProcessHeap")
    blocks = [bare.call_api("HeapAlloc", heap, 8, size) for size in (1, 16, 100, 70_000, 5_000_000)]
    assert len(set(blocks)) == 5
    assert all(block and block % 16 == 0 for block in blocks)
    assert bare.system.memory.read(blocks[3], 70_000) == bytes(70_000)
    bare.poke(blocks[2], b"content")
    grown = bare.call_api("HeapReAlloc", heap, 8, blocks[2], 3000)
    assert bare.system.memory.read(grown, 8) == b"content\0"
    assert bare.call_api("HeapSize", heap, 0, grown) == 3000
    assert bare.call_api("HeapFree", heap, 0, grown) == 1
    assert bare.call_api("HeapFree", heap, 0, grown) == 0
    assert bare.call_api("HeapAlloc", heap, 0, 3000) == grown
    assert bare.call_api("HeapAlloc", heap, 0, 1 << 40) == 0
    assert bare.last_error == 8


def test_private_heaps_go_as_a_whole(bare):
    heap = bare.call_api("HeapCreate", 0, 0, 0)
    block = bare.call_api("HeapAlloc", heap, 0, 64)
    assert bare.call_api("HeapDestroy", heap) == 1
    assert bare.call_api("HeapAlloc", heap, 0, 64) == 0
    assert bare.call_api("HeapSize", heap, 0, block) == 0xFFFF_FFFF_FFFF_FFFF


def test_the_run_times_heap(bare):
    block = bare.call_api("calloc", 10, 10)
    assert bare.system.memory.read(block, 100) == bytes(100)
    assert bare.call_api("calloc", 1 << 40, 1 << 40) == 0
    assert bare.call_api("realloc", 0, 5) not in (0, block)
    bare.call_api("free", block)
    assert bare.call_api("malloc", 100) == block


def test_virtual_memory_is_reserved_committed_protected_and_freed(bare):
    va = bare.call_api("VirtualAlloc", 0, 0x5000, 0x3000, 4)
    assert va % 0x10000 == 0
    bare.poke(va, b"x")
    assert bare.call_api("VirtualProtect", va, 0x1000, 2, DATA) == 1
    assert bare.peek(DATA, 4) == 4
    assert bare.call_api("VirtualQuery", va, DATA, 48) == 48
    assert (bare.peek(DATA), bare.peek(DATA + 24), bare.peek(DATA + 36, 4)) == (va, 0x1000, 2)
    assert bare.call_api("VirtualFree", va, 0, 0x8000) == 1
    assert bare.system.memory.find(va) is None
    assert bare.call_api("VirtualFree", va, 0, 0x8000) == 0
    reserved = bare.call_api("VirtualAlloc", 0, 0x10000, 0x2000, 4)
    assert bare.call_api("VirtualAlloc", reserved + 0x2000, 0x1000, 0x1000, 4) == reserved + 0x2000
    write = "mov byte ptr [rcx], 1\nret" if bare.x64 else "strb w0, [x0]\nret"
    code = bare.code(write)
    bare.call(code, reserved + 0x2000)
    bare.thread(code, reserved)
    bare.run()
    assert (bare.system.fault.kind, bare.system.fault.address) == (FaultKind.ACCESS_VIOLATION, reserved)


@pytest.mark.parametrize("protection", [0x10, 0x20, 0x40, 0x80])
def test_the_program_makes_no_code(bare, protection):
    assert bare.call_api("VirtualAlloc", 0, 0x1000, 0x3000, protection) == 0
    assert bare.last_error == 1655
    assert bare.call_api("VirtualProtect", DATA, 0x1000, protection, DATA + 8) == 0
    assert bare.last_error == 1655


@pytest.mark.parametrize("protection", [0x02, 0x04, 0x08, 0x40])
def test_code_never_becomes_writable(bare, protection):
    code = bare.code(b"\xc3" * 16)
    assert bare.call_api("VirtualProtect", code, 16, protection, DATA) == 0
    assert bare.last_error == 1655
    assert bare.call_api("VirtualProtect", code, 16, 0x20, DATA) == 1
    assert bare.system.memory.find(code).rights == 5


def test_constants_can_be_made_writable_by_the_program(bare):
    assert bare.call_api("VirtualProtect", READ_ONLY, 8, 4, DATA) == 1
    store = bare.code("mov byte ptr [rcx], 0x58\nret" if bare.x64 else "mov w1, #0x58\nstrb w1, [x0]\nret")
    bare.call(store, READ_ONLY)
    assert bare.system.memory.read(READ_ONLY, 8) == b"Xonstant"


# strings, modules, information ------------------------------------------------------------------------------------------------------------


def test_strings_change_their_encoding(bare):
    bare.poke(DATA, "é€".encode() + b"\0")
    assert bare.call_api("MultiByteToWideChar", 65001, 0, DATA, 0xFFFF_FFFF, 0, 0) == 3
    assert bare.call_api("MultiByteToWideChar", 65001, 0, DATA, 0xFFFF_FFFF, DATA + 0x100, 3) == 3
    assert bare.system.memory.read(DATA + 0x100, 6) == "é€\0".encode("utf-16-le")
    assert bare.call_api("WideCharToMultiByte", 65001, 0, DATA + 0x100, 2, DATA + 0x200, 9, 0, 0) == 5
    assert bare.system.memory.read(DATA + 0x200, 5) == "é€".encode()
    assert bare.call_api("WideCharToMultiByte", 65001, 0, DATA + 0x100, 2, DATA + 0x200, 4, 0, 0) == 0
    assert bare.last_error == 122


def test_run_time_strings(bare):
    bare.poke(DATA, b"hello\0world\0")
    assert bare.call_api("strlen", DATA) == bare.call_api("lstrlenA", DATA) == 5
    assert bare.call_api("strcmp", DATA, DATA + 6) == 0xFFFF_FFFF_FFFF_FFFF
    assert bare.call_api("memcmp", DATA, DATA, 5) == 0
    assert bare.call_api("strchr", DATA, ord("l")) == DATA + 2
    assert bare.call_api("strrchr", DATA, ord("l")) == DATA + 3
    assert bare.call_api("strchr", DATA, ord("z")) == 0
    assert bare.call_api("memcpy", DATA + 1, DATA, 5) == DATA + 1
    assert bare.system.memory.read(DATA, 6) == b"hhello"
    assert bare.call_api("memset", DATA, 0x141, 3) == DATA
    assert bare.system.memory.read(DATA, 4) == b"AAAl"
    errno = bare.call_api("_errno")
    bare.poke(errno, b"\7")
    assert bare.call_api("_errno") == errno


def test_a_string_at_the_end_of_memory_is_a_fault(bare):
    bare.poke(DATA + 0x3FFC, b"abcd")
    code = bare.code(f"LOAD {bare.argument(0)} {DATA + 0x3FFC}\nCALL strlen")
    bare.thread(code)
    bare.run()
    assert (bare.system.fault.kind, bare.system.fault.address, bare.system.fault.access) == (
        FaultKind.ACCESS_VIOLATION,
        DATA + 0x4000,
        "read",
    )


def test_functions_are_found_by_name(bare):
    bare.poke(DATA, b"KERNEL32\0HeapAlloc\0Nothing\0")
    handle = bare.call_api("GetModuleHandleA", DATA)
    assert handle
    assert bare.call_api("GetProcAddress", handle, DATA + 9) == bare.system.gates.provided("HeapAlloc")
    assert bare.call_api("GetProcAddress", handle, DATA + 19) == 0
    assert bare.last_error == 127
    bare.poke(DATA, "nowhere.dll\0".encode("utf-16-le"))
    assert bare.call_api("LoadLibraryW", DATA) == 0
    assert bare.last_error == 126


def test_command_line_and_environment(bare):
    line = bare.call_api("GetCommandLineA")
    assert line == bare.call_api("GetCommandLineA")
    assert bare.system.guest_string(line, 1) == b"bare.exe one two"
    assert bare.system.guest_string(bare.call_api("GetCommandLineW"), 2).decode("utf-16-le") == "bare.exe one two"
    bare.poke(DATA, b"home\0")
    assert bare.call_api("GetEnvironmentVariableA", DATA, DATA + 0x100, 64) == 5
    assert bare.system.memory.read(DATA + 0x100, 6) == b"C:\\me\0"
    assert bare.call_api("GetEnvironmentVariableA", DATA, DATA + 0x100, 5) == 6
    bare.poke(DATA, b"none\0")
    assert bare.call_api("GetEnvironmentVariableA", DATA, DATA + 0x100, 64) == 0
    assert bare.last_error == 203


def test_the_system_describes_itself(bare):
    bare.call_api("GetSystemInfo", DATA)
    assert (bare.peek(DATA + 4, 4), bare.peek(DATA + 32, 4), bare.peek(DATA + 40, 4)) == (0x1000, 1, 0x10000)
    assert bare.peek(DATA, 2) == (9 if bare.x64 else 12)
    assert bare.call_api("IsProcessorFeaturePresent", 23) == 1
    assert bare.call_api("IsDebuggerPresent") == 0
    bare.call_api("GetSystemTimeAsFileTime", DATA)
    assert bare.peek(DATA) >= 133_801_632_000_000_000


def test_random_numbers_come_from_the_seed():
    def draw(seed: int) -> bytes:
        bare = Bare(MACHINES[0], seed=seed)
        bare.call_api("SystemFunction036", DATA, 20)
        bare.call_api("rand_s", DATA + 20)
        return bare.system.memory.read(DATA, 24)

    assert draw(1) == draw(1) != draw(2)


def test_tables_of_initialisers_are_called_in_turn(bare):
    if bare.x64:
        body = f"LOAD rax {DATA}\nadd qword ptr [rax], 1\nmov rax, qword ptr [rax]\nsub eax, 2\nsete al\nmovzx eax, al\nret"
    else:
        body = f"LOAD x9 {DATA}\nldr x10, [x9]\nadd x10, x10, #1\nstr x10, [x9]\ncmp x10, #2\ncset x0, eq\nret"
    function = bare.code(body)
    table = [0, function, 0, function, function]
    bare.poke(DATA + 0x100, b"".join(entry.to_bytes(8, "little") for entry in table))
    bare.call_api("_initterm", DATA + 0x100, DATA + 0x128)
    assert bare.peek(DATA) == 3
    bare.poke(DATA, bytes(8))
    assert bare.call_api("_initterm_e", DATA + 0x100, DATA + 0x128) == 1
    assert bare.peek(DATA) == 2


def test_stack_arguments_of_system_functions_are_read(bare):
    handles = [bare.call_api("GetCurrentProcess"), bare.call_api("CreateEventW", 0, 0, 0, 0)]
    assert bare.call_api("DuplicateHandle", handles[0], handles[1], handles[0], DATA, 0, 0, 1) == 1
    assert bare.call_api("SetEvent", handles[1]) == 0


def test_every_function_says_how_its_arguments_are_read():
    kinds = {kind for api in functions().values() for kind in api.kinds}
    assert kinds <= {"Word", "Dword", "Int", "Double"}
    assert len(functions()) > 200


# exceptions -------------------------------------------------------------------------------------------------------------------------------

NOTE_AND_GO_ON = {
    "x64": "mov rdx, [rcx]\nLOAD r8 {data}\nmov eax, [rdx]\nmov [r8], rax\nmov rax, [rdx + 16]\nmov [r8 + 8], rax\n"
    "mov rax, [rdx + 32]\nmov [r8 + 16], rax\nmov eax, 0xffffffff\nret",
    "arm64": "ldr x1, [x0]\nLOAD x2 {data}\nldr w3, [x1]\nstr x3, [x2]\nldr x3, [x1, #16]\nstr x3, [x2, #8]\n"
    "ldr x3, [x1, #32]\nstr x3, [x2, #16]\nmov w0, #-1\nret",
}
"""A vectored handler that keeps code, address and first parameter, and has the program go on."""
RAISE = {
    "x64": "sub rsp, 40\nLOAD rcx {record}\nCALL RtlRaiseException\nadd rsp, 40\nmov eax, 77\nret",
    "arm64": "str x30, [sp, #-16]!\nLOAD x0 {record}\nCALL RtlRaiseException\nldr x30, [sp], #16\nmov x0, #77\nret",
}


def test_a_raised_record_reaches_handlers_with_the_address_of_its_raiser(bare):
    """Whatever the record says of that; the program goes on behind the call."""
    machine = bare.machine.value
    handler = bare.code(NOTE_AND_GO_ON[machine].format(data=hex(DATA)))
    bare.poke(DATA + 0x100, Record(0xE000_0005, Flags(0), 0x1234, (42,)).pack())
    raiser = bare.code(RAISE[machine].format(record=hex(DATA + 0x100)))
    assert bare.call_api("AddVectoredExceptionHandler", 1, handler)
    assert bare.call(raiser) == 77
    code, address, parameter = (bare.peek(DATA + 8 * index) for index in range(3))
    assert (code, parameter) == (0xE000_0005, 42)
    assert raiser < address < raiser + 64


ANSWER = {"x64": "mov eax, {answer}\nret", "arm64": "LOAD x0 {answer}\nret"}


def raised(machine, flags, answer=None):
    """A process one of whose threads raises, and whose filter for what nobody handles, where there is one, gives ``answer``."""
    bare = Bare(machine)
    if answer is not None:
        bare.call_api("SetUnhandledExceptionFilter", bare.code(ANSWER[machine.value].format(answer=hex(answer))))
    else:
        bare.code("ret")
    bare.poke(DATA, Record(0xE000_0005, flags, 0).pack())
    bare.thread(bare.code(RAISE[machine.value].format(record=hex(DATA))))
    bare.run()
    return bare


def stand(bare):
    names = [
        *bare.system.convention.integer_arguments,
        *bare.system.convention.preserved,
        bare.system.cpu.model.sp,
        bare.system.cpu.model.pc,
    ]
    return {name: bare.system.cpu.get(name) for name in names}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_for_what_nobody_handles_chooses_the_end(machine):
    """On it goes, a fault that shows where it happened, or the exception's code as the process's exit code."""
    alone = raised(machine, Flags.NONE)
    assert alone.system.fault.kind is FaultKind.EXCEPTION
    goes_on = raised(machine, Flags.NONE, 0xFFFF_FFFF)
    assert goes_on.system.fault is None
    assert [thread.exit_code for thread in goes_on.system.threads.values() if not thread.host] == [77]
    passed_on = raised(machine, Flags.NONE, 0)
    assert passed_on.system.fault == alone.system.fault
    assert stand(passed_on) == stand(alone)
    ended = raised(machine, Flags.NONE, 1)
    assert (ended.system.fault, ended.system.counters.exit_code) == (None, 0xE000_0005)


@pytest.mark.parametrize("machine", MACHINES)
def test_no_handler_goes_on_after_an_exception_that_does_not_allow_it(machine):
    bare = raised(machine, Flags.NONCONTINUABLE, 0xFFFF_FFFF)
    assert bare.system.fault.kind is FaultKind.EXCEPTION
    assert bare.system.fault.detail == "a handler wants to go on after an exception that does not allow it"
