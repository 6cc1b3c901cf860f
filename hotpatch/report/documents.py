"""The JSON documents, as types: ``docs/schemas`` is made from these, and every ``--json`` output is one of them."""

from __future__ import annotations

import json
from typing import Any, Literal

import msgspec

from hotpatch.report.diff_documents import DiffDocument
from hotpatch.report.document import Document as Document
from hotpatch.report.document import Machine as Machine
from hotpatch.report.document import RefusalDocument as RefusalDocument
from hotpatch.report.servicing_documents import CalendarDocument, EligibleDocument, OfferDocument, SimulateDocument

RedirectName = Literal["hpat", "direct", "inline"]
Access = Literal["read", "write", "execute"]


class RefusedDocument(Document, frozen=True, kw_only=True):
    """A verb that could not begin: why."""

    schema: Literal["hotpatch.refused/1"] = "hotpatch.refused/1"
    refused: list[RefusalDocument]


class IdentityDocument(Document, frozen=True, kw_only=True):
    """Which build a patch is for."""

    sha256: str
    time_date_stamp: int
    checksum: int
    size_of_image: int | None = None
    digest: str | None = None


class PatchedFunctionDocument(Document, frozen=True, kw_only=True):
    """A function that the patch replaces."""

    name: str | None
    base_rva: int
    patch_rva: int
    size: int
    redirect: RedirectName
    why: str


class CarriedDocument(Document, frozen=True, kw_only=True):
    """Something new that the patch brings along; ``text`` is what a constant says that its name calls a text."""

    name: str | None
    patch_rva: int
    size: int
    kind: Literal["function", "constant", "data", "import"]
    text: str | None = None


class MicroFunctionDocument(Document, frozen=True, kw_only=True):
    """A function that was run on made-up state: ``patched`` with the patch, or as the base is, against the fixed image's.

    ``base_rva`` is null of one that the patch carries and that replaces none.
    """

    name: str | None
    base_rva: int | None
    fixed_rva: int
    patched: bool
    verdict: Literal["agree", "differ", "inconclusive"]
    runs: int
    agreed: int
    covered: float
    instructions: int
    notes: list[str]


class StayingDocument(Document, frozen=True, kw_only=True):
    """A function of the base that differs and is not replaced: gone from the fixed build, cosmetic, or left out as asked."""

    name: str | None
    base_rva: int
    why: Literal["removed", "cosmetic", "left-out"]


class BuildDocument(Document, frozen=True, kw_only=True):
    """``hotpatch build``."""

    schema: Literal["hotpatch.build/1"] = "hotpatch.build/1"
    patch: str | None
    sequence: int
    bytes: int
    base: IdentityDocument
    functions: list[PatchedFunctionDocument]
    carried: list[CarriedDocument]
    overrides: list[str] = msgspec.field(default_factory=list)
    checked: list[MicroFunctionDocument] = msgspec.field(default_factory=list)
    assumed_imports: list[str] = msgspec.field(default_factory=list)
    start_ended_at: list[str] = msgspec.field(default_factory=list)
    staying: list[StayingDocument] = msgspec.field(default_factory=list)
    refused: list[RefusalDocument]


class UnwindDocument(Document, frozen=True, kw_only=True):
    """A function-table entry: the code that it covers, and how a frame of that is undone."""

    rva: int
    size: int
    function: str | None
    steps: list[str]
    problem: str | None


class InspectedFunction(Document, frozen=True, kw_only=True):
    """A function of an inspected image."""

    name: str | None
    rva: int
    size: int
    entry_patchable: bool
    padding: int


class HotpatchSupport(Document, frozen=True, kw_only=True):
    """What an image says of hot patching."""

    compatible_flag: bool
    table_rva: int | None
    hybrid: Literal["none", "chpe", "arm64ec", "arm64x"]


class SectionDocument(Document, frozen=True, kw_only=True):
    """A section of an inspected image."""

    name: str
    rva: int
    size: int
    rights: str


