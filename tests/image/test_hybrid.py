"""Images for two machines, by a real linker and by Microsoft, are recognised and refused."""

from __future__ import annotations

import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from hotpatch.arch import Machine
from hotpatch.cases.releases import Package, Release, extract
from hotpatch.errors import InputError, Refused, Rule
from hotpatch.image import open_image

HERE = Path(__file__).parent
EC, ARM64 = "arm64ec-pc-windows-msvc", "aarch64-pc-windows-msvc"
PLAIN = """
    .section .rdata, "dr"
    .globl _load_config_used
_load_config_used:
    .long 0x140
    .fill 0x13C, 1, 0
"""
"""The load configuration of the plain Arm64 half; the linker leads it to the same metadata."""


def file_machine(path: Path) -> int:
    data = path.read_bytes()
    return struct.unpack_from("<H", data, struct.unpack_from("<I", data, 0x3C)[0] + 4)[0]


def refused_as(path: Path) -> str:
    with pytest.raises(Refused) as caught:
        open_image(path)
    (refusal,) = caught.value.refusals
    assert refusal.rule is Rule.HYBRID_IMAGE
    assert path.name in refusal.reason
    return refusal.evidence["hybrid"]


@pytest.fixture
def zig(tmp_path):
    def run(*command: str) -> None:
        subprocess.run([sys.executable, "-m", "ziglang", *command], cwd=tmp_path, check=True, timeout=120)

    return run


@pytest.mark.compiler
@pytest.mark.skipif(find_spec("ziglang") is None, reason="needs the compiler: pip install -e '.[fixtures]'")
@pytest.mark.parametrize(("kind", "machine"), [("arm64ec", 0x8664), ("arm64x", 0xAA64)])
def test_linked(kind, machine, zig, tmp_path):
    """Arm64EC code alone passes for x64, together with plain Arm64 code for Arm64."""
    (tmp_path / "plain.s").write_text(PLAIN)
    zig("clang", "-cc1", "-triple", EC, "-O2", "-ffreestanding", "-emit-obj", str(HERE / "hybrid.c"), "-o", "ec.obj")
    zig("clang", "-cc1as", "-triple", EC, "-filetype", "obj", str(HERE / "hybrid.s"), "-o", "metadata.obj")
    objects = ["ec.obj", "metadata.obj"]
    if kind == "arm64x":
        zig("clang", "-cc1", "-triple", ARM64, "-O2", "-ffreestanding", "-emit-obj", str(HERE / "hybrid.c"), "-o", "arm64.obj")
        zig("clang", "-cc1as", "-triple", ARM64, "-filetype", "obj", "plain.s", "-o", "plain.obj")
        objects += ["arm64.obj", "plain.obj"]
    zig("lld-link", f"/machine:{kind}", "/dll", "/noentry", "/nodefaultlib", "/out:hybrid.dll", *objects)
    assert file_machine(tmp_path / "hybrid.dll") == machine
    assert refused_as(tmp_path / "hybrid.dll") == kind


def _runtime(member: str) -> dict[Machine, Package]:
    name, version = "msvc_runtime", "14.51.36231"
    sha256 = "52f9fd6e089eac9d72607d3ac4ffebcd5f0d6f940fca83db8a9c12ca11b1c26c"
    folder = f"{name}-{version}.data/data/Scripts"
    return {Machine.ARM64: Package("msvc-runtime", version, f"{name}-{version}-cp313-cp313-win_arm64.whl", sha256, f"{folder}/{member}")}


@pytest.mark.release
def test_microsoft_s_run_time_for_arm64(tmp_path_factory):
    """Microsoft's C and C++ run time is Arm64X, but for one DLL that only Arm64EC code uses."""
    runtime = Release("msvc-runtime", "two DLLs of one release", _runtime("vcruntime140.dll"), _runtime("vcruntime140_1.dll"))
    try:
        paths = extract(runtime, Machine.ARM64, cache=tmp_path_factory.getbasetemp() / "wheels")
    except InputError as error:
        pytest.skip(str(error))
    assert [file_machine(path) for path in paths] == [0xAA64, 0x8664]
    assert [refused_as(path) for path in paths] == ["arm64x", "arm64ec"]
