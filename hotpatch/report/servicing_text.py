"""The service's documents as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hotpatch.errors import counted
from hotpatch.report.tables import table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from hotpatch.report.servicing_documents import (
        CalendarDocument,
        CalendarMonth,
        EligibleDocument,
        EventDocument,
        OfferDocument,
        RuleDocument,
        SimulateDocument,
    )

_KIND = {"baseline": "yellow", "hotpatch": "green", "unplanned-baseline": "red"}
_BRINGS = {"hotpatch": "green", "standard": "yellow", "baseline": "yellow", "nothing": "dim"}
_OUTCOME = {"holds": "green", "fails": "bold red", "not-applicable": "dim"}
_WHAT = {
    "unplanned-baseline": "bold red",
    "release": "bold",
    "offer": "",
    "missed": "yellow",
    "uninstall": "yellow",
    "restart": "yellow",
    "foreign-hook": "yellow",
    "hotpatch": "green",
    "refused": "bold red",
    "sessions-dropped": "yellow",
    "attacked": "bold red",
    "withstood": "green",
}
"""Styles; and the order in which things happen on one day."""
_DEVICES = 14
"""Columns of the names of those to whom one thing happens; more of them take more lines."""


def calendar(document: CalendarDocument) -> RenderableType:
    """A row a month."""
    count = document.restarts
    total = f"{counted(count, 'restart')} in {document.year} instead of {len(document.months)}" if count < len(document.months) else ""
    return Group(_months(document.months), Text(total))


def _months(months: Sequence[CalendarMonth]) -> RenderableType:
    rows = table("quarter", "month", "updates come", "brings", "restart", "hotpatch since")
    for item in months:
        since = f"{item.baseline}, number {item.sequence}" if item.sequence else ""
        kind = Text(item.kind.replace("-", " "), style=_KIND[item.kind])
        rows.add_row(str(item.quarter), item.month, item.release_day, kind, "yes" if item.restart else "no", since)
    return rows


def eligible(document: EligibleDocument) -> RenderableType:
    """Every rule with its outcome, and where it is from."""
    verdict = ("eligible", "bold green") if document.eligible else ("not eligible", "bold red")
    assumed = "" if document.policy else " (a policy that allows hotpatch is assumed; give one with --policy)"
    policy = f", by the policy {document.policy!r}" if document.policy else ""
    head = Text.assemble((document.device, "bold"), ": ", verdict, f" for the hotpatch of {document.month}{policy}{assumed}")
    rows = table("rule", "outcome", "the device has", "from", right=("from",), fold=("the device has",))
    sources: dict[str, int] = {}
    for item in document.rules:
        number = sources.setdefault(f"{item.source}, {item.date}", len(sources) + 1)
        rows.add_row(item.rule, Text(item.outcome, style=_OUTCOME[item.outcome]), item.found, str(number))
    named = _hanging(*((f"from {number}:", source) for source, number in sources.items()), indent=0)
    return Group(head, rows, named, *_failures(document.rules))


def _hanging(*rows: tuple[str, str], indent: int) -> RenderableType:
    """Sentences, each behind a word that its further lines keep clear of."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for word, sentence in rows:
        grid.add_row(word, sentence)
    return Padding(grid, (0, 0, 0, indent))


def _failures(rules: Iterable[RuleDocument], indent: int = 0) -> list[RenderableType]:
    """A failed rule: what it wants, why it fails, what to do."""
    parts: list[RenderableType] = []
    for item in rules:
        if item.outcome == "fails":
            parts.append(Padding(Text.assemble((item.rule, "bold red"), f" is not met: {item.requires}"), (0, 0, 0, indent)))
            parts.append(_hanging(("why:", item.reason or ""), ("do:", item.remedy or ""), indent=indent + 4))
    return parts


