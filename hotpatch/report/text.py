"""Text for people, from the values of the other rooms: renderables that a front door prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from hotpatch.report.documents import (
        BuildDocument,
        CarriedDocument,
        CasesDocument,
        DiffDocument,
        HotPatchInfoDocument,
        InspectImageDocument,
        InspectPatchDocument,
        PatchedFunctionDocument,
        RefusalDocument,
        SideLine,
    )

_VERDICT_STYLE = {"changed": "yellow", "added": "green", "removed": "red", "identical": "dim", "relocated": "dim"}
_SIDE_MARK = {"same": " ", "changed": "|", "added": ">", "removed": "<"}
_SIDE_STYLE = {"same": "", "changed": "yellow", "added": "green", "removed": "red"}


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """A table without lines, whose cells never fold."""
    made = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, no_wrap=True, overflow="ignore", justify="right" if column in right else "left")
    return made


def hexadecimal(value: int | None) -> str:
    """An address, or a dash."""
    return "-" if value is None else f"0x{value:x}"


def refusals(items: Iterable[RefusalDocument]) -> RenderableType:
    """Each refusal: rule, place, sentence, evidence."""
    lines: list[Text] = []
    for item in items:
        place = item.function or (hexadecimal(item.rva) if item.rva is not None else "")
        lines.append(Text.assemble(("refused ", "red"), (item.rule, "bold red"), f"  {place}" if place else "", "\n    ", item.reason))
        lines += [Text(f"    {key}: {_evidence(key, value)}", style="dim") for key, value in item.evidence.items()]
    return Group(*lines)


def _evidence(key: str, value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and any(word in key for word in ("rva", "va", "address", "target", "pc")):
        return hexadecimal(value)
    return str(value)


def diff(document: DiffDocument, *, everything: bool = False) -> RenderableType:
    """Rows that differ (all of them with ``everything``), findings, totals."""
    rows = table("verdict", "function", "base", "fixed", "size", "matched by", "alike", "notes", right=("base", "fixed", "alike"))
    for row in document.functions:
        if not everything and row.verdict in ("identical", "relocated"):
            continue
        sizes = f"{row.base_size if row.base_size is not None else '-'} → {row.fixed_size if row.fixed_size is not None else '-'}"
        rows.add_row(
            Text(row.verdict, style=_VERDICT_STYLE[row.verdict]),
            row.name or f"rva:0x{row.base_rva if row.base_rva is not None else row.fixed_rva:x}",
            hexadecimal(row.base_rva),
            hexadecimal(row.fixed_rva),
            sizes,
            row.matched_by,
            f"{row.similarity:.2f}",
            "; ".join(row.notes),
        )
    total = document.summary
    parts: list[RenderableType] = [rows] if rows.row_count else []
    if document.findings:
        parts.append(refusals(document.findings))
    parts.append(
        Text(
            f"{document.machine}: {total.identical} identical, {total.relocated} relocated, {total.changed} changed, "
            f"{total.added} added, {total.removed} removed"
        )
    )
    return Group(*parts)


def side_by_side(lines: Iterable[SideLine], title: str) -> RenderableType:
    """Both versions of one function, instruction by instruction."""
    rows = table("base", f"{title} in the base", "", "fixed", f"{title} in the fixed image", right=("base", "fixed"))
    for line in lines:
        style = _SIDE_STYLE[line.kind]
        rows.add_row(
            hexadecimal(line.base_rva) if line.base is not None else "",
            Text(line.base or "", style=style),
            Text(_SIDE_MARK[line.kind], style=style),
            hexadecimal(line.fixed_rva) if line.fixed is not None else "",
            Text(line.fixed or "", style=style),
        )
    return rows


def _patched(functions: Iterable[PatchedFunctionDocument]) -> RenderableType:
    rows = table("function", "base", "patch", "bytes", "redirect", "why", right=("base", "patch", "bytes"))
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


def _carried(items: Sequence[CarriedDocument]) -> list[RenderableType]:
    if not items:
        return []
    rows = table("carried", "kind", "patch", "bytes", right=("patch", "bytes"))
    for item in items:
        rows.add_row(item.name or "-", item.kind, hexadecimal(item.patch_rva), str(item.size))
    return [rows]


def build(document: BuildDocument) -> RenderableType:
    """What was built, or why not."""
    if document.refused:
        return Group(refusals(document.refused), Text("no patch was written"))
    count = len(document.functions)
    return Group(
        _patched(document.functions),
        *_carried(document.carried),
        Text(f"{document.patch}: sequence {document.sequence}, {count} function{'s' * (count != 1)}, {document.bytes} bytes"),
    )


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
    parts: list[RenderableType] = [
        Text(
            f"{document.path}: {document.machine} image, {len(document.functions)} functions, symbols: {'PDB' if document.symbols else 'none'}"
        ),
        Text(f"time stamp 0x{document.time_date_stamp:08x}, checksum 0x{document.checksum:08x}, SHA-256 {document.sha256}"),
        Text(
            f"hot patching: compatible flag {'set' if support.compatible_flag else 'not set'}, "
            f"table {hexadecimal(support.table_rva) if support.table_rva else 'none'}, hybrid {support.hybrid}"
        ),
        sections,
        functions,
    ]
    if document.hot_patch_info:
        parts.append(_hot_patch_info(document.hot_patch_info))
    return Group(*parts)


def _hot_patch_info(info: HotPatchInfoDocument) -> RenderableType:
    rows = table("record", "source", "target", "raw", right=("source", "target"))
    lines: list[RenderableType] = [
        Text(f"hot patch table: version {info.version}, sequence {info.sequence_number}, at least {info.min_sequence_number}")
    ]
    for base in info.bases:
        lines.append(
            Text(
                f"base of time stamp 0x{base.original_time_date_stamp:08x}, checksum 0x{base.original_checksum:08x}: {len(base.records)} records"
            )
        )
        for record in base.records:
            rows.add_row(record.type, hexadecimal(record.source_rva), hexadecimal(record.target_rva), record.raw)
    return Group(*lines, rows)


def inspect_patch(document: InspectPatchDocument) -> RenderableType:
    """Contents, base identity, records, signature."""
    base = document.base
    fixups = ", ".join(f"{count} {kind}" for kind, count in document.fixups.items()) or "none"
    return Group(
        Text(f"{document.path}: {document.machine} patch image, sequence {document.sequence}, signature {document.signature.status}"),
        Text(
            f"for {document.provenance.base}: time stamp 0x{base.time_date_stamp:08x}, checksum 0x{base.checksum:08x}, SHA-256 {base.sha256}"
        ),
        Text(f"from {document.provenance.fixed}: SHA-256 {document.provenance.fixed_sha256}, by {document.provenance.builder}"),
        _patched(document.functions),
        *_carried(document.carried),
        Text(f"fixups: {fixups}"),
        _hot_patch_info(document.hot_patch_info),
    )


def cases(document: CasesDocument) -> RenderableType:
    """The shipped cases."""
    rows = table("case", "kind", "outcome", "shows")
    for case in document.cases:
        rows.add_row(case.name, case.kind, case.outcome, case.shows)
    return rows
