"""A process whose modules a test loads and unloads, by the system functions that a program would call."""

from __future__ import annotations

from functools import cache

import hotpatch
from hotpatch.address import Va
from hotpatch.arch import Machine, Redirect
from hotpatch.cases import find_case
from hotpatch.emulator.threads import ThreadState
from hotpatch.engine import Module

HOST = "late-module"
"""Whose program the process runs; nothing of it is used but that it is there."""


@cache
def images(case: str, machine: Machine) -> tuple[hotpatch.Image, hotpatch.Image]:
    found = find_case(case)
    return hotpatch.open(found.image(machine)), hotpatch.open(found.image(machine, "fixed"))


@cache
def patch_of(case: str, machine: Machine, **terms: object) -> hotpatch.Patch:
    return hotpatch.build(hotpatch.diff(*images(case, machine)), **terms)


@cache
def host(machine: Machine) -> hotpatch.Image:
    return hotpatch.open(find_case(HOST).host(machine))


class Late:
    """A process with the base of ``case`` available, under the name ``base.dll``."""

    def __init__(self, case: str, machine: Machine, *available: hotpatch.Image, **settings: object) -> None:
        self.case, self.machine = case, machine
        base = images(case, machine)[0]
        self.process = hotpatch.Process(host(machine), available=available or (base,), **settings)
        self.redirect = Redirect.HPAT

    @property
    def patch(self) -> hotpatch.Patch:
        return patch_of(self.case, self.machine, redirect=self.redirect)

    def api(self, name: str, *arguments: int | bytes) -> int:
        va = self.process.guest.system.gates.provided(name)
        assert va is not None
        return self.process.call(va, *arguments)

    def load(self, name: bytes = b"base.dll\0") -> int:
        return self.api("LoadLibraryA", name)

    def free(self, handle: int) -> int:
        return self.api("FreeLibrary", handle)

    def module(self, name: str = "base.dll") -> Module | None:
        return next((module for module in self.process.guest.modules() if module.name == name), None)

    def call(self, function: str, *arguments: int) -> int:
        return self.process.call(f"base!{function}", *arguments)

    def stand(self, function: str, argument: int = 0) -> int:
        """A thread that stands behind the first instruction of the version in force of a function; its id."""
        thread = self.process.spawn(f"base!{function}", argument)
        guest = self.process.guest
        entry = self.process.address_of(f"base!{function}")
        leads = next((f.destination for f in self.process.status().functions if f.va == entry), entry)
        for _ in range(20):
            guest.step(thread, 1)
            pc = next(each.pc for each in guest.threads() if each.id == thread)
            if leads < pc < leads + 64:
                return thread
        raise AssertionError("never came there")

    def hold(self, thread: int, held: bool = True) -> None:
        """Suspend a thread, so that it does not run while the host calls, or let it go on."""
        record = self.process.guest.system.threads[thread]
        record.suspended, record.state = (1, ThreadState.SUSPENDED) if held else (0, ThreadState.READY)

    def kill(self, thread: int) -> None:
        self.process.guest.system.end_thread(self.process.guest.system.threads[thread], 0)

    def mapped(self, va: int) -> bool:
        return self.process.guest.system.memory.find(Va(va)) is not None
