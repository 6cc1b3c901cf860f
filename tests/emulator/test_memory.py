"""Host-owned memory: rights, the modelled instruction cache, mapping, snapshots."""

from __future__ import annotations

from itertools import pairwise

import pytest

from hotpatch.address import Va
from hotpatch.emulator.cpu import CpuError
from hotpatch.emulator.guest import Guest
from hotpatch.emulator.memory import AccessError, RegionKind
from hotpatch.engine.target import Rights
from hotpatch.errors import ApplyRefused, FaultKind, HotpatchError, Rule

from .bare import CODE, DATA, MACHINES, READ_ONLY, UNMAPPED, Bare

RETURN_7 = {"x64": bytes.fromhex("b807000000c3"), "arm64": bytes.fromhex("e0008052c0035fd6")}
RETURN_9 = {"x64": bytes.fromhex("b809000000c3"), "arm64": bytes.fromhex("20018052c0035fd6")}


@pytest.mark.parametrize("machine", MACHINES)
def test_a_store_without_a_flush_leaves_the_old_code_running(machine):
    bare = Bare(machine)
    code = bare.code(RETURN_7[machine])
    assert bare.call(code) == 7
    bare.system.memory.write(code, RETURN_9[machine])
    assert bare.system.memory.read(code, len(RETURN_9[machine])) == RETURN_9[machine]
    assert bare.call(code) == 7
    bare.system.memory.flush(code, len(RETURN_9[machine]))
    assert bare.call(code) == 9


@pytest.mark.parametrize("machine", MACHINES)
def test_a_store_without_a_flush_shows_even_where_the_code_never_ran(machine):
    bare = Bare(machine)
    code = bare.code(RETURN_7[machine])
    bare.system.memory.write(code, RETURN_9[machine])
    assert bare.call(code) == 7


@pytest.mark.parametrize("machine", MACHINES)
def test_code_written_in_the_middle_of_a_running_block_takes_effect_at_once(machine):
    nop = Bare(machine).system.cpu.model.nop
    change = bytes.fromhex("ffc0") + b"\x90" * 2 if machine == "x64" else bytes.fromhex("00040011")
    bare = Bare(machine)
    body = (nop * 4 if machine == "x64" else nop) * 8
    code = bare.code(("LOAD rax 0" if bare.x64 else "LOAD x0 0").join(["", "\n"]) + ".byte " + ",".join(map(str, body)) + "\nret")
    thread = bare.thread(code)
    first = len(bare.expand("LOAD rax 0" if bare.x64 else "LOAD x0 0", CODE))
    bare.run(1 + (4 if machine == "x64" else 1) * 3)
    for index in range(8):
        bare.system.memory.write(code + first + 4 * index, change)
    bare.system.memory.flush(code + first, len(body))
    bare.run()
    assert bare.system.threads[thread].exit_code == 5


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("place", "access", "what"),
    [(READ_ONLY, "write", "constants"), (CODE, "write", "code"), (UNMAPPED, "write", "nothing"), (UNMAPPED, "read", "nothing")],
)
def test_the_program_has_only_the_rights_of_a_page(machine, place, access, what):
    bare = Bare(machine)
    pointer = "rdx" if bare.x64 else "x1"
    if bare.x64:
        body = "mov rcx, qword ptr [rdx]" if access == "read" else "mov qword ptr [rdx], rcx"
    else:
        body = "ldr x2, [x1]" if access == "read" else "str x2, [x1]"
    code = bare.code(f"LOAD {pointer} {place}\n{body}\nret")
    before = bare.system.memory.read(CODE, 16)
    bare.thread(code)
    bare.run()
    fault = bare.system.fault
    assert (fault.kind, fault.address, fault.access) == (FaultKind.ACCESS_VIOLATION, place, access), what
    assert fault.pc == code + len(bare.expand(f"LOAD {pointer} {place}", CODE))
    assert bare.system.memory.read(CODE, 16) == before


@pytest.mark.parametrize("machine", MACHINES)
def test_data_cannot_be_executed(machine):
    bare = Bare(machine)
    bare.poke(DATA, RETURN_7[machine])
    bare.thread(DATA)
    bare.run()
    assert (bare.system.fault.kind, bare.system.fault.address, bare.system.fault.access) == (FaultKind.ACCESS_VIOLATION, DATA, "execute")
    assert bare.system.counters.instructions == 0


def test_nothing_is_ever_mapped_writable_and_executable():
    memory = Bare(MACHINES[0]).system.memory
    with pytest.raises(HotpatchError, match="both writable and executable"):
        memory.map(UNMAPPED, 0x1000, Rights.READ | Rights.WRITE | Rights.EXECUTE, RegionKind.HOST, "both")
    with pytest.raises(HotpatchError, match="both writable and executable"):
        memory.protect(DATA, 0x1000, Rights.READ | Rights.WRITE | Rights.EXECUTE)
    assert memory.free(UNMAPPED, 0x1000)


