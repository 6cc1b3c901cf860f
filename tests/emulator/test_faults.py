"""Each kind of fault: kind, pc, address, access, function, stack."""

from __future__ import annotations

import pytest

from hotpatch.arch import Machine
from hotpatch.engine.target import Rights
from hotpatch.errors import EmulatedFault, FaultKind
from hotpatch.process import Process

from .bare import DATA, MACHINES, UNMAPPED, Bare

X64, ARM64 = Machine.X64, Machine.ARM64


@pytest.mark.parametrize(
    ("machine", "code", "kind", "at"),
    [
        (X64, "90 0f0b", FaultKind.ILLEGAL_INSTRUCTION, 1),
        (X64, "90 06", FaultKind.ILLEGAL_INSTRUCTION, 1),
        (X64, "90 f4", FaultKind.ILLEGAL_INSTRUCTION, 1),
        (X64, "90 0f05", FaultKind.ILLEGAL_INSTRUCTION, 1),
        (X64, "90 cd2e", FaultKind.ILLEGAL_INSTRUCTION, 1),
        (X64, "90 cc", FaultKind.BREAKPOINT, 1),
        (X64, "90 cd29", FaultKind.FAST_FAIL, 1),
        (X64, "31c9 31c0 31d2 f7f1", FaultKind.DIVIDE, 6),
        (ARM64, "1f2003d5 00000000", FaultKind.ILLEGAL_INSTRUCTION, 4),
        (ARM64, "1f2003d5 010000d4", FaultKind.ILLEGAL_INSTRUCTION, 4),
        (ARM64, "1f2003d5 7f2003d5", FaultKind.ILLEGAL_INSTRUCTION, 4),
        (ARM64, "1f2003d5 000020d4", FaultKind.BREAKPOINT, 4),
        (ARM64, "1f2003d5 60003ed4", FaultKind.FAST_FAIL, 4),
        (ARM64, "1f2003d5 80003ed4", FaultKind.DIVIDE, 4),
    ],
)
def test_an_instruction_that_faults(machine, code, kind, at):
    bare = Bare(machine)
    va = bare.code(bytes.fromhex(code))
    thread = bare.thread(va)
    bare.run()
    fault = bare.system.fault
    assert (fault.kind, fault.pc, fault.address, fault.access) == (kind, va + at, va + at, None)
    assert bare.system.registers(bare.system.threads[thread])[bare.system.cpu.model.pc] == va + at
    assert bare.system.counters.instructions == (3 if code.startswith("31") else 1)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_call_of_nothing(machine):
    bare = Bare(machine)
    bare.thread(bare.code(f"LOAD {bare.scratch} {UNMAPPED}\n" + ("jmp rax" if bare.x64 else "br x16")))
    bare.run()
    fault = bare.system.fault
    assert (fault.kind, fault.pc, fault.address, fault.access) == (FaultKind.ACCESS_VIOLATION, UNMAPPED, UNMAPPED, "execute")
    assert fault.function is None


@pytest.mark.parametrize("machine", MACHINES)
def test_an_unknown_import_is_named_when_it_is_called(machine):
    bare = Bare(machine)
    va = bare.system.gates.unknown("kernel32.dll", "MakeCoffee")
    bare.thread(bare.code(f"LOAD {bare.scratch} {va}\n" + ("jmp rax" if bare.x64 else "br x16")))
    bare.run()
    fault = bare.system.fault
    assert (fault.kind, fault.pc, fault.function) == (FaultKind.UNKNOWN_IMPORT, va, "kernel32.dll!MakeCoffee")
    assert "kernel32.dll!MakeCoffee" in fault.detail


