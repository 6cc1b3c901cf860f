"""Whatever input cannot be used: the rule has a name, and the message says what to do."""

from __future__ import annotations

import ast
import struct
from pathlib import Path

import pytest

import hotpatch
from hotpatch.cases import find_case
from hotpatch.errors import InputRule
from hotpatch.patch.container import MAGIC, VERSION
from tests.cli.front import Ask

SOURCE = Path(__file__).resolve().parents[2] / "hotpatch"
BASE, FIXED = (str(find_case("basic").image("x64", side)) for side in ("base", "fixed"))
OTHER = str(find_case("basic").image("arm64", "fixed"))
BUILD = f"build {BASE} {FIXED} -o OUT/fix.dll"
ADVICE = ("; ", "expected ")
"""What comes before the part that says what to do."""
ROWS = [
    ("frobnicate", InputRule.USAGE),
    (f"build {BASE}", InputRule.USAGE),
    (f"{BUILD} --sequence 0", InputRule.ARGUMENT),
    (f"{BUILD} --allow self-check", InputRule.ARGUMENT),
    (f"{BUILD} --sequence x", InputRule.ARGUMENT),
    (f"{BUILD} --redirect foo", InputRule.ARGUMENT),
    (f"{BUILD} --allow nonsense", InputRule.ARGUMENT),
    (f"{BUILD} --allow", InputRule.USAGE),
    (f"{BUILD} --only clamp --except clamp", InputRule.ARGUMENT),
    (f"verify {BASE} OUT/patch.dll --fixed {FIXED} --seeds 0", InputRule.ARGUMENT),
    (f"verify {BASE} OUT/patch.dll --fixed {FIXED} --bound 3", InputRule.ARGUMENT),
    (f"verify {BASE} OUT/patch.dll --fixed {FIXED} --case none", InputRule.ARGUMENT),
    (f"call {BASE} clamp 1 2 --budget 0", InputRule.ARGUMENT),
    (f"call {BASE} clamp 1 2 --load-base 1", InputRule.ARGUMENT),
    (f"call {BASE} clamp 1 2 --load-base x", InputRule.ARGUMENT),
    (f"call {BASE} clamp x", InputRule.ARGUMENT),
    (f"call {BASE} rva:zz", InputRule.ARGUMENT),
    (f"call {BASE} clamp 1 2 --patch OUT/patch.dll@x", InputRule.ARGUMENT),
    ("demo --arch mips", InputRule.ARGUMENT),
    ("servicing calendar x", InputRule.ARGUMENT),
    ("inspect OUT/missing.dll", InputRule.NO_FILE),
    ("inspect OUT", InputRule.NOT_A_FILE),
    ("inspect OUT/text.dll", InputRule.NO_IMAGE),
    ("inspect OUT/cut.dll", InputRule.DAMAGED),
    ("inspect OUT/x86.dll", InputRule.UNSUPPORTED),
    (f"diff {BASE} {OTHER}", InputRule.MACHINE),
    (f"call {BASE} clamp 1 2 --patch {FIXED}", InputRule.NO_PATCH),
    (f"diff {BASE} OUT/patch.dll", InputRule.NO_IMAGE),
    ("call OUT/patch.dll clamp 1 2", InputRule.NO_IMAGE),
    ("run OUT/patch.dll", InputRule.NO_IMAGE),
    (f"call {BASE} clamp 1 2 --module OUT/patch.dll", InputRule.NO_IMAGE),
    (f"call {BASE} clamp 1 2 --available OUT/patch.dll", InputRule.NO_IMAGE),
    (f"run {BASE}", InputRule.LOAD),
    ("inspect OUT/newer.dll", InputRule.PATCH_VERSION),
    (f"call {BASE} clamp 1 2 --load-base 0x2000000000", InputRule.LOAD),
    (f"build {BASE} {FIXED} -o OUT/none/fix.dll", InputRule.OUTPUT),
    ("demo --release OUT", InputRule.USAGE),
    ("servicing eligible OUT/device.toml", InputRule.DOCUMENT),
]


def spoken(node: ast.expr | None) -> str | None:
    """The fixed text of a message; ``None`` where it is somebody else's."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


def test_every_message_says_what_to_do() -> None:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "InputError(" in text else ():
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InputError" and len(node.args) > 1:
                found[f"{path.relative_to(SOURCE)}:{node.lineno}"] = spoken(node.args[1])
    assert len(found) > 90
    assert {place: text for place, text in found.items() if text and not any(word in text for word in ADVICE)} == {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files that cannot be used, each for a reason of its own."""
    base = Path(BASE).read_bytes()
    header = struct.unpack_from("<I", base, 60)[0]
    patch = hotpatch.build(hotpatch.diff(hotpatch.open(BASE), hotpatch.open(FIXED))).data
    version = patch.index(MAGIC) + len(MAGIC)
    files = {
        "text.dll": b"some text, long enough to be taken for a header" * 9,
        "cut.dll": base[: len(base) // 2],
        "x86.dll": base[: header + 4] + struct.pack("<H", 0x14C) + base[header + 6 :],
        "patch.dll": patch,
        "newer.dll": patch[:version] + struct.pack("<I", VERSION + 1) + patch[version + 4 :],
        "device.toml": b"name = 7\n",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.mark.parametrize(("command", "rule"), ROWS, ids=[f"{number}-{rule}" for number, (_, rule) in enumerate(ROWS)])
def test_the_one_line_ends_with_the_rule(ask: Ask, folder: Path, command: str, rule: InputRule) -> None:
    answer = ask(*(word.replace("OUT", str(folder)) for word in command.split()))
    assert answer.code == 2
    assert answer.error.endswith(f" [{rule}]")
    assert any(word in answer.error for word in ADVICE)


def test_in_python_the_rule_is_a_value() -> None:
    with pytest.raises(hotpatch.InputError) as missing:
        hotpatch.open("no-such.dll")
    assert missing.value.rule is InputRule.NO_FILE
    assert str(missing.value) == "no-such.dll: No such file or directory; give a file that can be read"
