"""x64: what registers hold, as far as addresses and jump tables need it.

A function is interpreted block by block until nothing changes. A register or stack slot holds a known address, an entry loaded from a
table, a table entry made into an address, or an unknown value that is named by where it came from, so that copies of it share its bound.

Where paths meet with different values the result is unknown, but for the image base: it stays where *any* path has it. Missing a
displacement that is an RVA would be silent damage in a patch, and code that adds a large displacement to anything but the image base in a
register that may hold it does not come out of compilers. For the same reason blocks that only a jump table reaches start with what the
function's indirect jumps leave. Displacements below the first page of sections are fields of the headers, not references.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from capstone import x86_const as x86

from hotpatch.arch import x64_encoding as encoding
from hotpatch.arch import x64_operands
from hotpatch.arch.base import FixupKind, Flow, Reference, Use
from hotpatch.arch.x64_operands import PARENTS

if TYPE_CHECKING:
    from hotpatch.arch.common import Row
    from hotpatch.arch.x64_operands import Memory

LOWEST_SECTION_RVA = 0x1000
"""Headers take at least one page (PE format, "SectionAlignment")."""

_VISITS_PER_BLOCK = 8


class Unknown(NamedTuple):
    """A value made at address ``at`` (-1: at the function's entry) in ``place``."""

    at: int
    place: str


class Entry(NamedTuple):
    """An entry loaded from the table at address ``table`` by ``selector``, which is below ``limit`` where a check was seen."""

    table: int
    size: int
    signed: bool
    selector: Value
    limit: int | None


class Destination(NamedTuple):
    """``entry`` with ``anchor`` added."""

    entry: Entry
    anchor: int


Value = int | Unknown | Entry | Destination
"""An ``int`` is a known address."""


class Dispatch(NamedTuple):
    """An indirect jump through a table; ``anchor`` is ``None`` where entries are whole addresses."""

    jump: int
    entry: Entry
    anchor: int | None


@dataclass(slots=True)
class _State:
    """What places hold, what is known to be below what, and what the flags compare."""

    values: dict[str, Value] = field(default_factory=dict)
    bounds: dict[Value, int] = field(default_factory=dict)
    compared: tuple[Value, int] | None = None

    def copy(self) -> _State:
        return _State(dict(self.values), dict(self.bounds), self.compared)

    def get(self, place: str) -> Value:
        return self.values.get(place, Unknown(-1, place))

    def join(self, other: _State, block: int, image_base: int) -> bool:
        """Merge ``other`` in, at the start of ``block``; whether anything changed."""
        changed = False
        for place in self.values.keys() | other.values.keys():
            mine, theirs = self.get(place), other.get(place)
            if mine in (theirs, image_base):
                continue
            merged: Value = image_base if theirs == image_base else Unknown(block, place)
            if merged != mine:
                self.values[place] = merged
                changed = True
        for value, bound in list(self.bounds.items()):
            wider = other.bounds.get(value)
            if wider is None:
                del self.bounds[value]
                changed = True
            elif wider > bound:
                self.bounds[value] = wider
                changed = True
        if self.compared is not None and self.compared != other.compared:
            self.compared = None
            changed = True
        return changed


_COPIES = frozenset((x86.X86_INS_MOV, x86.X86_INS_MOVABS, x86.X86_INS_MOVZX, x86.X86_INS_MOVSX, x86.X86_INS_MOVSXD))
_SIGNED_LOADS = frozenset((x86.X86_INS_MOVSX, x86.X86_INS_MOVSXD))
_EXTENSIONS_IN_PLACE = frozenset((x86.X86_INS_CDQE, x86.X86_INS_CWDE))
_KEEPS_FLAGS = _COPIES | encoding.instruction_numbers(
    "LEA CDQE CWDE CDQ CQO NOP PUSH POP MOVAPS MOVUPS MOVDQA MOVDQU MOVQ MOVD MOVSS MOVSD XORPS PXOR "
    "JA JAE JB JBE JE JNE CMOVA CMOVAE CMOVB CMOVBE CMOVE CMOVNE SETA SETAE SETB SETBE SETE SETNE"
)


def _number(text: str) -> int | None:
    return int(text, 0) if text[0].isdigit() or text[0] == "-" else None


class Interpreter:
    """One function, interpreted; read ``references`` and ``dispatches`` after :meth:`run`."""

    def __init__(self, code: bytes, address: int, image_base: int) -> None:
        """Decode ``code``."""
        self.address, self.image_base = address, image_base
        self.rows: list[Row] = list(encoding.decoder().rows(code, address))
        self.operands = [x64_operands.split(row[5]) for row in self.rows]
        self.places = [row[1] for row in self.rows]
        self.references: list[Reference] = []
        self.dispatches: list[Dispatch] = []
        self._recording = False
        self._targets = [self._target(row) for row in self.rows]
        self._leaders = self._find_leaders()
        self._entries: dict[int, _State] = {}
        self._visits: dict[int, int] = {}

    # blocks -----------------------------------------------------------------------------------------------------------------------------

    def _target(self, row: Row) -> int | None:
        number, at, size, encoded, _, _ = row
        if encoding.FLOW.get(number) not in (Flow.JUMP, Flow.BRANCH) or (found := encoding.branch_field(encoded, size)) is None:
            return None
        start, width = found
        return at + size + int.from_bytes(encoded[start : start + width], "little", signed=True)

    def _index(self, address: int) -> int | None:
        position = bisect_left(self.places, address)
        return position if position < len(self.places) and self.places[position] == address else None

    def _find_leaders(self) -> list[int]:
        leaders = {0}
        for position, (row, target) in enumerate(zip(self.rows, self._targets, strict=True)):
            if target is not None and (found := self._index(target)) is not None:
                leaders.add(found)
            if encoding.FLOW.get(row[0], Flow.CALL) is not Flow.CALL and position + 1 < len(self.rows):
                leaders.add(position + 1)
        return sorted(leaders)

    # running ----------------------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Interpret until nothing changes, then go through every block once more and record."""
        if not self.rows:
            return
        self._settle({0: _State()})
        unreached = [leader for leader in self._leaders if leader not in self._entries]
        while unreached:
            self._settle({unreached[0]: self._left_by_indirect_jumps(unreached[0])})
            unreached = [leader for leader in unreached if leader not in self._entries]
        self._recording = True
        for leader in self._leaders:
            self._block(leader, self._entries[leader].copy())

    def _settle(self, entries: dict[int, _State]) -> None:
        self._entries |= entries
        work = sorted(entries)
        while work:
            leader = work.pop(0)
            self._visits[leader] = self._visits.get(leader, 0) + 1
            if self._visits[leader] > _VISITS_PER_BLOCK:
                continue
            for successor, state in self._block(leader, self._entries[leader].copy()):
                known = self._entries.get(successor)
                if known is None:
                    self._entries[successor] = state
                elif not known.join(state, self.places[successor], self.image_base):
                    continue
                if successor not in work:
                    work.append(successor)

    def _left_by_indirect_jumps(self, leader: int) -> _State:
        """What every jump through a register or table leaves, for blocks that nothing else leads to."""
        left: _State | None = None
        for position, row in enumerate(self.rows):
            if row[0] != encoding.JUMP or self._targets[position] is not None or b"[rip" in row[5]:
                continue
            block = self._leaders[bisect_left(self._leaders, position + 1) - 1]
            if block not in self._entries:
                continue
            state = self._entries[block].copy()
            for step in range(block, position + 1):
                self._step(step, state)
            state.bounds, state.compared = {}, None
            if left is None:
                left = state
            else:
                left.join(state, self.places[leader], self.image_base)
        return left or _State()

    def _block(self, leader: int, state: _State) -> list[tuple[int, _State]]:
        """Interpret one block; its successors with what they start with."""
        following = bisect_left(self._leaders, leader + 1)
        end = self._leaders[following] if following < len(self._leaders) else len(self.rows)
        for position in range(leader, end):
            self._step(position, state)
        last = end - 1
        flow = encoding.FLOW.get(self.rows[last][0], Flow.NEXT)
        target = self._targets[last]
        taken = self._index(target) if target is not None else None
        successors = []
        if flow is Flow.BRANCH:
            if taken is not None:
                successors.append((taken, self._narrowed(state, self.rows[last][0], taken=True)))
            if end < len(self.rows):
                successors.append((end, self._narrowed(state, self.rows[last][0], taken=False)))
        elif flow is Flow.JUMP:
            if taken is not None:
                successors.append((taken, state))
        elif flow not in (Flow.RETURN, Flow.JUMP_INDIRECT) and end < len(self.rows):
            successors.append((end, state))
        return successors

    @staticmethod
    def _narrowed(state: _State, number: int, *, taken: bool) -> _State:
        """``state`` on one side of a conditional jump."""
        state = state.copy()
        if state.compared is None:
            return state
        value, limit = state.compared
        if number == (x86.X86_INS_JBE if taken else x86.X86_INS_JA):
            state.bounds[value] = limit + 1
        elif number == (x86.X86_INS_JB if taken else x86.X86_INS_JAE) or (
            number == (x86.X86_INS_JNE if taken else x86.X86_INS_JE) and state.bounds.get(value) == limit + 1
        ):
            state.bounds[value] = limit
        return state

    # one instruction --------------------------------------------------------------------------------------------------------------------

    def _step(self, position: int, state: _State) -> None:
        number, at, size, encoded, _, _ = self.rows[position]
        operands = self.operands[position]
        accessed = next((found for text in operands if text[-1] == "]" and (found := x64_operands.memory(text)) is not None), None)
        if self._recording and accessed is not None:
            self._record_reference(state, at, size, encoded, accessed)
        if number == encoding.CALL:
            for register in x64_operands.VOLATILE:
                state.values[register] = Unknown(at, register)
            state.compared = None
            return
        if number == encoding.JUMP:
            if self._recording:
                self._record_dispatch(state, at, operands, accessed)
            return
        compared = self._comparison(state, number, operands, accessed)
        if compared is not None or number not in _KEEPS_FLAGS:
            state.compared = compared
        self._assign(state, number, at, size, operands, accessed)

    def _comparison(self, state: _State, number: int, operands: tuple[str, ...], accessed: Memory | None) -> tuple[Value, int] | None:
        if number not in (x86.X86_INS_CMP, x86.X86_INS_SUB) or (limit := _number(operands[1])) is None or limit < 0:
            return None
        place = PARENTS.get(operands[0]) or self._slot(accessed)
        return None if place is None else (state.get(place), limit)

    @staticmethod
    def _slot(accessed: Memory | None) -> str | None:
        """The name of a fixed stack slot."""
        if accessed is None or accessed.scaled is not None or accessed.base not in ("rsp", "rbp"):
            return None
        return accessed.place

    def _assign(self, state: _State, number: int, at: int, size: int, operands: tuple[str, ...], accessed: Memory | None) -> None:
        if number in _EXTENSIONS_IN_PLACE:
            if isinstance(state.get("rax"), int):
                state.values["rax"] = Unknown(at, "rax")
            return
        new = self._result(state, number, at, size, operands, accessed)
        registers = x64_operands.written(number, operands)
        slot = self._slot(accessed) if operands and operands[0][-1] == "]" and number != x86.X86_INS_CMP else None
        for register in registers:
            state.values[register] = Unknown(at, register)
        if "rsp" in registers:
            for place in [place for place in state.values if place.startswith("rsp +") or place == "[rsp]"]:
                del state.values[place]
        if slot is not None:
            state.values[slot] = Unknown(at, slot) if new is None else new
        elif new is not None and operands[0] in PARENTS:
            state.values[PARENTS[operands[0]]] = new

    def _result(self, state: _State, number: int, at: int, size: int, operands: tuple[str, ...], accessed: Memory | None) -> Value | None:
        """What the first operand holds afterwards, where that is more than unknown."""
        if number == x86.X86_INS_LEA and accessed is not None:
            return self._address(state, at + size, accessed)
        if number in _COPIES:
            return self._copied(state, number, operands, accessed)
        if number == x86.X86_INS_ADD and operands[0] in PARENTS:
            left = state.get(PARENTS[operands[0]])
            if operands[1] in PARENTS:
                return _sum(left, state.get(PARENTS[operands[1]]))
            increment = _number(operands[1])
            return left + increment if isinstance(left, int) and increment is not None else None
        if number == x86.X86_INS_AND and operands[0] in PARENTS and (limit := _number(operands[1])) is not None and limit >= 0:
            masked = Unknown(at, PARENTS[operands[0]])
            state.bounds[masked] = limit + 1
            return masked
        return None

    def _address(self, state: _State, end: int, accessed: Memory) -> Value | None:
        if accessed.base == "rip":
            return end + accessed.displacement
        terms = [state.get(register) for register in (accessed.base, accessed.scaled) if register is not None]
        if accessed.scaled is not None and accessed.scale != 1:
            return None
        if len(terms) == 1:
            only = terms[0]
            return only + accessed.displacement if isinstance(only, int) else only if accessed.displacement == 0 else None
        return _sum(*terms) if len(terms) == 2 and accessed.displacement == 0 else None

    def _copied(self, state: _State, number: int, operands: tuple[str, ...], accessed: Memory | None) -> Value | None:
        if accessed is None:
            source = PARENTS.get(operands[1])
            if source is None:
                return None
            value = state.get(source)
            return None if isinstance(value, int) and operands[1] != source else value
        if operands[0][-1] == "]":
            source = PARENTS.get(operands[1])
            return None if source is None else state.get(source)
        if (slot := self._slot(accessed)) is not None:
            value = state.get(slot)
            return None if isinstance(value, int) and accessed.size != 8 else value
        return self._loaded(state, accessed, signed=number in _SIGNED_LOADS)

    @staticmethod
    def _loaded(state: _State, accessed: Memory, *, signed: bool) -> Entry | None:
        """The entry that a load by index from a known address gives."""
        first, second = accessed.base, accessed.scaled
        table: Value | None = state.get(first) if first is not None else 0
        if not isinstance(table, int) and accessed.scale == 1 and second is not None:
            first, second = second, first
            table = state.get(first)
        if not isinstance(table, int) or second is None or accessed.scale != accessed.size:
            return None
        selector = state.get(second)
        return Entry(table + accessed.displacement, accessed.size, signed, selector, state.bounds.get(selector))

    # recording --------------------------------------------------------------------------------------------------------------------------

    def _record_reference(self, state: _State, at: int, size: int, encoded: bytes, accessed: Memory) -> None:
        if accessed.displacement < LOWEST_SECTION_RVA or accessed.base == "rip":
            return
        holders = [accessed.base] if accessed.base is not None else []
        if accessed.scaled is not None and accessed.scale == 1:
            holders.append(accessed.scaled)
        if not any(state.get(register) == self.image_base for register in holders):
            return
        start = encoding.disp32_offset(encoded)
        if start is None:
            return
        offset = at - self.address
        target = self.image_base + accessed.displacement
        self.references.append(Reference(offset, size, offset + start, FixupKind.ADDR32NB, Use.DATA, target))

    def _record_dispatch(self, state: _State, at: int, operands: tuple[str, ...], accessed: Memory | None) -> None:
        value: Value | None
        value = self._loaded(state, accessed, signed=False) if accessed is not None else state.get(PARENTS.get(operands[0], ""))
        if isinstance(value, Destination):
            self.dispatches.append(Dispatch(at, value.entry, value.anchor))
        elif isinstance(value, Entry) and value.size == 8:
            self.dispatches.append(Dispatch(at, value, None))


def _sum(left: Value, right: Value) -> Value | None:
    if isinstance(left, int) and isinstance(right, Entry):
        left, right = right, left
    return Destination(left, right) if isinstance(left, Entry) and isinstance(right, int) else None


def image_relative(code: bytes, address: int, image_base: int) -> list[Reference]:
    """The displacements in ``code`` that are RVAs, because they are added to a register that holds the image base."""
    interpreter = Interpreter(code, address, image_base)
    interpreter.run()
    return interpreter.references
