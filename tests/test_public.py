"""The public surface: names, documentation, laziness, and the example of the interface done for real."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases import find_case

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("unicorn", "lief", "capstone", "keystone", "purepdb", "cyclopts", "rich", "msgspec", "jinja2")
ALIASES = {"Rva", "Va", "FileOffset"}
"""Kinds of numbers: documented in :mod:`hotpatch.address`, without a docstring of their own to hold."""


def _fresh(code: str, *arguments: str) -> str:
    """What ``code`` prints in an interpreter that has imported nothing of ours."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(params=list(Machine), ids=str)
def machine(request: pytest.FixtureRequest) -> Machine:
    return request.param


def _pair(case: str, machine: Machine) -> tuple[hotpatch.Image, hotpatch.Image]:
    found = find_case(case)
    return hotpatch.open(found.image(machine)), hotpatch.open(found.image(machine, "fixed"))


@pytest.mark.parametrize("name", hotpatch.__all__)
def test_name_is_there_and_documented(name: str) -> None:
    value = getattr(hotpatch, name)
    if name in ALIASES:
        assert value.__module__ == "hotpatch.address"
        return
    assert value.__module__.startswith("hotpatch.")
    assert inspect.getdoc(value)
    for method, member in inspect.getmembers(value) if inspect.isclass(value) else ():
        if not method.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
            assert inspect.getdoc(member), f"{name}.{method} has no docstring"


def test_all_is_complete() -> None:
    assert len(set(hotpatch.__all__)) == len(hotpatch.__all__)
    assert {"__version__", *hotpatch.__all__} == set(dir(hotpatch))
    errors = importlib.import_module("hotpatch.errors")
    public_errors = {name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == "hotpatch.errors"}
    assert {name for name in public_errors if issubclass(getattr(errors, name), Exception)} - set(hotpatch.__all__) <= {"OutOfReach"}
    interface = {"open", "diff", "build", "load", "verify", "trampoline", "Process", "Buffer", "Engine", "EmulatedFault", "HotpatchError"}
    assert interface <= set(hotpatch.__all__)
    with pytest.raises(AttributeError, match="nosuch"):
        _ = hotpatch.nosuch  # type: ignore[attr-defined]


def test_star_import() -> None:
    told = _fresh("from hotpatch import *; print(sorted(name for name in globals() if not name.startswith('__')))")
    assert told.strip() == str(sorted(hotpatch.__all__))


def test_every_error_derives_from_the_root() -> None:
    errors = [value for value in map(hotpatch.__getattr__, hotpatch.__all__) if isinstance(value, type) and issubclass(value, Exception)]
    assert len(errors) > 5
    assert all(issubclass(error, hotpatch.HotpatchError) for error in errors)


def test_package_is_typed_and_typing_knows_every_name() -> None:
    assert (ROOT / "hotpatch" / "py.typed").is_file()
    source = (ROOT / "hotpatch" / "__init__.py").read_text(encoding="utf-8")
    seen_by_type_checkers = source[source.index("if TYPE_CHECKING") : source.index("_HOMES")]
    assert all(name in seen_by_type_checkers for name in hotpatch.__all__)


def test_import_is_cheap() -> None:
    told = _fresh(f"import sys, hotpatch; print([name for name in {HEAVY} if name in sys.modules], hotpatch.__version__)")
    assert told == f"[] {hotpatch.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["call", "--help"], ["--version"]], ids=" ".join)
def test_light_commands_stay_light(arguments: list[str]) -> None:
    code = (
        "import sys; from hotpatch.cli import run; code = run(sys.argv[1:]);"
        f"sys.stderr = sys.stdout; print(); print(code, [name for name in {HEAVY[:4]} if name in sys.modules])"
    )
    assert _fresh(code, *arguments).endswith("\n0 []\n")


_AFTER_EVERYTHING = """
import importlib, pkgutil, sys
import hotpatch
for module in pkgutil.walk_packages(hotpatch.__path__, "hotpatch."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
base, fixed, target = sys.argv[1:]
difference = hotpatch.diff(hotpatch.open(base), hotpatch.open(fixed))
hotpatch.build(difference).save(target)
patch = hotpatch.load(target)
process = hotpatch.Process(hotpatch.open(base))
before = process.call("clamp", 11, 10)
process.apply(patch)
report = hotpatch.verify(hotpatch.open(base), patch, fixed=hotpatch.open(fixed), calls=[("clamp", 11, 10)])
moved = hotpatch.trampoline("arm64", bytes.fromhex("1f2003d5"), source_va=0x1000, trampoline_va=0x2000, displaced=4)
print(before, process.call("clamp", 11, 10), len(report.violations), moved.resume_va)
"""


def test_no_module_takes_the_place_of_a_name(machine: Machine, tmp_path: Path) -> None:
    case = find_case("basic")
    told = _fresh(_AFTER_EVERYTHING, str(case.image(machine)), str(case.image(machine, "fixed")), str(tmp_path / "fix.dll"))
    assert told == f"11 10 0 {0x1004}\n"


def test_no_room_bears_the_name_of_a_public_name() -> None:
    rooms = {module.name for module in pkgutil.iter_modules(hotpatch.__path__)}
    assert not rooms & set(hotpatch.__all__)


