"""Arm64: displaced instructions moved elsewhere, so that the original function stays callable.

Words are built from the Arm Architecture Reference Manual's encodings (C6.2). Beyond reach, addresses come from literals behind the code,
and only x16 and x17 are used, which the procedure call standard leaves to such veneers, and of these only what no displaced instruction
mentions.

What a moved call leaves in x30 is the address behind its copy: a callee that is walked or returns goes through the trampoline. ADR and
ADRP keep giving the original address, also where it lies in the displaced bytes. A trap (BRK, UDF) is taken to come back.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING

from hotpatch.arch import arm64_fields as fields
from hotpatch.arch import arm64_words as a64
from hotpatch.arch.arm64_references import LITERAL_BYTES, branches
from hotpatch.arch.common import cannot_relocate
from hotpatch.arch.model import FixupKind, Flow, Trampoline, Use
from hotpatch.errors import InputError, Rule

if TYPE_CHECKING:
    from hotpatch.arch.common import LiteDecoder

_B = 0x14000000
_BL = 0x94000000
_BR = 0xD61F0000
_BLR = 0xD63F0000
_ADR = 0x10000000
_ADRP = 0x90000000
_LDR_LITERAL = 0x58000000

_LOAD_FROM_REGISTER = {
    0x18: 0xB9400000,  # ldr w, [x]
    0x58: 0xF9400000,  # ldr x, [x]
    0x98: 0xB9800000,  # ldrsw x, [x]
    0xD8: 0xF9800000,  # prfm op, [x]
    0x1C: 0xBD400000,  # ldr s, [x]
    0x5C: 0xFD400000,  # ldr d, [x]
    0x9C: 0x3DC00000,  # ldr q, [x]
}
"""By the top byte of a load (literal): the same access through a register, offset 0."""

_GENERAL_LOADS = (0x18, 0x58, 0x98)
_SCRATCH = (16, 17)
_ADDRESS_MASK = (1 << 64) - 1


class _Space(Enum):
    """What the target of an emitted word counts in."""

    ADDRESS = "address"
    MOVED = "moved"  # index of a displaced instruction
    LITERAL = "literal"  # value of a literal


@dataclass(frozen=True, slots=True)
class _Emitted:
    word: int
    kind: FixupKind | None = None
    target: int = 0
    space: _Space = _Space.ADDRESS


def trampoline(code: bytes, source_va: int, trampoline_va: int, displaced: int, decoder: LiteDecoder) -> Trampoline:
    """See :meth:`hotpatch.arch.base.Architecture.trampoline`.

    Raises:
        CannotRelocate: FUNCTION_TOO_SHORT, UNDECODABLE, BRANCH_INTO_DISPLACED, or CANNOT_RELOCATE (a split exclusive pair, a load of
        displaced bytes,
            no scratch register, a branch that does not reach its moved target).
        InputError: ``displaced`` is not positive, or an address is no multiple of four.
    """
    if displaced <= 0:
        raise InputError("displaced", f"{displaced} bytes cannot be displaced; give the size of the redirect")
    for name, value in (("source_va", source_va), ("trampoline_va", trampoline_va)):
        if value % a64.WORD:
            raise InputError(name, f"0x{value:x} is no multiple of {a64.WORD}; give where an Arm64 instruction stands")
    count = -(-displaced // a64.WORD)
    if len(code) < count * a64.WORD:
        reason = (
            f"the function has {len(code)} bytes and {displaced} would be displaced; redirect it by another strategy, or patch its callers"
        )
        raise cannot_relocate(
            Rule.FUNCTION_TOO_SHORT, reason, address=source_va, code=code, instruction=decoder.text(code, source_va), size=len(code)
        )
    mover = _Mover(code, source_va, trampoline_va, count, decoder)
    mover.check()
    return mover.move()


@lru_cache(maxsize=1 << 10)
def _decodable(decoder: LiteDecoder, code: bytes) -> int:
    """Instructions of ``code`` up to the first word that is none; remembered, since many functions begin alike."""
    return len(decoder.rows(code, 0))


@dataclass(slots=True)
class _Mover:
    code: bytes
    source_va: int
    trampoline_va: int
    count: int
    decoder: LiteDecoder
    words: tuple[int, ...] = ()
    emitted: list[_Emitted] = field(default_factory=list)

    @property
    def resume_va(self) -> int:
        return self.source_va + self.count * a64.WORD

    @property
    def site(self) -> int:
        """Address of the next word to be emitted."""
        return self.trampoline_va + len(self.emitted) * a64.WORD

    # refusing ----------------------------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Refuse what cannot be moved, whatever the distance."""
        end = self.count * a64.WORD
        decoded = _decodable(self.decoder, self.code[:end])
        if decoded < self.count:
            raise self._refused(
                Rule.UNDECODABLE, decoded, "is no known instruction; leave the function out, or redirect it where it is decodable"
            )
        self.words = struct.unpack_from(f"<{self.count}I", self.code)
        self._check_exclusive()
        self._check_branches()

    def _check_exclusive(self) -> None:
        opened: int | None = None
        for index, word in enumerate(self.words):
            if a64.is_exclusive_load(word):
                opened = index
            elif a64.is_exclusive_store(word):
                if opened is None:
                    raise self._refused(
                        Rule.CANNOT_RELOCATE, index, "ends an exclusive sequence that begins elsewhere; redirect at another place"
                    )
                opened = None
            elif a64.is_clear_exclusive(word):
                opened = None
            elif opened is not None and word >> 24 in LITERAL_BYTES:
                raise self._refused(Rule.CANNOT_RELOCATE, index, "loads a literal inside an exclusive sequence; redirect at another place")
        if opened is not None:
            reason = "begins an exclusive sequence whose store stays behind; a jump between may lose the reservation; redirect its callers"
            raise self._refused(Rule.CANNOT_RELOCATE, opened, reason)

    def _check_branches(self) -> None:
        """Refuse what would run overwritten words. A call of the entry is what redirects are for; a branch back to it is a loop."""
        for offset, target, use in branches(self.code, self.source_va, self.count * a64.WORD):
            first = self.source_va + (a64.WORD if use is Use.CALL else 0)
            if first <= target < self.resume_va:
                reason = f"branches to 0x{target:x}, into the displaced bytes; use a redirect that displaces less"
                raise self._refused(Rule.BRANCH_INTO_DISPLACED, offset // a64.WORD, reason, target=target)

    def _refused(self, rule: Rule, index: int, reason: str, **more: object) -> Exception:
        address = self.source_va + index * a64.WORD
        raw = self.code[index * a64.WORD : (index + 1) * a64.WORD]
        text = self.decoder.text(raw, address)
        return cannot_relocate(rule, f"{text} at 0x{address:x} {reason}", address=address, code=raw, instruction=text, **more)

    # moving ------------------------------------------------------------------------------------------------------------------------------

    def move(self) -> Trampoline:
        """The trampoline."""
        offsets: dict[int, int] = {}
        for index, word in enumerate(self.words):
            offsets[index * a64.WORD] = len(self.emitted) * a64.WORD
            self._move_one(index, word)
        if self._falls_out():
            self._jump(self.count - 1, self.resume_va)
        return Trampoline(self._link(offsets), self.resume_va, offsets)

    def _move_one(self, index: int, word: int) -> None:
        form = a64.FORM_OF_TOP[word >> 24]
        if form is None:
            self.emitted.append(_Emitted(word))
            return
        kind = form.kind
        target = fields.decode(kind, word, self.source_va + index * a64.WORD)
        if kind in (FixupKind.REL21, FixupKind.PAGEBASE_REL21):
            self._load_address(word, kind, target)
        elif kind is FixupKind.LITERAL19:
            self._move_literal(index, word, target)
        elif self.source_va <= target < self.resume_va:
            moved = _B if a64.is_conditional_always(word) else word
            moved_kind = FixupKind.BRANCH26 if a64.is_conditional_always(word) else kind
            self.emitted.append(_Emitted(moved, moved_kind, (target - self.source_va) // a64.WORD, _Space.MOVED))
        elif form.use is Use.CALL:
            self._jump(index, target, _BL, _BLR)
        elif a64.flow_of(word) is Flow.JUMP:
            self._jump(index, target)
        else:
            self._branch(index, word, kind, target)

    def _jump(self, index: int, target: int, direct: int = _B, indirect: int = _BR) -> None:
        """``direct`` to ``target``, or ``indirect`` through a scratch register."""
        if self._reaches(FixupKind.BRANCH26, direct, self.site, target):
            self.emitted.append(_Emitted(direct, FixupKind.BRANCH26, target))
            return
        scratch = self._scratch(index)
        self._load_literal(scratch, target)
        self.emitted.append(_Emitted(indirect | scratch << 5))

    def _branch(self, index: int, word: int, kind: FixupKind, target: int) -> None:
        """The conditional branch itself, or its opposite over a jump."""
        if self._reaches(kind, word, self.site, target):
            self.emitted.append(_Emitted(word, kind, target))
            return
        at = len(self.emitted)
        self.emitted.append(_Emitted(0))
        self._jump(index, target)
        self.emitted[at] = _Emitted(a64.invert_condition(word), kind, self.site)

    def _load_address(self, word: int, kind: FixupKind, address: int) -> None:
        """``address`` into Rd: by the same instruction where it reaches, else by the other one where that is exact, else from a literal."""
        register = a64.rd(word)
        other = (_ADRP, FixupKind.PAGEBASE_REL21) if kind is FixupKind.REL21 else (_ADR, FixupKind.REL21)
        for form, how in ((word, kind), (other[0] | register, other[1])):
            exact = how is FixupKind.REL21 or not address % fields.PAGE
            if exact and self._reaches(how, form, self.site, address):
                self.emitted.append(_Emitted(form, how, address))
                return
        self._load_literal(register, address)

    def _move_literal(self, index: int, word: int, target: int) -> None:
        """A load that reads the original literal when it runs; a prefetch stays one."""
        top = word >> 24
        if target < self.resume_va and target + LITERAL_BYTES[top] > self.source_va and LITERAL_BYTES[top]:
            raise self._refused(
                Rule.CANNOT_RELOCATE, index, "loads displaced bytes, which the redirect overwrites; use a redirect that displaces less"
            )
        if self._reaches(FixupKind.LITERAL19, word, self.site, target):
            self.emitted.append(_Emitted(word, FixupKind.LITERAL19, target))
            return
        register = a64.rd(word)
        base = register if top in _GENERAL_LOADS and register != a64.ZERO_REGISTER else self._scratch(index)
        self._load_literal(base, target)
        self.emitted.append(_Emitted(_LOAD_FROM_REGISTER[top] | base << 5 | register))

    def _load_literal(self, register: int, value: int) -> None:
        self.emitted.append(_Emitted(_LDR_LITERAL | register, FixupKind.LITERAL19, value & _ADDRESS_MASK, _Space.LITERAL))

    def _scratch(self, index: int) -> int:
        for register in _SCRATCH:
            if not any(_mentions(word, register) for word in self.words):
                return register
        raise self._refused(
            Rule.CANNOT_RELOCATE, index, "needs a scratch register, and x16 and x17 are both in use; place the trampoline nearer"
        )

    @staticmethod
    def _reaches(kind: FixupKind, word: int, site: int, target: int) -> bool:
        return fields.encode(kind, word, site, target) is not None

    def _falls_out(self) -> bool:
        """Whether control can reach the end of the displaced instructions."""
        seen: set[int] = set()
        work = [0]
        while work:
            index = work.pop()
            if index == self.count:
                return True
            if index in seen:
                continue
            seen.add(index)
            word = self.words[index]
            flow = a64.flow_of(word)
            if flow not in (Flow.JUMP, Flow.JUMP_INDIRECT, Flow.RETURN):
                work.append(index + 1)
            form = a64.FORM_OF_TOP[word >> 24]
            if form is not None and flow in (Flow.JUMP, Flow.BRANCH):
                target = fields.decode(form.kind, word, self.source_va + index * a64.WORD)
                if self.source_va <= target < self.resume_va:
                    work.append((target - self.source_va) // a64.WORD)
        return False

    def _link(self, offsets: dict[int, int]) -> bytes:
        """The emitted words with their targets encoded, then the literals, each at a multiple of eight."""
        size = len(self.emitted) * a64.WORD
        literals: dict[int, int] = {}
        values = [one.target for one in self.emitted if one.space is _Space.LITERAL]
        if values:
            size += -(self.trampoline_va + size) % 8
            for value in values:
                if value not in literals:
                    literals[value] = size + 8 * len(literals)
        linked = bytearray()
        for at, one in enumerate(self.emitted):
            word: int | None = one.word
            if one.kind is not None:
                target = one.target
                if one.space is _Space.MOVED:
                    target = self.trampoline_va + offsets[one.target * a64.WORD]
                elif one.space is _Space.LITERAL:
                    target = self.trampoline_va + literals[one.target]
                word = fields.encode(one.kind, one.word, self.trampoline_va + at * a64.WORD, target)
                if word is None:
                    index = max(source for source, moved in offsets.items() if moved <= at * a64.WORD) // a64.WORD
                    raise self._refused(Rule.CANNOT_RELOCATE, index, "does not reach its moved target; use a redirect that displaces less")
            linked += struct.pack("<I", word)
        linked += bytes(size - len(linked))
        return bytes(linked) + b"".join(struct.pack("<Q", value) for value in literals)


def _mentions(word: int, register: int) -> bool:
    """Whether ``word`` may read or write ``register``; calls do not count, they leave x16 and x17 undefined."""
    form = a64.FORM_OF_TOP[word >> 24]
    if form is not None:
        names_none = form.kind is FixupKind.BRANCH26 or word >> 24 in (0x54, 0xD8, 0x1C, 0x5C, 0x9C)
        return not names_none and a64.rd(word) == register
    if a64.flow_of(word) in (Flow.CALL_INDIRECT, Flow.JUMP_INDIRECT, Flow.RETURN):
        return a64.rn(word) == register or a64.rd(word) == register
    if word >> 26 & 7 == 0b100:  # data processing, immediate
        return a64.rd(word) == register or a64.rn(word) == register
    if a64.is_hint(word):
        return bool(a64.written_registers(word) >> register & 1)
    return register in (word & 31, word >> 5 & 31, word >> 10 & 31, word >> 16 & 31)
