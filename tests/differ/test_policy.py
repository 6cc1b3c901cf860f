"""What the loader set the process up for, and what it has run, must be the same in both builds."""

from __future__ import annotations

import struct

import pytest

from hotpatch.arch import Machine
from hotpatch.builder import build_patch
from hotpatch.differ import diff_images
from hotpatch.errors import NotHotpatchable, Rule
from tests.builder.test_reaches import RETURNS
from tests.emulator.pe import DATA, TEXT, Pe

GUARD_FLAGS = 0x90
"""Of ``GuardFlags`` in ``IMAGE_LOAD_CONFIG_DIRECTORY64``."""
INSTRUMENTED, TABLE, TABLE_SIZE, CONTINUATIONS, XFG = 0x100, 0x400, 0x1000_0000, 0x40_0000, 0x80_0000
"""Of winnt.h: ``CF_INSTRUMENTED``, two of the table of functions that are no policy, ``EH_CONTINUATION_TABLE_PRESENT``, ``XFG_ENABLED``."""
FIRST, SECOND = TEXT + 0x40, TEXT + 0x80
NATIVE, GUI, CUI = 1, 2, 3


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(
    ("dll", "subsystems", "rules"),
    [
        (True, (GUI, CUI), []),
        (True, (CUI, GUI), []),
        (True, (NATIVE, CUI), [Rule.POLICY]),
        (False, (GUI, CUI), [Rule.POLICY]),
        (False, (CUI, CUI), []),
    ],
    ids=["dll", "dll-back", "native-dll", "program", "same"],
)
def test_subsystems(machine: Machine, dll: bool, subsystems: tuple[int, int], rules: list[Rule]) -> None:
    images = []
    for subsystem in subsystems:
        pe = Pe(machine, dll=dll, subsystem=subsystem, entry=0 if dll else TEXT)
        pe.put(TEXT, RETURNS[machine])
        pe.exports("policy.dll", [("does", TEXT)])
        images.append(pe.build("policy.dll"))
    assert [finding.rule for finding in diff_images(*images).findings] == rules


def gives(machine: Machine, number: int) -> bytes:
    """A function that returns a number."""
    if machine is Machine.X64:
        return b"\xb8" + struct.pack("<I", number) + RETURNS[machine]
    return struct.pack("<I", 0x52800000 | number << 5) + RETURNS[machine]


def pair(machine: Machine, *, flags: tuple[int, int] = (0, 0), callbacks: tuple[list[int], list[int]] | None = None):
    """Two builds of which one function differs, with these guard flags and these callbacks."""
    images = []
    for number in range(2):
        pe = Pe(machine)
        for at, value in ((TEXT, 5 + number), (FIRST, 11), (SECOND, 12)):
            pe.put(at, gives(machine, value))
        if callbacks is not None:
            pe.tls(bytes(8), 0, callbacks[number])
        pe.load_configuration(cookie=DATA + 0x100, check=DATA + 0x108, dispatch=DATA + 0x110)
        pe.put(pe.directories["load_config"][0] + GUARD_FLAGS, struct.pack("<I", flags[number]))
        pe.exports("policy.dll", [("does", TEXT), ("first", FIRST), ("second", SECOND)])
        images.append(pe.build("policy.dll"))
    return diff_images(*images)


def check(diff, rule: Rule, evidence: dict[str, object] | None) -> None:
    """Refused with ``evidence``, and let through where the rule is overridden, which the patch records; or (``None``) not refused."""
    if evidence is None:
        assert not build_patch(diff).overrides
        return
    with pytest.raises(NotHotpatchable) as refused:
        build_patch(diff)
    assert [(item.rule, item.evidence) for item in refused.value.refusals] == [(rule, evidence)]
    patch = build_patch(diff, allow=[rule.value])
    assert (patch.overrides, [row.name for row in patch.functions]) == ((rule,), ["does"])


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(
    ("flags", "values"),
    [
        ((0, INSTRUMENTED), (0, INSTRUMENTED)),
        ((INSTRUMENTED | XFG | TABLE, INSTRUMENTED), (INSTRUMENTED | XFG, INSTRUMENTED)),
        ((INSTRUMENTED, INSTRUMENTED | CONTINUATIONS), (INSTRUMENTED, INSTRUMENTED | CONTINUATIONS)),
        ((INSTRUMENTED, INSTRUMENTED), None),
        ((TABLE, TABLE | TABLE_SIZE), None),
    ],
    ids=["instrumented", "no-xfg", "continuations", "same", "another-table"],
)
def test_guard_flags(machine: Machine, flags: tuple[int, int], values: tuple[int, int] | None) -> None:
    evidence = None if values is None else {"what": "guard_flags", "base": values[0], "fixed": values[1]}
    check(pair(machine, flags=flags), Rule.POLICY, evidence)


@pytest.mark.parametrize("machine", Machine)
@pytest.mark.parametrize(
    ("callbacks", "new", "gone"),
    [
        (([], [FIRST]), [FIRST], []),
        (([FIRST], []), [], [FIRST]),
        (([FIRST], [FIRST, SECOND]), [SECOND], []),
        (([FIRST, SECOND], [FIRST]), [], [SECOND]),
        (([FIRST], [SECOND]), [SECOND], [FIRST]),
        (([FIRST, SECOND], [FIRST, SECOND]), None, None),
    ],
    ids=["first", "none-left", "one-more", "one-less", "another", "same"],
)
def test_thread_local_callbacks(machine: Machine, callbacks: tuple[list[int], list[int]], new: list[int] | None, gone: list[int]) -> None:
    check(pair(machine, callbacks=callbacks), Rule.START_UP, None if new is None else {"new_rvas": new, "gone_rvas": gone})
