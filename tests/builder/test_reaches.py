"""Code that names one datum and reaches others at constant distances from it: they must be there, travel along, or it is a refusal."""

from __future__ import annotations

import struct
from importlib.util import find_spec

import pytest

from hotpatch.arch import FixupKind, Machine, architecture
from hotpatch.builder import build_patch
from hotpatch.builder.bodies import body_of
from hotpatch.builder.model import Body
from hotpatch.builder.neighbours import Found, Neighbours
from hotpatch.builder.reaches import reaches as reached
from hotpatch.differ import ImageDiff, diff_images
from hotpatch.errors import NotHotpatchable
from hotpatch.image import Image, open_image
from tests.builder.pairs import BUILT, MERGED
from tests.builder.test_trials import check, patch_of
from tests.builder.test_type_records import takes
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

MERGING = ("-O3", "-mllvm", "-aarch64-enable-global-merge=1")
RETURNS = {Machine.X64: b"\xc3", Machine.ARM64: b"\xc0\x03\x5f\xd6"}
INDEXED = {Machine.X64: b"\x8b\x0c\x88", Machine.ARM64: b"\x09\x78\x69\xb8"}
"""``mov ecx, [rax + rcx*4]``, ``ldr w9, [x0, x9, lsl #2]``."""
each_machine = pytest.mark.parametrize("machine", Machine)


@pytest.mark.compiler
@pytest.mark.skipif(find_spec("ziglang") is None, reason="needs the compiler: pip install -e '.[fixtures]'")
@pytest.mark.parametrize("pdb", ["auto", None], ids=["pdb", "no-pdb"])
@pytest.mark.parametrize("name", MERGED)
def test_statics_that_the_compiler_puts_together(built, name, pdb) -> None:
    trial, paths = MERGED[name], built(name, Machine.ARM64, MERGING)
    rule = trial.refused if pdb else trial.refused_without or trial.refused
    if rule in (None, BUILT):
        patch = patch_of(paths, pdb)
        names = {function.entry: function.name for function in open_image(paths[0]).functions}
        assert sorted(names[row.base_rva] for row in patch.functions) == sorted(trial.travels)
        check(paths, patch, trial.calls)
        return
    with pytest.raises(NotHotpatchable) as refused:
        patch_of(paths, pdb)
    assert rule in {refusal.rule for refusal in refused.value.refusals}


@pytest.mark.compiler
@pytest.mark.skipif(find_spec("ziglang") is None, reason="needs the compiler: pip install -e '.[fixtures]'")
def test_the_end_of_one_whose_name_is_lost_where_another_begins(built) -> None:
    diff = diff_images(*(open_image(path) for path in built("the-end-of-one-where-another-begins", Machine.ARM64, MERGING)))
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(diff, only=("f",))
    (refusal,) = refused.value.refusals
    assert refusal.rule == "unresolved-reference"
    assert "may be the end of what is before it" in refusal.reason


