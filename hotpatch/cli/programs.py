"""The verbs that run emulated programs: call and run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from hotpatch.cli.console import DEFAULT, Options, Output
from hotpatch.cli.outcome import Exit
from hotpatch.errors import EmulatedFault, InputError, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.patch import Patch
    from hotpatch.process import AppliedAt, Process

Many = Parameter(negative=(), consume_multiple=False)
ConsistencyName = Literal["immediate", "quiescent", "per-thread"]


def call(
    image: str,
    function: str,
    /,
    *arguments: Annotated[str, Parameter(allow_leading_hyphen=True)],
    patch: Annotated[list[str] | None, Many] = None,
    module: Annotated[list[str] | None, Many] = None,
    load_base: str | None = None,
    stdin: str | None = None,
    seed: int = 0,
    consistency: ConsistencyName = "immediate",
    options: Options = DEFAULT,
) -> int:
    """Call one function in a fresh emulated process, patched or not.

    Example: hotpatch call base.dll clamp 11 10 --patch fix.dll@3

    Args:
        image: A DLL or an exe.
        function: An export, a symbol, or rva:0x1234.
        arguments: Integers (7, -1, 0x10), str:TEXT, hex:00FF, buf:N or f64:2.5.
        patch: Apply this patch before the call, or with PATCH@N after N instructions of it (may be given several times).
        module: Another DLL of the process (may be given several times).
        load_base: Where the image is loaded, a multiple of 0x10000.
        stdin: A file with what the program reads from its standard input.
        seed: Of every choice that the process makes.
        consistency: How threads change over.
    """
    from hotpatch.cli.arguments import parse_argument, parse_patch
    from hotpatch.process import AppliedAt
    from hotpatch.report import running

    out = Output(options)
    process = _process(image, module, load_base, stdin, seed, consistency)
    values = [parse_argument(text) for text in arguments]
    applied: list[AppliedAt] = []
    with out.progress(f"calling {function}"):
        patches = _Patches()
        try:
            for wanted in map(parse_patch, patch or ()):
                loaded = patches.load(wanted.path)
                if wanted.at is None:
                    process.apply(loaded)
                    applied.append(AppliedAt(wanted.path, 0, len(loaded.functions)))
                else:
                    process.apply_at(wanted.at, loaded)
        except Refused as error:
            document = running.call(None, process, applied, error.refusals)
            out.result(document, running.call_text(document))
            return Exit.REFUSED
        fault = result = None
        try:
            result = process.call_details(function, *values)
        except EmulatedFault as error:
            fault = error.fault
        went_in = [*applied, *patches.typed(process.applied)]
        document = running.call(result, process, went_in, process.refused, fault)
    out.result(document, running.call_text(document))
    if fault:
        return Exit.FAULT
    return Exit.REFUSED if process.refused else Exit.DONE


def run(
    image: str,
    /,
    *arguments: Annotated[str, Parameter(allow_leading_hyphen=True)],
    patch: Annotated[list[str] | None, Many] = None,
    revert: Annotated[list[str] | None, Many] = None,
    stop_at: str | None = None,
    module: Annotated[list[str] | None, Many] = None,
    load_base: str | None = None,
    stdin: str | None = None,
    seed: int = 0,
    consistency: ConsistencyName = "immediate",
    options: Options = DEFAULT,
) -> int:
    """Run a whole program with its threads, patching it at any instruction.

    Example: hotpatch run server.exe 3 --stdin requests.txt --patch fix.dll@4000 --revert fix.dll@9000

    Args:
        image: An exe.
        arguments: Of its command line.
        patch: Apply this patch before the first instruction, or with PATCH@N after N instructions (may be given several times).
        revert: PATCH@N: take the patch back after N instructions (may be given several times).
        stop_at: Stop after this many instructions and show each thread's registers, code and stack, and what is patched.
        module: Another DLL of the process (may be given several times).
        load_base: Where the image is loaded, a multiple of 0x10000.
        stdin: A file with what the program reads from its standard input.
        seed: Of the interleaving of threads.
        consistency: How threads change over.
    """
    from hotpatch.cli.arguments import parse_count, parse_patch
    from hotpatch.report import running

    out = Output(options)
    process = _process(image, module, load_base, stdin, seed, consistency, arguments)
    process.start()
    patches = _Patches()
    for wanted in map(parse_patch, patch or ()):
        process.apply_at(wanted.at or 0, patches.load(wanted.path))
    for text in revert or ():
        wanted = parse_patch(text, needs_at=True)
        process.revert_at(wanted.at or 0, patches.load(wanted.path))
    with out.progress(f"running {image}"):
        if stop_at is None:
            process.run()
        else:
            process.run_until(parse_count(stop_at))
    document = running.run(process, process.stop_view() if stop_at is not None else None)
    out.result(document, running.run_text(document))
    if document.fault:
        return Exit.FAULT
    return Exit.REFUSED if document.refused else Exit.DONE


class _Patches:
    """Patch files of one command, each read once and known by what the user typed."""

    def __init__(self) -> None:
        self._loaded: dict[str, Patch] = {}

    def load(self, path: str) -> Patch:
        from hotpatch.api import load

        if path not in self._loaded:
            self._loaded[path] = load(path)
        return self._loaded[path]

    def typed(self, applied: Sequence[AppliedAt]) -> list[AppliedAt]:
        """``applied`` with each patch's name as the user typed it."""
        names = {patch.image.name: path for path, patch in self._loaded.items()}
        return [replace(item, patch=names.get(item.patch, item.patch)) for item in applied]


def _process(
    image: str,
    modules: list[str] | None,
    load_base: str | None,
    stdin: str | None,
    seed: int,
    consistency: ConsistencyName,
    arguments: Sequence[str] = (),
) -> Process:
    from hotpatch.api import open  # noqa: A004
    from hotpatch.cli.arguments import parse_count
    from hotpatch.engine import Consistency
    from hotpatch.process import Process

    return Process(
        open(image),
        load_base=None if load_base is None else parse_count(load_base),
        seed=seed,
        modules=[open(path) for path in modules or ()],
        stdin=_contents(stdin),
        args=arguments,
        consistency=Consistency(consistency),
    )


def _contents(path: str | None) -> bytes:
    if path is None:
        return b""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(path, error.strerror or "cannot be read") from error
