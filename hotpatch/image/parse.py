"""From the bytes of a file to the plain values of :mod:`hotpatch.image.model`, with LIEF."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lief

from hotpatch.address import FileOffset, Rva
from hotpatch.errors import HotpatchError
from hotpatch.image.headers import MACHINES, check, damaged
from hotpatch.image.model import (
    Export,
    Hybrid,
    Import,
    LoadConfiguration,
    Range,
    Section,
    SectionFlags,
    TlsDirectory,
)

if TYPE_CHECKING:
    from hotpatch.arch import Machine
    from hotpatch.image.headers import Headers

lief.logging.disable()

HOTPATCH_COMPATIBLE = 0x80
"""``IMAGE_DLLCHARACTERISTICS_EX_HOTPATCH_COMPATIBLE`` (Windows SDK 26100 winnt.h)."""

_DIRECTORY_EXCEPTION = 3
_DIRECTORY_LOAD_CONFIGURATION = 10
_DIRECTORY_IAT = 12
_GUARD_TABLE_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class PdbReference:
    """The CodeView record's way to a PDB: GUID bytes as stored, age, and the recorded path."""

    guid: bytes
    age: int
    path: str


@dataclass(frozen=True, slots=True)
class CoffSymbol:
    """A symbol of the COFF symbol table that lies in a section."""

    rva: Rva
    name: str
    is_function: bool


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a PE file says of itself; addresses are RVAs."""

    machine: Machine
    hybrid: Hybrid
    time_date_stamp: int
    is_reproducible: bool
    """Whether the linker put a hash where time stamps stand (``/Brepro``)."""
    characteristics: int
    checksum: int
    size_of_image: int
    headers_size: int
    section_alignment: int
    preferred_base: int
    entry_point: Rva | None
    subsystem: int
    dll_characteristics: int
    hotpatch_compatible: bool
    sections: tuple[Section, ...]
    imports: tuple[Import, ...]
    exports: tuple[Export, ...]
    relocations: tuple[Rva, ...]
    load_configuration: LoadConfiguration | None
    tls: TlsDirectory | None
    function_table: Range
    import_address_tables: tuple[Range, ...]
    guard_functions: tuple[Rva, ...]
    coff_symbols: tuple[CoffSymbol, ...]
    pdb: PdbReference | None


def parse(data: bytes, subject: str) -> Parsed:
    """Parse a PE32+ image.

    Raises:
        InputError: The file cannot be used; the message says why.
    """
    parsed = _parse(data, check(data, subject), subject)
    if parsed is None:
        raise damaged(subject, "malformed PE file (LIEF cannot parse it)")
    return parsed


def _parse(data: bytes, headers: Headers, subject: str) -> Parsed | None:
    config = lief.PE.ParserConfig()
    config.parse_signature = False
    config.parse_rsrc = False
    config.parse_arm64x_binary = False
    config.parse_exceptions = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # LIEF warns of each number that its enumerations lack
            binary = lief.PE.parse(data, config)
            return None if binary is None else _Reader(binary, headers, subject).read()
    except HotpatchError:
        raise
    except Exception as error:  # LIEF raises what its C++ code raised, of no common type
        raise damaged(subject, f"malformed PE file ({error})") from error


class _Reader:
    def __init__(self, binary: lief.PE.Binary, headers: Headers, subject: str) -> None:
        self.binary = binary
        self.headers = headers
        self.subject = subject
        self.base = binary.optional_header.imagebase
        self.size = headers.size_of_image

    def read(self) -> Parsed:
        header, optional = self.binary.header, self.binary.optional_header
        hybrid = self._hybrid()
        configuration = self.binary.load_configuration
        entry = optional.addressof_entrypoint
        return Parsed(
            machine=MACHINES.get(self.headers.machine_value, MACHINES[0xAA64]),
            hybrid=hybrid,
            time_date_stamp=header.time_date_stamps,
            is_reproducible=any(entry.type is lief.PE.Debug.TYPES.REPRO for entry in self.binary.debug),
            characteristics=self.headers.characteristics,
            checksum=optional.checksum,
            size_of_image=self.size,
            headers_size=self.headers.size_of_headers,
            section_alignment=self.headers.section_alignment,
            preferred_base=self.base,
            entry_point=Rva(entry) if entry else None,
            subsystem=self.headers.subsystem,
            dll_characteristics=self.headers.dll_characteristics,
            hotpatch_compatible=self._hotpatch_compatible(),
            sections=tuple(map(_section, self.binary.sections)),
            imports=self._imports(),
            exports=self._exports(),
            relocations=self._relocations(),
            load_configuration=self._load_configuration(configuration) if configuration else None,
            tls=self._tls(),
            function_table=self._directory(_DIRECTORY_EXCEPTION),
            import_address_tables=tuple(table for table in (self._directory(_DIRECTORY_IAT),) if table.size),
            guard_functions=self._guard_functions(configuration),
            coff_symbols=self._coff_symbols(),
            pdb=self._pdb(),
        )

    def _directory(self, index: int) -> Range:
        rva, size = self.headers.directories[index] if index < len(self.headers.directories) else (0, 0)
        return Range(Rva(rva), Rva(rva + size if rva else rva))

    def _rva(self, va: int | None) -> Rva | None:
        """A VA of the file as an RVA; ``None`` for 0 and for what is outside of the image."""
        return Rva(va - self.base) if va and self.base <= va < self.base + self.size else None

    def _inside(self, rva: int) -> bool:
        return 0 < rva < self.size

    def _hybrid(self) -> Hybrid:
        if self.binary.is_arm64x or self.headers.machine_value == 0xA64E:
            return Hybrid.ARM64X
        if self.binary.is_arm64ec or self.headers.machine_value == 0xA641:
            return Hybrid.ARM64EC
        configuration = self.binary.load_configuration
        if configuration is not None and configuration.chpe_metadata_pointer:
            return Hybrid.CHPE
        return Hybrid.NONE

    def _hotpatch_compatible(self) -> bool:
        return any(
            isinstance(entry, lief.PE.ExDllCharacteristics) and int(entry.ex_characteristics) & HOTPATCH_COMPATIBLE
            for entry in self.binary.debug
        )

    def _imports(self) -> tuple[Import, ...]:
        found: list[Import] = []
        for library in self.binary.imports:
            found += [self._import(library.name, entry, entry.iat_address, delay=False) for entry in library.entries]
        for delayed in self.binary.delay_imports:
            found += [self._import(delayed.name, late, delayed.iat + 8 * at, delay=True) for at, late in enumerate(delayed.entries)]
        return tuple(entry for entry in found if self._inside(entry.slot))

    @staticmethod
    def _import(library: object, entry: lief.PE.ImportEntry | lief.PE.DelayImportEntry, slot: int, *, delay: bool) -> Import:
        ordinal = entry.ordinal if entry.is_ordinal else None
        return Import(_text(library), None if entry.is_ordinal else _text(entry.name), ordinal, Rva(slot), delay)

    def _exports(self) -> tuple[Export, ...]:
        table = self.binary.get_export()
        if table is None:
            return ()
        found = []
        for entry in table.entries:
            name = _text(entry.name) or None
            if entry.is_forwarded:
                information = entry.forward_information
                found.append(Export(name, entry.ordinal, None, f"{_text(information.library)}.{_text(information.function)}"))
            elif self._inside(entry.address):
                found.append(Export(name, entry.ordinal, Rva(entry.address), None))
        return tuple(sorted(found, key=lambda export: (export.ordinal, export.name or "")))

    def _relocations(self) -> tuple[Rva, ...]:
        wanted = lief.PE.RelocationEntry.BASE_TYPES.DIR64
        sites = {entry.address for block in self.binary.relocations for entry in block.entries if entry.type == wanted}
        return tuple(Rva(site) for site in sorted(sites) if 0 < site <= self.size - 8)

    def _load_configuration(self, found: lief.PE.LoadConfiguration) -> LoadConfiguration:
        start, _ = self.headers.directories[_DIRECTORY_LOAD_CONFIGURATION]
        written = (
            found.guard_cf_check_function_pointer,
            found.guard_cf_dispatch_function_pointer,
            found.guard_rf_failure_routine_function_pointer,
            found.guard_rf_verify_stackpointer_function_pointer,
            found.guard_xfg_check_function_pointer,
            found.guard_xfg_dispatch_function_pointer,
            found.guard_xfg_table_dispatch_function_pointer,
            found.cast_guard_os_determined_failure_mode,
            found.guard_memcpy_function_pointer,
        )
        offset = found.hotpatch_table_offset or 0
        return LoadConfiguration(
            range=Range(Rva(start), Rva(start + found.size)),
            security_cookie=self._rva(found.security_cookie),
            guard_check_pointer=self._rva(found.guard_cf_check_function_pointer),
            guard_dispatch_pointer=self._rva(found.guard_cf_dispatch_function_pointer),
            guard_flags=int(found.guard_flags or 0),
            hot_patch_table_offset=offset,
            hot_patch_table=Rva(offset) if self._inside(offset) else None,
            loader_written=tuple(sorted({rva for rva in map(self._rva, written) if rva is not None})),
        )

    def _tls(self) -> TlsDirectory | None:
        tls = self.binary.tls
        if tls is None:
            return None
        start, end = tls.addressof_raw_data
        template = Range(self._rva(start) or Rva(0), self._rva(end) or self._rva(start) or Rva(0))
        index = self._rva(tls.addressof_index)
        if index is None or template.size < 0:
            raise damaged(self.subject, "malformed TLS directory: its template or index lies outside of the image")
        callbacks = tuple(rva for rva in map(self._rva, tls.callbacks) if rva is not None)
        return TlsDirectory(template, tls.sizeof_zero_fill, index, callbacks)

    def _guard_functions(self, found: lief.PE.LoadConfiguration | None) -> tuple[Rva, ...]:
        if found is None or not 0 < (found.guard_cf_function_count or 0) <= _GUARD_TABLE_LIMIT:
            return ()
        return tuple(sorted({Rva(entry.rva) for entry in found.guard_cf_functions if self._inside(entry.rva)}))

    def _coff_symbols(self) -> tuple[CoffSymbol, ...]:
        sections = self.headers.sections
        found = []
        for symbol in self.binary.symbols:
            number = symbol.section_idx
            if 1 <= number <= len(sections) and symbol.name and not symbol.is_file_record:
                rva = sections[number - 1].rva + symbol.value
                if self._inside(rva):
                    found.append(CoffSymbol(Rva(rva), _text(symbol.name), bool(symbol.is_function)))
        return tuple(sorted(found, key=lambda symbol: (symbol.rva, symbol.name)))

    def _pdb(self) -> PdbReference | None:
        view = self.binary.codeview_pdb
        if view is None:
            return None
        return PdbReference(bytes(view.signature), view.age, _text(view.filename))


def _section(section: lief.PE.Section) -> Section:
    return Section(
        name=_text(section.name).rstrip("\0"),
        rva=Rva(section.virtual_address),
        virtual_size=section.virtual_size,
        raw_size=section.sizeof_raw_data,
        offset=FileOffset(section.pointerto_raw_data),
        flags=SectionFlags(int(section.characteristics)),
    )


def _text(value: object) -> str:
    """A name as LIEF gives it: text, or bytes where it is not UTF-8."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
