"""The document and the text of a verification."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from hotpatch.errors import counted
from hotpatch.report.building import micro
from hotpatch.report.convert import refusals
from hotpatch.report.documents import MicroFunctionDocument, OutcomesDocument, VerifyDocument, ViolationDocument
from hotpatch.report.refused import refusals as told_refusals
from hotpatch.report.tables import INDENT, hexadecimal, table
from hotpatch.verifier import NO_DIFFERENCE

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hotpatch.verifier import MicroCheck, MicroReport, VerifyReport

_VIOLATIONS_SHOWN = 20
_LEAST_CALL = 14
"""Columns that a call keeps, however narrow the terminal is."""


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
        functions=[micro_function(item) for item in report.functions],
    )


def micro_function(report: MicroReport, *notes: str) -> MicroFunctionDocument:
    """What micro-execution found about a function, with ``notes`` first."""
    found = [*notes, *report.why]
    return MicroFunctionDocument(
        name=report.name,
        base_rva=report.base_rva,
        fixed_rva=report.fixed_rva,
        patched=report.patched,
        verdict=report.outcome.value,
        runs=report.seeds,
        agreed=report.agreed,
        covered=round(report.coverage, 4),
        instructions=report.instructions,
        notes=found if report.difference is None else [*found, report.text],
    )


def checked(check: MicroCheck) -> list[MicroFunctionDocument]:
    """What ``build --check`` has run: functions that travel, then the sample of relocated ones."""
    travelling = [micro_function(item, *[NO_DIFFERENCE] * (item.base_rva in check.alike)) for item in check.travelling]
    return [*travelling, *(micro_function(item) for item in check.relocated)]


def render(report: VerifyReport) -> RenderableType:
    """A row for each call and action, the counterexamples, what was refused, what was covered."""
    refused = ("refused",) if any(item.refused for item in report.calls) else ()
    numbers = ("boundaries", "entered", "old", "new", "per call", "mixed", "wrong", *refused)
    if report.functions:
        return Group(micro([micro_function(item) for item in report.functions]), *_violations(report), Text(_closing(report)))
    rows = table("call", "patch", *numbers, right=numbers, fold=("call",), least=_LEAST_CALL)
    for item in report.calls:
        rows.add_row(
            item.call,
            {"apply": "in", "revert": "out"}[item.action.value],
            f"{item.tried} of {item.instructions}",
            str(item.entries),
            *(str(count) for count in item.outcomes.values()),
            *((str(item.refused),) if refused else ()),
        )
    parts: list[RenderableType] = [rows, *_violations(report)]
    if report.refused:
        parts.append(told_refusals(refusals(report.refused)))
    parts.append(Text(_closing(report)))
    return Group(*parts)


def _violations(report: VerifyReport) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for violation in report.violations[:_VIOLATIONS_SHOWN]:
        place = f"{hexadecimal(violation.pc)} {violation.function or ''}".rstrip()
        parts.append(
            Text.assemble(
                (violation.kind.value, "bold red"),
                f"  boundary {violation.boundary}, thread {violation.thread}, pc {place}",
            )
        )
        parts.append(Padding(Text(violation.what), INDENT))
    if len(report.violations) > _VIOLATIONS_SHOWN:
        parts.append(Text(f"and {len(report.violations) - _VIOLATIONS_SHOWN} violations more; --json lists them all"))
    return parts


def _closing(report: VerifyReport) -> str:
    found = counted(len(report.violations), "violation") if report.violations else "no violation"
    return f"{found}: {report.bound}"
