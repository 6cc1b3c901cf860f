"""A process is let go, also by what watches it, or a run of many tests would hold the memory of all their processes."""

from __future__ import annotations

import gc
import weakref

import pytest

import hotpatch
from hotpatch.arch import Machine
from tests.cases.given import Given
from tests.mixing import Watch
from tests.stepping import Steps

each_machine = pytest.mark.parametrize("machine", Machine)


def watched(given: Given) -> hotpatch.Process:
    process = hotpatch.Process(given.image("base"))
    _, steps = Watch(process, given.patch), Steps(process)
    steps.reset(on=True)
    process.apply(given.patch)
    process.call("clamp", 11, 10)
    return process


@each_machine
def test_an_engine_goes_with_its_process(machine) -> None:
    """Each has a gigabyte of addresses and megabytes of memory, and is no garbage that moves the interpreter to look for it."""
    given = Given.of("basic", machine, True, lambda path: path)
    gc.disable()
    try:
        process = hotpatch.Process(given.image("base"))
        process.apply(given.patch)
        process.call("clamp", 11, 10)
        engine = weakref.ref(process.guest.system.cpu._uc)
        del process
        assert engine() is None
    finally:
        gc.enable()


@each_machine
def test_a_watched_process_is_let_go(machine) -> None:
    process = watched(Given.of("basic", machine, True, lambda path: path))
    cpu = weakref.ref(process.guest.system.cpu)
    del process
    gc.collect()
    assert cpu() is None
