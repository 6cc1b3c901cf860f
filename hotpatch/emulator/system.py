"""The state of an emulated process and what system functions need of it: memory, modules, threads, handles, heaps, streams, time."""

from __future__ import annotations

import copy
import struct
import weakref
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.arch import architecture
from hotpatch.emulator import layout
from hotpatch.emulator.cpu import Cpu
from hotpatch.emulator.gates import Gates
from hotpatch.emulator.heap import Heap
from hotpatch.emulator.layout import PEB, TEB
from hotpatch.emulator.loader_state import LoaderState
from hotpatch.emulator.memory import PAGE, AccessError, Memory, RegionKind
from hotpatch.emulator.objects import HandleTable, Mutex, ProcessObject, Stream, StreamObject, ThreadObject
from hotpatch.emulator.parameters import Settings, map_parameters
from hotpatch.emulator.schedule import splitmix
from hotpatch.emulator.stacks import grow_stack
from hotpatch.emulator.supply import supply_page
from hotpatch.emulator.sync import Synchronization
from hotpatch.emulator.threads import GuestThread, ThreadState
from hotpatch.emulator.tls import TLS_ARRAY, ModuleTls
from hotpatch.emulator.watchers import Watchers
from hotpatch.engine.target import Module, Rights
from hotpatch.errors import HotpatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hotpatch.arch import Machine
    from hotpatch.emulator.supply import Supply
    from hotpatch.errors import Fault
    from hotpatch.image import Image
    from hotpatch.unwind import Located

DATA = Rights.READ | Rights.WRITE
_STRING_LIMIT = 1 << 20
_MAX_THREADS = 1024
_RESERVED = (
    (layout.STACK_VA, layout.PEB_VA),
    (layout.PEB_VA, layout.HEAP_VA),
    (layout.HEAP_VA, layout.CALL_BUFFER_VA + (1 << 36)),
    (layout.GATE_VA, 1 << 47),
)
"""Address ranges where no image may be loaded."""


@dataclass(frozen=True, slots=True)
class ProcessEvent:
    """Something that happened.

    Attributes:
        at: Instructions that the program had executed.
        thread: Whose doing it was; 0 for the host's.
        kind: ``load``, ``spawn``, ``exit``, ``wait``, ``apply``, ``fault`` …
        details: JSON-compatible.
    """

    at: int
    thread: int
    kind: str
    details: Mapping[str, object]


@dataclass(slots=True)
class Counters:
    """Numbers that a snapshot takes along."""

    instructions: int = 0
    skipped: int = 0
    """Ticks that passed while every thread slept."""
    quantum: int = 0
    """Instructions left of the current slice."""
    alone: bool = False
    """Whether it was given without a choice."""
    current: int = 0
    """Thread that has it, or 0."""
    next_thread: int = 1
    stdin: int = 0
    call_buffer: int = layout.CALL_BUFFER_VA
    allocation: int = layout.ALLOCATION_VA
    spawned: int = 0
    tls_used: int = 0
    fls_used: int = 0
    exit_code: int | None = None
    exited: bool = False
    """Whether the whole process has ended."""
    main: int = 0
    """Thread of the main program, or 0."""
    random: int = 0
    top_filter: int = 0
    """VA of the filter of SetUnhandledExceptionFilter, or 0."""
    vectored: tuple[tuple[int, int], ...] = ()
    """Vectored exception handlers in their order: handle, VA."""


