"""One function in one process, run on a scenery, calls out of it answered by the scenery; what it did, as a value."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.arch import Flow, architecture
from hotpatch.emulator import layout
from hotpatch.emulator.layout import TEB_SIZE
from hotpatch.emulator.memory import PAGE, AccessError, RegionKind
from hotpatch.engine import Rights
from hotpatch.errors import FaultKind
from hotpatch.verifier.micro_code import Code
from hotpatch.verifier.micro_course import Course, Leaf
from hotpatch.verifier.micro_history import History
from hotpatch.verifier.micro_observed import Observed, Seen
from hotpatch.verifier.micro_parts import Parts
from hotpatch.verifier.micro_scenery import Scenery
from hotpatch.verifier.micro_thread import block_page, environment, index_variable

if TYPE_CHECKING:
    from collections.abc import Collection

    from hotpatch.process import Process
    from hotpatch.verifier.micro_observed import Place
    from hotpatch.verifier.micro_paths import Block, Guide
    from hotpatch.verifier.micro_thread import Part

RUN_BUDGET = 20_000
"""Instructions of one run; a run that takes more is inconclusive."""
CALL_BUDGET = 1_000
"""Calls of one run, likewise."""
LEAF_BUDGET = 2_000
"""Instructions of one callee that is run; one that takes more is answered like all others: made-up numbers make its loops long."""
_STAYS_AWAY = "call-at-the-end"
_CALLS = (Flow.CALL, Flow.CALL_INDIRECT)
_TURNS = (Flow.BRANCH, Flow.JUMP_INDIRECT)
_THUNK = 3
"""Instructions of the longest piece of code that is followed as part of a call: an import thunk of Arm64."""
_STACK_WORDS = 4
_POINTED_WORDS = 8
"""Words behind an argument that points into the function's own frame."""
_STACK_ROOM = 0x1_0000
_LINE = 64
_STALE = 0x4000
"""Bytes below the stack pointer that hold one word again and again: what a function reads there it never wrote, wherever it keeps it."""
_COOKIE = 0x1357_9BDF_2468
"""The security cookie of every process; its upper 16 bits are zero, as the run time has it."""


class RedirectError(Exception):
    """A call of the base function does not reach the new one."""


