"""Modules that come and go while the program runs: LoadLibrary, FreeLibrary, and the lock under which their code starts up and ends.

A load maps, relocates and binds the file and those of the available files that it imports; then whoever watches modules is told (the
engine applies what is registered); only then does their own code run, those that are imported first: TLS callbacks, entry point. An unload
runs them with DLL_PROCESS_DETACH in the opposite order, tells the watchers, and gives the address space back.

Modules that the process began with stay. The others are counted: by LoadLibrary, and by each module that imports them.

Sources: MS Learn, "LoadLibraryExW", "FreeLibrary", "DllMain entry point", "Dynamic-Link Library Best Practices" (the loader lock).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hotpatch.emulator import loader
from hotpatch.emulator.libraries import library_name
from hotpatch.emulator.loader import DLL_PROCESS_ATTACH, DLL_PROCESS_DETACH, DLL_THREAD_ATTACH
from hotpatch.emulator.loader_state import Counted, LoaderLock
from hotpatch.emulator.memory import RegionKind
from hotpatch.emulator.threads import Ended, Invoke
from hotpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hotpatch.emulator.loader_state import LoaderState
    from hotpatch.emulator.system import System
    from hotpatch.emulator.threads import GuestThread, Outcome
    from hotpatch.engine.target import Module
    from hotpatch.image import Image

ERROR_MOD_NOT_FOUND = 126
ERROR_BAD_EXE_FORMAT = 193
ERROR_DLL_INIT_FAILED = 1114
_EntryCall = tuple[int, tuple[int, ...]]


# loading ----------------------------------------------------------------------------------------------------------------------------------


def load(system: System, thread: GuestThread, name: str) -> Outcome:
    """LoadLibrary of a module that came while the program ran, or of an available file; ``name`` is normalised."""
    state = system.loading
    if not state.acquire(thread):
        return LoaderLock()
    known = next((module for module in system.modules() if module.name == name and module.va in state.counted), None)
    if known is not None:
        state.release()
        if not state.counted[known.va].references:
            system.set_last_error(thread, ERROR_MOD_NOT_FOUND)
            return 0
        state.count(known.va, 1)
        return known.va
    try:
        return _bring(system, thread, name)
    except InputError as error:
        state.release()
        system.event("refused", rule="not-loadable", function=None, reason=str(error))
        system.set_last_error(thread, ERROR_BAD_EXE_FORMAT)
        return 0
    except BaseException:
        state.release()
        raise
    finally:
        system.activate(thread)


def _bring(system: System, thread: GuestThread, name: str) -> Outcome:
    """Map, bind and announce an available file and what it needs, and begin to start it up; what is needed comes first.

    Raises:
        InputError: A file cannot be loaded. Whatever is raised, nothing of it stays.
    """
    state, before, told, heap = system.loading, system.loading.copy(), len(system.events), system.heap.state()
    come: list[Module] = []
    announced: tuple[Module, ...] = ()
    try:
        for image in _closure(system, name):
            come.append(loader.place(system, image))  # noqa: PERF401  what came before a failure has to go again
        for module in come:
            state.counted[module.va] = Counted()
        for module in come:
            loader.bind(system, module)
            needs = tuple(sorted(_needed(system, module)))
            state.counted[module.va] = replace(state.counted[module.va], needs=needs)
            for needed in needs:
                state.count(needed, 1)
        state.count(come[-1].va, 1)
        for module in come:
            system.event("load", module=module.name, va=module.va, size=module.size)
        announced = tuple(come)
        system.watchers.loaded(announced)
        calls = tuple((module.va, call) for module in come for call in loader.entry_calls(system, module, DLL_PROCESS_ATTACH))
        system.end_slice()
        return Attaching(come[-1].va, calls).resume(system, thread, 0)
    except BaseException:
        try:
            if announced:  # a watcher may be done with what is taken back now
                system.watchers.unloading(announced)
        finally:
            for module in reversed(come):
                unmap(system, module)
            state.restore(before)
            system.heap.take_back(heap)
            del system.events[told:]
        raise


def _closure(system: System, name: str) -> list[Image]:
    """The available file of that name, after those that it imports and that are not there yet; cycles are cut where they close."""
    present = {module.name for module in system.modules()}
    found: dict[str, Image] = {}
    visiting: set[str] = set()

    def visit(wanted: str) -> None:
        image = system.available.get(wanted)
        if image is None or wanted in present or wanted in visiting:
            return
        visiting.add(wanted)
        for entry in loader.bound_at_load(image):
            visit(library_name(entry.library))
        found[wanted] = image

    visit(name)
    return list(found.values())


def _needed(system: System, module: Module) -> set[int]:
    """VAs of the counted modules that a module imports."""
    names = {library_name(entry.library) for entry in loader.bound_at_load(module.image)} - {module.name}
    return {other.va for other in system.modules() if other.name in names and other.va in system.loading.counted}


@dataclass(frozen=True, slots=True)
class Attaching:
    """Start-up of modules that were loaded, one call after the other.

    Attributes:
        wanted: VA of the module that was asked for.
        calls: Still to be made, each with the VA of its module.
        called: Module and function of the one that has just returned.
    """

    wanted: int
    calls: tuple[tuple[int, _EntryCall], ...]
    called: tuple[int, int] | None = None

    def resume(self, system: System, thread: GuestThread, value: int) -> Outcome:
        """Make the next call; a DLL that answers FALSE is told to detach at once, and everything that came with it goes again."""
        state = system.loading
        if self.called is not None:
            owner, va = self.called
            module = system.module_of(owner)
            if va - owner == module.image.entry_point and not value & 0xFFFF_FFFF:
                doomed = _drop(state, self.wanted)
                calls = (*loader.entry_calls(system, module, DLL_PROCESS_DETACH), *_detach_calls(system, doomed))
                return Detaching(doomed, calls, Result(0, error=ERROR_DLL_INIT_FAILED)).resume(system, thread, 0)
            if not any(other == owner for other, _ in self.calls):
                state.counted[owner] = replace(state.counted[owner], started=True)
        if not self.calls:
            state.release()
            return self.wanted
        owner, (va, arguments) = self.calls[0]
        return Invoke(va, arguments, Attaching(self.wanted, self.calls[1:], (owner, va)))


# unloading --------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Result:
    """What a call of the loader gives in the end: a value and, where it fails, an error; or the thread ends with ``exit_code``."""

    value: int
    error: int | None = None
    exit_code: int | None = None

    def give(self, system: System, thread: GuestThread) -> Outcome:
        """Give it."""
        if self.error is not None:
            system.set_last_error(thread, self.error)
        if self.exit_code is not None:
            thread.exit_code = self.exit_code
            return Ended.THREAD
        return self.value


def free(system: System, thread: GuestThread, module: Module, result: Result) -> Outcome:
    """FreeLibrary of a module that came while the program ran."""
    state = system.loading
    if state.ending:
        return result.give(system, thread)
    if not state.counted[module.va].references:
        return Result(0, ERROR_MOD_NOT_FOUND, result.exit_code).give(system, thread)
    if not state.acquire(thread):
        return LoaderLock()
    before = state.copy()
    doomed = _drop(state, module.va)
    try:
        return Detaching(doomed, _detach_calls(system, doomed), result).resume(system, thread, 0)
    except BaseException:
        state.restore(before)
        state.release()
        raise


def _drop(state: LoaderState, va: int) -> tuple[int, ...]:
    """Take a reference from a module; the modules that have none left then, in the order in which they end."""
    doomed: set[int] = set()
    work = [va]
    while work:
        at = work.pop()
        if not state.count(at, -1):
            doomed.add(at)
            work += state.counted[at].needs
    return tuple(at for at in reversed(state.counted) if at in doomed)


def _detach_calls(system: System, doomed: Iterable[int]) -> tuple[_EntryCall, ...]:
    started = [va for va in doomed if system.loading.counted[va].started]
    return tuple(call for va in started for call in loader.entry_calls(system, system.module_of(va), DLL_PROCESS_DETACH))


@dataclass(frozen=True, slots=True)
class Detaching:
    """The end of modules: their code's last calls one after the other, then they are gone."""

    doomed: tuple[int, ...]
    calls: tuple[_EntryCall, ...]
    result: Result

    def resume(self, system: System, thread: GuestThread, value: int) -> Outcome:
        """Make the next call, or let the modules go."""
        if self.calls:
            va, arguments = self.calls[0]
            return Invoke(va, arguments, Detaching(self.doomed, self.calls[1:], self.result))
        modules = tuple(system.module_of(va) for va in self.doomed)
        if modules:
            try:
                system.watchers.unloading(modules)
            finally:
                system.activate(thread)
        for module in modules:
            unmap(system, module)
            del system.loading.counted[module.va]
            system.event("unload", module=module.name, va=module.va, size=module.size)
        system.loading.release()
        return self.result.give(system, thread)


