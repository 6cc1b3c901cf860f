"""What watches a process lets it go, or a run of many tests would hold the memory of all their processes."""

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
def test_a_watched_process_is_let_go(machine) -> None:
    process = watched(Given.of("basic", machine, True, lambda path: path))
    cpu = weakref.ref(process.guest.system.cpu)
    del process
    gc.collect()
    assert cpu() is None
