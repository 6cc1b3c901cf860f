"""The loader: places, relocations, imports of every kind, thread-local storage, cookies, guards, start-up."""

from __future__ import annotations

import random

import pytest

from hotpatch.address import Va
from hotpatch.arch import Machine
from hotpatch.cases import find_case
from hotpatch.emulator import layout
from hotpatch.emulator.guest import Guest
from hotpatch.engine.target import Rights
from hotpatch.errors import EmulatedFault, FaultKind, HotpatchError, InputError
from hotpatch.image import Image, open_image
from hotpatch.process import Process

from .bare import MACHINES, assemble
from .pe import DATA, RWX, TEXT, Pe

RETURN = {Machine.X64: "mov eax, {value}\nret", Machine.ARM64: "mov x0, #{value}\nret"}


def returning(machine: Machine, value: int) -> bytes:
    return assemble(machine, RETURN[machine].format(value=value))


def library(machine: Machine) -> Pe:
    """Three functions, one by ordinal only, and two forwarders."""
    pe = Pe(machine)
    for index, value in enumerate((11, 22, 33)):
        pe.put(TEXT + 0x20 * index, returning(machine, value))
    pe.exports(
        "helper.dll",
        [("eleven", TEXT), (None, TEXT + 0x20), ("thirtythree", TEXT + 0x40), ("away", "KERNEL32.GetTickCount"), ("back", "helper.#2")],
    )
    return pe


def caller(machine: Machine, name: str, symbols: list[str | int]) -> tuple[Pe, dict[str | int, int]]:
    pe = Pe(machine)
    slots = pe.imports({name: symbols})
    return pe, slots


@pytest.mark.parametrize("machine", MACHINES)
def test_imports_are_bound_across_modules(machine):
    pe, slots = caller(machine, "HELPER.dll", ["eleven", 2, "thirtythree", "away", "back", "missing"])
    guest = Guest(pe.build("program.dll"), modules=[library(machine).build("helper.dll")])
    helper = guest.modules()[1]
    bound = {symbol: guest.system.read_word(guest.module.va + slot) for symbol, slot in slots.items()}
    assert bound["eleven"] == helper.va + TEXT
    assert bound[2] == bound["back"] == helper.va + TEXT + 0x20
    assert bound["thirtythree"] == helper.va + TEXT + 0x40
    assert bound["away"] == guest.resolve_import("kernel32", "GetTickCount", None)
    assert guest.function_name(Va(bound["missing"])) == "helper.dll!missing"
    assert guest.call(Va(bound["back"]), [], budget=10).value == 22
    with pytest.raises(EmulatedFault) as raised:
        guest.call(Va(bound["missing"]), [], budget=10)
    assert raised.value.fault.kind is FaultKind.UNKNOWN_IMPORT


@pytest.mark.parametrize("machine", MACHINES)
def test_delayed_imports_are_bound_by_the_program_at_their_first_call(machine):
    process = Process(open_image(find_case("delay-import").image(machine, "base")))
    slots = {entry.name: Va(process.load_base + entry.slot) for entry in process.base.imports if entry.delay}
    assert all(process.guest.system.module_at(process.guest.system.read_word(slot)) is process.guest.module for slot in slots.values())
    first, second = process.call_details("upper", 97), process.call_details("upper", 97)
    assert (first.value, second.value) == (65, 65)
    assert first.instructions > second.instructions + 20
    bound = {name for name, slot in slots.items() if process.guest.system.module_at(process.guest.system.read_word(slot)) is None}
    assert bound == {"toupper"}


