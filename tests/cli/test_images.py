"""inspect, diff and build: text, documents, exit codes."""

from __future__ import annotations

import os
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

import hotpatch
from tests.cli.front import Ask


def test_inspect_image(ask: Ask, image, machine) -> None:
    path = image("parameters", machine)
    found = ask("inspect", path, "--json").document("inspect-image")
    assert found["machine"] == machine
    assert found["hotpatch"] == {"compatible_flag": False, "table_rva": None, "hybrid": "none"}
    rows = {row["name"]: row for row in found["functions"]}
    assert rows["nine"]["entry_patchable"] is True
    text = ask("inspect", path)
    assert (text.code, text.err) == (0, "")
    for name, row in rows.items():
        line = next(line for line in text.out.splitlines() if line.split()[:1] == [name])
        assert line.split()[1:4] == [f"0x{row['rva']:x}", str(row["size"]), str(row["padding"])]


def test_inspect_shows_the_function_table_when_asked(ask: Ask, image, patch, machine) -> None:
    """Of an image and of a patch: each entry, and how a frame of its code is undone."""
    path = image("recursion", machine)
    assert ask("inspect", path, "--json").document("inspect-image")["unwind"] is None
    (entry,) = ask("inspect", path, "--json", "--unwind").document("inspect-image")["unwind"]
    assert (entry["function"], entry["problem"]) == ("cost", None)
    assert (
        entry["steps"]
        == {
            "x64": ["alloc_small 40", "push_nonvol rdi", "push_nonvol rsi"],
            "arm64": ["save x30 sp+16", "save_x x19,x20 sp-32!", "end", "epilogue +104: save x30 sp+16, save_x x19,x20 sp-32!, end"],
        }[machine]
    )
    text = " ".join(ask("inspect", path, "--unwind").out.split())
    assert f"cost 0x{entry['rva']:x} {entry['size']} {'; '.join(entry['steps'])}" in text
    assert "function table" not in ask("inspect", path).out
    fix = patch("recursion", machine)
    (carried,) = ask("inspect", fix, "--json", "--unwind").document("inspect-patch")["unwind"]
    assert carried["steps"]
    assert carried["steps"][0] in ask("inspect", fix, "--unwind").out


def test_inspect_says_which_unwind_data_it_cannot_read(ask: Ask, image, machine, tmp_path: Path) -> None:
    """Damaged: a version that does not exist."""
    whole = hotpatch.open(image("unwind", machine))
    entry = next(entry for entry in whole.unwind_entries if entry.info is not None)
    at = whole.data.index(whole.read(entry.info, 16))
    damaged = bytearray(whole.data)
    damaged[at : at + 4] = (int.from_bytes(damaged[at : at + 4], "little") | {"x64": 7, "arm64": 3 << 18}[machine]).to_bytes(4, "little")
    path = tmp_path / "damaged.exe"
    path.write_bytes(damaged)
    rows = {row["rva"]: row for row in ask("inspect", path, "--json", "--unwind").document("inspect-image")["unwind"]}
    assert f"has version {7 if machine == 'x64' else 3}" in rows[entry.range.start]["problem"]
    assert rows[entry.range.start]["steps"] == []
    assert "not known: unwind information at rva" in ask("inspect", path, "--unwind").out


def test_inspect_patch(ask: Ask, image, patch, machine) -> None:
    path, base = patch("new-constant", machine), hotpatch.open(image("new-constant", machine))
    found = ask("inspect", path, "--json").document("inspect-patch")
    assert found["base"]["sha256"] == base.sha256
    assert found["sequence"] == found["hot_patch_info"]["sequence_number"] == 1
    assert found["signature"]["status"] == "none"
    (identity,) = found["hot_patch_info"]["bases"]
    assert identity["original_time_date_stamp"] == base.time_date_stamp
    assert identity["original_checksum"] == base.checksum
    redirected = {(item["base_rva"], item["patch_rva"]) for item in found["functions"]}
    assert redirected <= {(record["source_rva"], record["target_rva"]) for record in identity["records"]}
    text = ask("inspect", path).out
    assert base.sha256 in text
    assert all(item["name"] in text for item in found["functions"])


