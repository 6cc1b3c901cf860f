"""The emulated process as others hold it: it loads, calls, runs, stops, is copied and put back, and is the engine's target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.address import Rva, Va
from hotpatch.emulator import faults, interjected, layout, loader, mappings
from hotpatch.emulator.calls import lay_out
from hotpatch.emulator.kernel import Alarm, Kernel
from hotpatch.emulator.libraries import library_name
from hotpatch.emulator.loader import DLL_PROCESS_ATTACH
from hotpatch.emulator.memory import RegionKind, page_up
from hotpatch.emulator.parameters import Settings
from hotpatch.emulator.schedule import SeededSchedule
from hotpatch.emulator.snapshots import put_back, take
from hotpatch.emulator.system import System
from hotpatch.emulator.threads import ThreadState
from hotpatch.engine.target import Module, Region, Rights, Thread
from hotpatch.errors import ApplyRefused, EmulatedFault, FaultKind, HotpatchError, InputError, InputRule, Refusal, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from hotpatch.arch import Machine
    from hotpatch.emulator.schedule import Schedule
    from hotpatch.emulator.snapshots import GuestSnapshot
    from hotpatch.emulator.supply import Supply
    from hotpatch.emulator.threads import GuestThread
    from hotpatch.engine.target import ModuleWatcher, PageRights
    from hotpatch.errors import Fault, StackFrame
    from hotpatch.image import Image, Import

START_BUDGET = 50_000_000
"""Instructions that the start-up of DLLs may take."""


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """Result registers of a call, and the instructions that all threads executed meanwhile."""

    value: int
    float_bits: int
    instructions: int


class Guest:
    """A process on Unicorn. Implements :class:`hotpatch.engine.target.Target`."""

    def __init__(
        self,
        image: Image,
        *,
        load_base: Va | None = None,
        modules: Sequence[Image] = (),
        available: Sequence[Image] = (),
        seed: int = 0,
        settings: Settings | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        """Load ``image`` and ``modules`` and start up their DLLs; ``available`` are DLLs that LoadLibrary finds.

        Raises:
            InputError: An image cannot be loaded.
            EmulatedFault: A DLL's start-up faulted.
        """
        self.system = System(image.machine, seed=seed, settings=settings or Settings(command_line=image.name))
        self.kernel = Kernel(self.system, schedule or SeededSchedule(seed))
        self.system.available = loader.by_name(self.system, available)
        loader.load(self.system, [(image, load_base), *((module, None) for module in modules)])
        self.module = self.system.modules()[0]
        self._stood_for: set[tuple[str, str]] = set()
        self._host = self.system.new_thread(0, 0, host=True)
        self._host.state = ThreadState.IDLE
        self._partial_start = settings is not None and settings.partial_start
        self.start_ended_at: tuple[str, ...] = ()
        """What DLLs' start-ups called that the emulator does not provide, and ended at."""
        self._start_dlls()
        self.kernel.schedule = schedule or SeededSchedule(seed)

    # running -----------------------------------------------------------------------------------------------------------------------------

    @property
    def instructions(self) -> int:
        """Executed since the program's first, by all threads."""
        return self.system.counters.instructions

    @property
    def fault(self) -> Fault | None:
        """What ended the program, if anything did."""
        return self.system.fault

    @property
    def exited(self) -> bool:
        """Whether the whole process has ended by itself."""
        return self.system.counters.exited

    @property
    def waits_for_input(self) -> bool:
        """Whether no thread can run before more standard input comes, or its end."""
        return not self.exited and self.fault is None and self.kernel.waits_for_input()

    def start_main(self, stack: int = 0) -> int:
        """Make the thread of an exe's main program; :meth:`run` runs it. Returns its id.

        Raises:
            InputError: The image is a DLL or has no entry point, or the program was started before.
        """
        image = self.module.image
        if image.is_dll:
            problem = "is a DLL, and no program to run; call one of its functions, or run a program that loads it"
            raise InputError(image.path, problem, InputRule.LOAD)
        if not image.entry_point:
            raise InputError(image.path, "has no entry point to start at; call one of its functions instead", InputRule.LOAD)
        if self.system.counters.main:
            raise InputError(image.path, "has been started in this process before; make a new process", InputRule.LOAD)
        thread = self.system.new_thread(self.module.va + image.entry_point, layout.PEB_VA, stack=stack)
        self.system.counters.main = thread.id
        self.system.event("spawn", thread=thread.id, start=thread.start)
        return thread.id

    def spawn(self, va: Va, argument: int) -> int:
        """Make a thread that calls ``va`` with one argument; :meth:`run` runs it. Returns its id."""
        self._alive()
        thread = self.system.new_thread(va, argument)
        self.system.event("spawn", thread=thread.id, start=va)
        return thread.id

    def run(self, until: int) -> None:
        """Run all threads until the program has executed ``until`` instructions since its first, or all have ended, or one faulted."""
        self.kernel.run(until)

    def step(self, thread: int, count: int) -> int:
        """Run one thread alone for up to ``count`` instructions; returns how many it executed."""
        return self.kernel.step(self._thread(thread), count)

    def call(self, va: Va, arguments: Sequence[int | float], *, budget: int) -> CallOutcome:
        """Call a function on the host's thread, while the program's threads go on, and give its results.

        Raises:
            HotpatchError: The program ended its process instead.
            EmulatedFault: The program faulted or exceeded ``budget`` instructions. Other calls can be made after a fault of the
                call itself; its changes to memory stay.
        """
        before = self.instructions
        self.begin_call(va, arguments)
        return self.finish_call(before, va, budget=budget)

    def begin_call(self, va: Va, arguments: Sequence[int | float]) -> None:
        """Make the host's thread stand at a function's first instruction, as a call leaves it; :meth:`run_call` goes on from there."""
        self._alive()
        layout_ = lay_out(self.system.convention, arguments)
        self.kernel.begin_call(self._host, va, layout_.integers, layout_.floats, layout_.stack)

    def run_call(self, until: int) -> bool:
        """Run until the program has executed ``until`` instructions since its first; whether the host's call is still under way."""
        self.kernel.run(until, call=True)
        return self._host.state in (ThreadState.READY, ThreadState.BLOCKED) and not self.exited and self.fault is None

    def finish_call(self, before: int, va: Va, *, budget: int) -> CallOutcome:
        """Run the host's call of the function at ``va``, begun after ``before`` instructions, to its end; as :meth:`call`."""
        system, host = self.system, self._host
        self.run_call(before + budget)
        if host.state is ThreadState.IDLE:
            system.activate(host)
            value = system.cpu.get(system.convention.result)
            bits = system.cpu.model.read_float(system.cpu, 0)
            return CallOutcome(value, bits, self.instructions - before)
        fault = system.fault
        mine = host.state is ThreadState.FAULTED
        if fault is None and not system.counters.exited:
            system.counters.current = host.id
            fault, mine = self.kernel.over_budget(), True
        self.kernel.abandon_call(host)
        if fault is None:
            called = faults.function_name(system, va) or f"the function at 0x{va:x}"
            raise HotpatchError(
                f"the process ended (exit code {system.counters.exit_code}) inside of the call of {called}; run the program as a whole"
            )
        if mine:
            system.fault = None
        raise EmulatedFault(fault)

    def at(self, instructions: int, action: Callable[[], None]) -> None:
        """Have ``action`` done when the program has executed that many instructions since its first, before the next one."""
        self.kernel.alarms.append(Alarm(instructions, action))

    # copies ------------------------------------------------------------------------------------------------------------------------------

    def snapshot(self) -> GuestSnapshot:
        """The process as it is; microseconds to a millisecond, by the memory that the program can write."""
        return take(self.system, self.kernel)

    def restore(self, snapshot: GuestSnapshot) -> None:
        """The process as :meth:`snapshot` found it."""
        put_back(self.system, self.kernel, snapshot)
        self._host = next(thread for thread in self.system.threads.values() if thread.host)

    # hotpatch.engine.target.Target -------------------------------------------------------------------------------------------------------

    @property
    def machine(self) -> Machine:
        """See :class:`~hotpatch.engine.target.Target`."""
        return self.system.machine

    @property
    def clock(self) -> int:
        """See :class:`~hotpatch.engine.target.Target`."""
        return self.instructions

    @property
    def thread_flags(self) -> range:
        """See :class:`~hotpatch.engine.target.Target`."""
        return layout.THREAD_FLAGS

    def modules(self) -> tuple[Module, ...]:
        """See :class:`~hotpatch.engine.target.Target`."""
        return self.system.modules()

    def threads(self) -> tuple[Thread, ...]:
        """See :class:`~hotpatch.engine.target.Target`. The host's thread is among them only while it makes a call."""
        found = []
        for thread in self.system.threads.values():
            if thread.alive and thread.state is not ThreadState.IDLE:
                registers = self.system.registers(thread)
                model = self.system.cpu.model
                pc, sp = Va(registers[model.pc]), Va(registers[model.sp])
                found.append(Thread(thread.id, pc, sp, registers, Va(thread.teb), self._suspended(thread)))
        return tuple(found)

    def regions(self) -> tuple[Region, ...]:
        """See :class:`~hotpatch.engine.target.Target`. Parts of one stack count as one."""
        found: list[tuple[Region, str]] = []
        for region in self.system.memory.regions():
            if found and region.kind is RegionKind.STACK:
                last, name = found[-1]
                if name == region.name and last.va + last.size == region.va and last.rights == region.rights:
                    found[-1] = Region(last.va, last.size + region.size, last.rights), name
                    continue
            found.append((Region(Va(region.va), region.size, region.rights), region.name))
        return tuple(region for region, _ in found)

    def set_registers(self, thread: int, registers: Mapping[str, int]) -> None:
        """See :class:`~hotpatch.engine.target.Target`."""
        self.system.activate(self._thread(thread))
        cpu = self.system.cpu
        before = cpu.save()
        try:
            for name, value in registers.items():
                cpu.set(name, value)
        except HotpatchError:
            cpu.restore(before)
            raise

    def read(self, va: Va, size: int) -> bytes:
        """See :class:`~hotpatch.engine.target.Target`."""
        return self.system.memory.read(va, size)

    def write_data(self, va: Va, data: bytes) -> None:
        """See :class:`~hotpatch.engine.target.Target`.

        Where the memory is executable, fetch sees it at once: what never ran is in no cache.
        """
        self.system.memory.write(va, data)
        self.system.memory.flush(va, len(data))

    def write_code(self, va: Va, expected: bytes, new: bytes) -> None:
        """See :class:`~hotpatch.engine.target.Target`."""
        if len(expected) != len(new):
            raise HotpatchError(
                f"{len(expected)} bytes are expected at 0x{va:x} and {len(new)} would be written; give the same number of both"
            )
        memory = self.system.memory
        found = memory.read(va, len(expected))
        if found != expected:
            evidence = {"va": va, "expected": expected.hex(), "found": found.hex()}
            where = self.system.module_at(va)
            reason = f"0x{va:x} holds {found.hex()} where {expected.hex()} is expected; find out who changed it before patching"
            rva = None if where is None else Rva(va - where.va)
            raise ApplyRefused([Refusal(Rule.UNEXPECTED_BYTES, faults.function_name(self.system, va), rva, reason, evidence)])
        memory.write(va, new)
        memory.flush(va, len(new))

    def find_room(self, size: int, *, near: Va, reach: int, above: bool = True) -> Va:
        """See :class:`~hotpatch.engine.target.Target`."""
        return mappings.find_room(self.system.memory, size, near=near, reach=reach, above=above)

    def map(self, va: Va, size: int, rights: PageRights, content: bytes = b"") -> None:
        """See :class:`~hotpatch.engine.target.Target`."""
        self.system.memory.map(va, size, rights, RegionKind.HOST, "patch", content)

    def unmap(self, va: Va) -> None:
        """See :class:`~hotpatch.engine.target.Target`."""
        mappings.unmap(self.system.memory, va)

    def add_module(self, name: str, va: Va, image: Image, *, before: Va | None = None) -> None:
        """See :class:`~hotpatch.engine.target.Target`."""
        self.system.enlist(Module(name.lower(), va, image.size_of_image, image), before)

    def remove_module(self, va: Va) -> None:
        """See :class:`~hotpatch.engine.target.Target`."""
        module = next((module for module in self.modules() if module.va == va), None)
        if module is None:
            raise HotpatchError(f"no module is at 0x{va:x}")
        self.system.remove(module)

    def watch_modules(self, watcher: ModuleWatcher) -> None:
        """See :class:`~hotpatch.engine.target.Target`."""
        self.system.watchers.add(watcher)

    def resolve_import(self, library: str, name: str | None, ordinal: int | None) -> Va | None:
        """See :class:`~hotpatch.engine.target.Target`."""
        found = loader.resolve(self.system, library, name, ordinal)
        if found is None and (symbol := _symbol(library_name(library), name, ordinal)) in self._stood_for:
            return self.system.gates.unknown(*symbol)
        return found

    def stand_for(self, library: str, name: str | None, ordinal: int | None) -> str:
        """Take an import for one that the process has from now on; a call of it is a fault that names it. Returns its label."""
        symbol = _symbol(library_name(library), name, ordinal)
        self._stood_for.add(symbol)
        return "!".join(symbol)

    def checkpoint(self) -> Callable[[], None]:
        """See :class:`~hotpatch.engine.target.Target`."""
        before, kernel = self.snapshot(), self.kernel
        watcher, ended = kernel.on_slice, kernel.call_ended

        def back() -> None:
            kernel.on_slice, kernel.call_ended = watcher, ended
            self.restore(before)

        return back

    def call_between(self, va: Va, arguments: Sequence[int], *, budget: int) -> int:
        """See :class:`~hotpatch.engine.target.Target`. The host's thread makes the call, also in the middle of another one."""
        return interjected.call_between(self.kernel, self._host, va, arguments, budget)

    def event(self, kind: str, **details: object) -> None:
        """See :class:`~hotpatch.engine.target.Target`."""
        self.system.record(kind, 0, details)

    def provide(self, supply: Supply) -> None:
        """Ask ``supply`` from now on for pages that the program touches and that are not mapped; a snapshot takes its answers along."""
        self.system.supplies.append(supply)

    def arrange_imports(self, imports: Iterable[Import]) -> None:
        """Bind the image anew: those of ``imports`` that nobody provides get VAs that are the same in every process given the same."""
        symbols = {_symbol(library_name(item.library), item.name, item.ordinal): item for item in imports}
        unknown = (key for key, item in symbols.items() if loader.resolve(self.system, item.library, item.name, item.ordinal) is None)
        self.system.gates.arrange(["!".join(key) for key in sorted(unknown)])
        loader.bind(self.system, self.module)

    def reset_data(self) -> None:
        """Give the image's writable data, thread-local ones too, what the loader left there, before the start-up ran."""
        loader.reset_data(self.system, self.module)

    # views -------------------------------------------------------------------------------------------------------------------------------

    def function_name(self, va: Va) -> str | None:
        """The function that ``va`` lies in, where known."""
        return faults.function_name(self.system, va)

    def stack(self, thread: int) -> tuple[StackFrame, ...]:
        """A thread's stack, innermost first."""
        return faults.walk(self.system, self._thread(thread))

    def allocate(self, data: bytes) -> Va:
        """Memory of the program's for an argument of a call, valid until the process ends, holding ``data``."""
        counters, memory = self.system.counters, self.system.memory
        va, end = counters.call_buffer, counters.call_buffer + max(len(data), 1)
        start = page_up(va)
        while (mapped := memory.find(start)) is not None:
            start = mapped.end
        if end > start:
            memory.map(
                start, max(page_up(end) - start, layout.ALLOCATION_GRANULE), Rights.READ | Rights.WRITE, RegionKind.HOST, "arguments"
            )
        memory.write(va, data)
        counters.call_buffer = end + 31 & -16
        return Va(va)

    # inside ------------------------------------------------------------------------------------------------------------------------------

    def _alive(self) -> None:
        if self.system.fault is not None:
            raise EmulatedFault(self.system.fault)
        if self.system.counters.exited:
            raise HotpatchError("the process has ended; make a new one")

    def _thread(self, number: int) -> GuestThread:
        thread = self.system.threads.get(number)
        if thread is None or not thread.alive:
            raise HotpatchError(f"there is no thread {number} in the process")
        return thread

    def _suspended(self, thread: GuestThread) -> tuple[Mapping[str, int], ...]:
        model, link = self.system.cpu.model, self.system.convention.link
        gate = self.system.gates.callback
        found: list[Mapping[str, int]] = []
        calls = thread.frames
        while calls:
            call = calls[-1]
            if call.interrupted is not None:
                found.append(call.interrupted.registers)
                calls = call.interrupted.calls
            else:
                found.append({**dict(call.kept), model.pc: gate, model.sp: call.sp, **({link: call.link} if link else {})})
                calls = calls[:-1]
        return tuple(found)

    def _start_dlls(self) -> None:
        """Call the DLLs' entry points; what that executes is not counted."""
        system = self.system
        order = loader.initialisation_order(system.modules())
        calls = [call for module in order for call in loader.entry_calls(system, module, DLL_PROCESS_ATTACH)]
        for va, arguments in calls:
            try:
                done = self.call(Va(va), arguments, budget=START_BUDGET)
            except EmulatedFault as error:
                if not self._partial_start or error.fault.kind is not FaultKind.UNKNOWN_IMPORT:
                    raise
                self.start_ended_at += (error.fault.function or "",)
                continue
            module = system.module_at(va)
            is_entry = module is not None and module.image.entry_point == va - module.va
            if is_entry and module is not None and not done.value & 0xFFFF_FFFF:
                raise InputError(
                    module.image.path,
                    "refuses to be loaded: its entry point returned FALSE; give the modules that it needs, too",
                    InputRule.LOAD,
                )
        system.counters.instructions = system.counters.skipped = 0
        for thread in system.threads.values():
            thread.executed = 0


def _symbol(library: str, name: str | None, ordinal: int | None) -> tuple[str, str]:
    return library, name if name is not None else f"#{ordinal}"