class System:
    """See the module's text. Handlers of system functions get it as ``call.system``."""

    def __init__(self, machine: Machine, *, seed: int, settings: Settings) -> None:
        """An empty process: no module, no thread.

        Raises:
            CpuError: Unicorn cannot be used.
        """
        self.machine = machine
        self.seed = seed
        self.settings = settings
        self.convention = architecture(machine).convention
        self.memory = memory = Memory()
        self.counters = counters = Counters(random=seed)
        self.threads: dict[int, GuestThread] = {}
        threads = self.threads
        weak_memory, weak = weakref.proxy(memory), weakref.proxy(self)
        self.supplies: list[Supply] = []
        self.cpu = Cpu(
            machine,
            grow=lambda address: grow_stack(weak_memory, threads, address) or supply_page(weak_memory, weak.supplies, address),
            read=memory.read,
            clock=lambda: counters.instructions + counters.skipped,
        )
        memory.cpu = weakref.proxy(self.cpu)
        self.gates = Gates()
        self.handles = HandleTable()
        self.heap = Heap(memory)
        self.sync = Synchronization(weakref.proxy(self))
        self.shadows: dict[tuple[int, int], int] = {}
        """Shadow data of patches: id and object → address."""
        self.output = bytearray()
        self.events: list[ProcessEvent] = []
        self.fault: Fault | None = None
        self.active: GuestThread | None = None
        self.locator: Callable[[Va], Located | None] | None = None
        """Somebody who knows of code that stands in for other code (trampolines), for stack walks."""
        self._blank = self.cpu.save()
        self._modules: list[Module] = []
        self.available: dict[str, Image] = {}
        """Files that LoadLibrary finds, by normalised name."""
        self.loading = LoaderState()
        self.watchers = Watchers()
        self.tls = ModuleTls(weakref.proxy(self))
        self.streams = {stream: self.handles.open(self.handles.add(StreamObject(stream))) for stream in Stream}
        self.process_object = self.handles.add(ProcessObject())
        self._map_system()

    # services to handlers ----------------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """Virtual time in ticks of 100 ns since the program's first instruction."""
        return self.counters.instructions + self.counters.skipped

    def read_word(self, va: int) -> int:
        """64 bits of memory."""
        return int.from_bytes(self.memory.read(va, 8), "little")

    def guest_word(self, va: int) -> int:
        """64 bits of memory that the program may read."""
        return int.from_bytes(self.guest_read(va, 8), "little")

    def guest_read(self, va: int, size: int) -> bytes:
        """Memory that the program may read.

        Raises:
            AccessError: It may not.
        """
        found = self.memory.readable(va, size)
        if found is not None:
            return found
        self._commit(va, size)
        self.memory.check(va, size, Rights.READ, "read")
        return self.memory.read(va, size)

    def guest_write(self, va: int, data: bytes) -> None:
        """Store on the program's behalf.

        Raises:
            AccessError: The program may not write there.
        """
        if not self.memory.store(va, data):
            self._commit(va, len(data))
            self.memory.check(va, len(data), Rights.WRITE, "write")
            self.memory.write(va, data)

    def guest_string(self, va: int, width: int) -> bytes:
        """The characters of a string up to its NUL, ``width`` bytes each.

        Raises:
            AccessError: There is no NUL before unreadable memory.
        """
        found = bytearray()
        while len(found) < _STRING_LIMIT:
            room = PAGE - va % PAGE
            part = self.guest_read(va, room)
            at = next((i for i in range(0, room - width + 1, width) if not any(part[i : i + width])), None) if width > 1 else part.find(0)
            if at is not None and at >= 0:
                return bytes(found + part[:at])
            found += part
            va += room
        raise AccessError(va, "read")

    def argument(self, index: int) -> int:
        """Integer argument ``index`` of the system function that the active thread stands at."""
        registers = self.convention.integer_arguments
        if index < len(registers):
            return self.cpu.get(registers[index])
        stack = self.cpu.get(self.cpu.model.sp) + (0 if self.convention.link else 8) + self.convention.home_space
        return self.guest_word(stack + 8 * (index - len(registers)))

    def float_argument(self, position: int, floats_before: int) -> float:
        """A floating-point argument: by position, or by its own count, as the convention has it."""
        bits = self.cpu.model.read_float(self.cpu, position if self.convention.positional else floats_before)
        return float(struct.unpack("<d", bits.to_bytes(8, "little"))[0])

    def set_last_error(self, thread: GuestThread, code: int) -> None:
        """GetLastError of ``thread`` from now on."""
        self.memory.write(thread.teb + TEB["LastErrorValue"], code.to_bytes(4, "little"))

    def event(self, kind: str, *, thread: int | None = None, **details: object) -> None:
        """Record what happened."""
        who = thread if thread is not None else (self.active.id if self.active is not None else 0)
        self.record(kind, who, details)

    def record(self, kind: str, thread: int, details: dict[str, object]) -> None:
        """Record what happened by a thread's doing (0: the host's)."""
        self.events.append(ProcessEvent(self.counters.instructions, thread, kind, details))

    def end_slice(self) -> None:
        """Let the schedule decide anew."""
        self.counters.quantum = 0

    def guest_fill(self, va: int, byte: int, size: int) -> None:
        """Store ``size`` times the same byte on the program's behalf.

        Raises:
            AccessError: The program may not write there.
        """
        self._commit(va, size)
        self.memory.check(va, size, Rights.WRITE, "write")
        self.memory.write(va, bytes((byte,)) * size)

    def random(self, size: int) -> bytes:
        """Bytes that depend on the seed and on how many were asked for before."""
        found = bytearray()
        while len(found) < size:
            self.counters.random, value = splitmix(self.counters.random)
            found += value.to_bytes(8, "little")
        return bytes(found[:size])

    # modules -----------------------------------------------------------------------------------------------------------------------------

    def modules(self) -> tuple[Module, ...]:
        """In load order."""
        return tuple(self._modules)

    def enlist(self, module: Module, before: Va | None = None) -> None:
        """Make a module known, a patch image among them; whoever does that tells of it."""
        places = [place for place, other in enumerate(self._modules) if other.va == before]
        self._modules.insert(places[0] if places else len(self._modules), module)

    def remove(self, module: Module) -> None:
        """Forget a module."""
        self._modules.remove(module)

    def module_at(self, va: int) -> Module | None:
        """The module that ``va`` lies in."""
        return next((module for module in self._modules if module.va <= va < module.va + module.size), None)

    def module_of(self, va: int) -> Module:
        """The module whose first byte is at ``va``; there must be one."""
        return next(module for module in self._modules if module.va == va)

    def reserved(self, va: int, size: int) -> bool:
        """Whether a range touches an area that is not for images."""
        return any(va < high and va + size > low for low, high in _RESERVED)

    # threads -----------------------------------------------------------------------------------------------------------------------------

    def new_thread(self, start: int, argument: int, *, stack: int = 0, host: bool = False, suspended: bool = False) -> GuestThread:
        """A thread that stands at the thread gate, ready to run ``start``.

        Raises:
            HotpatchError: There are too many threads.
        """
        number = self.counters.next_thread
        if number > _MAX_THREADS:
            raise HotpatchError(f"the program has started more than {_MAX_THREADS} threads")
        self.counters.next_thread += 1
        top = layout.STACK_VA + number * layout.STACK_STRIDE
        reserve = min(max(stack, self._default_stack(), layout.STACK_COMMIT), layout.STACK_RESERVE_LIMIT)
        self.memory.map(top - layout.STACK_COMMIT, layout.STACK_COMMIT, DATA, RegionKind.STACK, f"stack {number}")
        teb = layout.TEB_VA + number * layout.TEB_STRIDE
        self.memory.map(teb, TLS_ARRAY + PAGE, DATA, RegionKind.SYSTEM, f"teb {number}")
        low = (top - reserve) & -PAGE
        thread = GuestThread(number, start, argument, teb, top, low, self.handles.add(ThreadObject(number)), host=host)
        if suspended:
            thread.suspended, thread.state = 1, ThreadState.SUSPENDED
        self._fill_teb(thread)
        self.threads[number] = thread
        self.tls.begin(thread)
        self.activate(thread)
        self.counters.spawned += not host
        self.end_slice()
        return thread

    def activate(self, thread: GuestThread | None) -> None:
        """Bring a thread's registers into the processor; those of the one before are kept with it."""
        if self.active is thread:
            return
        self.park()
        if thread is not None:
            if thread.context is not None:
                self.cpu.restore(thread.context)
            else:
                self.cpu.restore(self._blank)
                self.cpu.model.enter_thread(self.cpu, thread.teb)
                self.cpu.set(self.cpu.model.sp, thread.stack_top - 0x80)
                self.cpu.pc = self.gates.thread
        self.active = thread

    def park(self) -> None:
        """Keep the active thread's registers with it; no thread is active afterwards."""
        if self.active is not None:
            self.active.context = self.cpu.save()
            self.active = None

    def registers(self, thread: GuestThread) -> dict[str, int]:
        """The thread's integer registers, by name."""
        self.activate(thread)
        return self.cpu.general()

    def end_thread(self, thread: GuestThread, code: int) -> None:
        """The thread is no more: its object is signalled, its mutexes are abandoned, its stack and TEB are gone."""
        thread.state, thread.exit_code, thread.wait, thread.frames = ThreadState.ENDED, code, None, ()
        objects = self.handles.objects
        objects[thread.object] = ThreadObject(thread.id, code)
        for number, thing in objects.items():
            if isinstance(thing, Mutex) and thing.owner == thread.id:
                objects[number] = replace(thing, owner=0, depth=0, abandoned=True)
        if self.active is thread:
            self.active = None
        thread.context = None
        self.loading.abandon(thread)
        for region in self.memory.regions():
            if region.name in (f"stack {thread.id}", f"teb {thread.id}"):
                self.memory.unmap(region)
        self.event("exit", thread=thread.id, exit_code=code)
        self.end_slice()

    def clear_flags(self, thread: GuestThread) -> None:
        """A call of the host's has ended: the next one begins as a new thread does."""
        flags = layout.THREAD_FLAGS
        self.memory.write(thread.teb + flags.start, bytes(len(flags)))

    def restore_threads(self, threads: Iterable[GuestThread]) -> None:
        """Threads as in a snapshot; the snapshot's own are left alone, and who holds one of ours goes on holding it."""
        self.active = None
        known = dict(self.threads)
        self.threads.clear()
        for thread in threads:
            here = self.threads[thread.id] = known.get(thread.id) or copy.copy(thread)
            for item in fields(thread):
                setattr(here, item.name, getattr(thread, item.name))

    def restore_counters(self, counters: Counters) -> None:
        """Counters as in a snapshot."""
        for counter in fields(Counters):
            setattr(self.counters, counter.name, getattr(counters, counter.name))

    def restore_modules(self, modules: Iterable[Module]) -> None:
        """Modules as in a snapshot."""
        self._modules[:] = modules

    def set_command_line(self, line: str) -> None:
        """What GetCommandLine gives from now on."""
        self.settings.command_line = line
        region = self.memory.find(layout.PARAMETERS_VA)
        if region is not None:
            self.memory.unmap(region)
        self.parameters = map_parameters(self.memory, self.settings)

    def lives(self) -> bool:
        """Whether a thread of the program has not ended."""
        for thread in self.threads.values():  # noqa: SIM110  single steps ask each time, and a generator takes several times as long
            if thread.alive and not thread.host:
                return True
        return False

    def living(self) -> list[GuestThread]:
        """The program's threads that have not ended, by id."""
        return [thread for thread in self.threads.values() if thread.alive and not thread.host]

    # inside ------------------------------------------------------------------------------------------------------------------------------

    def _map_system(self) -> None:
        model = self.cpu.model
        stub_size = 16
        code = model.guard_check.ljust(stub_size, model.guard_check[:1]) + (model.guard_dispatch or b"")
        self.memory.map(layout.STUB_VA, PAGE, Rights.READ | Rights.EXECUTE, RegionKind.SYSTEM, "system stubs", code)
        self.guard_check = Va(layout.STUB_VA)
        self.guard_dispatch = Va(layout.STUB_VA + stub_size) if model.guard_dispatch else None
        peb = bytearray(layout.PEB_SIZE)
        peb[PEB["ProcessHeap"] : PEB["ProcessHeap"] + 8] = self.heap.default.to_bytes(8, "little")
        peb[PEB["NumberOfProcessors"] : PEB["NumberOfProcessors"] + 4] = (1).to_bytes(4, "little")
        self.parameters = map_parameters(self.memory, self.settings)
        self.memory.map(layout.PEB_VA, layout.PEB_SIZE, DATA, RegionKind.SYSTEM, "peb", bytes(peb))

    def _default_stack(self) -> int:
        return 1 << 20

    def _fill_teb(self, thread: GuestThread) -> None:
        values = {
            "StackBase": thread.stack_top,
            "StackLimit": thread.stack_low,
            "Self": thread.teb,
            "ProcessId": layout.PROCESS_ID,
            "ThreadId": thread.id,
            "ThreadLocalStoragePointer": thread.teb + TLS_ARRAY,
            "ProcessEnvironmentBlock": layout.PEB_VA,
        }
        for name, value in values.items():
            self.memory.write(thread.teb + TEB[name], value.to_bytes(8, "little"))

    def _commit(self, va: int, size: int) -> None:
        if size and self.memory.find(va) is None:
            grow_stack(self.memory, self.threads, va)
