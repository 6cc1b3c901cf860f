"""The Windows functions that ordinary C programs call, by theme; a table each."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from hotpatch.emulator.win32 import (
    characters,
    crt,
    exceptions,
    handles,
    information,
    locks,
    memory,
    modules,
    shadow,
    stdio,
    streams,
    strings,
    tasks,
    versions,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.emulator.win32.call import Api

_THEMES = (
    characters,
    crt,
    exceptions,
    handles,
    information,
    locks,
    memory,
    modules,
    shadow,
    stdio,
    streams,
    strings,
    tasks,
    versions,
)


@cache
def functions() -> Mapping[str, Api]:
    """Every provided function by name."""
    return {name: api for theme in _THEMES for name, api in theme.TABLE.functions.items()}
