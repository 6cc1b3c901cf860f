"""The published JSON Schemas are those of the documents' types."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from hotpatch.report.documents import DOCUMENTS

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = ROOT / "docs" / "schemas"


def test_schema_files_are_those_of_the_types() -> None:
    checked = subprocess.run([sys.executable, "-m", "tools.make_schemas", "--check"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", DOCUMENTS)
def test_schema_is_a_valid_schema_that_demands_something(name: str) -> None:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    assert not Draft202012Validator(schema).is_valid({})
