"""The shipped cases: C sources, the PE files built from them, and what must happen, as values."""

from __future__ import annotations

from hotpatch.cases.locate import case_names, find_case, fixtures_folder, load_cases
from hotpatch.cases.model import HOST, LATER_PHASES, PHASES, UNTOUCHED, BuildOptions, Call, Case, Manifest, Phase, Program, Side, read_case

__all__ = [
    "HOST",
    "LATER_PHASES",
    "PHASES",
    "UNTOUCHED",
    "BuildOptions",
    "Call",
    "Case",
    "Manifest",
    "Phase",
    "Program",
    "Side",
    "case_names",
    "find_case",
    "fixtures_folder",
    "load_cases",
    "read_case",
]
