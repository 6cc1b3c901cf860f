"""docs/comparison.md: every statement about somebody has a source, in one form; ours lead to files that are there."""

from __future__ import annotations

import re

import pytest

from tests.docs.follow import ROOT

WHO = ["Windows", "Linux livepatch", "kpatch", "Ksplice", "libpulp", "Detours", "here"]
HOSTS = {
    "docs.kernel.org",
    "github.com",
    "learn.microsoft.com",
    "manpages.ubuntu.com",
    "unix.com",
}
PAGE = (ROOT / "docs/comparison.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def rows(section: str) -> list[list[str]]:
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("|")]
    assert lines[:2] == ["| who | what | source |", "|---|---|---|"]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_nine_questions_are_asked() -> None:
    assert len(SECTIONS) == 9


@pytest.mark.parametrize("section", SECTIONS)
def test_everybody_is_asked_in_the_same_order(section: str) -> None:
    assert [row[0] for row in rows(section)] == WHO
    assert all(len(row) == 3 and row[1] for row in rows(section))


@pytest.mark.parametrize("section", SECTIONS)
def test_statements_about_others_have_a_source_and_silence_has_one_too(section: str) -> None:
    for who, what, source in rows(section)[:-1]:
        says, nothing, silent = source.rpartition("nothing in ") if "nothing in " in source else (source, "", "")
        assert bool(nothing) == ("not documented" in what), who
        assert bool(LINK.search(says)) == (what != "not documented"), who
        assert bool(LINK.search(silent)) == bool(nothing), who
        assert re.sub(LINK, "", says + silent).strip(" ,;") == "", who
        for link in LINK.findall(source):
            assert link.startswith("https://"), link
            assert link.split("/")[2] in HOSTS, link


@pytest.mark.parametrize("section", SECTIONS)
def test_statements_about_this_project_lead_to_what_shows_them(section: str) -> None:
    source = rows(section)[-1][2]
    links = LINK.findall(source)
    assert links
    assert any(link.startswith(("../tests/", "../fixtures/")) for link in links)
    assert [link for link in links if not (ROOT / "docs" / link).is_file()] == []
