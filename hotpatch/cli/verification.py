"""The verb that proves a patch by trying: verify."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hotpatch.cli.console import DEFAULT, Options, Output
from hotpatch.cli.outcome import Exit
from hotpatch.errors import InputError, Refused

if TYPE_CHECKING:
    from hotpatch.verifier import Call, Surroundings

Many = Parameter(negative=(), consume_multiple=False)


def verify(
    base: str,
    patch: str,
    /,
    *,
    fixed: str,
    call: Annotated[list[str] | None, Many] = None,
    case: str | None = None,
    module: Annotated[list[str] | None, Many] = None,
    load_base: str | None = None,
    stdin: str | None = None,
    seed: int = 0,
    bound: int = 100_000,
    options: Options = DEFAULT,
) -> int:
    """Apply a patch, and revert it, at every instruction boundary of calls, and compare every run with the old, the new and the fixed code.

    Example: hotpatch verify base.dll fix.dll --fixed fixed.dll --call "clamp 11 10"

    Args:
        base: The build that the patch is for.
        patch: The patch image.
        fixed: The build that it was made from.
        call: "FUNCTION ARG …", quoted as in a shell; each call is made in a fresh process (may be given several times).
        case: Take the calls of this shipped case.
        module: Another DLL of the process (may be given several times).
        load_base: Where the image is loaded, a multiple of 0x10000.
        stdin: A file with what the program reads from its standard input.
        seed: Of every choice that the process makes, and of the sample where not every boundary is tried.
        bound: Largest number of boundaries tried for each call, once for applying and once for reverting.
        options: Of every verb.
    """
    from hotpatch.api import load, open
    from hotpatch.report import convert, text
    from hotpatch.report import verify as report_of
    from hotpatch.report.documents import RefusedDocument
    from hotpatch.verifier import verify_calls

    out = Output(options)
    calls = _calls(call, case)
    images = open(base), open(fixed)
    try:
        with out.progress(f"verifying {patch} with {len(calls)} call{'s' * (len(calls) != 1)}"):
            surroundings = _surroundings(module, load_base, stdin, seed)
            loaded = load(patch)
            report = verify_calls(images[0], loaded, fixed=images[1], calls=calls, bound=bound, surroundings=surroundings)
            document = report_of.document(report)
    except Refused as error:
        refused = RefusedDocument(refused=convert.refusals(error.refusals))
        out.result(refused, text.refusals(refused.refused))
        return Exit.REFUSED
    if images[1].sha256 != loaded.provenance.fixed_sha256:
        out.warn(f"{fixed} is not the build that {patch} was made from ({loaded.provenance.fixed_name}): other contents")
    for missed in sorted({item.call for item in report.calls} - {item.call for item in report.calls if item.entries}):
        out.warn(f"{missed} enters none of the patched functions, so it shows nothing about the patch")
    out.result(document, report_of.render(report))
    return Exit.DONE if report.ok else Exit.COUNTEREXAMPLE


def _calls(texts: list[str] | None, case: str | None) -> list[Call]:
    """The calls that were asked for.

    Raises:
        InputError: Neither or both of ``--call`` and ``--case``, or one that cannot be used.
    """
    if bool(texts) == (case is not None):
        raise InputError("verify", "needs calls to try: give --call once or more, or --case, not both")
    return [_call(text) for text in texts] if texts else _case_calls(case or "")


def _call(text: str) -> Call:
    from hotpatch.cli.arguments import parse_argument

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"--call {text!r}", f"{error}; quote it as in a shell") from error
    if not words:
        raise InputError(f"--call {text!r}", 'names no function; write "FUNCTION ARG …"')
    return (words[0], *map(parse_argument, words[1:]))


def _case_calls(name: str) -> list[Call]:
    from hotpatch.cases import find_case
    from hotpatch.cli.arguments import parse_argument

    found = find_case(name).manifest.call
    if not found:
        raise InputError(f"--case {name}", "has no calls, only whole programs; use hotpatch demo, or --call")
    return [(call.function, *map(parse_argument, call.args)) for call in found]


def _surroundings(module: list[str] | None, load_base: str | None, stdin: str | None, seed: int) -> Surroundings:
    from hotpatch.api import open
    from hotpatch.cli.arguments import parse_count
    from hotpatch.verifier import Surroundings

    return Surroundings(
        None if load_base is None else parse_count(load_base),
        tuple(open(path) for path in module or ()),
        Path(stdin).read_bytes() if stdin is not None else b"",
        seed,
    )
