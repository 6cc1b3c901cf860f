"""Functions in which the process ends, told from those that only look like it."""

from __future__ import annotations

import struct

import pytest

from hotpatch.arch import Machine
from hotpatch.differ.process_ends import ProcessEnds
from hotpatch.differ.view import view_of
from tests.emulator.pe import TEXT, Pe

OUR_OWN, OTHER, REPORT, END = "GetCurrentProcess", "GetCurrentThread", "UnhandledExceptionFilter", "TerminateProcess"
FAIL, RETURN, ARGUMENT, CODE = b"\xcd\x29", b"\xc3", b"\x48\x89\xc1", b"\xba\x01\x00\x00\x00"  # mov rcx, rax; mov edx, 1
TAKEN_AGAIN = b"\x48\x89\xd9"  # mov rcx, rbx


def ends(*parts: bytes | str, jumps: bool = False) -> bool:
    """Whether a function of these parts ends the process; names are imports that it calls, with ``jumps`` the last by a jump."""
    pe = Pe(Machine.X64)
    slots = pe.imports({"kernel32.dll": [OUR_OWN, OTHER, REPORT, END]})
    code = b""
    for number, part in enumerate(parts, 1):
        if isinstance(part, bytes):
            code += part
            continue
        way = b"\xff\x25" if jumps and number == len(parts) else b"\xff\x15"
        code += way + struct.pack("<i", slots[part] - TEXT - len(code) - 6)
    pe.put(TEXT, code)
    pe.exports("ends.dll", [("f", TEXT)])
    return ProcessEnds(view_of(pe.build("ends.dll"))).ends(TEXT)


def test_ways_to_end_the_process():
    assert ends(FAIL)
    assert ends(REPORT, OUR_OWN, ARGUMENT, CODE, END, RETURN)
    assert ends(REPORT, OUR_OWN, ARGUMENT, CODE, END, jumps=True)
    assert ends(b"\x74\x02", FAIL, FAIL)  # either way


@pytest.mark.parametrize(
    "parts",
    [
        (RETURN,),
        (b"\x74\x02", FAIL, RETURN),
        (b"\xeb\xfe", FAIL),  # a loop that may go on for ever
        (OTHER, FAIL),  # not known to come back, nor what it runs
        (OUR_OWN, ARGUMENT, TAKEN_AGAIN, END, RETURN),
        (OUR_OWN, CODE, END, RETURN),
        (OTHER, ARGUMENT, CODE, END, RETURN),
        (OUR_OWN, b"\x74\x00", ARGUMENT, CODE, END, RETURN),  # what comes another way has another argument
        (b"\x0f\x0b",),  # an exception, which may be handled
    ],
)
def test_what_may_go_on(parts):
    assert not ends(*parts)