def test_example_of_the_interface(machine: Machine, tmp_path: Path) -> None:
    base, fixed = _pair("new-helper", machine)
    diff = hotpatch.diff(base, fixed)
    assert diff.summary["changed"] == 1
    patch = hotpatch.build(diff)
    patch.save(tmp_path / "fix.dll")
    patch = hotpatch.load(tmp_path / "fix.dll")

    process = hotpatch.Process(base, load_base=0x1_5000_0000, seed=3)
    assert process.load_base == 0x1_5000_0000
    assert process.call("checksum", b"ab", 2) == process.call("checksum", "ab", 2) == 195
    applied = process.apply(patch)
    assert process.call("checksum", b"ab", 2) == 32914
    assert process.call(applied.original("checksum"), b"ab", 2) == 195
    assert process.status().functions[0].name == "checksum"
    applied.revert()
    assert process.call("checksum", bytearray(b"ab"), 2) == 195
    assert process.status().functions == ()

    report = hotpatch.verify(base, patch, fixed=fixed, calls=[("checksum", b"a", 1)], bound=20)
    assert report.violations == ()
    assert report.boundaries > 0


def test_buffers_and_floats(machine: Machine) -> None:
    base, _ = _pair("parameters", machine)
    process = hotpatch.Process(base)
    out = hotpatch.Buffer(16)
    out.data = bytes.fromhex("0000803f000000400000404000008040")
    assert process.call("call_blend", out) == 3
    assert out.data.hex() == "000040400000c0400000104100004041"
    process.call("mixed", 1, 2.5, 3, 4.5, 5, 6.25)
    assert process.last is not None
    assert process.last.float_value == 19.25


def test_threads_that_run_on(machine: Machine) -> None:
    base, fixed = _pair("many-threads", machine)
    process = hotpatch.Process(base)
    thread = process.spawn("price", 3)
    assert process.threads == 1
    process.run(10_000)
    assert process.finished
    assert [event.kind for event in process.events if event.thread == thread][-1] == "exit"
    program = hotpatch.Process(base)
    program.start()
    program.run(1_000)
    assert (program.instructions, program.exit_code) == (1_000, None)
    program.apply(hotpatch.build(hotpatch.diff(base, fixed)))
    assert program.run().exit_code == 0
    assert "told neither 0" in program.output


def test_refusals_are_values(machine: Machine) -> None:
    with pytest.raises(hotpatch.NotHotpatchable) as caught:
        hotpatch.build(hotpatch.diff(*_pair("data-layout-refused", machine)))
    assert {refusal.rule for refusal in caught.value.refusals} == {hotpatch.Rule.DATA_LAYOUT}
    with pytest.raises(hotpatch.NothingToDo):
        hotpatch.build(hotpatch.diff(*_pair("cosmetic", machine)))


def test_fault_is_raised_with_its_document(machine: Machine) -> None:
    base, _ = _pair("parameters", machine)
    with pytest.raises(hotpatch.EmulatedFault) as caught:
        hotpatch.Process(base).call("call_blend", 0x10)
    fault = caught.value.fault
    assert (fault.kind, fault.access, fault.stack[0].pc) == ("access-violation", "read", fault.pc)


def test_trampoline() -> None:
    moved = hotpatch.trampoline(Machine.X64, bytes.fromhex("4889c890909090"), source_va=0x1000, trampoline_va=0x2000, displaced=5)
    assert moved.code.startswith(bytes.fromhex("4889c8"))
    assert moved.resume_va == 0x1005
    assert moved.offsets[0] == 0
    with pytest.raises(hotpatch.CannotRelocate):
        hotpatch.trampoline("x64", bytes.fromhex("ffff"), source_va=0x1000, trampoline_va=0x2000, displaced=2)


def test_what_the_values_look_like() -> None:
    case = find_case("basic")
    base, fixed = (hotpatch.open(case.image(Machine.X64, side)) for side in ("base", "fixed"))
    diff = hotpatch.diff(base, fixed)
    patch, process = hotpatch.build(diff), hotpatch.Process(base)
    applied = process.apply(patch)
    assert repr(base).startswith("<Image base.dll [x64] ")
    assert "1 changed" in repr(diff)
    assert repr(patch) == "<Patch 1 for base.dll [x64]: clamp>"
    assert repr(process) == f"<Process base.dll [x64] at 0x{process.load_base:x}, 0 instructions>"
    assert repr(applied).endswith(": applied>")
    assert all(len(repr(value)) < 140 for value in (base, diff, patch, process, applied))


@pytest.mark.parametrize("wrong", [{"only": "clamp"}, {"allow": "data-init"}])
def test_a_text_is_no_list_of_names(wrong) -> None:
    case = find_case("basic")
    diff = hotpatch.diff(*(hotpatch.open(case.image(Machine.X64, side)) for side in ("base", "fixed")))
    with pytest.raises(hotpatch.HotpatchError, match="where a list is wanted; write"):
        hotpatch.build(diff, **wrong)


@pytest.mark.parametrize("calls", ["clamp", ["clamp"]])
def test_a_text_is_no_call(calls) -> None:
    case = find_case("basic")
    base, fixed = (hotpatch.open(case.image(Machine.X64, side)) for side in ("base", "fixed"))
    patch = hotpatch.build(hotpatch.diff(base, fixed))
    with pytest.raises(hotpatch.HotpatchError, match="where a list is wanted; write"):
        hotpatch.verify(base, patch, fixed=fixed, calls=calls)
