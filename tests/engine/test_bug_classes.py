"""The classes of bug that inline redirection is known for, a row each and a column for each machine: a list to tick off.

Every class has bitten a well-known hooking or live patching project. Where it is about moved instructions, the original and its copy run
side by side in Unicorn from random states; the rows that they are taken from are pinned byte by byte in ``tests/arch``. Where it is about
the engine, a process is patched in the emulator. ``docs/mechanics.md`` has the same list.
"""

from __future__ import annotations

import random
import re
from functools import cache, partial, partialmethod
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import hotpatch
from hotpatch.address import Va
from hotpatch.arch import Machine, Redirect
from hotpatch.cases import find_case
from hotpatch.emulator.guest import Guest
from hotpatch.emulator.memory import Memory
from hotpatch.engine import Engine, Rights, Stacking
from hotpatch.errors import CannotRelocate, Rule
from tests.arch.arm64 import rows as arm64_rows
from tests.arch.arm64.sidebyside import same
from tests.arch.x64 import rows as x64_rows
from tests.arch.x64.sidebyside import compare, pointers

from .real import whole
from .synthetic import Recipe, base_image, entry, make
from .test_page_rights import Watched

if TYPE_CHECKING:
    from collections.abc import Callable

X64, ARM64 = Machine.X64, Machine.ARM64
SOURCE = x64_rows.SOURCE
IMAGE, IMAGE_SIZE = 0x140000000, 0x10000
STATES = range(1000, 1024)
"""Seeds of the random states, other ones than ``tests/arch`` takes."""
NEAR, FAR = "near", "far"
MANY_STATES = range(1000, 1200)
"""As many as are tried until a branch has gone both ways."""
PLACES = {X64: {NEAR: x64_rows.NEAR, FAR: x64_rows.FAR}, ARM64: {NEAR: arm64_rows.PLACES["near"], FAR: arm64_rows.PLACES["far"]}}


# moved instructions -----------------------------------------------------------------------------------------------------------------------


def move(machine: Machine, code: str, displaced: int, place: str) -> hotpatch.Trampoline:
    where = PLACES[machine][place]
    return hotpatch.trampoline(machine, bytes.fromhex(code), source_va=SOURCE, trampoline_va=where, displaced=displaced)


def x64_alike(*names: str) -> Callable[[Machine], None]:
    """The copies of these rows do as the originals do, from every state."""

    def check(_: Machine) -> None:
        rows = {row.name: row for row in x64_rows.ROWS}
        for name in names:
            row = rows[name]
            moved = hotpatch.trampoline(X64, row.code, source_va=SOURCE, trampoline_va=row.trampoline, displaced=row.displaced)
            content = pointers(random.Random(0), IMAGE_SIZE)
            place = SOURCE - IMAGE
            image = IMAGE, content[:place] + row.code + content[place + len(row.code) :]
            ends = {compare(image, SOURCE, moved, row.trampoline, row.displaced, seed).pc for seed in STATES}
            assert any(end not in range(SOURCE, SOURCE + row.displaced) for end in ends)  # endless loops are cut short

    return check


def arm64_alike(*names: str, ends: int | None = None) -> Callable[[Machine], None]:
    """The same; ``ends``: at how many places the copies must have left, all states together."""

    def check(_: Machine) -> None:
        rows = {row.id: row for row in arm64_rows.read_rows()}
        for name in names:
            row = rows[name]
            kept = tuple(number for number in (16, 17) if f" x{number}, " in "".join(row.source))
            moved = hotpatch.trampoline(ARM64, row.code, source_va=SOURCE, trampoline_va=row.trampoline_va, displaced=row.displaced)
            found = set()
            for count, seed in enumerate(MANY_STATES):
                if count >= len(STATES) and (ends is None or len(found) >= ends):
                    break
                content = bytearray(random.Random(seed).randbytes(IMAGE_SIZE))
                content[SOURCE - IMAGE : SOURCE - IMAGE + len(row.code)] = row.code
                found.add(same(f"{name} {seed}", (IMAGE, bytes(content)), SOURCE, len(row.code), moved, row.trampoline_va, kept))
            assert ends is None or len(found) == ends, name

    return check


def refused(rule: Rule, code: str, displaced: int, place: str = NEAR) -> Callable[[Machine], None]:
    """Not moved at all, by name."""

    def check(machine: Machine) -> None:
        with pytest.raises(CannotRelocate) as caught:
            move(machine, code, displaced, place)
        assert [refusal.rule for refusal in caught.value.refusals] == [rule]

    return check


def keeps_first(code: str) -> Callable[[Machine], None]:
    """The copy begins with the landing pad that the entry begins with."""

    def check(machine: Machine) -> None:
        for place in (NEAR, FAR):
            assert move(machine, code, 4, place).code.startswith(bytes.fromhex(code)[:4])

    return check


