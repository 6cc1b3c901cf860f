"""Compares what the builder bound each reference to, and what it left alone, with what the compiler says of base and fixed image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import capstone

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Machine, Use
from hotpatch.builder.binding import bind
from hotpatch.builder.bodies import body_of
from hotpatch.builder.callbacks import callback_functions
from hotpatch.builder.model import BaseAddress, Body, CarriedAddress
from hotpatch.builder.ownership import accesses
from hotpatch.builder.reaches import reaches
from hotpatch.builder.select import select
from hotpatch.differ import Verdict
from tests.fuzz.truth import MERGED_GLOBALS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hotpatch.builder.model import Bound, Destination, Link, Site
    from hotpatch.differ import ImageDiff
    from hotpatch.image import Function, Image
    from tests.fuzz.truth import Chunk, Truth

_PAGES = frozenset({FixupKind.PAGEBASE_REL21, FixupKind.IMAGEREL_HIGH12A})
_X64 = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
_X64.detail = True


def misbound(diff: ImageDiff, only: Sequence[str], base: Truth, fixed: Truth, used: frozenset[int]) -> list[str]:
    """What is bound to another place than the compiler's, or left as it is though it must change.

    ``used``: what code and pointers of the base refer to, where a copy of data that nothing there refers to is right as well.
    """
    selected, _ = select(diff, only)
    bound, _ = bind(diff, selected, callback_functions(diff).values())
    travelling = {item.base.entry: item.fixed.entry for item in selected}
    judge = _Judge(diff, base, fixed, used, travelling)
    problems = [text for link in bound.links if (text := judge.link(bound, link))]
    problems += judge.reckoned(bound)
    problems += [text for pair in travelling.items() if (text := judge.replaced(*pair))]
    return problems if only else problems + list(judge.kept(frozenset(travelling)))


def left(diff: ImageDiff, base: Truth, fixed: Truth, used: frozenset[int]) -> list[str]:
    """Functions that differ where there is said to be nothing to do."""
    return list(_Judge(diff, base, fixed, used, {}).kept(frozenset()))


class _Judge:
    def __init__(self, diff: ImageDiff, base: Truth, fixed: Truth, used: frozenset[int], travelling: Mapping[int, int]) -> None:
        self.diff, self.base, self.fixed, self.used, self.travelling = diff, base, fixed, used, travelling
        self._open: set[tuple[str, str, int]] = set()

    # references --------------------------------------------------------------------------------------------------------------------------

    def link(self, bound: Bound, link: Link) -> str | None:
        """Why a link is wrong."""
        found = self.fixed.relocation(link.site.field)
        text = self.fixed.literal(link.site.field) if found is not None else None
        if found is not None and text is not None:
            same = self._same_text(bound, link, text)
            return None if same else f"the text at 0x{link.site.target:x}, {text!r}, is not where 0x{link.site.field:x} is bound to"
        if found is None or found.symbol not in self.fixed.rvas or self.fixed.home[found.symbol].is_code != self._is_code(link.site.target):
            return None
        return self._wrong(bound, link.site, link.destination, found.symbol)

    def reckoned(self, bound: Bound) -> Iterator[str]:
        """What is wrong of what is counted from other addresses anew."""
        symbols = {link.site: found.symbol for link in bound.links if (found := self.fixed.relocation(link.site.field)) is not None}
        for item in bound.reckonings:
            symbol = symbols[item.site] = symbols[item.anchor]
            text = self._wrong(bound, item.site, item.destination, symbol) if symbol in self.fixed.rvas else None
            if text is not None:
                yield text

    def _wrong(self, bound: Bound, site: Site, destination: Destination, symbol: str) -> str | None:
        """Why what ``site`` names by ``symbol``, or what is meant at distances from there, is bound to the wrong place."""
        function = self.diff.fixed.function_at(site.instruction)
        where = f"{function.label if function else 'data'} at 0x{site.field:x}"
        anew = [item.site for item in bound.reckonings]
        for distance in self._meant(self.diff.fixed, function, site, symbol, anew):
            one = replace(site, target=Rva(site.target + distance))
            name = self.fixed.named(symbol, one.target, function.entry if function else None)
            why = self._why(bound, one, _further(destination, distance), name)
            if why:
                return f"{where}: {name}{one.target - self.fixed.rvas[name]:+} {why}"
        return None

    def _meant(self, image: Image, function: Function | None, site: Site, symbol: str, anew: Sequence[Site] = ()) -> tuple[int, ...]:
        """How far behind what a site names lies what is meant: variables that the compiler merged are reached from the first of them.

        With an index on top, only where one begins is it clear which. ``anew``: the instructions that count on by other numbers in a patch.
        """
        body = body_of(image, function) if symbol.startswith(MERGED_GLOBALS) and function is not None else None
        if not isinstance(body, Body):
            return (0,)
        instructions = {one.instruction for one in anew}
        items = reaches(image, body, [one for one in anew if one.instruction in function]).get(site, ())
        if not items:
            return () if site.kind in _PAGES else (0,)
        inside = (item for item in items if item.start >= self.fixed.rvas[symbol] and item.at not in instructions)
        clear = (item for item in inside if not item.indexed or self.fixed.at(item.start))
        return tuple(sorted({item.start - item.taken for item in clear}))

    def _same_text(self, bound: Bound, link: Link, text: bytes) -> bool:
        target, destination = link.site.target, link.destination
        if link.site.kind in _PAGES:
            return True
        if isinstance(destination, BaseAddress):
            return self.diff.base.read(destination.rva, len(text)) == text
        return any(part.range.start <= target and target + len(text) <= part.range.end for part in bound.pieces)

    def _is_code(self, rva: int) -> bool:
        section = self.diff.fixed.section_at(rva)
        return section is not None and section.executable

    def _why(self, bound: Bound, site: Site, destination: Destination, name: str) -> str | None:
        chunk, addend = self.fixed.home[name], site.target - self.fixed.rvas[name]
        if isinstance(destination, BaseAddress):
            return self._at_base(site, name, addend, destination.rva)
        if not isinstance(destination, CarriedAddress) or chunk.is_code:
            return None
        places = self._live_places(name, addend) if chunk.is_live else []
        lost = [place for place, there in places if self.used.intersection(self._reached(there))]
        if lost:
            return f"is copied, though the base has it at 0x{lost[0]:x}"
        width = _width(self.diff.fixed, site)
        start, size = self.fixed.rvas[name], self.fixed.size(name)
        first, last = (site.target, site.target + width) if width else (start, start + size)
        if site.kind not in _PAGES and not any(piece.range.start <= first and last <= piece.range.end for piece in bound.pieces):
            return f"is copied in part: all of it is 0x{start:x} to 0x{start + size:x}"
        return None

    def _reached(self, name: str) -> range:
        """A datum of the base, with its end where nothing else begins there."""
        start, end = self.base.rvas[name], self.base.rvas[name] + self.base.size(name)
        return range(start, end + (not self.base.at(end)))

    def _at_base(self, site: Site, name: str, addend: int, rva: int) -> str | None:
        chunk = self.fixed.home[name]
        if chunk.is_code:
            return None if self._same_code(name, addend, rva) else f"is bound to 0x{rva:x} ({self._told(rva)})"
        if chunk.is_live:
            places = self._live_places(name, addend)
            if not places and self._is_unclear(name):
                return None
            return None if rva in [place for place, _ in places] else f"is bound to 0x{rva:x} ({self._told(rva)}), not {places}"
        width = _width(self.diff.fixed, site)
        if site.kind in _PAGES:
            return None
        start, size = (addend, width) if width else (0, self.fixed.size(name))
        same = self._same_bytes(name, start, size, rva - addend)
        return None if same else f"is bound to 0x{rva:x} ({self._told(rva)}), where the base has something else"

    def _told(self, rva: int) -> str:
        below = max((place, name) for name, place in self.base.rvas.items() if place <= rva)
        return f"{below[1]}+{rva - below[0]}"

    def _is_unclear(self, name: str) -> bool:
        """Whether the base has another number of variables of that name there."""
        part = self.fixed.parts.get(name)
        if part is None:
            return False
        there = [one for one in self.base.parts.values() if one.variable[:2] == part.variable[:2]]
        return any(one.namesakes != part.namesakes for one in there)

    def _live_places(self, name: str, addend: int) -> list[tuple[int, str]]:
        """Where the base has the variable that ``name`` is (a part of), and as what symbol; none where it is new."""
        part = self.fixed.parts.get(name)
        if part is None:
            return [(self.base.rvas[name] + addend, name)] if name in self.base.rvas and self.base.home[name].is_live else []
        if self._is_unclear(name):
            return []
        wanted = part.offset + min(max(addend, 0), max(self.fixed.size(name) - 1, 0))
        found = []
        for offset, there in self.base.by_variable.get(part.variable, ()):
            if offset <= wanted < offset + self.base.room(there):
                found.append((self.base.rvas[there] + part.offset + addend - offset, there))
        return found

    def _same_code(self, name: str, addend: int, rva: int) -> bool:
        owner, offset = self.fixed.within(name)
        entry = rva - addend - offset
        if owner in self.fixed.at(self.travelling.get(entry, -1)) and not self.base.at(entry) & self.fixed.functions.keys():
            return True  # as if renamed: the new one takes the place of one that is gone
        return owner in self.base.at(entry) or any(
            self._same_function(one, owner) for one in self.base.at(entry) if one in self.base.functions
        )

    # constants and functions -------------------------------------------------------------------------------------------------------------

    def _same_bytes(self, name: str, start: int, size: int, rva: int) -> bool:
        """Whether the base has at ``rva`` what the constant ``name`` is from ``start`` on."""
        key = (name, f"{start}+{size}", rva)
        if key in self._open:
            return True
        self._open.add(key)
        at, base, fixed = self.fixed.rvas[name] + start, self.diff.base, self.diff.fixed
        section = base.section_at(rva)
        if section is None or section.writable:
            return False
        chunk, offset = self.fixed.home[name], self.fixed.home[name].symbols[name] + start
        fields = {one - offset: item for one, item in chunk.relocations.items() if offset <= one < offset + size}
        old, new = bytearray(base.read(rva + start, size)), bytearray(fixed.read(at, size))
        for one, item in fields.items():
            if item.kind != "ADDR64":
                return self.base.relocation(rva + start + one) is not None
            old[one : one + 8] = new[one : one + 8] = bytes(8)
            there = base.pointers.get(rva + start + one)
            text = self.fixed.literal(at + one)
            same = there is not None and (
                base.read(there, len(text)) == text
                if text is not None
                else self._same_pointer(item.symbol, fixed.pointers[at + one], there)
            )
            if not same:
                return self._close(key)
        return old == new or self._close(key)

    def _close(self, key: tuple[str, str, int]) -> bool:
        self._open.discard(key)
        return False

    def _same_pointer(self, name: str, here: int, there: int) -> bool:
        name = self.fixed.named(name, here)
        addend = here - self.fixed.rvas[name]
        chunk = self.fixed.home[name]
        if chunk.is_code:
            return self._same_code(name, addend, there)
        if chunk.is_live:
            return there in [place for place, _ in self._live_places(name, addend)] or self._is_unclear(name)
        return self._same_bytes(name, 0, self.fixed.size(name), there - addend)

    def _same_function(self, base: str, fixed: str) -> bool:
        """Whether two functions are the same code that refers to the same things."""
        old, new = self.base.functions[base], self.fixed.functions[fixed]
        key = (fixed, base, -1)
        if key in self._open or old.bare != new.bare or old.relocations.keys() != new.relocations.keys():
            return key in self._open
        self._open.add(key)
        sites = _sites(self.diff.fixed, self.fixed.rvas[fixed])
        start = self.fixed.rvas[fixed]
        alike = all(self._same_reference((old, new), at, sites.get(start + at)) for at in new.relocations)
        return alike or self._close(key)

    def _same_reference(self, chunks: tuple[Chunk, Chunk], at: int, site: Site | None) -> bool:
        """Whether the fields at offset ``at`` of two functions name the same; live data may be parts of a variable in one image only."""
        old, new = (chunk.relocations[at] for chunk in chunks)
        addends = [chunk.addend(at) for chunk in chunks]
        live = new.symbol in self.fixed.rvas and self.fixed.home[new.symbol].is_live
        if old.kind != new.kind or (addends[0] != addends[1] and not (live and old.symbol in self.base.rvas)):
            return False
        if new.symbol not in self.fixed.rvas or old.symbol not in self.base.rvas:
            there, here = (side.home.get(one.symbol) for side, one in ((self.base, old), (self.fixed, new)))
            return there is not None and here is not None and there.raw == here.raw
        there, here = self.base.rvas[old.symbol], self.fixed.home[new.symbol]
        if here.is_code:
            return self._same_code(new.symbol, 0, there)
        if here.is_live:
            target = self.fixed.rvas[new.symbol] + addends[1]
            meant = (0,) if site is None else self._meant(self.diff.fixed, self.diff.fixed.function_at(site.instruction), site, new.symbol)
            pairs = ((there + addends[0] + distance, target + distance) for distance in meant)
            return all(self._is_live_place(*pair, new.symbol, site) for pair in pairs)
        if site is None or site.kind in _PAGES:
            return True
        width, addend = _width(self.diff.fixed, site), site.target - self.fixed.rvas[new.symbol]
        return self._same_bytes(new.symbol, *((addend, width) if width else (0, self.fixed.size(new.symbol))), there)

    def _is_live_place(self, base: int, fixed: int, symbol: str, site: Site | None) -> bool:
        """Whether the base has at ``base`` what the fixed image has at ``fixed``, in or near ``symbol``, as ``site`` names it."""
        function = self.diff.fixed.function_at(site.instruction) if site is not None else None
        name = self.fixed.named(symbol, fixed, function.entry if function else None)
        return self._is_unclear(name) or base in [place for place, _ in self._live_places(name, fixed - self.fixed.rvas[name])]

    def replaced(self, base: int, fixed: int) -> str | None:
        """Why a function takes the place of another one than that of its name."""
        names, others = self.base.at(base) & self.base.functions.keys(), self.fixed.at(fixed) & self.fixed.functions.keys()
        strangers = names and others and not names & others and names & self.fixed.functions.keys()
        return f"{'/'.join(sorted(others))} takes the place of {'/'.join(sorted(names))}" if strangers else None

    def kept(self, travelling: frozenset[int]) -> Iterator[str]:
        """Functions that stay in use though they are not what the fixed image has."""
        removed = {row.base.entry for row in self.diff.of(Verdict.REMOVED) if row.base}
        for name in sorted(self.base.functions.keys() & self.fixed.functions.keys()):
            if self.base.rvas[name] not in travelling | removed and not self._same_function(name, name):
                yield f"{name} is left as it is"


def _further(destination: Destination, distance: int) -> Destination:
    """What lies behind a destination."""
    match destination:
        case BaseAddress(place):
            return BaseAddress(Rva(place + distance))
        case CarriedAddress(fixed):
            return CarriedAddress(Rva(fixed + distance))
    return destination


def _sites(image: Image, entry: int) -> dict[int, Site]:
    function = image.function_at(entry)
    body = body_of(image, function) if function is not None else None
    return {site.field: site for site in body.sites} if isinstance(body, Body) else {}


def _width(image: Image, site: Site) -> int | None:
    """How many bytes an instruction accesses at the address that it names; ``None`` where it takes the address."""
    if site.use is not Use.DATA or site.kind in _PAGES or not accesses(image, site):
        return None
    raw = image.read(site.instruction, site.size)
    if image.machine is Machine.ARM64:
        word = int.from_bytes(raw, "little")
        return 16 if word >> 26 & 1 and word >> 23 & 1 else 1 << (word >> 30)
    found = next(iter(_X64.disasm(raw, 0)), None)
    sizes = [operand.size for operand in found.operands if operand.type == capstone.x86.X86_OP_MEM] if found is not None else []
    return sizes[0] if sizes else None
