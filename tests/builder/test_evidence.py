"""What a refusal shows of an image."""

from __future__ import annotations

import pytest

from hotpatch.arch import Machine
from hotpatch.builder.evidence import instruction_evidence
from tests.emulator.pe import RDATA, TEXT, Pe


@pytest.mark.parametrize("machine", Machine)
def test_a_pointer_in_data_is_no_instruction(machine) -> None:
    pe = Pe(machine)
    code = b"\xc3" if machine is Machine.X64 else bytes.fromhex("c0035fd6")
    pe.put(TEXT, code)
    pe.put(RDATA + 0x800, bytes.fromhex("0d10004001000000"))
    pe.cursor = RDATA + 0x900
    pe.exports("evidence.dll", [("f", TEXT)])
    image = pe.build("evidence.dll")
    assert instruction_evidence(image, RDATA + 0x800, 8) == {"rva": RDATA + 0x800, "bytes": "0d10004001000000", "instruction": None}
    assert instruction_evidence(image, TEXT, len(code)) == {"rva": TEXT, "bytes": code.hex(), "instruction": "ret"}
