"""Whether what an undamaged patch file says makes sense; whoever made it may have made a mistake."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import architecture
from hotpatch.errors import Refusal, Rule
from hotpatch.image.model import SectionFlags
from hotpatch.patch.imports import SLOT_SIZE
from hotpatch.patch.info import HotPatchInfo, hot_patch_info
from hotpatch.patch.model import CarriedKind, Moment, Space
from hotpatch.patch.public import base_flags, table_records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.image import Section
    from hotpatch.patch.model import Patch

_ANY = SectionFlags(0)
_ADVICE = "get the patch from its maker again"


def objections(patch: Patch) -> tuple[Refusal, ...]:
    """Everything that contradicts itself or reaches outside; empty for a sound patch."""
    return (*_head(patch), *_functions(patch), *_carried(patch), *_fixups(patch), *_imports(patch), *_callbacks(patch), *_public(patch))


def _objection(what: str, *, rva: Rva | None = None, function: str | None = None, **evidence: object) -> Refusal:
    return Refusal(Rule.MALFORMED_PATCH, function, rva, f"{what}; {_ADVICE}", evidence)


def _head(patch: Patch) -> Iterator[Refusal]:
    if patch.machine is not patch.image.machine:
        yield _objection(f"the description says {patch.machine}, the image is for {patch.image.machine}")
    if patch.sequence < 1 or patch.sequence > 0xFFFFFFFF:
        yield _objection(f"sequence number {patch.sequence} is not between 1 and 2**32 - 1")
    if not patch.functions:
        yield _objection("it replaces no function")
    if not 0 < patch.base.size_of_image < 1 << 32:
        yield _objection(f"the base's size of image {patch.base.size_of_image} is impossible")


def _functions(patch: Patch) -> Iterator[Refusal]:
    arch = architecture(patch.machine)
    last = -1
    for row in patch.functions:
        site = arch.entry_site(row.redirect)
        if row.base_rva <= last:
            yield _objection("functions are not in the order of their base RVAs", rva=row.base_rva, function=row.name)
        last = row.base_rva
        if not 0 < row.base_rva < patch.base.size_of_image:
            yield _objection("a replaced function lies outside of the base image", rva=row.base_rva, function=row.name)
        if not _inside(patch, row.patch_rva, 1, SectionFlags.EXECUTE) or row.size < 1:
            yield _objection("a new function lies outside of the patch's code", rva=row.patch_rva, function=row.name, size=row.size)
        if row.patch_rva % arch.instruction_alignment or row.base_rva % arch.instruction_alignment:
            yield _objection("a function's entry is not aligned as instructions are", rva=row.patch_rva, function=row.name)
        if len(row.entry_bytes) < site.displaced or len(row.padding_bytes) != site.before:
            yield _objection(
                f"redirect {row.redirect} needs {site.displaced} bytes of the entry and {site.before} before it",
                rva=row.base_rva,
                function=row.name,
                entry=row.entry_bytes.hex(),
                padding=row.padding_bytes.hex(),
            )


def _carried(patch: Patch) -> Iterator[Refusal]:
    for row in patch.carried:
        flags = SectionFlags.EXECUTE if row.kind is CarriedKind.FUNCTION else _ANY
        if row.size < 1 or not _inside(patch, row.patch_rva, 1 if flags else row.size, flags):
            yield _objection(f"a carried {row.kind} lies outside of the sections", rva=row.patch_rva, function=row.name, size=row.size)


def _fixups(patch: Patch) -> Iterator[Refusal]:
    arch = architecture(patch.machine)
    limits = {Space.BASE: patch.base.size_of_image, Space.PATCH: patch.image.size_of_image}
    end = 0
    for row in patch.fixups:
        size = arch.field_size(row.kind)
        if row.site < end:
            yield _objection("fixups overlap or are not in the order of their sites", rva=row.site)
        end = row.site + size
        if not _inside(patch, row.site, size):
            yield _objection("a fixup lies outside of the sections", rva=row.site, kind=row.kind.value)
        if not 0 <= row.target < limits[row.space] or not -(1 << 31) <= row.addend < 1 << 31:
            yield _objection(f"a fixup's target lies outside of the {row.space} image", rva=row.site, target=row.target, addend=row.addend)


def _imports(patch: Patch) -> Iterator[Refusal]:
    end = 0
    for row in patch.imports:
        if row.slot < end or row.slot % SLOT_SIZE or not _inside(patch, row.slot, SLOT_SIZE):
            yield _objection("an import's slot is outside of the sections, or shared", rva=row.slot, function=row.name)
        if not row.library or (row.name is None) == (row.ordinal is None) or row.name == "":
            yield _objection("an import has no name, or both name and ordinal", rva=row.slot, function=row.name)
        end = row.slot + SLOT_SIZE


def _callbacks(patch: Patch) -> Iterator[Refusal]:
    moments = [row.moment for row in patch.callbacks]
    if moments != [moment for moment in Moment if moment in moments]:
        yield _objection("callbacks are not in the order of their moments, or one is there twice", moments=[row.value for row in moments])
    for row in patch.callbacks:
        if not _inside(patch, row.patch_rva, 1, SectionFlags.EXECUTE):
            yield _objection("a callback lies outside of the patch's code", rva=row.patch_rva, function=row.moment.symbol)
    if not 0 <= patch.terms.state_version < 1 << 32:
        yield _objection(f"state version {patch.terms.state_version} is not between 0 and 2**32 - 1")


def _public(patch: Patch) -> Iterator[Refusal]:
    """The public structures must say the same as the description."""
    info = hot_patch_info(patch.image)
    if info is None or len(info.bases) != 1:
        yield _objection("its load configuration points at no IMAGE_HOT_PATCH_INFO with one base")
        return
    yield from _identity(patch, info)
    told = [(row.type_name, row.source_rva, row.target_rva) for row in info.bases[0].records]
    try:
        meant = [(row.type_name, row.source_rva, row.target_rva) for row in table_records(patch.functions, patch.carried, patch.fixups)]
    except (OverflowError, ValueError, struct.error):
        meant = []
    if told != meant:
        yield _objection("the public patch table and the description differ")


def _identity(patch: Patch, info: HotPatchInfo) -> Iterator[Refusal]:
    base = info.bases[0]
    for name, public, own in (
        ("sequence number", info.sequence_number, patch.sequence),
        ("sequence number of the base", base.sequence_number, patch.sequence),
        ("time stamp of the base", base.original_time_date_stamp, patch.base.time_date_stamp),
        ("checksum of the base", base.original_checksum, patch.base.checksum),
        ("flags of the base", base.flags, base_flags(patch.machine, patch.terms)),
        ("SHA-256 of the base", base.code_integrity[:32].hex(), patch.base.sha256),
    ):
        if public != own:
            yield _objection(f"{name} is {public} in the public structures and {own} in the description")


def _inside(patch: Patch, rva: int, size: int, flags: SectionFlags = _ANY) -> bool:
    """Whether ``size`` bytes lie in one section that has ``flags``."""
    section: Section | None = patch.image.section_at(Rva(rva)) if rva > 0 else None
    return section is not None and rva + size <= section.range.end and section.flags & flags == flags
