"""Refusals and their evidence as text for people."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from hotpatch.errors import counted, printable
from hotpatch.report.tables import INDENT, hexadecimal, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType

    from hotpatch.report.documents import RefusalDocument

_ADDRESSES = frozenset(
    {
        "rva",
        "rvas",
        "va",
        "address",
        "target",
        "targets",
        "pc",
        "start",
        "end",
        "site",
        "sites",
        "slot",
        "pointer",
        "entry",
        "function",
        "data",
    }
)
"""Words in the name of a detail that say that its number is an address."""
HEADER_FIELDS = {"time_date_stamp": "time stamp", "checksum": "checksum", "size_of_image": "size of image"}
"""What tells one build from another, as it is called; hexadecimal wherever it is shown."""
_IN_THE_REASON = frozenset({"near"})
"""Evidence that the reason of a refusal has in full; documents have it for programs."""
_AT_PLACES = frozenset({"image", "instruction", "rva", "bytes", "kind", "base_function"})
"""Evidence about the place of a refusal, which the line for that has where one sentence is said of several."""
_FEWEST = 2
"""Functions that are counted; what is said of one alone is counted by its places."""
_SHOWN = 4
"""Rows of a fact that text shows."""


def _tally(items: Iterable[RefusalDocument]) -> str:
    """How many there are by each rule, most first, after a colon."""
    counts = sorted(Counter(item.rule for item in items).items(), key=lambda pair: (-pair[1], pair[0]))
    return f": {', '.join(f'{count} × {rule}' for rule, count in counts)}"


def refusals(
    items: Sequence[RefusalDocument], *, at: int | None = None, called: str = "refused", closing: str = "refused"
) -> RenderableType:
    """Each refusal, ``called`` so: after how many instructions, where that is to be told, rule, place, sentence, evidence.

    What is said of several places by the same rule in the same words, as of all functions that use one datum, is said once.
    Where there are several, a line that begins with ``closing`` counts them by rule.
    """
    parts: list[RenderableType] = []
    for group in _alike(items):
        rule, reason = group[0].rule, group[0].reason
        where = place_of(group[0]) if len(group) == 1 else _several(group)
        when = f"[{at}] " if at is not None else ""
        parts.append(Text.assemble(when, (f"{called} ", "red"), (rule, "bold red"), f"  {where}" if where else ""))
        parts.append(Padding(Text(printable(reason)), INDENT))
        untold = _IN_THE_REASON if len(group) == 1 else _IN_THE_REASON | _AT_PLACES
        evidence = {key: value for key, value in group[0].evidence.items() if key not in untold}
        if evidence:
            parts.append(Padding(_evidence(evidence), INDENT))
        if len(group) > 1:
            parts.append(Padding(_places(group), INDENT))
    if len(items) > 1:
        parts.append(Text(f"{closing}{_tally(items)}"))
    return Group(*parts)


def _alike(items: Iterable[RefusalDocument]) -> Iterable[list[RefusalDocument]]:
    """Those that differ in their places alone, together, by the first of them."""
    groups: dict[object, list[RefusalDocument]] = {}
    for item in items:
        facts = sorted((key, repr(value)) for key, value in item.evidence.items() if key not in _AT_PLACES)
        alone = None if place_of(item) else len(groups)
        groups.setdefault((item.rule, item.reason, tuple(facts), alone), []).append(item)
    return groups.values()


def _several(group: Sequence[RefusalDocument]) -> str:
    """How many data, functions and places there are in ``group``; of one function, or of what is none, the places alone."""
    if group[0].rule.startswith("data-"):
        return f"{len(group)} data"
    functions = {_function_of(item) for item in group} - {None}
    places = counted(len(group), "place")
    if len(functions) < _FEWEST:
        return places
    return f"{len(functions)} functions{f', {places}' * (len(functions) != len(group))}"


def _function_of(item: RefusalDocument) -> object:
    """What tells the function of a refusal from others, which have its name perhaps; nothing where it is about a place in data."""
    base = item.evidence.get("base_function")
    if item.function is None and base is None:
        return item.rva if item.evidence.get("instruction") and item.rva != item.evidence.get("rva") else None
    return item.function, base


def place_of(item: RefusalDocument) -> str:
    """Function and address; a function without a name as it is typed, which is by its address in the base."""
    of_fixed = item.evidence.get("image") == "fixed"
    in_base = item.evidence.get("base_function") if of_fixed else item.rva
    name = item.function or (f"rva:0x{in_base:x}" if isinstance(in_base, int) else "")
    address = f"{hexadecimal(item.rva)} of the fixed image" if of_fixed else hexadecimal(item.rva)
    return "  ".join(word for word in (name, address if item.rva is not None and (item.function or of_fixed) else "") if word)


def _places(group: Sequence[RefusalDocument]) -> RenderableType:
    """A line for each place of ``group``, with the instruction where there is one; those of one function under its first."""
    rows = table("place", "instruction", fold=("instruction",))
    rows.show_header = False
    by_place: dict[str, list[RefusalDocument]] = {}
    for item in group:
        by_place.setdefault(place_of(item), []).append(item)
    for place, items in by_place.items():
        for number, item in enumerate(items):
            instruction = item.evidence.get("instruction")
            site = f"{told('rva', item.evidence.get('rva'))}: {instruction}" if instruction else ""
            rows.add_row("" if number and site else place, Text(site, style="dim"))
    return rows


def _evidence(facts: Mapping[str, object]) -> RenderableType:
    rows = table("", "fact", fold=("fact",))
    rows.show_header = False
    for key, value in facts.items():
        rows.add_row(Text(key.replace("_", " "), style="dim"), Text("\n".join(_lines(key, value)), style="dim"))
    return rows


def _lines(key: str, value: object) -> list[str]:
    """A fact as lines: of what several rows tell (votes, and their sites), one for each of the first few."""
    if isinstance(value, list | tuple):
        shown, more = value[:_SHOWN], len(value) - _SHOWN
        rest = [f"and {more} more (--json has all)"] if more > 0 else []
        if all(isinstance(item, dict) for item in value) and value:
            return [line for item in shown for line in _row(item)] + rest
        return [" ".join((told(key, shown), *rest))]
    return [told(key, value)]


def _row(facts: Mapping[str, object]) -> list[str]:
    """One row of a fact: what it says itself, and under it what its own rows say."""
    nested = {key: value for key, value in facts.items() if isinstance(value, list) and value and isinstance(value[0], dict)}
    own = told("", {key: value for key, value in facts.items() if key not in nested})
    return [own, *(f"    {line}" for key, value in nested.items() for line in _lines(key, value))]


def told(key: str, value: object) -> str:
    """The value of a detail called ``key`` as people read it: addresses hexadecimal, several with commas, nothing as a dash."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int() if key in ("time_date_stamp", "checksum"):
            return f"0x{value:08x}"
        case int() if key == "base_function":
            return f"rva:0x{value:x}"  # as FUNCTION arguments are spelt
        case int() if key in HEADER_FIELDS or not _ADDRESSES.isdisjoint(key.split("_")):
            return hexadecimal(value)
        case dict():
            return ", ".join(f"{_words(str(name))} {told(str(name), item)}" for name, item in value.items())
        case list() | tuple():
            return (", " if all(not isinstance(item, dict) for item in value) else "; ").join(told(key, item) for item in value) or "none"
        case _:
            return str(value)


def _words(key: str) -> str:
    return HEADER_FIELDS.get(key) or key.replace("_", " ")
