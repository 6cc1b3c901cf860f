"""Every kind of file that `hotpatch servicing` reads, damaged: only our own errors come out, one line each, or it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotpatch.cli import run
from hotpatch.errors import HotpatchError
from hotpatch.servicing.device import read_device
from hotpatch.servicing.policy import read_policy
from hotpatch.servicing.releases import read_releases
from hotpatch.servicing.rules import FOLDER as RULES
from hotpatch.servicing.rules import read_rules
from hotpatch.servicing.scenario import read_scenario
from tests.damage import damages, edits, spoil
from tests.servicing.conftest import FOLDER

DEVICE = FOLDER / "devices" / "all-rules-hold-arm64.toml"
POLICY = FOLDER / "policies" / "rings.toml"
RULE_SET = RULES / "windows-11-enterprise-24h2.toml"
SCENARIO = FOLDER / "scenarios" / "unplanned-baseline.toml"

few = settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
damage = st.one_of(damages, edits)


def scenario(folder: Path) -> bytes:
    """The scenario's text, with paths that lead to the shipped files from any folder."""
    text = SCENARIO.read_text(encoding="utf-8").replace("../policies", str(FOLDER / "policies"))
    return text.replace('"devices/', f'"{FOLDER}/scenarios/devices/').encode()


KINDS: dict[str, tuple[Callable[[Path], bytes], Callable[[Path], object]]] = {
    "device": (lambda _: DEVICE.read_bytes(), read_device),
    "policy": (lambda _: POLICY.read_bytes(), read_policy),
    "rules": (lambda _: RULE_SET.read_bytes(), lambda path: read_rules(str(path))),
    "releases": (lambda _: (FOLDER / "releases.toml").read_bytes(), read_releases),
    "scenario": (scenario, lambda path: read_scenario(str(path), FOLDER)),
}


@pytest.mark.parametrize("kind", KINDS)
@few
@given(found=damage)
def test_it_is_read_or_an_error_names_it(tmp_path: Path, kind: str, found: list) -> None:
    good, read = KINDS[kind]
    path = tmp_path / "file.toml"
    path.write_bytes(spoil(good(tmp_path), found))
    try:
        read(path)
    except HotpatchError as error:
        assert str(error).startswith(str(path)) or kind == "scenario"  # that one names other files, too
        assert "\n" not in str(error)


def asked(capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
    """A command line with damaged files: an exit code, and one line where that is 2."""
    code = run(["servicing", *map(str, arguments)])
    printed = capsys.readouterr()
    assert code in (0, 2, 4, 5), printed.err
    assert "internal" not in printed.err
    assert (code == 2) == bool(printed.err)
    if printed.err:
        assert printed.out == ""
        assert printed.err.startswith("hotpatch: error: ")
        assert printed.err.count("\n") == 1


@settings(few, max_examples=60)
@given(found=damage)
def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], found: list) -> None:
    devices = tmp_path / "devices"
    devices.mkdir(exist_ok=True)
    device, policy, rules = devices / "one.toml", tmp_path / "policy.toml", tmp_path / "rules.toml"
    for path, good in ((device, DEVICE), (policy, POLICY), (rules, RULE_SET)):
        path.write_bytes(spoil(good.read_bytes(), found))
    asked(capsys, "eligible", device)
    asked(capsys, "eligible", device, "--json")
    asked(capsys, "eligible", DEVICE, "--policy", policy)
    asked(capsys, "eligible", DEVICE, "--rules", rules)
    asked(capsys, "eligible", DEVICE, "--rules", rules, "--month", "2026-03", "--json")
    asked(capsys, "offer", "--policy", policy, "--devices", FOLDER / "devices", "--month", "2026-02")
    asked(capsys, "offer", "--policy", POLICY, "--devices", devices)
    asked(capsys, "offer", "--policy", POLICY, "--devices", FOLDER / "devices", "--rules", rules, "--month", "2026-05")


@settings(few, max_examples=8)
@given(found=edits)
def test_a_damaged_scenario_is_lived_through_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], found: list) -> None:
    path = tmp_path / "scenario.toml"
    path.write_bytes(spoil(scenario(tmp_path), found))
    asked(capsys, "simulate", path)
