"""Check that a built wheel carries every fixture and every JSON Schema, byte for byte: ``python tools/check_wheel.py WHEEL``."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CARRIED = {"hotpatch/_fixtures": ROOT / "fixtures", "hotpatch/_schemas": ROOT / "docs" / "schemas"}
"""Folder in the wheel → where its files come from."""


def problems(wheel: Path) -> list[str]:
    """What is missing from the wheel, or differs, or is there and should not be."""
    found: list[str] = []
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for folder, source in CARRIED.items():
            wanted = {f"{folder}/{path.relative_to(source).as_posix()}": path for path in source.rglob("*") if path.is_file()}
            there = {name for name in names if name.startswith(f"{folder}/")}
            found += [f"{name}: is missing" for name in sorted(wanted.keys() - there)]
            found += [f"{name}: comes from nowhere" for name in sorted(there - wanted.keys())]
            found += [f"{name}: differs" for name in sorted(there & wanted.keys()) if archive.read(name) != wanted[name].read_bytes()]
        if "hotpatch/py.typed" not in names:
            found.append("hotpatch/py.typed: is missing")
    return found


def main() -> int:
    """Exit 1 where anything is wrong."""
    (wheel,) = map(Path, sys.argv[1:])
    found = problems(wheel)
    for problem in found:
        print(f"{wheel.name}: {problem}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
