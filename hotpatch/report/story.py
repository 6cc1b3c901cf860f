"""A story's steps as text and documents."""

from __future__ import annotations

from functools import partial
from textwrap import wrap
from typing import TYPE_CHECKING

from rich.text import Text

from hotpatch.report.convert import facts
from hotpatch.report.documents import DemoStepDocument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.cases.story import Step

WIDTH = 80
"""Columns of a story: it fits a terminal, a slide, a page."""

_WRAP = partial(wrap, width=WIDTH, drop_whitespace=True, replace_whitespace=False, break_on_hyphens=False)
_REQUEST = 20
"""Columns of a request beside its reply; a longer one stands on a line of its own."""

_FORM = {
    "title": ("\n", "━━ ", " ━━", "bold"),
    "act": ("\n", "▸ ", "", "bold cyan"),
    "say": ("", "  ", "", ""),
    "request": ("", "  → ", "", "bold"),
    "output": ("", "    │ ", "", ""),
    "bug": ("", "    │ ", "  ← the bug", "bold red"),
    "good": ("", "    │ ", "  ← repaired", "bold green"),
    "kept": ("", "    │ ", "  ← state from before the patch", "bold green"),
    "thread": ("", "    ", "", "magenta"),
    "write": ("", "    ", "", "yellow"),
    "call": ("", "  ", "", "green"),
    "end": ("\n", "▪ ", "", "bold"),
}
"""Kind → what stands above, before and behind the text; style."""
_CONTINUED = dict.fromkeys(("output", "bug", "good", "kept"), "    │   ")


def line(step: Step) -> Text:
    """One step for people, in lines of at most :data:`WIDTH` columns."""
    above, before, behind, style = _FORM[step.kind.value]
    continued = _CONTINUED.get(step.kind.value, " " * (len(before) + 2))
    asked = str(step.details.get("request", "")) if step.kind.value in _CONTINUED else ""
    if asked:
        beside = " " * 4 + " " * _REQUEST
        continued = f"{beside} │   "
        before = f"    {asked:<{_REQUEST}} │ " if len(asked) <= _REQUEST else f"    {asked}\n{beside} │ "
    *over, before = before.split("\n")
    lines: list[str] = over
    for number, part in enumerate(f"{step.text}{behind}".split("\n")):
        first = " " * len(before) if number else before
        lines += _WRAP(part, initial_indent=first, subsequent_indent=continued) or [first]
    return Text(above + "\n".join(lines), style=style)


def documents(steps: Iterable[Step]) -> list[DemoStepDocument]:
    """Steps for programs."""
    return [
        DemoStepDocument(machine=item.machine.value, kind=item.kind.value, text=item.text, details=facts(item.details)) for item in steps
    ]
