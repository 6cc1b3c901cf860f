"""What the loader set the process up for must be the same in both builds."""

from __future__ import annotations

import pytest

from hotpatch.arch import Machine
from hotpatch.differ import diff_images
from hotpatch.errors import Rule
from tests.builder.test_reaches import RETURNS
from tests.emulator.pe import TEXT, Pe

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