def reaches(machine: Machine, at: int, target: int, distance: int, *, changed: bool, walks: bool = False, indexed: bool = False) -> bytes:
    """Code that takes an address and loads four bytes at a distance from it, and where ``changed`` adds something to them.

    ``walks``: it loads something by an index from the address besides. ``indexed``: an argument is the index of what it loads.
    """
    code = takes(machine, at, target) + (INDEXED[machine] if walks else b"")
    if indexed:
        code += b"\x48\x8d\x04\x88" if machine is Machine.X64 else struct.pack("<I", 0x8B010800)  # rax += rcx * 4, x0 += x1 * 4
    if machine is Machine.X64:
        return code + b"\x8b\x40" + struct.pack("<b", distance) + (b"\x83\xc0\x07" if changed else b"") + RETURNS[machine]
    load = struct.pack("<I", 0xB9400000 | distance // 4 << 10 if distance >= 0 else 0xB8400000 | (distance & 0x1FF) << 12)
    return code + load + (struct.pack("<I", 0x11001C00) if changed else b"") + RETURNS[machine]


def reads(machine: Machine, at: int, target: int, number: int) -> bytes:
    """Code that loads four bytes and returns a number of its own, so that it is told from others of its kind."""
    arch = architecture(machine)
    if machine is Machine.X64:
        return b"\x8b\x0d" + arch.bind(FixupKind.REL32, bytes(4), at + 2, target) + b"\xb8" + struct.pack("<I", number) + RETURNS[machine]
    page = arch.bind(FixupKind.PAGEBASE_REL21, struct.pack("<I", 0x90000008), at, target)
    load = arch.bind(FixupKind.PAGEOFFSET_12L, struct.pack("<I", 0xB9400108), at + 4, target)
    return page + load + struct.pack("<I", 0x52800000 | number << 5) + RETURNS[machine]


def image(
    machine: Machine,
    start: int,
    distance: int,
    others: dict[int, int],
    content: dict[int, bytes],
    *,
    changed: bool,
    walks: bool = False,
    indexed: bool = False,
) -> Image:
    """A function that reaches ``start`` + ``distance`` from ``start``, and others that read data: number → datum."""
    pe = Pe(machine)
    pe.cursor = RDATA + 0x800
    for place, data in content.items():
        pe.put(place, data)
    pe.put(TEXT, reaches(machine, TEXT, start, distance, changed=changed, walks=walks, indexed=indexed))
    entries = [("f", TEXT)]
    for number, target in others.items():
        at = TEXT + 0x40 * len(entries)
        pe.put(at, reads(machine, at, target, number))
        entries.append((f"g{number}", at))
    pe.exports("reach.dll", entries)
    return pe.build("reach.dll")


def live(
    machine: Machine, distance: int, places: tuple[dict[int, int], dict[int, int]], *, walks: bool = False, indexed: bool = False
) -> ImageDiff:
    """Live data that functions read: number → distance from the first, in the base and in the fixed image."""
    start, images = DATA + 0x100, []
    for reach, there, changed in zip((8, distance), places, (False, True), strict=True):
        others = {number: start + at for number, at in there.items()}
        images.append(image(machine, start, reach, others, {}, changed=changed, walks=walks and changed, indexed=indexed))
    return diff_images(*images)


def refusals(diff: ImageDiff) -> list[tuple[str, object]]:
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(diff)
    return [(str(refusal.rule), refusal.evidence.get("target")) for refusal in refused.value.refusals]


@each_machine
@pytest.mark.parametrize("width", [1, 4])
def test_what_is_accessed_right_where_it_is_named_is_looked_at_however_narrow(machine: Machine, width: int) -> None:
    """A byte at the address that merged data share may be another datum's as anything else there."""
    pe, target = Pe(machine), DATA + 0x100
    code = reads(machine, TEXT, target, 1)
    if width == 1:
        load = struct.pack("<I", 0x39400108 | (target & 0xFFF) << 10)
        code = b"\x8a" + code[1:] if machine is Machine.X64 else code[:4] + load + code[8:]
    pe.put(TEXT, code)
    pe.exports("byte.dll", [("f", TEXT)])
    found = pe.build("byte.dll")
    body = body_of(found, found.function_named("f"))
    assert isinstance(body, Body)
    items = [item for several in reached(found, body).values() for item in several]
    assert [(item.start, item.width) for item in items] == [(target, width)]


SAME = {1: 0, 2: 8, 3: 16, 4: 24}
MOVED = {1: 0, 2: 16, 3: 8, 4: 24}


@each_machine
def test_live_data_at_the_same_distance(machine: Machine) -> None:
    assert build_patch(live(machine, 8, (SAME, SAME))).carried == ()


FAR = {1: 0, 2: 0x50, 3: 16, 4: 24}


def counted(diff: ImageDiff) -> list[int]:
    """What the function that travels adds to the address that it takes."""
    patch = build_patch(diff)
    (row,) = patch.functions
    arch, size = patch.image.architecture, patch.image.function_at(row.patch_rva).size
    code = patch.image.read(row.patch_rva, size)
    found = (arch.counted(code[one.address :], one.address) for one in arch.disassemble(code, 0) if "rip" not in one.operands)
    return [item.number for item in found if item is not None and item.kind is not FixupKind.PAGEOFFSET_12A]


@each_machine
@pytest.mark.parametrize(
    ("distance", "places", "number"),
    [
        (16, (SAME, MOVED), 8),
        (8, (SAME, MOVED), 16),
        (8, (MOVED, SAME), 16),
        (0x50, (SAME, FAR), 8),
        (8, (FAR, MOVED | {2: 8, 3: 0x60}), 0x50),
    ],
)
def test_live_data_at_another_distance(machine: Machine, distance: int, places: tuple[dict[int, int], dict[int, int]], number: int) -> None:
    assert counted(live(machine, distance, places)) == [number]


@each_machine
def test_live_data_that_are_too_far_apart(machine: Machine) -> None:
    far = {1: 0, 2: -16, 3: 16, 4: 24} if machine is Machine.ARM64 else {1: 0, 2: 0x88, 3: 16, 4: 24}
    assert refusals(live(machine, 0x50, (far, FAR))) == [("out-of-reach", DATA + 0x150)]


@each_machine
def test_live_data_that_are_walked(machine: Machine) -> None:
    """An index from the first may lead to the second as well."""
    assert refusals(live(machine, 16, (SAME, MOVED), walks=True)) == [("unresolved-reference", DATA + 0x110)]


FARTHER = {1: 0, 2: 8, 3: 24, 4: 16}


IN_FRONT = {1: 0, 2: -8, 3: 16, 4: 24}


@each_machine
@pytest.mark.parametrize("there", [-8, -16])
def test_an_index_from_in_front_of_what_is_named(machine: Machine, there: int) -> None:
    """It may go over what is named, for its lowest value need not be zero; what the base has in front elsewhere may be meant."""
    diff = live(machine, -8, (IN_FRONT | {2: there}, IN_FRONT), indexed=True)
    if there == -8:
        assert build_patch(diff).carried == ()
    else:
        assert refusals(diff) == [("unresolved-reference", DATA + 0x100 - 8)]


@each_machine
@pytest.mark.parametrize(("distance", "places"), [(8, (SAME, SAME)), (24, (SAME, MOVED))])
def test_an_index_from_where_the_base_has_the_same(machine: Machine, distance: int, places: tuple[dict[int, int], dict[int, int]]) -> None:
    assert build_patch(live(machine, distance, places, indexed=True)).carried == ()


@each_machine
@pytest.mark.parametrize(("distance", "places"), [(8, (SAME, MOVED)), (8, (MOVED, SAME)), (12, (SAME, FARTHER)), (4, (SAME, MOVED))])
def test_an_index_from_where_the_base_has_others(machine: Machine, distance: int, places: tuple[dict[int, int], dict[int, int]]) -> None:
    assert refusals(live(machine, distance, places, indexed=True)) == [("unresolved-reference", DATA + 0x100 + distance)]


@each_machine
def test_the_self_check_sees_an_index_too(machine: Machine, monkeypatch) -> None:
    monkeypatch.setattr(Neighbours, "of", lambda _self, _bodies, links, _pieces: Found(list(links), (), ()))
    assert refusals(live(machine, 8, (SAME, MOVED), indexed=True)) == [("self-check", DATA + 0x108)]


@each_machine
def test_live_data_reached_from_what_is_new(machine: Machine) -> None:
    place = DATA  # right at the beginning, so that the base has no room for it before the other
    base = image(machine, place, 0, {1: place, 2: place + 0x40}, {}, changed=False)
    fixed = image(machine, place, 8, {1: place + 8, 2: place + 0x40}, {}, changed=True)
    assert ("unresolved-reference", place + 8) in refusals(diff_images(base, fixed))


@each_machine
@pytest.mark.parametrize("places", [(SAME, MOVED), (MOVED, SAME)])
def test_the_self_check_sees_it_too(machine: Machine, places: tuple[dict[int, int], dict[int, int]], monkeypatch) -> None:
    monkeypatch.setattr(Neighbours, "of", lambda _self, _bodies, links, _pieces: Found(list(links), (), ()))
    assert refusals(live(machine, 8, places)) == [("self-check", DATA + 0x108)]


@each_machine
@pytest.mark.parametrize("wrong", [0, 4, 16])
def test_the_self_check_sees_a_wrong_number(machine: Machine, wrong: int, monkeypatch) -> None:
    """As it was, where another datum lies, and where nothing is known."""

    def new_bytes(fixed, item, _anchor, _target) -> bytes:
        code = fixed.read(item.site.instruction, item.site.size)
        return architecture(machine).recount(code, item.site.instruction, {0: 8}.get(wrong, 16 + wrong))

    monkeypatch.setattr("hotpatch.builder.link.new_bytes", new_bytes)
    assert {rule for rule, _ in refusals(live(machine, 8, (SAME, MOVED)))} == {"self-check"}


@each_machine
def test_the_self_check_sees_another_instruction(machine: Machine, monkeypatch) -> None:
    def new_bytes(fixed, item, _anchor, _target) -> bytes:
        code = architecture(machine).recount(fixed.read(item.site.instruction, item.site.size), item.site.instruction, 16)
        return bytes([code[0] ^ 1, *code[1:]]) if machine is Machine.ARM64 else bytes([code[0], code[1] ^ 8, *code[2:]])

    monkeypatch.setattr("hotpatch.builder.link.new_bytes", new_bytes)
    assert {rule for rule, _ in refusals(live(machine, 8, (SAME, MOVED)))} == {"self-check"}


def constants(machine: Machine, distance: int, fixed: list[bytes]) -> ImageDiff:
    """Constants behind each other, of which functions read the first and the last."""
    sides = (8, [b"first 01", b"second 2"], False), (distance, fixed, True)
    images = []
    for reach, content, changed in sides:
        others = {1: RDATA, 2: RDATA + 8 * len(content) - 8}
        images.append(image(machine, RDATA, reach, others, {RDATA: b"".join(content) + b"end of all"}, changed=changed))
    return diff_images(*images)


@each_machine
def test_constants_at_the_same_distance(machine: Machine) -> None:
    assert build_patch(constants(machine, 8, [b"first 01", b"second 2"])).carried == ()


@each_machine
@pytest.mark.parametrize("is_record", [True, False], ids=["the-load-configuration", "a-constant"])
def test_the_end_of_a_constant_where_something_else_begins(machine: Machine, is_record: bool) -> None:
    """Only the address is made: of what the loader alone reads, it is the end of what is before it."""
    images = []
    for number in (1, 2):
        pe = Pe(machine)
        pe.cursor += 0x40
        pe.load_configuration(cookie=DATA + 0x10, check=RDATA + 0x700, dispatch=RDATA + 0x708)
        behind = pe.directories["load_config"][0] if is_record else RDATA + 0x900
        pe.cursor = max(pe.cursor, RDATA + 0xA00)
        pe.put(behind - 8, b"first 01")
        pe.put(behind + 8, bytes([number]))
        code = takes(machine, TEXT, behind - 8)
        code += b"\x48\x8d\x40\x08" if machine is Machine.X64 else struct.pack("<I", 0x91002000)  # rax += 8, x0 += 8
        if number == 2:
            code += b"\x48\x89\x01" if machine is Machine.X64 else struct.pack("<I", 0xF9000020)  # mov [rcx], rax; str x0, [x1]
        pe.put(TEXT, code + RETURNS[machine])
        pe.put(TEXT + 0x40, reads(machine, TEXT + 0x40, behind - 8, 1))
        pe.put(TEXT + 0x80, reads(machine, TEXT + 0x80, behind, 2))
        pe.exports("ends.dll", [("f", TEXT), ("g", TEXT + 0x40), ("h", TEXT + 0x80)])
        images.append(pe.build("ends.dll"))
    assert bool(build_patch(diff_images(*images)).carried) is not is_record


@each_machine
def test_constants_at_another_distance_travel_in_one_piece(machine: Machine) -> None:
    (row,) = build_patch(constants(machine, 16, [b"first 01", b"other!!!", b"second 2"])).carried
    assert row.size >= 20


def pointing(machine: Machine, leads_to: int | None, *, changed: bool) -> Image:
    """A function that reaches, from a constant, the pointer behind it, which leads to one that is a pointer to a function, or null."""
    pe, inner = Pe(machine), RDATA + 0x40
    pe.cursor = RDATA + 0x800
    pe.put(RDATA, b"first 01")
    pe.pointer(RDATA + 8, inner)
    pe.put(RDATA + 0x10, b"end of all")
    if leads_to is not None:
        pe.pointer(inner, leads_to)
    load = b"\x48\x8b\x40\x08" if machine is Machine.X64 else struct.pack("<I", 0xF9400400)
    more = b"\x83\xc2\x07" if machine is Machine.X64 else struct.pack("<I", 0x11001C21)  # add edx, 7; add w1, w1, #7
    pe.put(TEXT, takes(machine, TEXT, RDATA) + load + (more if changed else b"") + RETURNS[machine])
    entries = [("f", TEXT)]
    for number, target in enumerate((RDATA, RDATA + 8, RDATA + 0x10, inner + 8), 1):
        at = TEXT + 0x40 * number
        pe.put(at, reads(machine, at, target, number))
        entries.append((f"g{number}", at))
    pe.exports("pointing.dll", entries)
    return pe.build("pointing.dll")


POINTED = [(TEXT + 0x40, None), (None, TEXT + 0x40), (TEXT + 0x40, TEXT + 0x80)]


@each_machine
@pytest.mark.parametrize("targets", POINTED, ids=["lost", "gained", "another"])
def test_a_constant_at_a_distance_whose_pointer_leads_to_something_else(machine: Machine, targets: tuple[int | None, int | None]) -> None:
    """A pointer is no zeros: both travel in one piece."""
    base, fixed = (pointing(machine, one, changed=changed) for one, changed in zip(targets, (False, True), strict=True))
    assert max(row.size for row in build_patch(diff_images(base, fixed)).carried) >= 16


@each_machine
@pytest.mark.parametrize("targets", POINTED, ids=["lost", "gained", "another"])
def test_the_self_check_sees_where_a_pointer_leads(machine: Machine, targets: tuple[int | None, int | None], monkeypatch) -> None:
    monkeypatch.setattr(Neighbours, "of", lambda _self, _bodies, links, _pieces: Found(list(links), (), ()))
    diff = diff_images(*(pointing(machine, one, changed=changed) for one, changed in zip(targets, (False, True), strict=True)))
    assert ("self-check", RDATA + 8) in refusals(diff)
