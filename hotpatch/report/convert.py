"""From values of the other rooms to the documents of the interface."""

from __future__ import annotations

import re
from collections import Counter
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, cast

from msgspec.structs import replace

from hotpatch.address import Rva
from hotpatch.differ import Verdict
from hotpatch.patch import CarriedKind
from hotpatch.report.documents import (
    BuildDocument,
    CallbackDocument,
    CarriedDocument,
    FaultDocument,
    FrameDocument,
    HotPatchBaseDocument,
    HotPatchInfoDocument,
    HotPatchRecordDocument,
    HotpatchSupport,
    IdentityDocument,
    InspectedFunction,
    InspectImageDocument,
    InspectPatchDocument,
    PatchedFunctionDocument,
    ProvenanceDocument,
    RefusalDocument,
    SectionDocument,
    SignatureDocument,
    StayingDocument,
    UnwindDocument,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from hotpatch.differ import FunctionMatch, ImageDiff
    from hotpatch.errors import Fault, Refusal
    from hotpatch.image import BaseIdentity, Image, UnwindSteps
    from hotpatch.patch import Carried, HotPatchInfo, Patch
    from hotpatch.report.documents import Access, MicroFunctionDocument
    from hotpatch.verifier import Rehearsal


_LITERALS = {"??_C@_0": "utf-8", "??_C@_1": "utf-16-le"}
_TEXTS = re.compile(rb"[\x20-\x7e]{3,}\0+([\x20-\x7e]+\0+)*")


def plain(value: object) -> object:
    """``value`` as JSON has it: bytes as hexadecimal text, enumerations as their values, sets sorted, tuples as lists."""
    match value:
        case bytes() | bytearray():
            return value.hex()
        case bool() | None:
            return value
        case float():
            return number(value)
        case str():
            return str(value)
        case int():
            return int(value)
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case set() | frozenset():
            return [plain(item) for item in sorted(value)]
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return str(value)


def facts(values: Mapping[str, object]) -> dict[str, Any]:
    """Named facts as JSON has them."""
    return {str(key): plain(value) for key, value in values.items()}


def number(value: float) -> float | None:
    """``value`` where JSON can hold it; infinities and NaN are not numbers there."""
    return value if isfinite(value) else None


def refusals(values: Iterable[Refusal]) -> list[RefusalDocument]:
    """Refusals, in their order."""
    return [
        RefusalDocument(rule=item.rule.value, function=item.function, rva=item.rva, reason=item.reason, evidence=facts(item.evidence))
        for item in values
    ]


def fault(value: Fault | None) -> FaultDocument | None:
    """A fault, if there was one."""
    return None if value is None else fault_document(value)


def fault_document(value: Fault) -> FaultDocument:
    """A fault."""
    return FaultDocument(
        kind=value.kind.value,
        address=value.address,
        pc=value.pc,
        function=value.function,
        access=cast("Access | None", value.access),
        stack=[FrameDocument(pc=frame.pc, function=frame.function) for frame in value.stack],
        detail=value.detail,
    )


def identity(value: BaseIdentity) -> IdentityDocument:
    """Which build a patch is for."""
    return IdentityDocument(
        sha256=value.sha256,
        time_date_stamp=value.time_date_stamp,
        checksum=value.checksum,
        size_of_image=value.size_of_image,
        digest=value.digest,
    )


def _functions(patch: Patch) -> list[PatchedFunctionDocument]:
    return [
        PatchedFunctionDocument(
            name=item.name, base_rva=item.base_rva, patch_rva=item.patch_rva, size=item.size, redirect=item.redirect.value, why=item.why
        )
        for item in patch.functions
    ]


def _carried(patch: Patch) -> list[CarriedDocument]:
    return [
        CarriedDocument(name=item.name, patch_rva=item.patch_rva, size=item.size, kind=item.kind.value, text=_literal(patch, item))
        for item in patch.carried
    ]


def _literal(patch: Patch, item: Carried) -> str | None:
    """What a literal text says; its mangled name (``??_C@_0…``, ``??_C@_1…`` for wide ones) has neither all of it nor in plain letters.

    Without names, a constant that is nothing but texts of ASCII characters, each with C's end, is taken for these, with a NUL between.
    """
    encoding = _LITERALS.get((item.name or "")[:7])
    if encoding is None and (item.name or item.kind is not CarriedKind.CONSTANT):
        return None
    data = patch.image.read(item.patch_rva, item.size)
    if encoding is None:
        return re.sub("\0+", "\0", data.decode().rstrip("\0")) if _TEXTS.fullmatch(data) else None
    return data.decode(encoding, "backslashreplace").partition("\0")[0]


def build(
    patch: Patch, path: str, found: ImageDiff, checked: list[MicroFunctionDocument] | None = None, rehearsal: Rehearsal | None = None
) -> BuildDocument:
    """The document of a ``hotpatch build`` that made a patch out of what was ``found``; ``checked`` is what was run on made-up state."""
    return BuildDocument(
        patch=path,
        sequence=patch.sequence,
        bytes=len(patch.data),
        base=identity(patch.base),
        functions=_functions(patch),
        carried=_carried(patch),
        overrides=list(patch.overrides),
        checked=checked or [],
        assumed_imports=list(rehearsal.stood_for) if rehearsal is not None else [],
        start_ended_at=list(rehearsal.start_ended_at) if rehearsal is not None else [],
        staying=staying(found, {item.base_rva for item in patch.functions}),
        refused=[],
    )


def no_build(base: Image, sequence: int, refused: Iterable[Refusal], found: ImageDiff | None = None) -> BuildDocument:
    """The document of a ``hotpatch build`` that made none, by a refusal or because nothing was ``found`` that travels."""
    told = refusals(refused)
    if found is not None:
        told = [_with_base_function(item, found) for item in told]
    return BuildDocument(
        patch=None,
        sequence=sequence,
        bytes=0,
        base=identity(base.identity),
        functions=[],
        carried=[],
        staying=[] if found is None or told else staying(found, frozenset()),
        refused=told,
    )


def _with_base_function(refusal: RefusalDocument, found: ImageDiff) -> RefusalDocument:
    """A refusal about a function of the fixed image also tells which one of the base that is: by that, ``--except`` names it."""
    entry = None
    if refusal.evidence.get("image") == "fixed" and refusal.rva is not None:
        entry = found.base_entries.get(Rva(refusal.rva))
    return refusal if entry is None else replace(refusal, evidence={**refusal.evidence, "base_function": int(entry)})


def staying(found: ImageDiff, travelling: Collection[int]) -> list[StayingDocument]:
    """Functions of the base that differ and whose entries are not among those ``travelling``, by entry."""
    told: dict[int, StayingDocument] = {}
    for row in found.functions:
        if row.base is None or row.base.entry in travelling or row.verdict not in (Verdict.REMOVED, Verdict.CHANGED):
            continue
        told.setdefault(row.base.entry, StayingDocument(name=row.base.name, base_rva=row.base.entry, why=_why_staying(row)))
    return [told[entry] for entry in sorted(told)]


def _why_staying(row: FunctionMatch) -> Literal["removed", "cosmetic", "left-out"]:
    if row.verdict is Verdict.REMOVED:
        return "removed"
    return "cosmetic" if row.is_cosmetic else "left-out"


def hot_patch_info(value: HotPatchInfo) -> HotPatchInfoDocument:
    """The public hot patch structures of an image."""
    return HotPatchInfoDocument(
        version=value.version,
        sequence_number=value.sequence_number,
        min_sequence_number=value.min_sequence_number,
        bases=[
            HotPatchBaseDocument(
                sequence_number=base.sequence_number,
                original_time_date_stamp=base.original_time_date_stamp,
                original_checksum=base.original_checksum,
                records=[
                    HotPatchRecordDocument(
                        type=record.type_name, source_rva=record.source_rva, target_rva=record.target_rva, raw=record.raw.hex()
                    )
                    for record in base.records
                ],
            )
            for base in value.bases
        ],
    )


def unwind_data(image: Image, entries: Iterable[UnwindSteps]) -> list[UnwindDocument]:
    """What the function table of ``image`` says, an entry each."""
    owners = ((item, image.function_at(item.entry.range.start)) for item in entries)
    return [
        UnwindDocument(
            rva=item.entry.range.start,
            size=item.entry.range.size,
            function=owner.name if owner else None,
            steps=list(item.steps),
            problem=item.problem,
        )
        for item, owner in owners
    ]


def inspect_image(image: Image, info: HotPatchInfo | None, unwind: list[UnwindDocument] | None = None) -> InspectImageDocument:
    """The document of ``hotpatch inspect`` of an ordinary image."""
    table = image.load_configuration.hot_patch_table if image.load_configuration else None
    return InspectImageDocument(
        path=image.path,
        machine=image.machine.value,
        sha256=image.sha256,
        time_date_stamp=image.time_date_stamp,
        checksum=image.checksum,
        size_of_image=image.size_of_image,
        symbols=image.has_symbols,
        sections=[SectionDocument(name=item.name, rva=item.rva, size=item.size, rights=item.rights) for item in image.sections],
        functions=[
            InspectedFunction(
                name=item.name,
                rva=item.entry,
                size=item.size,
                entry_patchable=image.entry_patchable(item),
                padding=image.padding_before(item),
            )
            for item in image.functions
        ],
        hotpatch=HotpatchSupport(compatible_flag=image.hotpatch_compatible, table_rva=table, hybrid=image.hybrid.value),
        hot_patch_info=hot_patch_info(info) if info else None,
        unwind=unwind,
    )


def inspect_patch(patch: Patch, path: str, info: HotPatchInfo, unwind: list[UnwindDocument] | None = None) -> InspectPatchDocument:
    """The document of ``hotpatch inspect`` of a patch image."""
    counts = Counter(item.kind.value for item in patch.fixups)
    return InspectPatchDocument(
        path=path,
        machine=patch.machine.value,
        base=identity(patch.base),
        sequence=patch.sequence,
        functions=_functions(patch),
        carried=_carried(patch),
        fixups=dict(sorted(counts.items())),
        overrides=list(patch.overrides),
        callbacks=[CallbackDocument(moment=item.moment.value, patch_rva=item.patch_rva) for item in patch.callbacks],
        state_version=patch.terms.state_version,
        obligatory=patch.terms.obligatory,
        can_roll_back=patch.terms.can_roll_back,
        hot_patch_info=hot_patch_info(info),
        signature=SignatureDocument(status="none"),
        provenance=ProvenanceDocument(
            base=patch.provenance.base_name,
            base_sha256=patch.provenance.base_sha256,
            fixed=patch.provenance.fixed_name,
            fixed_sha256=patch.provenance.fixed_sha256,
            builder=patch.provenance.builder,
        ),
        unwind=unwind,
    )
