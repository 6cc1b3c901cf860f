"""Frames that no call made, and calls that are the last instruction of their function: whose code a program counter on the stack is in.

A return address belongs to the call before it, and may lie past its function's end; an instruction that was interrupted has not run, and
may be its function's first. The functions here lie one behind the other.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.emulator import frames
from hotpatch.emulator.context import context_layout
from hotpatch.image import open_image
from hotpatch.unwind import Located, unwinder
from tests.unwind.test_walk import TARGETS

BASE, ELSEWHERE = 0x1_8000_0000, 0x7FFF_0000
LOW, HIGH, END = 0x5000, 0x7000, 0x9000
"""The interrupted thread's stack and, above it, the one of whoever interrupted it."""
UNWOUND_TO_CALL = 0x2000_0000

pytestmark = pytest.mark.compiler


class Stopped:
    """A thread with a stack made by hand, in an image of ``interrupted-*.s``."""

    def __init__(self, image):
        self.image, self.memory = image, bytearray(END - LOW)

    def at(self, name, offset=0):
        return BASE + self.image.exports_by_name[name].rva + offset

    def put(self, va, *words):
        struct.pack_into(f"<{len(words)}Q", self.memory, va - LOW, *words)

    def walk(self, **registers):
        """Names and offsets in their functions, and whether a call returns there."""
        frames = unwinder(self.image.machine).walk(registers, self._read, self._locate)
        return [(*self._place(frame), frame.called) for frame in frames]

    def _place(self, frame):
        if frame.function is None:
            return None, frame.pc - ELSEWHERE
        return frame.function.name, frame.pc - BASE - frame.function.entry

    def _read(self, va, size):
        if LOW <= va < END:
            return bytes(self.memory[va - LOW : va - LOW + size])
        return self.image.read(va - BASE, size) if BASE <= va < BASE + self.image.size_of_image else b""

    def _locate(self, va):
        return Located(BASE, self.image) if BASE <= va < BASE + self.image.size_of_image else None


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    pytest.importorskip("ziglang")
    zig, folder, found = [sys.executable, "-m", "ziglang"], tmp_path_factory.mktemp("interrupted"), {}
    for machine in Machine:
        source, made = Path(__file__).with_name(f"interrupted-{machine}.s"), folder / machine
        subprocess.run([*zig, "cc", "-target", TARGETS[machine], "-c", source, "-o", made.with_suffix(".obj")], check=True)
        link = ["/dll", "/nodefaultlib", "/entry:_DllMainCRTStartup", f"/out:{made.with_suffix('.dll')}", made.with_suffix(".obj")]
        subprocess.run([*zig, "lld-link", *link], check=True)
        found[machine] = open_image(made.with_suffix(".dll"))
    return found


def test_x64_call_at_the_end(images):
    """Behind ``ends`` comes ``victim``, whose first instruction looks like an epilogue."""
    here = Stopped(images[Machine.X64])
    here.put(LOW, here.at("victim"), *[0] * 4, 0xB0B, ELSEWHERE)
    assert here.walk(rip=here.at("victim"), rsp=LOW, rbx=1) == [("victim", 0, False), ("ends", 10, True), (None, 0, True)]


def test_arm64_call_at_the_end(images):
    here = Stopped(images[Machine.ARM64])
    here.put(LOW, 0xB0B, ELSEWHERE)
    assert here.walk(pc=here.at("victim"), sp=LOW, x29=1, x30=here.at("victim")) == [
        ("victim", 0, False),
        ("ends", 8, True),
        (None, 0, True),
    ]


@pytest.mark.parametrize(("name", "code"), [("machine", ()), ("coded", (0xC0DE,))])
def test_x64_machine_frames(images, name, code):
    """The interrupted function's stack is another one, below."""
    here = Stopped(images[Machine.X64])
    here.put(HIGH, 0xB0B, *code, here.at("victim"), 0x33, 0x202, LOW, 0x2B)
    here.put(LOW, here.at("caller", 9), *[0] * 5, ELSEWHERE)
    assert here.walk(rip=here.at(name, 1), rsp=HIGH) == [(name, 1, False), ("victim", 0, False), ("caller", 9, True), (None, 0, True)]


INTERRUPTED = {
    "trap": {0x10: 0, 0x98: LOW, 0x138: "back", 0x148: "victim"},
    "machine": {0x00: LOW, 0x08: "victim"},
    "context": {0x00: 0x40_0007, 0xF8: "back", 0x100: LOW, 0x108: "victim"},
    "hybrid": {0x30: 0x10_000F, 0x98: LOW, 0xF8: "victim", 0x120: "back"},
}


@pytest.mark.parametrize("name", INTERRUPTED)
def test_arm64_interruptions(images, name):
    here = Stopped(images[Machine.ARM64])
    named = {"victim": here.at("victim"), "back": here.at("caller", 8)}
    for offset, value in INTERRUPTED[name].items():
        here.put(HIGH + offset, named.get(value, value))
    here.put(LOW, 0xB0B, ELSEWHERE)
    found = here.walk(pc=here.at(name), sp=HIGH, x29=1, x30=named["back"])
    assert found == [(name, 0, False), ("victim", 0, False), ("caller", 8, True), (None, 0, True)]


def test_arm64_context_behind_a_call(images):
    here = Stopped(images[Machine.ARM64])
    for offset, value in {0x00: 0x40_0007 | UNWOUND_TO_CALL, 0x100: HIGH + 0x400, 0x108: here.at("victim")}.items():
        here.put(HIGH + offset, value)
    here.put(HIGH + 0x400, 0xB0B, ELSEWHERE)
    assert here.walk(pc=here.at("context"), sp=HIGH, x29=1, x30=0) == [("context", 0, False), ("ends", 8, True), (None, 0, True)]


def test_arm64_link_that_no_call_made(images):
    """``ends`` was interrupted behind its prologue; a call would have returned into the middle of it."""
    here = Stopped(images[Machine.ARM64])
    here.put(LOW, 0xB0B, ELSEWHERE)
    found = here.walk(pc=here.at("cleared"), sp=LOW, x29=1, x30=here.at("ends", 4))
    assert found == [("cleared", 0, False), ("ends", 4, False), (None, 0, True)]


@pytest.mark.parametrize("machine", list(Machine))
def test_the_emulator_goes_on_behind_a_machine_frame_as_behind_no_call(images, machine):
    """What exceptions are dispatched through: frame by frame, the interrupted one by its own instruction."""
    process = hotpatch.Process(images[machine])
    system, layout = process.guest.system, context_layout(machine)
    at = {name: process.load_base + export.rva for name, export in images[machine].exports_by_name.items()}
    sp = process.load_base + next(section.rva for section in images[machine].sections if section.name == ".rdata")
    x64 = machine is Machine.X64
    words = (0xB0B, at["victim"], 0x33, 0x202, sp, 0x2B) if x64 else (sp, at["victim"])
    system.memory.write(sp, struct.pack(f"<{len(words)}Q", *words))
    registers = dict.fromkeys((field.register for field in layout.fields), 0)
    stands = {"rip": at["machine"] + 1, "rsp": sp} if x64 else {"pc": at["machine"], "sp": sp}
    interrupted = frames.seen(system, frames.Point(registers | stands, ()))
    assert interrupted is not None
    assert (interrupted.following.registers["rip" if x64 else "pc"], interrupted.following.called) == (at["victim"], False)
    victim = frames.seen(system, interrupted.following)
    assert victim is not None
    assert victim.following.called
