"""Pairs for ``tools/accuracy.py`` that are harder to match than two releases: built from the fixtures' sources into a temporary folder."""

from __future__ import annotations

import random
import re
import shutil
import struct
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import purepdb

from hotpatch.cases import BuildOptions, load_cases
from hotpatch.cases.model import BuildFlags
from hotpatch.image import open_image
from tools import build_fixtures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hotpatch.arch import Machine
    from hotpatch.cases import Case
    from hotpatch.cases.model import Side

_SEED = 4
_JOBS = 2
_OWN_NAMES = frozenset({"memcpy", "memset", "memmove", "memcmp"})
"""What the compiler itself calls; never renamed, nor is what begins with an underscore."""
_LESS = ("-Xclang", "-O1")
"""``-O1`` for clang itself: zig's driver makes ``-O2`` of any level but 0 that it is given."""

_E_LFANEW, _EXPORT_DIRECTORY, _NUMBER_OF_NAMES = 0x3C, 24 + 112, 24
"""The offset of the PE header, from there to the first data directory, and in that (``IMAGE_DOS_HEADER``, ``IMAGE_NT_HEADERS64``)."""


@dataclass(frozen=True, slots=True)
class Stress:
    """A kind of pair; ``build`` gives the paths of pairs built below a folder for a machine."""

    title: str
    build: Callable[[Path, Machine], Sequence[tuple[Path, Path]]]


@dataclass(frozen=True, slots=True)
class Variant:
    """A product built with other options than its case's."""

    name: str
    kind: str
    sides: tuple[str, ...]
    options: BuildOptions

    def build_options(self, machine: Machine, side: Side) -> BuildOptions:
        """The same for both."""
        return self.options


_BY_HAND = re.compile(r"BEGIN_(FUNCTION|HOT)\(")
"""Assembly that names functions, out of reach of macros."""


def _cases() -> list[Case]:
    return [case for case in load_cases(build_fixtures.FIXTURES) if "base" in case.sides]


def _rebuilt(
    folder: Path, machine: Machine, *, kind: str, side: Side = "base", variant: Callable[[Path, Case, Machine, Side], BuildOptions]
) -> list[tuple[Path, Path]]:
    """Each case's base as committed, and ``side`` built otherwise."""
    cases = [case for case in _cases() if side in case.sides]

    def build(case: Case) -> tuple[Path, Path]:
        target = folder / kind
        scratch = folder / f"scratch-{kind}-{machine}-{case.name}"
        scratch.mkdir()
        product = Variant(case.name, case.kind, (side,), variant(scratch, case, machine, side))
        job = build_fixtures.Job(product, machine, side)
        build_fixtures.build(job, build_fixtures.FIXTURES, target, scratch)
        return case.image(machine, "base"), target / job.outputs[0]

    with ThreadPoolExecutor(_JOBS) as pool:
        return list(pool.map(build, cases))


def _shuffled(scratch: Path, case: Case, machine: Machine, side: Side) -> BuildOptions:
    """Functions in another order, and those alone; a fixture's are sections of their own, unless its manifest says otherwise."""
    names = sorted(_procedures(case.pdb(machine, side)))
    random.Random(f"{_SEED} {case.name}").shuffle(names)
    order = scratch / "order.txt"
    order.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return case.build_options(machine, side).with_flags(BuildFlags(ldflags=(f"/order:@{order}", "/ignore:4037")))


def _less_optimised(_: Path, case: Case, machine: Machine, side: Side) -> BuildOptions:
    return case.build_options(machine, side).with_flags(BuildFlags(cflags=_LESS))


def _procedures(pdb: Path) -> set[str]:
    with purepdb.PDB.open(str(pdb)) as opened:
        return {one.name for one in opened.module_procs()}


def _publics(pdb: Path) -> set[str]:
    with purepdb.PDB.open(str(pdb)) as opened:
        return {one.name for one in opened.public_symbols()}


