"""A story's steps as text and documents."""

from __future__ import annotations

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

_FORM = {
    "title": ("\n", "━━ ", " ━━", "bold"),
    "act": ("\n", "▸ ", "", "bold cyan"),
    "say": ("", "  ", "", ""),
    "output": ("", "    │ ", "", ""),
    "bug": ("", "    │ ", "  ← the bug", "bold red"),
    "good": ("", "    │ ", "  ← repaired", "bold green"),
    "thread": ("", "    ", "", "magenta"),
    "write": ("", "    ", "", "yellow"),
    "call": ("", "  ", "", "green"),
    "end": ("\n", "▪ ", "", "bold"),
}
"""Kind → what stands above, before and behind the text; style."""
_CONTINUED = {"output": "    │   ", "bug": "    │   ", "good": "    │   "}


def line(step: Step) -> Text:
    """One step for people, in lines of at most :data:`WIDTH` columns."""
    above, before, behind, style = _FORM[step.kind.value]
    continued = _CONTINUED.get(step.kind.value, " " * (len(before) + 2))
    lines: list[str] = []
    for number, part in enumerate(f"{step.text}{behind}".split("\n")):
        first = " " * len(before) if number else before
        lines += wrap(part, WIDTH, initial_indent=first, subsequent_indent=continued, drop_whitespace=True, replace_whitespace=False) or [
            first
        ]
    return Text(above + "\n".join(lines), style=style)


def documents(steps: Iterable[Step]) -> list[DemoStepDocument]:
    """Steps for programs."""
    return [
        DemoStepDocument(machine=item.machine.value, kind=item.kind.value, text=item.text, details=facts(item.details)) for item in steps
    ]