@pytest.mark.parametrize("machine", MACHINES)
def test_resolving_says_when_there_is_nothing(machine):
    guest = Guest(library(machine).build("helper.dll"))
    assert guest.resolve_import("helper.dll", "eleven", None) == guest.module.va + TEXT
    assert guest.resolve_import("HELPER", None, 2) == guest.module.va + TEXT + 0x20
    for wanted in (("helper.dll", "twelve", None), ("helper.dll", None, 9), ("kernel32.dll", "MakeCoffee", None), ("other.dll", "x", None)):
        assert guest.resolve_import(*wanted) is None
    assert guest.resolve_import("api-ms-win-core-heap-l1-1-0.dll", "HeapAlloc", None) == guest.resolve_import(
        "KERNEL32.dll", "HeapAlloc", None
    )


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("base", [None, 0x2_0000_0000, 0x7000_0000_0000])
def test_pointers_are_relocated(machine, base):
    pe = library(machine)
    pe.pointer(DATA, TEXT + 0x40)
    pe.put(DATA + 8, (123).to_bytes(8, "little"))
    guest = Guest(pe.build("helper.dll"), load_base=base)
    assert guest.module.va == (base or pe.base)
    assert guest.system.read_word(guest.module.va + DATA) == guest.module.va + TEXT + 0x40
    assert guest.system.read_word(guest.module.va + DATA + 8) == 123


def test_modules_that_want_the_same_place_get_others_with_room_behind_them():
    images = [library(Machine.ARM64).build(f"m{index}.dll") for index in range(4)]
    guest = Guest(images[0], modules=images[1:])
    places = [module.va for module in guest.modules()]
    assert len(set(places)) == 4
    for va in places:
        assert guest.find_room(0x10_0000, near=Va(va + 0x5000), reach=(1 << 27) - 4)


def test_a_file_without_relocations_stays_where_it_is():
    pe = Pe(Machine.X64, characteristics=0x23)
    assert Guest(pe.build("fixed.dll")).module.va == pe.base
    with pytest.raises(InputError, match="no relocations"):
        Guest(pe.build("fixed.dll"), load_base=Va(0x5_0000_0000))
    with pytest.raises(InputError, match="no relocations"):
        Guest(pe.build("fixed.dll"), modules=[pe.build("other.dll")])


def test_the_same_name_twice_is_an_input_error():
    with pytest.raises(InputError, match=r"helper\.dll"):
        Guest(library(Machine.X64).build("helper.dll"), modules=[library(Machine.X64).build("HELPER.DLL")])


def test_a_writable_code_section_is_refused():
    with pytest.raises(InputError, match="both writable and executable"):
        Guest(Pe(Machine.X64, text_flags=RWX).build("packed.dll"))


@pytest.mark.parametrize("base", [0x1_8000_1000, 0, 1 << 47])
def test_a_preferred_base_that_cannot_be_is_an_input_error(base):
    image = Pe(Machine.X64, base=base).build("odd.dll")
    with pytest.raises(InputError, match="another load base"):
        Guest(image)
    assert Guest(image, load_base=Va(0x1_8000_0000)).module.va == 0x1_8000_0000


@pytest.mark.parametrize("machine", MACHINES)
def test_sections_have_their_rights(machine):
    guest = Guest(library(machine).build("helper.dll"))
    rights = {region.va - guest.module.va: region.rights for region in guest.regions() if 0 <= region.va - guest.module.va < 0x5000}
    read, write, execute = Rights.READ, Rights.READ | Rights.WRITE, Rights.READ | Rights.EXECUTE
    assert rights == {0: read, 0x1000: execute, 0x2000: read, 0x3000: write, 0x4000: read}


# start-up ---------------------------------------------------------------------------------------------------------------------------------

STORE = {
    # *(DATA + 8 * n++) = reason; n lies behind the table; returns 1. The arguments are module, reason, reserved.
    Machine.X64: "mov rax, qword ptr [rcx + {count}]\nmov qword ptr [rcx + rax * 8 + {table}], rdx\n"
    "inc qword ptr [rcx + {count}]\nmov eax, {result}\nret",
    Machine.ARM64: "mov x9, #{count}\nadd x9, x0, x9\nldr x10, [x9]\nmov x11, #{table}\nadd x11, x0, x11\nadd x11, x11, x10, lsl #3\n"
    "str x1, [x11]\nadd x10, x10, #1\nstr x10, [x9]\nmov x0, #{result}\nret",
}


def store(machine: Machine, result: int = 1) -> bytes:
    return assemble(machine, STORE[machine].format(count=DATA + 0x800, table=DATA, result=result))


def told(guest: Guest) -> list[int]:
    count = guest.system.read_word(guest.module.va + DATA + 0x800)
    return [guest.system.read_word(guest.module.va + DATA + 8 * index) for index in range(count)]


