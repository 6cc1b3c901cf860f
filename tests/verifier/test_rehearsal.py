"""A rehearsal follows every redirect from memory and finds whatever a revert leaves behind."""

from __future__ import annotations

import struct

import pytest

import hotpatch
from hotpatch.address import Va
from hotpatch.arch import HPAT_POINTER_DISTANCE, Machine, architecture
from hotpatch.arch.assembly import assemble
from hotpatch.engine import Engine
from hotpatch.verifier import check_patch, rehearse
from tests.emulator.pe import TEXT, Pe

each_machine = pytest.mark.parametrize("machine", Machine)


@each_machine
@pytest.mark.parametrize("redirect", ["hpat", "direct", "inline"])
@pytest.mark.parametrize("case", ["basic", "state-kept", "inlined-caller", "jump-table"])
def test_good_patch_is_rehearsed(built, case: str, machine: Machine, redirect: str) -> None:
    given = built(case, machine, redirect)
    rehearsal = rehearse(given.base, given.patch)
    process = hotpatch.Process(given.base)
    assert [item.entry - process.load_base for item in rehearsal.functions] == [item.base_rva for item in given.patch.functions]
    assert all(
        (item.slot is not None) == (function.redirect is hotpatch.Redirect.HPAT)
        for item, function in zip(rehearsal.functions, given.patch.functions, strict=True)
    )
    assert rehearsal.compared >= given.base.size_of_image


def _rules(error: pytest.ExceptionInfo[hotpatch.ApplyRefused]) -> list[tuple[hotpatch.Rule, str | None]]:
    return [(refusal.rule, refusal.function) for refusal in error.value.refusals]


