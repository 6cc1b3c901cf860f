"""A Markdown page as a reader follows it: files to save, commands to type with what they print, and Python to run.

What a block is, is said by the line before it (an HTML comment, which does not show on the page) or by its language:

- ``<!-- file: NAME -->``: the block is saved as NAME;
- ``console``: lines that begin with ``$`` are commands, the lines below each are what it prints, where anything is shown;
- ``<!-- exits: N -->`` before a ``console`` block: its last command ends with that exit code instead of 0;
- ``python``: runs; all blocks of a page share their names. A ``text`` block right behind it is what it prints;
- ``<!-- set-up -->`` and ``<!-- test-command -->``: typed once on a fresh machine; CI runs them.

In what is shown, ``…`` stands for anything: alone on a line for any lines, elsewhere for any characters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ANYTHING = "…"
_FENCE = "```"
_DIRECTIVE = re.compile(r"<!-- (file|exits|set-up|test-command)(?:: (.+?))? -->")


class Kind(StrEnum):
    """What a reader does with a block."""

    FILE = "file"
    COMMANDS = "console"
    PYTHON = "python"
    SETUP = "set-up"
    SHOWN = "shown"
    """Only looks at it."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command, what the page shows of its output (``None``: nothing), and its exit code."""

    text: str
    shown: str | None
    code: int
    line: int


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; ``line`` is that of its first content line, from 1."""

    kind: Kind
    language: str
    content: str
    line: int
    argument: str = ""
    commands: tuple[Command, ...] = ()
    prints: str | None = None
    prints_line: int = 0


@dataclass(slots=True)
class _Raw:
    language: str
    line: int
    directive: str = ""
    argument: str = ""
    lines: list[str] = field(default_factory=list)
    follows: bool = False


def blocks(page: Path) -> tuple[Block, ...]:
    """Every fenced block of a page, in order."""
    raw = _raw_blocks(page.read_text(encoding="utf-8").splitlines())
    found: list[Block] = []
    for index, block in enumerate(raw):
        content = "".join(f"{line}\n" for line in block.lines)
        following = raw[index + 1] if index + 1 < len(raw) else None
        if block.directive == "file":
            found.append(Block(Kind.FILE, block.language, content, block.line, block.argument))
        elif block.directive in ("set-up", "test-command"):
            found.append(Block(Kind.SETUP, block.language, content, block.line, block.directive))
        elif block.language == "console":
            found.append(Block(Kind.COMMANDS, block.language, content, block.line, commands=_commands(block)))
        elif block.language == "python":
            shown = following if following is not None and following.language == "text" and following.follows else None
            prints = None if shown is None else "".join(f"{line}\n" for line in shown.lines)
            found.append(Block(Kind.PYTHON, block.language, content, block.line, prints=prints, prints_line=shown.line if shown else 0))
        else:
            found.append(Block(Kind.SHOWN, block.language, content, block.line))
    return tuple(found)


def _raw_blocks(lines: list[str]) -> list[_Raw]:
    found: list[_Raw] = []
    inside: _Raw | None = None
    directive = argument = ""
    end = -10
    for number, line in enumerate(lines, 1):
        if inside is not None:
            if line.strip() == _FENCE:
                inside, end = None, number
            else:
                inside.lines.append(line)
        elif line.startswith(_FENCE):
            inside = _Raw(line.removeprefix(_FENCE).strip(), number + 1, directive, argument, follows=number - end <= 2)
            found.append(inside)
            directive = argument = ""
        elif matched := _DIRECTIVE.fullmatch(line.strip()):
            directive, argument = matched[1], matched[2] or ""
        elif line.strip():
            directive = argument = ""
    return found


def _commands(block: _Raw) -> tuple[Command, ...]:
    found: list[Command] = []
    shown: list[str] = []
    text, line = "", 0

    def finish(code: int) -> None:
        if text:
            found.append(Command(text, "".join(f"{part}\n" for part in shown) if shown else None, code, line))

    for number, part in enumerate(block.lines, block.line):
        if part.startswith("$ "):
            finish(0)
            text, line, shown = part.removeprefix("$ "), number, []
        else:
            shown.append(part)
    finish(int(block.argument) if block.directive == "exits" else 0)
    return tuple(found)


def agrees(shown: str, printed: str) -> bool:
    """Whether ``printed`` is what the page shows."""
    pattern = ""
    for line in shown.splitlines():
        if line.strip() == ANYTHING:
            pattern += r"(?:.*\n)*?"
        else:
            pattern += "[^\n]*".join(map(re.escape, line.rstrip().split(ANYTHING))) + r"[ ]*\n"
    text = "".join(f"{line}\n" for line in printed.splitlines())
    return re.fullmatch(pattern, text) is not None
