"""One self-contained HTML page for a comparison (extra ``html``)."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from hotpatch.errors import InputError
from hotpatch.report.comparison import listing_of

if TYPE_CHECKING:
    from hotpatch.differ import ImageDiff
    from hotpatch.report.diff_documents import DiffDocument


def diff_page(found: ImageDiff, document: DiffDocument) -> str:
    """The page: totals, findings, the rows that differ, and every changed function side by side.

    Raises:
        InputError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise InputError("--html", "needs jinja2; from the checkout: python -m pip install '.[html]'") from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("hotpatch.report").joinpath("templates/diff.html.j2").read_text(encoding="utf-8"))
    differing = [row for row in document.functions if row.verdict not in ("identical", "relocated")]
    labels = [(row, row.name or f"rva:0x{row.base_rva if row.base_rva is not None else row.fixed_rva:x}") for row in differing]
    listings = [(label, listing_of(found, f"rva:0x{row.base_rva:x}").lines) for row, label in labels if row.verdict == "changed"]
    return template.render(document=document, rows=labels, listings=listings)
