"""Malformed files: file, line, key, and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotpatch.errors import HotpatchError, InputError
from hotpatch.servicing.device import read_device, read_devices
from hotpatch.servicing.policy import read_policy
from hotpatch.servicing.releases import read_releases
from hotpatch.servicing.rules import FOLDER as RULES
from hotpatch.servicing.rules import read_rules
from hotpatch.servicing.scenario import read_scenario
from tests.servicing.conftest import FOLDER

DEVICE = (FOLDER / "devices" / "all-rules-hold-arm64.toml").read_text(encoding="utf-8")
POLICY = (FOLDER / "policies" / "rings.toml").read_text(encoding="utf-8")
RELEASES = (FOLDER / "releases.toml").read_text(encoding="utf-8")
RULE_FILE = (RULES / "windows-11-enterprise-24h2.toml").read_text(encoding="utf-8")

DEVICE_MISTAKES = [
    ('build = "26100.9001"', "build = 26100.9001", "build", "a build as a pair of integers, in quotes"),
    ('build = "26100.9001"', "build = 26100.9001", "build", "the decimal number 26100.9001"),
    ('build = "26100.9001"', 'build = "26100"', "build", "a pair of integers"),
    ('build = "26100.9001"', "build = true", "build", "a pair of integers"),
    ('product = "Windows 11"', 'product = "Windows 10"', "product", 'one of "Windows 11", "Windows Server", found "Windows 10"'),
    ('processor = "arm64"', 'processor = "x86"', "processor", 'one of "x64", "arm64", found "x86"'),
    ('edition = "Enterprise"', "edition = 7", "edition", "expected text, found 7"),
    ('edition = "Enterprise"\n', "", "edition", "is missing; expected text"),
    ('edition = "Enterprise"', 'edition = "Enterprise"\ncolour = "blue"', "colour", "is not known here; expected one of name, product"),
    ("virtualization_based_security = true", 'virtualization_based_security = "on"', "virtualization_based_security", "true or false"),
    ('groups = ["office"]', 'groups = "office"', "groups", 'a list of text, found "office"'),
    ('groups = ["office"]', 'groups = ["a", 3]', "groups[2]", "expected text, found 3"),
    ('baseline = "2026-01"', 'baseline = "January"', "baseline", "a month in quotes"),
    ('baseline = "2026-01"', "baseline = 2026-01-13", "baseline", "a month in quotes"),
    ('updated = "2026-01"', 'updated = "2025-12"', "", "updated (2025-12) is before baseline (2026-01)"),
    ("HotPatchRestrictions = 1", "HotPatchRestrictions = 2", "arm64.HotPatchRestrictions", "one of 0, 1, found 2"),
    ("HotPatchRestrictions = 1", "HotPatch = 1", "arm64.HotPatch", "one of HotPatchRestrictions, restarted, csp_policy"),
    ('processor = "arm64"', 'processor = "x64"', "", 'the table "arm64" is for Arm64 devices'),
    ('edition = "Enterprise"', "edition = Enterprise", "edition", "no TOML: invalid value"),
    ('edition = "Enterprise"', 'edition = "Enterprise', "edition", "no TOML"),
    ('edition = "Enterprise"', 'name = "Enterprise"', "name", "no TOML: cannot overwrite a value"),
]
POLICY_MISTAKES = [
    ('hotpatch = "allow"', 'hotpatch = "yes"', "hotpatch", 'one of "allow", "block", found "yes"'),
    ('hotpatch = "allow"', "hotpatch = true", "hotpatch", 'one of "allow", "block", found true'),
    ('kind = "windows-quality-update"', 'kind = "feature-update"', "kind", 'one of "windows-quality-update"'),
    ("deadline_days = 2", "deadline_days = 40", "restart.deadline_days", "a whole number of at most 30, found 40"),
    ("deadline_days = 2", "deadline_days = 1.5", "restart.deadline_days", "a whole number, found 1.5"),
    ("grace_days = 1", "grace_days = -1", "restart.grace_days", "a whole number of at least 0, found -1"),
    ("deferral_days = 7", 'deferral_days = "a week"', "ring[2].deferral_days", 'a whole number, found "a week"'),
    ('name = "the office"\n', "", "ring[2].name", "is missing; expected text"),
    ('groups = ["office"]\ndef', 'groups = ["attic"]\ndef', "ring[2].groups", 'groups that the policy is assigned to, found "attic"'),
    ("[assigned]", "[asigned]", "asigned", "is not known here"),
]
RELEASE_MISTAKES = [
    ('month = "2026-03"', 'month = "2026-02"', "release[4].month", "a month after the one before it, found 2026-02"),
    ('succeeds = "pin 4711"\n', "", "release[10]", "both attack and succeeds"),
]
RULE_MISTAKES = [
    ('check = "at-least"', 'check = "at least"', "rule[4].check", 'one of "one-of", "at-least", "current", found "at least"'),
    ('value = ["26100.2033"]', "value = [26100.2033]", "rule[4].value[1]", "expected text, found 26100.2033"),
    ('value = ["26100.2033"]', 'value = ["new"]', "rule[4].value", "a list of one build"),
    ('value = ["Windows 11"]', "value = []", "rule[1].value", "at least one value"),
    ('fact = "product"', 'fact = "colour"', "rule[1].fact", 'one of "product", "edition"'),
    ("[calendar]\ndate = 2025-04-02", '[calendar]\ndate = "spring"', "calendar.date", "a date such as"),
]
ROWS = [
    *((DEVICE, read_device, row) for row in DEVICE_MISTAKES),
    *((POLICY, read_policy, row) for row in POLICY_MISTAKES),
    *((RELEASES, read_releases, row) for row in RELEASE_MISTAKES),
    *((RULE_FILE, lambda path: read_rules(str(path)), row) for row in RULE_MISTAKES),
]


@pytest.mark.parametrize(("text", "read", "row"), ROWS, ids=[f"{row[2] or 'file'}: {row[1][:30]}" for _, _, row in ROWS])
def test_a_mistake_is_told_with_file_line_key_and_what_was_expected(text: str, read, row, tmp_path: Path) -> None:
    old, new, key, expected = row
    assert old in text
    at = text.index(old) if not key.startswith("ring[2]") else text.rindex(old)
    damaged = text[:at] + new + text[at + len(old) :]
    path = tmp_path / "file.toml"
    path.write_text(damaged, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read(path)
    where, problem = caught.value.subject, caught.value.problem
    assert where.startswith(f"{path}:")
    assert expected in problem
    line = damaged.splitlines()[int(where.rpartition(":")[2]) - 1]
    if key:
        assert problem.startswith(f'key "{key.rpartition(".")[2] if "no TOML" in problem else key}"')
        last = key.rpartition(".")[2].partition("[")[0]
        if "is missing" not in problem:
            assert last in line, (line, problem)


def test_missing_key_of_a_table_is_told_at_the_table(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY.replace('name = "the office"\n', ""), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_policy(path)
    line = int(caught.value.subject.rpartition(":")[2])
    assert path.read_text(encoding="utf-8").splitlines()[line - 1] == "[[ring]]"
    assert line > POLICY.index("laboratory first") // 80


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "No such file"), (b"\xff\xfe", "is no text"), (b"", 'key "name" is missing'), (b"[", "no TOML")]
)
def test_no_file_of_that_kind(content: bytes | None, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "device.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=problem):
        read_device(path)


def test_values_of_several_lines_do_not_shift_lines(tmp_path: Path) -> None:
    path = tmp_path / "device.toml"
    several = 'groups = [\n  "a",\n  "edition = b",\n]\nlicence = """\nedition = "x"\n"""'
    path.write_text(DEVICE.replace('groups = ["office"]', several).replace('licence = "Windows 11 Enterprise E3"\n', "").replace(
        'edition = "Enterprise"\n', "").replace("restarted = true", "restarted = 5"), encoding="utf-8")  # fmt: skip
    with pytest.raises(InputError) as caught:
        read_device(path)
    assert "edition" in caught.value.problem or "restarted" in caught.value.problem
    path.write_text(DEVICE.replace('groups = ["office"]', several.partition("\nlicence")[0]).replace("restarted = true", "restarted = 5"))
    with pytest.raises(InputError, match=r"arm64\.restarted") as caught:
        read_device(path)
    assert path.read_text().splitlines()[int(caught.value.subject.rpartition(":")[2]) - 1] == "restarted = 5"


def test_folder_without_devices_and_twins(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        read_devices(tmp_path / "none")
    with pytest.raises(InputError, match="holds no device"):
        read_devices(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text(DEVICE, encoding="utf-8")
    with pytest.raises(InputError, match="another device"):
        read_devices(tmp_path)


SCENARIO_MISTAKES = [
    ('last = "2026-03"', 'last = "2027-03"', "last", "a month of a release"),
    ('first = "2026-01"', 'first = "2025-12"', "first", "a month of a release"),
    ('last = "2026-03"', 'last = "2026-01"', None, ""),
    ('first = "2026-01"', 'first = "2026-04"', "last", "expected 2026-04 or later"),
    ('device = "arm"', 'device = "leg"', "incident[1].device", "one of ada, arm"),
    ('kind = "misses-update"', 'kind = "foreign-hook"', "incident[1]", "expected a function"),
    ('kind = "misses-update"', 'kind = "rain"', "incident[1].kind", 'one of "misses-update", "foreign-hook"'),
    ("devices/arm.toml", "devices/leg.toml", None, "leg.toml: No such file"),
    ('rules = "windows-11-enterprise-24h2"', 'rules = "windows-12"', None, "windows-12: no such rules; there are: windows-11"),
    ('"alice", "bob"', '"alice", "alice"', "clients[2]", "a name of its own"),
    ('"alice", "bob"', '"alice and bob"', "clients[1]", "1 to 15 letters and digits"),
    (
        'kind = "misses-update"',
        'kind = "misses-update"\n\n[[instead]]\nmonth = "2026-03"\nimage = "2026-03-foo"',
        "instead[1].image",
        '2026-03, 2026-03-layout, 2026-04, 2026-05, 2026-06, 2026-07, 2026-08, 2026-09, 2026-10, 2026-11, 2026-12, found "2026-03-foo"',
    ),
    ("hotpatch.toml", "hotpotch.toml", None, "hotpotch.toml: No such file"),
]


@pytest.mark.parametrize(("old", "new", "key", "expected"), SCENARIO_MISTAKES, ids=[row[1] for row in SCENARIO_MISTAKES])
def test_scenarios_mistakes(old: str, new: str, key: str | None, expected: str, tmp_path: Path) -> None:
    place = tmp_path / "servicing"
    place.mkdir()
    for name in ("releases.toml", "policies", "server", "scenarios"):
        (place / name).symlink_to(FOLDER / name)
    text = (FOLDER / "scenarios" / "missed-baseline.toml").read_text(encoding="utf-8").replace(old, new)
    text = text.replace("../policies", str(FOLDER / "policies")).replace('"devices/', f'"{FOLDER}/scenarios/devices/')
    path = tmp_path / "scenario.toml"
    path.write_text(text, encoding="utf-8")
    if not expected:
        assert len(read_scenario(str(path), place).months) == 1
        return
    with pytest.raises(InputError) as caught:
        read_scenario(str(path), place)
    assert expected in str(caught.value)
    assert key is None or caught.value.problem.startswith(f'key "{key}"')


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_end_in_an_input_error_or_are_read(data: st.DataObject, tmp_path: Path) -> None:
    text, read = data.draw(st.sampled_from([(DEVICE, read_device), (POLICY, read_policy), (RELEASES, read_releases)]))
    raw = bytearray(text.encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    match data.draw(st.sampled_from(["cut", "flip", "insert"])):
        case "cut":
            del raw[at:]
        case "flip":
            raw[at] ^= data.draw(st.integers(1, 255))
        case _:
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=8))
    path = tmp_path / "file.toml"
    path.write_bytes(raw)
    try:
        read(path)
    except HotpatchError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
