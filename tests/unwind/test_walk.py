"""At every instruction of real functions, a walk must find exactly the return addresses that calls pushed, and the caller's registers."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import capstone
import pytest

from hotpatch.address import Rva, Va
from hotpatch.emulator.context import context_layout
from hotpatch.image import open_image
from hotpatch.unwind import unwinder
from tests.unwind.shadow import Shadow

FIXTURES = Path(__file__).parents[2] / "fixtures"
MACHINES = ("x64", "arm64")


def argument(text):
    kind, _, rest = text.partition(":")
    if kind == "str":
        return rest.encode() + b"\0"
    if kind == "hex":
        return bytes.fromhex(rest)
    if kind == "buf":
        return bytes(int(rest))
    return int(text, 0)


def calls_of_cases():
    for manifest in sorted(FIXTURES.glob("*/case.toml")):
        document = tomllib.loads(manifest.read_text())
        if document["kind"] != "dll":
            continue
        calls = [call for call in document.get("call", []) if not any(text.startswith("f64:") for text in call.get("args", []))]
        for machine in MACHINES:
            if calls:
                yield pytest.param(manifest.parent / machine / "base.dll", calls, id=f"{manifest.parent.name}-{machine}")


@pytest.mark.parametrize(("path", "calls"), list(calls_of_cases()))
@pytest.mark.parametrize("pdb", ["auto", None], ids=["pdb", "no-pdb"])
def test_every_instruction_of_a_case(path, calls, pdb):
    shadow = Shadow(open_image(path, pdb=pdb))
    for call in calls[:6]:
        shadow.call(shadow.image.exports_by_name[call["function"]].rva, *map(argument, call.get("args", [])))
    assert shadow.problems == []
    assert shadow.checked > 0


BUILDS = [
    *((machine, level, ()) for machine in MACHINES for level in ("-O0", "-O2", "-Os")),
    *((machine, level, ("-fno-omit-frame-pointer",)) for machine in MACHINES for level in ("-O0", "-O2")),
    ("x64", "-O2", ("-Xclang", "-fwinx64-eh-unwindv2=best-effort")),
    ("arm64", "-O2", ("-fomit-frame-pointer",)),
]
TARGETS = {"x64": "x86_64-windows-msvc", "arm64": "aarch64-windows-msvc"}
COMPILE = ["-g", "-gcodeview", "-ffreestanding", "-fms-hotpatch", "-fno-builtin", "-fno-sanitize=all", "-fno-stack-protector"]


def build(folder, machine, level, extra):
    pytest.importorskip("ziglang")
    zig = [sys.executable, "-m", "ziglang"]
    source, object_file, dll = Path(__file__).with_name("probe.c"), folder / "probe.obj", folder / "probe.dll"
    subprocess.run([*zig, "cc", "-target", TARGETS[machine], level, *COMPILE, *extra, "-c", source, "-o", object_file], check=True)
    link = ["/dll", "/nodefaultlib", "/entry:_DllMainCRTStartup", "/debug", f"/out:{dll}", object_file]
    subprocess.run([*zig, "lld-link", *link], check=True)
    return dll


@pytest.mark.compiler
@pytest.mark.parametrize(("machine", "level", "extra"), BUILDS, ids=lambda value: "-".join(value) if isinstance(value, tuple) else value)
def test_every_instruction_of_every_kind_of_frame(tmp_path, machine, level, extra):
    shadow = Shadow(open_image(build(tmp_path, machine, level, extra)))
    shadow.call(shadow.image.exports_by_name["run"].rva, 3)
    assert shadow.problems == []
    assert shadow.finished
    assert shadow.checked > 1500
    if "-fwinx64-eh-unwindv2=best-effort" in extra:
        assert 2 in {shadow.image.read(entry.info, 1)[0] & 7 for entry in shadow.image.unwind_entries}


def decoder(machine):
    kind = (capstone.CS_ARCH_X86, capstone.CS_MODE_64) if machine == "x64" else (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    return capstone.Cs(*kind)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_handler_is_named_in_the_body_alone(machine):
    """Not where a prologue is yet to do its work, nor in an epilogue: the frame is not there yet, or no more."""
    image = open_image(FIXTURES / "exception" / machine / "base.exe")
    base, walker, names = Va(0x1000_0000), unwinder(image.machine), [field.register for field in context_layout(image.machine).fields]

    def read(va: int, size: int) -> bytes:
        return image.read(va - base, size) if base <= va < base + image.size_of_image else bytes(size)

    def named(rva: int) -> bool:
        return walker.unwind(dict.fromkeys(names, 0x5000_0000), Rva(rva), image, read, base, called=False).handler is not None

    found = [entry.range for entry in image.unwind_entries if entry.handler is not None]
    code = [row for part in found for row in decoder(machine).disasm_lite(image.read(part.start, part.size), part.start)]
    leaving = [at for at, _, mnemonic, _ in code if mnemonic == "ret"]
    assert found and leaving
    assert not any(named(part.start) for part in found)
    assert not any(named(rva) for rva in leaving)
    body = [at for at, *_ in code if named(at)]
    assert all(any(part.start < at < part.end for at in body) for part in found)
