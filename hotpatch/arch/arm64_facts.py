"""Arm64: what the forward analysis knows about registers, and how single instructions change that."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hotpatch.arch import arm64_words as a64
from hotpatch.arch.model import FixupKind

if TYPE_CHECKING:
    from collections.abc import Iterable


class Page(NamedTuple):
    """The page that the ADRPs at ``sites`` (word indices) load; not ``sure`` where other ways lead here on which nothing says so."""

    page: int
    sites: frozenset[int]
    sure: bool = True


class Torn(NamedTuple):
    """One of several pages, or something else."""

    pages: frozenset[Page]


class Whole(NamedTuple):
    """A whole address."""

    address: int


class ImageBase(NamedTuple):
    """The image base plus something unknown."""


class ImagePage(NamedTuple):
    """The image base plus something unknown plus ``high``, added by the ADDs at ``sites`` (word indices)."""

    high: int
    sites: frozenset[int]


class Entry(NamedTuple):
    """An entry that was loaded from a table.

    ``entries`` of them where a bound is known, ``sure`` where it is the index's own, ``exact`` where a comparison gave that.
    ``joined`` where that bound is one of several that meet, or a number: it holds only if all ways are known; ``last`` is then the number
    of entries that the last bound which was checked would give.
    """

    table: int
    size: int
    signed: bool
    entries: int | None
    sure: bool
    exact: bool
    joined: bool = False
    last: int | None = None


class Destination(NamedTuple):
    """``anchor`` plus an entry shifted left by ``shift``."""

    entry: Entry
    anchor: int
    shift: int


class Choice(NamedTuple):
    """What a conditional select leaves: ``chosen`` where the branch right behind it is taken, else ``other``."""

    chosen: Fact | None
    other: Fact | None


class Bound(NamedTuple):
    """The largest value of an unsigned number.

    ``register`` where it is a comparison that waits for its branch; ``exact`` where a branch gave it, not the width of a field;
    ``joined`` where it is the largest of several on ways that meet, or a number that code puts there.
    """

    largest: int
    register: int = a64.ZERO_REGISTER
    exact: bool = False
    joined: bool = False


class Conditional(NamedTuple):
    """A comparison that was made only where another before it held; where it did not, the flags are ``flags`` (NZCV)."""

    bound: Bound
    flags: int


Fact = Page | Torn | Whole | ImageBase | ImagePage | Entry | Destination | Choice | Bound | Conditional
State = dict[int, Fact]
"""Facts by register; a register's bound stands at its number plus :data:`BOUND`."""

BOUND = 64
FLAGS = 200
"""Key of the comparison that the flags come from."""
LAST_BOUND = 201
"""Key of the bound that the last bounds check gave, for indices that went through memory."""
SLOTS = 1024
"""Key of the 64 bits that SP points at; the others follow by their distance in bytes."""
NO_FACTS: State = {}


class Completion(NamedTuple):
    """An instruction (word index ``user``) that completes the address ``target``, begun as ``page`` by the instructions at ``sites``.

    Where it is not ``sure`` there are ways to the instruction on which it does not.
    """

    user: int
    sites: frozenset[int]
    kind: FixupKind
    target: int
    page: int
    sure: bool = True


_INDEX_BITS = 16
"""Bounds of more bits say nothing about a table."""


def meet(one: State, other: State) -> State:
    """What both states agree on; pages agree where the page is the same, whoever loaded it, and are kept where only one state has them.

    Of two bounds of a register the larger one holds.
    """
    met: State = {}
    for key, fact in one.items():
        against = other.get(key)
        if against == fact:
            met[key] = fact
        elif isinstance(fact, ImagePage) and isinstance(against, ImagePage) and fact.high == against.high:
            met[key] = ImagePage(fact.high, fact.sites | against.sites)
        elif isinstance(fact, _PAGES) or isinstance(against, _PAGES):
            met[key] = _either(fact, against)
        elif BOUND <= key < FLAGS and isinstance(fact, Bound) and isinstance(against, Bound):
            met[key] = Bound(max(fact.largest, against.largest), exact=fact.exact and against.exact, joined=True)
    for key, fact in other.items():
        if key not in one and isinstance(fact, _PAGES):
            met[key] = _either(fact, None)
    return met


