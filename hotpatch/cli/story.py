"""The verbs that show shipped cases: demo and cases."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from hotpatch.cli.console import DEFAULT, Options, Output
from hotpatch.cli.files import path_of
from hotpatch.cli.numbers import Integer
from hotpatch.cli.outcome import Exit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.cases.story import Step, StepKind

PROMPT = "[press Enter] "
"""What ``demo --step`` writes to standard error where it waits, if somebody is at a terminal."""


def cases(*, options: Options = DEFAULT) -> int:
    """List the shipped cases."""
    from hotpatch.cases import load_cases
    from hotpatch.report import text
    from hotpatch.report.documents import CaseDocument, CasesDocument

    document = CasesDocument(
        cases=[
            CaseDocument(
                name=case.name,
                title=case.manifest.title,
                shows=case.manifest.shows,
                kind=case.kind,
                machines=["x64", "arm64"],
                outcome=case.manifest.expect.outcome,
            )
            for case in load_cases()
        ]
    )
    Output(options).result(document, text.cases(document))
    return Exit.DONE


def demo(
    case: str = "overflow-check",
    /,
    *,
    arch: Literal["x64", "arm64"] | None = None,
    step: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    wheels: Annotated[str | None, Parameter(name="--from"), Parameter(metavar="DIR")] = None,
    seed: Integer = 0,
    options: Options = DEFAULT,
) -> int:
    """Tell the whole story on a shipped case: the bug shows, the patch goes in while the program runs, the bug is gone, and back.

    Args:
        case: A shipped case (hotpatch cases lists them), or cve-2025-69277: a real release, fetched from the package index.
        arch: Only this machine's build; both where not given.
        step: Wait for Enter at each event: an act, the threads, what is written, an attack, which calls took which code.
        wheels: For cve-2025-69277: the folder with its wheels, instead of the package index.
        seed: Chooses how threads interleave; the same seed tells the same story.
        options: Of every verb.
    """
    from hotpatch.arch import Machine
    from hotpatch.cases.tell import bug_is_fixed, is_as_told, tell
    from hotpatch.report import story
    from hotpatch.report.documents import DemoDocument

    out = Output(options)
    machines = [Machine(arch)] if arch else list(Machine)
    steps: list[Step] = []
    for machine in machines:
        told = tell(case, machine, seed=seed, cache=_cache(), wheels=None if wheels is None else path_of(wheels))
        for item in _paced(_begun(told, out, f"preparing {case} for {machine}"), out, wait=step and not options.json and not options.quiet):
            steps.append(item)
            if not options.json and not options.quiet:
                out.text(story.line(item))
    if options.json:
        document = DemoDocument(
            case=case, machines=[machine.value for machine in machines], steps=story.documents(steps), fixed=bug_is_fixed(steps)
        )
        out.document(document)
    return Exit.DONE if is_as_told(steps) else Exit.COUNTEREXAMPLE


def _begun(told: Iterator[Step], out: Output, what: str) -> Iterator[Step]:
    """``told``, with progress until its first step: a release may have to be fetched."""
    with out.progress(what):
        first = next(told)
    yield first
    yield from told


def _paced(steps: Iterator[Step], out: Output, *, wait: bool) -> Iterator[Step]:
    """``steps`` as they come; with ``wait``, Enter before each event. A story that ends early because nobody answers is told to its end."""
    before = None
    for item in steps:
        if wait and _is_event(item.kind, before):
            sys.stdout.flush()
            if _somebody_is_there():
                sys.stderr.write(PROMPT)
                sys.stderr.flush()
            if not sys.stdin.readline():
                wait = False
                out.log("no more input; the story goes on by itself")
        yield item
        before = item.kind
        sys.stdout.flush()


def _somebody_is_there() -> bool:
    """Whether a prompt would be seen and could be answered."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _is_event(kind: StepKind, before: StepKind | None) -> bool:
    """Whether an event begins with a step of ``kind`` behind one of kind ``before``: steps about threads, writes and calls go together."""
    from hotpatch.cases.story import StepKind

    if kind in (StepKind.ACT, StepKind.REQUEST, StepKind.END):
        return True
    return kind in (StepKind.THREAD, StepKind.WRITE, StepKind.CALL) and kind is not before


def _cache() -> Path:
    """Where fetched releases are kept: HOTPATCH_CACHE, else the user's cache folder."""
    chosen = os.environ.get("HOTPATCH_CACHE")
    if chosen:
        return Path(chosen)
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home() / "AppData" / "Local"))) / "hotpatch"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hotpatch"