def reads_late(code: str, literal: int) -> Callable[[Machine], None]:
    """The value at ``literal`` bytes into the code is not in the copy: it is read when the copy runs."""
    value = bytes.fromhex("1122334455667788")

    def check(machine: Machine) -> None:
        whole_code = bytes.fromhex(code).ljust(literal, b"\x90" if machine is X64 else b"\0") + value
        for place in (NEAR, FAR) if machine is ARM64 else (NEAR,):
            assert value not in move(machine, whole_code.hex(), 4 if machine is ARM64 else 5, place).code

    return check


def all_of(*checks: Callable[[Machine], None]) -> Callable[[Machine], None]:
    def check(machine: Machine) -> None:
        for one in checks:
            one(machine)

    return check


# the engine -------------------------------------------------------------------------------------------------------------------------------


@cache
def fix(case: str, machine: Machine, redirect: Redirect = Redirect.HPAT) -> tuple[hotpatch.Image, hotpatch.Patch]:
    base, fixed = (hotpatch.open(find_case(case).image(machine, side)) for side in ("base", "fixed"))
    return base, hotpatch.build(hotpatch.diff(base, fixed), redirect=redirect)


def every_call_comes_to_an_end(machine: Machine) -> None:
    """In at each instruction of a call, and out again a few later: a thread in the bytes finishes, and never finds half a jump."""
    for redirect in Redirect:
        base, patch = fix("basic", machine, redirect)
        process = hotpatch.Process(base)
        start = process.snapshot()
        assert process.call("total", 11, 12, 10) == 21
        length = process.last.instructions
        for at in range(length):
            for later in (1, 3, 9):
                process.restore(start)
                process.apply_at(at, patch)
                process.revert_at(at + later, patch)
                assert process.call("total", 11, 12, 10) in {20, 21}, (redirect, at, later)
                assert process.call("clamp", 11, 10) in {10, 11}


def foreign_jumps_are_told(machine: Machine) -> None:
    """Nothing is written where somebody else's jump stands, and who it is is said."""
    jumps = {X64: ("e9fb0f0000", "ff25fa0f0000", "eb7e"), ARM64: ("00040014", "50000058" + "00021fd6")}
    for jump in map(bytes.fromhex, jumps[machine]):
        base, patch = fix("basic", machine)
        process = hotpatch.Process(base)
        at = process.address_of("clamp")
        process.guest.write_code(at, process.guest.read(at, len(jump)), jump)
        before = whole(process.guest)
        with pytest.raises(hotpatch.ApplyRefused) as caught:
            process.apply(patch)
        assert [refusal.rule for refusal in caught.value.refusals] == [Rule.FOREIGN_HOOK]
        after = whole(process.guest)
        assert {name for name in before if before[name] != after[name]} <= {"events"}


def new_code_can_be_unwound(machine: Machine) -> None:
    """What travels has unwind data where its original has; from every instruction the walk goes down to the thread's start."""
    framed = 0
    for name in ("unwind", "recursion", "exception", "cookie", "overflow-check", "mutual-recursion"):
        base, patch = fix(name, machine)
        for function in patch.functions:
            needed = base.unwind_entry_at(function.base_rva) is not None
            framed += needed
            assert patch.image.unwind_entry_at(function.patch_rva) is not None or not needed, (name, function.name)
    assert framed > 6
    base, patch = fix("unwind", machine)
    process = hotpatch.Process(base)
    new = process.apply(patch).functions[0].destination
    process.start()
    seen = 0
    while seen < 120 and not process.finished:
        process.run(1)
        for thread in process.guest.threads():
            if new <= thread.pc < new + patch.functions[0].size:
                seen += 1
                names = [frame.function for frame in process.guest.stack(thread.id)]
                assert names[0] == "split" and names[-1] == "worker", names
    assert seen >= 120


def entries_change_in_one_store(machine: Machine) -> None:
    """What calls come through changes by one aligned store of one jump; five bytes only while no thread is inside."""
    for strategy in Redirect:
        target = Watched(Guest(base_image(machine)))
        stores: list[tuple[int, int]] = []
        real = target.guest.write_code

        def write_code(va: Va, expected: bytes, new: bytes, real: Callable[..., None] = real, into: list[tuple[int, int]] = stores) -> None:
            into.append((va, len(new)))
            real(va, expected, new)

        target.guest.write_code = write_code
        Engine(target).apply(make(Recipe(base_image(machine), {1: 111, 2: 222}, 1, strategy)))
        at = [target.guest.module.va + entry(index) for index in (1, 2)]
        sizes = {size for va, size in stores if va in at}
        assert [va for va, _ in stores if va in at] == at
        if machine is X64 and strategy is Redirect.INLINE:
            assert sizes == {5}
            assert "threads" in target.calls  # each was looked at, and none stands inside: tests/engine/test_threads.py
        else:
            assert sizes == {2 if machine is X64 else 4}
            assert all(va % size == 0 for va, size in stores if va in at)
            assert stores[-1][0] in at  # nothing is visible before


