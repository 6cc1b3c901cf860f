"""What must not be taken for the same: each a wrong patch that an excuse, meant for something else, once hid."""

from __future__ import annotations

import struct

import pytest

import hotpatch
from hotpatch.address import Rva
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.patch import CarriedKind
from hotpatch.verifier import MicroExecution, MicroOutcome, verify_functions
from hotpatch.verifier.micro_compare import Comparison
from hotpatch.verifier.micro_correlation import Correlation
from hotpatch.verifier.micro_observed import Observed, Seen
from tests.emulator.pe import DATA, RDATA, RELOC, RW, TEXT, Pe
from tests.verifier.damage import with_code

each_machine = pytest.mark.parametrize("machine", Machine)


def _relocated(images: list[hotpatch.Image]) -> hotpatch.verifier.MicroReport:
    """Of a function said to be only relocated."""
    execution = MicroExecution(*images)
    rows = [row._replace(verdict=hotpatch.Verdict.RELOCATED) for row in execution.diff.functions if row.name == "walk"]
    (report,) = execution.unpatched(rows, seeds=8)
    return report


LABELS = {
    Machine.X64: ("mov eax, 7; ret", bytes.fromhex("90 488d0500000000 90909090 c3"), 4),
    Machine.ARM64: ("mov w0, #7; ret", struct.pack("<4I", 0xD503201F, 0x10000020, 0xD503201F, 0xD65F03C0), 4),
}
"""Returns an address behind itself; its second field tells which, four bytes (Arm64: a quarter of them) into the code."""


