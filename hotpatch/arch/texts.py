"""Texts of instructions, as Capstone writes them, with a label in the place of the address that they encode."""

from __future__ import annotations

import re

from hotpatch.arch.model import FixupKind, Use

_LAST_OPERAND = re.compile(r"#?-?(?:0x)?[0-9a-f]+$")
_NUMBER = re.compile(r"\b0x[0-9a-f]+")
_RIP_RELATIVE = re.compile(r"\[rip(?: [+-] (?:0x)?[0-9a-f]+)?\]")
_BASE_AND_OFFSET = re.compile(r"\[(\w+)(?:, #-?(?:0x)?[0-9a-f]+)?\]")


def with_place(text: str, label: str) -> str:
    """``text`` of an instruction that refers to its own code by distance, with ``label`` instead."""
    replaced = _RIP_RELATIVE.sub(lambda _: f"[{label}]", text, count=1)
    return replaced if replaced != text else _LAST_OPERAND.sub(lambda _: label, text)


def with_label(text: str, kind: FixupKind, use: Use, target: int, label: str) -> str:
    """``text`` of an instruction with a reference of ``kind`` to ``target`` (an RVA), with ``label`` instead of what it encodes of it."""
    match kind:
        case FixupKind.REL32 if use is Use.DATA:
            return _RIP_RELATIVE.sub(lambda _: f"[{label}]", text, count=1)
        case FixupKind.PAGEOFFSET_12A:
            return _LAST_OPERAND.sub(lambda _: f"lo12({label})", text)
        case FixupKind.PAGEOFFSET_12L:
            return _BASE_AND_OFFSET.sub(lambda found: f"[{found[1]}, lo12({label})]", text, count=1)
        case FixupKind.ADDR32NB:
            return text.replace(f"0x{target:x}", label)
        case FixupKind.ADDR64:
            return _NUMBER.sub(lambda _: label, text, count=1)
        case FixupKind.PAGEBASE_REL21:
            return _LAST_OPERAND.sub(lambda _: f"page({label})", text)
        case _:
            return _LAST_OPERAND.sub(lambda _: label, text)