class Runner:
    """A process that runs functions from the same state again and again."""

    def __init__(self, process: Process, patch: range = range(0)) -> None:
        """``patch`` is where the image of one lies, VAs."""
        self.process = process
        guest = process.guest
        self._scenery = Scenery(0)
        self._thread: tuple[Part, ...] = ()
        self._supplied: dict[int, bytes] = {}
        # Whatever the process asks holds nothing of this, so that both go at once.
        weak = weakref.proxy(self)
        guest.provide(lambda address: weak._supply(address))
        # A start-up, or a callback of the patch, that ran changed code has left other data in each process.
        guest.reset_data()
        configuration = process.base.load_configuration
        if configuration is not None and configuration.security_cookie is not None:
            # The loader draws another one wherever the image lies.
            guest.write_data(Va(process.load_base + configuration.security_cookie), _COOKIE.to_bytes(8, "little"))
        index = index_variable(process.base)
        if index is not None:
            guest.write_data(Va(process.load_base + index[0]), index[1])
        for region in guest.system.memory.regions():
            if region.kind is RegionKind.STACK:
                # What the start-up left behind differs from image to image, and functions read what they never wrote.
                guest.write_data(Va(region.va), bytes(region.size))
        self._start = process.snapshot()
        self._teb = next(thread.teb for thread in guest.system.threads.values() if thread.host)
        self._arch = architecture(process.machine)
        self._convention = self._arch.convention
        self._data = [
            (region.va, guest.read(Va(region.va), region.size))
            for region in guest.system.memory.regions()
            if Rights.WRITE in region.rights and region.kind is not RegionKind.STACK and region.va != self._teb
        ]
        self._code = Code(process)
        fixed = {self._convention.sp, self._convention.pc, self._convention.link, self._convention.thread}
        # The model lists its flags last.
        self._registers = [name for name in guest.system.cpu.model.general[:-1] if name not in fixed]
        kept = {self._convention.result, *self._convention.preserved}
        self._volatile = [name for name in self._registers if name not in kept]
        self._sentinel = guest.system.gates.callback
        self._touched: list[tuple[int, int]] = []
        self._stores: list[tuple[int, int, int]] = []
        guest.system.cpu.watch_stores(lambda va, size, value: weak._store(va, size, value))
        self._parts: Parts | None = None
        self._images = (range(guest.module.va, guest.module.va + guest.module.size), patch)
        for span in self._images:
            if span:
                guest.system.cpu.watch(span.start, span.stop - 1, lambda va, size: weak._touched.append((va, size)))

    def _supply(self, va: int) -> bytes | None:
        content = block_page(self._scenery, va, self._thread)
        if content is not None:
            self._supplied[va] = content
        return content

    def _store(self, va: int, size: int, value: int) -> None:
        if self._parts is None:
            self._stores.append((va, size, value))

    def _store_in_part(self, va: int, size: int, value: int) -> None:
        """Note a store where parts of addresses are made up."""
        if self._parts is not None:
            self._stores.append((va, size, self._parts.written(va, size, value)))

    def run(self, place: Place, scenery: Scenery, guide: Guide | None = None) -> Observed:
        """Run the function once, from the process's own state.

        Args:
            place: Where it is.
            scenery: What it runs on.
            guide: Leads it at branches.

        Raises:
            RedirectError: A call of it does not get to its body.
        """
        return self._parted(place, scenery, guide)[0] if scenery.makes_up_parts else self._run(place, scenery, guide)

    def _run(self, place: Place, scenery: Scenery, guide: Guide | None) -> Observed:
        guest = self.process.guest
        system, cpu, convention = guest.system, guest.system.cpu, self._convention
        self.process.restore(self._start)
        self._scenery, self._thread = scenery, place.thread
        self._supplied.clear()
        guest.begin_call(place.call, [0] * (len(convention.integer_arguments) + 8))
        for index, name in enumerate(self._registers):
            cpu.set(name, scenery.register(index))
        for index in (*range(len(convention.float_arguments)), *convention.float_preserved):
            cpu.model.write_float(cpu, index, scenery.float_bits(index))
        flags = cpu.model.general[-1]
        cpu.set(flags, cpu.get(flags) & ~cpu.model.condition_flags | scenery.word(110) & cpu.model.condition_flags)
        sp = cpu.get(convention.sp)
        above = sp + (0 if convention.link else 8) + convention.home_space
        for index in range(8):
            system.memory.write(above + 8 * index, scenery.word(100 + index).to_bytes(8, "little"))
        caller = system.memory.read(above, 0x40)
        surroundings = environment(scenery, system.memory.read(self._teb, TEB_SIZE))
        system.memory.write(self._teb, surroundings)
        system.memory.write(sp - _STALE, scenery.word(120).to_bytes(8, "little") * (_STALE // 8))
        self._arrive(place)
        seen = Observed()
        self._touched = seen.touched
        self._go(place, seen, scenery, sp, guide)
        if seen.end == "returned":
            # Where the link register holds the return address, nothing else shows that the stack pointer is wrong.
            kept = convention.preserved if convention.link is None else (*convention.preserved, convention.sp)
            seen.words = tuple(cpu.get(name) for name in (convention.result, *kept))
            seen.float_bits = cpu.get(convention.float_result)
            seen.floats = tuple(cpu.model.read_float(cpu, index) for index in convention.float_preserved)
        for va, before in [*self._data, *self._supplied.items(), (above, caller), (self._teb, surroundings)]:
            seen.written.update(_changes(before, system.memory.read(va, len(before)), va))
        return seen

    def history(self, place: Place, scenery: Scenery, guide: Guide | None = None) -> History:
        """Run the function once more, for what each byte comes of that was written; takes what :meth:`run` takes."""
        if scenery.makes_up_parts:
            return self._parted(place, scenery, guide)[1]
        history = History()
        with self.process.guest.system.cpu.traced(history.read, history.written):
            self._run(place, scenery, guide)
        return history

    def _parted(self, place: Place, scenery: Scenery, guide: Guide | None) -> tuple[Observed, History]:
        """Run the function where parts of addresses are made up."""
        cpu, memory = self.process.guest.system.cpu, self.process.guest.system.memory
        self._parts = parts = Parts(memory, scenery, self._images, self._stored_in_part)
        try:
            with cpu.traced(parts.read, self._store_in_part):
                seen = self._run(place, scenery, guide)
        finally:
            self._parts = None
        seen.parts = parts.found
        return seen, parts.history

    def _stored_in_part(self) -> tuple[int, ...]:
        """All of each register of which the current instruction stores the lower bytes, if it does that."""
        cpu = self.process.guest.system.cpu
        return tuple(map(cpu.get, self._code.sources(cpu.pc)))

    def _arrive(self, place: Place) -> None:
        """Follow the redirect."""
        cpu = self.process.guest.system.cpu
        for _ in range(8):
            if cpu.pc == place.body:
                return
            if (trap := cpu.run(1).trap) is not None and trap.access != "execute":
                break
        if cpu.pc != place.body:
            raise RedirectError(f"a call of 0x{place.call:x} does not come to 0x{place.body:x}")

    def _go(self, place: Place, seen: Observed, scenery: Scenery, entry_sp: int, guide: Guide | None) -> None:
        cpu = self.process.guest.system.cpu
        course = Course(place, scenery, entry_sp)
        while seen.executed < RUN_BUDGET and len(seen.calls) < CALL_BUDGET:
            block = self._code.block(cpu.pc)
            if block is None:
                seen.end, seen.address = FaultKind.ILLEGAL_INSTRUCTION.value, cpu.pc
                return
            own, before = course.is_own, seen.executed
            if not self._execute(block, seen, own=own):
                return
            if own and block.flow in _TURNS and seen.executed - before == len(block.addresses):
                self._turn(block, seen, guide)
            if self._come_to(course, block, seen):
                return
            if course.leaves and seen.executed - course.leaves[-1].since > LEAF_BUDGET and self._leave(course, seen):
                return
        seen.end = FaultKind.BUDGET.value

    def _execute(self, block: Block, seen: Observed, *, own: bool) -> bool:
        """Run a block, of the function's ``own`` code or of what it calls; whether it can go on after that."""
        touched = len(seen.touched)
        self._stores.clear()
        done = self.process.guest.system.cpu.run(len(block.addresses))
        if self._parts is not None:
            self._parts.go_on()
        seen.executed += done.executed
        if own:
            seen.visited.update(block.addresses[: done.executed])
            seen.own += seen.touched[touched:]
            seen.after["own"] += range(touched + 1, len(seen.touched) + 1)
            seen.stores += self._stores
            seen.after["stores"] += [len(seen.touched)] * len(self._stores)
        trap = done.trap
        if trap is not None and (trap.access != "execute" or not done.executed):
            # Code that runs into a page that is not there stops before its first instruction, again and again.
            seen.end, seen.address = trap.kind.value, trap.address
            return False
        return True

    def _turn(self, block: Block, seen: Observed, guide: Guide | None) -> None:
        """Note where a branch went, and have it go where ``guide`` says."""
        cpu = self.process.guest.system.cpu
        if block.flow is Flow.BRANCH:
            seen.turns.append(int(cpu.pc == block.target))
            seen.after["turns"].append(len(seen.touched))
        turned = cpu.pc if guide is None else guide.turn(block, cpu.pc)
        if turned != cpu.pc:
            cpu.pc = turned

    def _come_to(self, course: Course, block: Block, seen: Observed) -> bool:
        """Go on where ``block`` led: into code of the function, back from a leaf, or over a call; whether the run is over."""
        cpu, place, leaves = self.process.guest.system.cpu, course.place, course.leaves
        pc = cpu.pc
        if course.calling and block.flow is Flow.RETURN and place.inside(pc):
            course.calling = False  # a guard check, which only looks at its argument
        course.calling = course.calling or block.flow in _CALLS
        if pc == self._sentinel and not course.calling:
            seen.end = "returned"
            return True
        if leaves and pc == leaves[-1].back and block.flow is Flow.RETURN:
            leaves.pop()
            return False
        if course.calling:
            return not (place.through(pc) or self._is_thunk(place, pc)) and self._call_to(course, pc, seen)
        if leaves and leaves[-1].start <= pc < leaves[-1].end:
            return False
        if not leaves and pc == place.call != place.body:
            cpu.pc = place.body
            return False
        if (not leaves and place.inside(pc)) or place.through(pc):
            return False
        if leaves:
            leaves.pop()
        self._note_call(course, pc, seen)
        self._answer(course.scenery, len(seen.calls))
        if cpu.pc == self._sentinel:
            seen.end = "returned"
        return cpu.pc == self._sentinel

    def _call_to(self, course: Course, pc: int, seen: Observed) -> bool:
        """Run what is called as a leaf, or answer in its place; whether the run is over."""
        course.calling = False
        self._note_call(course, pc, seen)
        leaf = None if course.leaves else course.place.leaf(pc)
        if leaf is not None:
            cpu, convention = self.process.guest.system.cpu, self._convention
            registers = {name: cpu.get(name) for name in (convention.sp, *convention.preserved)}
            course.leaves.append(Leaf(self._return_address(), *leaf, seen.executed, registers))
            return False
        return self._return_to(course, seen)

    def _leave(self, course: Course, seen: Observed) -> bool:
        """Answer in place of a callee that has run for too long; whether the run is over."""
        cpu, leaf = self.process.guest.system.cpu, course.leaves.pop()
        for name, value in leaf.registers.items():
            cpu.set(name, value)
        if self._convention.link is not None:
            cpu.set(self._convention.link, leaf.back)
        return self._return_to(course, seen)

    def _return_to(self, course: Course, seen: Observed) -> bool:
        """Answer in place of what was called last; whether the run is over."""
        self._answer(course.scenery, len(seen.calls), course.place.spared(seen.calls[-1].callee))
        if not course.leaves and self._is_at_the_end(course.place, self.process.guest.system.cpu.pc):
            seen.end = _STAYS_AWAY
            return True
        return False

    def _is_at_the_end(self, place: Place, pc: int) -> bool:
        """Whether a call that would return to ``pc`` never does: another function stands there, or nothing, or a trap as in patches.

        Some compilers put a ``nop`` behind such a call.
        """
        pc = self._code.past_nops(pc)
        block = self._code.block(pc)
        return not place.inside(pc) or (block is not None and block.flow is Flow.TRAP and len(block.addresses) == 1)

    def _is_thunk(self, place: Place, pc: int) -> bool:
        """Whether code at ``pc``, come to by a call, does nothing but jump on."""
        if place.leaf(pc) is not None or pc == place.call:
            return False
        block = self._code.block(pc)
        return block is not None and len(block.addresses) <= _THUNK and block.flow is Flow.JUMP_INDIRECT

    def _note_call(self, course: Course, pc: int, seen: Observed) -> None:
        seen.calls.append(self._call(pc, course.entry_sp))
        seen.after["calls"].append(len(seen.touched))

    def _call(self, pc: int, entry_sp: int) -> Seen:
        cpu, convention = self.process.guest.system.cpu, self._convention
        sp = cpu.get(convention.sp)
        stack = sp + (0 if convention.link else 8) + convention.home_space
        words = [cpu.get(name) for name in convention.integer_arguments]
        pointed = tuple(self._words(word, _POINTED_WORDS) for word in words if sp <= word < entry_sp and word % 8 == 0)
        words += self._words(stack, _STACK_WORDS) if sp + _STACK_ROOM > entry_sp > sp else ()
        floats = tuple(cpu.get(name) for name in convention.float_arguments)
        return Seen(pc, tuple(words), pointed, floats)

    def _words(self, va: int, count: int) -> tuple[int, ...]:
        try:
            data = self.process.guest.system.memory.read(va, 8 * count)
        except AccessError:
            return ()
        return tuple(int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8))

    def _return_address(self) -> int:
        cpu, convention = self.process.guest.system.cpu, self._convention
        if convention.link is not None:
            return cpu.get(convention.link)
        return self.process.guest.system.read_word(cpu.get(convention.sp))

    def _answer(self, scenery: Scenery, number: int, spared: Collection[str] = ()) -> None:
        """Return from a call with values of the scenery, also in what callees need not keep: addresses that were left there are nobody's.

        Code behind a call that never returns would come upon them. ``spared`` are those that the callee is known to leave alone.
        """
        system, cpu = self.process.guest.system, self.process.guest.system.cpu
        cpu.set(self._convention.result, scenery.word(1000 + number))
        for index, name in enumerate(self._volatile):
            if name not in spared:
                cpu.set(name, scenery.word(2000 + len(self._volatile) * number + index))
        cpu.model.write_float(cpu, 0, scenery.float_bits(number))
        try:
            cpu.model.leave(cpu, system.read_word)
        except AccessError as error:
            cpu.pc = error.address


def leads_on(va: int) -> bool:
    """Whether the system's own code is at ``va``: checks and dispatch of guarded calls."""
    return layout.STUB_VA <= va < layout.STUB_VA + PAGE


def _changes(before: bytes, after: bytes, va: int) -> dict[int, int]:
    """Bytes of ``after`` that are not as ``before``, by VA."""
    if before == after:
        return {}
    found = {}
    for page in range(0, len(before), PAGE):
        if before[page : page + PAGE] == after[page : page + PAGE]:
            continue
        for line in range(page, min(page + PAGE, len(before)), _LINE):
            if before[line : line + _LINE] != after[line : line + _LINE]:
                found.update({va + at: after[at] for at in range(line, min(line + _LINE, len(before))) if before[at] != after[at]})
    return found