@pytest.mark.parametrize("machine", MACHINES)
def test_an_unknown_import_is_named_when_it_is_read(machine):
    bare = Bare(machine)
    va = bare.system.gates.unknown("python313.dll", "PyExc_ValueError")
    read = "mov rax, qword ptr [rax]" if bare.x64 else "ldr x0, [x16]"
    bare.thread(bare.code(f"LOAD {bare.scratch} {va}\n{read}"))
    bare.run()
    assert bare.system.fault.kind is FaultKind.UNKNOWN_IMPORT
    assert "python313.dll!PyExc_ValueError" in bare.system.fault.detail


@pytest.mark.parametrize("machine", MACHINES)
def test_a_deadlock_names_who_waits_for_what(machine):
    bare = Bare(machine)
    event = bare.call_api("CreateEventW", 0, 1, 0, 0)
    wait = f"LOAD {bare.argument(0)} {event}\nLOAD {bare.argument(1)} 0xffffffff\nCALL WaitForSingleObject\nret"
    thread = bare.thread(bare.code(("sub rsp, 40\n" if bare.x64 else "") + wait))
    bare.run()
    fault = bare.system.fault
    assert (fault.kind, fault.function) == (FaultKind.DEADLOCK, "WaitForSingleObject")
    assert f"thread {thread} waits for event" in fault.detail


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["abort", "RaiseException"])
def test_giving_up(machine, name):
    bare = Bare(machine)
    bare.thread(bare.code(f"CALL {name}"))
    bare.run()
    assert bare.system.fault.kind is (FaultKind.FAST_FAIL if name == "abort" else FaultKind.EXCEPTION)
    assert bare.system.fault.function == name


@pytest.mark.parametrize("machine", MACHINES)
def test_a_budget_that_is_used_up(machine, fixture_image):
    process = Process(fixture_image("many-threads", machine), budget=5000)
    process.start()
    result = process.run()
    assert (result.fault.kind, result.instructions, result.finished) == (FaultKind.BUDGET, 5000, False)
    assert result.fault.function


@pytest.mark.parametrize("machine", MACHINES)
def test_a_fault_in_a_call_is_raised_and_the_process_can_be_called_again(machine, fixture_image):
    process = Process(fixture_image("basic", machine))
    spin = process.guest.find_room(0x1000, near=process.load_base, reach=1 << 24)
    code = bytes.fromhex("ebfe") if machine is X64 else bytes.fromhex("00000014")
    process.guest.map(spin, 0x1000, Rights.READ | Rights.EXECUTE, code)
    with pytest.raises(EmulatedFault) as raised:
        process.call_details(spin, budget=1000)
    assert (raised.value.fault.kind, raised.value.fault.pc) == (FaultKind.BUDGET, spin)
    with pytest.raises(EmulatedFault) as raised:
        process.call(UNMAPPED)
    assert raised.value.fault.access == "execute"
    name = process.base.functions[0].label
    before = Process(fixture_image("basic", machine)).call(name, 1, 2)
    assert process.call(name, 1, 2) == before


@pytest.mark.parametrize("machine", MACHINES)
def test_a_fault_names_functions_all_the_way_up(machine, fixture_image):
    process = Process(fixture_image("overflow-check", machine), args=["1"], stdin=b"GET a\nSTATS\n")
    gate = process.guest.system.gates.unknown("kernel32.dll", "Broken")
    slot = next(entry.slot for entry in process.base.imports if entry.name == "WriteFile")
    process.guest.write_data(process.load_base + slot, gate.to_bytes(8, "little"))
    process.start()
    fault = process.run().fault
    assert fault.kind is FaultKind.UNKNOWN_IMPORT
    names = [frame.function for frame in fault.stack]
    assert names[0] == "kernel32.dll!Broken"
    assert names[-1] in ("start", "worker")
    assert len(names) >= 3


