"""Whether a function's own code leads from a frame out of it: only then is waiting for the frame's end any use."""

from __future__ import annotations

import pytest

from hotpatch.address import Rva, Va
from hotpatch.arch import Machine
from hotpatch.engine.occupancy import may_return
from hotpatch.image.model import Function, FunctionSource, Range
from hotpatch.unwind import Frame

from .conftest import World
from .synthetic import BODY, entry

NOP = {Machine.X64: "90909090", Machine.ARM64: "1f2003d5"}
# what the function's code is on x64 and on Arm64, and whether it leads out
ROWS = {
    "return": ("c3", "c0035fd6", True),
    "indirect jump": ("ffe0", "00001fd6", True),
    "indirect jump through memory": ("ff2500000000", "1000005800021fd6", True),
    "indirect jump behind a loop": ("ebfeffe0", "0000001400001fd6", False),
    "jump out": ("e900010000", "40000014", True),
    "branch out": ("7440ebfe", "0002005400000014", True),
    "loop": ("ebfe", "00000014", False),
    "branch within a loop": ("74feebfc", "00000054ffffff17", False),
    "branch to a return": ("7402ebfec3", "4000005400000014c0035fd6", True),
    "jump to a return": ("eb02ebfec3", "0200001400000014c0035fd6", True),
    "return behind a loop": ("ebfec3", "00000014c0035fd6", False),
    "call and a loop": ("e800010000ebfe", "4000009400000014", False),
    "indirect call and a loop": ("ffd0ebfe", "00003fd600000014", False),
    "trap before a return": ("0f0bc3", "200020d4c0035fd6", False),
}


def leads_out(here: World, code: str, offset: int, *, size: int = BODY, known: bool = True) -> bool:
    """Of function 1 with ``code``, from a frame ``offset`` bytes into it."""
    here.fake.poke(here.entry(1), bytes.fromhex(code).ljust(BODY, b"\xcc"))
    function = Function(entry(1), (Range(entry(1), Rva(entry(1) + size)),), ("f1",), FunctionSource.PDB)
    frame = Frame(Va(here.entry(1) + offset), Va(0), {}, here.module.va, function if known else None, called=offset > 0)
    return may_return(here.fake, frame, here.fake.modules())


@pytest.mark.parametrize("name", ROWS)
def test_ways_out(here, name):
    x64, arm64, out = ROWS[name]
    code = x64 if here.fake.machine is Machine.X64 else arm64
    assert leads_out(here, code, 0) is out
    assert leads_out(here, NOP[here.fake.machine] + code, 4) is out
    assert leads_out(here, code, 0, known=False)


def test_only_what_lies_ahead_counts(here):
    """The return before the frame is no way out of it."""
    code = "c3909090ebfe" if here.fake.machine is Machine.X64 else "c0035fd600000014"
    assert leads_out(here, code, 0)
    assert not leads_out(here, code, 4)


def test_a_call_at_the_very_end_leads_nowhere(here):
    code = "e8f7000000" if here.fake.machine is Machine.X64 else "40000094"
    size = len(code) // 2
    assert not leads_out(here, code, size, size=size)
    assert leads_out(here, code, size + 1, size=size)  # no code of the function's: not followed
