"""A checked assembler: text to bytes by Keystone, believed only where Capstone reads the same text back.

Keystone 0.9.2 wraps branches that are out of range, takes some instructions for others (``nop dword ptr [rax]``, ``pop rip``) and ends
the process at some malformed operands (its issue 307). So only operands of plain forms reach it, one instruction at a time, and what
comes back is decoded again and compared with what was written.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from typing import Any

import capstone

from hotpatch.arch.model import Machine
from hotpatch.errors import HotpatchError, InputError

_NUMBER = r"-?(?:0x[0-9a-f]+|\d+)"
_WORD = r"[a-z][a-z0-9]*"
_SIZE = "(?:(?:byte|word|dword|qword|xmmword) ptr )?"
_FORMS = {
    Machine.X64: rf"{_WORD}|{_NUMBER}|{_SIZE}\[{_WORD}(?: ?\+ ?{_WORD}(?:\*[1248])?)?(?: ?[+-] ?{_NUMBER})?\]",
    Machine.ARM64: rf"{_WORD}(?: #{_NUMBER})?|#?{_NUMBER}|\[{_WORD}(?:, ?(?:#{_NUMBER}|{_WORD}))?\]!?",
}
"""Operand forms that are passed on (Arm64: ``lsl #3`` is a word with a number)."""

_SPLIT = re.compile(r",(?![^\[]*\]) *")
_MNEMONIC = re.compile(r"[a-z][a-z0-9.]*")
_TOKEN = re.compile(rf"{_NUMBER}|[a-z][a-z0-9.]*|[\[\]+\-*!,]")
_SAME = {"jz": "je", "jnz": "jne", "b.hs": "b.cs", "b.lo": "b.cc", "jc": "jb", "jnc": "jae", "movabs": "mov"}
"""Mnemonics with one meaning; the second is what both are compared as."""


def assemble(machine: Machine, text: str, va: int) -> bytes:
    """The bytes of ``text``, instructions separated by ``;`` or line ends, from address ``va`` on; branch targets are addresses.

    Raises:
        InputError: An instruction is not of the plain forms, Keystone does not know it, or what it made is another instruction.
    """
    code = b""
    for line in re.split(r"[;\n]", text.lower()):
        if line.strip():
            code += _one(machine, " ".join(line.split()), va + len(code))
    return code


def _one(machine: Machine, text: str, va: int) -> bytes:
    mnemonic, _, operands = text.partition(" ")
    parts = _SPLIT.split(operands) if operands else []
    # Keystone makes 0F 18 /4 of a NOP with an operand, which Capstone reads back as the same text.
    if not _MNEMONIC.fullmatch(mnemonic) or (mnemonic == "nop" and parts) or not all(re.fullmatch(_FORMS[machine], part) for part in parts):
        raise InputError(text, "not a plain instruction; write a mnemonic and registers, numbers or a memory operand in brackets")
    engine = _keystone(machine)
    try:
        made, _count = engine.asm(text, va)
    except Exception as error:
        raise InputError(text, f"cannot be assembled: {error}; write it as the manuals do") from error
    code = bytes(made or ())
    read = [f"{name} {rest}".strip() for _, _, name, rest in _capstone(machine).disasm_lite(code, va)]
    if len(read) != 1 or _canonical(read[0]) != _canonical(text):
        raise InputError(
            text,
            f"was assembled to {code.hex()}, which is {', '.join(read) or 'nothing'}: out of range, or not known to the assembler; "
            "write another instruction",
        )
    return code


def _canonical(text: str) -> list[object]:
    """Tokens with numbers as numbers and synonyms as one; an omitted or zero displacement, ``#`` and operand sizes do not count."""
    words = [
        word for word in _TOKEN.findall(text.lower().replace("#", "")) if word not in ("ptr", "byte", "word", "dword", "qword", "xmmword")
    ]
    tokens: list[object] = []
    for word in words:
        value: object = _SAME.get(word, word)
        if word[-1].isdigit() and (word[0].isdigit() or (word[0] == "-" and len(word) > 1)):
            value = int(word, 0) % (1 << 64)
        elif word.startswith(("0x", "-0x")):
            value = int(word, 16) % (1 << 64)
        tokens.append(value)
    return _signed(tokens)


def _signed(tokens: list[object]) -> list[object]:
    """``- 8`` and ``+ -8`` alike, ``+ 0`` and a comma before 0 in brackets as nothing."""
    out: list[object] = []
    for token in tokens:
        if isinstance(token, int) and out and out[-1] in ("+", "-", ",") and "[" in out and "]" not in out[_last(out, "[") :]:
            sign = out.pop()
            value = (-token if sign == "-" else token) % (1 << 64)
            out += [",", value] if value else []
        else:
            out.append(token)
    return out


def _last(tokens: list[object], wanted: str) -> int:
    return len(tokens) - 1 - tokens[::-1].index(wanted)


@cache
def _keystone(machine: Machine) -> Any:  # noqa: ANN401  its binding has no types
    try:
        keystone: Any = import_module("keystone")
    except ImportError as error:
        raise HotpatchError("keystone-engine cannot be loaded on this platform; assemble elsewhere and pass bytes") from error
    if machine is Machine.X64:
        return keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
    return keystone.Ks(keystone.KS_ARCH_ARM64, keystone.KS_MODE_LITTLE_ENDIAN)


@cache
def _capstone(machine: Machine) -> Any:  # noqa: ANN401  its binding has no types
    if machine is Machine.X64:
        return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)  # type: ignore[no-untyped-call]
    return capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)  # type: ignore[no-untyped-call]
