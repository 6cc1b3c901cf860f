"""Try seeds at length: ``python -m tests.fuzz FIRST LAST [--machine x64|arm64] [--only pdb|stripped]``; exits 1 where a patch is wrong.

Wrong is a patch with which a call does something else than in the fixed image, and one of which a reference is bound to another place than
the compiler's own relocations name, whether a call shows it or not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from hotpatch.arch import Machine
from tests.fuzz.draw import draw
from tests.fuzz.oracle import compile_program, examine


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("--machine", choices=[*Machine])
    parser.add_argument("--only", choices=["pdb", "stripped"], help="with PDBs, or without, alone")
    parser.add_argument("--verbose", action="store_true", help="every refusal")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    pdbs = (True, False) if options.only is None else (options.only == "pdb",)
    for seed in range(options.first, options.last):
        for machine in [Machine(options.machine)] if options.machine else Machine:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    outcome = examine(compile_program(draw(seed), machine, Path(folder)), pdbs)
                except (Exception, SystemExit):
                    print(f"{seed} {machine} FAILED\n{traceback.format_exc()[-3000:]}", flush=True)
                    counts["failed"] += 1
                    continue
            counts["patched"] += outcome.patched
            counts["problems"] += len(outcome.problems)
            for problem in outcome.problems:
                print(f"{seed} {machine} WRONG {problem}", flush=True)
            for label, refusals in outcome.refused:
                counts[f"refused {label.split()[0]} {'one' if ' rva' in label else 'whole'}"] += 1
                counts[f"rule {label.split()[0]} {' '.join(sorted({text.split(':')[0].split()[0] for text in refusals}))}"] += 1
                if options.verbose:
                    print(f"{seed} {machine} refused {label}", *refusals, sep="\n    ", flush=True)
    for key, count in sorted(counts.items()):
        print(f"{count:6} {key}")
    return 1 if counts["problems"] or counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
