"""An emulated process with an engine on it: what users hold in their hands."""

from __future__ import annotations

import struct
import weakref
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.emulator.commandline import join_command_line
from hotpatch.emulator.guest import Guest
from hotpatch.emulator.parameters import Settings
from hotpatch.engine import AppliedPatch, Consistency, Engine, PatchState
from hotpatch.engine.identity import is_build
from hotpatch.errors import ApplyRefused, InputError, Refusal, Refused, RevertRefused, Rule, expect
from hotpatch.image import Image
from hotpatch.patch import Patch
from hotpatch.process.model import AppliedAt, Argument, CallResult, PendingCall, ProcessSnapshot, RunResult, ThreadView
from hotpatch.process.passing import passed
from hotpatch.process.patches import Patches
from hotpatch.process.views import thread_views

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hotpatch.arch import Machine
    from hotpatch.emulator.schedule import Schedule
    from hotpatch.emulator.system import ProcessEvent
    from hotpatch.engine import Status
    from hotpatch.errors import Fault

BUDGET = 1_000_000_000
"""Instructions after which a call or a whole run is given up (fault instruction-budget), unless said otherwise."""

_NO_BUDGET = "is none; give the number of instructions after which the program is given up, at least 1"
_STRIDE = 1000
"""Instructions that :meth:`Process.wait` may run past the end of what it waits for."""


def _expect_patch(patch: object, wait: int | None) -> None:
    """Refuse what is no patch, above all paths, and a wait that ends before it begins.

    Raises:
        InputError: One of them cannot be used.
    """
    expect(patch, Patch, "a Patch", "hotpatch.build makes one and hotpatch.load reads one")
    if wait is not None and wait < 0:
        raise InputError(f"wait {wait}", "is negative; give a number of instructions from 0")