@each_machine
@pytest.mark.parametrize("distance", [0, 4])
def test_another_place_in_the_function_itself(machine: Machine, distance: int) -> None:
    images = []
    nothing, code, field = LABELS[machine]
    for code_here in (assemble(machine, nothing, TEXT), code):
        pe = Pe(machine)
        pe.put(TEXT, code_here)
        pe.exports("walk.dll", [("walk", TEXT), ("one", DATA)])
        images.append(pe.build("walk.dll"))
    patch = hotpatch.build(hotpatch.diff(*images))
    if distance:
        old = int.from_bytes(code[field : field + 4], "little")
        new = old + (distance if machine is Machine.X64 else distance // 4 << 5)
        patch = with_code(patch, field, code[field : field + 4].hex(), new.to_bytes(4, "little").hex())
    (report,) = verify_functions(images[0], patch, fixed=images[1]).functions
    assert (report.outcome is MicroOutcome.DIFFER) == bool(distance), report.text


TWO_TEXTS = {
    Machine.X64: "lea rcx, [rip + 0x11f9]; lea rax, [rip + 0x1252]; ret",
    Machine.ARM64: "adrp x9, 0x2000; add x1, x9, #0x200; add x0, x9, #0x260; ret",
}
"""Names two new texts, of which it returns the second's address."""


@each_machine
@pytest.mark.parametrize("is_right", [True, False])
def test_another_of_the_constants_that_travel(machine: Machine, is_right: bool) -> None:
    """What reads it is not run, and both addresses are of what only one side has."""
    images = []
    for code, first, second in (
        ("mov eax, 7; ret" if machine is Machine.X64 else "ret", b"", b""),
        (TWO_TEXTS[machine], b"a text", b"another"),
    ):
        pe = Pe(machine)
        pe.put(TEXT, assemble(machine, code, TEXT))
        pe.put(RDATA + 0x200, first.ljust(0x10, b"\0") + struct.pack("<10Q", *range(5, 15)) + second.ljust(0x10, b"\0"))
        pe.exports("walk.dll", [("walk", TEXT), ("between", RDATA + 0x210), ("behind", RDATA + 0x270)])
        images.append(pe.build("walk.dll"))
    patch = hotpatch.build(hotpatch.diff(*images))
    (item,) = (item for item in patch.carried if item.kind is CarriedKind.CONSTANT)
    one, other = (item.patch_rva + patch.image.read(item.patch_rva, item.size).index(text) for text in (b"a text", b"another"))
    rva = patch.functions[0].patch_rva
    if machine is Machine.X64:
        right, wrong = (struct.pack("<i", place - rva - 14) for place in (other, one))
        offset = 10
    else:
        right, wrong = (struct.pack("<I", 0x91000120 | (place & 0xFFF) << 10) for place in (other, one))
        offset = 8
    report = verify_functions(images[0], patch if is_right else with_code(patch, offset, right.hex(), wrong.hex()), fixed=images[1])
    assert [item.outcome is MicroOutcome.DIFFER for item in report.functions] == [not is_right], report.functions[0].text


CALLS_FIRST = {
    Machine.X64: "push rbx; sub rsp, 0x20; mov rbx, rcx; mov ecx, {number}; call 0x1100; lea rax, [rip + {distance}]; and ebx, 15;"
    " or ebx, 2; mov rax, qword ptr [rax + rbx*8]; add rsp, 0x20; pop rbx; ret",
    Machine.ARM64: "stp x29, x30, [sp, #-32]!; str x19, [sp, #16]; mov x19, x0; mov x0, #{number}; bl 0x1100; adrp x9, 0x3000;"
    " and x8, x19, #15; orr x8, x8, #2; lsl x8, x8, #3; add x9, x9, x8; ldr x0, [x9]; ldr x19, [sp, #16]; ldp x29, x30, [sp], #32; ret",
}
"""Calls a function, then reads beside a table of two words, as made-up indices do."""


@each_machine
@pytest.mark.parametrize("number", [1, 2])
def test_what_differs_before_an_index_leads_out_of_a_table(machine: Machine, number: int) -> None:
    images = []
    for beside, handed in ((5, 1), (6, number)):
        pe = Pe(machine)
        code = CALLS_FIRST[machine]
        ahead = {Machine.X64: len(assemble(machine, code.partition("; and ebx")[0].format(number=1, distance=0), TEXT)), Machine.ARM64: 0}[
            machine
        ]
        pe.put(TEXT, assemble(machine, code.format(number=handed, distance=DATA - TEXT - ahead), TEXT))
        pe.put(TEXT + 0x100, assemble(machine, "ret", TEXT))
        pe.put(DATA, struct.pack("<18Q", 3, 4, *[beside] * 16))
        pe.exports("walk.dll", [("walk", TEXT), ("callee", TEXT + 0x100), ("table", DATA), ("behind", DATA + 0x10), ("end", DATA + 0x90)])
        images.append(pe.build("walk.dll"))
    report = _relocated(images)
    assert report.outcome is (MicroOutcome.INCONCLUSIVE if number == 1 else MicroOutcome.DIFFER), report.text


@each_machine
@pytest.mark.parametrize(("handed", "found"), [(1, []), (2, ["call 1, argument"])])
def test_calls_before_one_side_goes_astray_are_compared(machine: Machine, handed: int, found: list[str]) -> None:
    pe = Pe(machine)
    pe.put(TEXT, assemble(machine, "ret", TEXT))
    pe.exports("walk.dll", [("walk", TEXT), ("one", DATA)])
    image = pe.build("walk.dll")
    process = hotpatch.Process(image)
    correlation = Correlation(hotpatch.diff(image, image), process, process, None, None)
    start = process.load_base + TEXT
    comparison = Comparison(correlation, image.functions[0], range(start, start + 1))
    returned = Observed(end="returned", words=(1,), calls=[Seen(start, (1,), (), ())])
    faulted = Observed(end="access-violation", address=8, calls=[Seen(start, (handed,), (), ())], stores=[(8, 8)])
    assert [item.what for item in comparison.differences(returned, faulted, alike=True, astray=True)] == found


PAGES = {Machine.X64: "lea rax, [rip + {distance}]; ret", Machine.ARM64: "adrp x0, {page}; ret"}


@each_machine
@pytest.mark.parametrize("page", [DATA, RDATA])
def test_another_datum_at_the_beginning_of_a_page(machine: Machine, page: int) -> None:
    images = []
    for place in (page, DATA):
        pe = Pe(machine)
        pe.cursor += 0x100
        pe.put(TEXT, assemble(machine, PAGES[machine].format(distance=place - TEXT - 7, page=place), TEXT))
        pe.exports("walk.dll", [("walk", TEXT), ("constant", RDATA), ("one", DATA), ("two", DATA + 0x10)])
        images.append(pe.build("walk.dll"))
    report = _relocated(images)
    assert (report.outcome is MicroOutcome.DIFFER) == (page != DATA), report.text


@each_machine
def test_a_new_datum_is_none_of_the_base_s_that_is_as_far_away_as_another(machine: Machine) -> None:
    """The function names both a datum that moved by 16 bytes and a new one, 16 bytes from where the base has something else."""
    images = []
    for one, other, new in ((0x100, 0x200, None), (0x110, 0x300, 0x210)):
        pe = Pe(machine)
        names = [DATA + one, DATA + (new or other)]
        code = {
            Machine.X64: "mov rax, qword ptr [rip + {first}]; add rax, qword ptr [rip + {second}]; ret",
            Machine.ARM64: "adrp x9, 0x3000; ldr x0, [x9, #{one}]; ldr x1, [x9, #{two}]; add x0, x0, x1; ret",
        }[machine]
        given = {"first": names[0] - TEXT - 7, "second": names[1] - TEXT - 14, "one": names[0] - DATA, "two": names[1] - DATA}
        pe.put(TEXT, assemble(machine, code.format(**given), TEXT))
        named = [("one", DATA + one), ("behind", DATA + one + 8), ("gap", DATA + 0x1F0), ("other", DATA + other), ("end", DATA + other + 8)]
        pe.exports("walk.dll", [("walk", TEXT), *named, *([("new", DATA + new), ("newer", DATA + new + 8)] if new else [])])
        images.append(pe.build("walk.dll"))
    mine, theirs = (hotpatch.Process(image) for image in images)
    correlation = Correlation(hotpatch.diff(*images), mine, theirs, None, None)
    function = images[1].function_of_entry(Rva(TEXT))
    assert correlation.meant(DATA + 0x110) == DATA + 0x100
    assert correlation.meant(DATA + 0x210) is None
    assert not correlation.same(mine.load_base + DATA + 0x200, theirs.load_base + DATA + 0x210, function, range(0))


@each_machine
@pytest.mark.parametrize(("distance", "same"), [(-0x0FFF_0000, True), (0x10_0000, True), (None, False)])
def test_small_numbers_are_no_addresses_where_an_image_lies_low(machine: Machine, distance: int | None, same: bool) -> None:
    images = []
    for at in (0x100, 0x280):
        pe = Pe(machine, base=0x1000_0000)
        code = {Machine.X64: f"lea rax, [rip + {DATA + at - TEXT - 7}]; ret", Machine.ARM64: f"adrp x0, 0x3000; add x0, x0, #{at}; ret"}
        pe.put(TEXT, assemble(machine, code[machine], TEXT))
        pe.exports("walk.dll", [("walk", TEXT), ("table", DATA + at)])
        images.append(pe.build("walk.dll"))
    mine, theirs = (hotpatch.Process(image) for image in images)
    correlation = Correlation(hotpatch.diff(*images), mine, theirs, None, None)
    function = images[1].function_of_entry(Rva(TEXT))
    values = (0x10, 0x190)
    if distance is not None:
        values = mine.load_base + DATA + 0x100 + distance, theirs.load_base + DATA + 0x280 + distance
    assert correlation.same(*values, function, range(0)) is same


TAKEN_AWAY = {
    Machine.X64: "sub rsp, 0x28; call 0x1100; lea rcx, [rip + {distance}]; sub eax, ecx; movzx eax, ax; add rsp, 0x28; ret",
    Machine.ARM64: "stp x29, x30, [sp, #-16]!; bl 0x1100; adrp x9, {page}; add x9, x9, #{low}; sub x0, x0, x9; and x0, x0, #0xffff;"
    " ldp x29, x30, [sp], #16; ret",
}
"""Takes an address away from what a call gives and returns the lower bits, as after a search in a text."""


@each_machine
@pytest.mark.parametrize(("place", "same"), [(DATA + 0x200, True), (DATA + 0x240, False), (DATA + 0x340, False)])
def test_an_address_that_moved_by_a_page_is_taken_away_from_a_made_up_one(machine: Machine, place: int, same: bool) -> None:
    images = []
    code = TAKEN_AWAY[machine]
    ahead = len(assemble(machine, code.partition("; sub eax")[0].format(distance=0), TEXT)) if machine is Machine.X64 else 0
    for text, other, named in ((RDATA + 0x200, RDATA + 0x240, RDATA + 0x200), (DATA + 0x200, DATA + 0x240, place)):
        pe = Pe(machine, rdata_flags=RW)
        given = {"distance": named - TEXT - ahead, "page": named & -0x1000, "low": named & 0xFFF}
        pe.put(TEXT, assemble(machine, code.format(**given), TEXT))
        pe.put(TEXT + 0x100, assemble(machine, "ret", TEXT))
        pe.cursor = RDATA + 0x800
        pe.exports("walk.dll", [("walk", TEXT), ("callee", TEXT + 0x100), ("text", text), ("other", other), ("end", other + 8)])
        images.append(pe.build("walk.dll"))
    report = _relocated(images)
    assert (report.outcome is not MicroOutcome.DIFFER) == same, report.text


@pytest.mark.parametrize(("place", "same"), [(RELOC + 0x210, True), (RELOC + 0x310, False)])
def test_the_page_of_what_is_named_is_left_in_a_register(place: int, same: bool) -> None:
    """On the page begins something else, which neither image shares with the other."""
    images = []
    for text, named in ((RDATA + 0x200, RDATA + 0x200), (RELOC + 0x210, place)):
        pe = Pe(Machine.ARM64)
        code = f"adrp x0, {named & -0x1000}; cbz x1, 0x100c; add x0, x0, #{named & 0xFFF}; ret"
        pe.put(TEXT, assemble(Machine.ARM64, code, TEXT))
        pe.put(RDATA, bytes(range(1, 17)))
        pe.put(RELOC, bytes(range(17, 33)))
        pe.put(text, b"a text\0")
        pe.put(text + 0x100, b"other\0")
        pe.cursor = RDATA + 0x800
        pe.exports("walk.dll", [("walk", TEXT), ("text", text), ("end", text + 8), ("other", text + 0x100)])
        images.append(pe.build("walk.dll"))
    report = _relocated(images)
    assert (report.outcome is not MicroOutcome.DIFFER) == same, report.text


@each_machine
@pytest.mark.parametrize("place", [RDATA, RDATA + 0x10])
def test_another_text_at_the_beginning_of_a_page(machine: Machine, place: int) -> None:
    codes = {
        Machine.X64: f"lea rax, [rip + {place - TEXT - 7}]; ret",
        Machine.ARM64: f"adrp x0, {place & -0x1000}; add x0, x0, #{place & 0xFFF}; ret",
    }
    images = []
    for text in (b"first text of base\0", b"the other one here\0"):
        pe = Pe(machine)
        pe.put(TEXT, assemble(machine, codes[machine], TEXT))
        pe.put(place, text)
        pe.cursor = RDATA + 0x800
        pe.exports("walk.dll", [("walk", TEXT)])
        images.append(pe.build("walk.dll"))
    assert _relocated(images).outcome is MicroOutcome.DIFFER


LENGTHS = {
    Machine.X64: "and edx, {mask}; lea rcx, [rip + 0x1236]; test dl, 32; jne 0x1012; xor eax, eax; ret;"
    " mov rax, qword ptr [rcx + rdx - {back}]; ret",
    Machine.ARM64: "and x1, x1, #{mask}; adrp x9, 0x2000; add x9, x9, #0x240; and x8, x1, #32; cbnz x8, 0x101c; mov x0, #0; ret;"
    " sub x1, x1, #{back}; ldr x0, [x9, x1]; ret",
}
"""Where a length has one bit set, reads from a new table as far behind its beginning as that is more than a number."""


@each_machine
@pytest.mark.parametrize(("mask", "back", "at", "same"), [(31, 0x20, -0x20, True), (31, 0, 0, False), (63, 0x60, -0x40, False)])
def test_a_length_that_is_shorter_than_was_checked(machine: Machine, mask: int, back: int, at: int, same: bool) -> None:
    """Led round the check, which no length of five bits passes, it reads in front of the table. Where it does so by itself, that counts."""
    images = []
    table = RDATA + 0x240
    for code in ("mov eax, 7; ret" if machine is Machine.X64 else "ret", LENGTHS[machine].format(mask=mask, back=back)):
        pe = Pe(machine)
        pe.put(TEXT, assemble(machine, code, TEXT))
        if images:
            pe.put(table - 0x80, bytes(range(0x80, 0x100)) + bytes(range(1, 0x41)))
        pe.cursor = RDATA + 0x800
        pe.exports("walk.dll", [("walk", TEXT), ("datum", DATA)])
        images.append(pe.build("walk.dll"))
    patch = hotpatch.build(hotpatch.diff(*images))
    (item,) = (item for item in patch.carried if item.kind is CarriedKind.CONSTANT)
    there = item.patch_rva + patch.image.read(item.patch_rva, item.size).index(bytes(range(1, 0x41))) + at
    old = patch.image.read(there, 0x20)
    other = with_code(patch, there - patch.functions[0].patch_rva, old.hex(), bytes(byte ^ 0x40 for byte in old).hex())
    (report,) = verify_functions(images[0], other, fixed=images[1]).functions
    assert (report.outcome is not MicroOutcome.DIFFER) == same, report.text
    assert report.why or not same


@each_machine
@pytest.mark.parametrize("wrong", [None, "f", "g"])
def test_one_new_datum_is_not_another(machine: Machine, wrong: str | None) -> None:
    """Each of two functions returns the address of a new datum of its own; both data are writable and of the same size."""
    images = []
    for names in ((), ("f", "g")):
        pe = Pe(machine)
        for number, start in enumerate((TEXT, TEXT + 0x80)):
            place = 0x100 + 0x40 * number
            address = {
                Machine.X64: f"lea rax, [rip + {DATA + place - start - 7}]; nop; nop; ret",
                Machine.ARM64: f"adrp x0, 0x3000; add x0, x0, #{place}; ret",
            }
            code = (
                address[machine]
                if names
                else {Machine.X64: "mov eax, 7; nop; nop; nop; ret", Machine.ARM64: "mov w0, #7; nop; ret"}[machine]
            )
            pe.put(start, assemble(machine, code, start))
        pe.exports("new.dll", [("f", TEXT), ("g", TEXT + 0x80), *([("one", DATA + 0x100), ("two", DATA + 0x140)] if names else [])])
        images.append(pe.build("new.dll"))
    patch = hotpatch.build(hotpatch.diff(*images))
    assert {item.kind for item in patch.carried} == {CarriedKind.DATA}
    if wrong is not None:
        own, other = patch.functions if wrong == "f" else reversed(patch.functions)
        offset, size = (3, 4) if machine is Machine.X64 else (4, 4)
        field, there = patch.image.read(own.patch_rva + offset, size), patch.image.read(other.patch_rva + offset, size)
        if machine is Machine.X64:
            there = struct.pack("<i", struct.unpack("<i", there)[0] + other.patch_rva - own.patch_rva)
        patch = with_code(patch, own.patch_rva - patch.functions[0].patch_rva + offset, field.hex(), there.hex())
    reports = verify_functions(images[0], patch, fixed=images[1], seeds=4).functions
    assert (MicroOutcome.DIFFER in {report.outcome for report in reports}) == (wrong is not None), [report.text for report in reports]
