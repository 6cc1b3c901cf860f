"""Arm64: literals of each size at a function's very end travel with it, and the patched function loads them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.builder.bodies import body_of
from hotpatch.builder.model import Body
from tests.emulator.pe import DATA, TEXT, Pe

if TYPE_CHECKING:
    from hotpatch.image import Image

NOP, RET, ADD_X0_7 = 0xD503201F, 0xD65F03C0, 0x91001C00
LOADS = {  # the load of a literal, what brings it (or its upper half) to x0, its size, and the bits of it that come there
    "w": (0x18000000, NOP, 4, (0, 32)),
    "sw": (0x98000000, NOP, 4, (0, 32)),
    "x": (0x58000000, NOP, 8, (0, 64)),
    "s": (0x1C000000, 0x1E260000, 4, (0, 32)),
    "d": (0x5C000000, 0x9E660000, 8, (0, 64)),
    "q": (0x9C000000, 0x9EAE0000, 16, (64, 128)),
}
WORDS = (0x11000400, 0x11000C21, 0x11001462, 0x11001CA3)
"""What is in the literals: additions, so that each word is an instruction that goes on to the next one."""


def _image(load: str, words: tuple[int, ...], added: int, *, described: bool, followed: bool) -> Image:
    """``f`` loads the literal behind itself and adds a number, and ``g`` may follow; ``described``: unwind data make the literal a part."""
    form, moves, size, _ = LOADS[load]
    code = struct.pack("<4I", form | 4 << 5, moves, added, RET) + struct.pack("<4I", *words)[:size]
    pe = Pe(Machine.ARM64)
    pe.put(TEXT + 0x20, code)
    pe.exports("literals.dll", [("f", TEXT + 0x20), *([("g", TEXT + 0x20 + len(code))] if followed else []), ("datum", DATA)])
    if followed:
        pe.put(TEXT + 0x20 + len(code), struct.pack("<2I", 0x52800120, RET))
    if described:
        pe.directories["exception"] = (pe.add(struct.pack("<II", TEXT + 0x20, 1 | len(code) // 4 << 2)), 8)
    return pe.build("literals.dll")


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize(
    ("described", "followed", "changed"),
    [(True, False, "code"), (True, True, "literal")],
    ids=["code-at-the-end", "literal-before-another"],
)
def test_literals_at_a_function_s_very_end(load: str, described: bool, followed: bool, changed: str) -> None:
    there = tuple(reversed(WORDS)) if changed == "literal" else WORDS
    kinds = {"described": described, "followed": followed}
    images = _image(load, WORDS, NOP, **kinds), _image(load, there, ADD_X0_7 if changed == "code" else NOP, **kinds)
    diff = hotpatch.diff(*images)
    assert [row.name for row in diff.of(hotpatch.Verdict.CHANGED)] == ["f"]
    body = body_of(images[1], images[1].function_named("f"))
    assert isinstance(body, Body)
    assert not body.falls_into
    patch = hotpatch.build(diff)
    assert [function.name for function in patch.functions] == ["f"]
    process = hotpatch.Process(images[0])
    first, end = LOADS[load][3]
    before, after = ((int.from_bytes(struct.pack("<4I", *words), "little") & (1 << end) - 1) >> first for words in (WORDS, there))
    assert process.call("f") == before
    process.apply(patch)
    assert process.call("f") == after + (7 if changed == "code" else 0)
    (report,) = hotpatch.verify(images[0], patch, fixed=images[1], seeds=4).functions
    assert report.outcome is hotpatch.verifier.MicroOutcome.AGREE, report.text
