"""The command line: thin verbs over the rooms, exit codes, no traceback ever."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING

from hotpatch.cli.outcome import Exit, exit_of, one_line
from hotpatch.errors import EmulatedFault, HotpatchError, Refused

if TYPE_CHECKING:
    from hotpatch.cli.console import Options


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code; ``arguments`` stands in for ``sys.argv[1:]``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a code page without arrows, or a path that is no text, ends no verb
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    from cyclopts import CycloptsError

    from hotpatch.cli.app import app
    from hotpatch.cli.console import DEFAULT

    options = DEFAULT
    try:
        verb, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
        options = bound.arguments.get("options", DEFAULT)
        code = verb(*bound.args, **bound.kwargs)
        sys.stdout.flush()
    except Refused as error:
        return _refused(error, options)
    except EmulatedFault as error:
        return _faulted(error, options)
    except HotpatchError as error:
        _complain(one_line(error))
        return exit_of(error)
    except CycloptsError as error:
        from hotpatch.cli.usage import usage

        _complain(usage(error))
        return Exit.USAGE
    except BrokenPipeError:
        # The reader of our output went away: nothing to say, and the interpreter must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except SystemExit:  # rich's word for the same
        return Exit.DONE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _complain(f"{where}{error.strerror or one_line(error)}")
        return Exit.USAGE
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        _complain(f"internal: {type(error).__name__}: {one_line(error)}; please report this")
        if os.environ.get("HOTPATCH_DEBUG"):
            raise
        return Exit.USAGE
    return code if isinstance(code, int) else Exit.DONE


def _refused(error: Refused, options: Options) -> int:
    """What a verb says that could not begin."""
    from hotpatch.cli.console import Output
    from hotpatch.report import convert, text
    from hotpatch.report.documents import RefusedDocument

    document = RefusedDocument(refused=convert.refusals(error.refusals))
    Output(options).result(document, text.refusals(document.refused))
    return exit_of(error)


def _faulted(error: EmulatedFault, options: Options) -> int:
    """What a verb says whose program's start-up faulted."""
    from hotpatch.cli.console import Output
    from hotpatch.report import convert, running
    from hotpatch.report.documents import FaultedDocument

    document = FaultedDocument(fault=convert.fault_document(error.fault))
    Output(options).result(document, running.fault_text(document.fault))
    return exit_of(error)


def _complain(what: str) -> None:
    sys.stderr.write(f"hotpatch: error: {what}\n")
