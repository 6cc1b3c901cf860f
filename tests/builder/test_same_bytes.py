"""The same bytes under the same names give the same patch: in another folder, another process, another order, with another hash seed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases import find_case

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["overflow-check", "jump-table", "static-local", "new-helper", "inlined-caller", "hooks"]

_BUILD = """
import hashlib, json, sys
import hotpatch

pairs, fixed_first = json.loads(sys.argv[1])
told = {}
for base, fixed in pairs:
    if fixed_first:
        after, before = hotpatch.open(fixed), hotpatch.open(base)
    else:
        before, after = hotpatch.open(base), hotpatch.open(fixed)
    told[base] = hashlib.sha256(hotpatch.build(hotpatch.diff(before, after), allow=["callbacks-unknown"]).data).hexdigest()
print(json.dumps([told[base] for base in sorted(told)]))
"""


def _built(folder: Path, *, seed: str, backwards: bool, fixed_first: bool) -> list[str]:
    """SHA-256 of the patches of the pairs in ``folder``, built in a process of its own with the hash seed ``seed``."""
    pairs = [(str(folder / name / "base.dll"), str(folder / name / "fixed.dll")) for name in NAMES]
    argument = json.dumps([pairs[::-1] if backwards else pairs, fixed_first])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, argument], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("stripped", [False, True], ids=["pdb", "stripped"])
@pytest.mark.parametrize("machine", Machine)
def test_folder_order_and_hash_seed_do_not_matter(tmp_path: Path, machine: Machine, stripped: bool) -> None:
    folders = tmp_path / "one", tmp_path / "another" / "and deeper"
    for folder in folders:
        for name in NAMES:
            case, target = find_case(name), folder / name
            target.mkdir(parents=True)
            for side in ("base", "fixed"):
                shutil.copy(case.image(machine, side), target / f"{side}.dll")
                if not stripped:
                    shutil.copy(case.pdb(machine, side), target / f"{side}.pdb")
    one = _built(folders[0], seed="1", backwards=False, fixed_first=False)
    assert one == _built(folders[1], seed="2", backwards=True, fixed_first=True)
    assert len(set(one)) == len(NAMES)


@pytest.mark.parametrize("machine", Machine)
def test_another_name_is_another_provenance_and_nothing_else(tmp_path: Path, machine: Machine) -> None:
    case = find_case("new-helper")
    base, fixed = (hotpatch.open(case.image(machine, side)) for side in ("base", "fixed"))
    renamed = tmp_path / "renamed.dll"
    shutil.copy(case.image(machine), renamed)
    shutil.copy(case.pdb(machine), tmp_path / "base.pdb")
    first, other = (hotpatch.build(hotpatch.diff(image, fixed)) for image in (base, hotpatch.open(renamed)))
    assert (first.provenance.base_name, other.provenance.base_name) == ("base.dll", "renamed.dll")
    assert first.data != other.data
    for part in ("machine", "base", "sequence", "functions", "carried", "fixups", "imports", "overrides", "callbacks", "terms"):
        assert getattr(first, part) == getattr(other, part)
    sections = [{one.name: patch.data[one.offset : one.offset + one.raw_size] for one in patch.image.sections} for patch in (first, other)]
    differing = {name for name, data in sections[0].items() if data != sections[1][name]}
    assert sections[0].keys() == sections[1].keys()
    assert differing == {".hpfix"}
