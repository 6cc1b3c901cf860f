"""The command line as a harness sees it: an exit code, two streams, a document that holds its contract."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jsonschema import Draft202012Validator

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"

_FUNCTION_ROW = {"name", "base_rva", "fixed_rva", "base_size", "fixed_size", "verdict", "matched_by", "similarity", "notes"}
_IDENTITY = {"sha256", "time_date_stamp", "checksum"}
_PATCHED = {"name", "base_rva", "patch_rva", "size", "redirect", "why"}
_CARRIED = {"name", "patch_rva", "size", "kind"}
REFUSAL = {"rule", "function", "rva", "reason", "evidence"}
_FAULT = {"kind", "address", "pc", "function", "access", "stack"}

REQUIRED: dict[str, dict[str, set[str]]] = {
    "diff": {
        "": {"schema", "machine", "base", "fixed", "functions", "summary"},
        "base": {"path", "function_count"} | _IDENTITY,
        "fixed": {"path", "function_count"} | _IDENTITY,
        "functions[]": _FUNCTION_ROW,
        "summary": {"identical", "relocated", "changed", "added", "removed"},
    },
    "build": {
        "": {"schema", "patch", "sequence", "bytes", "base", "functions", "carried", "refused"},
        "base": _IDENTITY,
        "functions[]": _PATCHED,
        "carried[]": _CARRIED,
        "refused[]": REFUSAL,
    },
    "inspect-patch": {
        "": {"base", "sequence", "functions", "carried", "hot_patch_info", "signature"},
        "base": _IDENTITY,
        "functions[]": _PATCHED,
        "carried[]": _CARRIED,
        "hot_patch_info": {"version", "sequence_number", "min_sequence_number", "bases"},
        "hot_patch_info.bases[]": {"sequence_number", "original_time_date_stamp", "original_checksum", "records"},
        "hot_patch_info.bases[].records[]": {"type", "source_rva", "target_rva", "raw"},
        "signature": {"status"},
    },
    "inspect-image": {
        "": {"functions", "hotpatch"},
        "functions[]": {"name", "rva", "size", "entry_patchable", "padding"},
        "hotpatch": {"compatible_flag", "table_rva", "hybrid"},
    },
    "call": {
        "": {"schema", "return", "return_hex", "return_float", "buffers", "instructions", "output", "applied", "refused", "fault"},
        "applied[]": {"patch", "at", "functions"},
        "refused[]": REFUSAL,
        "fault": _FAULT,
        "fault.stack[]": {"pc", "function"},
    },
    "run": {
        "": {"schema", "exit_code", "output", "instructions", "threads", "status", "events", "refused", "fault"},
        "events[]": {"at", "thread", "kind"},
        "refused[]": REFUSAL,
        "fault": _FAULT,
        "fault.stack[]": {"pc", "function"},
    },
    "cases": {"": {"schema", "cases"}},
    "demo": {"": {"schema", "case", "machines", "steps"}},
    "refused": {"": {"schema", "refused"}, "refused[]": REFUSAL},
    "faulted": {"": {"schema", "fault"}, "fault": _FAULT, "fault.stack[]": {"pc", "function"}},
}
"""What INTERFACE promises of each document, by path: written out here because the schemas come from our own types."""


@dataclass(frozen=True)
class Answer:
    """What one command said."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on standard error that a failed command writes."""
        assert self.out == ""
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("hotpatch: error: "), self.err
        assert "Traceback" not in self.err
        assert "internal" not in self.err
        return self.err.removeprefix("hotpatch: error: ").strip()

    def document(self, schema: str) -> dict:
        """The document on standard output, checked."""
        assert self.err == ""
        found = json.loads(self.out)
        check(found, schema)
        return found


Ask = Callable[..., Answer]


def check(found: dict, schema: str) -> None:
    """A document against its published schema and against the contract."""
    Draft202012Validator(json.loads((SCHEMAS / f"{schema}.json").read_text(encoding="utf-8"))).validate(found)
    for path, keys in REQUIRED[schema].items():
        for place in _at(found, path):
            assert keys <= place.keys(), (schema, path, keys - place.keys())
            if keys is REFUSAL:
                assert keys == place.keys()
    if "schema" in REQUIRED[schema][""]:
        assert found["schema"] == f"hotpatch.{schema}/1"


def _at(found: dict, path: str) -> list[dict]:
    places: list = [found]
    for step in path.split(".") if path else ():
        places = [place[step.removesuffix("[]")] for place in places if place is not None]
        if step.endswith("[]"):
            places = [item for place in places for item in place]
    return [place for place in places if place is not None]
