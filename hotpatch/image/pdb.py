"""Symbols from a PDB, by purepdb: functions, data with sizes, inlined bodies, section contributions."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

import purepdb
from purepdb import codeview

from hotpatch.address import Rva
from hotpatch.errors import InputError, InputRule
from hotpatch.image.model import Datum, DatumSource, InlineSite, Range, Symbols
from hotpatch.image.pdb_layouts import DatumType, TypeLayouts
from hotpatch.image.pdb_types import TypeSizes

if TYPE_CHECKING:
    from hotpatch.image.parse import PdbReference

_TYPE_STREAM = 2
_SIGNATURE_SIZE = 4
"""Bytes before the first record of a module's stream; a procedure's ``end`` counts them, a record's offset does not."""
_SCOPED_KINDS = codeview.PROC_KINDS | {codeview.S_LDATA32, codeview.S_GDATA32}


def beside(image_path: str, reference: PdbReference | None) -> tuple[Path, ...]:
    """Where a PDB of the image may lie: next to it, under its recorded name or the image's own; existing files only."""
    if reference is None:
        return ()
    folder, stem = Path(image_path).parent, Path(image_path).stem
    names = (PureWindowsPath(reference.path).name, f"{stem}.pdb")
    candidates = dict.fromkeys(folder / name for name in names if name and "\0" not in name)
    return tuple(path for path in candidates if path.is_file())


def find(image_path: str, reference: PdbReference | None, size_of_image: int) -> tuple[str | None, Symbols]:
    """The matching PDB beside an image and what it knows; a PDB of another build is passed over.

    Raises:
        InputError: A PDB is there but damaged.
    """
    for path in beside(image_path, reference):
        symbols = load(str(path), reference, size_of_image)
        if symbols is not None:
            return str(path), symbols
    return None, Symbols()


