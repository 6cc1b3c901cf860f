"""A story's steps as text and documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from hotpatch.report.convert import facts
from hotpatch.report.documents import DemoStepDocument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.cases.story import Step

_FORM = {
    "title": ("\n━━ {} ━━", "bold"),
    "act": ("\n▸ {}", "bold cyan"),
    "say": ("  {}", ""),
    "output": ("    │ {}", ""),
    "bug": ("    │ {}  ← the bug", "bold red"),
    "good": ("    │ {}  ← repaired", "bold green"),
    "thread": ("    {}", "magenta"),
    "write": ("    {}", "yellow"),
    "call": ("  {}", "green"),
    "end": ("\n▪ {}", "bold"),
}


def line(step: Step) -> Text:
    """One step for people."""
    form, style = _FORM[step.kind.value]
    return Text(form.format(step.text.replace("\n", "\n    ")), style=style)


def documents(steps: Iterable[Step]) -> list[DemoStepDocument]:
    """Steps for programs."""
    return [
        DemoStepDocument(machine=item.machine.value, kind=item.kind.value, text=item.text, details=facts(item.details)) for item in steps
    ]
