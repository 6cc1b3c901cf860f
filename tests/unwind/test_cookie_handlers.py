"""Exceptions through frames whose handler checks a stack cookie: the handler runs for patched frames too, with the data that travelled."""

from __future__ import annotations

import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.cases import BuildOptions
from hotpatch.errors import NotHotpatchable
from hotpatch.unwind import unwinder
from tests.emulator.pe import TEXT, Pe
from tools import build_fixtures

GUARDED = Path(__file__).with_name("guarded.c")
CHECKED, DAMAGED, CAUGHT = 10_000, 100, 1000
SCOPED = 77


@dataclass(frozen=True)
class Guarded:
    """The two builds of ``guarded.c`` for one of the handlers."""

    plain: bool
    name: str = "guarded"
    kind: str = "dll"
    sides: tuple[str, ...] = ("base", "fixed")

    def build_options(self, machine: Machine, side: str) -> BuildOptions:
        defines = [*(["-DPLAIN"] if self.plain else []), *(["-DFIXED"] if side == "fixed" else [])]
        return BuildOptions(kernel32=True, ntdll=True, cflags=("-fms-extensions", *defines))


def images(folder: Path, machine: Machine, plain: bool) -> list[hotpatch.Image]:
    pytest.importorskip("ziglang")
    sources, out = folder / "sources", folder / "out"
    shutil.copytree(build_fixtures.FIXTURES / "common", sources / "common")
    product = Guarded(plain)
    for side in product.sides:
        (sources / product.name).mkdir(exist_ok=True)
        shutil.copy(GUARDED, sources / product.name / f"{side}.c")
        build_fixtures.build(build_fixtures.Job(product, machine, side), sources, out, folder)
    return [hotpatch.open(out / product.name / machine / f"{side}.dll") for side in product.sides]


@pytest.mark.compiler
@pytest.mark.parametrize("plain", [True, False], ids=["__GSHandlerCheck", "__GSHandlerCheck_SEH"])
@pytest.mark.parametrize("machine", list(Machine))
def test_the_cookie_is_checked_when_an_exception_passes(tmp_path: Path, machine: Machine, plain: bool) -> None:
    base, fixed = images(tmp_path, machine, plain)
    process = hotpatch.Process(base)
    passed = CAUGHT if plain else SCOPED  # with scopes the function itself catches
    assert process.call("request", 3) == 6
    assert process.call("request", 10) == passed + CHECKED
    late = 0 if plain else DAMAGED  # it then checks once more before it returns
    assert process.call("request", 20) == passed + 2 * CHECKED + DAMAGED + late
    before = DAMAGED + late
    patch = hotpatch.build(hotpatch.diff(base, fixed))
    assert [function.name for function in patch.functions] == ["guarded"]
    applied = process.apply(patch)
    assert process.call("request", 3) == 6 + 2 * CHECKED + before
    assert process.call("request", 10) == passed + 3 * CHECKED + before
    assert process.call("request", 20) == passed + 4 * CHECKED + before
    applied.revert()
    assert process.call("request", 20) == passed + 5 * CHECKED + 2 * before


@pytest.mark.parametrize(("place", "carried"), [(-40, True), (-24, True), (-56, False)])
def test_a_pushed_cookie_lies_below_the_frame(place: int, carried: bool) -> None:
    """Prologues of Microsoft's compiler for Arm64 call ``__security_push_cookie``, of which no unwind code tells."""
    pe = Pe(Machine.ARM64)
    function, handler, check = TEXT, TEXT + 0x40, TEXT + 0x80
    framed = "stp x29, x30, [sp, #-32]!; mov x29, sp; bl {callee}; ldp x29, x30, [sp], #32; ret"
    for at in (function, handler):
        pe.put(at, assemble(Machine.ARM64, framed.format(callee=check), at))
    pe.put(check, assemble(Machine.ARM64, "ret", check))
    # ARM64 exception handling (MS Learn): 5 words of code, a handler, one epilogue, one word of codes: set_fp, save_fplr_x 32, end
    header, codes = 5 | 1 << 20 | 1 << 21 | 1 << 27, b"\xe1\x83\xe4\xe3"
    info = pe.add(struct.pack("<I", header) + codes + struct.pack("<Ii", handler, place))
    plain = pe.add(struct.pack("<I", header & ~(1 << 20)) + codes)
    table = pe.add(struct.pack("<4I", function, info, handler, plain))
    pe.directories["exception"] = (table, 16)
    pe.exports("pushed.dll", [("function", function)])
    image = pe.build("pushed.dll")
    entry = image.unwind_entry_at(function)
    assert entry is not None
    if carried:
        assert unwinder(Machine.ARM64).carry(image, entry).info[-4:] == struct.pack("<i", place)
        return
    with pytest.raises(NotHotpatchable):
        unwinder(Machine.ARM64).carry(image, entry)
