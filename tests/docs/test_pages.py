"""Every page does what it says: each command and Python block, in order, in a fresh folder, with the output that is shown."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from tests.docs.document import Kind, agrees, blocks
from tests.docs.follow import ROOT, complaint, follow

PAGES = (
    "README.md",
    *(f"docs/{name}.md" for name in ("tutorial", "mechanics", "limits", "lecture", "interface", "servicing", "tutorial-servicing")),
)
COMPILES = "docs/tutorial.md"


def marked(name: str) -> object:
    return pytest.param(name, marks=pytest.mark.compiler) if name == COMPILES else name


@pytest.mark.parametrize("name", [marked(name) for name in PAGES])
def test_page_does_what_it_says(name, tmp_path, request):
    """In the README every command is a process from its start, as on each page the first ones are."""
    if name == COMPILES and importlib.util.find_spec("ziglang") is None:
        pytest.skip("the extra `fixtures` (ziglang) is not installed")
    if shutil.which("sh") is None:
        pytest.skip("the pages' commands are for a POSIX shell")
    page = ROOT / name
    steps = list(follow(page, tmp_path, None if name == "README.md" else request.getfixturevalue("forks")))
    wrong = [complaint(page, step) for step in steps if not step.right]
    assert not wrong, "\n\n".join(wrong)
    assert steps


@pytest.mark.parametrize("name", PAGES)
def test_page_shows_no_output_without_a_command(name):
    """What a reader may take for output is checked: a plain text block follows a Python block or is a file."""
    page = ROOT / name
    shown = [block for block in blocks(page) if block.kind is Kind.SHOWN]
    checked = {block.prints_line for block in blocks(page) if block.prints is not None}
    assert [block.line for block in shown if block.line not in checked] == []


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ("a\n", "a\n", True),
        ("a\n", "a  \n", True),
        ("a\n", "b\n", False),
        ("a\n", "a\nb\n", False),
        ("a\n…\n", "a\nb\nc\n", True),
        ("…\nc\n", "a\nb\nc\n", True),
        ("…\nb\n", "a\nb\nc\n", False),
        ("x … z\n", "x y z\n", True),
        ("x … z\n", "x y\nz\n", False),
        ("a.c\n", "abc\n", False),
        ("…\n", "", True),
    ],
)
def test_comparison_of_output(shown, printed, expected):
    assert agrees(shown, printed) is expected
