"""PE files made by hand, with just what the loader looks at."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from hotpatch.arch import Machine
from hotpatch.image import Image

TEXT, RDATA, DATA, RELOC = 0x1000, 0x2000, 0x3000, 0x4000
SIZE = 0x5000
DIRECTORIES = {"export": 0, "import": 1, "exception": 3, "reloc": 5, "debug": 6, "tls": 9, "load_config": 10, "delay_import": 13}
MACHINE = {Machine.X64: 0x8664, Machine.ARM64: 0xAA64}
RX, R, RW, RWX = 0x6000_0020, 0x4000_0040, 0xC000_0040, 0xE000_0020


@dataclass
class Pe:
    """A file in the making; the caller puts bytes at RVAs and names directories."""

    machine: Machine
    base: int = 0x1_8000_0000
    dll: bool = True
    entry: int = 0
    text_flags: int = RX
    rdata_flags: int = R
    subsystem: int = 3
    time_date_stamp: int = 0x1234
    characteristics: int = 0x22
    content: bytearray = field(default_factory=lambda: bytearray(SIZE))
    directories: dict[str, tuple[int, int]] = field(default_factory=dict)
    relocations: list[int] = field(default_factory=list)
    cursor: int = RDATA

    def put(self, rva: int, data: bytes) -> int:
        self.content[rva : rva + len(data)] = data
        return rva

    def add(self, data: bytes) -> int:
        """Somewhere in .rdata."""
        rva = self.put(self.cursor, data)
        self.cursor += len(data) + 15 & -16
        return rva

    def pointer(self, rva: int, target: int) -> None:
        """A relocated pointer."""
        self.put(rva, struct.pack("<Q", self.base + target))
        self.relocations.append(rva)

    def exports(self, name: str, functions: list[tuple[str | None, int | str]]) -> None:
        """In ordinal order from 1; a string instead of an RVA is a forwarder."""
        start = self.cursor
        self.cursor += 40
        library = self.add(name.encode() + b"\0")
        rvas = [self.add(target.encode() + b"\0") if isinstance(target, str) else target for _, target in functions]
        named = sorted((symbol, index) for index, (symbol, _) in enumerate(functions) if symbol is not None)
        names = [self.add(symbol.encode() + b"\0") for symbol, _ in named]
        addresses = self.add(struct.pack(f"<{len(rvas)}I", *rvas))
        name_table = self.add(struct.pack(f"<{len(names)}I", *names))
        ordinals = self.add(struct.pack(f"<{len(named)}H", *(index for _, index in named)))
        self.put(start, struct.pack("<IIHHIIIIIII", 0, 0, 0, 0, library, 1, len(rvas), len(names), addresses, name_table, ordinals))
        self.directories["export"] = (start, self.cursor - start)

    def imports(self, libraries: dict[str, list[str | int]], *, delay: bool = False) -> dict[str | int, int]:
        """Slots by name or ordinal."""
        slots: dict[str | int, int] = {}
        rows = []
        for library, symbols in libraries.items():
            words = [1 << 63 | symbol if isinstance(symbol, int) else self.add(b"\0\0" + symbol.encode() + b"\0") for symbol in symbols]
            table = struct.pack(f"<{len(words) + 1}Q", *words, 0)
            lookup, addresses = self.add(table), self.add(table)
            slots.update({symbol: addresses + 8 * index for index, symbol in enumerate(symbols)})
            name = self.add(library.encode() + b"\0")
            if delay:
                for index in range(len(symbols)):
                    self.pointer(addresses + 8 * index, TEXT)
                module = self.add(bytes(8))
                rows.append(struct.pack("<IIIIIIII", 1, name, module, addresses, lookup, 0, 0, 0))
            else:
                rows.append(struct.pack("<IIIII", lookup, 0, 0, name, addresses))
        table = b"".join(rows)
        start = self.add(table + bytes(32 if delay else 20))
        self.directories["delay_import" if delay else "import"] = (start, len(table) + (32 if delay else 20))
        return slots

    def tls(self, template: bytes, zeros: int, callbacks: list[int]) -> int:
        """RVA of the index variable."""
        index, start = DATA + 0xF00, self.add(template)
        table = self.add(bytes(8 * (len(callbacks) + 1)))
        for position, callback in enumerate(callbacks):
            self.pointer(table + 8 * position, callback)
        directory = self.add(bytes(40))
        for offset, target in ((0, start), (8, start + len(template)), (16, index), (24, table)):
            self.pointer(directory + offset, target)
        self.put(directory + 32, struct.pack("<II", zeros, 0))
        self.directories["tls"] = (directory, 40)
        return index

    def load_configuration(self, *, cookie: int, check: int, dispatch: int) -> None:
        """Fields of IMAGE_LOAD_CONFIG_DIRECTORY64: SecurityCookie at 0x58, guard pointers at 0x70 and 0x78."""
        start = self.add(struct.pack("<I", 0x118) + bytes(0x114))
        for offset, target in ((0x58, cookie), (0x70, check), (0x78, dispatch)):
            self.pointer(start + offset, target)
        self.directories["load_config"] = (start, 0x118)

    def build(self, name: str) -> Image:
        return Image.from_bytes(self.file(), name)

    def file(self) -> bytes:
        if self.relocations:
            pages: dict[int, list[int]] = {}
            for rva in self.relocations:
                pages.setdefault(rva & -0x1000, []).append(rva & 0xFFF)
            blocks = b""
            for page, sites in sorted(pages.items()):
                entries = [0xA000 | site for site in sorted(sites)] + [0] * (len(sites) % 2)
                blocks += struct.pack("<II", page, 8 + 2 * len(entries)) + struct.pack(f"<{len(entries)}H", *entries)
            self.put(RELOC, blocks)
            self.directories["reloc"] = (RELOC, len(blocks))
        sections = [(b".text", TEXT, self.text_flags), (b".rdata", RDATA, self.rdata_flags), (b".data", DATA, RW), (b".reloc", RELOC, R)]
        flags = self.characteristics | (0x2000 if self.dll else 0)
        header = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
        header += b"PE\0\0" + struct.pack("<HHIIIHH", MACHINE[self.machine], len(sections), self.time_date_stamp, 0, 0, 240, flags)
        header += struct.pack("<HBBIIIII", 0x20B, 14, 0, 0x1000, 0x3000, 0, self.entry, TEXT)
        header += struct.pack(
            "<QIIHHHHHHIIIIHHQQQQII",
            self.base,
            0x1000,
            0x200,
            6,
            0,
            0,
            0,
            6,
            0,
            0,
            SIZE,
            0x400,
            0,
            self.subsystem,
            0x160,
            1 << 20,
            4096,
            1 << 20,
            4096,
            0,
            16,
        )
        directories = [(0, 0)] * 16
        for name, place in self.directories.items():
            directories[DIRECTORIES[name]] = place
        header += b"".join(struct.pack("<II", *place) for place in directories)
        for index, (name, rva, section_flags) in enumerate(sections):
            header += struct.pack("<8sIIIIIIHHI", name, 0x1000, rva, 0x1000, 0x400 + 0x1000 * index, 0, 0, 0, 0, section_flags)
        return header.ljust(0x400, b"\0") + bytes(self.content[TEXT:SIZE])
