"""What is wrong with a command line, in one line that names what was typed."""

from __future__ import annotations

from difflib import get_close_matches
from itertools import pairwise
from typing import TYPE_CHECKING

from cyclopts.exceptions import CoercionError, MissingArgumentError, UnknownCommandError, UnknownOptionError, UnusedCliTokensError

from hotpatch.cli.app import SERVICING, VERBS
from hotpatch.cli.outcome import one_line

if TYPE_CHECKING:
    from cyclopts import CycloptsError

_NO_STREAM = "-: standard input and output are no file arguments; name a file"


def usage(error: CycloptsError) -> str:
    """The message for ``error``."""
    match error:
        case UnknownOptionError() if (error.token.keyword or error.token.value) == "-":
            return _NO_STREAM
        case MissingArgumentError() if _dash_follows(error):
            return _NO_STREAM
        case MissingArgumentError():
            name = error.keyword or (error.argument.name if error.argument else "an argument")
            problem = "wants a value" if error.keyword else "is missing"
            return f"{name} {problem}; see hotpatch {' '.join((*(error.command_chain or ()), '--help'))}"
        case UnusedCliTokensError() if error.unused_tokens:
            return f"{error.unused_tokens[0]}: is one argument too many; see hotpatch {' '.join((*(error.command_chain or ()), '--help'))}"
        case UnknownCommandError() if error.unused_tokens:
            return _no_verb(error.unused_tokens[0], servicing="servicing" in (error.command_chain or ()))
        case CoercionError() if error.token is not None and error.target_type is int:
            name = error.token.keyword or (error.argument.name if error.argument else "argument")
            return f"{name} {error.token.value!r}: is no integer; write 7 or 0x10"
        case _:
            return one_line(error)


def _dash_follows(error: MissingArgumentError) -> bool:
    """Whether a ``-`` stands where the missing value should."""
    typed = error.root_input_tokens or []
    if error.keyword is None:
        return "-" in typed
    return (error.keyword, "-") in pairwise(typed)


def _no_verb(typed: str, *, servicing: bool) -> str:
    verbs = list(SERVICING) if servicing else [*VERBS, "servicing"]
    near = get_close_matches(typed, verbs, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(verbs)}"
    what = "is no option here; options follow the verb" if typed.startswith("-") else "no such verb"
    return f"{typed}: {what}; {hint}"
