"""The builder's steps one by one on a shipped case, so that a test can corrupt what goes from one to the next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hotpatch.arch import Machine, Redirect
from hotpatch.builder.binding import bind
from hotpatch.builder.emit import emit
from hotpatch.builder.link import Linked, link
from hotpatch.builder.make import _entrances
from hotpatch.builder.model import Bound, Link
from hotpatch.builder.place import Layout, place
from hotpatch.builder.select import select
from hotpatch.builder.selfcheck import self_check
from hotpatch.differ import ImageDiff, diff_images
from hotpatch.errors import Refusal
from hotpatch.image import Image, open_image
from hotpatch.patch import Terms

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


def images(case: str, machine: Machine, pdb: str | None = "auto") -> tuple[Image, Image]:
    folder = FIXTURES / case / machine.value
    kind = "dll" if (folder / "base.dll").exists() else "exe"
    return open_image(folder / f"base.{kind}", pdb=pdb), open_image(folder / f"fixed.{kind}", pdb=pdb)


def compared(case: str, machine: Machine, pdb: str | None = "auto") -> ImageDiff:
    return diff_images(*images(case, machine, pdb))


@dataclass(frozen=True)
class Steps:
    """Everything up to linking."""

    diff: ImageDiff
    bound: Bound
    layout: Layout

    @classmethod
    def of(cls, case: str, machine: Machine) -> Steps:
        diff = compared(case, machine)
        selected, _ = select(diff)
        bound, refusals = bind(diff, selected)
        assert not refusals
        return cls(diff, bound, place(bound, diff.fixed))

    def linked(self, links: tuple[Link, ...] | None = None) -> Linked:
        """What the linker makes of these links instead of the right ones."""
        bound = self.bound if links is None else replace(self.bound, links=links)
        found = link(bound, self.layout, self.diff.fixed)
        assert isinstance(found, Linked)
        return found

    def refusals(self, linked: Linked) -> list[Refusal]:
        """What the self-check says of the patch made from it."""
        selected, _ = select(self.diff)
        entrances, _ = _entrances(self.diff.base, selected, Redirect.HPAT)
        patch = emit(self.diff, selected, entrances, self.bound, self.layout.placement, linked, {}, sequence=1, overrides=(), terms=Terms())
        return list(self_check(patch, self.diff, self.bound, self.layout.placement))

    def objections(self, linked: Linked) -> list[str]:
        """The same as text."""
        return [str(refusal) for refusal in self.refusals(linked)]
