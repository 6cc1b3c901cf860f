"""TOML files read strictly: a mistake is told with its file, its line, its key, and what was expected there."""

from __future__ import annotations

import re
import tomllib
import types
import typing
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import msgspec

from hotpatch.errors import InputError, InputRule
from hotpatch.image import read_file
from hotpatch.servicing.values import Build, Month

if TYPE_CHECKING:
    from pathlib import Path

Step = str | int
_Kind = TypeVar("_Kind", bound="Table")

_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.([\w-]+)|\[(\d+)\]")
_BOUND = re.compile(r"^Expected `int` (>=|<=) (-?\d+)$")
_QUOTED = re.compile(r"(?:missing required|contains unknown) field `(.+?)`")
_TOML_PLACE = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$")
_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"^\s*([A-Za-z0-9_.\"'-]+)\s*=\s*(.*)$")
_WORDS: dict[object, str] = {
    str: "text",
    int: "a whole number",
    float: "a decimal number",
    bool: "true or false",
    dict: "a table",
    list: "a list",
    date: "a date such as 2026-02-10, without quotes",
    Build: 'a build as a pair of integers, in quotes, such as "26100.2033"',
    Month: 'a month in quotes, such as "2026-02"',
}


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of a file: immutable, and a key that is not known is an error."""


@dataclass(frozen=True, slots=True)
class _Text:
    """A TOML file as text, and as what it says."""

    lines: tuple[str, ...]
    data: dict[str, Any]


def read_table(path: Path, kind: type[_Kind]) -> _Kind:
    """Read ``path`` as ``kind``.

    Raises:
        InputError: It is missing, unreadable, no TOML, or not what ``kind`` says; the message names file, line, key and what was expected.
    """
    text = _parse(path)
    try:
        return msgspec.convert(text.data, kind, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise _explained(path, text, kind, str(error)) from error


def complaint(path: Path, key: tuple[Step, ...], problem: str) -> InputError:
    """An error about what the file at ``path`` says under ``key``, for mistakes that only show together with something else."""
    return _complaint(path, _parse(path), key, problem)


def _parse(path: Path) -> _Text:
    try:
        text = read_file(path).decode()
        return _Text(tuple(text.splitlines()), tomllib.loads(text))
    except UnicodeDecodeError as error:
        raise InputError(str(path), f"is no text: byte {error.start} is not UTF-8; save it as such", InputRule.DOCUMENT) from error
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        line = int(place[1]) if place and place[1] else text.count("\n") + 1
        what = _TOML_PLACE.sub("", str(error))
        where = _KEY.match(text.splitlines()[line - 1]) if line <= len(text.splitlines()) else None
        key = f'key "{where[1]}": ' if where else ""
        raise InputError(
            f"{path}:{line}", f"{key}no TOML: {what[:1].lower()}{what[1:]}; expected key = value, text in quotes", InputRule.DOCUMENT
        ) from error


def _decode(kind: type, value: object) -> object:
    """Values that TOML has no type for. What it raises becomes msgspec's message, as it stands."""
    if kind not in (Build, Month):
        raise NotImplementedError
    if isinstance(value, float) and kind is Build:
        raise ValueError(
            f"expected {_WORDS[Build]}, found the decimal number {value}; as a decimal number 26100.2033 would be smaller than 26100.21, "
            "and a final zero would be lost"
        )
    if not isinstance(value, str):
        raise ValueError(f"expected {_WORDS[kind]}, found {_found(value)}")  # noqa: TRY004  msgspec passes on ValueError's text
    try:
        return Build.parse(value) if kind is Build else Month.parse(value)
    except InputError as error:
        raise ValueError(f"expected {_WORDS[kind]}, found {_found(value)}") from error


def _explained(path: Path, text: _Text, kind: type[Table], message: str) -> InputError:
    """The message of msgspec as one of ours: where, and what was expected instead of what."""
    found = _AT.match(message)
    what, steps = (found["what"], _steps(found["path"] or "")) if found else (message, ())
    named = _QUOTED.search(what)
    if named and "unknown" in what:
        known = _type_at(kind, steps)
        names = ", ".join(msgspec.structs.fields(known)[i].encode_name for i in range(len(msgspec.structs.fields(known)))) if known else ""
        return _complaint(path, text, (*steps, named[1]), f"is not known here; expected one of {names}")
    if named:
        key = (*steps, named[1])
        return _complaint(path, text, key, f"is missing; expected {_expected(_hint_at(kind, key))}")
    if what.startswith("expected") or not what.startswith(("Expected", "Invalid")):
        return _complaint(path, text, steps, what)
    bound = _BOUND.search(what)
    if bound:
        limit = f"a whole number of at {'most' if bound[1] == '<=' else 'least'} {bound[2]}"
        return _complaint(path, text, steps, f"expected {limit}, found {_found(_value_at(text.data, steps))}")
    return _complaint(path, text, steps, f"expected {_expected(_hint_at(kind, steps))}, found {_found(_value_at(text.data, steps))}")


