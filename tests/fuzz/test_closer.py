"""The pairs that change what lies near what was named: each kind is drawn, and the compiler makes two versions of it."""

from __future__ import annotations

import re
from collections import Counter
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from hotpatch.arch import Machine
from tests.fuzz.closer import KINDS, Closer
from tests.fuzz.draw import CLOSER, draw
from tests.fuzz.oracle import compile_program

if TYPE_CHECKING:
    from tests.fuzz.program import Program
    from tests.fuzz.truth import Truth

SEEDS = range(CLOSER, CLOSER + 40)


def kinds(seed: int) -> list[str]:
    writer = Closer(seed)
    writer.program(seed)
    return writer.kinds


def functions(text: str) -> dict[str, str]:
    """The exported functions of a source by name."""
    return {found[1]: found[0] for found in re.finditer(r"^EXPORT NOINLINE u64 (\w+)\(.*\) \{.*$", text, re.MULTILINE)}


def changed(program: Program, kind: str) -> set[str]:
    """Functions that name data of a kind and are not the same in both sources."""
    old, new = (functions(text) for text in program.sources)
    return {name for name in old if old[name] != new[name] and re.search(rf"\b{kind}\d", old[name] + new[name])}


def order(truth: Truth) -> list[str]:
    """Data that are to change places, as they stand in memory."""
    return sorted((name for name in truth.rvas if name.startswith("swapped")), key=truth.rvas.__getitem__)


def test_each_kind_is_drawn() -> None:
    found = Counter(kind for seed in SEEDS for kind in kinds(seed))
    assert found.keys() == set(KINDS)
    assert min(found.values()) >= 5


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_functions(kind) -> None:
    drawn = [seed for seed in SEEDS if kind in kinds(seed)]
    assert sum(bool(changed(draw(seed), kind)) for seed in drawn) >= len(drawn) * 0.8


@pytest.mark.compiler
@pytest.mark.skipif(find_spec("ziglang") is None, reason="needs the compiler: pip install -e '.[fixtures]'")
@pytest.mark.exhaustive
def test_each_kind_is_compiled_otherwise(tmp_path) -> None:
    """The compiler's object has other bytes or names other things; the machines take turns, two seeds each."""
    seen: Counter[str] = Counter()
    swapped = 0
    for seed in SEEDS:
        place = tmp_path / str(seed)
        place.mkdir()
        program = draw(seed)
        built = compile_program(program, tuple(Machine)[seed // 2 % 2], place)
        old, new = built.truth("base"), built.truth("fixed")
        for kind in kinds(seed):
            chunks = [(old.functions[name], new.functions[name]) for name in changed(program, kind)]
            seen[kind] += any(one.raw != other.raw or one.relocations != other.relocations for one, other in chunks)
        swapped += sorted(order(old)) == sorted(order(new)) and order(old) != order(new)
    assert seen.keys() == set(KINDS)
    assert min(seen.values()) >= 3
    assert swapped >= 2
