"""Which places bear on a function's switches, and that nothing else is carried along."""

from __future__ import annotations

import pytest

from hotpatch.arch import x64_encoding as encoding
from hotpatch.arch.x64_flow import Blocks
from hotpatch.arch.x64_needed import Needed
from hotpatch.arch.x64_values import Values

AT = 0x1000
SWITCH = "488d15f60f0000 48630482 4801d0 ffe0"
"""``lea rdx, [table]; movsxd rax, [rdx + rax*4]; add rax, rdx; jmp rax``."""

# name, code, what matters at its start
# fmt: off
FUNCTIONS = (
    ("the index alone", f"4c894c2408 89c8 {SWITCH}", {"rcx"}),  # mov [rsp+8], r9; mov eax, ecx
    ("by way of the stack", f"894c2410 4c894c2408 8b442410 {SWITCH}", {"rcx"}),  # mov [rsp+16], ecx; …; mov eax, [rsp+16]
    ("a slot that is set before", f"8b442410 {SWITCH}", {"rsp + 0x10"}),  # mov eax, [rsp+16]
    ("compared where it is used", f"83f903 7711 89c8 {SWITCH} c3", {"rcx"}),  # cmp ecx, 3; ja; mov eax, ecx
    ("compared as a copy", f"89cf 83ff03 7711 89c8 {SWITCH} c3", {"rcx"}),  # mov edi, ecx; cmp edi, 3; ja; mov eax, ecx
    ("what is copied is compared", f"83f903 7711 89f8 {SWITCH} 89cf c3", {"rcx", "rdi"}),  # cmp ecx, 3; ja; mov eax, edi …; mov edi, ecx
    ("something else is compared", f"4183f903 7711 89c8 {SWITCH} c3", {"rcx"}),  # cmp r9d, 3; ja; mov eax, ecx
    ("what an index is reckoned from", f"418d0411 {SWITCH}", set()),  # lea eax, [r9 + rdx]
    ("a table that is handed over", "496304804c01c0ffe0", {"rax", "r8"}),  # movsxd rax, [r8 + rax*4]; add rax, r8; jmp rax
    ("bytes by one of two registers", f"0fb6040a {SWITCH}", {"rcx", "rdx"}),  # movzx eax, byte ptr [rdx + rcx]
    ("a call in between", f"e800000000 {SWITCH}", set()),
    ("kept over a call", f"e800000000 89d8 {SWITCH}", {"rbx"}),  # call; mov eax, ebx
    ("an access without an index", f"8b01 {SWITCH}", set()),  # mov eax, [rcx]
)
# fmt: on


def blocks_of(code: str) -> Blocks:
    return Blocks(encoding.decoder().rows(bytes.fromhex(code), AT))


@pytest.mark.parametrize(("code", "expected"), [row[1:] for row in FUNCTIONS], ids=[row[0] for row in FUNCTIONS])
def test_what_matters_at_the_start(code: str, expected: set[str]):
    blocks = blocks_of(code)
    found = Needed(blocks, blocks.dispatches, blocks.leaders)
    assert set(found.at(0)) == expected
    assert found.has(0)


def test_nothing_matters_behind_the_last_switch():
    blocks = blocks_of(f"83f903 7711 89c8 {SWITCH} 39ca c3")
    found = Needed(blocks, blocks.dispatches, blocks.leaders)
    assert [(leader, found.has(leader)) for leader in blocks.leaders] == [(0, True), (2, True), (7, False)]


def test_what_control_may_come_back_to_matters_where_it_is_not_seen_to_come_from():
    """``again: mov eax, ecx; …; jmp rax; mov ecx, edi; jmp again``: the switch may lead to the second half, of which ``edi`` is needed."""
    blocks = blocks_of(f"89c8 {SWITCH} 89f9 ebea")
    found = Needed(blocks, blocks.dispatches, blocks.leaders)
    assert set(found.at(0)) == {"rcx", "rdi"}


def test_a_large_frame_is_not_carried_along():
    """A hundred slots that are set between branches, then a switch: none of the states holds any of them."""
    stores = "".join(f"4c898c24{(8 * number).to_bytes(4, 'little').hex()} 4585c0 7400" for number in range(100))
    blocks = blocks_of(f"{stores} 89c8 {SWITCH}")
    values = Values(blocks, 0, blocks.dispatches, blocks.before_dispatches)
    values.run()
    assert len(values.entries) == 101
    assert {place for state in values.entries.values() for place in state.values} == set()
    assert len(values.dispatches()) == 1
