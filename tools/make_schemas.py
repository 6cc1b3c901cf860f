"""Write ``docs/schemas/*.json`` from the types of the documents; ``--check`` only compares.

Run: python tools/make_schemas.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hotpatch.report.documents import DOCUMENTS, schema

SCHEMAS = Path(__file__).resolve().parent.parent / "docs" / "schemas"


def text(name: str) -> str:
    """The schema file's text for document ``name``."""
    return json.dumps(schema(name), indent=2) + "\n"


def stale() -> list[str]:
    """Names of files that are missing, differ, or belong to no document."""
    known = {f"{name}.json": text(name) for name in DOCUMENTS}
    found = {path.name: path.read_text(encoding="utf-8") for path in SCHEMAS.glob("*.json")}
    return sorted(name for name in known.keys() | found.keys() if known.get(name) != found.get(name))


def main() -> int:
    """Write or compare; 1 when something was stale under ``--check``."""
    differing = stale()
    if "--check" in sys.argv[1:]:
        for name in differing:
            print(f"stale: docs/schemas/{name}; run python tools/make_schemas.py")
        return int(bool(differing))
    SCHEMAS.mkdir(parents=True, exist_ok=True)
    for name in differing:
        path = SCHEMAS / name
        if path.stem in DOCUMENTS:
            path.write_text(text(path.stem), encoding="utf-8")
        else:
            path.unlink()
        print(f"wrote docs/schemas/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
