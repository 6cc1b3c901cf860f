"""What the pages list is what there is: rules, verbs, exit codes, schemas, names, kinds of fixups, links, set-up."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import hotpatch
from hotpatch.arch import FixupKind
from hotpatch.builder.rules import OVERRIDABLE
from hotpatch.cases.story import StepKind
from hotpatch.cli.app import app
from hotpatch.cli.outcome import Exit
from hotpatch.errors import FaultKind, InputRule, Rule
from tests.docs.document import Kind, blocks
from tests.docs.follow import ROOT
from tests.docs.test_pages import PAGES
from tests.fixtures.test_rules import NOT_A_CASE, patchability_rules

CASES_ALONE = {"data-init", "export-abi", "run-once", "start-up-differs", "policy-differs"}
"""Their examples are cases, which tests/cases runs; the page only names them."""


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    return text(page).partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_rule_is_explained_and_no_other():
    explained = re.findall(r"^### `([a-z-]+)`$", text("docs/limits.md"), re.MULTILINE)
    assert sorted(explained) == sorted(rule.value for rule in Rule)


def test_every_rule_says_what_to_do():
    parts = re.split(r"^### `([a-z-]+)`$", text("docs/limits.md"), flags=re.MULTILINE)
    advice = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert [rule for rule, what in advice.items() if "*Do:*" not in what] == []


def test_every_rule_has_an_example():
    """Those by which two builds are not hot patchable, one that runs: what is refused by them, as it is told."""
    page = text("docs/limits.md")
    parts = re.split(r"^### `([a-z-]+)`$", page, flags=re.MULTILINE)
    told = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert [rule for rule, what in told.items() if not re.search(r"\*Examples?:\*", what)] == []
    shown = set(re.findall(r"^ *refused:? ([a-z-]+)", page, re.MULTILINE))
    assert {rule.value for rule in patchability_rules()} - shown - CASES_ALONE == {rule.value for rule in NOT_A_CASE} - {"not-changed"}


def test_overridable_rules_are_listed():
    listed = text("docs/limits.md").partition("`build --allow RULE`")[2].partition("The others")[0]
    assert sorted(re.findall(r"`([a-z-]+)`", listed)) == sorted(OVERRIDABLE)


@pytest.mark.parametrize("page", ["README.md", "docs/interface.md"])
def test_every_verb_is_listed_and_no_other(page):
    rows = re.findall(r"^\| `(?:hotpatch )?([a-z]+)", section(page, "Verbs"), re.MULTILINE)
    assert sorted(rows) == sorted(name for name in app if not name.startswith("-"))


def test_every_exit_code_is_listed():
    assert re.findall(r"^\| (\d) \|", section("docs/interface.md", "Exit codes"), re.MULTILINE) == [str(int(code)) for code in Exit]


def test_every_name_of_unusable_input_is_listed_and_no_other():
    listed = re.findall(r"^\| `([a-z-]+)`", section("docs/interface.md", "Exit codes"), re.MULTILINE)
    assert listed == [rule.value for rule in InputRule]


def test_every_schema_is_named():
    named = set(re.findall(r"\(schemas/([a-z-]+\.json)\)", text("docs/interface.md")))
    assert named == {path.name for path in (ROOT / "docs/schemas").iterdir()}


def test_every_public_name_is_listed_and_no_other():
    table = section("docs/interface.md", "Python").partition("| names | are |")[2].partition("\n\n")[0]
    first = " ".join(row.split("|")[1] for row in table.splitlines() if row.startswith("| `"))
    assert sorted(re.findall(r"`(\w+)`", first)) == sorted(hotpatch.__all__)


def test_every_kind_of_fault_is_named():
    line = next(line for line in text("docs/interface.md").splitlines() if line.startswith("- **Fault**"))
    assert set(re.findall(r"`([a-z-]+)`", line)) >= {kind.value for kind in FaultKind}


def test_every_kind_of_a_demo_s_step_is_listed():
    listed = text("docs/interface.md").partition("`steps[].kind` is ")[2].partition(".")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == {kind.value for kind in StepKind}


def test_every_kind_of_fixup_is_listed():
    table = text("docs/mechanics.md").partition("| kind | machine | is |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([a-z0-9-]+)`", table, re.MULTILINE) == [kind.value for kind in FixupKind]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", text(page))
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def setup(argument: str) -> str:
    (block,) = [block for block in blocks(ROOT / "README.md") if block.kind is Kind.SETUP and block.argument == argument]
    return block.content


@pytest.mark.parametrize("argument", ["set-up", "test-command"])
def test_set_up_is_one_command(argument):
    assert len(setup(argument).splitlines()) == 1


def test_ci_takes_the_test_command_from_the_readme():
    line = next(line for line in text(".ci/run").splitlines() if "<!-- test-command -->" in line)
    name = line.partition("=")[0]
    taken = subprocess.run(["bash", "-c", f'{line}\nprintf "%s\\n" "${name}"'], cwd=ROOT, capture_output=True, text=True, check=True)
    assert taken.stdout == setup("test-command")
    assert "pytest" in taken.stdout


def test_ci_runs_all_that_the_test_command_leaves_out():
    (line,) = (line for line in text(".ci/run").splitlines() if "exhaustive" in line)
    assert re.fullmatch(r"\S+ -m pytest -q -n 2 --dist worksteal -m exhaustive", line), "no paths, no -k"


@pytest.mark.skipif("HOTPATCH_CI" not in os.environ, reason="installs the package and its dependencies anew; CI does it")
def test_set_up_shows_the_demo(tmp_path):
    checkout = tmp_path / "checkout"
    kept = ("hotpatch", "fixtures", "docs", "tests", "tools")
    for name in kept:
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in Path(ROOT).iterdir():
        if path.is_file():
            shutil.copy(path, checkout / path.name)
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(
        ["sh", "-c", setup("set-up")], cwd=checkout, env=environment, capture_output=True, encoding="utf-8", check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "none begun after the patch" in done.stdout
