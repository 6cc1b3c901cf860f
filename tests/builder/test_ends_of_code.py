"""Code that runs on past its end travels only where it is known what it runs into."""

from __future__ import annotations

import pytest

from hotpatch.address import Rva
from hotpatch.arch import Machine
from hotpatch.builder import build_patch
from hotpatch.errors import NotHotpatchable, Rule
from hotpatch.image import Range
from tests.builder.forge import TEXT, Code, forge, told

FIRST = {Machine.X64: ("83c001", "83c002"), Machine.ARM64: ("00040011", "00080011")}
"""An addition to the result, in the base and in the fixed image."""
REST = {Machine.X64: "83c003 c3".replace(" ", ""), Machine.ARM64: "000c0011c0035fd6"}
RETURN = {Machine.X64: "c3", Machine.ARM64: "c0035fd6"}
LEFT_OVER = {Machine.X64: "83c003", Machine.ARM64: "610000d4"}
"""What control does not come to behind a return unless it is branched to: on Arm64 the ``svc #3`` of Microsoft's compiler."""
SKIPS = {Machine.X64: "7401", Machine.ARM64: "40000054"}
"""A branch over a return."""
each_machine = pytest.mark.parametrize("machine", Machine)


def images(machine: Machine, names: tuple[str, ...]):
    """Two versions of ``f``, which goes on behind its end; ``names``: the functions that are known, ``f`` and perhaps what is behind it."""
    found = []
    for first in FIRST[machine]:
        parts = [Code("f", 16, first), Code("behind", 16 + len(first) // 2, REST[machine])]
        image = forge(machine, parts)
        image.__dict__["functions"] = tuple(function for function in image.functions if function.name in names)
        found.append(image)
    return found


@each_machine
def test_into_a_function(machine: Machine) -> None:
    patch = build_patch(told(*images(machine, ("f", "behind")), f="changed"))
    assert [function.name for function in patch.functions] == ["f"]


@each_machine
def test_into_what_is_no_known_function(machine: Machine) -> None:
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(told(*images(machine, ("f",)), f="changed"))
    (refusal,) = refused.value.refusals
    assert refusal.rule is Rule.UNRESOLVED_REFERENCE
    assert f"0x{TEXT + 16 + len(FIRST[machine][1]) // 2:x}" in refusal.reason


def _behind_a_return(machine: Machine, before: str, behind: str = ""):
    """Two versions of ``f``, which has something behind its return, and nothing known behind that."""
    found = []
    for first in FIRST[machine]:
        code = first + before + RETURN[machine] + LEFT_OVER[machine] + behind
        image = forge(machine, [Code("f", 16, code)])
        part = Range(Rva(TEXT + 16), Rva(TEXT + 16 + len(code) // 2))
        image.__dict__["functions"] = tuple(function._replace(ranges=(part,)) for function in image.functions)
        found.append(image)
    return told(*found, f="changed")


@each_machine
def test_what_is_left_over_behind_a_return_runs_on_into_nothing(machine: Machine) -> None:
    patch = build_patch(_behind_a_return(machine, ""))
    assert [function.name for function in patch.functions] == ["f"]


def test_a_literal_behind_what_is_left_over_is_no_instruction() -> None:
    """Arm64: ``ldr w9, …`` of an exception's code, which would be one."""
    patch = build_patch(_behind_a_return(Machine.ARM64, "69000018", "050000c0"))
    assert [function.name for function in patch.functions] == ["f"]


@pytest.mark.parametrize(("before", "is_led"), [("", False), ("60000054", True)])
def test_bytes_that_control_never_comes_to(before: str, is_led: bool) -> None:
    """Arm64: a literal that nothing loads, behind a return; where a branch leads to it, or past it, it may be code."""
    diff = _behind_a_return(Machine.ARM64, before, "84fcffff")
    if not is_led:
        assert [function.name for function in build_patch(diff).functions] == ["f"]
        return
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(diff)
    assert Rule.UNDECODABLE in {refusal.rule for refusal in refused.value.refusals}


@each_machine
def test_what_is_branched_to_behind_a_return_runs_on(machine: Machine) -> None:
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(_behind_a_return(machine, SKIPS[machine]))
    assert [refusal.rule for refusal in refused.value.refusals] == [Rule.UNRESOLVED_REFERENCE]
