"""Files that lie: whatever is truncated, flipped or added, only our own errors come out, one line of them, and soon."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases import find_case, releases
from hotpatch.cases import model as manifests
from hotpatch.cli import run
from hotpatch.process import Process
from tests.damage import Damage, damages, fields, spoil

BUDGET = 2_000
"""Instructions that a damaged program may execute in a call."""
MEMORY = 1 << 20
"""Kibibytes by which the largest size of the tests' process may grow in one test."""
resource = pytest.importorskip("resource")

few = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
each_machine = pytest.mark.parametrize("machine", Machine)


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """A giant allocation is noticed. (A limit would not do: each emulator reserves a gigabyte of addresses, and uses little of it.)"""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


def recheck(data: bytes) -> bytes:
    """A patch whose digest and checksum are right again, so that what lies behind them is reached."""
    from hotpatch.patch import SECTION_NAME
    from hotpatch.patch.container import DIGEST_OFFSET, content_digest, time_stamp
    from hotpatch.patch.headers import CHECKSUM_AT, TIME_DATE_STAMP_AT, pe_checksum

    with suppress(hotpatch.HotpatchError, struct.error, ValueError):
        (section,) = (item for item in hotpatch.Image.from_bytes(data).sections if item.name == SECTION_NAME)
        at = section.offset + DIGEST_OFFSET
        whole = bytearray(data)
        for _ in range(2):
            digest = content_digest(bytes(whole), at, len(whole))
            whole[at : at + len(digest)] = digest
            struct.pack_into("<I", whole, TIME_DATE_STAMP_AT, time_stamp(digest))
        struct.pack_into("<I", whole, CHECKSUM_AT, pe_checksum(bytes(whole)))
        return bytes(whole)
    return data


@cache
def files(case: str, machine: Machine) -> tuple[bytes, bytes]:
    found = find_case(case)
    return found.image(machine).read_bytes(), found.image(machine, "fixed").read_bytes()


@cache
def good(case: str, machine: Machine) -> tuple[hotpatch.Image, hotpatch.Image, hotpatch.Patch]:
    found = find_case(case)
    base, fixed = hotpatch.open(found.image(machine)), hotpatch.open(found.image(machine, "fixed"))
    return base, fixed, hotpatch.build(hotpatch.diff(base, fixed))


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def quietly(step: Callable[[], object]) -> None:
    """Do a step that may fail by an error of ours and by no other."""
    with suppress(hotpatch.HotpatchError):
        step()


def use(image: hotpatch.Image, patch: hotpatch.Patch) -> None:
    """Load an image, call what it exports, patch it, and back."""
    process = Process(image, budget=BUDGET)
    names = [export.name for export in image.exports if export.name and export.rva is not None][:3]
    for name in names:
        quietly(lambda name=name: process.call_details(name, 1, b"bytes", 3, budget=BUDGET))
    if not image.is_dll:
        quietly(process.start)
        quietly(lambda: process.run(BUDGET))
    process.stop_view()
    with suppress(hotpatch.HotpatchError):
        applied = process.apply(patch)
        process.status()
        for name in names:
            quietly(lambda name=name: process.call_details(name, 1, b"bytes", 3, budget=BUDGET))
        process.revert(applied)


def try_image(path: Path, case: str, machine: Machine) -> None:
    base, fixed, patch = good(case, machine)
    image = hotpatch.open(path)
    quietly(lambda: hotpatch.build(hotpatch.diff(image, fixed)))
    quietly(lambda: hotpatch.build(hotpatch.diff(base, image)))
    quietly(lambda: use(image, patch))


@pytest.mark.parametrize("case", ["jump-table", "overflow-check"])
@each_machine
@few
@given(damages)
def test_images(tmp_path: Path, case: str, machine: Machine, found: list[Damage]) -> None:
    path = write(tmp_path, find_case(case).image(machine).name, spoil(files(case, machine)[0], found))
    quietly(lambda: try_image(path, case, machine))


@each_machine
@few
@given(damages)
def test_pdbs(tmp_path: Path, machine: Machine, found: list[Damage]) -> None:
    case = find_case("static-local")
    path = write(tmp_path, "base.dll", case.image(machine).read_bytes())
    write(tmp_path, "base.pdb", spoil(case.pdb(machine).read_bytes(), found))
    quietly(lambda: try_image(path, "static-local", machine))


@each_machine
@few
@given(damages)
def test_patches(tmp_path: Path, machine: Machine, found: list[Damage]) -> None:
    _, _, patch = good("new-constant", machine)
    with pytest.raises(hotpatch.HotpatchError):
        if spoil(patch.data, found) == patch.data:
            raise hotpatch.HotpatchError
        hotpatch.load(write(tmp_path, "fix.dll", spoil(patch.data, found)))


@each_machine
@few
@given(fields)
def test_patches_whose_digest_is_right(tmp_path: Path, machine: Machine, found: list[Damage]) -> None:
    base, fixed, patch = good("new-constant", machine)
    with suppress(hotpatch.HotpatchError):
        loaded = hotpatch.load(write(tmp_path, "fix.dll", recheck(spoil(patch.data, found))))
        use(base, loaded)
        hotpatch.verify(base, loaded, fixed=fixed, calls=[(loaded.functions[0].name or "", 1)], bound=2)


