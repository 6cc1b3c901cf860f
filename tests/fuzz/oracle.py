"""Builds a random program, patches its base while state stands in it, and compares with the fixed image given the same state."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from hotpatch.address import Rva, Va
from hotpatch.arch import Machine
from hotpatch.builder import build_patch
from hotpatch.builder.bodies import body_of
from hotpatch.builder.model import Body
from hotpatch.builder.ownership import Usage
from hotpatch.cases import BuildOptions
from hotpatch.differ import diff_images
from hotpatch.errors import EmulatedFault, NothingToDo, NotHotpatchable, Rule
from hotpatch.image import Datum, DatumSource, Image, open_image
from hotpatch.process import Buffer, Process
from tests.fuzz.bindings import left, misbound
from tests.fuzz.program import Program
from tests.fuzz.truth import KEEP_SYMBOLS, Truth
from tools import build_fixtures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.patch import Patch

NEVER = frozenset({Rule.SELF_CHECK, Rule.MICRO_EXECUTION, Rule.MALFORMED_PATCH})
"""Rules that no build of a good pair may be refused by: they mean that the builder was wrong and noticed it late."""
Word = bytes | tuple[tuple[str, ...], int]
"""Eight bytes of a datum, or the names and the offset that a pointer leads to."""
BUDGET = 3_000_000
LOAD_BASES = (0x1_8000_0000, 0x7FF6_1234_0000, 0x2_4000_0000)


@dataclass(frozen=True)
class Built:
    """A program's two images; stands in for a case of the fixtures' builder."""

    program: Program
    machine: Machine
    folder: Path
    name: str = "program"
    kind: str = "dll"
    sides: tuple[str, ...] = ("base", "fixed")

    def build_options(self, machine: Machine, _side: str) -> BuildOptions:
        ldflags = (*self.program.ldflags, "/lldmap:program.map", "/demangle:no")
        own = self.program.arm64_cflags if machine is Machine.ARM64 else ()
        return BuildOptions(hotpatch=self.program.hotpatch, cflags=(*self.program.cflags, *own, *KEEP_SYMBOLS), ldflags=ldflags)

    def image(self, side: str, *, pdb: bool = True) -> Image:
        path = self.folder / self.name / self.machine / f"{side}.dll"
        return open_image(path, pdb="auto" if pdb else None)

    def truth(self, side: str) -> Truth:
        """What the compiler says of a side; compiles it to intermediate code."""
        here = self.folder / side
        shutil.move(here / f"{side}.obj", here / "program.obj")
        job = build_fixtures.Job(self, self.machine, side)
        code = here / build_fixtures.compile_source(here, job, self.build_options(self.machine, side), f"{side}.c", ("-S", "-emit-llvm"))
        return Truth(here / "program.obj", here / "program.map", code, self.image(side))


def compile_program(program: Program, machine: Machine, folder: Path) -> Built:
    """Compile both versions below ``folder``."""
    built = Built(program, machine, folder)
    shutil.copytree(build_fixtures.FIXTURES / build_fixtures.COMMON, folder / build_fixtures.COMMON, dirs_exist_ok=True)
    (folder / built.name).mkdir(exist_ok=True)
    for side, text in zip(built.sides, program.sources, strict=True):
        (folder / built.name / f"{side}.c").write_text(text, "utf-8")
    for side in built.sides:
        (folder / side).mkdir()
        build_fixtures.build_in(folder / side, build_fixtures.Job(built, machine, side), folder, folder)
    return built


@dataclass
class Outcome:
    """What came of one pair: ``problems`` are wrong patches or failures, ``refused`` what refused each build that was tried.

    ``unchanged``: no function differs in what it does, as where the order of globals alone does and the compiler does not merge them.
    """

    problems: list[str] = field(default_factory=list)
    refused: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    patched: int = 0
    unchanged: bool = False


def examine(built: Built, pdbs: Sequence[bool] = (True, False)) -> Outcome:
    """Build the patch with and without PDBs, as a whole and, where that is refused, of each function alone; try each patch."""
    outcome = Outcome()
    base, fixed = built.image("base"), built.image("fixed")
    truths, used = (built.truth("base"), built.truth("fixed")), _used(base)
    for pdb in pdbs:
        given, wanted = (base, fixed) if pdb else (built.image("base", pdb=False), built.image("fixed", pdb=False))
        label = "pdb" if pdb else "stripped"
        diff = diff_images(given, wanted)
        changed = [row.base for row in diff.functions if row.base and row.fixed and row.verdict.value == "changed"]
        for only in ((), *((f"rva:0x{function.entry:x}",) for function in changed)):
            try:
                patch = build_patch(diff, only=only)
            except NothingToDo:
                outcome.unchanged = True
                outcome.problems += [f"{label} nothing to do: {item}" for item in left(diff, *truths, used)]
                break
            except NotHotpatchable as refused:
                outcome.refused.append((f"{label} {''.join(only)}", tuple(str(item) for item in refused.refusals)))
                bad = [str(item) for item in refused.refusals if item.rule in NEVER]
                outcome.problems += [f"{label} {only}: {item}" for item in bad]
                continue
            outcome.patched += 1
            found = compare(built.program, (base, fixed), truths, patch, partial=bool(only), pdb=pdb)
            found += misbound(diff, only, *truths, used)
            outcome.problems += [f"{label} {only}: {item}" for item in found]
            if not only:
                break
    return outcome


def compare(
    program: Program, images: tuple[Image, Image], truths: tuple[Truth, Truth], patch: Patch, *, partial: bool, pdb: bool
) -> list[str]:
    """How the patched base differs from the fixed image that is given its state; a patch of one function alone is only run.

    State is carried over by name. Where the compiler has split data into parts without names, or state leads to a function that the fixed
    image has no longer, the patch goes in before any call.
    Without ``pdb`` nothing shows what a datum is that no code of the base uses; a copy of it in the patch serves as well.
    """
    base, fixed = images
    known = _live_data(base, truths[0]), _live_data(fixed, truths[1])
    before = program.before if _is_named(base, known[0]) and _is_named(fixed, known[1]) else 0
    random = Random(program.seed)
    here = Process(base, load_base=random.choice(LOAD_BASES), budget=BUDGET)
    there = Process(fixed, load_base=random.choice(LOAD_BASES), budget=BUDGET)
    for call in program.calls[:before]:
        if isinstance(found := _call(here, call), str):
            return [f"the base itself: {found}"]
    sides = (State(here, base, known[0]), State(there, fixed, known[1]))
    live = [pair for name, one in sides[0].data.items() if (other := sides[1].data.get(name)) and (pair := _common(one, other))]
    carried = [(other, sides[0].read(one)) for one, other in live] if before else []
    if not all(sides[1].knows(words) for _, words in carried):
        return compare(replace(program, before=0), images, truths, patch, partial=partial, pdb=pdb)
    for other, words in carried:
        sides[1].write(other, words)
    here.apply(patch)
    for number, call in enumerate(program.calls[before:]):
        found = _call(here, call)
        if isinstance(found, str):
            return [f"call {number} {call[:3]}: {found}"]
        if partial:
            continue
        wanted = _call(there, call)
        if found != wanted:
            return [f"call {number} {call[:3]}: patched {found}, fixed {wanted}"]
    if partial:
        return []
    used = _used(base)
    pairs = [(one, sides[0].read(one), sides[1].read(other)) for one, other in live if pdb or used & {*range(one.rva, one.rva + one.size)}]
    return [f"{one.name} afterwards: {left} instead of {right}" for one, left, right in pairs if not _agree(left, right)]


def _is_named(image: Image, data: Sequence[Datum]) -> bool:
    """Whether every live datum that code refers to has a name of its own.

    An end at which nothing begins counts as part of the datum, where the function refers to the datum too and accesses nothing there.
    """
    named = [range(item.rva, item.rva + (item.size or 0)) for item in data]
    if len(_distinct(data)) < len(data):
        return False
    for function in image.functions:
        body = body_of(image, function)
        usage = Usage(image, body.sites) if isinstance(body, Body) else Usage(image, ())
        live = [target for target in usage.targets if (section := image.section_at(target)) and section.writable]
        for target in live:
            ends = [part for part in named if part.stop == target and usage.within(part.start, part.stop, target)]
            if not any(target in part for part in named) and (not ends or target in usage.accessed):
                return False
    return True


def _used(image: Image) -> frozenset[int]:
    """What code or data of an image refer to."""
    targets = {ref.target for function in image.functions for part in function.ranges for ref in image.references_in(part)}
    return frozenset({*targets, *image.pointers.values()})


def _live_data(image: Image, truth: Truth) -> list[Datum]:
    """Writable data with sizes; those that the compiler merged into one have no names in the PDB but for the first."""
    named = [item for item in image.data_symbols if item.size and (found := image.section_at(item.rva)) and found.writable]
    taken = {item.rva for item in named}
    merged = [Datum(Rva(rva), truth.room(name), name.rpartition(".")[2], DatumSource.COFF) for name, rva in truth.merged()]
    return [*named, *(item for item in merged if item.rva not in taken)]


def _common(base: Datum, fixed: Datum) -> tuple[Datum, Datum] | None:
    """Two data as far as both go: of merged ones the size is only known up to the next, alignment included."""
    if base.size != fixed.size and DatumSource.COFF not in (base.source, fixed.source):
        return None
    size = min(base.size or 0, fixed.size or 0)
    return replace(base, size=size), replace(fixed, size=size)


def _distinct(data: Sequence[Datum]) -> dict[str, Datum]:
    """By name, those of one name left out."""
    counts = Counter(item.name for item in data)
    return {item.name: item for item in data if counts[item.name] == 1}


def _agree(left: Sequence[Word], right: Sequence[Word]) -> bool:
    """Whether two data are the same; ``left`` is the patched base's.

    Pointers agree where one name is common to both, for folded functions have several. What the fixed image's pointer leads to may have
    come along with the patch, and then stands in no image.
    """
    return all(_same(one, other) for one, other in zip(left, right, strict=True))


def _same(left: Word, right: Word) -> bool:
    if isinstance(left, bytes) and isinstance(right, bytes):
        return left == right
    if isinstance(left, bytes):
        return int.from_bytes(left, "little") > min(LOAD_BASES)
    return not isinstance(right, bytes) and left[1] == right[1] and bool(set(left[0]) & set(right[0]))


class State:
    """A process's live data by name, pointers told by what they lead to."""

    def __init__(self, process: Process, image: Image, data: Sequence[Datum]) -> None:
        self.process, self.image = process, image
        self.va, self.end = process.load_base, process.load_base + image.size_of_image
        self.data = _distinct(data)
        self.places = {name: function.entry for function in image.functions for name in function.names} | {
            item.name: item.rva for item in (*image.data_symbols, *data)
        }

    def read(self, datum: Datum) -> list[Word]:
        raw = self.process.guest.read(Va(self.va + datum.rva), datum.size or 0)
        return [self._told(raw[at : at + 8]) for at in range(0, len(raw), 8)]

    def knows(self, words: Sequence[Word]) -> bool:
        """Whether the image has everything that pointers among ``words`` lead to."""
        return all(isinstance(word, bytes) or any(name in self.places for name in word[0]) for word in words)

    def write(self, datum: Datum, words: Sequence[Word]) -> None:
        raw = b"".join(word if isinstance(word, bytes) else self._va_of(word).to_bytes(8, "little") for word in words)
        self.process.guest.write_data(Va(self.va + datum.rva), raw)

    def _told(self, raw: bytes) -> Word:
        value = int.from_bytes(raw, "little")
        if len(raw) < 8 or not self.va <= value < self.end:
            return raw
        rva = Rva(value - self.va)
        function = self.image.function_at(rva)
        datum = next((one for one in self.data.values() if one.rva <= rva < one.rva + (one.size or 0)), None) or self.image.datum_at(rva)
        if function is not None:
            return function.names, rva - function.entry
        return ((datum.name,), rva - datum.rva) if datum is not None else raw

    def _va_of(self, word: tuple[tuple[str, ...], int]) -> int:
        return self.va + next(self.places[name] for name in word[0] if name in self.places) + word[1]


def _call(process: Process, call: tuple[str, int, int, bytes]) -> tuple[int, bytes] | str:
    """What a call returns and leaves in its buffer, or how it faults."""
    name, x, y, given = call
    buffer = Buffer(len(given))
    buffer.data = given
    try:
        return process.call(name, x, *((y, buffer) if name.startswith("f") else ())), bytes(buffer.data)
    except EmulatedFault as fault:
        return f"fault: {fault}"
