"""Documents and text of what ran: calls, whole programs, stopped threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from hotpatch.report import convert
from hotpatch.report.convert import plain
from hotpatch.report.documents import AppliedDocument, CallDocument, FrameDocument, RunDocument, ThreadStopDocument
from hotpatch.report.text import refusals, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from hotpatch.errors import Fault, Refusal
    from hotpatch.process import AppliedAt, CallResult, Process, ThreadView
    from hotpatch.report.documents import FaultDocument

_REGISTERS_A_LINE = 4
_TOLD = frozenset({"apply", "redirect", "revert", "transition", "collect"})


def applied(items: Iterable[AppliedAt]) -> list[AppliedDocument]:
    """Patches that went in."""
    return [AppliedDocument(patch=item.patch, at=item.at, functions=item.functions) for item in items]


def call(
    result: CallResult | None,
    process: Process,
    went_in: Sequence[AppliedAt],
    refused: Iterable[Refusal],
    fault: Fault | None = None,
) -> CallDocument:
    """The document of ``hotpatch call``; without a result the call faulted or was never made."""
    return CallDocument(
        return_=result.value if result else None,
        return_hex=f"0x{result.value:x}" if result else None,
        return_float=convert.number(result.float_value) if result else None,
        buffers=[buffer.hex() for buffer in result.buffers] if result else [],
        instructions=result.instructions if result else process.instructions,
        output=result.output if result else process.output,
        applied=applied(went_in),
        refused=convert.refusals(refused),
        fault=convert.fault(fault),
    )


def run(process: Process, stopped: Sequence[ThreadView] | None = None) -> RunDocument:
    """The document of ``hotpatch run``."""
    result = process.result()
    return RunDocument(
        exit_code=result.exit_code,
        output=result.output,
        instructions=result.instructions,
        threads=result.threads,
        status=plain(process.status().document()),
        events=[{"at": item.at, "thread": item.thread, "kind": item.kind, **plain(dict(item.details))} for item in process.events],
        refused=convert.refusals(process.refused),
        fault=convert.fault(result.fault),
        stopped=None if stopped is None else [_stopped(view) for view in stopped],
    )


def _stopped(view: ThreadView) -> ThreadStopDocument:
    return ThreadStopDocument(
        thread=view.id,
        state=view.state,
        pc=view.pc,
        function=view.function,
        registers={name: int(value) for name, value in view.registers.items()},
        code=[f"0x{item.address:x}  {item.mnemonic} {item.operands}".rstrip() for item in view.code],
        stack=[FrameDocument(pc=frame.pc, function=frame.function) for frame in view.stack],
        waits_for=view.waits_for,
    )


def call_text(document: CallDocument) -> RenderableType:
    """A call for people."""
    parts: list[RenderableType] = []
    if document.output:
        parts.append(Text(document.output.rstrip("\n")))
    for item in document.applied:
        parts.append(Text(f"{item.patch}: {item.functions} functions patched after {item.at} instructions"))
    if document.refused:
        parts.append(refusals(document.refused))
    if document.return_ is not None:
        signed = document.return_ - (1 << 64) if document.return_ >> 63 else document.return_
        shown = f"{document.return_} ({document.return_hex})" + (f", signed {signed}" if signed < 0 else "")
        parts.append(Text(f"returned {shown} after {document.instructions} instructions"))
        parts += [Text(f"buffer {number}: {data}") for number, data in enumerate(document.buffers, 1)]
    if document.fault:
        parts.append(fault_text(document.fault))
    return Group(*parts)


def fault_text(fault: FaultDocument) -> RenderableType:
    """A fault with its stack."""
    where = f" in {fault.function}" if fault.function else ""
    what = f": {fault.access} of 0x{fault.address:x}" if fault.access else ""
    lines = [
        Text.assemble(
            ("fault ", "red"), (fault.kind, "bold red"), f" at pc 0x{fault.pc:x}{where}{what}", f" ({fault.detail})" if fault.detail else ""
        )
    ]
    lines += [Text(f"    0x{frame.pc:x}  {frame.function or '?'}") for frame in fault.stack]
    return Group(*lines)


def run_text(document: RunDocument) -> RenderableType:
    """A run for people: what the program wrote, what the engine did, how it ended."""
    parts: list[RenderableType] = []
    if document.output:
        parts.append(Text(document.output.rstrip("\n")))
    parts += [Text(_event(item), style="cyan") for item in document.events if item["kind"] in _TOLD]
    if document.refused:
        parts.append(refusals(document.refused))
    for item in document.stopped or ():
        parts.append(_stop_text(item))
    if document.fault:
        parts.append(fault_text(document.fault))
    state = "still running" if document.exit_code is None else f"exit code {document.exit_code}"
    parts.append(Text(f"{state} after {document.instructions} instructions, {document.threads} threads"))
    return Group(*parts)


def _event(event: dict[str, object]) -> str:
    details = ", ".join(f"{key} {_shown(key, value)}" for key, value in event.items() if key not in ("at", "thread", "kind"))
    return f"[{event['at']}] {event['kind']}: {details}"


def _shown(key: str, value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and key not in ("functions", "sequence", "number", "size"):
        return f"0x{value:x}"
    return str(value)


def _stop_text(item: ThreadStopDocument) -> RenderableType:
    head = f"thread {item.thread}, {item.state}{f', waits for {item.waits_for}' if item.waits_for else ''}, in {item.function or '?'}"
    rows = table(*[""] * _REGISTERS_A_LINE)
    rows.show_header = False
    cells = [f"{name:>6} {value:016x}" for name, value in item.registers.items()]
    for at in range(0, len(cells), _REGISTERS_A_LINE):
        rows.add_row(*cells[at : at + _REGISTERS_A_LINE])
    code = [Text(f"  {'→' if not at else ' '} {line}") for at, line in enumerate(item.code)]
    stack = [Text(f"    0x{frame.pc:x}  {frame.function or '?'}") for frame in item.stack]
    return Group(Text(head, style="bold"), rows, *code, Text("  stack"), *stack)