class InspectImageDocument(Document, frozen=True, kw_only=True):
    """``hotpatch inspect`` of an ordinary image."""

    schema: Literal["hotpatch.inspect-image/1"] = "hotpatch.inspect-image/1"
    path: str
    machine: Machine
    sha256: str
    time_date_stamp: int
    checksum: int
    size_of_image: int
    symbols: bool
    sections: list[SectionDocument]
    functions: list[InspectedFunction]
    hotpatch: HotpatchSupport
    hot_patch_info: HotPatchInfoDocument | None = None
    unwind: list[UnwindDocument] | None = None


class HotPatchRecordDocument(Document, frozen=True, kw_only=True):
    """A record of a patch table, by our published reading; ``raw`` is the whole record."""

    type: str
    source_rva: int | None
    target_rva: int | None
    raw: str


class HotPatchBaseDocument(Document, frozen=True, kw_only=True):
    """An ``IMAGE_HOT_PATCH_BASE``."""

    sequence_number: int
    original_time_date_stamp: int
    original_checksum: int
    records: list[HotPatchRecordDocument]


class HotPatchInfoDocument(Document, frozen=True, kw_only=True):
    """An ``IMAGE_HOT_PATCH_INFO``."""

    version: int
    sequence_number: int
    min_sequence_number: int
    bases: list[HotPatchBaseDocument]


class SignatureDocument(Document, frozen=True, kw_only=True):
    """State of a patch's signature."""

    status: Literal["none", "valid", "invalid", "untrusted"]


class ProvenanceDocument(Document, frozen=True, kw_only=True):
    """Where a patch comes from."""

    base: str
    base_sha256: str
    fixed: str
    fixed_sha256: str
    builder: str


class CallbackDocument(Document, frozen=True, kw_only=True):
    """A function of the patch image that is called as the patch goes in or out."""

    moment: Literal["before-apply", "after-apply", "before-revert", "after-revert"]
    patch_rva: int


class InspectPatchDocument(Document, frozen=True, kw_only=True):
    """``hotpatch inspect`` of a patch image."""

    schema: Literal["hotpatch.inspect-patch/1"] = "hotpatch.inspect-patch/1"
    path: str
    machine: Machine
    base: IdentityDocument
    sequence: int
    functions: list[PatchedFunctionDocument]
    carried: list[CarriedDocument]
    fixups: dict[str, int]
    overrides: list[str] = msgspec.field(default_factory=list)
    callbacks: list[CallbackDocument]
    state_version: int
    obligatory: bool
    can_roll_back: bool
    hot_patch_info: HotPatchInfoDocument
    signature: SignatureDocument
    provenance: ProvenanceDocument
    unwind: list[UnwindDocument] | None = None


class FrameDocument(Document, frozen=True, kw_only=True):
    """A stack frame; ``pc`` is a VA."""

    pc: int
    function: str | None


class FaultDocument(Document, frozen=True, kw_only=True):
    """A fault of the emulated program; VAs."""

    kind: str
    address: int
    pc: int
    function: str | None
    access: Access | None
    stack: list[FrameDocument]
    detail: str = ""


class FaultedDocument(Document, frozen=True, kw_only=True):
    """A verb that could not begin, because the program's start-up faulted: how."""

    schema: Literal["hotpatch.faulted/1"] = "hotpatch.faulted/1"
    fault: FaultDocument


class AppliedDocument(Document, frozen=True, kw_only=True):
    """A patch that went in: after how many instructions, and how many functions."""

    patch: str
    at: int
    functions: int


class CallDocument(Document, frozen=True, kw_only=True, rename={"return_": "return"}):
    """``hotpatch call``."""

    schema: Literal["hotpatch.call/1"] = "hotpatch.call/1"
    return_: int | None
    return_hex: str | None
    return_float: float | None
    buffers: list[str]
    instructions: int
    output: str
    applied: list[AppliedDocument]
    refused: list[RefusalDocument]
    fault: FaultDocument | None


