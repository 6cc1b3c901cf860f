"""The two streams of the command line: results on standard output, everything else on standard error."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from hotpatch.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from hotpatch.report.documents import Document

_PIPE_WIDTH = 100_000
"""Columns when standard output is no terminal: one line stays one line, whatever reads them."""


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """Options that every verb takes.

    Attributes:
        json: Print one JSON document instead of text.
        quiet: Print only what was asked for, refusals and errors; build, demo, verify and diff --html print nothing when all is well.
        verbose: Also print what is being done, on standard error.
        verbatim: How many arguments at the end stand behind ``--``.
        color: Colour the text: when it goes to a terminal (auto), always, or never. NO_COLOR is honoured.
    """

    json: Annotated[bool, Parameter(name="--json", negative=(), show_default=False)] = False
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative=(), show_default=False)] = False
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], negative=(), show_default=False)] = False
    color: Literal["auto", "always", "never"] = "auto"
    verbatim: Annotated[int, Parameter(parse=False)] = 0


DEFAULT = Options()


def say(text: str) -> None:
    """One line on standard error; nothing where that cannot be written to: the exit code tells."""
    with suppress(OSError):
        sys.stderr.write(f"hotpatch: {printable(text)}\n")


@dataclass(frozen=True)
class _Clean:
    """A renderable whose text cannot act on the terminal."""

    text: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.text, options):
            yield segment if segment.control else segment._replace(text="\n".join(map(printable, segment.text.split("\n"))))


class Output:
    """Where a verb puts its result, its log and its progress."""

    def __init__(self, options: Options) -> None:
        """Write as ``options`` say."""
        self.options = options

    @cached_property
    def stdout(self) -> Console:
        """For results."""
        return self._console(stderr=False)

    @cached_property
    def stderr(self) -> Console:
        """For progress, logs and warnings."""
        return self._console(stderr=True)

    def _console(self, *, stderr: bool) -> Console:
        from rich.console import Console

        stream = sys.stderr if stderr else sys.stdout
        colour = self.options.color
        plain = colour == "never" or (colour == "auto" and bool(os.environ.get("NO_COLOR")))
        return Console(
            stderr=stderr,
            force_terminal=True if colour == "always" else None,
            no_color=plain or None,
            color_system=None if plain else "auto",
            width=None if stream.isatty() else _PIPE_WIDTH,
            highlight=False,
            emoji=False,
            markup=False,
        )

    def result(self, document: Document, text: RenderableType) -> None:
        """Print ``document`` where JSON was asked for, else ``text``."""
        if self.options.json:
            self.document(document)
        else:
            self.text(text)

    def document(self, document: Document) -> None:
        """Print one JSON document."""
        from hotpatch.report.documents import encode

        sys.stdout.write(encode(document) + "\n")
        sys.stdout.flush()

    def text(self, text: RenderableType) -> None:
        """Print text: folded to the terminal's width, never where there is none."""
        clean = _Clean(text)
        if sys.stdout.isatty():
            self.stdout.print(clean, crop=False)
            return
        with self.stdout.capture() as captured:
            self.stdout.print(clean, crop=False)
        lines = captured.get().split("\n")[:-1]
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines))
        sys.stdout.flush()

    def log(self, text: str) -> None:
        """Say what is being done, where verbose was asked for."""
        if self.options.verbose and not self.options.quiet:
            say(text)

    def tell(self, text: str) -> None:
        """Say what was done, unless quiet or JSON was asked for; verbose wants it all the same."""
        if not self.options.quiet and (self.options.verbose or not self.options.json):
            say(text)

    def warn(self, text: str) -> None:
        """Warn, unless quiet was asked for."""
        if not self.options.quiet:
            say(f"warning: {text}")

    @contextmanager
    def progress(self, text: str) -> Iterator[None]:
        """Show that ``text`` is going on; nothing where standard error is no terminal."""
        self.log(text)
        if self.options.quiet or self.options.verbose or not sys.stderr.isatty():
            yield
            return
        with self.stderr.status(printable(text)):
            yield
