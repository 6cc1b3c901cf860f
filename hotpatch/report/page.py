"""One self-contained HTML page for a comparison (extra ``html``)."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from hotpatch.differ import Listings, Verdict
from hotpatch.errors import InputError, InputRule
from hotpatch.report.page_parts import page_function
from hotpatch.report.refused import place_of
from hotpatch.report.rows import alike, label_of, sizes

_FEW = 50
"""Changed functions that are shown with all their blocks, but for very long rows of unchanged ones."""

if TYPE_CHECKING:
    from hotpatch.differ import FunctionMatch, ImageDiff
    from hotpatch.report.diff_documents import DiffDocument


def diff_page(found: ImageDiff, document: DiffDocument, only: FunctionMatch | None = None) -> str:
    """The page: totals, findings, the rows that differ, and every changed function side by side; or the totals and ``only`` one row.

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
    both = list(zip(document.functions, found.functions, strict=True))
    wanted = [match.verdict is Verdict.CHANGED if only is None else match is only for _, match in both]
    lean = sum(wanted) > _FEW
    functions = [
        page_function(f"f{number}", label_of(row), row, listings.of(match), lean=lean)
        for number, ((row, match), shown) in enumerate(zip(both, wanted, strict=True))
        if shown
    ]
    anchors = {id(function.row): function.anchor for function in functions}
    listed = [row for row, match in both if (row.verdict not in ("identical", "relocated") if only is None else match is only)]
    rows = [(row, label_of(row), anchors.get(id(row))) for row in listed]
    return template.render(
        document=document,
        findings=document.findings if only is None else [],
        rows=rows,
        functions=functions,
        lean=lean,
        one=only is not None,
        alike=alike,
        place=place_of,
        sizes=sizes,
    )
