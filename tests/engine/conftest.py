from __future__ import annotations

from dataclasses import dataclass

import pytest

from hotpatch.arch import Machine, architecture
from hotpatch.engine import AppliedPatch, Engine, Module, Stacking
from hotpatch.image import Image
from hotpatch.patch import Patch

from .fake import BLOCK, STACK, Fake
from .run import call
from .synthetic import Recipe, base_image, entry, make

LOAD = 0x1_5000_0000
INSIDE = 4
"""Offset of the second instruction of a synthetic function."""


@dataclass
class World:
    """A fake process with a base image in it and an engine on it."""

    fake: Fake
    engine: Engine
    base: Image
    module: Module

    def patch(self, numbers: dict[int, int], **recipe: object) -> Patch:
        return make(Recipe(self.base, numbers, **recipe))

    def apply(self, numbers: dict[int, int], stacking: Stacking = Stacking.CUMULATIVE, **recipe: object) -> AppliedPatch:
        return self.engine.apply(self.patch(numbers, **recipe), stacking=stacking)

    def entry(self, index: int) -> int:
        return self.module.va + entry(index)

    def result(self, index: int) -> int:
        return call(self.fake, self.entry(index))[0]

    def bytes_at(self, va: int, size: int) -> bytes:
        return self.fake.read(va, size)


def world(machine: Machine, load: int = LOAD, **image: object) -> World:
    base = base_image(machine, **image)
    fake = Fake(machine)
    module = fake.load(base, load)
    return World(fake, Engine(fake), base, module)


def go(here: World, number: int, pc: int) -> None:
    here.fake.register_sets[number][architecture(here.fake.machine).convention.pc] = pc


def flag(here: World, number: int) -> bytes:
    """A thread's free bytes."""
    flags = here.fake.thread_flags
    return bytes(here.fake.blocks[STACK + number * 0x100000 + BLOCK].memory[flags.start : flags.stop])


@pytest.fixture(params=list(Machine), ids=lambda machine: machine.value)
def machine(request: pytest.FixtureRequest) -> Machine:
    return request.param


@pytest.fixture
def here(machine: Machine) -> World:
    return world(machine)
