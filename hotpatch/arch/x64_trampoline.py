"""x64: moving the instructions that a redirect overwrites.

What is kept and what is not:

- A moved call pushes a return address inside the trampoline, so a stack may hold trampoline addresses (``Trampoline.offsets`` maps them
  back). The idiom ``call next`` reads that address and is refused.
- A call of the function's own entry stays a call of the entry, and so goes through the redirect. A *jump* to the entry from a moved
  instruction goes to the moved entry; one from the instructions that stay goes to the entry, and so through the redirect.
- Flags and registers are never touched by what is added: counted jumps become a short hop over a ``jmp rel32``, and jumps and calls that
  rel32 cannot carry from the trampoline's place go through a literal behind the code.

Source of encodings: Intel SDM volume 2 (Jcc, JMP, CALL, JRCXZ, LOOP, XBEGIN).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

from hotpatch.arch import x64_encoding as encoding
from hotpatch.arch import x64_redirect
from hotpatch.arch.common import cannot_relocate, holds
from hotpatch.arch.model import FixupKind, Flow, Trampoline
from hotpatch.arch.x64_binding import bind
from hotpatch.arch.x64_padding import padding_reaches
from hotpatch.errors import HotpatchError, OutOfReach, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hotpatch.arch.common import Row, Rows

_CALL_REL32 = b"\xe8"
_CALL_THROUGH = b"\xff\x15"
_NEAR_CONDITION = 0x80
_SHORT_CONDITION = 0x70
_LITERAL_SIZE = 8
_LITERAL_FILLER = b"\xcc"
_LONGEST_INSTRUCTION = 15
_REMEMBERED = 1024
"""Bytes of the largest function whose decoded instructions are kept for the next time."""
_DIRECT = frozenset((Flow.CALL, Flow.JUMP, Flow.BRANCH))


@dataclass(slots=True)
class _Piece:
    """One instruction of the source; ``field`` is offset and size of its distance (direct branch) or displacement (RIP-relative)."""

    offset: int
    number: int
    code: bytes
    flow: Flow
    field: tuple[int, int] | None
    rip_relative: bool
    eip_relative: bool

    @property
    def end(self) -> int:
        return self.offset + len(self.code)

    @property
    def target(self) -> int | None:
        """Source offset of what the instruction refers to."""
        if self.field is None:
            return None
        start, size = self.field
        return self.end + int.from_bytes(self.code[start : start + size], "little", signed=True)

    @property
    def falls_through(self) -> bool:
        """Whether control may go on behind it."""
        if self.flow in (Flow.JUMP, Flow.RETURN, Flow.JUMP_INDIRECT):
            return False
        return not encoding.never_returns(self.number, self.code)


@lru_cache(maxsize=64)
def _rows(code: bytes) -> Rows:
    """Remembered, because whoever patches one process often patches more of the same program, and the tables of a decoder are large."""
    return encoding.decoder().rows(code, 0)


def _piece(row: Row) -> _Piece:
    """The decoded instruction ``row``, whose address is its offset."""
    number, offset, size, encoded, _, operands = row
    flow = encoding.FLOW.get(number, Flow.NEXT)
    relative = holds(operands, b"[rip")
    where: tuple[int, int] | None = None
    if relative:
        where = (encoding.modrm_offset(encoded) + 1, 4)
    elif flow in _DIRECT:
        where = encoding.branch_field(encoded, size)
    return _Piece(offset, number, encoded[:size], flow, where, relative, holds(operands, b"[eip"))


def _referring(rows: Rows, first: int) -> Iterator[_Piece]:
    """Those instructions from position ``first`` on that may refer to another by its distance."""
    flows = encoding.FLOW
    branches = [position for position, number in enumerate(rows.numbers()) if number in flows and flows[number] in _DIRECT]
    for position in sorted({*branches, *rows.holding(encoding.RIP_RELATIVE)}):
        if position >= first:
            yield _piece(rows[position])


@dataclass(slots=True)
class _Move:
    """The work of moving one entry; offsets are from the first source byte, positions from the first byte of the copy."""

    code: bytes
    source: int
    trampoline: int
    displaced: int
    out: bytearray = field(default_factory=bytearray)
    offsets: dict[int, int] = field(default_factory=dict)
    inner: list[tuple[int, int]] = field(default_factory=list)
    """Position of a rel32 field → source offset that it must lead to, within the copy."""
    literals: list[tuple[int, int]] = field(default_factory=list)
    """Position of a disp32 field → address that its literal must hold."""

    def refuse(self, rule: Rule, piece: _Piece, reason: str, **more: object) -> NoReturn:
        address = self.source + piece.offset
        text = encoding.decoder().text(piece.code, address)
        raise cannot_relocate(rule, f"`{text}` at 0x{address:x} {reason}", address=address, code=piece.code, instruction=text, **more)

    def into_displaced(self, offset: int) -> bool:
        """Whether ``offset`` is among the overwritten bytes, the first one (the entry itself) left out."""
        return 0 < offset < self.displaced

    # choosing ---------------------------------------------------------------------------------------------------------------------------

    def choose(self) -> list[_Piece]:
        """The instructions to move, after checking that no other one refers to the bytes that they leave."""
        rows = _rows(self.code) if len(self.code) <= _REMEMBERED else encoding.decoder().rows(self.code, 0)
        moved: list[_Piece] = []
        reached = 0
        for piece in map(_piece, rows):
            if reached >= self.displaced:
                break
            moved.append(piece)
            reached = piece.end
            if reached < self.displaced and not piece.falls_through and not self._continues(moved):
                self._check_rest(_referring(rows, len(moved)))
                if not padding_reaches(self.code, reached, self.displaced):
                    self._too_short(reached)
                return moved
        if reached < self.displaced:
            self._undecodable(reached)
        self._check_rest(_referring(rows, len(moved)))
        decoded = sum(rows.place(len(rows) - 1))
        if len(self.code) - decoded >= _LONGEST_INSTRUCTION:
            self._undecodable(decoded)
        return moved

    def _continues(self, moved: list[_Piece]) -> bool:
        """Whether a moved branch leads to bytes behind the last moved instruction that are displaced too."""
        end = moved[-1].end
        return any(piece.target is not None and not piece.rip_relative and end <= piece.target < self.displaced for piece in moved)

    def _too_short(self, length: int) -> NoReturn:
        raise cannot_relocate(
            Rule.FUNCTION_TOO_SHORT,
            f"the function at 0x{self.source:x} ends after {length} of the {self.displaced} bytes that the redirect takes and no padding "
            "follows: choose a strategy that displaces less",
            address=self.source,
            code=self.code[: self.displaced],
            instruction=encoding.decoder().text(self.code, self.source),
            length=length,
            displaced=self.displaced,
        )

    def _undecodable(self, offset: int) -> NoReturn:
        address = self.source + offset
        raise cannot_relocate(
            Rule.UNDECODABLE,
            f"the bytes at 0x{address:x} are no whole instruction: pass the function's code only, and all of the displaced instructions",
            address=address,
            code=self.code[offset : offset + _LONGEST_INSTRUCTION],
            instruction="",
        )

    def _check_rest(self, rest: Iterable[_Piece]) -> None:
        """Refuse what would run, or read, overwritten bytes. A call of the entry is what redirects are for; a jump back to it is a loop."""
        for piece in rest:
            target = piece.target
            back = piece.flow in (Flow.JUMP, Flow.BRANCH) and target == 0
            if target is not None and (back or self.into_displaced(target)):
                self.refuse(
                    Rule.BRANCH_INTO_DISPLACED,
                    piece,
                    f"refers to 0x{self.source + target:x}, into the {self.displaced} bytes that the redirect overwrites: "
                    "choose a strategy that displaces less",
                    target=self.source + target,
                    displaced=self.displaced,
                )

    # emitting ---------------------------------------------------------------------------------------------------------------------------

    def emit(self, piece: _Piece) -> None:
        """Append the moved form of ``piece``."""
        self.offsets[piece.offset] = len(self.out)
        if piece.rip_relative:
            self._emit_rip_relative(piece)
        elif piece.field is not None:
            self._emit_branch(piece)
        elif piece.eip_relative:
            self.refuse(
                Rule.CANNOT_RELOCATE, piece, "addresses memory relative to the low half of its own address: leave this function alone"
            )
        else:
            self.out += piece.code

    def _emit_rip_relative(self, piece: _Piece) -> None:
        assert piece.field is not None
        assert piece.target is not None
        takes_entry = piece.target == 0 and encoding.is_lea(piece.number)
        if 0 <= piece.target < self.displaced and not takes_entry:
            self.refuse(
                Rule.CANNOT_RELOCATE,
                piece,
                f"refers to 0x{self.source + piece.target:x}, among the bytes that the redirect overwrites: leave this function alone",
                target=self.source + piece.target,
            )
        start, _ = piece.field
        trailing = len(piece.code) - start - 4
        target = self.source + piece.target
        moved = bytearray(piece.code)
        try:
            moved[start : start + 4] = bind(FixupKind.REL32, self.trampoline + len(self.out) + start, target - trailing)
        except OutOfReach:
            self._refuse_reach(piece, target)
        self.out += moved

    def _refuse_reach(self, piece: _Piece, target: int) -> NoReturn:
        here = self.trampoline + len(self.out)
        self.refuse(
            Rule.OUT_OF_REACH,
            piece,
            f"refers to 0x{target:x}, which is more than 2 GiB from its new place 0x{here:x}: put the trampoline nearer to the function",
            target=target,
            site=here,
            distance=target - here,
        )

    def _emit_branch(self, piece: _Piece) -> None:
        assert piece.target is not None
        legacy, opcode = encoding.prefixes(piece.code)
        if encoding.OPERAND_SIZE_PREFIX in legacy:
            self.refuse(
                Rule.CANNOT_RELOCATE, piece, "is a branch whose length processors disagree on (prefix 66): leave this function alone"
            )
        target = self.source + piece.target
        if piece.number == encoding.CALL:
            if piece.target == piece.end or self.into_displaced(piece.target):
                self.refuse(
                    Rule.CANNOT_RELOCATE, piece, "calls into its own displaced bytes to learn where it runs: leave this function alone"
                )
            self._emit_jump(legacy + _CALL_REL32, _CALL_THROUGH, target)
            return
        inside = 0 <= piece.target < self.displaced
        if inside and piece.number == encoding.TRANSACTION:
            self.refuse(Rule.CANNOT_RELOCATE, piece, "aborts into the displaced bytes: leave this function alone")
        goal = None if not inside else piece.target
        if piece.number == encoding.JUMP:
            self._emit_jump(legacy + x64_redirect.JUMP_REL32, x64_redirect.JUMP_THROUGH, target, goal)
        elif piece.number in encoding.COUNTED_JUMPS:
            self._emit_counted(piece.code[: opcode + 1], target, goal)
        elif piece.number == encoding.TRANSACTION:
            if not self._reaches(len(piece.code), target):
                self._refuse_reach(piece, target)
            self._emit_near(piece.code[:-4], target, None)
        else:
            condition = piece.code[opcode + 1 if piece.code[opcode] == 0x0F else opcode] & 0x0F
            self._emit_conditional(legacy, condition, target, goal)

    def _reaches(self, size: int, target: int) -> bool:
        """Whether an instruction of ``size`` bytes that ends in a rel32 can reach ``target`` from here."""
        return -(2**31) <= target - (self.trampoline + len(self.out) + size) < 2**31

    def _emit_near(self, opcode: bytes, target: int, goal: int | None) -> None:
        site = len(self.out) + len(opcode)
        if goal is None:
            self.out += opcode + bind(FixupKind.REL32, self.trampoline + site, target)
        else:
            self.inner.append((site, goal))
            self.out += opcode + bytes(4)

    def _emit_through(self, opcode: bytes, target: int) -> None:
        self.out += opcode + bytes(4)
        self.literals.append((len(self.out) - 4, target))

    def _emit_jump(self, near: bytes, through: bytes, target: int, goal: int | None = None) -> None:
        if goal is not None or self._reaches(len(near) + 4, target):
            self._emit_near(near, target, goal)
        else:
            self._emit_through(through, target)

    def _emit_conditional(self, legacy: bytes, condition: int, target: int, goal: int | None) -> None:
        near = legacy + bytes((0x0F, _NEAR_CONDITION | condition))
        if goal is not None or self._reaches(len(near) + 4, target):
            self._emit_near(near, target, goal)
        else:
            self.out += bytes((_SHORT_CONDITION | (condition ^ 1), x64_redirect.JUMP_THROUGH_SIZE))
            self._emit_through(x64_redirect.JUMP_THROUGH, target)

    def _emit_counted(self, opcode: bytes, target: int, goal: int | None) -> None:
        """``jrcxz taken; jmp behind; taken: jmp target; behind:``; the counting is done once and no flag is touched."""
        hop = x64_redirect.JUMP_REL8
        hop_size = len(hop) + 1
        far = goal is None and not self._reaches(len(opcode) + 1 + hop_size + x64_redirect.JUMP_REL32_SIZE, target)
        self.out += opcode + bytes((hop_size,))
        self.out += hop + bytes((x64_redirect.JUMP_THROUGH_SIZE if far else x64_redirect.JUMP_REL32_SIZE,))
        if far:
            self._emit_through(x64_redirect.JUMP_THROUGH, target)
        else:
            self._emit_near(x64_redirect.JUMP_REL32, target, goal)

    def leave(self, target: int) -> None:
        """Append the jump back."""
        self._emit_jump(x64_redirect.JUMP_REL32, x64_redirect.JUMP_THROUGH, target)

    # finishing --------------------------------------------------------------------------------------------------------------------------

    def bind_inner(self, moved: list[_Piece]) -> None:
        """Fill in the branches that stay within the copy."""
        for site, goal in self.inner:
            if goal not in self.offsets:
                culprit = next(piece for piece in moved if piece.target == goal and not piece.rip_relative)
                self.refuse(Rule.CANNOT_RELOCATE, culprit, "branches into the middle of a displaced instruction: leave this function alone")
            self.out[site : site + 4] = bind(FixupKind.REL32, site, self.offsets[goal])

    def bind_literals(self) -> None:
        """Append the literals, naturally aligned, each address once."""
        if not self.literals:
            return
        self.out += _LITERAL_FILLER * (-(self.trampoline + len(self.out)) % _LITERAL_SIZE)
        places: dict[int, int] = {}
        for site, target in self.literals:
            if target not in places:
                places[target] = len(self.out)
                self.out += target.to_bytes(_LITERAL_SIZE, "little")
            self.out[site : site + 4] = bind(FixupKind.REL32, site, places[target])


def move(code: bytes, source: int, trampoline: int, displaced: int) -> Trampoline:
    """Move the whole instructions that cover ``displaced`` bytes of ``code`` from ``source`` to ``trampoline``.

    Raises:
        CannotRelocate: With the rule, the instruction and its bytes.
        HotpatchError: ``displaced`` is not positive.
    """
    if displaced < 1:
        raise HotpatchError(f"a redirect displaces at least one byte, not {displaced}")
    work = _Move(bytes(code), source, trampoline, displaced)
    if len(code) < displaced:
        work._too_short(len(code))
    moved = work.choose()
    for piece in moved:
        work.emit(piece)
    resume = source + moved[-1].end
    if moved[-1].falls_through:
        work.leave(resume)
    work.bind_inner(moved)
    work.bind_literals()
    return Trampoline(bytes(work.out), resume, work.offsets)