FAR = [-8 & (1 << 64) - 1, 0x7FFF_FFFF_FFFF_FFFF, 0xFFFF_8000_0000_0000, 0xFFF0_0000_0000_0008, 0x8000_0000_0000]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("address", FAR)
@pytest.mark.parametrize(
    ("x64", "arm64", "access"),
    [
        ("mov qword ptr [rax], rcx", "str x0, [x16]", "write"),
        ("lea rdx, [rax - 0x20]\nmov ecx, 2\nmovzx eax, byte ptr [rdx + rcx*8 + 0x10]", "ldrb w0, [x16]", "read"),
        ("mov rdi, rax\nmov ecx, 3\nrep stosb", "strb w0, [x16]", "write"),
        ("mov rsp, rax\npop rcx", "ldr x0, [x16], #8", "read"),
        ("lea rsp, [rax + 8]\npush rcx", "str x0, [x16], #8", "write"),
    ],
)
def test_an_address_that_no_program_has_is_told_whole(machine, address, x64, arm64, access):
    bare = Bare(machine)
    bare.thread(bare.code(f"LOAD {bare.scratch} {address}\n{x64 if bare.x64 else arm64}"))
    bare.run()
    fault = bare.system.fault
    assert (fault.kind, fault.address, fault.access) == (FaultKind.ACCESS_VIOLATION, address, access)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("address", FAR)
def test_the_exception_record_of_an_address_that_no_program_has(machine, address):
    bare = Bare(machine)
    if bare.x64:
        keep = "mov rax, [rcx]\nmov rcx, [rax+0x20]\nmov [rdx], rcx\nmov rcx, [rax+0x28]\nmov [rdx+8], rcx\nxor eax, eax\nret"
    else:
        keep = "ldr x0, [x0]\nldr x2, [x0, #0x20]\nstr x2, [x1]\nldr x2, [x0, #0x28]\nstr x2, [x1, #8]\nmov x0, #0\nret"
    bare.call_api("AddVectoredExceptionHandler", 1, bare.code(f"LOAD {bare.argument(1)} {DATA}\n{keep}"))
    bare.thread(bare.code(f"LOAD {bare.scratch} {address}\n" + ("mov [rax], rcx" if bare.x64 else "str x0, [x16]")))
    bare.run()
    assert (bare.system.fault.address, bare.system.fault.access) == (address, "write")
    canonical = address >> 47 in (0, 0x1FFFF)
    told = [int.from_bytes(bare.system.memory.read(DATA + at, 8), "little") for at in (0, 8)]
    assert told == ([0, 2**64 - 1] if bare.x64 and not canonical else [1, address])


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("bit", [52, 55, 56, 60, 63])
@pytest.mark.parametrize(
    ("x64", "arm64", "access"),
    [
        ("mov rcx, [rax]", "ldr x0, [x16]", "read"),
        ("mov [rax], cl", "strb w0, [x16]", "write"),
        ("add qword ptr [rax], 1", "ldxr x0, [x16]", "read"),
        ("mov rsp, rax\npop rcx", "ldr x0, [x16], #8", "read"),
        ("lea rsp, [rax + 8]\npush rcx", "str x0, [x16]", "write"),
        ("mov rdi, rax\nmov ecx, 3\nrep stosb", "stp x0, x1, [x16]", "write"),
        ("jmp rax", "br x16", "execute"),
    ],
)
def test_an_address_whose_lower_bits_alone_are_mapped_fails(machine, bit, x64, arm64, access):
    """It is no address of what they are mapped to; the page had been accessed before, by the address that it has."""
    bare = Bare(machine)
    address = DATA + 0x18 | 1 << bit
    first = "mov rcx, [rax]" if bare.x64 else "ldr x0, [x16]"
    code = bare.code(f"LOAD {bare.scratch} {DATA}\n{first}\nLOAD {bare.scratch} {address}\n{x64 if bare.x64 else arm64}\nret")
    before = bare.system.memory.read(DATA, 0x100)
    bare.thread(code)
    bare.run()
    fault = bare.system.fault
    assert (fault.kind, fault.address, fault.access) == (FaultKind.ACCESS_VIOLATION, address, access)
    assert bare.system.memory.read(DATA, 0x100) == before
    assert fault.pc == address if access == "execute" else code < fault.pc < code + 0x40
