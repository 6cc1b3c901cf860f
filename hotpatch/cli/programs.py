"""The verbs that run emulated programs: call and run."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Literal, cast

from cyclopts import Parameter

from hotpatch.cli.console import DEFAULT, Options, Output
from hotpatch.cli.files import contents, load_for, open_module, open_program
from hotpatch.cli.numbers import Count, Integer
from hotpatch.cli.outcome import Exit
from hotpatch.errors import EmulatedFault, Refusal, Refused, Rule, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.cli.arguments import PatchAt
    from hotpatch.image import Image
    from hotpatch.patch import Patch
    from hotpatch.process import AppliedAt, Process
    from hotpatch.report.documents import CallDocument, RunDocument

Many = Parameter(negative=(), consume_multiple=False)
_OPTIONS = (
    *(
        "--patch",
        "--revert",
        "--stop-at",
        "--module",
        "--available",
        "--load-base",
        "--stdin",
        "--seed",
        "--consistency",
        "--wait",
        "--budget",
    ),
    *("--json", "--quiet", "--verbose", "--color", "--help"),
)
ConsistencyName = Literal["immediate", "quiescent", "per-thread"]


def call(
    image: str,
    function: str,
    /,
    *arguments: Annotated[str, Parameter(name="ARG", allow_leading_hyphen=True)],
    patch: Annotated[list[str] | None, Many, Parameter(metavar=r"PATCH\[@N]")] = None,
    module: Annotated[list[str] | None, Many, Parameter(metavar="FILE")] = None,
    available: Annotated[list[str] | None, Many, Parameter(metavar="FILE")] = None,
    load_base: Annotated[str | None, Parameter(metavar="VA")] = None,
    stdin: Annotated[str | None, Parameter(metavar="FILE")] = None,
    seed: Integer = 0,
    consistency: ConsistencyName = "immediate",
    wait: Count | None = None,
    budget: Annotated[str | None, Parameter(metavar="N")] = None,
    options: Options = DEFAULT,
) -> int:
    """Call one function in a fresh emulated process, patched or not.

    Args:
        image: A DLL or an exe.
        function: An export, a symbol, or rva:0x1234.
        arguments: Integers (7, -1, 0x10), str:TEXT, hex:00FF, buf:N, and for parameters of C's type double f64:2.5, of float f32:2.5.
        patch: Apply this patch before the call, or with PATCH@N after N instructions of it (may be given several times).
        module: Another DLL of the process (may be given several times).
        available: A DLL that the program may load while it runs; its patch goes in as it is loaded (may be given several times).
        load_base: Address at which the image is loaded, a multiple of 0x10000; by default the one that it asks for.
        stdin: A file with what the program reads from its standard input; by default there is nothing to read.
        seed: Of every choice that the process makes; the same seed gives the same run.
        consistency: How calls change over: at once, when no thread is inside (quiescent), or for each thread when it is not (per-thread).
        wait: After how many instructions of waiting it is given up; by default a million with quiescent, never with per-thread.
        budget: Instructions after which the program is given up; by default a thousand million.
        options: Of every verb.
    """
    from hotpatch.cli.arguments import parse_arguments, parse_patch
    from hotpatch.process import AppliedAt
    from hotpatch.report import running

    out = Output(options)
    _warn_of_wait(out, wait, consistency)
    values = parse_arguments(arguments)
    wanted = [parse_patch(text) for text in patch or ()]
    patches = _Patches(image)
    applied: list[AppliedAt] = []
    process = result = fault = None
    refused: tuple[Refusal, ...] = ()
    with out.progress(f"calling {function}"):
        try:
            process = _process(image, module, available, load_base, stdin, seed, consistency, budget)
            for item in wanted:
                loaded = patches.load(item.path, process.base)
                if item.at is None and not process.offers(loaded):
                    process.apply(loaded, wait=wait)
                    applied.append(AppliedAt(item.path, 0, len(loaded.functions)))
                else:
                    process.apply_at(item.at or 0, loaded, wait=wait)
            result = process.call_details(function, *values)
        except EmulatedFault as error:
            fault = error.fault
        except Refused as error:
            refused = error.refusals
    if process:
        missed = [] if result is None else [*_missed(process, wanted, "call returned"), *_still_waiting(process, "call returned")]
        _warn_of_pending(out, process, told=result is not None)
        applied += patches.typed(process.applied)
        refused = (*process.refused, *refused, *missed)
    document = running.call(result, process, applied, refused, fault)
    out.result(document, running.call_text(document))
    return _ended(document)


def run(
    image: str,
    /,
    *arguments: Annotated[str, Parameter(name="ARG", allow_leading_hyphen=True)],
    patch: Annotated[list[str] | None, Many, Parameter(metavar=r"PATCH\[@N]")] = None,
    revert: Annotated[list[str] | None, Many, Parameter(metavar="PATCH@N")] = None,
    stop_at: Annotated[str | None, Parameter(metavar="N")] = None,
    module: Annotated[list[str] | None, Many, Parameter(metavar="FILE")] = None,
    available: Annotated[list[str] | None, Many, Parameter(metavar="FILE")] = None,
    load_base: Annotated[str | None, Parameter(metavar="VA")] = None,
    stdin: Annotated[str | None, Parameter(metavar="FILE")] = None,
    seed: Integer = 0,
    consistency: ConsistencyName = "immediate",
    wait: Count | None = None,
    budget: Annotated[str | None, Parameter(metavar="N")] = None,
    options: Options = DEFAULT,
) -> int:
    """Run a whole program with its threads, patching it at any instruction.

    Args:
        image: An exe.
        arguments: Of its command line.
        patch: Apply this patch before the first instruction, or with PATCH@N after N instructions (may be given several times).
        revert: PATCH@N: take the patch back after N instructions (may be given several times).
        stop_at: Stop after this many instructions and show each thread's registers, code and stack, and what is patched.
        module: Another DLL of the process (may be given several times).
        available: A DLL that the program may load while it runs; its patch goes in as it is loaded (may be given several times).
        load_base: Address at which the image is loaded, a multiple of 0x10000; by default the one that it asks for.
        stdin: A file with what the program reads from its standard input; by default there is nothing to read.
        seed: Chooses how threads interleave; the same seed gives the same run.
        consistency: How calls change over: at once, when no thread is inside (quiescent), or for each thread when it is not (per-thread).
        wait: After how many instructions of waiting it is given up; by default a million with quiescent, never with per-thread.
        budget: Instructions after which the program is given up; by default a thousand million.
        options: Of every verb.
    """
    from hotpatch.cli.arguments import parse_count, parse_patch
    from hotpatch.report import running

    out = Output(options)
    _warn_of_wait(out, wait, consistency)
    _warn_of_options(out, arguments[: len(arguments) - options.verbatim], (*(patch or ()), *(revert or ())))
    stop = None if stop_at is None else parse_count(stop_at, "--stop-at")
    applies = [parse_patch(text) for text in patch or ()]
    reverts = [parse_patch(text, needs_at=True) for text in revert or ()]
    patches = _Patches(image)
    try:
        process = _process(image, module, available, load_base, stdin, seed, consistency, budget, arguments)
    except (EmulatedFault, Refused) as error:
        document = running.no_run(error)
    else:
        process.start()
        for item in applies:
            process.apply_at(item.at or 0, patches.load(item.path, process.base), wait=wait)
        for item in reverts:
            process.revert_at(item.at or 0, patches.load(item.path, process.base), wait=wait)
        with out.progress(f"running {image}"):
            process.run() if stop is None else process.run_until(stop)
        ended = stop is None and process.finished and process.fault is None
        missed = [*_missed(process, (*applies, *reverts)), *_still_waiting(process)] if ended else []
        _warn_of_pending(out, process, told=ended)
        document = running.run(process, None if stop is None else process.stop_view(), missed)
    out.result(document, running.run_text(document))
    return _ended(document)


def _warn_of_options(out: Output, arguments: Sequence[str], patches: Sequence[str]) -> None:
    """Say which words go to the program although they look like options of this verb, misspelt, or like the count of one of ``patches``."""
    from hotpatch.cli.arguments import is_at

    countless = [path for path in patches if "@" not in path]
    for word in arguments:
        if countless and is_at(word):
            out.warn(f"{word} goes to the program; did you mean {countless[-1]}{word}, without a blank?")
        near = get_close_matches(word.partition("=")[0], _OPTIONS, 1, 0.8) if word.startswith("--") else ()
        if near:
            out.warn(f"{word} goes to the program; did you mean {near[0]}?")


def _warn_of_wait(out: Output, wait: int | None, consistency: ConsistencyName) -> None:
    """Say that ``--wait`` bounds nothing where nothing is waited for."""
    if wait is not None and consistency == "immediate":
        out.warn("--wait bounds nothing, as nothing is waited for; give --consistency quiescent or per-thread with it")


def _ended(document: CallDocument | RunDocument) -> Exit:
    if document.fault:
        return Exit.FAULT
    return Exit.REFUSED if document.refused else Exit.DONE


def _missed(process: Process, changes: Sequence[PatchAt], end: str = "program ended") -> list[Refusal]:
    """What was to be done at instructions that the program, which has ended (``end`` says how), never reached."""
    ended = process.instructions
    return [
        Refusal(
            Rule.NOT_REACHED,
            None,
            None,
            f"the {end} after {counted(ended, 'instruction')}, before anything was done about {change.path} at instruction {change.at}; "
            "give a smaller count",
            {"patch": change.path, "at": change.at, "instructions": ended},
        )
        for change in changes
        if change.at in process.pending
    ]


def _still_waiting(process: Process, how: str = "program ended") -> list[Refusal]:
    """What waited for threads when the program ended (``how`` says in what way), so that nothing of it has been done."""
    from hotpatch.report.events import held

    ended, refusals = process.instructions, []
    for change in process.status().changes:
        if change.state != "waiting":
            continue
        begun = next(event for event in reversed(process.events) if event.kind == "wait" and event.details["patch"] == change.name)
        holders = cast("list[dict[str, object]]", begun.details["holders"])
        stuck = next((each["endless"] for each in holders if not each["reachable"]), None)
        end = (
            "bound the wait (--wait), or choose another consistency"
            if stuck is None
            else f"the code of {stuck} never returns from there, so this cannot be waited for; choose another consistency"
        )
        reason = (
            f"the {how} after {counted(ended, 'instruction')}, before its threads had left the code that {change.operation} of "
            f"{change.name} had waited for since instruction {change.since}: {held(holders, stacks=True)}; {end}"
        )
        evidence = {"patch": change.name, "at": change.since, "instructions": ended, "holders": holders}
        refusals.append(Refusal(Rule.NOT_REACHED, None, None, reason, evidence))
    return refusals


def _warn_of_pending(out: Output, process: Process, *, told: bool = False) -> None:
    """Say which patches never went in, or never came out, because the program ended before; ``told``: but for what is refused."""
    for at in () if told else process.pending:
        out.warn(f"nothing was done at instruction {at}: the program had executed {process.instructions} when it ended or was stopped")
    for change in process.status().changes if process.finished else ():
        if told and change.state == "waiting":
            continue
        out.warn(
            f"{change.name} is still {change.state} ({change.operation} since instruction {change.since}): the program ended before its "
            "threads had left the code that was in force"
        )
    went_in = {event.details["patch"] for event in process.events if event.kind == "apply"}
    for waiting in process.status().registered if process.finished else ():
        if waiting.name not in went_in and not waiting.refusals:
            out.warn(f"{waiting.name} never went in: the program did not load {waiting.module}")


class _Patches:
    """Patch files of one command, each read once and known by what the user typed."""

    def __init__(self, image_path: str) -> None:
        self._image_path = image_path
        self._loaded: dict[str, Patch] = {}

    def load(self, path: str, image: Image) -> Patch:
        if path not in self._loaded:
            self._loaded[path] = load_for(path, image, self._image_path)
        return self._loaded[path]

    def typed(self, applied: Sequence[AppliedAt]) -> list[AppliedAt]:
        """``applied`` with each patch's name as the user typed it."""
        names = {patch.image.name: path for path, patch in self._loaded.items()}
        return [replace(item, patch=names.get(item.patch, item.patch)) for item in applied]


def _process(
    image: str,
    modules: list[str] | None,
    available: list[str] | None,
    load_base: str | None,
    stdin: str | None,
    seed: int,
    consistency: ConsistencyName,
    budget: str | None,
    arguments: Sequence[str] = (),
) -> Process:
    from hotpatch.cli.arguments import load_base_of, parse_budget
    from hotpatch.engine import Consistency
    from hotpatch.process import Process

    program = open_program(image)
    with load_base_of(load_base) as base:
        return Process(
            program,
            load_base=base,
            seed=seed,
            modules=[open_module(path, program, image) for path in modules or ()],
            available=[open_module(path, program, image) for path in available or ()],
            stdin=contents(stdin),
            args=arguments,
            consistency=Consistency(consistency),
            budget=parse_budget(budget),
        )
