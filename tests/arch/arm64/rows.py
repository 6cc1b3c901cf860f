"""Reads trampoline_rows.txt."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

SOURCE = 0x140001000
PLACES = {"close": SOURCE + 0x4000, "near": SOURCE + 0x4000000, "far": SOURCE + 0x2000000000}


@dataclass(frozen=True)
class Row:
    id: str
    trampoline_va: int
    displaced: int
    code: bytes
    source: tuple[str, ...]
    moved: tuple[str, ...]
    offsets: dict[int, int]


def _row(block: str) -> Row:
    head, *lines = block.strip().splitlines()
    name, place, displaced = head.split("; ")
    cut = lines.index("->")
    words = [line.split(" ", 1) for line in lines[:cut]]
    moved = lines[cut + 1 :]
    offsets = {int(line[1]) * 4: at * 4 for at, line in enumerate(moved) if line.startswith("[")}
    return Row(
        id=f"{name}, {place}",
        trampoline_va=PLACES[place],
        displaced=int(displaced),
        code=struct.pack(f"<{cut}I", *(int(word, 16) for word, _ in words)),
        source=tuple(text for _, text in words),
        moved=tuple(line[4:] for line in moved),
        offsets=offsets,
    )


def read_rows() -> list[Row]:
    text = Path(__file__).with_name("trampoline_rows.txt").read_text(encoding="utf-8")
    return [_row(block) for block in text.split("== ")[1:]]
