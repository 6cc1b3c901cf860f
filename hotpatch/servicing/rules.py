"""Rule sets: who gets hotpatches, as data with source and date. They lie in ``hotpatch/servicing/rules``."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from pathlib import Path

from hotpatch.arch import Machine
from hotpatch.errors import InputError
from hotpatch.servicing.reading import Table, complaint, read_table
from hotpatch.servicing.values import Build

FOLDER = Path(__file__).resolve().parent / "rules"
DEFAULT = "windows-11-enterprise-24h2"


class Fact(StrEnum):
    """What can be asked."""

    PRODUCT = "product"
    EDITION = "edition"
    VERSION = "version"
    BUILD = "build"
    LICENCE = "licence"
    BASELINE = "baseline"
    MANAGED_BY = "managed-by"
    POLICY = "policy"
    VBS = "virtualization-based-security"
    ARM64_OPT_IN = "arm64-opt-in"


class Check(StrEnum):
    """How the answer is judged."""

    ONE_OF = "one-of"
    AT_LEAST = "at-least"
    CURRENT = "current"


class RuleEntry(Table, frozen=True):
    """One rule, with where it is from and since when it holds."""

    id: str
    requires: str
    fact: Fact
    check: Check
    value: tuple[str, ...]
    applies_to: tuple[Machine, ...]
    reason: str
    remedy: str
    source: str
    date: date
    remedy_newer: str = ""


class Availability(Table, frozen=True):
    """Since when the service is there for a processor, and in what state."""

    processor: Machine
    state: str
    date: date
    source: str


class CalendarSource(Table, frozen=True):
    """Where the calendar is from."""

    source: str
    date: date


class RuleSet(Table, frozen=True):
    """The rules of one product; the names are those of its file."""

    name: str
    title: str
    calendar: CalendarSource
    availability: tuple[Availability, ...]
    rule: tuple[RuleEntry, ...]

    def availability_for(self, machine: Machine) -> Availability | None:
        """The entry for a processor; ``None`` where there is no hotpatching at all."""
        return next((entry for entry in self.availability if entry.processor is machine), None)


def rule_set_names() -> tuple[str, ...]:
    """The shipped ones."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def read_rules(name: str = DEFAULT) -> RuleSet:
    """A shipped rule set by name, or one from a file (a path that ends in ``.toml``).

    Raises:
        InputError: There is none of that name, or with file, line, key and what was expected.
    """
    if not name.endswith(".toml") and name not in rule_set_names():
        raise InputError(name, f"no such rules; there are: {', '.join(rule_set_names())}, or give a file that ends in .toml")
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    rules = read_table(path, RuleSet)
    for index, rule in enumerate(rules.rule):
        if rule.check is Check.AT_LEAST:
            try:
                Build.parse(rule.value[0] if len(rule.value) == 1 else ", ".join(rule.value))
            except InputError as error:
                raise complaint(path, ("rule", index, "value"), f"expected a list of one build, {error.problem}") from error
        elif rule.check is Check.ONE_OF and not rule.value:
            raise complaint(path, ("rule", index, "value"), "expected at least one value, found none")
    return rules