@pytest.mark.parametrize("machine", MACHINES)
def test_system_functions_respect_rights_too(machine):
    bare = Bare(machine)
    registers = bare.system.convention.integer_arguments
    loads = (
        f"LOAD {registers[0]} {bare.system.streams['stdin']}\nLOAD {registers[1]} {CODE}\nLOAD {registers[2]} 4\nLOAD {registers[3]} 0\n"
    )
    bare.system.settings.stdin = b"evil"
    bare.thread(bare.code(loads + "CALL ReadFile\nret"))
    bare.run()
    assert (bare.system.fault.kind, bare.system.fault.address, bare.system.fault.access) == (FaultKind.ACCESS_VIOLATION, CODE, "write")
    assert bare.system.fault.function == "ReadFile"


@pytest.mark.parametrize("machine", MACHINES)
def test_a_stack_grows_when_it_is_touched_and_no_further_than_its_reserve(machine):
    bare = Bare(machine)
    sp = "rsp" if bare.x64 else "sp"
    touch = "mov qword ptr [rax], rax" if bare.x64 else "str x1, [x1]"
    offset = 0x4_0000
    body = f"lea rax, [rsp - {offset}]\n" if bare.x64 else f"mov x1, {sp}\nsub x1, x1, #{offset >> 12}, lsl #12\n"
    thread = bare.thread(bare.code(body + touch + "\nret"))
    low = bare.system.threads[thread].stack_low
    bare.run()
    assert bare.system.fault is None
    bare.thread(bare.code(f"LOAD {'rax' if bare.x64 else 'x1'} {low + 0x200_0000 - 8}\n{touch}\nret"))
    bare.run()
    assert bare.system.fault.address == low + 0x200_0000 - 8


# the engine's side ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=MACHINES)
def guest(request, fixture_image):
    return Guest(fixture_image("basic", request.param))


def test_write_code_compares_before_it_stores(guest):
    entry = Va(guest.module.va + guest.module.image.functions[0].entry)
    before = guest.read(entry, 8)
    with pytest.raises(ApplyRefused) as refused:
        guest.write_code(entry, bytes(4), b"\x90" * 4)
    refusal = refused.value.refusals[0]
    assert (refusal.rule, refusal.rva, refusal.evidence["found"]) == (Rule.UNEXPECTED_BYTES, entry - guest.module.va, before[:4].hex())
    assert guest.read(entry, 8) == before
    with pytest.raises(HotpatchError, match="same number"):
        guest.write_code(entry, before[:4], b"\x90")


def test_write_code_changes_no_right_and_what_runs(guest):
    function = next(function for function in guest.module.image.functions if function.size >= 8)
    entry = Va(guest.module.va + function.entry)
    new = RETURN_9[guest.machine]
    regions = guest.regions()
    guest.write_code(entry, guest.read(entry, len(new)), new)
    assert guest.call(entry, [1, 2], budget=1000).value == 9
    assert guest.regions() == regions
    assert not any(region.rights & Rights.WRITE and region.rights & Rights.EXECUTE for region in guest.regions())


@pytest.mark.parametrize("above", [True, False])
def test_map_takes_the_nearest_free_place(guest, above):
    end = guest.module.va + guest.module.size
    near = Va(end if above else guest.module.va)
    va = guest.find_room(5000, near=near, reach=1 << 20, above=above)
    guest.map(va, 5000, Rights.READ)
    assert not above or va == end + 0xFFF & -0x1000
    assert va % 0x1000 == 0
    assert abs(va - near) <= (0x2000 if not above else 0x1000)
    assert guest.read(va, 0x2000) == bytes(0x2000)
    assert guest.find_room(100, near=near, reach=1 << 20, above=above) != va
    with pytest.raises(HotpatchError):
        guest.map(va, 100, Rights.READ)
    guest.unmap(va)
    assert guest.find_room(5000, near=near, reach=1 << 20, above=above) == va


def test_map_below_when_nothing_is_free_above(guest):
    near = guest.module.va
    va = guest.find_room(0x1000, near=near, reach=0x2000, above=False)
    assert near - 0x2000 <= va < near


def test_map_out_of_reach_is_refused(guest):
    with pytest.raises(ApplyRefused) as refused:
        guest.find_room(0x1000, near=guest.module.va, reach=0x1000)
    assert refused.value.refusals[0].rule is Rule.NO_ADDRESS_SPACE