def pages_are_never_writable_code(machine: Machine) -> None:
    target = Watched(Guest(base_image(machine)))
    engine = Engine(target)
    applied = engine.apply(make(Recipe(base_image(machine), {1: 111})))
    applied.revert()
    assert not target.both()
    assert any(rights & Rights.EXECUTE for rights in target.seen.values())


def slots_do_not_run_out(machine: Machine) -> None:
    """A hundred and thirty patches on one module, all in force, whose functions are more than a table of slots has room for."""
    patches, each = 130, 4
    base = base_image(machine, count=patches * each)
    guest = Guest(base)
    engine = Engine(guest)
    for number in range(patches):
        numbers = {index: 10_000 + index for index in range(number * each, (number + 1) * each)}
        engine.apply(make(Recipe(base, numbers, number + 1, name=f"fix{number}.dll")), stacking=Stacking.ADDITIONAL)
    for index in (0, 511, 512, patches * each - 1):
        assert guest.call(Va(guest.module.va + entry(index)), (), budget=100).value == 10_000 + index
    assert len(engine.snapshot().tables) == 2


def flush_elsewhere(memory: Memory, real: Callable[..., None], place: int, va: int, size: int) -> None:
    if va != place:
        real(memory, va, size)


def a_missing_flush_would_show(machine: Machine) -> None:
    """Code that has run is replaced and runs; without the flush, the old code would."""
    base, patch = fix("basic", machine)
    for flushed, expected in ((True, 10), (False, 11)):
        process = hotpatch.Process(base)
        assert process.call("clamp", 11, 10) == 11
        with pytest.MonkeyPatch.context() as monkeypatch:
            if not flushed:
                at = process.address_of("clamp")
                monkeypatch.setattr(Memory, "flush", partialmethod(flush_elsewhere, Memory.flush, at))
            process.apply(patch)
        assert process.call("clamp", 11, 10) == expected


# the list ---------------------------------------------------------------------------------------------------------------------------------

INTO, CANNOT, SHORT, REACH = Rule.BRANCH_INTO_DISPLACED, Rule.CANNOT_RELOCATE, Rule.FUNCTION_TOO_SHORT, Rule.OUT_OF_REACH
ONLY_ARM64, ONLY_X64 = "x64 has no such instruction", "Arm64 has no such instruction"
# fmt: off
CLASSES: dict[str, dict[Machine, Callable[[Machine], None] | str]] = {
    "branch back into the displaced bytes": {
        X64: all_of(refused(INTO, "31c0 ffc1 ffc0 75fa c3", 5), refused(INTO, "31c0 ffc1 ffc0 ebfa", 5)),
        ARM64: refused(INTO, "e10300aa 000400d1 e0ffffb5 c0035fd6", 8),
    },
    "conditional branch left relative to its old place": {
        X64: x64_alike("je-rel32", "jne-rel8", "jne-rel8-far", "je-rel32-far", "jg-rel8-hinted"),
        ARM64: arm64_alike(*(f"{form}, {place}" for form in ("b.eq", "cbz w", "cbnz x", "tbnz 35") for place in (NEAR, FAR)), ends=2),
    },
    "target inside the displaced bytes": {
        X64: x64_alike("jcc-forward-inside", "jcc-back-inside-to-own-entry", "jmp-inside", "jrcxz-inside"),
        ARM64: arm64_alike("skip inside, near", "skip inside, far", "skip inside, test bit, far", "loop inside, far", "always inside, far"),
    },
    "function shorter than the jump": {
        X64: refused(SHORT, "33c0 c3 4883ec28", 5),
        ARM64: refused(SHORT, "c0035fd6", 8),
    },
    "shared tail as a branch target": {
        X64: x64_alike("jmp-rel32", "jmp-rel8-and-padding", "jcc-to-first-not-moved", "jmp-rel32-far"),
        ARM64: arm64_alike("b forward, near", "b forward, far", "b backward, far", "branch out of the middle, far"),
    },
    "thread inside the bytes, or back in them later": {X64: every_call_comes_to_an_end, ARM64: every_call_comes_to_an_end},
    "return address in the copy": {
        X64: all_of(
            x64_alike("call-rel32", "call-rel32-behind-sub", "call-register", "call-rel32-far"), refused(CANNOT, "e800000000 58 c3", 5)
        ),
        ARM64: arm64_alike("bl, near", "bl, far", "call and literals, far"),
    },
    "operand relative to the program counter beyond reach": {
        X64: refused(REACH, "488b05f90f0000 c3", 5, FAR),
        ARM64: arm64_alike("adr, far", "adrp, far", "ldr x literal, far", "ldrsw literal, far"),
    },
    "literal read when the copy is made": {
        X64: all_of(x64_alike("rip-load", "rip-sse-load"), reads_late("488b0509000000 c3", 16)),
        ARM64: all_of(arm64_alike("ldr x literal, near", "ldr q literal, far"), reads_late("41000058 c0035fd6", 8)),
    },
    "prefetch turned into a load": {
        X64: ONLY_ARM64,
        ARM64: arm64_alike("prfm literal, near", "prfm literal, far", ends=1),
    },
    "loop or jrcxz widened wrongly": {
        X64: x64_alike("jrcxz", "jecxz", "loop", "loope", "loopne", "loop-to-own-entry", "jrcxz-far", "loop-far"),
        ARM64: ONLY_X64,
    },
    "b.al inverted to b.nv": {
        X64: ONLY_ARM64,
        ARM64: arm64_alike("b.al, near", "b.al, far", "b.nv, near", "b.nv, far", ends=1),
    },
    "adrp of a negative page": {
        X64: ONLY_ARM64,
        ARM64: arm64_alike("adrp of a negative page, near", "adrp of a negative page, far", "adr backward, far"),
    },
    "exclusive load and store split": {
        X64: ONLY_ARM64,
        ARM64: all_of(refused(CANNOT, "207c5fc8 00040091 207c02c8", 4), arm64_alike("exclusive pair moved whole, far")),
    },
    "already hooked by somebody else": {X64: foreign_jumps_are_told, ARM64: foreign_jumps_are_told},
    "landing pad lost": {
        X64: all_of(x64_alike("endbr64-is-kept"), keeps_first("f30f1efa 4883ec28 c3")),
        ARM64: all_of(arm64_alike("bti c, far"), keeps_first("5f2403d5 000400d1 c0035fd6")),
    },
    "no unwind data for the new code": {X64: new_code_can_be_unwound, ARM64: new_code_can_be_unwound},
    "store seen half-written": {X64: entries_change_in_one_store, ARM64: entries_change_in_one_store},
    "pages left writable": {X64: pages_are_never_writable_code, ARM64: pages_are_never_writable_code},
    "islands exhausted after some hundred patches": {X64: slots_do_not_run_out, ARM64: slots_do_not_run_out},
    "instruction cache not flushed": {X64: a_missing_flush_would_show, ARM64: a_missing_flush_would_show},
}
# fmt: on
ROWS = [
    pytest.param(machine, check, id=f"{name}-{machine.value}")
    for name, columns in CLASSES.items()
    for machine, check in columns.items()
    if not isinstance(check, str)
]


