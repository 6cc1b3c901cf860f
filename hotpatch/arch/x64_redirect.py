"""x64: how a call of a function is made to go elsewhere, and how such jumps are recognised.

Source of the HPAT forms: microsoft/Detours ``src/detours.cpp`` (PR 318); of the others: Intel SDM volume 2, JMP, and the forms that hooking
libraries document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch import x64_binding
from hotpatch.arch.model import HPAT_POINTER_DISTANCE, HPAT_SLOT_SIZE, CodeWrite, EntrySite, FixupKind, Redirect

if TYPE_CHECKING:
    from collections.abc import Callable

JUMP_REL8 = b"\xeb"
JUMP_REL32 = b"\xe9"
JUMP_THROUGH = b"\xff\x25"
"""``jmp [rip+disp32]``."""
JUMP_REL32_SIZE = len(JUMP_REL32) + 4
JUMP_THROUGH_SIZE = len(JUMP_THROUGH) + 4
JUMP_TO_PADDING = b"\xeb\xf9"
"""``jmp $-5``: from a function's entry to the five bytes before it."""

_FILLER = b"\xcc"
_POINTER_SIZE = 8

_SITES = {
    Redirect.HPAT: EntrySite(before=JUMP_REL32_SIZE, displaced=len(JUMP_TO_PADDING)),
    Redirect.DIRECT: EntrySite(before=JUMP_REL32_SIZE, displaced=len(JUMP_TO_PADDING)),
    Redirect.INLINE: EntrySite(before=0, displaced=JUMP_REL32_SIZE),
}


def entry_site(strategy: Redirect) -> EntrySite:
    """What ``strategy`` needs at an entry."""
    return _SITES[strategy]


def jump(site: int, target: int) -> bytes:
    """``jmp rel32`` at ``site``.

    Raises:
        OutOfReach: The distance does not fit.
    """
    return JUMP_REL32 + x64_binding.bind(FixupKind.REL32, site + len(JUMP_REL32), target)


def hpat_slot() -> bytes:
    """``jmp [rip+disp32]`` through the pointer behind it, filled up to the size of a slot."""
    distance = HPAT_POINTER_DISTANCE - JUMP_THROUGH_SIZE
    return (JUMP_THROUGH + distance.to_bytes(4, "little")).ljust(HPAT_SLOT_SIZE, _FILLER)


def absolute_jump(target: int) -> bytes:
    """``jmp [rip+0]`` with the pointer right behind it."""
    return JUMP_THROUGH + bytes(4) + target.to_bytes(_POINTER_SIZE, "little")


COMPARE_FLAG = b"\x65\x80\x3c\x25"
"""``cmp byte ptr gs:[disp32], imm8``: the gs base is the thread environment block. It changes the arithmetic flags, which are volatile and
carry no argument (MS Learn, "x64 calling convention")."""


def dispatcher(flag: int, before: int, after: int) -> bytes:
    """Three instructions and their pointers.

    ::

     0  cmp byte ptr gs:[flag], 0
     9  jne 17
    11  jmp [rip+7]         ; after
    17  jmp [rip+9]         ; before
    24  after
    32  before
    """
    code = COMPARE_FLAG + flag.to_bytes(4, "little") + b"\0" + b"\x75\x06"
    code += JUMP_THROUGH + (7).to_bytes(4, "little") + JUMP_THROUGH + (9).to_bytes(4, "little") + _FILLER
    return code + after.to_bytes(_POINTER_SIZE, "little") + before.to_bytes(_POINTER_SIZE, "little")


def redirect_writes(strategy: Redirect, entry: int, destination: int) -> tuple[CodeWrite, ...]:
    """What to store, padding first and the entry last.

    Raises:
        OutOfReach: ``destination`` is further than a rel32 jump reaches.
    """
    if strategy is Redirect.INLINE:
        return (CodeWrite(entry, jump(entry, destination)),)
    pad = entry - JUMP_REL32_SIZE
    return (CodeWrite(pad, jump(pad, destination)), CodeWrite(entry, JUMP_TO_PADDING))


