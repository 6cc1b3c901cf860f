"""One self-contained HTML page for a comparison (extra ``html``)."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from hotpatch.differ import Listings, Verdict
from hotpatch.errors import InputError, InputRule
from hotpatch.report.page_parts import page_function

_FEW = 50
"""Changed functions that are shown with all their blocks, but for very long rows of unchanged ones."""

if TYPE_CHECKING:
    from hotpatch.differ import ImageDiff
    from hotpatch.report.diff_documents import DiffDocument, FunctionVerdict


def diff_page(found: ImageDiff, document: DiffDocument) -> str:
    """The page: totals, findings, the rows that differ, and every changed function side by side.

    Raises:
        InputError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise InputError("--html", "needs jinja2; from the checkout: python -m pip install '.[html]'", InputRule.INSTALLATION) from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("hotpatch.report").joinpath("templates/diff.html.j2").read_text(encoding="utf-8"))
    listings = Listings(found)
    lean = sum(match.verdict is Verdict.CHANGED for match in found.functions) > _FEW
    functions = [
        page_function(f"f{number}", _label(row), row, listings.of(match), lean=lean)
        for number, (row, match) in enumerate(zip(document.functions, found.functions, strict=True))
        if match.verdict is Verdict.CHANGED
    ]
    anchors = {id(function.row): function.anchor for function in functions}
    rows = [(row, _label(row), anchors.get(id(row))) for row in document.functions if row.verdict not in ("identical", "relocated")]
    return template.render(document=document, rows=rows, functions=functions, lean=lean)


def _label(row: FunctionVerdict) -> str:
    return row.name or f"rva:0x{row.base_rva if row.base_rva is not None else row.fixed_rva:x}"