@each_machine
@pytest.mark.parametrize("redirect", ["hpat", "direct"])
def test_redirect_that_leads_elsewhere_is_refused(built, machine: Machine, redirect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = built("basic", machine, redirect)
    apply, revert = Engine.apply, Engine.revert
    undo = []

    def astray(engine: Engine, patch, *args, **options):
        applied = apply(engine, patch, *args, **options)
        (function,) = applied.functions
        target = engine._target
        if function.slot is None:
            at = function.va if machine is Machine.ARM64 else Va(function.va - 5)
            before, after = target.read(at, 4), target.read(at, 4)[:1] + b"\1" + target.read(at, 4)[2:]
        else:
            at = Va(function.slot + HPAT_POINTER_DISTANCE)
            before, after = target.read(at, 8), (function.destination + 8).to_bytes(8, "little")
        target.write_data(at, after)
        undo.append((at, before))
        return applied

    def mended(engine: Engine, *args, **options) -> None:
        engine._target.write_data(*undo.pop())
        revert(engine, *args, **options)

    monkeypatch.setattr(Engine, "apply", astray)
    monkeypatch.setattr(Engine, "revert", mended)
    with pytest.raises(hotpatch.ApplyRefused, match="does not lead to the new function") as refused:
        rehearse(given.base, given.patch)
    assert _rules(refused) == [(hotpatch.Rule.SELF_CHECK, "clamp")]


@each_machine
def test_bytes_that_a_revert_leaves_behind_are_refused(built, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    given = built("basic", machine)
    revert = Engine.revert

    def careless(engine: Engine, applied, *args, **options) -> None:
        (function,) = applied.functions
        revert(engine, applied, *args, **options)
        engine._target.write_data(Va(function.va + 1), b"\x90")

    monkeypatch.setattr(Engine, "revert", careless)
    with pytest.raises(hotpatch.ApplyRefused, match="other bytes after the revert") as refused:
        rehearse(given.base, given.patch)
    (refusal,) = refused.value.refusals
    assert (refusal.rule, refusal.function, refusal.rva) == (hotpatch.Rule.SELF_CHECK, "clamp", given.patch.functions[0].base_rva + 1)
    assert refusal.evidence["after"].startswith("90")


def test_patch_for_another_build_is_refused(built) -> None:
    given = built("basic", "x64")
    with pytest.raises(hotpatch.ApplyRefused):
        rehearse(given.fixed, given.patch)


def _importing(given, old: bytes, new: bytes) -> tuple[hotpatch.Image, hotpatch.Patch]:
    """The fixed image with a name of its imports replaced, and its patch."""
    assert given.fixed.data.count(old) == 1
    fixed = hotpatch.Image.from_bytes(given.fixed.data.replace(old, new), "fixed.dll")
    return fixed, hotpatch.build(hotpatch.diff(given.base, fixed))


@each_machine
def test_an_import_from_a_library_of_the_base_is_assumed(built, machine: Machine) -> None:
    """The emulator knows no such function; a process of the base has the library."""
    given = built("new-import", machine)
    fixed, patch = _importing(given, b"Sleep\0", b"Slumb\0")
    assert rehearse(given.base, patch).stood_for == ("kernel32.dll!Slumb",)
    (report,) = hotpatch.verify(given.base, patch, fixed=fixed).functions
    assert report.outcome is hotpatch.verifier.MicroOutcome.AGREE
    assert report.coverage == 1


@each_machine
def test_what_the_emulator_knows_is_not_assumed(built, machine: Machine) -> None:
    given = built("new-import", machine)
    assert given.patch.imports
    assert rehearse(given.base, given.patch).stood_for == ()


@each_machine
def test_an_import_from_another_library_is_refused(built, machine: Machine) -> None:
    given = built("new-import", machine)
    fixed, patch = _importing(given, b"KERNEL32.dll\0", b"KERNEL33.dll\0")
    with pytest.raises(hotpatch.ApplyRefused) as refused:
        rehearse(given.base, patch)
    assert {rule for rule, _ in _rules(refused)} == {hotpatch.Rule.IMPORT_UNAVAILABLE}
    with pytest.raises(hotpatch.ApplyRefused):
        hotpatch.verify(given.base, patch, fixed=fixed)


STARTS = {
    Machine.X64: "sub rsp, 0x28; call [rip + {distance}]; mov eax, 1; add rsp, 0x28; ret",
    Machine.ARM64: "stp x29, x30, [sp, #-16]!; adrp x8, 0x2000; ldr x8, [x8, #{low}]; blr x8; mov w0, #1; ldp x29, x30, [sp], #16; ret",
}
GIVES = {Machine.X64: "mov eax, {number}; ret", Machine.ARM64: "mov w0, #{number}; ret"}


def _starting(machine: Machine, number: int) -> hotpatch.Image:
    """A DLL whose start-up calls what nobody knows, and a function that gives a number."""
    trap = architecture(machine).trap
    pe = Pe(machine, entry=TEXT + 0x80)
    pe.put(TEXT, trap * (0x100 // len(trap)))
    slot = pe.imports({"far.dll": ["unheard_of"]})["unheard_of"]
    pe.put(pe.entry, assemble(machine, STARTS[machine].format(distance=slot - pe.entry - 10, low=slot - 0x2000), pe.entry))
    pe.put(TEXT + 0x40, assemble(machine, GIVES[machine].format(number=number), TEXT + 0x40))
    pe.exports("starts.dll", [("gives", TEXT + 0x40)])
    return pe.build("starts.dll")


@each_machine
def test_a_start_up_that_calls_what_the_emulator_does_not_know(machine: Machine) -> None:
    base, fixed = _starting(machine, 1), _starting(machine, 2)
    with pytest.raises(hotpatch.EmulatedFault):
        hotpatch.Process(base)
    diff = hotpatch.diff(base, fixed)
    patch = hotpatch.build(diff)
    assert rehearse(base, patch).start_ended_at == ("far.dll!unheard_of",)
    assert [report.outcome for report in check_patch(base, fixed, patch, diff).travelling] == [hotpatch.verifier.MicroOutcome.AGREE]
    process = hotpatch.Process(base, partial_start=True)
    process.apply(patch)
    assert process.call("gives") == 2


RAISES = {
    Machine.X64: "mov ecx, {code}; xor edx, edx; mov r8d, 1; lea r9, [rip + {arguments}]; sub rsp, 0x28; call [rip + {slot}]; int3",
    Machine.ARM64: "mov w0, #{low}; movk w0, #{high}, lsl #16; mov w1, #0; mov w2, #1; adrp x3, 0x2000; add x3, x3, #{arguments};"
    "adrp x8, 0x2000; ldr x8, [x8, #{slot}]; blr x8; brk #0",
}


def _lacking(machine: Machine, code: int, symbol: str | int) -> hotpatch.Image:
    """A DLL whose start-up raises what a delay-load helper raises for ``symbol`` of ``Host.exe``."""
    pe = Pe(machine, entry=TEXT + 0x80)
    slot = pe.imports({"kernel32.dll": ["RaiseException"]})["RaiseException"]
    name = symbol if isinstance(symbol, int) else pe.add(symbol.encode() + b"\0")
    info = pe.add(struct.pack("<I4xQQQI4xQQQI4x", 72, 0, 0, 0, isinstance(symbol, str), name, 0, 0, 0))
    pe.pointer(info + 24, pe.add(b"Host.exe\0"))
    if isinstance(symbol, str):
        pe.pointer(info + 40, name)
    pe.pointer(arguments := pe.add(bytes(8)), info)
    pe.pointer(arguments, info)
    places = {"arguments": arguments - 0x2000, "slot": slot - 0x2000, "low": code & 0xFFFF, "high": code >> 16}
    if machine is Machine.X64:
        places = {"code": code, "arguments": arguments - pe.entry - 20, "slot": slot - pe.entry - 30}
    pe.put(pe.entry, assemble(machine, RAISES[machine].format(**places), pe.entry))
    pe.put(TEXT + 0x40, assemble(machine, GIVES[machine].format(number=1), TEXT + 0x40))
    pe.exports("lacking.dll", [("gives", TEXT + 0x40)])
    return pe.build("lacking.dll")


@each_machine
@pytest.mark.parametrize(("code", "symbol"), [(0xC06D007F, "register_me"), (0xC06D007E, 7)])
def test_a_start_up_that_looks_for_a_delayed_import_nowhere_to_be_found(machine: Machine, code: int, symbol: str | int) -> None:
    label = f"host.exe!{symbol}" if isinstance(symbol, str) else f"host.exe!#{symbol}"
    with pytest.raises(hotpatch.EmulatedFault, match=label):
        hotpatch.Process(_lacking(machine, code, symbol))
    process = hotpatch.Process(_lacking(machine, code, symbol), partial_start=True)
    assert process.guest.start_ended_at == (label,)
    assert process.call("gives") == 1
    with pytest.raises(hotpatch.EmulatedFault, match="exception 0xc06d0080"):
        hotpatch.Process(_lacking(machine, 0xC06D0080, symbol), partial_start=True)


CALLS = {
    Machine.X64: "sub rsp, 0x28; call [rip + {distance}]; add rsp, 0x28; ret",
    Machine.ARM64: "stp x29, x30, [sp, #-16]!; adrp x8, 0x2000; ldr x8, [x8, #{low}]; blr x8; ldp x29, x30, [sp], #16; ret",
}


def _delaying(machine: Machine, *symbols: str) -> hotpatch.Image:
    """A DLL that calls the last of ``symbols``, which are bound at their first call."""
    pe = Pe(machine)
    trap = architecture(machine).trap
    pe.put(TEXT, trap * (0x100 // len(trap)))
    slot = pe.imports({"host.exe": list(symbols)}, delay=True)[symbols[-1]]
    at = TEXT + 0x40
    pe.put(at, assemble(machine, CALLS[machine].format(distance=slot - at - 10, low=slot - 0x2000), at))
    pe.exports("delaying.dll", [("asks", at)])
    return pe.build("delaying.dll")


@each_machine
def test_a_new_import_of_a_library_that_is_loaded_at_the_first_call(machine: Machine) -> None:
    base, fixed = _delaying(machine, "one"), _delaying(machine, "one", "two")
    diff = hotpatch.diff(base, fixed)
    patch = hotpatch.build(diff)
    assert rehearse(base, patch).stood_for == ("host.exe!two",)
    assert [report.outcome for report in check_patch(base, fixed, patch, diff).travelling] == [hotpatch.verifier.MicroOutcome.AGREE]