def _complaint(path: Path, text: _Text, key: tuple[Step, ...], problem: str) -> InputError:
    name = "".join(f"[{step + 1}]" if isinstance(step, int) else f".{step}" for step in key).lstrip(".")
    sentence = problem if problem.startswith("is ") else f": {problem}"
    words = f'key "{name}"{sentence if sentence.startswith(":") else f" {sentence}"}' if name else problem
    return InputError(f"{path}:{line_of(text.lines, key)}", words, InputRule.DOCUMENT)


def _steps(path: str) -> tuple[Step, ...]:
    return tuple(int(index) if index else name for name, index in _STEP.findall(path))


def line_of(lines: tuple[str, ...], key: tuple[Step, ...]) -> int:
    """The line (from 1) on which ``key`` stands, or the nearest table or list around it; 1 where there is none."""
    places = _places(lines)
    for end in range(len(key), 0, -1):
        if key[:end] in places:
            return places[key[:end]]
    return 1


def _places(lines: tuple[str, ...]) -> dict[tuple[Step, ...], int]:
    """Where each key and table header of a TOML text stands. Values of several lines are passed over."""
    places: dict[tuple[Step, ...], int] = {}
    counts: dict[tuple[Step, ...], int] = {}
    table: tuple[Step, ...] = ()
    until = ""
    for number, line in enumerate(lines, 1):
        if until:
            until = "" if until in line else until
            continue
        if header := _HEADER.match(line):
            table = tuple(_bare(part) for part in header[2].split("."))
            if header[1] == "[[":
                places.setdefault(table, number)
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            places.setdefault(table, number)
        elif pair := _KEY.match(line):
            places.setdefault((*table, *(_bare(part) for part in pair[1].split("."))), number)
            until = _left_open(pair[2])
    return places


def _bare(name: str) -> str:
    return name.strip().strip("\"'")


def _left_open(value: str) -> str:
    """What ends a value that goes on after its line, or nothing."""
    for quotes in ('"""', "'''"):
        if value.startswith(quotes):
            return "" if value.count(quotes) > 1 else quotes
    return "]" if value.startswith("[") and value.count("[") > value.count("]") else ""


def _hint_at(kind: Any, steps: tuple[Step, ...]) -> Any:  # noqa: ANN401  a type hint is anything
    """The type that ``kind`` has under ``steps``."""
    hint: Any = kind
    for step in steps:
        hint = next((part for part in _parts(hint) if part is not type(None)), hint)
        if isinstance(step, int):
            hint = next(iter(get_args(hint)), None)
        elif isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            names = {field.encode_name: field.name for field in msgspec.structs.fields(hint)}
            hint = typing.get_type_hints(hint).get(names.get(step, step))
        else:
            return None
    return hint


def _type_at(kind: type[Table], steps: tuple[Step, ...]) -> type[msgspec.Struct] | None:
    hint = next((part for part in _parts(_hint_at(kind, steps)) if part is not type(None)), None)
    return hint if isinstance(hint, type) and issubclass(hint, msgspec.Struct) else None


def _parts(hint: Any) -> tuple[Any, ...]:  # noqa: ANN401  a type hint is anything
    return get_args(hint) if get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def _expected(hint: Any) -> str:  # noqa: ANN401  a type hint is anything
    """A type in words."""
    kinds = [part for part in _parts(hint) if part is not type(None)]
    if len(kinds) > 1:
        return " or ".join(_expected(kind) for kind in kinds)
    kind = kinds[0] if kinds else None
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in get_args(kind))
    if get_origin(kind) is tuple:
        return f"a list of {_expected(get_args(kind)[0])}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(f'"{member.value}"' for member in kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return "a table"
    return _WORDS.get(kind, "something else")


def _found(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case dict():
            return "a table"
        case list():
            return "a list"
        case _:
            return str(value)


def _value_at(data: Any, steps: tuple[Step, ...]) -> object:  # noqa: ANN401  what TOML gives is anything
    for step in steps:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return "nothing"
    return data
