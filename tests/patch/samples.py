"""Patches made by hand, so that the file form is tested without the builder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Machine, Redirect
from hotpatch.image import BaseIdentity, SectionFlags
from hotpatch.patch import (
    Carried,
    CarriedKind,
    Fixup,
    PatchContents,
    PatchedFunction,
    PatchSection,
    Provenance,
    Space,
    import_table,
)

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
CODE = SectionFlags.CODE | SectionFlags.EXECUTE | SectionFlags.READ
DATA = SectionFlags.INITIALIZED_DATA | SectionFlags.READ | SectionFlags.WRITE
READ_ONLY = SectionFlags.INITIALIZED_DATA | SectionFlags.READ
BASE_FILE = b"the base, for hashing"


@dataclass(frozen=True)
class Encoded:
    """What differs between the machines: code of the new function, its call's fixup, what the redirect needs."""

    code: bytes
    call: FixupKind
    padding: bytes
    entry: bytes


ENCODED = {
    Machine.X64: Encoded(bytes.fromhex("e800000000c3") + b"\xcc" * 2, FixupKind.REL32, b"\xcc" * 5, bytes.fromhex("83c001c3")),
    Machine.ARM64: Encoded(bytes.fromhex("00000094c0035fd6"), FixupKind.BRANCH26, b"", bytes.fromhex("00040011c0035fd6")),
}


def contents(machine: Machine, *, extra: int = 0) -> PatchContents:
    """A patch with code, data, an import and a pointer to itself; ``extra``: more fixups."""
    encoded = ENCODED[machine]
    sha256 = hashlib.sha256(BASE_FILE)
    code = encoded.code + bytes(8 * extra)
    imports = import_table(Rva(0x3000), [("kernel32.dll", "Sleep", None), ("user32.dll", None, 7)])
    site = 1 if machine is Machine.X64 else 0
    return PatchContents(
        machine=machine,
        base=BaseIdentity(0x12345678, 0xABCD, 0x9000, "d" * 64, sha256.hexdigest()),
        base_hashes=sha256.digest() + hashlib.sha1(BASE_FILE).digest(),
        sequence=7,
        functions=(
            PatchedFunction("grüße_the_world", Rva(0x1010), Rva(0x1000), 8, Redirect.HPAT, "changed", encoded.entry, encoded.padding),
        ),
        carried=(
            Carried("counter", Rva(0x2000), 8, CarriedKind.DATA),
            Carried(None, Rva(0x2008), 8, CarriedKind.DATA),
            Carried("Sleep", Rva(0x3000), 8, CarriedKind.IMPORT),
        ),
        fixups=(
            Fixup(encoded.call, Rva(0x1000 + site), Space.BASE, Rva(0x1040), 0),
            *(Fixup(FixupKind.ADDR64, Rva(0x1008 + 8 * index), Space.BASE, Rva(0x4000 + index), -1) for index in range(extra)),
            Fixup(FixupKind.ADDR64, Rva(0x2000), Space.PATCH, Rva(0x1000), 0),
            Fixup(FixupKind.ADDR64, Rva(0x2008), Space.BASE, Rva(0x5000), 0),
        ),
        imports=imports.imports,
        provenance=Provenance("base.dll", sha256.hexdigest(), "fixed.dll", "0" * 64, "hotpatch 0.1.0"),
        overrides=("run-once",),
        sections=(
            PatchSection(".text", Rva(0x1000), len(code), code, CODE),
            PatchSection(".data", Rva(0x2000), 0x40, bytes(16), DATA),
            PatchSection(".idata", Rva(0x3000), len(imports.data), imports.data, READ_ONLY),
        ),
        pdata=None,
        import_directory=imports.directory,
        import_addresses=imports.addresses,
    )
