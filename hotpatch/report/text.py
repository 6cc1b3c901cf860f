"""Text for people, from the values of the other rooms: renderables that a front door prints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from hotpatch.errors import counted, printable
from hotpatch.report.refused import HEADER_FIELDS, refusals, told
from hotpatch.report.rows import alike, label_of, sizes
from hotpatch.report.tables import Noted, hexadecimal, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from hotpatch.report.diff_documents import DiffDocument
    from hotpatch.report.documents import (
        CarriedDocument,
        CasesDocument,
        HotPatchInfoDocument,
        IdentityDocument,
        InspectImageDocument,
        InspectPatchDocument,
        PatchedFunctionDocument,
        UnwindDocument,
    )

_VERDICT_STYLE = {"changed": "yellow", "added": "green", "removed": "red", "identical": "dim", "relocated": "dim"}
_LONGEST_TEXT = 40
"""Columns of a text that a patch carries."""


def diff(document: DiffDocument, *, everything: bool = False) -> RenderableType:
    """Rows that differ (all of them with ``everything``), findings, totals."""
    rows = Noted("verdict", "function", "base", "fixed", "size", "matched by", "alike", right=("base", "fixed", "alike"))
    for row in document.functions:
        if not everything and row.verdict in ("identical", "relocated"):
            continue
        rows.add_row(
            Text(row.verdict, style=_VERDICT_STYLE[row.verdict]),
            label_of(row),
            hexadecimal(row.base_rva),
            hexadecimal(row.fixed_rva),
            sizes(row),
            row.matched_by,
            alike(row),
            notes="; ".join(row.notes),
        )
    total = document.summary
    parts: list[RenderableType] = [rows] if rows.notes else []
    if document.findings:
        parts.append(refusals(document.findings, called="finding", closing="findings, which build refuses"))
    parts.append(
        Text(
            f"{document.machine}: {total.identical} identical, {total.relocated} relocated, {total.changed} changed, "
            f"{total.added} added, {total.removed} removed"
        )
    )
    return Group(*parts)


def patched(functions: Iterable[PatchedFunctionDocument]) -> RenderableType:
    """The functions that a patch replaces."""
    rows = table("function", "base", "patch", "bytes", "redirect", "why", right=("base", "patch", "bytes"), fold=("why",))
    for item in functions:
        rows.add_row(
            item.name or f"rva:0x{item.base_rva:x}",
            hexadecimal(item.base_rva),
            hexadecimal(item.patch_rva),
            str(item.size),
            item.redirect,
            item.why,
        )
    return rows


def carried(items: Sequence[CarriedDocument]) -> list[RenderableType]:
    """What else a patch brings, if anything."""
    if not items:
        return []
    rows = table("carried", "kind", "patch", "bytes", right=("patch", "bytes"))
    for item in items:
        label = item.name or "(no name)" if item.text is None else _quoted(item.text)
        rows.add_row(label, item.kind, hexadecimal(item.patch_rva), str(item.size))
    return [rows]


def _quoted(text: str) -> str:
    """Texts as C writes them, or how they begin; between two stands a NUL."""
    shown = " ".join(json.dumps(one, ensure_ascii=False) for one in text.split("\0"))
    return shown if cell_len(shown) <= _LONGEST_TEXT else f'{shown[: _LONGEST_TEXT - 2]}…"'


def overridden(rules: Sequence[str]) -> list[RenderableType]:
    """The rules that a patch was built against, if any."""
    return [Text(f"overridden: {', '.join(rules)}", style="red")] if rules else []


def inspect_image(document: InspectImageDocument) -> RenderableType:
    """Sections, functions with their padding, hot patch support."""
    sections = table("section", "rva", "bytes", "rights", right=("rva", "bytes"))
    for section in document.sections:
        sections.add_row(section.name, hexadecimal(section.rva), str(section.size), section.rights)
    functions = table("function", "rva", "bytes", "padding", "entry", right=("rva", "bytes", "padding"))
    for function in document.functions:
        functions.add_row(
            function.name or f"rva:0x{function.rva:x}",
            hexadecimal(function.rva),
            str(function.size),
            str(function.padding),
            "patchable" if function.entry_patchable else "not patchable",
        )
    support = document.hotpatch
    symbols = "PDB" if document.symbols else "none"
    parts: list[RenderableType] = [
        Text(f"{printable(document.path)}: {document.machine} image, {counted(len(document.functions), 'function')}, symbols: {symbols}"),
        *_identity(document),
        Text(
            f"hot patching: compatible flag {'set' if support.compatible_flag else 'not set'}, "
            f"table {hexadecimal(support.table_rva) if support.table_rva else 'none'}, hybrid {support.hybrid}"
        ),
        sections,
        functions,
    ]
    if document.hot_patch_info:
        parts.append(_hot_patch_info(document.hot_patch_info))
    return Group(*parts, *_unwind_data(document.unwind))


def _unwind_data(entries: list[UnwindDocument] | None) -> list[RenderableType]:
    if entries is None:
        return []
    rows = table("function table", "rva", "bytes", "undone by", right=("rva", "bytes"), fold=("undone by",))
    for entry in entries:
        steps = f"not known: {entry.problem}" if entry.problem else "; ".join(entry.steps)
        rows.add_row(entry.function or f"rva:0x{entry.rva:x}", hexadecimal(entry.rva), str(entry.size), steps or "return")
    return [rows]


def _identity(build: IdentityDocument | InspectImageDocument) -> list[RenderableType]:
    """What tells a build from others, as refusals show it."""
    headers = {field: getattr(build, field) for field in HEADER_FIELDS}
    return [Text(f"    {told('headers', headers)}"), Text(f"    SHA-256 {build.sha256}")]


def _hot_patch_info(info: HotPatchInfoDocument) -> RenderableType:
    rows = table("record", "source", "target", "raw", right=("source", "target"), fold=("raw",))
    lines: list[RenderableType] = [
        Text(f"hot patch table: version {info.version}, sequence {info.sequence_number}, at least {info.min_sequence_number}")
    ]
    for base in info.bases:
        whose = f"base of time stamp 0x{base.original_time_date_stamp:08x}, checksum 0x{base.original_checksum:08x}"
        lines.append(Text(f"{whose}: {counted(len(base.records), 'record')}"))
        for record in base.records:
            rows.add_row(record.type, hexadecimal(record.source_rva), hexadecimal(record.target_rva), record.raw)
    return Group(*lines, rows)


def inspect_patch(document: InspectPatchDocument) -> RenderableType:
    """Contents, base identity, records, signature."""
    base = document.base
    fixups = ", ".join(f"{count} {kind}" for kind, count in document.fixups.items()) or "none"
    callbacks = ", ".join(f"{item.moment} at 0x{item.patch_rva:x}" for item in document.callbacks) or "none"
    path = printable(document.path)
    return Group(
        Text(f"{path}: {document.machine} patch image, sequence {document.sequence}, signature {document.signature.status}"),
        Text(f"for {printable(document.provenance.base)}"),
        *_identity(base),
        Text(f"made from {printable(document.provenance.fixed)} by {document.provenance.builder}"),
        Text(f"    SHA-256 {document.provenance.fixed_sha256}"),
        patched(document.functions),
        *carried(document.carried),
        *overridden(document.overrides),
        Text(f"callbacks: {callbacks}"),
        Text(f"terms: {_terms(document)}"),
        Text(f"fixups: {fixups}"),
        _hot_patch_info(document.hot_patch_info),
        *_unwind_data(document.unwind),
    )


def _terms(document: InspectPatchDocument) -> str:
    data = f"state version {document.state_version}" if document.state_version else "no state version"
    back = "may be reverted" if document.can_roll_back else "may not be reverted"
    return f"{data}, {'obligatory' if document.obligatory else 'not obligatory'}, {back}"


def cases(document: CasesDocument) -> RenderableType:
    """The shipped cases."""
    rows = table("case", "kind", "outcome", "title", fold=("title",))
    for case in document.cases:
        rows.add_row(case.name, case.kind, case.outcome, case.title)
    return rows
