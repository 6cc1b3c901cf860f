"""No page is ever both writable and executable to the program, not even one after the other: looked at after each call of the engine."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from hotpatch.address import Va
from hotpatch.arch import Machine, Redirect
from hotpatch.emulator.guest import Guest
from hotpatch.emulator.memory import PAGE
from hotpatch.engine import Engine, Rights

from .real import CALLS
from .synthetic import Recipe, base_image, entry, make


class Watched:
    """An emulated process as a target that takes down, after each call, what the program may do with each page."""

    def __init__(self, guest: Guest) -> None:
        self.guest, self.machine, self.thread_flags = guest, guest.machine, guest.thread_flags
        self.seen: defaultdict[int, Rights] = defaultdict(lambda: Rights.NONE)
        self.calls: list[str] = []
        self.look()

    @property
    def clock(self) -> int:
        return self.guest.clock

    def look(self) -> None:
        for region in self.guest.regions():
            for page in range(region.va, region.va + region.size, PAGE):
                self.seen[page] |= region.rights

    def __getattr__(self, name: str) -> Any:
        if name not in CALLS:
            raise AttributeError(name)

        def called(*args: object, **named: object) -> object:
            result = getattr(self.guest, name)(*args, **named)
            self.calls.append(name)
            if name == "unmap":  # what comes to lie there later is something else
                self.seen.clear()
            self.look()
            return result

        return called

    def both(self) -> list[str]:
        return [hex(page) for page, rights in self.seen.items() if rights & Rights.WRITE and rights & Rights.EXECUTE]


@pytest.mark.parametrize("strategy", list(Redirect))
@pytest.mark.parametrize("machine", list(Machine))
def test_no_page_is_writable_and_executable_at_any_step(machine: Machine, strategy: Redirect) -> None:
    base = base_image(machine)
    guest = Guest(base)
    target = Watched(guest)
    engine = Engine(target)
    code = {page for page, rights in target.seen.items() if rights & Rights.EXECUTE}
    assert guest.module.va + entry(1) & -PAGE in code
    first, second = (
        engine.apply(make(Recipe(base, numbers, sequence, strategy, name=f"fix{sequence}.dll")))
        for sequence, numbers in ((1, {1: 111, 2: 222}), (2, {2: 2222, 3: 3333}))
    )
    assert {page for page, rights in target.seen.items() if rights & Rights.EXECUTE} > code
    assert guest.call(Va(guest.module.va + entry(2)), (), budget=1000).value == 2222
    second.revert()
    first.revert()
    assert not target.both()
    assert engine.collect().freed
    assert not target.both()
    assert {"map", "write_code", "unmap"} <= set(target.calls)
    assert ("write_data" in target.calls) is (strategy is Redirect.HPAT)


@pytest.mark.parametrize("machine", list(Machine))
def test_the_watch_sees_a_page_that_is_made_code_while_writable(machine: Machine) -> None:
    """Or it would prove nothing."""
    target = Watched(Guest(base_image(machine)))
    va = target.find_room(PAGE, near=target.guest.module.va, reach=1 << 30)
    target.map(va, PAGE, Rights.READ | Rights.WRITE)
    target.guest.system.memory.protect(va, PAGE, Rights.READ | Rights.EXECUTE)
    target.look()
    assert target.both() == [hex(va)]