def _program(folder: Path, machine: Machine, *, flags: tuple[str, ...] = (), title: str = "program") -> list[tuple[Path, Path]]:
    """One image of most cases' bases, and one of their fixed versions: many functions, some of them changed."""
    cases = [case for case in _cases() if case.kind == "dll" and "fixed" in case.sides and _is_plain(case, machine)]
    sources, target = folder / f"{title}-{machine}", folder / title
    (sources / title).mkdir(parents=True)
    shutil.copytree(build_fixtures.FIXTURES / build_fixtures.COMMON, sources / build_fixtures.COMMON)
    for side in ("base", "fixed"):
        for number, case in enumerate(cases):
            text = (case.folder / f"{side}.c").read_text(encoding="utf-8").replace('"common/', '"')
            renamed = sorted(_renamed(case, machine))
            defines = "".join(f"#define {name} {name}_{number}\n" for name in renamed)
            (sources / build_fixtures.COMMON / f"{side}{number}.c").write_text(defines + text, encoding="utf-8")
            for header in case.folder.glob("*.h"):
                shutil.copy(header, sources / build_fixtures.COMMON / header.name)
        (sources / title / f"{side}.c").write_text("int whole_program;\n", encoding="utf-8")
    jobs = []
    for side in ("base", "fixed"):
        options = BuildOptions(
            common=tuple(f"{side}{number}.c" for number in range(len(cases))),
            cflags=flags if side == "fixed" else (),
            ldflags=("/opt:noref", "/force:multiple"),
        )
        jobs.append(build_fixtures.Job(Variant(title, "dll", (side,), options), machine, side))
    for job in jobs:
        build_fixtures.build(job, sources, target, folder)
    base, fixed = (target / job.outputs[0] for job in jobs)
    return [(base, fixed)]


def _is_plain(case: Case, machine: Machine) -> bool:
    """Whether it links into a larger program: it has no options of its own, needs nobody who patches it, and can be renamed."""
    return (
        not (case.folder / build_fixtures.SUPPORT).is_file()
        and all(case.build_options(machine, side) == BuildOptions() for side in case.sides)
        and not any(_BY_HAND.search((case.folder / f"{side}.c").read_text(encoding="utf-8")) for side in case.sides)
    )


def _renamed(case: Case, machine: Machine) -> set[str]:
    """Public names of either side, which must differ between the parts of one program."""
    names = {name for side in case.sides for name in _publics(case.pdb(machine, side))} - _OWN_NAMES
    text = "".join((case.folder / f"{side}.c").read_text(encoding="utf-8") for side in case.sides)
    return {name for name in names if not name.startswith("_") and re.search(rf"\b{re.escape(name)}\b", text)}


def _nameless(build: Callable[[Path, Machine], Sequence[tuple[Path, Path]]], folder: Path, machine: Machine) -> list[tuple[Path, Path]]:
    target = Path(tempfile.mkdtemp(dir=folder))
    return [without_names(pair, target / str(number)) for number, pair in enumerate(build(folder, machine))]


def without_names(pair: tuple[Path, Path], target: Path) -> tuple[Path, Path]:
    """Copies of a pair in ``target``, their PDBs beside them, whose exports, as which most functions are known, lost their names."""
    base, fixed = (target / f"{side}{path.suffix}" for side, path in zip(("base", "fixed"), pair, strict=True))
    target.mkdir(exist_ok=True)
    for path, copy in zip(pair, (base, fixed), strict=True):
        copy.write_bytes(_by_ordinal(path))
        shutil.copyfile(path.with_suffix(".pdb"), copy.with_suffix(".pdb"))
    return base, fixed


def _by_ordinal(path: Path) -> bytes:
    """The image with exports that have ordinals and no names (``IMAGE_EXPORT_DIRECTORY.NumberOfNames``)."""
    data, image = path.read_bytes(), open_image(path, pdb=None)
    (header,) = struct.unpack_from("<I", data, _E_LFANEW)
    (directory,) = struct.unpack_from("<I", data, header + _EXPORT_DIRECTORY)
    section = image.section_at(directory) if directory else None
    if section is None:
        return data
    at = section.offset + directory - section.rva + _NUMBER_OF_NAMES
    return data[:at] + bytes(4) + data[at + 4 :]


def _released(_: Path, machine: Machine) -> list[tuple[Path, Path]]:
    """Base and fixed image of every case that has both."""
    return [(case.image(machine, "base"), case.image(machine, "fixed")) for case in _cases() if "fixed" in case.sides]


SHUFFLED_FIX = Stress("fixtures, fixed with link order shuffled", partial(_rebuilt, kind="shuffled-fix", side="fixed", variant=_shuffled))
STRESSES = (
    Stress("fixtures, link order shuffled", partial(_rebuilt, kind="shuffled", variant=_shuffled)),
    SHUFFLED_FIX,
    Stress("fixtures, -O2 against -O1", partial(_rebuilt, kind="less", variant=_less_optimised)),
    Stress("one program of the fixtures", _program),
    Stress("the same, fixed with -O1", partial(_program, flags=_LESS, title="program-o1")),
    Stress("fixtures, exports without names", partial(_nameless, _released)),
    Stress("one program of the fixtures, exports without names", partial(_nameless, partial(_program, title="nameless"))),
    Stress("the same, fixed with -O1, exports without names", partial(_nameless, partial(_program, flags=_LESS, title="nameless-o1"))),
)
