"""A thread's own data on made-up state: another offset, another index or another field of the environment block is a difference."""

from __future__ import annotations

import shutil
import struct
from typing import TYPE_CHECKING

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from hotpatch.builder import make
from hotpatch.cases import find_case
from hotpatch.verifier import MicroExecution, MicroOutcome, verify_functions
from tests.builder.test_threads import READS, block, image, named
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

if TYPE_CHECKING:
    from pathlib import Path

each_machine = pytest.mark.parametrize("machine", Machine)


@each_machine
@pytest.mark.parametrize("with_names", [True, False])
def test_a_variable_that_moved_within_the_block(
    machine: Machine, with_names: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the builder refuses: ``counted`` reads another variable than its base's version, which names alone tell it is."""
    monkeypatch.setattr(make, "unknown_offsets", lambda *_: ())
    named = {side: find_case("tls-layout-refused").image(machine, side) for side in ("base", "fixed")}
    for side, path in named.items():
        shutil.copyfile(path, tmp_path / side)
    bare = [hotpatch.open(tmp_path / side) for side in named]
    patch = hotpatch.build(hotpatch.diff(*bare))
    judges = [hotpatch.open(path) for path in named.values()] if with_names else bare
    found = {report.name: report.outcome for report in verify_functions(judges[0], patch, fixed=judges[1], seeds=8).functions}
    assert list(found.values()) == [MicroOutcome.DIFFER if with_names else MicroOutcome.AGREE, MicroOutcome.DIFFER]


@each_machine
@pytest.mark.parametrize(("there", "here"), [((), ()), (("calls",), ()), ((), ("calls",))])
def test_a_pdb_that_names_no_thread_local_data(
    machine: Machine, there: tuple[str, ...], here: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "unknown_offsets", lambda *_: ())
    images = named(machine, "base", frozenset(there)), named(machine, "fixed", frozenset(here))
    patch = hotpatch.build(hotpatch.diff(*images))
    found = {report.name: report.outcome for report in verify_functions(images[0], patch, fixed=images[1], seeds=8).functions}
    assert found == {"check": MicroOutcome.AGREE, "counted": MicroOutcome.DIFFER}


@each_machine
@pytest.mark.parametrize("form", READS)
@pytest.mark.parametrize(("there", "here", "unchanged", "known"), [(8, 8, 0x18, True), (8, 0x10, 0x10, True), (8, 0x10, 8, False)])
def test_an_offset_that_only_changed_code_uses(
    machine: Machine, form: str, there: int, here: int, unchanged: int, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "unknown_offsets", lambda *_: ())
    images = image(machine, form, there, 2, unchanged=unchanged), image(machine, form, here, 3, unchanged=unchanged)
    (report,) = verify_functions(images[0], hotpatch.build(hotpatch.diff(*images)), fixed=images[1], seeds=4).functions
    assert report.outcome is (MicroOutcome.AGREE if known else MicroOutcome.DIFFER), report.text


WRITES = {
    "displaced": {Machine.X64: "mov qword ptr [rcx + {offset}], 0; ret", Machine.ARM64: "str xzr, [x9, #{offset}]; ret"},
    "returned": {Machine.X64: "lea rax, [rcx + {offset}]; ret", Machine.ARM64: "add x0, x9, #{offset}; ret"},
}


@each_machine
@pytest.mark.parametrize("form", WRITES)
@pytest.mark.parametrize("here", [8, 0x10])
def test_another_offset_that_is_written_or_returned(machine: Machine, form: str, here: int) -> None:
    images = []
    for offset in (8, here):
        pe = Pe(machine)
        pe.cursor = RDATA + 0x800
        code = block(machine, TEXT, pe.tls(bytes(0x20), 0, []))
        pe.put(TEXT, code + assemble(machine, WRITES[form][machine].format(offset=offset), TEXT + len(code)))
        pe.exports("thread.dll", [("f", TEXT)])
        images.append(pe.build("thread.dll"))
    execution = MicroExecution(*images)
    (report,) = execution.unpatched([row for row in execution.diff.functions if row.name == "f"], seeds=4)
    assert report.outcome is (MicroOutcome.AGREE if here == 8 else MicroOutcome.DIFFER), report.text


@each_machine
@pytest.mark.parametrize(("first", "second"), [(0x68, 0x68), (0x68, 0x78), (0x68, 0x30)])
def test_another_field_of_the_environment_block(machine: Machine, first: int, second: int) -> None:
    images = []
    for offset in (first, second):
        pe = Pe(machine)
        load = bytes.fromhex("65488b0425") + struct.pack("<I", offset) + b"\xc3"
        code = load if machine is Machine.X64 else assemble(machine, f"ldr x0, [x18, #{offset}]; ret", TEXT)
        pe.put(TEXT, code)
        pe.exports("thread.dll", [("f", TEXT), ("datum", DATA)])
        images.append(pe.build("thread.dll"))
    execution = MicroExecution(*images)
    (report,) = execution.unpatched([row for row in execution.diff.functions if row.name == "f"], seeds=4)
    assert report.outcome is (MicroOutcome.AGREE if first == second else MicroOutcome.DIFFER), report.text