@pytest.mark.parametrize("machine", MACHINES)
def test_a_dll_is_told_of_the_process_and_of_threads(machine):
    pe = Pe(machine, entry=TEXT)
    pe.put(TEXT, store(machine))
    pe.put(TEXT + 0x100, returning(machine, 5))
    guest = Guest(pe.build("told.dll"))
    assert told(guest) == [1]
    assert guest.instructions == 0
    guest.spawn(Va(guest.module.va + TEXT + 0x100), 0)
    guest.run(1000)
    assert told(guest) == [1, 2]


@pytest.mark.parametrize("machine", MACHINES)
def test_data_can_be_as_they_were_before_the_start_up(machine):
    pe = Pe(machine, entry=TEXT)
    pe.put(TEXT, store(machine))
    pe.load_configuration(cookie=DATA + 0x808, check=DATA + 0x810, dispatch=DATA + 0x818)
    pe.put(DATA + 0x808, (0x2B99_2DDF_A232).to_bytes(8, "little"))
    pe.pointer(DATA + 0x820, TEXT)
    guest = Guest(pe.build("again.dll"), load_base=Va(0x2_0000_0000))
    before = guest.read(Va(guest.module.va + DATA + 0x808), 0x20)
    assert told(guest) == [1]
    guest.write_data(Va(guest.module.va + DATA + 0x808), bytes(0x20))
    guest.reset_data()
    assert told(guest) == []
    assert guest.read(Va(guest.module.va + DATA), 0x808) == bytes(0x808)
    assert guest.read(Va(guest.module.va + DATA + 0x808), 0x20) == before
    assert guest.system.read_word(guest.module.va + DATA + 0x820) == guest.module.va + TEXT


@pytest.mark.parametrize("machine", MACHINES)
def test_tls_callbacks_come_before_the_entry_point(machine):
    pe = Pe(machine, entry=TEXT + 0x100)
    pe.put(TEXT, store(machine))
    pe.put(
        TEXT + 0x100,
        assemble(machine, "add rdx, 100\njmp 0x1000" if machine is Machine.X64 else "add x1, x1, #100\nb #0x1000", TEXT + 0x100),
    )
    pe.tls(b"template", 8, [TEXT, TEXT])
    assert told(Guest(pe.build("callbacks.dll"))) == [1, 1, 101]


@pytest.mark.parametrize("machine", MACHINES)
def test_a_dll_can_refuse_to_be_loaded(machine):
    pe = Pe(machine, entry=TEXT)
    pe.put(TEXT, returning(machine, 0))
    with pytest.raises(InputError, match="returned FALSE"):
        Guest(pe.build("no.dll"))


@pytest.mark.parametrize("machine", MACHINES)
def test_a_module_starts_after_those_that_it_imports(machine):
    def image(name: str, needs: str | None) -> object:
        pe = Pe(machine, entry=TEXT)
        pe.put(TEXT, returning(machine, 1))
        pe.exports(name, [("f", TEXT)])
        if needs:
            pe.imports({needs: ["f"]})
        return pe.build(name)

    guest = Guest(image("a.dll", "c.dll"), modules=[image("b.dll", "a.dll"), image("c.dll", None)])
    from hotpatch.emulator.loader import initialisation_order

    assert [module.name for module in initialisation_order(guest.modules())] == ["c.dll", "a.dll", "b.dll"]