@few
@given(damages)
def test_manifests(tmp_path: Path, found: list[Damage]) -> None:
    for name in ("overflow-check", "superseded"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        write(folder, "case.toml", spoil((find_case(name).folder / "case.toml").read_bytes(), found))
        quietly(lambda folder=folder: manifests.read_case(folder))


def _archive(image: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("nacl/_sodium.pyd", image)
    return packed.getvalue()


@few
@given(damages)
def test_wheels(tmp_path: Path, found: list[Damage]) -> None:
    data = spoil(_archive(files("basic", Machine.X64)[0]), found)
    wheel = releases.Package("PyNaCl", "1", "one.whl", hashlib.sha256(data).hexdigest(), "nacl/_sodium.pyd")
    pair = releases.Release("one", "one", {Machine.X64: wheel}, {Machine.X64: wheel})
    write(tmp_path, "one.whl", data)
    quietly(lambda: releases.extract(pair, Machine.X64, cache=tmp_path / "cache", wheels=tmp_path))


@each_machine
@few
@given(st.binary(max_size=300))
def test_standard_input(machine: Machine, stdin: bytes) -> None:
    base, _, patch = good("overflow-check", machine)
    process = Process(base, stdin=stdin, args=["2"], budget=20_000)
    process.start()
    process.apply_at(500, patch)
    quietly(process.run)


def _ask(*arguments: object) -> None:
    """A command line whose files are damaged: one of the exit codes, and errors of one line."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run([str(argument) for argument in arguments])
    assert code in range(6), (code, err.getvalue())
    assert "Traceback" not in err.getvalue()
    assert "internal" not in err.getvalue()
    if err.getvalue():
        assert code == 2
        assert err.getvalue().startswith("hotpatch: error: ")
        assert err.getvalue().count("\n") == 1


@each_machine
@settings(few, max_examples=12)
@given(damages)
def test_verify(tmp_path: Path, machine: Machine, found: list[Damage]) -> None:
    case = find_case("basic")
    base, fixed = case.image(machine), case.image(machine, "fixed")
    patch = write(tmp_path, "fix.dll", good("basic", machine)[2].data)
    bad_base = write(tmp_path, "base.dll", spoil(files("basic", machine)[0], found))
    bad_fixed = write(tmp_path, "fixed.dll", spoil(files("basic", machine)[1], found))
    bad_patch = write(tmp_path, "bad.dll", spoil(patch.read_bytes(), found))
    for given_base, given_patch, given_fixed in ((bad_base, patch, fixed), (base, bad_patch, fixed), (base, patch, bad_fixed)):
        files_given = "verify", given_base, given_patch, "--fixed", given_fixed, "-q"
        _ask(*files_given, "--call", "clamp 11 10", "--bound", "4", "--budget", BUDGET)
        _ask(*files_given, "--seeds", "1", "--json")
    _ask("verify", base, patch, "--fixed", fixed, "--call", "clamp 11 10", "--bound", "2", "--module", bad_fixed, "-q")


@each_machine
@settings(few, max_examples=20)
@given(damages)
def test_demo_of_a_release(tmp_path: Path, machine: Machine, found: list[Damage]) -> None:
    """A folder's wheels are damaged, and pinned as they are, so that what lies in them is reached."""
    pair = []
    for side in (0, 1):
        data = spoil(_archive(files("basic", machine)[side]), found[side:])
        wheel = write(tmp_path, f"{side}.whl", data)
        pair.append({machine: releases.Package("PyNaCl", "1", wheel.name, hashlib.sha256(data).hexdigest(), "nacl/_sodium.pyd")})
    release = releases.Release(releases.CVE_2025_69277.name, "damaged", *pair)
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr("hotpatch.cases.tell.CVE_2025_69277", release)
        patching.setenv("HOTPATCH_CACHE", str(tmp_path / "cache"))
        _ask("demo", release.name, "--arch", machine, "--from", tmp_path)


@each_machine
@settings(few, max_examples=15)
@given(damages)
def test_command_line(tmp_path: Path, machine: Machine, found: list[Damage]) -> None:
    case = find_case("basic")
    fixed = case.image(machine, "fixed")
    base = write(tmp_path, "base.dll", spoil(files("basic", machine)[0], found))
    fix = write(tmp_path, "fix.dll", spoil(good("basic", machine)[2].data, found))
    stdin = write(tmp_path, "stdin", spoil(b"PUT a b\n", found))
    _ask("inspect", base, "--json")
    _ask("inspect", fix)
    _ask("diff", base, fixed)
    _ask("diff", base, fixed, "--function", "clamp")
    _ask("build", base, fixed, "-o", tmp_path / "made.dll")
    _ask("call", case.image(machine), "clamp", "11", "10", "--patch", fix, "--json")
    _ask("run", find_case("overflow-check").image(machine), "1", "--stdin", stdin, "--stop-at", "2000", "--patch", fix)