def offer(document: OfferDocument) -> RenderableType:
    """A row a device; then, for each, every rule."""
    kind = document.kind.replace("-", " ")
    head = Text(f"{document.policy}: {document.month}, a {kind} month, updates come on {document.release_day}", style="bold")
    rows = table("device", "brings", "installed", "restart", "why", fold=("why",), least=20)
    parts: list[RenderableType] = [head, rows]
    for item in document.offers:
        brings = Text(item.brings, style=_BRINGS[item.brings])
        rows.add_row(item.device, brings, item.install_on or "-", item.restart_on or "-", item.reason)
    for item in document.offers:
        holds = [rule.rule for rule in item.rules if rule.outcome == "holds"]
        rest = [rule.rule for rule in item.rules if rule.outcome == "not-applicable"]
        other = f"; not applicable: {', '.join(rest)}" if rest else ""
        parts.append(Text.assemble("\n", (item.device, "bold")))
        parts.append(_hanging(("hold:", f"{', '.join(holds) or 'none'}{other}"), indent=2))
        parts += _failures(item.rules, 2)
    return Group(*parts)


def simulate(document: SimulateDocument) -> RenderableType:
    """The timeline, what it came to for each device, and whether hotpatched and updated servers answered the same."""
    span = f"{document.calendar[0].month} to {document.calendar[-1].month}"
    parts: list[RenderableType] = [
        Text(document.title, style="bold"),
        Text(f"scenario {document.scenario}, {span}, seed {document.seed}; {document.policy}"),
        Text(""),
        _timeline(document.timeline),
        Text(""),
        _devices(document),
        Text(""),
        _by_month(document),
        Text(""),
        *_equivalence(document),
    ]
    return Group(*parts)


def _timeline(events: Sequence[EventDocument]) -> RenderableType:
    """Events in order; what happens to several devices on one day in the same words is one row."""
    merged: dict[tuple[str, str, str], list[str]] = {}
    for event in events:
        merged.setdefault((event.day, event.what, event.text), []).append(event.device or "all")
    rows = table("day", "device", "what", "", fold=("device", ""), least=_DEVICES)
    rows.columns[1].max_width = _DEVICES
    order = list(_WHAT)
    last = ""
    for (day, what, text), devices in sorted(merged.items(), key=lambda item: (item[0][0], order.index(item[0][1]))):
        rows.add_row(day if day != last else "", ", ".join(devices), Text(what, style=_WHAT[what]), text)
        last = day
    return rows


def _devices(document: SimulateDocument) -> RenderableType:
    numbers = ("restarts", "sessions dropped", "days exposed")
    rows = table("device", "processor", "takes hotpatches", *numbers, right=numbers)
    for item in document.devices:
        takes = "yes" if item.hotpatched else "no"
        rows.add_row(item.device, item.processor, takes, str(item.restarts), str(item.sessions_dropped), str(item.days_exposed))
    return rows


def _by_month(document: SimulateDocument) -> RenderableType:
    numbers = ("restarts", "sessions\ndropped", "days\nexposed", "attacks", "process", "requests it\nhas served")
    rows = table("device\nand month", "brings", *numbers, right=numbers)
    for device in document.devices:
        rows.add_row(Text(device.device, style="bold"))
        for item in device.months:
            cells = (item.restarts, item.sessions_dropped, item.days_exposed, item.attacks, item.process, item.served)
            rows.add_row(f"  {item.month}", Text(item.brings, style=_BRINGS[item.brings]), *map(str, cells))
    return rows


def _equivalence(document: SimulateDocument) -> list[Text]:
    lines = [Text("hotpatched servers against updated ones, asked the same:")] if document.equivalence else []
    for item in document.equivalence:
        asked = f"{item.device}, {item.month}: {counted(item.requests, 'request')}, {item.hostile} of them hostile: "
        if item.difference is None:
            lines.append(Text.assemble(asked, ("the same replies", "green")))
        else:
            lines.append(Text.assemble(asked, ("different", "bold red"), f" at {item.difference.request!r}"))
            lines.append(Text(f"    hotpatched {item.difference.hotpatched!r}, updated {item.difference.updated!r}"))
    return lines
