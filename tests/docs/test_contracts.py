"""Every room has a contract of what it must not import, and no contract forgets a room; import-linter then holds them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EVERYONE = {"errors", "address", "collection"}
ROOMS = {path.stem for path in (ROOT / "hotpatch").iterdir() if not path.name.startswith(("_", ".", "py."))}
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
NAME = re.compile(r"(\w+) imports only (.+)")


def test_every_room_has_one() -> None:
    assert sorted(contract["source_modules"] for contract in CONTRACTS) == sorted([f"hotpatch.{room}"] for room in ROOMS)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract["name"].split()[0])
def test_it_forbids_all_that_it_does_not_allow(contract: dict) -> None:
    found = NAME.fullmatch(contract["name"])
    assert found
    room, allowed = found[1], set(re.split(r", | and ", found[2])) - {"nothing of ours", "engine.target"}
    free = set() if room in EVERYONE else EVERYONE
    assert allowed < ROOMS
    assert {name.removeprefix("hotpatch.") for name in contract["forbidden_modules"]} == ROOMS - {room} - allowed - free
    assert contract["type"] == "forbidden"


def test_they_are_the_table_s() -> None:
    """The rows that name rooms one by one; of the others the page says that they may take what those hand out."""
    rows = re.findall(
        r"^\| `(\w+)(?:/|\.py)` \|.*\| ([^|]+) \|$", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {room for room, _ in rows} == ROOMS
    allowed = {found[1]: set(re.split(r", | and ", found[2])) for contract in CONTRACTS if (found := NAME.fullmatch(contract["name"]))}
    for room, cell in rows:
        if room in {"process", "verifier", "servicing", "cases", "report", "api", "cli"}:
            continue
        told = set(re.split(r", ", re.sub(r" \(.*\)", "", cell))) - {"–"}
        assert told or allowed[room] == {"nothing of ours"}
        assert told <= allowed[room], room
        assert allowed[room] - {"nothing of ours"} <= told, room
