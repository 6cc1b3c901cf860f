"""A case as a test takes it: its images opened, its diff and patch made once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases import UNTOUCHED, Case, Side, find_case
from tools.fixture_code import FixtureImage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Given:
    """A case on one machine; ``paths`` are without PDBs beside them where ``pdb`` is false."""

    case: Case
    machine: Machine
    pdb: bool
    paths: Mapping[Side, Path]

    @classmethod
    def of(cls, name: str, machine: str, pdb: bool, place: Callable[[Path], Path]) -> Given:
        case = find_case(name)
        return cls(case, Machine(machine), pdb, {side: place(case.image(Machine(machine), side)) for side in case.sides})

    def image(self, side: Side) -> hotpatch.Image:
        return self._images[side]

    @cached_property
    def _images(self) -> dict[Side, hotpatch.Image]:
        return {side: hotpatch.open(path) for side, path in self.paths.items()}

    @cached_property
    def diff(self) -> hotpatch.ImageDiff:
        return hotpatch.diff(self.image("base"), self.image("fixed"))

    @property
    def patch(self) -> hotpatch.Patch:
        return self.redirected("hpat")

    @cached_property
    def later(self) -> hotpatch.Patch | None:
        """The patch that goes on top of :attr:`patch`, where the case has one."""
        then = self.case.manifest.expect.then
        return None if then is None else hotpatch.build(hotpatch.diff(self.image("base"), self.image(then)), sequence=2)

    def redirected(self, redirect: str) -> hotpatch.Patch:
        """The patch with that redirect; without PDBs its callbacks may be missing."""
        if redirect not in self._patches:
            allow = () if self.pdb else ("callbacks-unknown",)
            self._patches[redirect] = hotpatch.build(self.diff, redirect=redirect, allow=allow)
        return self._patches[redirect]

    @cached_property
    def _patches(self) -> dict[str, hotpatch.Patch]:
        return {}

    @cached_property
    def names(self) -> dict[Side, dict[int, str]]:
        """Function names by RVA, from the committed PDBs, whether or not the images under test have them."""
        images = {side: FixtureImage(self.case.image(self.machine, side)) for side in ("base", "fixed")}
        return {side: {code.rva: name for name, code in image.functions.items()} for side, image in images.items()}

    def verdicts(self) -> dict[str, str]:
        """What the diff says of each function that does not stay as it is, by its PDB name."""
        found = {}
        for row in self.diff.functions:
            name = self.names["base"].get(row.base.entry) if row.base else self.names["fixed"].get(row.fixed.entry)
            if row.verdict not in UNTOUCHED:
                found[name or f"unnamed {row.name}"] = row.verdict
        return found

    def travelling(self) -> dict[str, hotpatch.Redirect]:
        """How each function of the patch is redirected, by its PDB name."""
        return {self.names["base"][function.base_rva]: function.redirect for function in self.patch.functions}
