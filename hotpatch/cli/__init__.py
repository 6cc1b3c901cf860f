"""The command line: thin verbs over the rooms, exit codes, no traceback ever."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from io import StringIO, TextIOWrapper
from typing import TYPE_CHECKING

from hotpatch.cli.outcome import Exit, exit_of, one_line
from hotpatch.errors import EmulatedFault, HotpatchError, InputRule, Refused

if TYPE_CHECKING:
    from hotpatch.cli.console import Options


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code; ``arguments`` stands in for ``sys.argv[1:]``."""
    _fill_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a code page without arrows, or a path that is no text, ends no verb
    sys.exit(run(arguments))


def _fill_streams() -> None:
    """Put something in the place of closed streams, which Python gives as None; without standard output there is nobody to work for."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the number, which a file that we write would get otherwise
    sys.stdin, sys.stderr = sys.stdin or StringIO(), sys.stderr or StringIO()
    if not sys.stdout:
        _complain("standard output: is closed; where nobody is to read it, let it go to /dev/null", InputRule.OUTPUT)
        sys.exit(Exit.USAGE)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        code = _answer(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output went away: nothing to say, and the interpreter must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except SystemExit:  # rich's word for the same
        return Exit.DONE
    except OSError as error:  # of a file that is read or written, it is an InputError
        _complain(
            f"{error.filename or 'standard output'}: {error.strerror or one_line(error)}; let it go to where it can be written",
            InputRule.OUTPUT,
        )
        return Exit.USAGE
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        _complain(f"internal: {type(error).__name__}: {one_line(error)}; please report this")
        if os.environ.get("HOTPATCH_DEBUG"):
            raise
        return Exit.USAGE
    return code


def _answer(arguments: list[str] | None) -> int:
    """The exit code of a verb that was carried out, refused, or could not be understood."""
    from cyclopts import CycloptsError

    from hotpatch.cli.app import app
    from hotpatch.cli.console import DEFAULT

    options = DEFAULT
    try:
        verb, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
        options = replace(bound.arguments.get("options", DEFAULT), verbatim=_behind_dashes(arguments))
        if "options" in bound.signature.parameters:
            bound.arguments["options"] = options
        code = verb(*bound.args, **bound.kwargs)
    except Refused as error:
        return _refused(error, options)
    except EmulatedFault as error:
        return _faulted(error, options)
    except HotpatchError as error:
        _complain(one_line(error), getattr(error, "rule", None))
        return exit_of(error)
    except CycloptsError as error:
        from hotpatch.cli.usage import rule_of, usage

        _complain(usage(error), rule_of(error))
        return Exit.USAGE
    return code if isinstance(code, int) else Exit.DONE


def _behind_dashes(arguments: list[str] | None) -> int:
    """How many words stand behind the ``--`` that ends options."""
    words = sys.argv[1:] if arguments is None else arguments
    return len(words) - words.index("--") - 1 if "--" in words else 0


def _refused(error: Refused, options: Options) -> int:
    """What a verb says that could not begin."""
    from hotpatch.cli.console import Output
    from hotpatch.report import convert, refused
    from hotpatch.report.documents import RefusedDocument

    document = RefusedDocument(refused=convert.refusals(error.refusals))
    Output(options).result(document, refused.refusals(document.refused))
    return exit_of(error)


def _faulted(error: EmulatedFault, options: Options) -> int:
    """What a verb says whose program's start-up faulted."""
    from hotpatch.cli.console import Output
    from hotpatch.report import convert, running
    from hotpatch.report.documents import FaultedDocument

    document = FaultedDocument(fault=convert.fault_document(error.fault))
    Output(options).result(document, running.fault_text(document.fault))
    return exit_of(error)


def _complain(what: str, rule: InputRule | None = None) -> None:
    """The one line that stands for a traceback; the rule's name ends it."""
    from hotpatch.cli.console import say

    say(f"error: {what} [{rule}]" if rule else f"error: {what}")
