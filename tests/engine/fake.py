"""A process in plain host memory: regions, rights, threads as registers; any call of it can be made to fail."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hotpatch.address import Va
from hotpatch.arch import Machine, architecture
from hotpatch.engine import Module, ModuleWatcher, Region, Rights, Thread
from hotpatch.engine.target import PageRights
from hotpatch.errors import ApplyRefused, HotpatchError, Refusal, Rule
from hotpatch.image import Image
from hotpatch.image.model import SectionFlags

PAGE = 0x1000
BLOCK = 0x8000
"""Bytes from the base of a thread's stack to its environment block."""
STACK = 0x7FF0000000
STACK_SIZE = 0x4000


class InjectedError(HotpatchError):
    """An injected failure of the target."""


@dataclass
class Block:
    va: int
    memory: bytearray
    rights: list[Rights]
    """Of each page."""

    @property
    def end(self) -> int:
        return self.va + len(self.memory)


@dataclass
class Fake:
    """Implements ``hotpatch.engine.Target``."""

    machine: Machine
    blocks: dict[int, Block] = field(default_factory=dict)
    reserved: list[tuple[int, int]] = field(default_factory=list)
    """Start and end of address space that is taken without being committed."""
    owned: set[int] = field(default_factory=set)
    loaded: list[Module] = field(default_factory=list)
    register_sets: dict[int, dict[str, int]] = field(default_factory=dict)
    suspended: dict[int, tuple[Mapping[str, int], ...]] = field(default_factory=dict)
    """Of a thread, what lies under calls of the system."""
    exports: dict[tuple[str, str], int] = field(default_factory=dict)
    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    flushed: list[tuple[int, int]] = field(default_factory=list)
    watchers: list[ModuleWatcher] = field(default_factory=list)
    clock: int = 0
    thread_flags: range = range(0xE8, 0xFC)
    calls: int = 0
    fail_at: int | None = None
    failure: Callable[[], BaseException] = lambda: InjectedError("injected")

    # making ------------------------------------------------------------------------------------------------------------------------------

    def load(self, image: Image, va: int, name: str = "base.dll") -> Module:
        memory = bytearray(image.mapped)
        for rva in image.relocations:
            value = int.from_bytes(memory[rva : rva + 8], "little") + va - image.preferred_base
            memory[rva : rva + 8] = value.to_bytes(8, "little")
        pages = len(memory) // PAGE
        rights = [Rights.READ] * pages
        for section in image.sections:
            held = Rights.READ
            held |= Rights.WRITE if section.flags & SectionFlags.WRITE else Rights.NONE
            held |= Rights.EXECUTE if section.flags & SectionFlags.EXECUTE else Rights.NONE
            for page in range(section.rva // PAGE, -(-section.range.end // PAGE)):
                rights[page] = held
        self.blocks[va] = Block(va, memory, rights)
        module = Module(name, Va(va), image.size_of_image, image)
        self.loaded.append(module)
        return module

    def arrive(self, image: Image, va: int, name: str = "base.dll") -> Module:
        """Load an image while the process runs, and tell; a failure takes it back."""
        module = self.load(image, va, name)
        try:
            for watcher in self.watchers:
                watcher.modules_loaded((module,))
        except BaseException:
            self.loaded.remove(module)
            del self.blocks[va]
            raise
        return module

    def unload(self, module: Module) -> None:
        for watcher in self.watchers:
            watcher.modules_unloading((module,))
        self.loaded.remove(module)
        del self.blocks[module.va]

    def reserve(self, va: int, size: int) -> None:
        self.reserved.append((va, va + size))

    def commit(self, va: int, size: int, rights: Rights = Rights.READ | Rights.WRITE) -> None:
        self.blocks[va] = Block(va, bytearray(size), [rights] * (size // PAGE))

    def thread(self, number: int, pc: int, **registers: int) -> None:
        convention = architecture(self.machine).convention
        base = STACK + number * 0x100000
        self.commit(base, STACK_SIZE)
        self.commit(base + BLOCK, PAGE)
        names = {*convention.preserved, *convention.integer_arguments, convention.result, *([convention.link] if convention.link else [])}
        held = dict.fromkeys(sorted(names), 0)
        held |= {convention.pc: pc, convention.sp: base + STACK_SIZE - 0x100} | registers
        self.register_sets[number] = held

    def push(self, number: int, offset: int, value: int) -> None:
        """Store a word on a thread's stack, ``offset`` bytes above its stack pointer."""
        sp = self.register_sets[number][architecture(self.machine).convention.sp]
        self.poke(sp + offset, value.to_bytes(8, "little"))

    def poke(self, va: int, data: bytes) -> None:
        block = self._block(va, len(data))
        block.memory[va - block.va : va - block.va + len(data)] = data

    def snapshot(self) -> tuple[object, ...]:
        """Everything that an operation may change."""
        return (
            {va: (bytes(block.memory), tuple(block.rights)) for va, block in self.blocks.items()},
            frozenset(self.owned),
            tuple(self.loaded),
            {number: dict(registers) for number, registers in self.register_sets.items()},
        )

    def moment(self) -> Callable[[], None]:
        """What takes everything that an operation may change back to now."""
        blocks, owned, loaded, registers = copy.deepcopy(self.blocks), set(self.owned), list(self.loaded), copy.deepcopy(self.register_sets)

        def back() -> None:
            self.blocks, self.owned, self.loaded, self.register_sets = (
                copy.deepcopy(blocks),
                set(owned),
                list(loaded),
                copy.deepcopy(registers),
            )

        return back

    # the target --------------------------------------------------------------------------------------------------------------------------

    def modules(self) -> tuple[Module, ...]:
        self._call()
        return tuple(self.loaded)

    def threads(self) -> tuple[Thread, ...]:
        self._call()
        convention = architecture(self.machine).convention
        return tuple(
            Thread(
                number,
                Va(registers[convention.pc]),
                Va(registers[convention.sp]),
                dict(registers),
                Va(STACK + number * 0x100000 + BLOCK),
                self.suspended.get(number, ()),
            )
            for number, registers in sorted(self.register_sets.items())
        )

    def regions(self) -> tuple[Region, ...]:
        self._call()
        found = []
        for block in sorted(self.blocks.values(), key=lambda block: block.va):
            start = 0
            for page in range(1, len(block.rights) + 1):
                if page == len(block.rights) or block.rights[page] != block.rights[start]:
                    found.append(Region(Va(block.va + start * PAGE), (page - start) * PAGE, block.rights[start]))
                    start = page
        return tuple(found)

    def set_registers(self, thread: int, registers: Mapping[str, int]) -> None:
        self._call()
        if not registers.keys() <= self.register_sets[thread].keys():
            raise InjectedError(f"no such registers: {sorted(registers)}")
        self.register_sets[thread].update(registers)

    def read(self, va: Va, size: int) -> bytes:
        self._call()
        block = self._block(va, size)
        return bytes(block.memory[va - block.va : va - block.va + size])

    def write_data(self, va: Va, data: bytes) -> None:
        self._call()
        self.poke(va, data)

    def write_code(self, va: Va, expected: bytes, new: bytes) -> None:
        self._call()
        block = self._block(va, len(new))
        found = bytes(block.memory[va - block.va : va - block.va + len(new)])
        if len(expected) != len(new) or found != expected:
            raise ApplyRefused([Refusal(Rule.UNEXPECTED_BYTES, None, None, "it changed", {"found": found.hex()})])
        self.poke(va, new)
        self.flushed.append((va, len(new)))

    def find_room(self, size: int, *, near: Va, reach: int, above: bool = True) -> Va:
        self._call()
        assert size % PAGE == 0
        taken = sorted([*self.reserved, *((block.va, block.end) for block in self.blocks.values())])
        starts = [-(-near // PAGE) * PAGE, *(end for _, end in taken)]
        if not above:
            starts += [start - size for start, _ in taken] + [near // PAGE * PAGE - size]
        free = [
            start
            for start in starts
            if start > 0
            and (start >= near or not above)
            and all(start + size <= other or end <= start for other, end in taken)
            and abs(start - near) <= reach
            and abs(start + size - 1 - near) <= reach
        ]
        if not free:
            raise ApplyRefused([Refusal(Rule.NO_ADDRESS_SPACE, None, None, "nothing is free")])
        return Va(min(free, key=lambda start: (abs(start - near), start)))

    def map(self, va: Va, size: int, rights: PageRights, content: bytes = b"") -> None:
        self._call()
        assert size % PAGE == 0
        assert all(va + size <= block.va or block.end <= va for block in self.blocks.values())
        pages = [rights] * (size // PAGE) if isinstance(rights, Rights) else list(rights)
        assert len(pages) == size // PAGE
        self.blocks[va] = Block(va, bytearray(content.ljust(size, b"\0")), pages)
        self.owned.add(va)

    def unmap(self, va: Va) -> None:
        self._call()
        self.owned.remove(va)
        del self.blocks[va]

    def add_module(self, name: str, va: Va, image: Image, *, before: Va | None = None) -> None:
        self._call()
        places = [module.va for module in self.loaded] + [before]
        self.loaded.insert(places.index(before), Module(name, va, image.size_of_image, image))

    def remove_module(self, va: Va) -> None:
        self._call()
        self.loaded = [module for module in self.loaded if module.va != va]

    def watch_modules(self, watcher: ModuleWatcher) -> None:
        self.watchers.append(watcher)

    def resolve_import(self, library: str, name: str | None, ordinal: int | None) -> Va | None:
        self._call()
        address = self.exports.get((library, name or ""))
        return None if address is None else Va(address)

    def checkpoint(self) -> Callable[[], None]:
        self._call()
        return self.moment()

    def event(self, kind: str, **details: object) -> None:
        self._call()
        assert not details.keys() & {"at", "thread", "kind"}
        self.events.append((kind, details))

    def _call(self) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            raise self.failure()

    def _block(self, va: int, size: int) -> Block:
        for block in self.blocks.values():
            if block.va <= va and va + size <= block.end:
                return block
        raise InjectedError(f"nothing is mapped at 0x{va:x} ({size} bytes)")
