"""What a user of the Python surface gives by mistake: an InputError that names it and says what is wanted, never a bare one of Python's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases import find_case


@dataclass(frozen=True)
class Things:
    base: hotpatch.Image
    fixed: hotpatch.Image
    diff: hotpatch.ImageDiff
    patch: hotpatch.Patch
    process: hotpatch.Process


@pytest.fixture(scope="module", params=list(Machine), ids=str)
def things(request: pytest.FixtureRequest) -> Things:
    case = find_case("basic")
    base, fixed = (hotpatch.open(case.image(request.param, side)) for side in ("base", "fixed"))
    diff = hotpatch.diff(base, fixed)
    return Things(base, fixed, diff, hotpatch.build(diff), hotpatch.Process(base))


NOP = b"\x90" * 8
WRONG: dict[str, tuple[Callable[[Things], object], str]] = {
    "open a number": (lambda _: hotpatch.open(3), "3: is of type int, but a path is wanted"),
    "load nothing": (lambda _: hotpatch.load(None), "None: is of type NoneType, but a path is wanted"),
    "diff paths": (lambda _: hotpatch.diff("a.dll", "b.dll"), "'a.dll': is of type str, but an Image is wanted; hotpatch.open reads one"),
    "diff with a patch": (lambda x: hotpatch.diff(x.base, x.patch), "is of type Patch, but an Image is wanted"),
    "diff: a patch as base": (lambda x: hotpatch.diff(x.patch.image, x.fixed), "is a hot patch, not a build; give the build that runs"),
    "diff: a patch as fixed": (lambda x: hotpatch.diff(x.base, x.patch.image), "is a hot patch, not a build; give the build with the fix"),
    "verify with a patch": (
        lambda x: hotpatch.verify(x.base, x.patch, fixed=x.patch.image),
        "is a hot patch, not a build; give the build with the fix",
    ),
    "build of an image": (lambda x: hotpatch.build(x.base), "but an ImageDiff is wanted; compare two images first"),
    "build: sequence": (lambda x: hotpatch.build(x.diff, sequence="1"), "'1': is of type str, but an int is wanted"),
    "build: state version": (lambda x: hotpatch.build(x.diff, state_version="1"), "'1': is of type str, but an int is wanted"),
    "build: only": (lambda x: hotpatch.build(x.diff, only=[3]), "3: is of type int, but a function's name is wanted"),
    "verify of paths": (lambda _: hotpatch.verify("a", "b", fixed="c"), "'a': is of type str, but an Image is wanted"),
    "verify an image": (lambda x: hotpatch.verify(x.base, x.fixed, fixed=x.fixed), "but a Patch is wanted; hotpatch.build makes one"),
    "verify: calls": (lambda x: hotpatch.verify(x.base, x.patch, fixed=x.fixed, calls=3), "3: is of type int, but a list of calls"),
    "verify: call": (lambda x: hotpatch.verify(x.base, x.patch, fixed=x.fixed, calls=[3]), "3: is of type int, but a call is wanted"),
    "verify: no call": (lambda x: hotpatch.verify(x.base, x.patch, fixed=x.fixed, calls=[()]), "call=(): names no function"),
    "verify: functions": (
        lambda x: hotpatch.verify(x.base, x.patch, fixed=x.fixed, functions="clamp"),
        "is one text where a list is wanted",
    ),
    "verify: bound": (lambda x: hotpatch.verify(x.base, x.patch, fixed=x.fixed, calls=[("clamp",)], bound=0), "bound 0: is none"),
    "verify: seeds": (lambda x: hotpatch.verify(x.base, x.patch, fixed=x.fixed, seeds=0), "seeds 0: is no number of seeds"),
    "process of a path": (lambda _: hotpatch.Process("base.dll"), "'base.dll': is of type str, but an Image is wanted"),
    "process: modules": (lambda x: hotpatch.Process(x.base, modules=x.fixed), "but a list of images is wanted; write modules=[…]"),
    "process: a module": (lambda x: hotpatch.Process(x.base, modules=["x.dll"]), "'x.dll': is of type str, but an Image is wanted"),
    "process: seed": (lambda x: hotpatch.Process(x.base, seed="x"), "'x': is of type str, but an int is wanted; give seed as a number"),
    "process: load base": (lambda x: hotpatch.Process(x.base, load_base="x"), "give load_base as a number"),
    "process: stdin": (lambda x: hotpatch.Process(x.base, stdin="x"), "'x': is of type str, but bytes is wanted; encode the text"),
    "process: args": (lambda x: hotpatch.Process(x.base, args="a b"), "'a b': is one text where a list is wanted"),
    "process: budget": (lambda x: hotpatch.Process(x.base, budget=0), "budget 0: is none; give the number of instructions"),
    "process: consistency": (lambda x: hotpatch.Process(x.base, consistency="soon"), "soon: no consistency; use one of immediate"),
    "call with a budget": (lambda x: x.process.call_details("clamp", 1, 2, budget=0), "budget 0: is none"),
    "call a float": (lambda x: x.process.call(1.5), "1.5: is of type float, but a name or an address is wanted"),
    "call with a list": (lambda x: x.process.call("clamp", [1]), "[1]: cannot be passed; give an int"),
    "apply a path": (lambda x: x.process.apply("fix.dll"), "'fix.dll': is of type str, but a Patch is wanted"),
    "apply at, an image": (lambda x: x.process.apply_at(3, x.base), "but a Patch is wanted"),
    "register a path": (lambda x: x.process.register("fix.dll"), "but a Patch is wanted"),
    "revert at, a path": (lambda x: x.process.revert_at(3, "fix.dll"), "but a Patch is wanted"),
    "apply and wait": (lambda x: x.process.apply(x.patch, wait=-1), "wait -1: is negative"),
    "revert a patch": (lambda x: x.process.revert(x.patch), "but an AppliedPatch is wanted; Process.apply gives one"),
    "save to a number": (lambda x: x.patch.save(3), "3: is of type int, but a path is wanted"),
    "save to nothing": (lambda x: x.patch.save(""), "'': names no file"),
    "engine of a process": (lambda x: hotpatch.Engine(x.process), "is no Target; of a Process use process.apply"),
    "buffer of a text": (lambda _: hotpatch.Buffer("x"), "'x': is of type str, but a number of bytes is wanted"),
    "trampoline of a text": (lambda _: trampoline(code="90"), "'90': is of type str, but bytes is wanted"),
    "trampoline at a text": (lambda _: trampoline(source_va="0"), "give source_va as a number"),
    "trampoline of a machine": (lambda _: trampoline(machine="mips"), "'mips': is no machine; use one of x64, arm64"),
    "assemble bytes": (lambda _: hotpatch.assemble("x64", b"ret", 0), "b'ret': is of type bytes, but a str is wanted"),
    "assemble at a text": (lambda _: hotpatch.assemble("x64", "ret", "0"), "'0': is of type str, but an int is wanted"),
    "function of a number": (lambda x: x.base.function_named(3), "3: is of type int, but a function's name is wanted"),
}


def trampoline(**changed: object) -> object:
    given: dict[str, object] = {"machine": "x64", "code": NOP, "source_va": 0, "trampoline_va": 0x1000, "displaced": 5} | changed
    return hotpatch.trampoline(given.pop("machine"), given.pop("code"), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("row", WRONG)
def test_wrong_kinds_are_told(things: Things, row: str) -> None:
    attempt, message = WRONG[row]
    with pytest.raises(hotpatch.InputError) as told:
        attempt(things)
    assert message in str(told.value)


def test_nothing_was_done(things: Things) -> None:
    assert not things.process.pending
    assert not things.process.status().patches
    assert things.process.call("clamp", 11, 10) == 11
