"""Text for people, from the values of the other rooms: renderables that a front door prints."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Group
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from hotpatch.errors import counted, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.style import StyleType

    from hotpatch.report.diff_documents import DiffDocument
    from hotpatch.report.documents import (
        CarriedDocument,
        CasesDocument,
        HotPatchInfoDocument,
        IdentityDocument,
        InspectImageDocument,
        InspectPatchDocument,
        PatchedFunctionDocument,
        RefusalDocument,
        UnwindDocument,
    )

_VERDICT_STYLE = {"changed": "yellow", "added": "green", "removed": "red", "identical": "dim", "relocated": "dim"}
_ADDRESSES = frozenset(
    {
        "rva",
        "rvas",
        "va",
        "address",
        "target",
        "targets",
        "pc",
        "start",
        "end",
        "site",
        "sites",
        "slot",
        "pointer",
        "entry",
        "function",
        "data",
    }
)
"""Words in the name of a detail that say that its number is an address."""
_HEADER_FIELDS = {"time_date_stamp": "time stamp", "checksum": "checksum", "size_of_image": "size of image"}
"""What tells one build from another, as it is called; hexadecimal wherever it is shown."""
_IN_THE_REASON = frozenset({"near"})
"""Evidence that the reason of a refusal has in full; documents have it for programs."""
_WIDEST = 1 << 16
"""Columns that no table needs."""
INDENT = (0, 0, 0, 4)
_LONGEST_TEXT = 40
"""Columns of a text that a patch carries."""
_LEAST_FOLDED = 24
"""Columns that a cell which may fold keeps, however narrow the terminal is."""


class Rows(Table):
    """A table without lines. Its cells stay whole, however narrow the terminal; only those of the columns that may fold give way."""

    def add_row(self, *cells: RenderableType | None, style: StyleType | None = None, end_section: bool = False) -> None:
        """Add a row, and give every column that may not fold the width of its longest cell."""
        super().add_row(*cells, style=style, end_section=end_section)
        for column, cell in zip(self.columns, cells, strict=False):
            if column.no_wrap:
                lines = [*str(column.header).split("\n"), *str(cell or "").split("\n")]
                column.min_width = max(column.min_width or 0, *map(cell_len, lines))


def table(*columns: str, right: Sequence[str] = (), fold: Sequence[str] = (), least: int = _LEAST_FOLDED) -> Rows:
    """A table of ``columns``: those in ``right`` are numbers, those in ``fold`` may fold to ``least`` columns, others keep their width."""
    made = Rows(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        folds = column in fold
        made.add_column(
            column,
            no_wrap=not folds,
            min_width=least if folds else None,
            overflow="fold" if folds else "crop",
            justify="right" if column in right else "left",
        )
    return made


def share(value: float) -> float:
    """``value`` so that no rounding to two digits makes all of it out of less."""
    return min(value, 0.99) if value < 1 else value


def hexadecimal(value: int | None) -> str:
    """An address, or a dash."""
    return "-" if value is None else f"0x{value:x}"


def _tally(items: Iterable[RefusalDocument]) -> str:
    """How many there are by each rule, most first, after a colon."""
    counts = sorted(Counter(item.rule for item in items).items(), key=lambda pair: (-pair[1], pair[0]))
    return f": {', '.join(f'{count} × {rule}' for rule, count in counts)}"


def refusals(
    items: Sequence[RefusalDocument], *, at: int | None = None, called: str = "refused", closing: str = "refused"
) -> RenderableType:
    """Each refusal, ``called`` so: after how many instructions, where that is to be told, rule, place, sentence, evidence.

    Where there are several, a line that begins with ``closing`` counts them by rule.
    """
    parts: list[RenderableType] = []
    for item in items:
        image = " of the fixed image" if item.evidence.get("image") == "fixed" else ""
        place = [item.function or "", f"{hexadecimal(item.rva)}{image}" if item.rva is not None else ""]
        where = "  ".join(word for word in place if word)
        when = f"[{at}] " if at is not None else ""
        parts.append(Text.assemble(when, (f"{called} ", "red"), (item.rule, "bold red"), f"  {where}" if where else ""))
        parts.append(Padding(Text(printable(item.reason)), INDENT))
        evidence = {key: value for key, value in item.evidence.items() if key not in _IN_THE_REASON}
        if evidence:
            parts.append(Padding(_evidence(evidence), INDENT))
    if len(items) > 1:
        parts.append(Text(f"{closing}{_tally(items)}"))
    return Group(*parts)


def _evidence(facts: Mapping[str, object]) -> RenderableType:
    rows = table("", "fact", fold=("fact",))
    rows.show_header = False
    for key, value in facts.items():
        rows.add_row(Text(key.replace("_", " "), style="dim"), Text(told(key, value), style="dim"))
    return rows


def told(key: str, value: object) -> str:
    """The value of a detail called ``key`` as people read it: addresses hexadecimal, several with commas, nothing as a dash."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int() if key in ("time_date_stamp", "checksum"):
            return f"0x{value:08x}"
        case int() if key in _HEADER_FIELDS or not _ADDRESSES.isdisjoint(key.split("_")):
            return hexadecimal(value)
        case dict():
            return ", ".join(f"{_words(str(name))} {told(str(name), item)}" for name, item in value.items())
        case list() | tuple():
            return (", " if all(not isinstance(item, dict) for item in value) else "; ").join(told(key, item) for item in value) or "none"
        case _:
            return str(value)


def _words(key: str) -> str:
    return _HEADER_FIELDS.get(key) or key.replace("_", " ")


class Noted:
    """A table whose last column is notes; where the terminal is too narrow for that, each row's notes stand below it."""

    def __init__(self, *columns: str, right: Sequence[str], notes: str = "notes") -> None:
        """``columns`` as :func:`table` takes them, and one called ``notes``."""
        self.whole = table(*columns, notes, right=right, fold=(notes,))
        self.narrow = table(*columns, right=right)
        self.notes: list[str] = []
        self._called = notes

    def add_row(self, *cells: RenderableType, notes: str) -> None:
        """A row with its notes, or none."""
        self.whole.add_row(*cells, notes)
        self.narrow.add_row(*cells)
        self.notes.append(notes)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The one or the other, by how wide it is."""
        wide = options.update(width=_WIDEST)
        self.whole.columns[-1].min_width = min(_LEAST_FOLDED, max(map(cell_len, (self._called, *self.notes))))
        if Measurement.get(console, wide, self.whole).minimum <= options.max_width:
            yield self.whole
            return
        width = Measurement.get(console, wide, self.narrow).minimum
        lines = console.render_lines(self.narrow, options.update(width=width), pad=False)
        for line, notes in zip(lines, ["", *self.notes], strict=True):
            yield from line
            yield Segment.line()
            if notes:
                yield Padding(Text(notes), INDENT)


def diff(document: DiffDocument, *, everything: bool = False) -> RenderableType:
    """Rows that differ (all of them with ``everything``), findings, totals."""
    rows = Noted("verdict", "function", "base", "fixed", "size", "matched by", "alike", right=("base", "fixed", "alike"))
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
            f"{share(row.similarity):.2f}",
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
    headers = {field: getattr(build, field) for field in _HEADER_FIELDS}
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