def redirect_destination(strategy: Redirect, entry: int, read: Callable[[int, int], bytes]) -> int | None:
    """Where a redirect of ``strategy`` at ``entry`` leads, or ``None`` where the bytes there are none."""
    site = entry
    if strategy is not Redirect.INLINE:
        if read(entry, len(JUMP_TO_PADDING)) != JUMP_TO_PADDING:
            return None
        site = entry - JUMP_REL32_SIZE
    code = read(site, JUMP_REL32_SIZE)
    if len(code) != JUMP_REL32_SIZE or not code.startswith(JUMP_REL32):
        return None
    return x64_binding.resolve(FixupKind.REL32, code[len(JUMP_REL32) :], site + len(JUMP_REL32))


_LONGEST_JUMP = 16


def foreign_jump(entry: int, read: Callable[[int, int], bytes]) -> int | None:
    """Target of an unconditional jump that stands at ``entry`` in any form that hooks use, or ``None``.

    Known forms: ``jmp rel8``, ``jmp rel32``, ``jmp [rip+disp32]`` (REX.W or not), ``mov reg, imm64; jmp reg``, ``push imm32; ret``,
    ``push imm32; mov dword [rsp+4], imm32; ret``, ``push rax; mov rax, imm64; xchg [rsp], rax; ret``.
    """
    code = read(entry, _LONGEST_JUMP)
    for form in (_relative, _through_pointer, _through_register, _through_stack, _through_exchange):
        target = form(code, entry, read)
        if target is not None:
            return target
    return None


def _relative(code: bytes, entry: int, _read: Callable[[int, int], bytes]) -> int | None:
    if code.startswith(JUMP_REL8) and len(code) >= 2:
        return x64_binding.resolve(FixupKind.REL8, code[1:2], entry + 1)
    if code.startswith(JUMP_REL32) and len(code) >= JUMP_REL32_SIZE:
        return x64_binding.resolve(FixupKind.REL32, code[1:JUMP_REL32_SIZE], entry + 1)
    return None


def _through_pointer(code: bytes, entry: int, read: Callable[[int, int], bytes]) -> int | None:
    opcode = 1 if code.startswith(b"\x48") else 0
    end = opcode + JUMP_THROUGH_SIZE
    if code[opcode : opcode + len(JUMP_THROUGH)] != JUMP_THROUGH or len(code) < end:
        return None
    pointer = x64_binding.resolve(FixupKind.REL32, code[end - 4 : end], entry + end - 4)
    value = read(pointer, _POINTER_SIZE)
    return int.from_bytes(value, "little") if len(value) == _POINTER_SIZE else None


def _through_register(code: bytes, _entry: int, _read: Callable[[int, int], bytes]) -> int | None:
    if len(code) < 12 or code[0] not in (0x48, 0x49) or code[1] & 0xF8 != 0xB8:
        return None
    register = bytes((0xFF, 0xE0 | (code[1] & 7)))
    leave = register if code[0] == 0x48 else b"\x41" + register
    return int.from_bytes(code[2:10], "little") if code[10:].startswith(leave) else None


def _through_stack(code: bytes, _entry: int, _read: Callable[[int, int], bytes]) -> int | None:
    if len(code) < 6 or code[0] != 0x68:
        return None
    if code[5] == 0xC3:
        return int.from_bytes(code[1:5], "little", signed=True) % 2**64
    if code[5:9] == b"\xc7\x44\x24\x04" and code[13:14] == b"\xc3":
        return int.from_bytes(code[1:5] + code[9:13], "little")
    return None


def _through_exchange(code: bytes, _entry: int, _read: Callable[[int, int], bytes]) -> int | None:
    if code[:3] == b"\x50\x48\xb8" and code[11:16] == b"\x48\x87\x04\x24\xc3":
        return int.from_bytes(code[3:11], "little")
    return None
