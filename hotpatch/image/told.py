"""Which functions an image's tables and symbols tell of, and how far those go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.arch import Flow
from hotpatch.image.claims import Claims
from hotpatch.image.flow import LONGEST_FILLER, decode, filler_length
from hotpatch.image.funclets import funclets
from hotpatch.image.model import FunctionSource

if TYPE_CHECKING:
    from hotpatch.image.image import Image


class Told(Claims):
    """Claims of what something outside of the code vouches for.

    Attributes:
        image: Whose functions they are.
        source: Entry → the numbers of what tells of it, added up.
        unsized: Entries of functions whose bounds only their code tells.
        merged: Functions that were found to be parts, and of which.
    """

    def __init__(self, image: Image) -> None:
        super().__init__(image)
        self.image = image
        self.source: dict[int, int] = {}
        self.unsized: set[int] = set()
        self.merged: dict[int, int] = {}

    def note(self, entry: int, source: FunctionSource) -> None:
        """Count ``source`` among what tells of the function at ``entry``."""
        self.source[entry] = int.__or__(self.source.get(entry, 0), source)

    def take_symbols(self) -> None:
        """Procedures with sizes from the PDB, and their separated parts."""
        symbols = self.image.symbols
        sized = {rva: size for rva, size, _ in reversed(symbols.functions) if size is not None and self.is_code(rva)}
        for rva in sorted(sized):
            following = self.containing(rva)
            if following is not None:
                self.split(rva)
            else:
                self.claim(rva, rva + sized[rva], rva)
            self.note(rva, FunctionSource.PDB)
        for entry, start, size in symbols.separated:
            if entry in sized:
                self.claim(start, start + size, entry)

    def take_function_table(self) -> None:
        """Function-table entries, chained ones under their primary; pieces inside of a known procedure are that procedure's."""
        entries = sorted(self.image.unwind_entries, key=lambda entry: (entry.primary != entry.range[0], entry.range))
        for (start, end), _, _, primary, _, _ in entries:
            if not self.is_code(start):
                continue
            inside = self.containing(start)
            owner = self.owner[inside] if inside is not None else self._owner_of(primary)
            if owner in (start, primary) or owner not in self.source:
                self.note(owner, FunctionSource.PDATA)
            self.claim(start, end, owner)

    def _owner_of(self, primary: int) -> int:
        inside = self.containing(primary)
        return self.owner[inside] if inside is not None else primary

    def take_named_starts(self) -> None:
        """Starts without a size that something outside of the code vouches for; they cut a range that they lie in."""
        image = self.image
        rows: list[tuple[int, FunctionSource]] = [(rva, FunctionSource.PDB) for rva, _, _ in image.symbols.functions]
        rows += [(export.rva, FunctionSource.EXPORT) for export in image.exports if export.rva is not None]
        rows += [(symbol.rva, FunctionSource.COFF) for symbol in image.coff_symbols if symbol.is_function]
        rows += [(rva, FunctionSource.GUARD) for rva in image.guard_functions]
        rows += [(rva, FunctionSource.CFFI) for rva in image.cffi_names]
        rows += [(entry.handler, FunctionSource.PDATA) for entry in image.unwind_entries if entry.handler is not None]
        rows += [(rva, FunctionSource.EXCEPTION) for rva in self._funclets()]
        if image.entry_point is not None:
            rows.append((image.entry_point, FunctionSource.ENTRY_POINT))
        if image.tls is not None:
            rows += [(rva, FunctionSource.ENTRY_POINT) for rva in image.tls.callbacks]
        for rva, source in rows:
            if self.is_code(rva):
                self._start(rva, source, cuts=True)

    def _funclets(self) -> list[int]:
        """Entries of the funclets that are functions; the others become parts of those that they belong to.

        Microsoft's compiler makes a procedure of each and lays them apart from their functions. clang counts blocks to the procedure, whose
        section they end, so that no filler of the linker's, which traps, stands before them; its filters are procedures.
        """
        found: list[int] = []
        after: dict[int, int] = {}
        for funclet in funclets(self.image):
            inside = self.containing(funclet.entry)
            if self._is_procedure(inside):
                continue
            home = self.containing(funclet.parents[0]) if len(funclet.parents) == 1 and not funclet.is_filter else None
            start = None if home is None else after.get(self.owner[home], self.end[home])
            if inside is None or start is None or home is None or not self._is_same_section(start, funclet.entry):
                found.append(funclet.entry)
                continue
            after[self.owner[home]] = self.end[inside]
            self.claim(start, funclet.entry, self.owner[home])
            self._merge(self.owner[inside], self.owner[home])
        return found

    def _is_same_section(self, end: int, start: int) -> bool:
        """Whether nothing stands between ``end`` and ``start`` but filler that does not trap."""
        gap = self.image.read(end, start - end) if 0 <= start - end <= LONGEST_FILLER else None
        architecture = self.image.architecture
        if gap is None or filler_length(architecture, gap) < len(gap):
            return False
        return all(filler.flow is not Flow.TRAP for filler in decode(architecture, gap, 0, end))

    def _is_procedure(self, start: int | None) -> bool:
        """Whether the PDB says how far the function of a range goes."""
        return start is not None and bool(self.source.get(self.owner[start], 0) & FunctionSource.PDB)

    def _start(self, rva: int, source: FunctionSource, *, cuts: bool) -> None:
        inside = self.containing(rva)
        if inside is None:
            self.unsized.add(rva)
        elif inside != rva or self.owner[inside] != rva:
            owner = self.owner[inside]
            if owner in self.unsized:
                self.forget(owner)
                self.unsized.add(rva)
            elif cuts:
                self.split(rva)
                self.give(rva, rva)
            else:
                return
        self.note(rva, source)

    def _merge(self, part: int, owner: int) -> None:
        for start in tuple(self.owned.get(part, ())):
            self.give(start, owner)
        self.source.pop(part, None)
        self.merged[part] = owner

    def _survivor(self, owner: int) -> int:
        """The function that ``owner`` is a part of by now."""
        while owner in self.merged:
            owner = self.merged[owner]
        return owner