@pytest.mark.parametrize(("machine", "check"), ROWS)
def test_class_of_bug(machine: Machine, check: Callable[[Machine], None]) -> None:
    check(machine)


def test_every_class_is_tried_on_every_machine_that_has_it() -> None:
    assert all(set(columns) == set(Machine) for columns in CLASSES.values())
    absent = {(name, machine) for name, columns in CLASSES.items() for machine, check in columns.items() if isinstance(check, str)}
    assert {name for name, machine in absent if machine is ARM64} == {"loop or jrcxz widened wrongly"}
    assert len({name for name, machine in absent if machine is X64}) == 4


def test_the_documentation_lists_the_same_classes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "mechanics.md").read_text(encoding="utf-8")
    section = page.partition("## Classes of bug")[2].partition("\n## ")[0]
    assert re.findall(r"^\| ([^|]+?) \| (?:yes|–) \| (?:yes|–) \|", section, re.MULTILINE) == list(CLASSES)
    for name, x64, arm64 in re.findall(r"^\| ([^|]+?) \| (yes|–) \| (yes|–) \|", section, re.MULTILINE):
        found = tuple("–" if isinstance(CLASSES[name][machine], str) else "yes" for machine in (X64, ARM64))
        assert (x64, arm64) == found, name


def test_a_wrong_copy_would_be_noticed() -> None:
    """Or the side by side runs would prove nothing: a branch that is not adjusted ends elsewhere."""
    row = next(row for row in x64_rows.ROWS if row.name == "je-rel32")
    moved = hotpatch.trampoline(X64, row.code, source_va=SOURCE, trampoline_va=row.trampoline, displaced=row.displaced)
    wrong = hotpatch.Trampoline(row.code[: row.displaced + 1] + moved.code[row.displaced + 1 :], moved.resume_va, moved.offsets)
    content = pointers(random.Random(0), IMAGE_SIZE)
    place = SOURCE - IMAGE
    image = IMAGE, content[:place] + row.code + content[place + len(row.code) :]
    run = partial(compare, image, SOURCE, trampoline=row.trampoline, displaced=row.displaced)
    with pytest.raises(AssertionError):
        for seed in STATES:
            run(moved=wrong, seed=seed)
