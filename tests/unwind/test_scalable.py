"""Frames of scalable registers, walked at every instruction of compiled functions on a processor with vectors of several lengths.

Emulated Windows processes have no scalable vectors; Unicorn's largest Arm64 processor has them once its exception levels let them through.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from unicorn import arm64_const

from hotpatch.arch import Machine
from hotpatch.image import open_image
from hotpatch.unwind import unwinder
from hotpatch.unwind.arm64_codes import Op
from hotpatch.unwind.arm64_record import unpacked
from tests.unwind.shadow import Shadow
from tests.unwind.test_walk import COMPILE, TARGETS

LOW = (1 << 64) - 1
PRESERVED = [0x2222_0000_0000 + index for index in range(8)]
"""The low halves of q8 to q15 as they are when the outermost function is called."""
VECTORS = tuple(getattr(arm64_const, f"UC_ARM64_REG_Q{number}") for number in range(8, 24))
CPTR_EL3_EZ, CPACR_ZEN, CPACR_FPEN = 1 << 8, 3 << 16, 3 << 20
"""Let scalable vectors through (Arm Architecture Reference Manual)."""
ENABLE = bytes.fromhex("401018d5df3f03d5")
"""``msr cpacr_el1, x0; isb``: Unicorn does not look at the register again when it is written from outside."""


class Scalable(Shadow):
    """A processor with vectors of ``granules`` times 8 bytes, whose length walks are told, or are not."""

    granules = 2
    told = True

    def prepare(self, uc):
        uc.ctl_set_cpu_model(arm64_const.UC_CPU_ARM64_MAX)
        for crm, op1, op2, value in (
            (1, 6, 2, CPTR_EL3_EZ),
            (2, 0, 0, self.granules // 2 - 1),
            (2, 4, 0, 15),
            (2, 6, 0, 15),
        ):  # then ZCR_ELx
            uc.reg_write(arm64_const.UC_ARM64_REG_CP_REG, (1, crm, 3, op1, op2, value))
        uc.mem_map(0x1000, 0x1000)
        uc.mem_write(0x1000, ENABLE)
        uc.reg_write(arm64_const.UC_ARM64_REG_X0, CPACR_ZEN | CPACR_FPEN)
        uc.emu_start(0x1000, 0x1000 + len(ENABLE))
        self.ends, self.changed = set(), []

    def more_registers(self, uc):
        vectors = {f"q{8 + index}": uc.reg_read(number) for index, number in enumerate(VECTORS)}
        return vectors | ({"vg": self.granules} if self.told else {})

    def walked(self, frames):
        last = frames[-1]
        self.ends.add(last.function and last.function.name)
        found = [last.registers[f"q{8 + index}"] & LOW for index in range(len(PRESERVED))]
        if found != PRESERVED:
            self.changed.append((hex(frames[0].pc - self.base), found))

    def run(self):
        for number, value in zip(VECTORS, PRESERVED, strict=False):
            self.uc.reg_write(number, 0x77 << 64 | value)
        self.call(self.image.exports_by_name["run"].rva, 3)


@pytest.fixture(scope="module", params=["-O2", "-Os"])
def image(request, tmp_path_factory):
    pytest.importorskip("ziglang")
    folder = tmp_path_factory.mktemp("scalable")
    zig, dll, object_file = [sys.executable, "-m", "ziglang"], folder / "scalable.dll", folder / "scalable.obj"
    source = Path(__file__).with_name("scalable.c")
    compiler = [*zig, "cc", "-target", TARGETS["arm64"], "-march=generic+sve", "-mno-stack-arg-probe", request.param, *COMPILE]
    subprocess.run([*compiler, "-c", source, "-o", object_file], check=True)
    link = ["/dll", "/nodefaultlib", "/entry:_DllMainCRTStartup", "/debug", f"/out:{dll}", object_file]
    subprocess.run([*zig, "lld-link", *link], check=True)
    return open_image(dll)


@pytest.mark.compiler
@pytest.mark.parametrize("granules", [2, 4, 8, 32])
def test_every_instruction(image, granules):
    shadow = type("Sized", (Scalable,), {"granules": granules})(image)
    shadow.run()
    assert shadow.finished
    assert shadow.problems == []
    assert shadow.changed == []
    assert shadow.checked > 200


@pytest.mark.compiler
def test_the_operations_are_all_there(image):
    records = [unpacked(entry.info, image.read) for entry in image.unwind_entries if entry.info]
    codes = {code.op for record in records for code in record.prologue}
    saved = {code.registers[0][0] for record in records for code in record.prologue if code.op is Op.SAVE_SCALED}
    assert {Op.ALLOC_SCALED, Op.SAVE_SCALED} <= codes
    assert saved == {"z", "p"}


@pytest.mark.compiler
def test_without_the_length_a_walk_ends(image):
    """At the first frame that holds such a register, and nothing is guessed."""
    shadow = type("Untold", (Scalable,), {"told": False})(image)
    shadow.run()
    assert shadow.ends >= {"mix", "framed"}


@pytest.mark.compiler
def test_such_unwind_data_is_carried(image):
    walker = unwinder(Machine.ARM64)
    for entry in image.unwind_entries:
        carried = walker.carry(image, entry)
        assert carried.info == (image.read(entry.info, len(carried.info)) if entry.info else b"")