_PAGES = (Page, Torn)


def doubted(state: State) -> State:
    """What holds behind a place from which code hardly goes on: it may be something else that other code leads to."""
    return {key: fact._replace(sure=False) if isinstance(fact, Page) else fact for key, fact in state.items()}


def _either(one: Fact | None, other: Fact | None) -> Fact:
    """The page that either says; at least one of them is one."""
    if isinstance(one, Page) and isinstance(other, Page) and one.page == other.page:
        return Page(one.page, one.sites | other.sites, one.sure and other.sure)
    pages: dict[int, Page] = {}
    for page in (*pages_of(one), *pages_of(other)):
        known = pages.get(page.page)
        pages[page.page] = Page(page.page, page.sites | known.sites if known else page.sites, sure=False)
    return next(iter(pages.values())) if len(pages) == 1 else Torn(frozenset(pages.values()))


def pages_of(fact: Fact | None) -> Iterable[Page]:
    """The pages that ``fact`` may be."""
    if isinstance(fact, Page):
        return (fact,)
    return sorted(fact.pages, key=lambda page: page.page) if isinstance(fact, Torn) else ()


def forget(state: State, written: int, first: int = 0) -> None:
    """Drop the facts about the registers whose bits are set in ``written``; ``first`` is the key of register 0."""
    if written & (written - 1) == 0:
        state.pop(first + written.bit_length() - 1, None)
        return
    for key in [key for key in state if 0 <= key - first < a64.ZERO_REGISTER and written >> key - first & 1]:
        del state[key]


def forget_compared(state: State, written: int) -> None:
    """Drop which register was compared where its bit is set in ``written``: it holds something else now."""
    compared = state.get(FLAGS)
    bound = compared.bound if isinstance(compared, Conditional) else compared
    if isinstance(bound, Bound) and written >> bound.register & 1 and bound.register != a64.ZERO_REGISTER:
        bound = bound._replace(register=a64.ZERO_REGISTER)
        state[FLAGS] = compared._replace(bound=bound) if isinstance(compared, Conditional) else bound


def forget_slots(state: State, first: int, end: int) -> None:
    """Drop the facts about 64-bit places on the stack of which a byte from ``first`` to before ``end`` (from SP) is written."""
    for key in [key for key in state if first - 8 < key - SLOTS < end and key >= SLOTS]:
        del state[key]


def decided(state: State) -> tuple[State, State]:
    """``state`` behind a conditional branch where that falls through and where it is taken: on each way one side of every choice."""
    choices = {key: fact for key, fact in state.items() if isinstance(fact, Choice)}
    if not choices:
        return state, state
    rest = {key: fact for key, fact in state.items() if key not in choices}
    falls = {key: fact.other for key, fact in choices.items() if fact.other is not None}
    taken = {key: fact.chosen for key, fact in choices.items() if fact.chosen is not None}
    return {**rest, **falls}, {**rest, **taken}


def escape(fact: Fact | None, index: int, sink: list[Completion]) -> None:
    """Note that the instruction at ``index`` uses a page that nothing completes."""
    if isinstance(fact, Page) and fact.sure:
        sink.append(Completion(index, fact.sites, FixupKind.PAGEBASE_REL21, fact.page, fact.page))
    elif isinstance(fact, ImagePage):
        sink.append(Completion(index, fact.sites, FixupKind.IMAGEREL_HIGH12A, fact.high, fact.high))


def address_operands(word: int) -> tuple[bool, bool]:
    """Whether ``word`` computes with, or accesses memory through, Rn and Rm, in the forms that a compiler gives an address to."""
    group = word >> 25 & 15
    if group in (0b0100, 0b0110, 0b1100, 0b1110):
        shape = word >> 28 & 3
        if shape == 0b11:
            return True, word & 0x01200C00 == 0x00200800
        return shape == 0b10 or shape == 0b00, False
    if word & 0x1F000000 == 0x11000000 or word & 0x1F800000 == 0x12000000:  # ADD, SUB, logical (immediate)
        return True, False
    additive = word & 0x1F000000 == 0x0B000000
    logical = word & 0x1F000000 == 0x0A000000
    select = word & 0x1FE00000 == 0x1A800000
    return (True, True) if additive or logical or select else (False, False)


