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
    """The page's last column, row by row; where it speaks of what rooms hand out, a room may take what lies below those that are named."""
    rows = re.findall(
        r"^\| `(\w+)(?:/|\.py)` \|.*\| ([^|]+) \|$", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {room for room, _ in rows} == ROOMS
    allowed = {found[1]: set(re.split(r", | and ", found[2])) for contract in CONTRACTS if (found := NAME.fullmatch(contract["name"]))}
    order = [room for room, _ in rows]
    for room, cell in rows:
        above = {one for one in order[: order.index(room)] if one not in EVERYONE}
        if cell == "all below it":
            assert allowed[room] <= above
        elif cell.startswith("all but"):
            assert allowed[room] == above - set(re.findall(r"`(\w+)`", cell))
        elif cell != "their values":
            told = set(re.split(r", ", re.sub(r" \(.*\)", "", cell))) - {"–"}
            assert told or allowed[room] == {"nothing of ours"}
            assert told <= allowed[room], room
            more = below(told, allowed) if room in HANDED_ON else set()
            assert allowed[room] - {"nothing of ours"} <= told | more, room


HANDED_ON = {"process", "verifier", "servicing", "cases"}
"""The rows of which the page says that they may take what the rooms that they name hand out."""


def below(rooms: set[str], allowed: dict[str, set[str]]) -> set[str]:
    """What can be reached from ``rooms``, arrow by arrow."""
    found: set[str] = set()
    while rooms - found:
        found |= rooms
        rooms = set().union(*(allowed.get(room, set()) for room in found))
    return found


LIBRARIES = {
    "capstone": {"arch"},
    "keystone": {"arch"},
    "unicorn": {"emulator"},
    "lief": {"image"},
    "purepdb": {"image"},
    "jinja2": {"report"},
    "rich": {"report", "cli"},
    "cyclopts": {"cli"},
}
"""Which rooms know a library: the engine, above all, does not know the emulator's."""
IMPORT = re.compile(r"^\s*(?:from ([\w.]+) import (.+)|import ([\w.]+))|import_module\(\"(\w+)\"\)", re.MULTILINE)


def imports(room: str) -> set[tuple[str, str]]:
    """What a room's files import: module, and what is taken from it."""
    place = ROOT / "hotpatch" / room
    files = place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]
    return {(one[0] or one[2] or one[3], one[1]) for path in files for one in IMPORT.findall(path.read_text(encoding="utf-8"))}


def test_each_library_is_known_to_its_rooms_alone() -> None:
    users = {name: {room for room in ROOMS if any(module.split(".")[0] == name for module, _ in imports(room))} for name in LIBRARIES}
    assert users == LIBRARIES


def test_no_room_goes_round_by_the_package_s_own_names() -> None:
    """``hotpatch.build`` and its kin are loaded on first use, which import-linter cannot see."""
    taken = {(room, what) for room in ROOMS for module, what in imports(room) if module == "hotpatch"}
    assert {what for _, what in taken} == {"__version__"}
