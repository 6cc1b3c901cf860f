"""The text of a build: what travels, what stays, what was checked, or why there is no patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from hotpatch.errors import counted, printable
from hotpatch.report.refused import refusals
from hotpatch.report.rows import share
from hotpatch.report.tables import INDENT, hexadecimal, table
from hotpatch.report.text import carried, overridden, patched
from hotpatch.verifier import NO_DIFFERENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from hotpatch.report.documents import BuildDocument, MicroFunctionDocument, StayingDocument

_NAMES_SHOWN = 8
"""Functions that a line names; ``--json`` has all."""
_NO_DIFFERENCE_MEANS = "the base's own code did what the fixed one does, in runs that the columns do not count, of 80% of it at least"
_STAYING = {
    "removed": ("{} not in the fixed build and {} in the process; a call that still gets there runs the old code", "is", "are"),
    "cosmetic": ("{} in line numbers, versions, dates or folders alone and {} as in the base", "differs", "differ"),
    "left-out": ("{} but {} as in the base, as asked", "changed", "changed"),
}
"""Why functions of the base stay → how that is said, and its verb for one and for several."""


def build(document: BuildDocument, then: str = "") -> RenderableType:
    """What was built, and the command to type ``then``; or why nothing was."""
    if document.refused:
        closing = "no patch was written"
        alone = [Text(closing)] if len(document.refused) == 1 else []
        return Group(refusals(document.refused, closing=closing), *alone)
    path = printable(str(document.patch))
    return Group(
        patched(document.functions),
        *carried(document.carried),
        *overridden(document.overrides),
        *staying(document.staying),
        *_checked(document.checked),
        *(Text(f"assumed to be in the process, as the emulator does not know it: {label}") for label in document.assumed_imports),
        *(
            Text(f"start-up of the base not run past its call of {label}, as the emulator does not know it")
            for label in document.start_ended_at
        ),
        Text(f"{path}: sequence {document.sequence}, {counted(len(document.functions), 'function')}, {document.bytes} bytes"),
        *([Text(f"to apply it: {printable(then)}", no_wrap=True, overflow="ignore")] if then else []),
    )


def nothing(document: BuildDocument, why: str) -> RenderableType:
    """That there is nothing to patch, and what differs all the same."""
    return Group(Text(f"nothing to do: {why}"), *staying(document.staying))


def staying(functions: Sequence[StayingDocument]) -> list[RenderableType]:
    """A line for each kind of functions that differ and do not travel."""
    parts: list[RenderableType] = []
    for why, (told, one, several) in _STAYING.items():
        names = [_name(item) for item in functions if item.why == why]
        if names:
            verb = one if len(names) == 1 else several
            stay = "stays" if len(names) == 1 else "stay"
            parts.append(Text(f"{counted(len(names), 'function')} {told.format(verb, stay)}: {_listed(names)}"))
    return parts


def micro(functions: Sequence[MicroFunctionDocument]) -> RenderableType:
    """A row for each function that was run on made-up state, and what there is to note."""
    numbers = ("rva", "runs", "agreed", "covered", "instructions")
    rows = table("verdict", "function", *numbers, right=numbers)
    notes = []
    for item in functions:
        verdict = f"{item.verdict} in part" if _in_part(item) else item.verdict
        covered = f"{share(item.covered):.0%}"
        cells = (hexadecimal(item.base_rva), str(item.runs), str(item.agreed), covered, str(item.instructions))
        rows.add_row(verdict, _name(item), *cells)
        if item.notes:
            notes.append(Padding(Text(f"{_name(item)}: {'; '.join(item.notes)}"), INDENT))
    parts: list[RenderableType] = [rows, *notes]
    if any(NO_DIFFERENCE in item.notes for item in functions):
        parts.append(Text(f"{NO_DIFFERENCE}: {_NO_DIFFERENCE_MEANS}"))
    if any(map(_in_part, functions)):
        parts.append(Text("in part: only the covered share of the function's instructions ran; the rest was not compared"))
    return Group(*parts)


def _checked(functions: Sequence[MicroFunctionDocument]) -> list[RenderableType]:
    """What ``--check`` has run: a row for each function that travels, a line for the sample."""
    travelling, sample = ([item for item in functions if item.patched is patched] for patched in (True, False))
    parts: list[RenderableType] = [micro(travelling)] if travelling else []
    if sample:
        agreeing = [item for item in sample if item.verdict == "agree"]
        partly = sum(map(_in_part, agreeing))
        open_ones = [_name(item) for item in sample if item.verdict != "agree"]
        parts.append(
            Text(
                f"of {counted(len(sample), 'relocated function')} run as a sample, {len(agreeing)} agree"
                + (f" ({partly} in part)" if partly else "")
                + (f", {len(open_ones)} inconclusive: {_listed(open_ones)}" if open_ones else "")
            )
        )
    return parts


def _in_part(item: MicroFunctionDocument) -> bool:
    return item.verdict == "agree" and item.covered < 1


def _name(item: StayingDocument | MicroFunctionDocument) -> str:
    if item.base_rva is None:
        return f"{item.name or f'fixed:0x{item.fixed_rva:x}'} (carried)"
    return item.name or f"rva:0x{item.base_rva:x}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more (--json has all)" if more > 0 else "")
