"""The verb that proves a patch by trying: verify."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hotpatch.cli.console import DEFAULT, Options, Output
from hotpatch.cli.files import contents, load_for, open_module, open_pair
from hotpatch.cli.numbers import Integer, Positive
from hotpatch.cli.outcome import Exit
from hotpatch.errors import FaultKind, InputError, counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.image import Image
    from hotpatch.patch import Patch
    from hotpatch.verifier import Call

_BOUND = 100_000
Many = Parameter(negative=(), consume_multiple=False)


def verify(
    base: str,
    patch: str,
    /,
    *,
    fixed: Annotated[str, Parameter(metavar="FILE")],
    call: Annotated[list[str] | None, Many, Parameter(metavar="CALL")] = None,
    case: Annotated[str | None, Parameter(metavar="CASE")] = None,
    module: Annotated[list[str] | None, Many, Parameter(metavar="FILE")] = None,
    load_base: Annotated[str | None, Parameter(metavar="VA")] = None,
    stdin: Annotated[str | None, Parameter(metavar="FILE")] = None,
    seed: Integer = 0,
    bound: Positive | None = None,
    budget: Annotated[str | None, Parameter(metavar="N")] = None,
    function: Annotated[list[str] | None, Many, Parameter(metavar="FUNCTION")] = None,
    seeds: Positive | None = None,
    options: Options = DEFAULT,
) -> int:
    """Compare a patched build with the fixed one: by calls, with the patch going in at every boundary, or function by function.

    With --call or --case, the patch is applied, and reverted, at every instruction boundary of the calls, and every run compared with the
    old, the new and the fixed code. Without, every function that travels is run in the patched base and in the fixed image on the same
    made-up registers and memory.

    Args:
        base: The build that the patch is for.
        patch: The patch image.
        fixed: The build that it was made from.
        call: "FUNCTION ARG …", quoted as in a shell; each call is made in a fresh process (may be given several times).
        case: Take the calls of this shipped case.
        module: Another DLL of the process (may be given several times).
        load_base: Address at which the image is loaded, a multiple of 0x10000; by default the one that it asks for.
        stdin: A file with what the program reads from its standard input; by default there is nothing to read.
        seed: Of every choice that the process makes, and of the sample where not every boundary is tried.
        bound: Largest number of boundaries tried for each call, once for applying and once for reverting; by default 100000.
        budget: Instructions after which a call is given up; by default a thousand million.
        function: Without calls: run only this function, a name or rva:0x… in the base (may be given several times).
        seeds: Without calls: how many made-up states each function is run on; by default 48, fewer where many functions travel.
        options: Of every verb.
    """
    from hotpatch.cli.arguments import load_base_of, parse_budget
    from hotpatch.report import verify as report_of
    from hotpatch.verifier import Surroundings, verify_calls, verify_functions

    out = Output(options)
    calls = _calls(call, case)
    of_calls = {"--module": module, "--load-base": load_base, "--stdin": stdin, "--budget": budget, "--bound": bound}
    _check_mode(with_calls=bool(calls), of_calls=of_calls, of_functions={"--function": function, "--seeds": seeds})
    images = open_pair(base, fixed, out)
    loaded = load_for(patch, images[0], base)
    _warn_of_other_build(out, images, fixed, loaded, patch)
    with out.progress(f"verifying {patch}" + (f" with {counted(len(calls), 'call')}" if calls else "")):
        if calls:
            modules = tuple(open_module(path, images[0], base) for path in module or ())
            with load_base_of(load_base) as va:
                surroundings = Surroundings(va, modules, contents(stdin), seed, parse_budget(budget))
                report = verify_calls(
                    images[0], loaded, fixed=images[1], calls=calls, bound=_BOUND if bound is None else bound, surroundings=surroundings
                )
        else:
            report = verify_functions(images[0], loaded, fixed=images[1], functions=function or (), seeds=seeds, seed=seed)
        document = report_of.document(report)
    for missed in sorted({item.call for item in report.calls} - {item.call for item in report.calls if item.entries}):
        out.warn(f"{missed} enters none of the patched functions, so it shows nothing about the patch")
    for ended, fault in sorted({(item.call, item.fault) for item in report.calls if item.fault is not None}):
        if fault is FaultKind.BUDGET:
            out.warn(f"{ended} was given up when its budget was used up, so that the patch was not tried in the rest of it")
        else:
            out.warn(f"{ended} does not return ({fault.value}), so it shows nothing about the patch but up to there")
    if options.json or not options.quiet or not report.ok:
        out.result(document, report_of.render(report))
    return Exit.DONE if report.ok else Exit.COUNTEREXAMPLE


def _warn_of_other_build(out: Output, images: tuple[Image, Image], fixed: str, loaded: Patch, patch: str) -> None:
    """Say that ``--fixed`` is another build than the patch was made from, and what tells them apart.

    It is no mistake by itself: whether a patch does what a later build does, or a rebuild from the same sources, is a question, and the
    exit code answers it.
    """
    made_from = loaded.provenance
    if images[1].sha256 == made_from.fixed_sha256:
        return
    which = "is the base itself, and not" if images[1].sha256 == images[0].sha256 else "is not"
    out.warn(
        f"{fixed} {which} the build that {patch} was made from ({made_from.fixed_name}): its SHA-256 begins with {images[1].sha256[:12]}, "
        f"that one's with {made_from.fixed_sha256[:12]}; what differs below may be between these two, not in the patch"
    )


def _calls(texts: list[str] | None, case: str | None) -> list[Call]:
    """The calls that were asked for, if any.

    Raises:
        InputError: Both ``--call`` and ``--case``, or one that cannot be used.
    """
    if texts and case is not None:
        raise InputError("--call and --case", "exclude each other; give --call once or more, or --case, or neither")
    if not texts and case is None:
        return []
    return [_call(text) for text in texts] if texts else _case_calls(case or "")


def _check_mode(*, with_calls: bool, of_calls: Mapping[str, object], of_functions: Mapping[str, object]) -> None:
    """Refuse options (by what is typed for them, to their values) that mean nothing in the mode asked for.

    Raises:
        InputError: There are some; it names those, and no others.
    """
    typed = [name for name, value in (of_functions if with_calls else of_calls).items() if value is not None]
    if typed:
        verb, it = ("belongs", "it") if len(typed) == 1 else ("belong", "them")
        mode, advice = ("without", f"leave {it} or the calls out") if with_calls else ("with", f"give --call or --case, or leave {it} out")
        raise InputError(" and ".join(typed), f"{verb} to verification {mode} calls; {advice}")


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