class ThreadStopDocument(Document, frozen=True, kw_only=True):
    """A thread as ``--stop-at`` shows it; VAs."""

    thread: int
    state: str
    pc: int
    function: str | None
    registers: dict[str, int]
    code: list[str]
    stack: list[FrameDocument]
    waits_for: str | None = None


class RunDocument(Document, frozen=True, kw_only=True):
    """``hotpatch run``."""

    schema: Literal["hotpatch.run/1"] = "hotpatch.run/1"
    exit_code: int | None
    output: str
    instructions: int
    threads: int
    status: dict[str, Any]
    events: list[dict[str, Any]]
    refused: list[RefusalDocument]
    fault: FaultDocument | None
    stopped: list[ThreadStopDocument] | None = None


class OutcomesDocument(Document, frozen=True, kw_only=True):
    """How runs ended."""

    old: int
    new: int
    per_call: int
    mixed: int
    wrong: int


class ViolationDocument(Document, frozen=True, kw_only=True):
    """A counterexample; ``pc`` is a VA."""

    boundary: int
    thread: int
    pc: int
    function: str | None
    what: str
    schedule: list[int]


class VerifyDocument(Document, frozen=True, kw_only=True):
    """``hotpatch verify``."""

    schema: Literal["hotpatch.verify/1"] = "hotpatch.verify/1"
    boundaries: int
    schedules: int
    outcomes: OutcomesDocument
    violations: list[ViolationDocument]
    exhaustive: bool
    bound: str
    refused: list[RefusalDocument]
    functions: list[MicroFunctionDocument] = msgspec.field(default_factory=list)


class CaseDocument(Document, frozen=True, kw_only=True):
    """A shipped case."""

    name: str
    title: str
    shows: str
    kind: str
    machines: list[str]
    outcome: str


class CasesDocument(Document, frozen=True, kw_only=True):
    """``hotpatch cases``."""

    schema: Literal["hotpatch.cases/1"] = "hotpatch.cases/1"
    cases: list[CaseDocument]


class DemoStepDocument(Document, frozen=True, kw_only=True):
    """One step of a demo's story: what was done, and what was seen."""

    machine: Machine
    kind: str
    text: str
    details: dict[str, Any]


class DemoDocument(Document, frozen=True, kw_only=True):
    """``hotpatch demo``. ``fixed``: the bug showed before the patch, not with it, and again after; null where the case marks no bug."""

    schema: Literal["hotpatch.demo/1"] = "hotpatch.demo/1"
    case: str
    machines: list[Machine]
    steps: list[DemoStepDocument]
    fixed: bool | None


DOCUMENTS: dict[str, type[Document]] = {
    "diff": DiffDocument,
    "refused": RefusedDocument,
    "faulted": FaultedDocument,
    "build": BuildDocument,
    "inspect-image": InspectImageDocument,
    "inspect-patch": InspectPatchDocument,
    "call": CallDocument,
    "run": RunDocument,
    "verify": VerifyDocument,
    "cases": CasesDocument,
    "demo": DemoDocument,
    "servicing-calendar": CalendarDocument,
    "servicing-eligible": EligibleDocument,
    "servicing-offer": OfferDocument,
    "servicing-simulate": SimulateDocument,
}
"""Each document by the name of its schema file."""


def encode(document: Document) -> str:
    """The document as indented JSON text, keys in the order of its type, without a final newline."""
    try:
        return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    except UnicodeEncodeError:  # a path that is no text: its bytes as escapes, which JSON allows
        return json.dumps(msgspec.to_builtins(document), indent=2)


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of :data:`DOCUMENTS` entry ``name``."""
    document = msgspec.json.schema(DOCUMENTS[name])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"hotpatch {name}", **document}
