"""The patch as a value: what travels, what it replaces, and what must be bound when it is applied."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from hotpatch.patch.output import write_file
from hotpatch.patch.recognise import FileKind

if TYPE_CHECKING:
    from os import PathLike

    from hotpatch.address import Rva
    from hotpatch.arch import FixupKind, Machine, Redirect
    from hotpatch.image import BaseIdentity, Image


class Space(StrEnum):
    """Whose RVA a fixup's target is."""

    BASE = "base"
    PATCH = "patch"


class CarriedKind(StrEnum):
    """What comes along besides the patched functions."""

    FUNCTION = "function"
    CONSTANT = "constant"
    DATA = "data"
    IMPORT = "import"


@dataclass(frozen=True, slots=True)
class PatchedFunction:
    """A base function that is replaced.

    Attributes:
        name: If known.
        base_rva: Its entry in the base.
        patch_rva: The new function's entry in the patch image.
        size: Of the new function, all parts, in bytes.
        redirect: How calls are made to reach it.
        why: ``changed``, ``inlines changed code``, …, and after a semicolon why the redirect is not the one asked for.
        entry_bytes: What the base has at the entry: at least the bytes that the redirect displaces, rounded up to whole instructions, and
            as many more as :func:`hotpatch.arch.Architecture.trampoline` needs to see branches back (the whole first range).
        padding_bytes: What the base has right before the entry, as many bytes as the redirect writes there.
    """

    name: str | None
    base_rva: Rva
    patch_rva: Rva
    size: int
    redirect: Redirect
    why: str
    entry_bytes: bytes
    padding_bytes: bytes

    @property
    def label(self) -> str:
        """The name, or ``rva:0x…``, as FUNCTION arguments are spelt."""
        return self.name or f"rva:0x{self.base_rva:x}"


@dataclass(frozen=True, slots=True)
class Carried:
    """Something new that the patch image holds; sizes in bytes."""

    name: str | None
    patch_rva: Rva
    size: int
    kind: CarriedKind


@dataclass(frozen=True, slots=True)
class Fixup:
    """A reference in the patch image that is bound when it is applied.

    Attributes:
        kind: How it is encoded.
        site: RVA of the field in the patch image.
        space: Whose RVA ``target`` is.
        target: RVA referred to.
        addend: Added to the target's address before encoding.
    """

    kind: FixupKind
    site: Rva
    space: Space
    target: Rva
    addend: int


SUPPORT_LIBRARY = "hotpatch.dll"
"""What a patch's C source imports from whoever patches: originals, shadow data. No such file exists."""
ORIGINAL_PREFIX = "hotpatch_original_"
"""Of the name that it imports a function's original by."""


@dataclass(frozen=True, slots=True)
class PatchImport:
    """An import that the base lacks: ``slot`` in the patch image gets the address of ``library!name``."""

    library: str
    name: str | None
    ordinal: int | None
    slot: Rva


class Moment(StrEnum):
    """When a callback of a patch runs."""

    BEFORE_APPLY = "before-apply"
    """The patch image is mapped and nothing of the program is changed."""
    AFTER_APPLY = "after-apply"
    """Calls reach the new functions."""
    BEFORE_REVERT = "before-revert"
    """Nothing is changed yet."""
    AFTER_REVERT = "after-revert"
    """Calls reach what was in force before the patch."""

    @property
    def symbol(self) -> str:
        """Name of the C function that is the callback."""
        return f"__hotpatch_{self.replace('-', '_')}"


@dataclass(frozen=True, slots=True)
class Callback:
    """A function of the patch image that the engine calls; ``docs/patch-format.md`` lists what it gets; 0 goes on."""

    moment: Moment
    patch_rva: Rva


@dataclass(frozen=True, slots=True)
class Terms:
    """How a patch may be stacked and taken back.

    Attributes:
        state_version: Version of the data that its callbacks hand from patch to patch; 0: it has none.
        obligatory: No newer patch may give the original of one of its functions back.
        can_roll_back: It may be reverted.
    """

    state_version: int = 0
    obligatory: bool = False
    can_roll_back: bool = True


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a patch comes from; hexadecimal SHA-256 of both inputs, and the builder's version."""

    base_name: str
    base_sha256: str
    fixed_name: str
    fixed_sha256: str
    builder: str


@dataclass(frozen=True)
class Patch:
    """A hot patch for one build of one image.

    Attributes:
        machine: Instruction set.
        base: Identity of the image that it patches.
        sequence: Its sequence number, ≥ 1; newer patches have larger ones.
        functions: What it replaces, by base RVA.
        carried: What it brings along, by patch RVA.
        fixups: By site.
        imports: By slot.
        provenance: Inputs and builder.
        overrides: Rules that the builder was told to override, and that objected to something.
        data: The patch image file's bytes.
        image: The same, read as an image.
        callbacks: By moment, at most one each.
        terms: How it may be stacked and taken back.
    """

    machine: Machine
    base: BaseIdentity
    sequence: int
    functions: tuple[PatchedFunction, ...]
    carried: tuple[Carried, ...]
    fixups: tuple[Fixup, ...]
    imports: tuple[PatchImport, ...]
    provenance: Provenance
    overrides: tuple[str, ...]
    data: bytes
    image: Image
    callbacks: tuple[Callback, ...] = ()
    terms: Terms = Terms()

    def __repr__(self) -> str:
        """What it is for, and what it replaces."""
        names = ", ".join(row.label for row in self.functions[:4])
        more = f" and {len(self.functions) - 4} more" if len(self.functions) > 4 else ""
        return f"<Patch {self.sequence} for {self.provenance.base_name} [{self.machine}]: {names}{more}>"

    def save(self, path: str | PathLike[str]) -> None:
        """Write the patch file.

        Raises:
            InputError: It cannot be written, or what is there is a build or a PDB.
        """
        write_file(path, self.data, replaces=FileKind.PATCH)
