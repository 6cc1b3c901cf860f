"""The document and the text of a verification."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from hotpatch.report import text
from hotpatch.report.convert import refusals
from hotpatch.report.documents import OutcomesDocument, VerifyDocument, ViolationDocument

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hotpatch.verifier import VerifyReport

_VIOLATIONS_SHOWN = 20


def document(report: VerifyReport) -> VerifyDocument:
    """The document of ``hotpatch verify``."""
    return VerifyDocument(
        boundaries=report.boundaries,
        schedules=report.schedules,
        outcomes=OutcomesDocument(**{kind.value: count for kind, count in report.outcomes.items()}),
        violations=[
            ViolationDocument(
                boundary=item.boundary, thread=item.thread, pc=item.pc, function=item.function, what=item.what, schedule=list(item.schedule)
            )
            for item in report.violations
        ],
        exhaustive=report.exhaustive,
        bound=report.bound,
        refused=refusals(report.refused),
    )


def render(report: VerifyReport) -> RenderableType:
    """A row for each call and action, the counterexamples, what was refused, what was covered."""
    numbers = ("instructions", "entries", "tried", "old", "new", "per call", "mixed", "wrong", "refused")
    rows = text.table("call", "patch", *numbers, right=numbers)
    for item in report.calls:
        rows.add_row(
            item.call,
            {"apply": "applied", "revert": "reverted"}[item.action.value],
            str(item.instructions),
            str(item.entries),
            str(item.tried),
            *(str(count) for count in item.outcomes.values()),
            str(item.refused),
        )
    parts: list[RenderableType] = [rows]
    for violation in report.violations[:_VIOLATIONS_SHOWN]:
        place = f"{text.hexadecimal(violation.pc)} {violation.function or ''}".rstrip()
        parts.append(
            Text.assemble(
                (violation.kind.value, "bold red"),
                f"  boundary {violation.boundary}, thread {violation.thread}, pc {place}\n    {violation.what}",
            )
        )
    if len(report.violations) > _VIOLATIONS_SHOWN:
        parts.append(Text(f"and {len(report.violations) - _VIOLATIONS_SHOWN} violations more; --json lists them all"))
    if report.refused:
        parts.append(text.refusals(refusals(report.refused)))
    found = f"{len(report.violations)} violation{'s' * (len(report.violations) != 1)}" if report.violations else "no violation"
    parts.append(Text(f"{found}: {report.bound}"))
    return Group(*parts)
