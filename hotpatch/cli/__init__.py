"""The command line: thin verbs over the rooms, exit codes, no traceback ever."""

from __future__ import annotations

import os
import sys

from hotpatch.cli.outcome import Exit, exit_of, one_line
from hotpatch.errors import HotpatchError


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code; ``arguments`` stands in for ``sys.argv[1:]``."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    from cyclopts import CycloptsError

    from hotpatch.cli.app import app

    try:
        code = app(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except HotpatchError as error:
        _complain(error)
        return exit_of(error)
    except CycloptsError as error:
        _complain(error)
        return Exit.USAGE
    except BrokenPipeError:
        # The reader of our output went away: nothing to say, and the interpreter must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"hotpatch: error: {where}{error.strerror or one_line(error)}\n")
        return Exit.USAGE
    except KeyboardInterrupt:
        return 130
    except SystemExit as end:
        return int(end.code or 0)
    except Exception as error:  # noqa: BLE001  no traceback reaches a user
        sys.stderr.write(f"hotpatch: error: internal: {type(error).__name__}: {one_line(error)}; please report this\n")
        if os.environ.get("HOTPATCH_DEBUG"):
            raise
        return Exit.USAGE
    return code if isinstance(code, int) else Exit.DONE


def _complain(error: Exception) -> None:
    sys.stderr.write(f"hotpatch: error: {one_line(error)}\n")