@pytest.mark.parametrize("machine", MACHINES)
def test_each_thread_has_its_own_copy_of_the_template(machine):
    pe = Pe(machine, entry=0)
    index = pe.tls(b"12345678", 8, [])
    if machine is Machine.X64:
        body = f"lea rdx, [rip + {DATA + 0xF00 - TEXT - 7}]\nmov edx, dword ptr [rdx]\nmov rax, qword ptr gs:[0x58]\n"
        body += "mov rax, qword ptr [rax + rdx * 8]\n"
        body += "add qword ptr [rax + 8], rcx\nmov rax, qword ptr [rax + 8]\nret"
    else:
        body = f"adrp x2, #{DATA}\nldr w2, [x2, #0xF00]\nldr x3, [x18, #0x58]\nldr x3, [x3, x2, lsl #3]\nldr x4, [x3, #8]\nadd x4, x4, x0\n"
        body += "str x4, [x3, #8]\nmov x0, x4\nret"
    pe.put(TEXT, assemble(machine, body, TEXT))
    guest = Guest(pe.build("tls.dll"))
    assert guest.system.memory.read(guest.module.va + index, 4) == bytes(4)
    function = Va(guest.module.va + TEXT)
    assert [guest.call(function, [5], budget=100).value for _ in range(2)] == [5, 10]
    thread = guest.spawn(function, 7)
    guest.run(guest.instructions + 100)
    assert guest.system.threads[thread].exit_code == 7
    assert guest.call(function, [0], budget=100).value == 10
    guest.reset_data()
    assert [guest.call(function, [value], budget=100).value for value in (0, 6)] == [0, 6]


@pytest.mark.parametrize("machine", MACHINES)
def test_the_security_cookie_comes_from_the_seed(machine):
    def cookie(seed: int, initial: int = 0x2B99_2DDF_A232) -> int:
        pe = Pe(machine)
        pe.put(DATA, initial.to_bytes(8, "little"))
        pe.put(TEXT, returning(machine, 1))
        pe.load_configuration(cookie=DATA, check=DATA + 8, dispatch=DATA + 16)
        guest = Guest(pe.build("cookie.dll"), seed=seed)
        return guest.system.read_word(guest.module.va + DATA)

    assert cookie(1) == cookie(1) != cookie(2)
    assert 0 < cookie(1) < 1 << 48
    assert cookie(1) != 0x2B99_2DDF_A232
    assert cookie(1, 99) == 99


@pytest.mark.parametrize("machine", MACHINES)
def test_guarded_calls_pass(machine):
    pe = Pe(machine)
    pe.load_configuration(cookie=DATA, check=DATA + 8, dispatch=DATA + 16)
    pe.pointer(DATA + 16, TEXT + 0x80)
    pe.put(TEXT, returning(machine, 42))
    guest = Guest(pe.build("guard.dll"))
    check, dispatch = (guest.system.read_word(guest.module.va + DATA + offset) for offset in (8, 16))
    assert check == layout.STUB_VA
    assert guest.call(Va(check), [guest.module.va + TEXT], budget=10).instructions == 1
    if machine is Machine.X64:
        jump = assemble(machine, f"movabs rax, {guest.module.va + TEXT}\nmovabs r10, {dispatch}\njmp r10")
        code = guest.find_room(0x1000, near=guest.module.va, reach=1 << 24)
        guest.map(code, 0x1000, Rights.READ | Rights.EXECUTE, jump)
        assert guest.call(code, [], budget=10).value == 42
    else:
        assert dispatch == guest.module.va + TEXT + 0x80


# limits -----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES)
def test_a_module_may_be_loaded_anywhere_but_on_the_systems_own_places(machine):
    image = library(machine).build("helper.dll")
    for taken in (layout.STACK_VA, layout.PEB_VA, layout.HEAP_VA, layout.STUB_VA, layout.GATE_VA):
        with pytest.raises(InputError, match="keeps its own"):
            Process(image, load_base=taken)


@pytest.mark.parametrize("case", ["state-kept", "many-threads"])
@pytest.mark.parametrize("machine", MACHINES)
def test_damaged_files_end_in_an_error_of_the_package(machine, case, fixture_image):
    whole = fixture_image(case, machine)
    choices = random.Random(f"{machine} {case}")
    loaded = 0
    for _ in range(60):
        damaged = bytearray(whole.data)
        for _ in range(choices.choice((1, 3, 10))):
            damaged[choices.randrange(choices.choice((0x400, len(damaged))))] = choices.choice((0, 0x80, 0xFF, choices.randrange(256)))
        try:
            process = Process(Image.from_bytes(bytes(damaged), whole.name), budget=20_000)
            loaded += 1
            if process.base.is_dll:
                process.call(process.load_base + whole.functions[0].entry, 1, 2)
            else:
                process.start()
                process.run(20_000)
        except HotpatchError:
            continue
    assert loaded > 10
