"""Windows command lines: arguments joined into one line and taken apart again (MS Learn, "Parsing C command-line arguments")."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def join_command_line(arguments: Sequence[str]) -> str:
    """One line that :func:`split_command_line` and every C run time take apart into ``arguments``."""
    return " ".join(map(_quote, arguments))


def split_command_line(line: str) -> list[str]:
    """The arguments of a line, the program's name first."""
    found: list[str] = []
    at = 0
    while at < len(line):
        if line[at] in " \t":
            at += 1
            continue
        argument, at = _next(line, at)
        found.append(argument)
    return found


def _next(line: str, at: int) -> tuple[str, int]:
    """The argument that begins at ``at``, and where it ends."""
    text, quoted = "", False
    while at < len(line) and (quoted or line[at] not in " \t"):
        slashes = 0
        while at < len(line) and line[at] == "\\":
            slashes += 1
            at += 1
        if at < len(line) and line[at] == '"':
            text += "\\" * (slashes // 2)
            if slashes % 2:
                text += '"'
            elif quoted and line[at + 1 : at + 2] == '"':
                text += '"'
                at += 1
            else:
                quoted = not quoted
            at += 1
        elif slashes:
            text += "\\" * slashes
        else:
            text += line[at]
            at += 1
    return text, at


def _quote(part: str) -> str:
    if part and not any(character in part for character in ' \t"'):
        return part
    quoted, backslashes = '"', 0
    for character in part:
        if character == "\\":
            backslashes += 1
            continue
        quoted += "\\" * (2 * backslashes + 1 if character == '"' else backslashes) + character
        backslashes = 0
    return quoted + "\\" * (2 * backslashes) + '"'