def entry_of(state: State, word: int) -> Entry | None:
    """LDRB, LDRH, LDR, LDRSB, LDRSH, LDRSW (register) from a table at a whole address."""
    if word & 0x3F200C00 != 0x38200800 or not word >> 22 & 3:
        return None
    table = state.get(a64.rn(word))
    scale = word >> 30
    if not isinstance(table, Whole) or (scale == 3 and word >> 22 & 3 == 2):
        return None
    if scale and not word & 1 << 12:  # the index is not scaled
        return None
    own, last = (bound if isinstance(bound, Bound) else None for bound in (state.get(BOUND + a64.rm(word)), state.get(LAST_BOUND)))
    by_last = None if last is None else last.largest + 1
    signed = bool(word & 1 << 23)
    if own is None:
        return Entry(table.address, 1 << scale, signed, by_last, sure=False, exact=False)
    return Entry(table.address, 1 << scale, signed, own.largest + 1, sure=True, exact=own.exact, joined=own.joined, last=by_last)


def destination_of(state: State, word: int) -> Destination | None:
    """ADD of an anchor and an entry that is shifted or extended."""
    if word & 0xFF000000 != 0x8B000000:
        return None
    first, second = state.get(a64.rn(word)), state.get(a64.rm(word))
    extended = bool(word & 1 << 21)
    if not extended and word & 0x00C00000:  # LSR, ASR
        return None
    shift = word >> 10 & 7 if extended else word >> 10 & 63
    if not extended and not shift and isinstance(first, Entry):
        first, second = second, first
    if not isinstance(first, Whole) or not isinstance(second, Entry):
        return None
    option = word >> 13 & 7
    if extended and option >= 4 and 1 << (option & 3) == second.size:
        second = second._replace(signed=True)
    return Destination(second, first.address, shift)


def bound_of(state: State, word: int) -> Bound | None:
    """The bound of what AND (immediate) with a low mask, UBFX, LSR, MOV, MOVZ, and SUB of a smaller number give."""
    low, high = word >> 16 & 63, word >> 10 & 63
    if word & 0x7F800000 == 0x12000000:  # AND (immediate): N, immr, imms
        single_run = word & 1 << 22 if word >> 31 else not word & 1 << 22 and high < 32
        return Bound((2 << high) - 1) if single_run and not low and high < _INDEX_BITS else None
    if word & 0x7F800000 == 0x53000000:  # UBFM
        return Bound((2 << high - low) - 1) if 0 <= high - low < _INDEX_BITS else None
    if word & 0x7FE0FFE0 == 0x2A0003E0:  # MOV (register), either width
        bound = state.get(BOUND + a64.rm(word))
        return bound if isinstance(bound, Bound) else None
    if word & 0x7FE00000 == 0x52800000:  # MOVZ, not shifted
        return Bound(word >> 5 & 0xFFFF, exact=True, joined=True)
    if word & 0x7FC00000 == 0x51000000:  # SUB (immediate)
        bound = state.get(BOUND + a64.rn(word))
        smaller = bound.largest - a64.immediate12(word) if isinstance(bound, Bound) and bound.exact else -1
        return bound._replace(largest=smaller) if isinstance(bound, Bound) and smaller >= 0 else None
    return None


def comparison_of(word: int) -> Bound | Conditional | None:
    """CMP, SUBS or CCMP with an immediate: the largest value is the immediate, for the register where SUBS leaves it alone."""
    if word & 0x7FE00C10 == 0x7A400800:  # CCMP (immediate)
        return Conditional(Bound(word >> 16 & 31, a64.rn(word)), word & 15)
    if word & 0x7F800000 != 0x71000000 or word & a64.SHIFT_12:
        return None
    register = a64.rn(word)
    return Bound(a64.immediate12(word), a64.ZERO_REGISTER if register == a64.rd(word) else register)
