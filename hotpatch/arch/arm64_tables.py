"""Arm64: jump tables of clang and MSVC.

Known forms, with any registers and any distance between their instructions:

- clang for Windows: ``adrp``/``add`` table in ``.rdata``, ``adr`` anchor, ``ldrb``/``ldrh``/``ldrsw`` entry, ``add`` anchor and entry
  (``lsl #2``), ``br``;
- MSVC: ``adr`` (or ``adrp``/``add``) table behind the function's code, ``ldrsb``/``ldrsh``/``ldrsw`` entry, ``add`` table (or a second
  ``adr``) and entry (``lsl #2``), ``br``;
- a table of whole addresses, ``ldr`` and ``br``, where all its targets lie in the function.

The number of entries comes from the bounds check (CMP with B.HI, B.LS, B.HS or B.LO). Where an index comes on several ways, as in a loop,
or is a number that code puts there, the largest counts if every jump of the function that may read a table is understood. A mask or a shift
gives only the most that there can be, the targets another: without a check they stay in the function. Both end at the latest where the
caller's limit is, and where another table of the function begins.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from hotpatch.arch import arm64_words as a64
from hotpatch.arch.arm64_code import Code, may_jump
from hotpatch.arch.arm64_flow import Analysis
from hotpatch.arch.model import JumpTable

if TYPE_CHECKING:
    from hotpatch.arch.arm64_facts import Destination

_Limit = Callable[[int, int], int] | None
_WHOLE = 8
"""Bytes of an entry that holds a whole address."""
_MOST_FILLER = 16
"""Compilers fill up with fewer zeros than this, so that what follows a table is aligned."""
_MOST_ROUNDS = 16
"""Nesting of switches that is followed: each round may find tables in the cases of those before."""


def jump_tables(
    code: bytes, address: int, read: Callable[[int, int], bytes], image_base: int, limit: _Limit = None
) -> tuple[JumpTable, ...]:
    """See :meth:`hotpatch.arch.base.Architecture.jump_tables`."""
    return _tables(Code(code, address), read, image_base, limit) if may_jump(code) else ()


def tables_inside(code: Code, raw: bytes, image_base: int) -> tuple[JumpTable, ...]:
    """The tables that lie in ``code`` itself, whose bytes are ``raw``."""

    def read(address: int, size: int) -> bytes:
        at = address - code.address
        return raw[at : at + size] if at >= 0 else b""

    return _tables(code, read, image_base, None)


def data_words(code: Code, tables: tuple[JumpTable, ...]) -> frozenset[int]:
    """Indices of the words in ``code`` that hold entries of ``tables``."""
    words: set[int] = set()
    for table in tables:
        first, end = table.address - code.address, table.address + table.size - code.address
        words.update(range(max(first, 0) // a64.WORD, min(-(-end // a64.WORD), len(code.words))))
    return frozenset(words)


def _tables(code: Code, read: Callable[[int, int], bytes], image_base: int, limit: _Limit) -> tuple[JumpTable, ...]:
    candidates = [jump for jump in code.register_jumps() if code.may_read_table(jump)]
    if not candidates:
        return ()
    tables, all_known = _read_tables(code, candidates, read, image_base, limit, joined=True)
    return tables if all_known else _read_tables(code, candidates, read, image_base, limit, joined=False)[0]


def _read_tables(
    code: Code, candidates: list[int], read: Callable[[int, int], bytes], image_base: int, limit: _Limit, *, joined: bool
) -> tuple[tuple[JumpTable, ...], bool]:
    """The tables, and whether all that was used of them holds: bounds that are ``joined`` do if each jump that may read a table does."""
    found: dict[int, JumpTable] = {}
    is_settled = uses_joined = False
    for _ in range(_MOST_ROUNDS):
        edges = {
            jump: tuple(sorted({index for target in table.targets if (index := code.index(target)) is not None}))
            for jump, table in found.items()
        }
        data = data_words(code, tuple(found.values()))
        analysis = Analysis(code, image_base=image_base, edges=edges, data=data, tables=True, only_jumps=True)
        again = {}
        destinations = analysis.destinations()
        uses_joined = joined and any(one.entry.joined for one in destinations.values())
        for jump, destination in destinations.items():
            if destination.entry.joined and not joined:
                destination = _without_joined(destination)
            table = _read_table(code, jump, destination, read, limit)
            if table is not None:
                again[jump] = table
        apart = _apart(again)
        if apart.keys() <= found.keys() and all(found[jump] == table for jump, table in apart.items()):
            is_settled = True
            break
        found = apart
        if len(found) == len(candidates) and apart == again and not uses_joined:
            break
    all_known = not uses_joined or (is_settled and len(found) == len(candidates) and found == apart == again)
    return tuple(found[jump] for jump in sorted(found)), all_known


def _without_joined(destination: Destination) -> Destination:
    """``destination`` where the bound of its entry is one that may not hold."""
    entry = destination.entry
    return destination._replace(entry=entry._replace(entries=entry.last, sure=False, exact=False, joined=False))


def _apart(tables: dict[int, JumpTable]) -> dict[int, JumpTable]:
    """The tables, those whose end nothing checks up to where the next begins."""
    starts = sorted({table.address for table in tables.values()})
    apart = {}
    for jump, table in tables.items():
        following = bisect_right(starts, table.address)
        if not table.exact and following < len(starts):
            room = (starts[following] - table.address) // table.entry_size
            table = replace(table, targets=table.targets[:room])
        if table.targets:
            apart[jump] = table
    return apart


def _read_table(code: Code, jump: int, destination: Destination, read: Callable[[int, int], bytes], limit: _Limit) -> JumpTable | None:
    entry = destination.entry
    room = None if limit is None or entry.exact else max(0, limit(entry.table, entry.size) - entry.table) // entry.size
    targets = _bounded_targets(code, destination, read, room)
    if targets is None and not (entry.sure and entry.size < _WHOLE):
        targets = _targets_inside(code, destination, read, room)
    if not targets or all(code.index(target) is None for target in targets):
        return None
    return JumpTable(
        jump=jump * a64.WORD,
        address=entry.table,
        entry_size=entry.size,
        shift=destination.shift,
        signed=entry.signed,
        anchor=destination.anchor,
        targets=tuple(targets),
        exact=entry.exact,
    )


def _bounded_targets(code: Code, destination: Destination, read: Callable[[int, int], bytes], room: int | None) -> list[int] | None:
    """All targets up to the bound; ``None`` where there is none, or where the table does not bear it out.

    A bound of the index itself lets targets lie outside of the function (in a cold part); the last bound that was checked, and whole
    addresses, do not.
    """
    entry = destination.entry
    if entry.entries is None:
        return None
    count = entry.entries if room is None or not entry.sure else min(entry.entries, room)
    if room is not None and not entry.sure and not _ends_there(code, destination, read, room):
        return None
    targets = _targets(destination, read(entry.table, count * entry.size))
    if len(targets) < count or any(target % a64.WORD for target in targets):
        return None
    anywhere = entry.sure and entry.size < _WHOLE
    return targets if anywhere or all(code.index(target) is not None for target in targets) else None


def _ends_there(code: Code, destination: Destination, read: Callable[[int, int], bytes], room: int) -> bool:
    """Whether the bound, which some check gave, is where the table ends: at its limit, but for filler, or before what is no target."""
    entry = destination.entry
    count = entry.entries or 0
    if count > room:
        return False
    rest = read(entry.table + count * entry.size, min((room - count) * entry.size, _MOST_FILLER))
    following = _targets(destination, rest[: entry.size])
    return (len(rest) < _MOST_FILLER and not any(rest)) or code.index(following[0]) is None


def _targets_inside(code: Code, destination: Destination, read: Callable[[int, int], bytes], room: int | None) -> list[int]:
    """Targets up to the first that lies outside of the function; of whole addresses there must be several."""
    entry = destination.entry
    targets: list[int] = []
    most = len(code.words) if room is None else min(len(code.words), room)
    for target in _targets(destination, read(entry.table, most * entry.size)):
        if code.index(target) is None:
            break
        targets.append(target)
    return targets if entry.size < _WHOLE or (len(targets) > 1 and not entry.sure) else []


def _targets(destination: Destination, raw: bytes) -> list[int]:
    entry = destination.entry
    return [
        destination.anchor + (int.from_bytes(raw[at : at + entry.size], "little", signed=entry.signed) << destination.shift)
        for at in range(0, len(raw) - entry.size + 1, entry.size)
    ]