class Process:
    """An emulated Windows process that can be patched while it runs.

    Attributes:
        guest: The emulated process (it implements :class:`hotpatch.engine.Target`).
        engine: The engine that patches it.
        last: Details of the last :meth:`call`.
    """

    def __repr__(self) -> str:
        """What runs, where, and how far it has come."""
        state = "ended" if self.guest.exited else f"{self.instructions} instructions"
        return f"<Process {self.base.name} [{self.machine}] at 0x{self.load_base:x}, {state}>"

    def __init__(
        self,
        base: Image,
        *,
        load_base: int | None = None,
        seed: int = 0,
        modules: Sequence[Image] = (),
        available: Sequence[Image] = (),
        stdin: bytes = b"",
        more_input: bool = False,
        args: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        consistency: Consistency | str = Consistency.IMMEDIATE,
        schedule: Schedule | None = None,
        budget: int = BUDGET,
        partial_start: bool = False,
        any_page: bool = False,
    ) -> None:
        """Load ``base`` (a DLL or an exe) and ``modules``, and start up the DLLs among them.

        Args:
            base: The image.
            load_base: VA of its first byte, a multiple of 0x10000; its preferred base where ``None``.
            seed: Of every choice the process makes: interleaving, random numbers, security cookies.
            modules: Other DLLs of the process.
            available: DLLs that the program may load while it runs (LoadLibrary), found by their names, and by it alone.
            stdin: What the program reads from its standard input.
            more_input: Whether :meth:`feed` may add to that: at its end ReadFile waits (the C run time's functions don't) until
                :meth:`end_input`.
            args: Of an exe's command line, after the program's name.
            environment: The program's environment variables.
            consistency: Of :meth:`apply`, unless said there.
            schedule: Decides interleavings instead of ``seed``.
            budget: Instructions after which a call or a whole run is given up.
            partial_start: Whether a DLL's start-up ends where it calls what the emulator does not provide, instead of being a fault.
            any_page: Whether ``load_base`` may be a multiple of 0x1000, where Windows loads nothing.

        Raises:
            InputError: An image cannot be loaded, or something given is of another kind.
            EmulatedFault: A DLL's start-up faulted.
        """
        for name, images in (("modules", modules), ("available", available)):
            expect(images, (list, tuple), "a list of images", f"write {name}=[…]")
        for image in (base, *modules, *available):
            expect(image, Image, "an Image", "hotpatch.open reads one from a file")
        for name, number in (("load_base", load_base), ("seed", seed), ("budget", budget)):
            expect(number, (int, type(None)) if name == "load_base" else int, "an int", f"give {name} as a number")
        expect(stdin, (bytes, bytearray, memoryview), "bytes", "encode the text")
        if isinstance(args, str):
            raise InputError(repr(args), f"is one text where a list is wanted; write args=[{args!r}]")
        if budget < 1:
            raise InputError(f"budget {budget}", _NO_BUDGET)
        settings = Settings(
            join_command_line((base.name, *args)), dict(environment or {}), bytes(stdin), more_input, partial_start, any_page
        )
        self.base = base
        self.consistency = self._consistency(consistency)
        self.budget = budget
        base_va = None if load_base is None else Va(load_base)
        self.guest = Guest(base, load_base=base_va, modules=modules, available=available, seed=seed, settings=settings, schedule=schedule)
        self.engine = Engine(self.guest)
        knower = weakref.proxy(self.engine)
        self.guest.system.locator = lambda va: knower.locate(va)
        watcher = weakref.proxy(self)
        self.guest.kernel.on_slice = lambda: watcher._poll()
        self._patches = Patches(self.guest)
        self.last: CallResult | None = None

    # what it is --------------------------------------------------------------------------------------------------------------------------

    @property
    def machine(self) -> Machine:
        """Its instruction set."""
        return self.guest.machine

    @property
    def load_base(self) -> Va:
        """VA of the base image's first byte."""
        return self.guest.module.va

    @property
    def output(self) -> str:
        """Everything that the program has written, UTF-8 with undecodable bytes as a backslash, x and two digits."""
        return self.guest.system.output.decode("utf-8", "backslashreplace")

    @property
    def exit_code(self) -> int | None:
        """Of the process, ``None`` while it lives."""
        return self.guest.system.counters.exit_code if self.guest.exited else None

    @property
    def instructions(self) -> int:
        """Executed since the program's first, by all threads; start-up of DLLs is not counted."""
        return self.guest.instructions

    @property
    def fault(self) -> Fault | None:
        """What ended the program, if anything did."""
        return self.guest.fault

    @property
    def events(self) -> tuple[ProcessEvent, ...]:
        """What has happened, in order."""
        return tuple(self.guest.system.events)

    @property
    def refused(self) -> tuple[Refusal, ...]:
        """What :meth:`apply_at` and :meth:`revert_at` met, and patches that wait for a module, as that was loaded or unloaded."""
        self._patches.refused += self.engine.unheard()
        return tuple(self._patches.refused)

    @property
    def applied(self) -> list[AppliedAt]:
        """Patches that :meth:`apply_at` put in."""
        return self._patches.applied

    @property
    def threads(self) -> int:
        """Threads that the program has started so far."""
        return self.guest.system.counters.spawned

    def address_of(self, function: str | int) -> Va:
        """VA of a function: an export, a symbol, ``rva:0x…`` of the base, ``module!function``, or a VA itself.

        Raises:
            Refused: There is no such function (no-such-function).
            InputError: There is no such module, or the text names no function.
        """
        if isinstance(function, int):
            return Va(function)
        expect(function, str, "a name or an address", "give a str or an int")
        library, bang, name = function.rpartition("!")
        module = self.guest.module
        if bang:
            wanted = [module for module in self.guest.modules() if module.name in (library.lower(), f"{library.lower()}.dll")]
            if not wanted:
                raise InputError(function, f"no module called {library} is in the process; give it with --module")
            module = wanted[0]
        try:
            return Va(module.va + module.image.function_named(name).entry)
        except InputError as error:
            raise InputError(function, error.problem, error.rule) from error

    # running -----------------------------------------------------------------------------------------------------------------------------

    def call(self, function: str | int, *args: Argument) -> int:
        """Call a function of the program and give its integer result, unsigned 64 bits; :attr:`last` has the rest.

        Args:
            function: As :meth:`address_of` takes it.
            args: Numbers by value; bytes, Buffer and str by pointer to a copy that is valid until the process ends. Buffers are read back.

        Raises:
            EmulatedFault: The program faulted or used up its budget.
            Refused: There is no such function (no-such-function).
            InputError: An argument cannot be passed.
        """
        return self.call_details(function, *args).value

    def call_details(self, function: str | int, *args: Argument, budget: int | None = None) -> CallResult:
        """As :meth:`call`, with everything that the call gave; given up after ``budget`` instructions, the process's where ``None``."""
        if budget is not None and budget < 1:
            raise InputError(f"budget {budget}", _NO_BUDGET)
        return self.finish_call(self.begin_call(function, *args), budget=budget)

    def begin_call(self, function: str | int, *args: Argument) -> PendingCall:
        """Make the host's thread stand at the function's first instruction; nothing of it has run. As :meth:`call` otherwise."""
        va = self.address_of(function)
        words, buffers = passed(self.guest, args)
        pending = PendingCall(va, self.instructions, len(self.guest.system.output), tuple(buffers))
        self.guest.begin_call(va, words)
        return pending

    def finish_call(self, pending: PendingCall, *, budget: int | None = None) -> CallResult:
        """Run a call that :meth:`begin_call` began to its end, wherever it stands; raises as :meth:`call` does."""
        outcome = self.guest.finish_call(pending.began, pending.va, budget=self.budget if budget is None else budget)
        for buffer, place in pending.buffers:
            buffer.data = self.guest.read(place, len(buffer.data))
        output = bytes(self.guest.system.output[pending.written :]).decode("utf-8", "backslashreplace")
        number = float(struct.unpack("<d", outcome.float_bits.to_bytes(8, "little"))[0])
        self.last = CallResult(outcome.value, number, outcome.instructions, tuple(buffer.data for buffer, _ in pending.buffers), output)
        return self.last

    def spawn(self, function: str | int, argument: Argument = 0) -> int:
        """Start a thread that calls ``function`` with one argument; :meth:`run` and :meth:`call` run it. Returns its id.

        Raises:
            HotpatchError: The process has ended, or there is no such function.
        """
        words, _ = passed(self.guest, (argument,))
        if isinstance(words[0], float):
            raise InputError(repr(argument), "cannot be passed; a thread takes an integer or a pointer")
        return self.guest.spawn(self.address_of(function), words[0])

    def start(self, args: Sequence[str] | None = None) -> int:
        """Make the main thread of an exe; :meth:`run` runs it. ``args`` replaces those given at first. Returns the thread's id.

        Raises:
            InputError: The image is no program, or it was started before.
        """
        if args is not None:
            self.guest.system.set_command_line(join_command_line((self.base.name, *args)))
        return self.guest.start_main()

    def run(self, n: int | None = None) -> RunResult:
        """Run all threads for ``n`` instructions, or until nothing is left to run (at most the budget) or all wait for input.

        A fault of the program is in the result, not raised.

        Raises:
            HotpatchError: Something other than the program failed.
        """
        guest = self.guest
        if n is not None:
            guest.run(guest.instructions + n)
        else:
            guest.run(guest.instructions + self.budget)
            if not self.finished and guest.fault is None and not self.waits_for_input:
                guest.system.fault = guest.kernel.over_budget()
        return self.result()

    def feed(self, data: bytes) -> None:
        """Add to the program's standard input; :meth:`run` lets it read on.

        Raises:
            InputError: No more input was said to come, or its end has been told.
        """
        settings = self.guest.system.settings
        if not settings.more_input:
            raise InputError(self.base.name, "its standard input has ended; make the process with more_input to feed it while it runs")
        settings.stdin += bytes(data)

    def end_input(self) -> None:
        """Nothing more comes to the program's standard input: once it has read what is there, it is told so."""
        self.guest.system.settings.more_input = False

    @property
    def waits_for_input(self) -> bool:
        """Whether no thread can run before :meth:`feed` or :meth:`end_input`, as :meth:`run` left it."""
        return self.guest.waits_for_input

    def run_until(self, at: int) -> RunResult:
        """Run until the program has executed ``at`` instructions since its first, or nothing is left to run."""
        self.guest.run(at)
        return self.result()

    @property
    def position(self) -> tuple[int, Va] | None:
        """Which thread has its turn, and its next instruction; ``None`` between turns."""
        system = self.guest.system
        thread = system.threads.get(system.counters.current)
        return None if thread is None or system.active is not thread else (thread.id, Va(system.cpu.pc))

    @property
    def finished(self) -> bool:
        """Whether nothing is left to run."""
        return self.guest.exited or not self.guest.system.lives()

    def result(self) -> RunResult:
        """How the process stands now."""
        return RunResult(self.exit_code, self.output, self.instructions, self.threads, self.finished, self.fault)

    # patching ----------------------------------------------------------------------------------------------------------------------------

    def apply(self, patch: Patch, consistency: Consistency | str | None = None, *, wait: int | None = None) -> AppliedPatch:
        """Apply a patch now, or have it go in while the process runs on.

        With ``quiescent`` and ``per-thread`` threads that are inside of what it replaces have to leave first. Where there are such, the
        handle's ``state`` tells how far it is, and :meth:`wait` runs the process until it is there.

        Args:
            patch: What to apply.
            consistency: How calls change over; the process's where ``None``.
            wait: Instructions after which it is given up; ``None``: a million (``quiescent``) or never (``per-thread``).

        Raises:
            ApplyRefused: With every reason; the process is as it was.
            InputError: There is no such consistency.
        """
        _expect_patch(patch, wait)
        applied = self.engine.apply(patch, consistency=self._consistency(consistency), wait=wait)
        return self._patches.given(applied)

    def register(self, patch: Patch, consistency: Consistency | str | None = None, *, wait: int | None = None) -> AppliedPatch:
        """Apply a patch as :meth:`apply`, or, while its module is not loaded, have it go in when that is, before any code of that runs.

        If the module is unloaded and loaded again, the patch goes in again, however it went in first. :meth:`revert` ends that too.

        Raises:
            ApplyRefused: As :meth:`apply`, or another build of the module is loaded (wrong-base).
            InputError: There is no such consistency.
        """
        _expect_patch(patch, wait)
        registered = self.engine.register(patch, consistency=self._consistency(consistency), wait=wait)
        return self._patches.given(registered)

    def offers(self, patch: Patch) -> bool:
        """Whether a DLL that the program may load later is the patch's base."""
        return any(is_build(image, patch) for image in self.guest.system.available.values())

    def revert(self, applied: AppliedPatch, consistency: Consistency | str | None = None, *, wait: int | None = None) -> None:
        """Take an applied patch back, as it was applied unless ``consistency`` says otherwise; one on its way in is called off.

        Raises:
            RevertRefused: With every reason; the process is as it was.
            InputError: There is no such consistency.
        """
        expect(applied, AppliedPatch, "an AppliedPatch", "Process.apply gives one")
        self.engine.revert(applied, None if consistency is None else self._consistency(consistency), wait)

    def wait(self, applied: AppliedPatch, n: int | None = None) -> PatchState:
        """Run until nothing of a patch waits or is in transition any more, for ``n`` instructions at most (the budget), or to the end.

        Where no thread can run on (all wait for input, say, or the program has faulted), waiting for quiescence is given up.

        Raises:
            ApplyRefused: It was given up (not-quiescent); that of a revert is in :attr:`refused`.
        """
        last = self.instructions + (self.budget if n is None else n)
        while not applied.settled and self.instructions < last and not self.finished and self.fault is None:
            before = self.instructions
            self.guest.run(min(before + _STRIDE, last))
            if self.instructions == before:
                break
        if self.instructions < last and not self.finished:
            self._patches.refuse(self.engine.stand_still(applied))
        if applied.state is PatchState.REFUSED:
            raise ApplyRefused(applied.refusals)
        return applied.state

    def status(self) -> Status:
        """What is patched now, where, by which patch, in which state."""
        return self.engine.status()

    def at(self, instructions: int, action: Callable[[], None]) -> None:
        """Have ``action`` done when the program has executed that many instructions since its first, before the next one.

        What ``action`` raises comes out of the method that was running the process.
        """
        self.guest.at(instructions, action)

    @property
    def pending(self) -> tuple[int, ...]:
        """Instruction counts of what :meth:`at`, :meth:`apply_at` and :meth:`revert_at` still wait for."""
        return tuple(sorted(alarm.at for alarm in self.guest.kernel.alarms))

    def apply_at(self, instructions: int, patch: Patch, consistency: Consistency | str | None = None, *, wait: int | None = None) -> None:
        """Apply a patch at an instruction count, as :meth:`apply`; the program goes on either way.

        One for a DLL that the program may load later is registered, as :meth:`register`. :attr:`applied` and :attr:`refused` tell what
        came of it.
        """
        _expect_patch(patch, wait)
        how = self._consistency(consistency)

        def action() -> None:
            try:
                applied = (self.register if self.offers(patch) else self.apply)(patch, how, wait=wait)
            except Refused as refused:
                self._patches.refuse(refused.refusals)
            else:
                self._patches.expect(applied)

        self.guest.at(instructions, action)

    def revert_at(self, instructions: int, patch: Patch, *, wait: int | None = None) -> None:
        """Take a patch back at an instruction count, as :meth:`revert`; the newest application of it that stands or is on its way."""
        _expect_patch(patch, wait)

        def action() -> None:
            newest = self._patches.newest(patch)
            try:
                if newest is None:
                    reason = f"{patch.image.name} is not applied after {instructions} instructions; revert it later, or apply it earlier"
                    raise RevertRefused([Refusal(Rule.NOT_APPLIED, None, None, reason, {"at": instructions})])
                self.revert(newest, wait=wait)
            except Refused as refused:
                self._patches.refuse(refused.refusals)

        self.guest.at(instructions, action)

    # copies and views --------------------------------------------------------------------------------------------------------------------

    def snapshot(self) -> ProcessSnapshot:
        """The process and its patches as they are; can be restored any number of times, in any order."""
        self._patches.refused += self.engine.unheard()  # before the engine's own copy is made, which must not hold them too
        return ProcessSnapshot(self.guest.snapshot(), self.engine.snapshot(), self._patches.state(), self.last)

    def restore(self, snapshot: ProcessSnapshot) -> None:
        """The process and its patches as :meth:`snapshot` found them."""
        self.guest.restore(snapshot.guest)
        self.engine.restore(snapshot.engine)
        self._patches.restore(snapshot.patches)
        self.last = snapshot.last

    def stop_view(self) -> tuple[ThreadView, ...]:
        """Every living thread as it stands: registers, the next instructions, stack."""
        return thread_views(self.guest)

    # inside ------------------------------------------------------------------------------------------------------------------------------

    def _consistency(self, wanted: Consistency | str | None) -> Consistency:
        if wanted is None:
            return self.consistency
        try:
            return Consistency(wanted)
        except ValueError:
            raise InputError(str(wanted), f"no consistency; use one of {', '.join(Consistency)}") from None

    def _poll(self) -> bool:
        """Let the engine go on with what waits for threads; whether something still does."""
        progress = self.engine.poll()
        self._patches.refuse(progress.refused)
        self._patches.note()
        return progress.busy
