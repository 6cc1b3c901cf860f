"""Documents and text of what ran: calls, whole programs, stopped threads."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from hotpatch.engine import Status
from hotpatch.errors import EmulatedFault, Refused, counted, printable
from hotpatch.report import convert, events
from hotpatch.report.convert import facts
from hotpatch.report.documents import AppliedDocument, CallDocument, FrameDocument, RunDocument, ThreadStopDocument
from hotpatch.report.refused import refusals
from hotpatch.report.tables import Noted, hexadecimal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from hotpatch.errors import Fault, Refusal
    from hotpatch.process import AppliedAt, CallResult, Process, ThreadView
    from hotpatch.report.documents import FaultDocument

_REGISTERS_A_LINE = 4
_REGISTER_COLUMNS = 25
_BUFFER_LINE = 16
_BUFFER_SHOWN = 256
"""Bytes of a buffer that text shows; the document has them all."""


def applied(items: Iterable[AppliedAt]) -> list[AppliedDocument]:
    """Patches that went in."""
    return [AppliedDocument(patch=item.patch, at=item.at, functions=item.functions) for item in items]


def call(
    result: CallResult | None,
    process: Process | None,
    went_in: Sequence[AppliedAt],
    refused: Iterable[Refusal],
    fault: Fault | None = None,
) -> CallDocument:
    """The document of ``hotpatch call``; without a result the call faulted or was never made, without a process there was none."""
    output = process.output if process else ""
    instructions = process.instructions if process else 0
    return CallDocument(
        return_=result.value if result else None,
        return_hex=f"0x{result.value:x}" if result else None,
        return_float=convert.number(result.float_value) if result else None,
        buffers=[buffer.hex() for buffer in result.buffers] if result else [],
        instructions=result.instructions if result else instructions,
        output=result.output if result else output,
        applied=applied(went_in),
        refused=convert.refusals(refused),
        fault=convert.fault(fault),
    )


def run(process: Process, stopped: Sequence[ThreadView] | None = None, missed: Iterable[Refusal] = ()) -> RunDocument:
    """The document of ``hotpatch run``; ``missed`` is what the program ended before."""
    result = process.result()
    return RunDocument(
        exit_code=result.exit_code,
        output=result.output,
        instructions=result.instructions,
        threads=result.threads,
        status=facts(process.status().document()),
        events=[{"at": item.at, "thread": item.thread, "kind": item.kind, **facts(item.details)} for item in process.events],
        refused=convert.refusals((*process.refused, *missed)),
        fault=convert.fault(result.fault),
        stopped=None if stopped is None else [_stopped(view) for view in stopped],
    )


def no_run(error: EmulatedFault | Refused) -> RunDocument:
    """The document of a ``hotpatch run`` whose program could not be loaded: its start-up faulted, or its image is refused."""
    return RunDocument(
        exit_code=None,
        output="",
        instructions=0,
        threads=0,
        status=Status((), (), ()).document(),
        events=[],
        refused=convert.refusals(error.refusals) if isinstance(error, Refused) else [],
        fault=convert.fault(error.fault) if isinstance(error, EmulatedFault) else None,
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
        parts.append(_verbatim(document.output))
    for item in document.applied:
        when = f"after {counted(item.at, 'instruction')}" if item.at else "before the first instruction"
        told = f"applied {printable(item.patch)} to the process {when}: {counted(item.functions, 'function')}"
        parts.append(Text(told, style="cyan", no_wrap=True, overflow="ignore"))
    if document.refused:
        parts.append(refusals(document.refused))
    if document.return_ is not None:
        signed = document.return_ - (1 << 64) if document.return_ >> 63 else document.return_
        shown = f"{document.return_} ({document.return_hex})" + (f", signed {signed}" if signed < 0 else "")
        floating = f", {_floating(document.return_float)}" if document.return_float else ""
        parts.append(Text(f"returned {shown}{floating} after {counted(document.instructions, 'instruction')}"))
        parts += [_buffer(number, bytes.fromhex(data)) for number, data in enumerate(document.buffers, 1)]
    if document.fault:
        parts.append(fault_text(document.fault))
    return Group(*parts)


def _floating(value: float) -> str:
    """What the floating-point result register holds, which need be no result; with zeros in its upper half it is read as a C ``float``."""
    bits = struct.pack("<d", value)
    if any(bits[4:]):
        return f"floating-point register as a double {value!r}"
    (single,) = struct.unpack("<f", bits[:4])
    shortest = next(
        (told for told in (f"{single:.{digits}g}" for digits in range(6, 9)) if struct.pack("<f", float(told)) == bits[:4]), None
    )
    return f"floating-point register as a float {shortest or f'{single:.9g}'}"


def _verbatim(output: str) -> Text:
    """What the program wrote, as it wrote it."""
    return Text(output.rstrip("\n"), no_wrap=True, overflow="ignore")


def _buffer(number: int, data: bytes) -> RenderableType:
    """A short buffer on its line, a longer one as a dump of bytes and characters."""
    if len(data) <= _BUFFER_LINE:
        return Text(f"buffer {number}: {data.hex()}")
    lines = [f"buffer {number}, {len(data)} bytes:"]
    for at in range(0, min(len(data), _BUFFER_SHOWN), _BUFFER_LINE):
        part = data[at : at + _BUFFER_LINE]
        characters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        lines.append(f"    {at:04x}  {part.hex(' '):<{3 * _BUFFER_LINE}} {characters}")
    if len(data) > _BUFFER_SHOWN:
        lines.append(f"    … {counted(len(data) - _BUFFER_SHOWN, 'byte')} more; --json has all of them")
    return Text("\n".join(lines))


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
        parts.append(_verbatim(document.output))
    parts += _course(document)
    for item in document.stopped or ():
        parts.append(_stop_text(item))
    if document.stopped is not None:
        parts.append(_status(document.status))
    if document.fault:
        parts.append(fault_text(document.fault))
    unfinished = "stopped by the fault" if document.fault else "still running"
    state = unfinished if document.exit_code is None else f"exit code {document.exit_code}"
    if document.threads:
        state += f" after {counted(document.instructions, 'instruction')}, {counted(document.threads, 'thread')}"
        parts.append(Text(state))
    return Group(*parts)


def _course(document: RunDocument) -> list[RenderableType]:
    """What the engine did, and each refusal where it came."""
    parts: list[RenderableType] = []
    untold = list(document.refused)
    for event in document.events:
        refused = next((item for item in untold if event["kind"] == "refused" and event["reason"] == item.reason), None)
        if refused is not None:
            untold.remove(refused)
            parts.append(refusals([refused], at=event["at"]))
        elif line := events.line(event):
            parts.append(Text(line, style="cyan", no_wrap=True, overflow="ignore"))
    return [*parts, refusals(untold)] if untold else parts


def _status(status: dict[str, Any]) -> RenderableType:
    """What is patched, where, by which patch, in which state."""
    functions = status["functions"]
    changes = [line for change in status["changes"] for line in _change(change)]
    changes += [Text(_registered(item)) for item in status["registered"]]
    if not functions:
        return Group(Text("nothing is patched"), *changes)
    names = {patch["number"]: patch["name"] for patch in status["patches"]}
    rows = Noted("patched", "at", "state", "redirect", "leads to", right=("at", "leads to"), notes="by")
    for item in functions:
        rows.add_row(
            item["name"] or f"rva:0x{item['rva']:x}",
            hexadecimal(item["va"]),
            item["state"],
            item["redirect"],
            hexadecimal(item["destination"]),
            notes=f"{names[item['patch']]}, sequence {item['sequence']}, in {item['module']}"
            + "".join(f"; waits for {reason}" for reason in item["waits_for"]),
        )
    return Group(rows, *changes)


def _registered(item: Mapping[str, Any]) -> str:
    """A patch that waits for its module, and what it was refused for when that was loaded last."""
    why = "".join(f"; refused at its last load: {refusal['rule']}" for refusal in item["refusals"])
    return f"{item['name']}, sequence {item['sequence']}: {item['state']}, waits for {item['module']}{why}"


def _change(change: Mapping[str, Any]) -> list[Text]:
    """What is on its way, and on which side each thread is."""
    until = "" if change["until"] is None else f", until instruction {change['until']}"
    since = f"since instruction {change['since']}{until}"
    head = f"{change['name']}, sequence {change['sequence']}: {change['operation']} {change['state']} {since}"
    rows = [
        f"    thread {item['thread']}: {item['side']}" + (f", kept by {item['function'] or '?'}" if item["stack"] else "")
        for item in change["threads"]
    ]
    return [Text(line) for line in (head, *rows)]


def _stop_text(item: ThreadStopDocument) -> RenderableType:
    waits = f", waits for {item.waits_for}" if item.waits_for else ""
    head = f"thread {item.thread}, {item.state}, in {item.function or '?'}{waits}"
    code = [Text(f"  {'→' if not at else ' '} {line}") for at, line in enumerate(item.code)]
    stack = [Text(f"    0x{frame.pc:x}  {frame.function or '?'}") for frame in item.stack]
    return Group(Text(head, style="bold"), Registers(item.registers), *code, Text("  stack"), *stack)


class Registers:
    """Registers in as many columns as there is room for, at most four."""

    def __init__(self, values: Mapping[str, int]) -> None:
        """``values`` by name."""
        self._cells = [f"{name:>6} {value:016x}" for name, value in values.items()]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line for each row of them."""
        count = max(1, min(_REGISTERS_A_LINE, options.max_width // _REGISTER_COLUMNS))
        for at in range(0, len(self._cells), count):
            yield Text("  ".join(self._cells[at : at + count]))