def unmap(system: System, module: Module) -> None:
    """Give a module's address space and thread-local storage back and forget it."""
    system.tls.release(module)
    system.remove(module)
    for region in system.memory.regions():
        if region.kind is RegionKind.IMAGE and module.va <= region.va < module.va + module.size:
            system.memory.unmap(region)


# the process's end ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ending:
    """The last calls of all modules, one after the other; then the process is no more."""

    calls: tuple[_EntryCall, ...]

    def resume(self, system: System, thread: GuestThread, value: int) -> Outcome:
        """Make the next call."""
        if not self.calls:
            return Ended.PROCESS
        va, arguments = self.calls[0]
        return Invoke(va, arguments, Ending(self.calls[1:]))


def end_process(system: System, thread: GuestThread) -> Outcome:
    """ExitProcess: other threads are no more, then every module that has started up is told, the last one first.

    Source: MS Learn, "ExitProcess" and "DllMain entry point" (``lpvReserved`` is not null).
    """
    state = system.loading
    modules = loader.initialisation_order([module for module in system.modules() if module.va not in state.counted])
    modules += [system.module_of(va) for va, counted in state.counted.items() if counted.started]
    calls = [call for module in reversed(modules) for call in loader.entry_calls(system, module, DLL_PROCESS_DETACH, reserved=1)]
    if state.ending or not calls:
        return Ended.PROCESS
    for other in system.living():
        if other is not thread:
            system.end_thread(other, system.counters.exit_code or 0)
    system.activate(thread)
    state.ending = True
    state.acquire(thread)
    return Ending(tuple(calls)).resume(system, thread, 0)


# threads ----------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Starting:
    """A new thread tells the modules of itself, under the loader lock, before its own function is called."""

    calls: tuple[_EntryCall, ...]
    last: Invoke

    def resume(self, system: System, thread: GuestThread, value: int) -> Outcome:
        """Make the next call."""
        if not self.calls:
            system.loading.release()
            return self.last
        va, arguments = self.calls[0]
        return Invoke(va, arguments, Starting(self.calls[1:], self.last))


def start_thread(system: System, thread: GuestThread, last: Invoke) -> Outcome:
    """What a new thread does before ``last``: a program's main thread, whose DLLs have started up, nothing."""
    if thread.id == system.counters.main:
        return last
    modules = loader.initialisation_order(system.modules())
    if not any(loader.entry_calls(system, module, DLL_THREAD_ATTACH) for module in modules):
        return last
    if not system.loading.acquire(thread):
        return LoaderLock()
    running = [module for module in modules if module.va not in system.loading.counted or system.loading.counted[module.va].started]
    calls = [call for module in running for call in loader.entry_calls(system, module, DLL_THREAD_ATTACH)]
    return Starting(tuple(calls), last).resume(system, thread, 0)
