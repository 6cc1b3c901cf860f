"""The verbs that read and write files: inspect, diff, build."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from hotpatch.cli.console import DEFAULT, Options, Output
from hotpatch.cli.files import open_pair, warn_of_other_pdb
from hotpatch.cli.numbers import SequenceNumber, StateVersion
from hotpatch.cli.outcome import Exit, one_line
from hotpatch.errors import NothingToDo, Refused

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hotpatch.image import Image
    from hotpatch.patch import Patch
    from hotpatch.report.documents import Document

Many = Parameter(negative=(), consume_multiple=False)


def inspect(
    file: str,
    /,
    *,
    unwind: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    options: Options = DEFAULT,
) -> int:
    """Show an image's functions, padding and hot patch table, or a patch's contents, base identity, records and signature.

    Args:
        file: An x64 or Arm64 PE file, or a patch image.
        unwind: Show the function table too: how a frame of each entry's code is undone.
        options: Of every verb.
    """
    from hotpatch.api import load, open, unwind_data
    from hotpatch.patch import hot_patch_info, is_patch
    from hotpatch.report import convert, text

    out = Output(options)
    with out.progress(f"reading {file}"):
        image = open(file)
        info = hot_patch_info(image)
        warn_of_other_pdb(image, file, out)
        table = convert.unwind_data(image, unwind_data(image)) if unwind else None
        if info is not None and is_patch(image.data):
            patched = convert.inspect_patch(load(file), file, info, table)
            out.result(patched, text.inspect_patch(patched))
        else:
            document = convert.inspect_image(image, info, table)
            out.result(document, text.inspect_image(document))
    return Exit.DONE


def diff(
    base: str,
    fixed: str,
    /,
    *,
    function: Annotated[str | None, Parameter(metavar="FUNCTION")] = None,
    html: Annotated[str | None, Parameter(metavar="FILE")] = None,
    all: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    options: Options = DEFAULT,
) -> int:
    """Tell which functions of two builds differ, and how.

    Args:
        base: The build that runs.
        fixed: The build with the fix.
        function: Show both versions of this function (a name, rva:0x…, or fixed:0x… in the fixed image alone) side by side.
        html: Also write one self-contained page (of --function) to this file, not over a build or a patch; with --quiet nothing else.
        all: List identical and relocated functions too; of one function, all blocks.
        options: Of every verb.
    """
    from hotpatch.api import diff as diff_images
    from hotpatch.patch import check_output, writing
    from hotpatch.report import comparison, text

    out = Output(options)
    with out.progress(f"comparing {base} with {fixed}"):
        images = open_pair(base, fixed, out)
        if html is not None:
            check_output(html)
        found = diff_images(*images)
        _warn_of_strangers(out, base, fixed, known=any(row.base and row.fixed for row in found.functions))
        listing = None if function is None else comparison.listing_of(found, function)
        document = comparison.diff(found, listing)
    row = None if function is None else comparison.row_of(found, function)
    if listing is not None and function is not None and row is not None:
        from hotpatch.report.side_text import SideBySide

        shown: RenderableType = SideBySide(listing, comparison.titles_of(row, function), verdict=row.verdict, everything=all)
    else:
        shown = text.diff(document, everything=all)
    if html is None:
        out.result(document, shown)
        return Exit.DONE
    from hotpatch.report.page import diff_page

    with writing(html, diff_page(found, document, row).encode("utf-8", "backslashreplace")):
        _print(out, document, shown)
    out.tell(f"wrote {html}")
    return Exit.DONE


def build(
    base: str,
    fixed: str,
    /,
    *,
    output: Annotated[str, Parameter(name=["--output", "-o"], metavar="PATCH")],
    only: Annotated[list[str] | None, Many, Parameter(metavar="FUNCTION")] = None,
    leave_out: Annotated[list[str] | None, Many, Parameter(name="--except", metavar="FUNCTION")] = None,
    sequence: SequenceNumber = 1,
    redirect: Literal["hpat", "direct", "inline"] = "hpat",
    allow: Annotated[list[str] | None, Many, Parameter(metavar="RULE")] = None,
    state_version: StateVersion = 0,
    obligatory: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    no_roll_back: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    check: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    options: Options = DEFAULT,
) -> int:
    """Build the patch image that turns one build's behaviour into the other's, or say why that cannot be done.

    Args:
        base: The build that runs.
        fixed: The build with the fix.
        output: The patch image to write, in the place of a patch that is there (never of a build); nothing is written when it is refused.
        only: Patch only this function, a name or rva:0x… in the base, instead of all that changed (may be given several times).
        leave_out: Leave this function as it is, though it changed (may be given several times).
        sequence: The patch's sequence number, from 1; a patch that goes on top of another needs a larger one.
        redirect: How calls get to the new functions: by a slot of the hot patch address table, a jump, or a jump over the entry (inline).
        allow: Override this rule (may be given several times; docs/limits.md lists which can be); the patch records it.
        state_version: Version of the data that the patch's callbacks hand from patch to patch; an older version never goes on top.
        obligatory: No newer patch may give the original of one of its functions back.
        no_roll_back: The patch may not be reverted.
        check: Try the patch before writing it: apply and revert it in a process, and run its functions and the fixed ones on made-up state.
        options: Of every verb.
    """
    from hotpatch.api import build as build_patch
    from hotpatch.api import diff as diff_images
    from hotpatch.patch import FileKind, check_output, writing
    from hotpatch.report import building, convert

    out = Output(options)
    images = open_pair(base, fixed, out)
    check_output(output, replaces=FileKind.PATCH)
    found = checked = rehearsal = None
    try:
        with out.progress(f"building {output}"):
            found = diff_images(*images)
            _warn_of_strangers(out, base, fixed, known=any(row.base and row.fixed for row in found.functions))
            patch = build_patch(
                found,
                only=only or (),
                leave_out=leave_out or (),
                sequence=sequence,
                redirect=redirect,
                allow=allow or (),
                state_version=state_version,
                obligatory=obligatory,
                can_roll_back=not no_roll_back,
            )
            if check:
                from hotpatch.report import verify as checks
                from hotpatch.verifier import check_patch, rehearse

                out.log("rehearsing the patch in an emulated process")
                rehearsal = rehearse(images[0], patch)
                out.log("running its functions and the fixed ones on the same made-up state")
                checked = checks.checked(check_patch(*images, patch, found))
    except NothingToDo as error:
        document = convert.no_build(images[0], sequence, (), found)
        out.result(document, building.nothing(document, one_line(error)))
        return Exit.NOTHING_TO_DO
    except Refused as error:
        document = convert.no_build(images[0], sequence, error.refusals, found)
        out.result(document, building.build(document))
        return Exit.REFUSED
    document = convert.build(patch, output, found, checked, rehearsal)
    with writing(output, patch.data, replaces=FileKind.PATCH):
        _print(out, document, building.build(document, _next_command(images[0], base, output, patch)))
    for rule in sorted(set(allow or ()) - set(patch.overrides)):
        out.warn(f"--allow {rule} overrode nothing, as that rule objects to nothing here; leave it out")
    return Exit.DONE


def _warn_of_strangers(out: Output, base: str, fixed: str, *, known: bool) -> None:
    """Say that two images have nothing in common, where no function is ``known`` again: they are hardly two builds of one file."""
    if not known:
        out.warn(f"no function of {base} is found again in {fixed}; are these two builds of one file?")


def _next_command(image: Image, base: str, output: str, patch: Patch) -> str:
    """What a user may type next: the command that applies the patch as it was written to ``output``; empty where no file was."""
    if Path(output).exists() and not Path(output).is_file():
        return ""
    if image.is_dll or not image.entry_point:
        words = ["hotpatch", "call", base, patch.functions[0].label, "[ARG …]", "--patch", output]
    else:
        words = ["hotpatch", "run", base, "--patch", output]
    return " ".join(word if word == "[ARG …]" else shlex.quote(word) for word in words)


def _print(out: Output, document: Document, shown: RenderableType) -> None:
    """Print the result of a verb that writes a file: also where the reader of the output has gone away, not where that is full."""
    if out.options.json or not out.options.quiet:
        with suppress(BrokenPipeError):
            out.result(document, shown)
