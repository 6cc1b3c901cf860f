"""The benchmark measures what it says: a thread that is held is seen, and one that is not scheduled."""

from __future__ import annotations

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases import find_case
from hotpatch.emulator.threads import ThreadState
from hotpatch.image import open_image
from tools.bench_threads import Held


@pytest.mark.parametrize("machine", list(Machine))
def test_a_held_thread_is_noticed(machine: Machine) -> None:
    process = hotpatch.Process(open_image(find_case("many-threads").image(machine)))
    process.start()
    process.run(400)
    watch = Held(process)
    process.run(500)
    watch.stop()
    assert (watch.held, watch.between) == (0, 0)
    assert 0 < watch.longest <= 500
    ready = [thread for thread in process.guest.system.threads.values() if thread.state is ThreadState.READY]
    ready[0].state = ThreadState.SUSPENDED
    watch = Held(process)
    process.run(500)
    watch.stop()
    assert 400 < watch.held <= 500
