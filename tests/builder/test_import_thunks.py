"""Imports that code calls through thunks: bound by what a thunk leads to, wherever it and its slot are in the base."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.arch.assembly import assemble
from tests.emulator.pe import DATA, TEXT, Pe

if TYPE_CHECKING:
    from hotpatch.image import Image

PROCESS, THREAD, HEAP = "GetCurrentProcessId", "GetCurrentThreadId", "GetProcessHeap"
THUNK = {
    Machine.X64: "jmp qword ptr [rip + {distance}]",
    Machine.ARM64: "adrp x16, {page}; ldr x16, [x16, #{low}]; br x16",
}
CALLS = {
    Machine.X64: "sub rsp, 0x28; call {callee}; add rsp, 0x28; ret",
    Machine.ARM64: "stp x29, x30, [sp, #-16]!; bl {callee}; ldp x29, x30, [sp], #16; ret",
}
FIRST, STEP, FUNCTIONS = TEXT + 0x20, 0x40, TEXT + 0x200
"""Where the thunks are, and the functions that call them."""


def _image(machine: Machine, thunks: list[str], calls: dict[str, str | None]) -> Image:
    """An image with a thunk for each of the imports ``thunks`` in that order, and exported functions that call one of them each."""
    pe = Pe(machine)
    slots = pe.imports({"kernel32.dll": list(thunks)})
    places = {name: FIRST + STEP * number for number, name in enumerate(thunks)}
    for name, place in places.items():
        slot = slots[name]
        pe.put(place, assemble(machine, THUNK[machine].format(distance=slot - place - 6, page=slot & -0x1000, low=slot & 0xFFF), place))
    entries = {name: FUNCTIONS + STEP * number for number, name in enumerate(calls)}
    for name, callee in calls.items():
        number = {Machine.X64: "mov eax, 7; nop; nop; nop; ret", Machine.ARM64: "mov w0, #7; ret"}[machine]
        code = number if callee is None else CALLS[machine].format(callee=places[callee])
        pe.put(entries[name], assemble(machine, code, entries[name]))
    pe.exports("thunks.dll", [*entries.items(), ("datum", DATA)])
    return pe.build("thunks.dll")


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(
    ("fixed", "callee"),
    [
        pytest.param([PROCESS, THREAD], THREAD, id="same-thunk"),
        pytest.param([THREAD, PROCESS], THREAD, id="another-thunk"),
        pytest.param([THREAD, PROCESS], PROCESS, id="another-thunk-for-the-other"),
        pytest.param([HEAP, PROCESS, THREAD], HEAP, id="new-import"),
        pytest.param([HEAP, PROCESS, THREAD], THREAD, id="behind-a-new-import"),
    ],
)
def test_an_import_that_is_called_through_a_thunk(machine: Machine, fixed: list[str], callee: str) -> None:
    base = _image(machine, [PROCESS, THREAD], {"f": None, "g": PROCESS, "h": THREAD})
    image = _image(machine, fixed, {"f": callee, "g": PROCESS, "h": THREAD})
    diff = hotpatch.diff(base, image)
    assert [row.name for row in diff.of(hotpatch.Verdict.CHANGED)] == ["f"]
    patch = hotpatch.build(diff)
    assert [function.name for function in patch.functions] == ["f"]
    there, process = hotpatch.Process(image), hotpatch.Process(base)
    untouched = process.call("g"), process.call("h")
    assert process.call("f") == 7
    applied = process.apply(patch)
    assert process.call("f") == there.call("f") != 7
    assert (process.call("g"), process.call("h")) == untouched
    process.revert(applied)
    assert process.call("f") == 7
    for report in hotpatch.verify(base, patch, fixed=image, seeds=4).functions:  # with a thunk that comes along
        assert report.outcome is hotpatch.verifier.MicroOutcome.AGREE, report.text