def test_inspect_shows_callbacks_and_terms(ask: Ask, image, machine, tmp_path: Path) -> None:
    path = tmp_path / "fix.dll"
    terms = "--state-version", "3", "--obligatory", "--no-roll-back"
    assert ask("build", image("hooks", machine), image("hooks", machine, "fixed"), "-o", path, *terms, "-q").code == 0
    found = ask("inspect", path, "--json").document("inspect-patch")
    assert (found["state_version"], found["obligatory"], found["can_roll_back"]) == (3, True, False)
    places = {item["patch_rva"]: item["name"] for item in found["carried"]}
    names = {item["moment"]: places[item["patch_rva"]] for item in found["callbacks"]}
    assert names == {
        moment: f"__hotpatch_{moment.replace('-', '_')}" for moment in ("before-apply", "after-apply", "before-revert", "after-revert")
    }
    text = ask("inspect", path).out
    assert all(f"{item['moment']} at 0x{item['patch_rva']:x}" in text for item in found["callbacks"])
    assert "\nterms: state version 3, obligatory, may not be reverted\n" in text


@pytest.mark.parametrize(
    ("rule", "case", "only"),
    [("start-up-differs", "start-up-differs-refused", "heaviest"), ("contradicting-votes", "split-datum-refused", "accepted")],
    ids=["start-up-differs", "contradicting-votes"],
)
def test_inspect_shows_what_was_overridden(ask: Ask, image, machine, tmp_path: Path, rule: str, case: str, only: str) -> None:
    path = tmp_path / "fix.dll"
    command = "build", image(case, machine), image(case, machine, "fixed"), "-o", path, "--only", only
    answer = ask(*command)
    assert (answer.code, path.exists()) == (4, False)
    assert f"refused {rule}" in answer.out
    assert ask(*command, "--allow", rule).code == 0
    assert ask("inspect", path, "--json").document("inspect-patch")["overrides"] == [rule]
    assert f"\noverridden: {rule}\n" in ask("inspect", path).out


def test_inspect_of_a_patch_without_them(ask: Ask, patch, machine) -> None:
    path = patch("new-constant", machine)
    found = ask("inspect", path, "--json").document("inspect-patch")
    assert (found["callbacks"], found["state_version"], found["obligatory"], found["can_roll_back"]) == ([], 0, False, True)
    text = ask("inspect", path).out
    assert "\ncallbacks: none\nterms: no state version, not obligatory, may be reverted\n" in text


def test_diff(ask: Ask, image, machine) -> None:
    pair = image("basic", machine), image("basic", machine, "fixed")
    found = ask("diff", *pair, "--json").document("diff")
    assert (found["base"]["path"], found["fixed"]["path"]) == pair
    assert {row["name"]: row["verdict"] for row in found["functions"]}["clamp"] == "changed"
    assert sum(found["summary"].values()) == len(found["functions"])
    text = ask("diff", *pair).out
    assert "clamp" in text
    assert "total" not in text
    assert "total" in ask("diff", *pair, "--all").out


def test_diff_of_one_function_is_side_by_side(ask: Ask, image, machine) -> None:
    pair = image("basic", machine), image("basic", machine, "fixed")
    found = ask("diff", *pair, "--function", "clamp", "--json").document("diff")
    kinds = {line["kind"] for line in found["listing"]}
    assert "changed" in kinds or {"added", "removed"} & kinds
    assert {line["block"] for line in found["listing"]} == {block["label"] for block in found["blocks"]}
    by_rva = f"rva:0x{next(row['base_rva'] for row in found['functions'] if row['name'] == 'clamp'):x}"
    assert ask("diff", *pair, "--function", by_rva, "--json").document("diff")["listing"] == found["listing"]
    text = ask("diff", *pair, "--function", "clamp").out.splitlines()
    assert len(text) == 1 + len(found["blocks"]) + len(found["listing"])


def test_diff_of_one_function_says_that_it_did_not_change(ask: Ask, image, machine) -> None:
    pair = image("basic", machine), image("basic", machine, "fixed")
    rows = {row["name"]: row["verdict"] for row in ask("diff", *pair, "--json").document("diff")["functions"]}
    assert rows["total"] in ("identical", "relocated")
    for name, said in (("total", f" ({rows['total']})"), ("clamp", "")):
        assert ask("diff", *pair, "--function", name).out.splitlines()[0].endswith(f"{name} in the fixed image{said}")


