"""What is wrong with a command line, in one line that names what was typed."""

from __future__ import annotations

from difflib import get_close_matches
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args, get_origin

from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from hotpatch.cli.app import SERVICING, VERBS
from hotpatch.cli.outcome import one_line
from hotpatch.errors import InputRule

if TYPE_CHECKING:
    from cyclopts import CycloptsError

_NO_STREAM = "-: standard input and output are no file arguments; name a file"


def usage(error: CycloptsError) -> str:
    """The message for ``error``: what was typed, what is wrong with it, what to do."""
    see = f"see hotpatch {' '.join((*(error.command_chain or ()), '--help'))}"
    match error:
        case UnknownOptionError() if (error.token.keyword or error.token.value) == "-":
            return _NO_STREAM
        case UnknownOptionError():
            return _no_option(error, see)
        case MissingArgumentError() if _dash_follows(error):
            return _NO_STREAM
        case MissingArgumentError():
            return f"{error.keyword or _name(error)}: {'wants a value' if error.keyword else 'is missing'}; {see}"
        case RepeatArgumentError():
            return f"{error.token.keyword or _name(error)}: is given twice; {see}"
        case UnusedCliTokensError() if error.unused_tokens:
            quote = "--call" in (error.root_input_tokens or ())
            hint = 'quote each call as one word: --call "FUNCTION ARG …"' if quote else see
            return f"{error.unused_tokens[0]}: is one argument too many; {hint}"
        case UnknownCommandError() if error.unused_tokens:
            return _no_verb(error.unused_tokens[0], servicing="servicing" in (error.command_chain or ()))
        case CoercionError() if error.token is not None:
            return f"{error.token.keyword or _name(error)} {error.token.value!r}: {_no_value(error, see)}"
        case _:
            return one_line(error)


def rule_of(error: CycloptsError) -> InputRule:
    """A value that cannot be is a bad argument, whoever finds that out; words that make no command are bad usage."""
    return InputRule.ARGUMENT if isinstance(error, CoercionError) else InputRule.USAGE


def _name(error: CycloptsError) -> str:
    return error.argument.name if error.argument else "argument"


def _no_option(error: UnknownOptionError, see: str) -> str:
    typed = error.token.keyword or error.token.value
    names = [name for argument in error.argument_collection if argument.parse for name in argument.names]
    near = get_close_matches(typed.partition("=")[0], [name for name in names if name.startswith("-")], 1)
    return f"{typed}: no such option; {f'did you mean {near[0]}?' if near else see}"


def _no_value(error: CoercionError, see: str) -> str:
    """Numbers have said what is wrong themselves; else there are a few words to choose from."""
    if error.target_type is bool:
        return f"takes no value; write {error.token.keyword if error.token else ''} alone, or leave it out"
    kinds = (error.target_type, *get_args(error.target_type))  # a choice that may be left out is one of several kinds
    choices = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    return f"is none of {', '.join(choices)}; use one of these" if choices else str(error.msg or f"cannot be used; {see}")


def _dash_follows(error: MissingArgumentError) -> bool:
    """Whether a ``-`` stands where the missing value should."""
    typed = error.root_input_tokens or []
    if error.keyword is None:
        return "-" in typed
    return (error.keyword, "-") in pairwise(typed)


def _no_verb(typed: str, *, servicing: bool) -> str:
    verbs = list(SERVICING) if servicing else [*VERBS, "servicing"]
    if typed.startswith("-"):
        return f"{typed}: is no option here; write it behind the verb: hotpatch VERB … {typed}"
    near = [f"--{typed}"] if typed in ("help", "version") else get_close_matches(typed, verbs, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(verbs)}"
    return f"{typed}: no such verb; {hint}"