def load(path: str, reference: PdbReference | None, size_of_image: int) -> Symbols | None:
    """What the PDB at ``path`` knows, or ``None`` where its GUID or age is not the one that the image names.

    Raises:
        InputError: The file cannot be read or is damaged.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            path, f"{error.strerror or error}; make it readable, or take it away from beside the image", InputRule.UNREADABLE
        ) from error
    try:
        with purepdb.PDB.from_bytes(data) as pdb:
            if not _matches(pdb, reference):
                return None
            return _Provider(pdb, size_of_image).symbols()
    except Exception as error:  # a damaged file raises purepdb's own errors and, deeper in, whatever Python raises
        raise _damaged(path, error) from error


def _damaged(path: str, error: Exception) -> InputError:
    what = f"damaged or unsupported PDB ({error or type(error).__name__})"
    return InputError(path, f"{what}; get it anew, or take it away from beside the image", InputRule.DAMAGED)


def source_lines(path: str, size_of_image: int) -> tuple[tuple[Rva, int], ...]:
    """Where the code of each source line begins, by RVA; of the PDB at ``path``, which :func:`load` has taken.

    Raises:
        InputError: The file cannot be read or is damaged.
    """
    try:
        with purepdb.PDB.from_bytes(Path(path).read_bytes()) as pdb:
            rows = [(pdb.to_rva(line.segment, line.offset), line.line) for line in pdb.lines()]  # type: ignore[no-untyped-call]
    except Exception as error:  # as in load
        raise _damaged(path, error) from error
    return tuple(sorted((Rva(rva), line) for rva, line in rows if rva and rva < size_of_image))


def _matches(pdb: purepdb.PDB, reference: PdbReference | None) -> bool:
    if reference is None:
        return False
    information = pdb.info()
    # link.exe raises the information stream's age on each incremental link or stamp; the image records the one of the DBI stream
    return information.guid == reference.guid and reference.age in {pdb.dbi.age, information.age}


class _Provider:
    def __init__(self, pdb: purepdb.PDB, size_of_image: int) -> None:
        self.pdb = pdb
        self.size_of_image = size_of_image

    def symbols(self) -> Symbols:
        return Symbols(
            functions=self._functions(),
            data=self._data(),
            inlines=self._inlines(),
            contributions=self._contributions(),
            separated=self._separated(),
        )

    def _rva(self, segment: int, offset: int, size: int = 0) -> Rva | None:
        rva = self.pdb.to_rva(segment, offset)
        return Rva(rva) if rva and 0 <= size <= self.size_of_image and 0 < rva <= self.size_of_image - size else None

    def _functions(self) -> tuple[tuple[Rva, int | None, str], ...]:
        rows = []
        for function in self.pdb.functions():
            rva = self._rva(function.segment, function.offset, function.code_size or 0)
            if rva is not None:
                rows += [(rva, function.code_size or None, name) for name in function.names if name]
        return tuple(rows)

    def _data(self) -> tuple[Datum, ...]:
        types = TypeSizes(self.pdb.msf.read_stream(_TYPE_STREAM) if self.pdb.msf.is_valid_stream(_TYPE_STREAM) else b"")
        layouts = TypeLayouts(types)
        scopes = self._scopes()
        found: dict[tuple[Rva, str], Datum] = {}
        for symbol in self.pdb.data_symbols():
            rva = self._rva(symbol.segment, symbol.offset)
            if rva is not None and symbol.name:
                size = types.size(symbol.type_index)
                if size is not None and not 0 < size <= self.size_of_image - rva:
                    size = None
                scope = scopes.get((symbol.segment, symbol.offset, symbol.name))
                kind = DatumType(layouts, symbol.type_index)
                is_array = types.is_array(symbol.type_index)
                found.setdefault((rva, symbol.name), Datum(rva, size, symbol.name, DatumSource.PDB, scope, is_array, kind))
        for variable in self.pdb.thread_locals():
            rva = self._rva(variable.segment, variable.offset)
            if rva is not None and variable.name:
                size, kind = types.size(variable.type_index), DatumType(layouts, variable.type_index)
                found.setdefault((rva, variable.name), Datum(rva, size, variable.name, DatumSource.PDB, type=kind))
        for public in self.pdb.public_symbols():
            rva = self._rva(public.segment, public.offset)
            if rva is not None and public.name and not public.is_function:
                found.setdefault((rva, public.name), Datum(rva, None, public.name, DatumSource.PDB))
        return tuple(found[key] for key in sorted(found))

    def _scopes(self) -> dict[tuple[int, int, str], str]:
        """Segment, offset and name of each static local → the procedure whose record encloses its own."""
        found: dict[tuple[int, int, str], str] = {}
        for module in self.pdb.dbi.modules:
            owner, end = "", 0
            for record in codeview.iter_records(self.pdb.module_symbol_bytes(module), kinds=_SCOPED_KINDS):
                if record.kind in codeview.PROC_KINDS:
                    procedure = codeview.parse_proc(record.kind, record.payload)
                    owner, end = procedure.name, procedure.end
                elif record.offset + _SIGNATURE_SIZE < end:
                    datum = codeview.parse_data(record.kind, record.payload)
                    found[datum.segment, datum.offset, datum.name] = owner
        return found

    def _inlines(self) -> tuple[InlineSite, ...]:
        # a site names its caller by segment offset alone; an inlined body outside of the caller's segment is a cold part
        callers = {(symbol.name, symbol.offset): symbol.segment for symbol in self.pdb.module_procs()}
        found = []
        for site in self.pdb.inline_sites():
            caller = self._rva(callers.get((site.parent, site.parent_offset), site.segment), site.parent_offset)
            ranges = []
            for offset, length in site.ranges:
                start = self._rva(site.segment, offset, length)
                if start is not None and length:
                    ranges.append(Range(start, Rva(start + length)))
            if caller is not None and ranges and site.name:
                found.append(InlineSite(caller, site.name, tuple(sorted(ranges))))
        return tuple(sorted(found, key=lambda site: (site.caller, site.ranges, site.name)))

    def _contributions(self) -> tuple[tuple[Rva, int, str], ...]:
        modules = self.pdb.dbi.modules
        found = []
        for part in self.pdb.section_contributions():
            rva = self._rva(part.segment, part.offset, part.size)
            if rva is not None and part.size:
                name = modules[part.module_index].module_name if part.module_index < len(modules) else ""
                found.append((rva, part.size, name))
        return tuple(sorted(found))

    def _separated(self) -> tuple[tuple[Rva, Rva, int], ...]:
        found = []
        for module in self.pdb.dbi.modules:
            for record in codeview.iter_records(self.pdb.module_symbol_bytes(module), kinds=frozenset({codeview.S_SEPCODE})):
                part = codeview.parse_sepcode(record.payload)
                entry = self._rva(part.parent_segment, part.parent_offset)
                start = self._rva(part.segment, part.offset, part.length)
                if entry is not None and start is not None and part.length:
                    found.append((entry, start, part.length))
        return tuple(sorted(found))