def test_diff_of_one_function_leaves_out_blocks_that_are_unchanged(ask: Ask, image, machine) -> None:
    pair = image("jump-table", machine), image("jump-table", machine, "fixed")
    found = ask("diff", *pair, "--function", "execute", "--json").document("diff")
    assert {block["kind"] for block in found["blocks"]} == {"same", "changed"}
    short, long = (ask("diff", *pair, "--function", "execute", *more).out.splitlines() for more in ((), ("--all",)))
    assert len(long) == 1 + len(found["blocks"]) + len(found["listing"])
    assert [line.split(",")[0].split(" ", 2)[2] for line in short if line.startswith("…")] == ["unchanged blocks"] * 2
    assert len(short) < len(long) / 2


def test_diff_of_a_function_that_is_not_there(ask: Ask, image, machine) -> None:
    pair = image("basic", machine), image("basic", machine, "fixed")
    answer = ask("diff", *pair, "--function", "nosuch", "--json")
    assert answer.code == 4
    (refusal,) = answer.document("refused")["refused"]
    assert (refusal["rule"], refusal["function"]) == ("no-such-function", "nosuch")
    assert "no-such-function" in ask("diff", *pair, "--function", "nosuch").out


class _Page(HTMLParser):
    """Checks that tags are closed in order, and notes what would be fetched."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input", "col"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.outside: list[str] = []
        self.leads: list[str] = []
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.add(tag)
        self.outside += [value for name, value in attrs if name in ("src", "href") and not (value or "").startswith("#")]
        self.leads += [value for name, value in attrs if name == "href"]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text += data


def _page(path: Path) -> _Page:
    source = path.read_text(encoding="utf-8")
    assert source.lower().startswith("<!doctype html>")
    page = _Page()
    page.feed(source)
    page.close()
    assert page.open == []
    assert page.outside == []
    assert len(set(page.ids)) == len(page.ids)
    assert {lead.removeprefix("#") for lead in page.leads} <= set(page.ids)
    assert "@import" not in source
    assert "url(" not in source
    assert not page.seen & {"script", "link", "iframe", "img"}
    return page


def test_html_page_is_whole_and_self_contained(ask: Ask, image, machine, tmp_path: Path) -> None:
    target = tmp_path / "diff.html"
    pair = image("basic", machine), image("basic", machine, "fixed")
    answer = ask("diff", *pair, "--html", target)
    assert (answer.code, answer.err) == (0, f"hotpatch: wrote {target}\n")
    assert "clamp" in _page(target).text
    for quiet in ("--json", "-q"):
        assert ask("diff", *pair, "--html", target, quiet).err == ""
    first = target.read_bytes()
    ask("diff", *pair, "--html", target)
    assert target.read_bytes() == first


def test_html_page_shows_blocks_and_their_flow(ask: Ask, image, machine, tmp_path: Path) -> None:
    target = tmp_path / "diff.html"
    pair = image("image-parser", machine), image("image-parser", machine, "fixed")
    ask("diff", *pair, "--html", target)
    page = _page(target)
    found = ask("diff", *pair, "--function", "read_header", "--json").document("diff")
    row = [row["name"] for row in found["functions"]].index("read_header")
    assert {f"f{row}-{block['label']}" for block in found["blocks"] if block["kind"] != "same"} <= set(page.ids)
    assert {"added", "changed"} <= {block["kind"] for block in found["blocks"]}
    assert {"svg", "rect", "path"} <= page.seen
    assert "added" in page.text


def test_html_page_of_one_function(ask: Ask, image, machine, tmp_path: Path) -> None:
    """With ``--function`` the page has that function alone, whatever became of it."""
    pair = image("callback-outlives", machine), image("callback-outlives", machine, "fixed")
    rows = {row["verdict"]: row["name"] for row in ask("diff", *pair, "--json").document("diff")["functions"] if row["name"]}
    assert {"changed", "added"} <= rows.keys()
    for verdict, name in rows.items():
        target = tmp_path / f"{verdict}.html"
        assert ask("diff", *pair, "--function", name, "--html", target, "-q").code == 0
        page = _page(target)
        assert [part for part in page.ids if part.endswith("-name")] == [f"{page.ids[0]}-name"]
        assert verdict in page.text
        assert name in page.text


def test_what_only_one_build_has_is_not_alike_to_anything(ask: Ask, image, machine) -> None:
    pair = image("callback-outlives", machine), image("callback-outlives", machine, "fixed")
    lines = [line for line in ask("diff", *pair, "--all").out.splitlines() if line.startswith(("added", "removed"))]
    assert lines
    assert not [line for line in lines if " 0.00" in line]


def test_a_function_without_a_name_that_only_the_fixed_build_has_is_named_as_it_is_typed(ask: Ask, image, machine, tmp_path: Path) -> None:
    pair = [shutil.copy(image("callback-outlives", machine, side), tmp_path / f"{side}.dll") for side in ("base", "fixed")]
    added = [line.split()[1] for line in ask("diff", *pair).out.splitlines() if line.startswith("added")]
    nameless = [name for name in added if name.startswith("fixed:0x")]
    assert nameless
    answer = ask("diff", *pair, "--function", nameless[0])
    assert answer.code == 0
    assert f"{nameless[0]} in the fixed image (added)" in answer.out
    for spelt in (nameless[0], f"fixed:{int(nameless[0].removeprefix('fixed:'), 0)}"):
        refused = ask("build", *pair, "-o", tmp_path / "fix.dll", "--only", spelt, "--json").document("build")["refused"]
        assert [item["rule"] for item in refused] == ["not-changed"]
    assert ask("diff", *pair, "--function", "fixed:0x1").code == 4


def test_an_address_of_the_fixed_build_is_spelt_so_wherever_it_is_told(ask: Ask, image, machine, tmp_path: Path) -> None:
    pair = image("basic", machine), image("basic", machine, "fixed")
    rows = {row["name"]: row for row in ask("diff", *pair, "--json").document("diff")["functions"]}
    base, fixed = (f"{word}:0x{rows['clamp'][f'{side}_rva']:x}" for word, side in (("rva", "base"), ("fixed", "fixed")))
    title = ask("diff", *pair, "--function", fixed).out.splitlines()[0]
    assert " ".join(title.split()) == "clamp in the base clamp in the fixed image"
    (refusal,) = ask("diff", *pair, "--function", "fixed:0x9999", "--json").document("refused")["refused"]
    assert (refusal["function"], refusal["evidence"]) == ("fixed:0x9999", {"image": "fixed", "rva": 0x9999})
    inside = f"fixed:{rows['clamp']['fixed_rva'] + 4}"
    assert f"that is inside of clamp, which begins at {fixed}" in ask("diff", *pair, "--function", inside).out
    for spelt in (fixed, f"fixed:{rows['clamp']['fixed_rva']}"):
        command = "build", *pair, "-o", tmp_path / "fix.dll", "--only", spelt, "--json"
        (refusal,) = ask(*command).document("build")["refused"]
        assert (refusal["rule"], refusal["function"]) == ("no-such-function", spelt)
        assert refusal["reason"] == f"{spelt} is an address of the fixed image; write {base}, which is that function in the base"


def test_a_namespace_may_be_called_as_what_is_before_an_address(ask: Ask, image, machine, tmp_path: Path) -> None:
    pair = []
    for side in ("base", "fixed"):
        data = Path(image("new-constant", machine, side)).read_bytes()
        assert (data.count(b"describe\0"), data.count(b"category\0")) == (1, 1)
        pair.append(tmp_path / f"{side}.dll")
        pair[-1].write_bytes(data.replace(b"describe\0", b"fixed::d\0").replace(b"category\0", b"rva::cat\0"))
    for name in ("fixed::d", "rva::cat"):
        answer = ask("diff", *pair, "--function", name)
        assert (answer.code, answer.out.splitlines()[0].split()[0]) == (0, name)
    (refusal,) = ask("build", *pair, "-o", tmp_path / "fix.dll", "--only", "fixed::none", "--json").document("build")["refused"]
    assert refusal["reason"].startswith("base.dll has no function called fixed::none")


def test_html_page_escapes_names(ask: Ask, image, machine, tmp_path: Path) -> None:
    hostile = b"<u>&"
    paths = []
    for side in ("base", "fixed"):
        data = Path(image("basic", machine, side)).read_bytes()
        assert data.count(b"clamp\0") == 1
        path = tmp_path / f"{side}.dll"
        path.write_bytes(data.replace(b"clamp\0", hostile + b"x\0"))
        paths.append(path)
    target = tmp_path / "<i>.html"
    assert ask("diff", *paths, "--html", target).code == 0
    page = _page(target)
    assert "<u>&x" in page.text
    assert "u" not in page.seen


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("basic", "to apply it: hotpatch call {base} clamp '[ARG …]' --patch '{out}'"),
        ("many-threads", "to apply it: hotpatch run {base} --patch '{out}'"),
    ],
)
def test_build_ends_with_the_command_to_apply_the_patch(ask: Ask, image, machine, tmp_path: Path, case: str, expected: str) -> None:
    base, out = image(case, machine), tmp_path / "a fix.dll"
    command = "build", base, image(case, machine, "fixed"), "-o", out
    last = ask(*command).out.splitlines()[-1]
    assert last == expected.format(base=base, out=out).replace("'[ARG …]'", "[ARG …]")
    assert ask(*command, "-q").out == ""
    assert "to apply it" not in ask(*command, "--json").out
    assert "to apply it" not in ask(*command[:4], "/dev/null").out


def test_one_datum_for_which_several_functions_are_refused_is_told_once(ask: Ask, image, machine, tmp_path: Path) -> None:
    """Without PDBs: in the text one refusal with the functions below, in the document each of its own."""
    pair = [shutil.copy(image("data-layout-refused", machine, side), tmp_path / f"{side}.dll") for side in ("base", "fixed")]
    command = "build", *pair, "-o", tmp_path / "fix.dll"
    found = [item for item in ask(*command, "--json").document("build")["refused"] if item["evidence"].get("target") == 0x3090]
    assert [item["function"] for item in found] == ["insert", "lookup", "last_written"]
    lines = ask(*command).out.splitlines()
    at = lines.index("refused unresolved-reference  3 functions")
    assert lines[at + 1 : at + 3] == [f"    {found[0]['reason']}", "    target  0x3090"]
    assert [line.split()[0] for line in lines[at + 3 : at + 6]] == [item["function"] for item in found]


def test_images_that_have_nothing_in_common_are_warned_of(ask: Ask, image, machine, tmp_path: Path) -> None:
    pair = image("basic", machine), image("many-threads", machine)
    told = f"hotpatch: warning: no function of {pair[0]} is found again in {pair[1]}; are these two builds of one file?\n"
    for command in (("diff", *pair), ("build", *pair, "-o", tmp_path / "fix.dll")):
        assert ask(*command).err == told
        assert ask(*command, "-q").err == ""


def test_an_allowed_rule_that_objects_to_nothing_overrides_nothing(ask: Ask, image, machine, tmp_path: Path) -> None:
    """And the patch is the one without it, byte for byte."""
    plain, allowed = tmp_path / "plain.dll", tmp_path / "allowed.dll"
    command = "build", image("basic", machine), image("basic", machine, "fixed"), "-o"
    assert ask(*command, plain).err == ""
    answer = ask(*command, allowed, "--allow", "data-init", "--allow", "data-layout")
    assert (answer.code, "overridden" in answer.out) == (0, False)
    assert answer.err.splitlines() == [
        f"hotpatch: warning: --allow {rule} overrode nothing, as that rule objects to nothing here; leave it out"
        for rule in ("data-init", "data-layout")
    ]
    assert allowed.read_bytes() == plain.read_bytes()


def test_build_writes_the_patch(ask: Ask, image, machine, tmp_path: Path) -> None:
    target = tmp_path / "fix.dll"
    pair = image("new-constant", machine), image("new-constant", machine, "fixed")
    found = ask("build", *pair, "-o", target, "--sequence", "7", "--json").document("build")
    assert (found["patch"], found["sequence"], found["bytes"]) == (str(target), 7, target.stat().st_size)
    assert {item["kind"] for item in found["carried"]} <= {"function", "constant", "data", "import"}
    assert hotpatch.load(target).sequence == 7
    assert list(tmp_path.iterdir()) == [target]
    again = tmp_path / "again.dll"
    text = ask("build", *pair, "-o", again, "--sequence", "7")
    assert (text.code, text.err) == (0, "")
    assert again.read_bytes() == target.read_bytes()
    assert f"{again}: sequence 7" in text.out


def test_build_only_one_function(ask: Ask, image, machine, tmp_path: Path) -> None:
    pair = image("parameters", machine), image("parameters", machine, "fixed")
    found = ask("build", *pair, "-o", tmp_path / "fix.dll", "--only", "nine", "--only", "doubles", "--json").document("build")
    assert sorted(item["name"] for item in found["functions"]) == ["doubles", "nine"]


@pytest.mark.parametrize("redirect", ["hpat", "direct"])
def test_build_with_a_redirect(ask: Ask, image, machine, tmp_path: Path, redirect: str) -> None:
    pair = image("basic", machine), image("basic", machine, "fixed")
    found = ask("build", *pair, "-o", tmp_path / "fix.dll", "--redirect", redirect, "--json").document("build")
    assert {item["redirect"] for item in found["functions"]} == {redirect}


def test_build_tells_what_stays_as_it_is(ask: Ask, image, machine, tmp_path: Path) -> None:
    """What is gone from the fixed build, and what ``--only`` leaves out."""
    pair = image("vtable", machine), image("vtable", machine, "fixed")
    build = "build", *pair, "-o", tmp_path / "fix.dll"
    (gone,) = ask(*build, "--json").document("build")["staying"]
    assert (gone["name"], gone["why"]) == ("as_it_is", "removed")
    assert "\n1 function is not in the fixed build and stays in the process; " in ask(*build).out
    rows = ask(*build, "--only", "triangle_area", "--json").document("build")["staying"]
    assert {row["name"]: row["why"] for row in rows} == {"as_it_is": "removed", "make_triangle": "left-out"}
    assert ask(*build, "--except", "make_triangle", "--json").document("build")["staying"] == rows


def test_nothing_to_do(ask: Ask, image, machine, tmp_path: Path) -> None:
    pair = image("cosmetic", machine), image("cosmetic", machine, "fixed")
    answer = ask("build", *pair, "-o", tmp_path / "fix.dll", "--json")
    assert answer.code == 3
    found = answer.document("build")
    assert (found["patch"], found["functions"], found["refused"]) == (None, [], [])
    text = ask("build", *pair, "-o", tmp_path / "fix.dll")
    assert (text.code, text.err) == (3, "")
    assert text.out.startswith("nothing to do")
    assert list(tmp_path.iterdir()) == []


def test_refused_build(ask: Ask, image, machine, tmp_path: Path) -> None:
    pair = image("data-layout-refused", machine), image("data-layout-refused", machine, "fixed")
    answer = ask("build", *pair, "-o", tmp_path / "fix.dll", "--json")
    assert answer.code == 4
    found = answer.document("build")
    assert found["patch"] is None
    assert {refusal["rule"] for refusal in found["refused"]} == {"data-layout"}
    text = ask("build", *pair, "-o", tmp_path / "fix.dll")
    assert text.code == 4
    for refusal in found["refused"]:
        assert refusal["reason"] in text.out
        assert f"0x{refusal['evidence']['base_rva']:x}" in text.out
        assert f"  {refusal['evidence']['fixed_size']}\n" in text.out
    assert list(tmp_path.iterdir()) == []


def test_output_that_cannot_be_written(ask: Ask, image, machine, tmp_path: Path) -> None:
    pair = image("basic", machine), image("basic", machine, "fixed")
    (tmp_path / "file").write_bytes(b"here before")
    for target in (tmp_path / "no" / "fix.dll", tmp_path, tmp_path / "file" / "fix.dll", pair[0]):
        answer = ask("build", *pair, "-o", target)
        assert answer.code == 2
        assert answer.error.startswith(f"{target}: ")
        html = ask("diff", *pair, "--html", target)
        assert html.code == 2
        assert html.error.startswith(f"{target}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"here before"


def test_pdb_of_an_input_is_not_written_over(ask: Ask, image, machine, tmp_path: Path) -> None:
    pair = [shutil.copy(image("basic", machine, side), tmp_path) for side in ("base", "fixed")]
    pdbs = [Path(shutil.copy(Path(image("basic", machine, side)).with_suffix(".pdb"), tmp_path)) for side in ("base", "fixed")]
    for pdb in pdbs:
        before = pdb.read_bytes()
        for command in (("build", *pair, "-o", pdb), ("diff", *pair, "--html", pdb)):
            answer = ask(*command)
            assert answer.code == 2
            assert answer.error == f"{pdb}: is a PDB and stays as it is; write to another file [cannot-be-written]"
        assert pdb.read_bytes() == before


def test_what_is_read_is_not_written_over(ask: Ask, image, patch, machine, tmp_path: Path) -> None:
    pair = image("basic", machine), image("basic", machine, "fixed")
    build, fix, page, text = (tmp_path / name for name in ("other.dll", "fix.dll", "page.html", "notes.txt"))
    build.write_bytes(Path(image("parameters", machine)).read_bytes())
    fix.write_bytes(Path(patch("parameters", machine)).read_bytes())
    page.write_text("<!doctype html>")
    text.write_text("older")
    before = {path: path.read_bytes() for path in (build, fix)}
    for command, kept in (("-o", [build]), ("--html", [build, fix])):
        verb = "build" if command == "-o" else "diff"
        for path in kept:
            answer = ask(verb, *pair, command, path)
            assert (answer.code, path.read_bytes()) == (2, before[path])
            assert (
                answer.error
                == f"{path}: is a {'patch' if path is fix else 'build'} and stays as it is; write to another file [cannot-be-written]"
            )
        for path in (text, page):
            assert ask(verb, *pair, command, path, "-q").code == 0
            path.write_text("older")
    assert ask("build", *pair, "-o", fix, "-q").code == 0
    assert hotpatch.load(fix).functions[0].name == "clamp"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fix.dll", "notes.txt", "other.dll", "page.html"]


def test_a_device_stays_one(ask: Ask, image, machine, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert ask("build", image("basic", machine), image("basic", machine, "fixed"), "-o", pipe, "-q").code == 0
        assert os.read(reader, 2) == b"MZ"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_what_tells_builds_apart_looks_alike_everywhere(ask: Ask, image, patch, machine) -> None:
    """What a refusal expects and finds can be looked up in what inspect shows."""
    fix, base, fixed = patch("basic", machine), image("basic", machine), image("basic", machine, "fixed")
    answer = ask("call", fixed, "clamp", 11, 10, "--patch", fix)
    assert answer.code == 4
    for shown, path in (("expected", base), ("expected", fix), ("found", fixed)):
        (headers,) = (line.strip() for line in ask("inspect", path).out.splitlines() if line.startswith("    time stamp 0x"))
        assert ", size of image 0x" in headers
        assert f"{shown} {headers}" in " ".join(answer.out.split())
    found = ask("inspect", base, "--json").document("inspect-image")
    assert found["size_of_image"] == hotpatch.open(base).size_of_image


def test_a_pdb_of_another_build_is_warned_of(ask: Ask, image, patch, machine, tmp_path: Path) -> None:
    """Else the comparison would go on without symbols in silence."""
    base, fixed = (tmp_path / f"{side}.dll" for side in ("base", "fixed"))
    for path, side in ((base, "base"), (fixed, "fixed")):
        path.write_bytes(Path(image("basic", machine, side)).read_bytes())
    for command in (["diff", base, fixed], ["build", base, fixed, "-o", tmp_path / "fix.dll"]):
        assert ask(*command).err == ""
    shutil.copy(Path(image("basic", machine, "fixed")).with_suffix(".pdb"), tmp_path / "base.pdb")
    for command in (
        ["inspect", base],
        ["diff", base, fixed],
        ["build", base, fixed, "-o", tmp_path / "fix.dll"],
        ["verify", base, tmp_path / "fix.dll", "--fixed", fixed],
    ):
        answer = ask(*command)
        assert answer.code == 0
        told = f"hotpatch: warning: {tmp_path / 'base.pdb'} lies beside {base} but is another build's (its GUID or age differs), "
        assert answer.err == f"{told}so it is not used\n"
        assert ask(*command, "-q").err == ""


def test_without_a_pdb_it_is_said_that_there_is_none(ask: Ask, image, machine, tmp_path: Path) -> None:
    alone = tmp_path / "alone.dll"
    alone.write_bytes(Path(image("basic", machine)).read_bytes())
    missing = " (no PDB lies beside it, which would name more); "
    assert missing in " ".join(ask("call", alone, "nope").out.split())
    assert missing not in " ".join(ask("call", image("basic", machine), "nope").out.split())


def test_what_is_carried_without_a_name(ask: Ask, image, machine, tmp_path: Path) -> None:
    """A text says what it is; else it is said that there is no name."""
    base, fixed = tmp_path / "base.exe", tmp_path / "fixed.exe"
    for path, side in ((base, "base"), (fixed, "fixed")):
        path.write_bytes(Path(image("overflow-check", machine, side)).read_bytes())
    answer = ask("build", base, fixed, "-o", tmp_path / "fix.dll")
    assert (answer.code, '\n"too long" "OK "  constant  ' in answer.out) == (0, True)
    answer = ask("build", image("jump-table", machine), image("jump-table", machine, "fixed"), "-o", tmp_path / "fix.dll")
    assert (answer.code, "\n(no name)  constant  " in answer.out) == (0, True)


def test_a_text_that_is_carried_is_shown(ask: Ask, image, machine, tmp_path: Path) -> None:
    command = "build", image("overflow-check", machine), image("overflow-check", machine, "fixed"), "-o", tmp_path / "fix.dll"
    (carried,) = ask(*command, "--json").document("build")["carried"]
    assert (carried["name"], carried["text"]) == ("??_C@_08JAFCJEPG@too?5long?$AA@", "too long")
    for answer in (ask(*command), ask("inspect", tmp_path / "fix.dll")):
        assert f'\n"too long"  constant  0x{carried["patch_rva"]:x}  ' in answer.out
        assert "??_C@" not in answer.out


def test_patch_that_was_there_before_survives_a_refused_build(ask: Ask, image, machine, tmp_path: Path) -> None:
    target = tmp_path / "fix.dll"
    target.write_bytes(b"older")
    pair = image("data-layout-refused", machine), image("data-layout-refused", machine, "fixed")
    assert ask("build", *pair, "-o", target).code == 4
    assert target.read_bytes() == b"older"


def test_build_says_which_imports_it_assumes(ask: Ask, image, machine, tmp_path: Path) -> None:
    base, fixed = image("new-import", machine), tmp_path / "fixed.dll"
    data = Path(image("new-import", machine, "fixed")).read_bytes()
    assert data.count(b"Sleep\0") == 1
    fixed.write_bytes(data.replace(b"Sleep\0", b"Slumb\0"))
    command = "build", base, fixed, "-o", tmp_path / "fix.dll", "--check"
    answer = ask(*command, "--json")
    assert (answer.code, answer.document("build")["assumed_imports"]) == (0, ["kernel32.dll!Slumb"])
    assert "assumed to be in the process, as the emulator does not know it: kernel32.dll!Slumb" in ask(*command).out


def test_html_page_of_many_functions_counts_unchanged_blocks(
    ask: Ask, image, machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hotpatch.report import page

    pair = image("image-parser", machine), image("image-parser", machine, "fixed")
    texts = []
    for few in (50, 0):
        monkeypatch.setattr(page, "_FEW", few)
        out = tmp_path / f"{few}.html"
        assert ask("diff", *pair, "--html", out, "-q").code == 0
        texts.append(out.read_text("utf-8"))
    whole, lean = texts
    assert ("<details>" in whole, "blocks that did not change are counted" in whole) == (True, False)
    assert ("<details>" in lean, "blocks that did not change are counted" in lean) == (False, True)
    assert " unchanged blocks, B" in lean
    assert len(lean) < len(whole)


def test_inspect_names_a_pdb_of_another_build(ask: Ask, image, machine, tmp_path) -> None:
    base, fixed = (Path(image("basic", machine, side)) for side in ("base", "fixed"))
    (tmp_path / "base.dll").write_bytes(base.read_bytes())
    (tmp_path / "base.pdb").write_bytes(fixed.with_suffix(".pdb").read_bytes())
    found = ask("inspect", str(tmp_path / "base.dll"))
    assert (found.code, found.err.count("another build's")) == (0, 1)
    assert "symbols: none" in found.out
    assert str(tmp_path / "base.pdb") in found.err
    assert ask("inspect", str(base)).err == ""
