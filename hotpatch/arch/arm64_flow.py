"""Arm64: which register holds which address, by a forward analysis over a function's basic blocks.

The analysis knows pages (ADRP), whole addresses (ADRP and ADD, ADR), the image base and what is added to it, entries loaded from tables,
and upper bounds of indices. At a join a register keeps what all predecessors agree on; several ADRPs may meet there as long as their page
is the same. Compilers that have no register left keep pages on the stack: places that SP gives are followed as registers are. Nothing is
asked of stores through other registers, for no variable holds half an address. A page that only some of the ways to a join bring along
is kept as unsure: a way may be none, behind a call that never returns.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from hotpatch.arch import arm64_code as classes
from hotpatch.arch import arm64_facts as facts
from hotpatch.arch import arm64_fields as fields
from hotpatch.arch import arm64_words as a64
from hotpatch.arch.arm64_blocks import Blocks
from hotpatch.arch.arm64_facts import (
    Bound,
    Choice,
    Completion,
    Conditional,
    Destination,
    Entry,
    ImageBase,
    ImagePage,
    Page,
    State,
    Torn,
    Whole,
)
from hotpatch.arch.arm64_origins import Origin, Origins
from hotpatch.arch.model import FixupKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.arch.arm64_code import Code
    from hotpatch.arch.arm64_facts import Fact

_OFFSET_OF_ADD, _OFFSET_OF_ACCESS = _COMPLETING = (FixupKind.PAGEOFFSET_12A, FixupKind.PAGEOFFSET_12L)
_OPERATIONS = (classes.OTHER, classes.PLAIN)
_EXCLUSIVE = frozenset((a64.CONDITION_HS, a64.CONDITION_LO, a64.CONDITION_GE, a64.CONDITION_LT))
"""Conditions of which what is compared with is no possible value, where it is the largest on one way."""
_BOUNDED_BEHIND = frozenset((a64.CONDITION_HI, a64.CONDITION_HS, a64.CONDITION_GT, a64.CONDITION_GE))
"""Conditions whose branches give a bound where they are not taken."""
_BOUNDING = _BOUNDED_BEHIND | {a64.CONDITION_LS, a64.CONDITION_LO, a64.CONDITION_LE, a64.CONDITION_LT}
_OF_FEW_REGISTERS = (classes.PLAIN, classes.MEMORY, classes.ADD)
"""Classes of words that use no registers but Rd (or Rt), Rn and, where they are plain, Rm."""


class Analysis:
    """A solved forward analysis of a function.

    Blocks that nothing leads to (cases of a table that was not read, handlers that the system calls) begin with what holds at every jump
    through an unread table, or with nothing where there is none.
    """

    def __init__(
        self,
        code: Code,
        *,
        image_base: int,
        edges: Mapping[int, tuple[int, ...]],
        data: frozenset[int] = frozenset(),
        tables: bool = False,
        only_jumps: bool = False,
    ) -> None:
        """Analyse ``code``.

        Args:
            code: The function.
            image_base: In the caller's space.
            edges: Word indices that a jump through a table (by its own word index) leads to; such a jump that is missing here is unread.
            data: Word indices that hold no instructions.
            tables: Whether to follow what only jump tables need: whole addresses, bounds and entries.
            only_jumps: Whether nothing is asked for but :meth:`destinations`.
        """
        self._code = code
        self._image_base = image_base
        self._edges = edges
        self._data = data
        self._tables = tables
        self._only_jumps = only_jumps
        self._pages = code.pages()
        self._following: list[tuple[int, int]] = []
        self._numbers: dict[int, int] = {}
        self._makers: set[int] = set()
        """Blocks that make facts of nothing, or lead elsewhere than ``_following`` says."""
        self._apart: dict[int, tuple[State, list[Completion]]] = {}
        """What holds behind a block before which nothing is known, and the completions in it; of those that load pages."""
        self._found: dict[int, list[Completion]] = {}
        """The completions of each block, as it was run last."""
        self._blocks = Blocks(code, edges, data)
        self._before: dict[int, State] = {}
        self._unread: dict[int, State] = {}
        self._spilled: dict[int, dict[Fact, None]] = {}
        """The pages that are kept on the stack, by distance from SP in bytes."""
        if code.words:
            self._solve()

    def completions(self) -> list[Completion]:
        """Every completed address, and every escape of a page (kind PAGEBASE_REL21), in order of the code."""
        if self._spilled:  # what may be loaded from the stack is known only now
            for block in self._before:
                self._found[block] = []
                self._run(block, self._found[block])
        found = [one for block in sorted(self._found) for one in self._found[block]]
        return found if all(one.sure for one in found) else _settled(self._told_by_ways(found))

    def _told_by_ways(self, found: list[Completion]) -> list[Completion]:
        """``found`` without the unsure ones that the ways to them show to be none, and with those certain that these show to be such."""
        origins = Origins(self._code, self._blocks, self._edges)
        told = []
        for one in found:
            ways = set() if one.sure else origins.of(one.user, a64.rn(self._code.words[one.user])) - {Origin.UNKNOWN}
            pages = ways - {Origin.ELSE}
            if ways != {Origin.ELSE}:
                told.append(one._replace(sure=one.sure or (pages == ways != set() and pages <= one.sites)))
        return told

    def destinations(self) -> dict[int, Destination]:
        """What each jump through a table (by word index) goes to; ``tables`` must have been asked for."""
        found = {}
        for block in sorted(self._before):
            last = self._blocks.end(block) - 1
            if self._is_register_jump(last):
                destination = _destination(self._run(block), self._code.words[last])
                if destination is not None:
                    found[last] = destination
        return found

    def _is_register_jump(self, index: int) -> bool:
        return self._code.classes[index] == classes.REGISTER and a64.is_branch_register(self._code.words[index])

    # the fixed point ---------------------------------------------------------------------------------------------------------------------

    def _solve(self) -> None:
        if not self._tables and self._solve_apart():
            return
        self._numbers, self._following = self._blocks.connections()
        self._makers = {self._blocks.of(index) for index in (*self._pages, *self._code.register_jumps())}
        if self._only_jumps:
            self._leave_out_what_comes_to_no_jump()
        if not self._only_jumps or 0 in self._numbers:
            self._spread([(0, facts.NO_FACTS)])
        if len(self._before) == len(self._numbers):
            return
        orphans = self._orphans()
        self._spread_unread(orphans)
        for block in self._numbers.values():
            if block not in self._before:
                self._spread([(block, facts.NO_FACTS)])
        self._spread_unread(orphans)

    def _spread_unread(self, orphans: list[int]) -> None:
        """Begin ``orphans`` with what holds at the jumps through unread tables, which may become less by what these blocks lead to."""
        while True:
            known = self._facts_at_unread()
            self._spread([(block, known) for block in orphans])
            if self._facts_at_unread() == known:
                return

    def _leave_out_what_comes_to_no_jump(self) -> None:
        """Forget the blocks from which control comes to no jump through a register: nothing in them bears on where these lead."""
        kept = self._blocks.coming_to(self._code.register_jumps(), self._edges)
        self._numbers = {start: block for start, block in self._numbers.items() if block in kept}
        self._following = [(one if one in kept else -1, other if other in kept else -1) for one, other in self._following]

    def _solve_apart(self) -> bool:
        """Run each block that loads a page by itself; whether that is all, because none leaves a fact to those that follow."""
        for block in sorted({self._blocks.of(index) for index in self._pages if index not in self._data}):
            found = self._found[block] = []
            self._before[block] = facts.NO_FACTS
            self._apart[block] = self._run(block, found), found
        if not self._spilled and not any(state for state, _ in self._apart.values()):
            return True
        self._before.clear()
        return False

    def _spread(self, seeds: list[tuple[int, State]]) -> None:
        before, following = self._before, self._following
        makers, tables = self._makers, self._tables
        work = [block for block, state in seeds if self._join(block, state)]
        while work:
            block = work.pop()
            if tables or before[block] or block in makers:
                work.extend(successor for successor, state in self._out(block) if self._join(successor, state))
                continue
            self._found.pop(block, None)  # of a run before which more was held for known
            for successor in following[block]:
                known = before.get(successor) if successor >= 0 else facts.NO_FACTS
                if known is None:
                    before[successor] = facts.NO_FACTS
                    work.append(successor)
                elif known and self._join(successor, facts.NO_FACTS):
                    work.append(successor)

    def _join(self, block: int, state: State) -> bool:
        """Meet ``state`` into what holds before ``block``; whether that changed it."""
        known = self._before.get(block)
        if known is None:
            self._before[block] = state
            return True
        if known == state:
            return False
        met = facts.meet(known, state)
        if met == known:
            return False
        self._before[block] = met
        return True

    def _orphans(self) -> list[int]:
        """Blocks that nothing reached so far and that no branch, jump or block before leads to."""
        led_to = {successor for following in self._following for successor in following}
        return [block for block in self._numbers.values() if block not in self._before and block not in led_to]

    def _facts_at_unread(self) -> State:
        common: State | None = None
        for _, state in sorted(self._unread.items()):
            common = state if common is None else facts.meet(common, state)
        return common or facts.NO_FACTS

    def _out(self, block: int) -> list[tuple[int, State]]:
        """Blocks that follow ``block``, with what holds on the way to each."""
        if block in self._apart and not self._before[block]:
            state, self._found[block] = self._apart[block]
        elif self._tables:
            state = self._run(block)
        else:
            self._found[block] = []
            state = self._run(block, self._found[block])
        last = self._blocks.end(block) - 1
        if self._code.classes[last] == classes.REGISTER and a64.is_branch_register(self._code.words[last]):
            targets = self._edges.get(last)
            if targets is not None:
                return [(self._numbers[target], state) for target in targets if target in self._numbers]
            if self._code.may_read_table(last):
                self._unread[last] = state
            return []
        following, target = self._following[block]
        if self._code.words[last] == a64.BRK_TRAP:
            state = facts.doubted(state)
        falls, taken = facts.decided(state)
        if self._tables:
            (falls, _), (_, taken) = (_refine(self._code.words[last], one) for one in (falls, taken))
        return [(number, facts_there) for number, facts_there in ((following, falls), (target, taken)) if number >= 0]

    # one block ---------------------------------------------------------------------------------------------------------------------------

    def _run(self, block: int, sink: list[Completion] | None = None) -> State:
        """What holds behind ``block``; completions on the way go to ``sink``."""
        words, kinds, pages, tables = self._code.words, self._code.classes, self._pages, self._tables
        index, end = self._blocks.starts[block], self._blocks.end(block)
        state = self._before[block]
        every = tables or (sink is not None and bool(self._spilled))
        if not state and not every:
            at = bisect_left(pages, index)
            if at == len(pages) or pages[at] >= end:
                return facts.NO_FACTS
        state = dict(state)
        while index < end:
            if not state and not every:
                at = bisect_left(pages, index)
                if at == len(pages) or pages[at] >= end:
                    break
                index = pages[at]
            word, kind = words[index], kinds[index]
            if self._spilled:
                if kind != classes.MEMORY:
                    self._forget_slots(state, index, word, sink)
            elif not tables and kind in _OF_FEW_REGISTERS and not _concerns(state, word, kind):
                index += 1
                continue
            made = self._made(state, index, word, kind, sink)
            if tables:
                made = self._made_for_tables(state, index, word, kind, made)
            else:
                facts.forget(state, a64.CALL_RESULTS if kind == classes.CALL else a64.written_registers(word))
            if made is not None and word & 31 != a64.ZERO_REGISTER:
                state[word & 31] = made
            index += 1
        return state

    def _made(self, state: State, index: int, word: int, kind: int, sink: list[Completion] | None) -> Fact | None:
        """The fact about Rd that ``word`` makes of the facts in ``state``, which it leaves alone."""
        if kind == classes.PAGE:
            return Page(fields.page(word, self._code.site(index)), frozenset((index,)))
        if kind == classes.MEMORY and a64.rn(word) == a64.STACK_POINTER:
            return self._made_by_slot(state, index, word, sink)
        if not state:
            return None
        fact = state.get(word >> 5 & 31)
        if kind == classes.ADD:
            return None if fact is None else self._add_immediate(fact, index, word, sink)
        if kind == classes.MEMORY:
            if isinstance(fact, Page | Torn | ImagePage):
                _complete(fact, index, word, sink)
            if sink is not None and word >> 22 == a64.STR_64:  # what is stored escapes
                facts.escape(state.get(word & 31), index, sink)
            return None
        if kind not in _OPERATIONS:
            return None
        if a64.is_move_register(word):
            return state.get(a64.rm(word))
        other = state.get(a64.rm(word))
        if a64.is_select(word) and (choice := self._choice(index, word, fact, other)) is not None:
            return choice
        if word & 0xFF000000 == 0x8B000000:  # ADD (shifted register), ADD (extended register)
            if isinstance(fact, ImageBase | ImagePage):
                return fact
            if isinstance(other, ImageBase | ImagePage) and not word & 0x00E0FC00:
                return other
        if sink is not None:
            _escape_operands(state, fact, other, index, word, sink)
        return None

    def _choice(self, index: int, word: int, fact: Fact | None, other: Fact | None) -> Choice | None:
        """What a CSEL leaves that a branch right behind it tells of."""
        behind = self._code.words[index + 1 : index + 2]
        as_taken = a64.selects_as(word, behind[0]) if behind and self._blocks.end(self._blocks.of(index)) == index + 2 else None
        if as_taken is None or (fact is None and other is None):
            return None
        return Choice(fact, other) if as_taken else Choice(other, fact)

    def _made_by_slot(self, state: State, index: int, word: int, sink: list[Completion] | None) -> Fact | None:
        """The fact about Rt that a load from a place that SP gives (unsigned immediate) makes; a store makes one about the place."""
        at = a64.immediate12(word) << a64.access_scale(word)
        if word >> 22 == a64.LDR_64:
            fact = state.get(facts.SLOTS + at)
            if fact is None and sink is not None:
                self._escape_slot(at, index, sink)
            return fact
        if a64.is_store(word):
            facts.forget_slots(state, at, at + (1 << a64.access_scale(word)))
            fact = state.get(a64.rd(word)) if word >> 22 == a64.STR_64 else None
            if isinstance(fact, Page | Torn | ImagePage | ImageBase):
                state[facts.SLOTS + at] = fact
                self._spilled.setdefault(at, {})[fact] = None
        return None

    def _forget_slots(self, state: State, index: int, word: int, sink: list[Completion] | None) -> None:
        """Drop what is known of places on the stack where ``word`` moves SP or stores there otherwise; a pair that is loaded escapes."""
        if sink is not None and a64.is_pair_load(word) and a64.rn(word) == a64.STACK_POINTER:
            at = a64.pair_offset(word)
            self._escape_slot(at, index, sink)
            self._escape_slot(at + 8, index, sink)
        if a64.moves_stack(word):
            facts.forget_slots(state, 0, max(self._spilled) + 8)

    def _escape_slot(self, at: int, index: int, sink: list[Completion]) -> None:
        """Note that the instruction at ``index`` loads what may be a page from the stack, of which nothing is known there."""
        for fact in self._spilled.get(at, ()):
            facts.escape(fact, index, sink)

    def _add_immediate(self, fact: Fact, index: int, word: int, sink: list[Completion] | None) -> Fact | None:
        if a64.is_add_immediate(word):
            if isinstance(fact, Page | Torn):
                target = _complete(fact, index, word, sink)
                if not isinstance(fact, Page) or not fact.sure:
                    return None
                if target == self._image_base:
                    return ImageBase()
                return Whole(target) if self._tables else None
            if isinstance(fact, ImagePage):
                _complete(fact, index, word, sink)
                return None
            if isinstance(fact, Whole):
                return Whole(fact.address + a64.immediate12(word))
            return fact if isinstance(fact, ImageBase) else None
        if isinstance(fact, ImageBase) and a64.is_add_immediate_shifted(word):
            return ImagePage(self._image_base + (a64.immediate12(word) << 12), frozenset((index,)))
        if sink is not None:
            facts.escape(fact, index, sink)
        return None

    def _made_for_tables(self, state: State, index: int, word: int, kind: int, made: Fact | None) -> Fact | None:
        """The rest of a step where bounds, whole addresses and entries are wanted: also forgets what ``word`` writes."""
        bound = compared = None
        if kind == classes.ADDRESS:
            made = Whole(fields.decode(FixupKind.REL21, word, self._code.site(index)))
        elif kind in _OPERATIONS:
            made = made or facts.entry_of(state, word) or facts.destination_of(state, word)
            bound = facts.bound_of(state, word)
            compared = facts.comparison_of(word)
        written = a64.written_registers(word)
        facts.forget(state, written)
        facts.forget(state, written, facts.BOUND)
        if bound is not None and word & 31 != a64.ZERO_REGISTER:
            state[facts.BOUND + (word & 31)] = bound
        call = kind == classes.CALL or kind == classes.REGISTER
        if call:
            state.pop(facts.LAST_BOUND, None)
        if compared is not None:
            state[facts.FLAGS] = compared
        elif call or a64.writes_flags(word):
            state.pop(facts.FLAGS, None)
        else:
            facts.forget_compared(state, written)
        return made


def _concerns(state: State, word: int, kind: int) -> bool:
    """Whether ``word``, one of :data:`_OF_FEW_REGISTERS`, uses a register that something is known of."""
    return word & 31 in state or word >> 5 & 31 in state or (kind == classes.PLAIN and word >> 16 & 31 in state)


def _settled(found: list[Completion]) -> list[Completion]:
    """``found`` with every unsure one made certain, or made an escape of its page.

    A register is read where one way leads on which it holds a page, and another on which it does not: behind a call that never returns,
    say. Where the address is one that the page is certainly completed to as well, the page is what is read.
    """
    unsure = [one for one in found if not one.sure]
    certain = {one.target for one in found if one.sure and one.kind in _COMPLETING}
    doubtful = {one.user for one in unsure if one.target not in certain}
    kept = [one._replace(sure=True) for one in found if one.user not in doubtful]
    return kept + [one._replace(kind=FixupKind.PAGEBASE_REL21, target=one.page, sure=True) for one in found if one.user in doubtful]


def _destination(state: State, jump: int) -> Destination | None:
    """What the BR ``jump`` goes to, where it is an entry of a table or is made of one."""
    fact = state.get(a64.rn(jump))
    if isinstance(fact, Entry) and fact.size == 8:
        return Destination(fact, 0, 0)
    return fact if isinstance(fact, Destination) else None


def _refine(word: int, state: State) -> tuple[State, State]:
    """``state`` where a branch falls through and where it is taken, with the bound that its comparison gives.

    Where that is signed, another tells that the number is not negative. A conditional comparison gives one where the branch, on the flags
    that are there without it, goes the other way: then it was made.
    """
    compared = state.get(facts.FLAGS)
    condition = a64.condition_of(word)
    exclusive = condition in _EXCLUSIVE
    if isinstance(compared, Conditional) and a64.holds(condition, compared.flags) == (condition in _BOUNDED_BEHIND):
        compared = compared.bound
    if word >> 24 != 0x54 or not isinstance(compared, Bound) or condition not in _BOUNDING:
        return state, state
    bound = Bound(compared.largest - exclusive, exact=True)
    if bound.largest < 0:
        return state, state
    bounded: State = {**state, facts.LAST_BOUND: bound}
    if compared.register != a64.ZERO_REGISTER:
        bounded[facts.BOUND + compared.register] = bound
    return (bounded, state) if condition in _BOUNDED_BEHIND else (state, bounded)


def _complete(fact: Page | Torn | ImagePage, index: int, word: int, sink: list[Completion] | None) -> int:
    """The address that the ADD, load or store ``word`` makes of ``fact``."""
    memory = a64.is_unsigned_immediate(word)
    low = a64.immediate12(word) << (a64.access_scale(word) if memory else 0)
    if isinstance(fact, ImagePage):
        if sink is not None:
            kind = FixupKind.IMAGEREL_LOW12L if memory else FixupKind.IMAGEREL_LOW12A
            sink.append(Completion(index, fact.sites, kind, fact.high + low, fact.high))
        return fact.high + low
    target = 0
    for page in facts.pages_of(fact):
        target = page.page + low
        if sink is not None:
            kind = _OFFSET_OF_ACCESS if memory else _OFFSET_OF_ADD
            sink.append(Completion(index, page.sites, kind, target, page.page, page.sure))
    return target


def _escape_operands(state: State, fact: Fact | None, other: Fact | None, index: int, word: int, sink: list[Completion]) -> None:
    base, index_register = facts.address_operands(word)
    if base:
        facts.escape(fact, index, sink)
    if index_register:
        facts.escape(other, index, sink)
    if word & 0xFFC00000 == 0xF8000000 and (not word & 1 << 21 or word >> 10 & 3 == 2):  # STUR and STR, 64 bits, other than MEMORY
        facts.escape(state.get(word & 31), index, sink)
    if word & 0xFE400000 == 0xA8000000:  # STP and STNP, 64 bits: what is stored escapes
        facts.escape(state.get(word & 31), index, sink)
        facts.escape(state.get(word >> 10 & 31), index, sink)
