"""Release binaries without symbols (PyNaCl's Windows wheels, MSVC): functions, names, unwind data, every instruction of some runs."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest
import unicorn

from hotpatch.errors import Refused
from hotpatch.image import FunctionSource, open_image
from hotpatch.unwind import Meaning, unwinder
from tests.unwind.shadow import Shadow

pytestmark = pytest.mark.release

VERSION = "1.6.1"
PLATFORMS = {"x64": "win_amd64", "arm64": "win_arm64"}
ENTRIES = {"x64": (648, 122), "arm64": (560, 102)}
"""Function-table entries, and how many of them are parts of another's function: chained, or (Arm64) fragments that it leads to."""


@pytest.fixture(scope="module", params=["x64", "arm64"])
def module(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    where = ["--platform", PLATFORMS[request.param], "--python-version", "3.13", "--dest", str(folder), f"PyNaCl=={VERSION}"]
    done = subprocess.run([*command, *where], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"no package index: {done.stderr.strip().splitlines()[-1:]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return open_image(wheel.extract("nacl/_sodium.pyd", folder))


def test_function_table(module):
    entries, fragments = ENTRIES[module.machine]
    assert len(module.unwind_entries) == entries
    assert sum(module.function_at(entry.range.start).entry != entry.range.start for entry in module.unwind_entries) == fragments
    for entry in module.unwind_entries:
        assert module.function_at(entry.range.start) is module.function_at(entry.primary)


def test_what_the_table_misses_is_found(module):
    """Leaf functions have no function-table entry; their callers lead to them."""
    outside = [function for function in module.functions if not function.source & FunctionSource.PDATA]
    assert len(outside) > 150
    called = {
        reference.target
        for function in module.functions
        for part in module.references(function)
        for reference in part
        if reference.use == "call"
    }
    assert not {hex(target) for target in called if module.function_at(target) is None}


def test_plain_functions_have_the_tables_names(module):
    function = module.function_named("crypto_core_ed25519_is_valid_point")
    assert function.source & FunctionSource.CFFI
    assert function.source & FunctionSource.CALL
    direct = module.function_named("_cffi_d_crypto_core_ed25519_is_valid_point")
    (jump,) = (reference for part in module.references(direct) for reference in part)
    assert (direct.size, jump.target) == (jump.size, function.entry)
    assert len({name for one in module.functions for name in one.names if name.startswith("crypto_")}) > 200


def test_unwind_data_can_be_carried(module):
    walker = unwinder(module.machine)
    refused = 0
    handlers = set()
    for entry in module.unwind_entries:
        try:
            item = walker.carry(module, entry)
        except Refused:
            refused += 1
            continue
        for reference in item.references:
            stored = int.from_bytes(item.info[reference.offset : reference.offset + 4], "little")
            assert stored == reference.target + reference.addend
            if reference.meaning is Meaning.HANDLER:
                handlers.add(reference.target)
            if reference.meaning is Meaning.INFO:
                assert any(other.info == reference.target for other in module.unwind_entries)
    assert refused <= 1
    assert all(module.function_of_entry(handler) for handler in handlers)


# function, arguments; buffers are read and written as the function likes
RUNS = [
    ("crypto_core_ed25519_is_valid_point", (b"\x01" * 32,)),
    ("crypto_hash_sha256", (bytes(64), b"abc", 3)),
    ("crypto_hash_sha512", (bytes(64), b"abc", 3)),
    ("crypto_core_ed25519_add", (bytes(32), b"\x05" * 32, b"\x07" * 32)),
    ("crypto_generichash_blake2b_update", (bytes(512), b"abc", 3)),
]


@pytest.mark.parametrize(("name", "arguments"), RUNS, ids=[row[0] for row in RUNS])
def test_every_instruction_can_be_walked(module, name, arguments):
    shadow = Shadow(module)
    try:
        shadow.call(module.function_named(name).entry, *arguments)
    except unicorn.UcError:
        assert shadow.checked  # an import was needed that does nothing here
    assert shadow.problems == []
    assert shadow.checked > 10
