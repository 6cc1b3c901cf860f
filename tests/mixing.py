"""Whether threads run old and new functions of one patch mixed, told without the engine's walk of stacks.

At every entry into a version of a patched function the thread's stack pointer is noted, and its return address watched. A version is off
the stack again when the thread is where it returns to, or enters another one, with the stack pointer at least as high as at its entry. So
at each entry it is known which versions the thread is inside of, those included that it entered before anything was patched.

A version is new to a patch when that has led the function to it, the original where the patch gives that back; any other is old to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from copy import deepcopy
from itertools import groupby
from typing import NamedTuple

from unicorn import UC_HOOK_CODE

from hotpatch.arch import architecture
from hotpatch.emulator.threads import Ended
from hotpatch.patch import Patch
from hotpatch.process import Process
from tests.hooks import weakly


class Version(NamedTuple):
    """Of a function, whose address is ``entry``; that of the original's code is the same."""

    entry: int
    code: int


class Watch:
    """Watches one process; ``mixed`` has every entry at which a thread was inside of the other side of a patch."""

    def __init__(self, process: Process, *patches: Patch) -> None:
        """``patches`` are those to come for the process's first module; entries of others are noted from when they are applied."""
        self.process = process
        self.mixed: list[tuple[int, int, str]] = []
        self.entries = 0
        self._entered_by: dict[int, list[Version]] = defaultdict(list)
        self._inside: dict[int, list[tuple[int, Version]]] = defaultdict(list)
        self._places: dict[int, Version] = {}
        self._patches: list[dict[int, int]] = []
        """Of each patch that has gone in, the newest last: where it has led each of its functions."""
        self._going_in = False
        self._hooks: list[int] = []
        self._returns: set[int] = set()
        convention = architecture(process.machine).convention
        self._sp, self._link = convention.sp, convention.link
        self._tell = process.guest.event
        process.guest.event = self._event
        self._settle = process.guest.kernel._settle
        process.guest.kernel._settle = self._settled
        for patch in patches:
            for function in patch.functions:
                entry = process.load_base + function.base_rva
                self.place(entry, Version(entry, entry))

    def reset(self) -> None:
        """Forget what threads did and which patches went in, not where versions are."""
        self.mixed.clear()
        self.pause()
        self._inside.clear()
        self._patches.clear()
        self._going_in = False
        self.entries = 0

    def noted(self) -> tuple[object, ...]:
        """What there is of what :meth:`reset` forgets, for :meth:`put_back`."""
        return deepcopy((self.mixed, self._entered_by, self._inside, self._patches, self._going_in, self.entries))

    def put_back(self, noted: tuple[object, ...]) -> None:
        """The process was restored as it was when that was noted."""
        self.mixed, self._entered_by, self._inside, self._patches, self._going_in, self.entries = deepcopy(noted)

    def pause(self) -> None:
        """Begin :attr:`sides` anew."""
        self._entered_by.clear()

    @property
    def sides(self) -> dict[int, list[str]]:
        """Of each thread, on which side of the newest patch the versions are that it has entered, in order."""
        newest = self._patches[-1] if self._patches else {}
        found = {thread: [side for each in versions if (side := _side(newest, each))] for thread, versions in self._entered_by.items()}
        return {thread: [side for side, _ in groupby(sides)] for thread, sides in found.items()}

    def called(self) -> None:
        """The host's call has returned, which no return address shows."""
        self._inside.clear()

    def _forget(self) -> None:
        """A module has come: where others were, anything may be now."""
        for hook in self._hooks:
            self.process.guest.system.cpu._uc.hook_del(hook)
        self._hooks.clear()
        self._places.clear()
        self._returns.clear()

    def _event(self, kind: str, **details: object) -> None:
        self._tell(kind, **details)
        if kind == "load":
            self._forget()
        if kind in {"apply", "revert"}:
            self._going_in = kind == "apply"
            self._patches += [{}] if self._going_in else []
        if kind == "redirect" and details["change"] in {"entry", "dispatch", "pointer"}:
            original = Version(details["entry"], details["entry"])
            leads_to = details["destination"]
            self.place(details["entry"], original)
            self.place(details["original"], original)
            self.place(leads_to, Version(details["entry"], leads_to))
            if self._going_in:
                self._patches[-1][details["entry"]] = self._places[leads_to].code

    def _settled(self, thread, outcome) -> None:
        """After a system call, and where an exception has unwound frames, which return nowhere.

        When a call of the host's ends, one that a callback of a patch interrupted is still where it was.
        """
        self._settle(thread, outcome)
        system = self.process.guest.system
        if system.active is thread and outcome is not Ended.CALL:
            self._left(thread.id, system.cpu.get(self._sp))

    def place(self, va: int, version: Version) -> None:
        if va in self._places:
            return
        self._places[va] = version
        uc = self.process.guest.system.cpu._uc
        self._hooks.append(uc.hook_add(UC_HOOK_CODE, weakly(self._entered), None, va, va))
        uc.ctl_flush_tb()

    def _entered(self, _uc, va, _size, _data) -> None:
        system = self.process.guest.system
        version = self._places[va]
        if va == version.entry:
            module = system.module_at(va)
            if system.memory.read(va, 2) != module.image.mapped[va - module.va : va - module.va + 2]:
                return
        thread = system.active.id
        sp = system.cpu.get(self._sp)
        inside = self._left(thread, sp)
        self._watch_return(system.cpu.get(self._link) if self._link else system.read_word(sp))
        inside.append((sp, version))
        for patch in self._patches:
            side = _side(patch, version)
            if side is not None and {_side(patch, other) for _, other in inside} - {side, None}:
                self.mixed.append((self.process.instructions, thread, side))
                break
        self.entries += 1
        if self._entered_by[thread][-1:] != [version]:
            self._entered_by[thread].append(version)

    def _left(self, thread: int, sp: int) -> list[tuple[int, Version]]:
        """What the thread is still inside of."""
        inside = self._inside[thread]
        while inside and inside[-1][0] <= sp:
            inside.pop()
        for call in self.process.guest.system.threads[thread].frames:
            if call.interrupted is not None:  # frames that an exception has unwound already, below the one whose handler runs
                high = call.interrupted.registers[self._sp]
                inside[:] = [entry for entry in inside if not call.sp <= entry[0] < high]
        return inside

    def _watch_return(self, va: int) -> None:
        system = self.process.guest.system
        if va not in self._returns and system.gates.near(va) is None:
            self._returns.add(va)
            self._hooks.append(system.cpu._uc.hook_add(UC_HOOK_CODE, weakly(self._returned), None, va, va))
            system.cpu._uc.ctl_remove_cache(va, va + 4)

    def _returned(self, _uc, _va, _size, _data) -> None:
        system = self.process.guest.system
        self._left(system.active.id, system.cpu.get(self._sp))


def _side(patch: Mapping[int, int], version: Version) -> str | None:
    """On which side of a patch a version is, or ``None`` where the patch says nothing of its function."""
    leads_to = patch.get(version.entry)
    return None if leads_to is None else "new" if version.code == leads_to else "old"