def test_each_page_can_have_rights_of_its_own(guest):
    pages = (Rights.READ | Rights.EXECUTE, Rights.READ | Rights.WRITE)
    va = guest.find_room(0x2000, near=guest.module.va, reach=1 << 24)
    guest.map(va, 0x2000, pages, RETURN_7[guest.machine])
    assert guest.read(va, 0x2000) == RETURN_7[guest.machine].ljust(0x2000, b"\0")
    assert guest.call(va, [], budget=100).value == 7
    assert [region.rights for region in guest.regions() if va <= region.va < va + 0x2000] == list(pages)
    with pytest.raises(HotpatchError):
        guest.map(Va(va + 0x2000), 0x2000, (pages[0], pages[0] | pages[1]))
    guest.unmap(va)
    with pytest.raises(AccessError):
        guest.read(va, 1)


def test_a_mapping_of_which_a_part_cannot_be_is_none(guest, monkeypatch):
    regions, cpu = guest.regions(), guest.system.cpu
    va = guest.find_room(0x2000, near=guest.module.va, reach=1 << 24)
    shown, once = cpu.map, iter([None])

    def show(start, *rest):
        if start != va and next(once, "later") is None:
            raise CpuError("mapping", 1)
        shown(start, *rest)

    monkeypatch.setattr(cpu, "map", show)
    with pytest.raises(CpuError):
        guest.map(va, 0x2000, (Rights.READ | Rights.EXECUTE, Rights.READ), RETURN_7[guest.machine])
    assert guest.regions() == regions
    guest.map(va, 0x2000, (Rights.READ | Rights.EXECUTE, Rights.READ), RETURN_7[guest.machine])
    assert guest.call(va, [], budget=100).value == 7


def test_regions_cover_modules_without_overlap(guest):
    regions = guest.regions()
    assert all(one.va + one.size <= other.va for one, other in pairwise(regions))
    inside = [region for region in regions if guest.module.va <= region.va < guest.module.va + guest.module.size]
    assert sum(region.size for region in inside) == guest.module.size + 0xFFF & -0x1000
    assert guest.read(guest.module.va, guest.module.size)[:2] == b"MZ"


def test_set_registers_is_all_or_nothing(guest):
    host = guest.spawn(Va(guest.module.va + guest.module.image.functions[0].entry), 0)
    before = next(thread.registers for thread in guest.threads() if thread.id == host)
    name = guest.system.convention.integer_arguments[0]
    with pytest.raises(HotpatchError):
        guest.set_registers(host, {name: 77, "nonsense": 1})
    assert next(thread.registers for thread in guest.threads() if thread.id == host) == before
    guest.set_registers(host, {name: 77})
    assert next(thread.registers for thread in guest.threads() if thread.id == host)[name] == 77


# snapshots --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES)
def test_snapshots_can_be_restored_in_any_order(machine, fixture_image):
    def new() -> Guest:
        guest = Guest(fixture_image("many-threads", machine), seed=4)
        guest.start_main()
        return guest

    def ends(guest: Guest) -> tuple[object, ...]:
        guest.run(1 << 30)
        return guest.instructions, bytes(guest.system.output), guest.system.counters.exit_code, tuple(guest.system.events)

    guest = new()
    snapshots = []
    for at in range(0, 12000, 1500):
        guest.run(at)
        snapshots.append(guest.snapshot())
    expected = ends(guest)
    assert ends(new()) == expected
    for index in (3, 7, 0, 5, 5, 1, 7):
        guest.restore(snapshots[index])
        assert guest.instructions == 1500 * index
        assert ends(guest) == expected


def test_a_snapshot_takes_code_rights_and_mappings_along(guest):
    entry = Va(guest.module.va + guest.module.image.functions[0].entry)
    code = guest.read(entry, len(RETURN_9[guest.machine]))
    before = guest.call(entry, [5, 6], budget=1000).value
    clean = guest.snapshot()
    regions = guest.regions()
    guest.write_code(entry, code, RETURN_9[guest.machine])
    mapped = guest.find_room(0x1000, near=guest.module.va, reach=1 << 24)
    guest.map(mapped, 0x1000, Rights.READ)
    dirty = guest.snapshot()
    guest.restore(clean)
    assert guest.call(entry, [5, 6], budget=1000).value == before
    assert guest.read(entry, len(code)) == code
    guest.restore(clean)
    assert guest.regions() == regions
    guest.restore(dirty)
    assert guest.call(entry, [5, 6], budget=1000).value == 9
    assert guest.read(mapped, 1) == b"\0"
    guest.unmap(mapped)
    guest.restore(dirty)
    assert guest.read(mapped, 1) == b"\0"


def test_a_grown_stack_is_one_region(guest):
    thread = guest.spawn(guest.module.va, 0)
    record = guest.system.threads[thread]
    guest.system.guest_write(record.stack_low, b"deep")
    stacks = [region for region in guest.regions() if region.va < record.stack_top <= region.va + region.size]
    assert [(region.va, region.size) for region in stacks] == [(record.stack_low, record.stack_top - record.stack_low)]
