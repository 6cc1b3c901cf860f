"""What ``tools/accuracy.py`` measures: what is found in an image without symbols, against its PDB, read with purepdb."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import purepdb
from purepdb import codeview

from hotpatch.arch import Flow
from hotpatch.differ import Verdict, diff_images
from hotpatch.image import open_image
from hotpatch.image.flow import reach

if TYPE_CHECKING:
    from pathlib import Path

    from hotpatch.differ import ImageDiff
    from hotpatch.image import Function, Image


@dataclass(frozen=True, slots=True)
class Entries:
    """Figures of images: entries that the PDB knows, that were found, that are right; functions of known size and with right ranges."""

    known: int = 0
    found: int = 0
    right: int = 0
    bounded: int = 0
    bounds_right: int = 0
    failures: tuple[str, ...] = ()

    def __add__(self, other: Entries) -> Entries:
        """Both together."""
        return Entries(
            self.known + other.known,
            self.found + other.found,
            self.right + other.right,
            self.bounded + other.bounded,
            self.bounds_right + other.bounds_right,
            self.failures + other.failures,
        )


@dataclass(frozen=True, slots=True)
class Matches:
    """Figures of pairs of images.

    Attributes:
        known: Functions of the base that the fixed image has too, by the names in the PDBs.
        right: Of those, matched to one that shares a name.
        wrong_known: Of those, matched to another.
        wrong: ``wrong_known``, and functions that only the base has but that were matched.
        changed: Of the known, those called changed when the names are known.
        changed_right: Of those, matched to one that shares a name.
        changed_wrong: Of those, matched to another.
    """

    known: int = 0
    right: int = 0
    wrong_known: int = 0
    wrong: int = 0
    changed: int = 0
    changed_right: int = 0
    changed_wrong: int = 0
    failures: tuple[str, ...] = ()

    def __add__(self, other: Matches) -> Matches:
        """Both together."""
        return Matches(
            self.known + other.known,
            self.right + other.right,
            self.wrong_known + other.wrong_known,
            self.wrong + other.wrong,
            self.changed + other.changed,
            self.changed_right + other.changed_right,
            self.changed_wrong + other.changed_wrong,
            self.failures + other.failures,
        )


@dataclass
class Truth:
    """What a PDB says of code; addresses are RVAs.

    Attributes:
        sizes: Entry → bytes, of procedures (``S_GPROC32``, ``S_LPROC32`` and their kin) and thunks (``S_THUNK32``).
        separated: Entry → start and size of its parts elsewhere (``S_SEPCODE``).
        names: Entry → names: of procedures, thunks and publics. Publics inside of a procedure are labels of its assembly and no entries.
    """

    sizes: dict[int, int] = field(default_factory=dict)
    separated: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    names: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))


def truth_of(path: Path, image: Image) -> Truth:
    """What the PDB beside the image at ``path`` says of its code."""
    executable = [section.range for section in image.sections if section.executable]
    truth = Truth()
    with purepdb.PDB.open(str(path.with_suffix(".pdb"))) as pdb:
        rows = [(one.segment, one.offset, one.code_size, one.name) for one in pdb.module_procs()]
        rows += [(one.segment, one.offset, one.length, one.name) for one in pdb.thunks()]
        for segment, offset, size, name in rows:
            rva = pdb.to_rva(segment, offset) or 0
            if any(rva in part for part in executable):
                truth.names[rva].add(name)
                truth.sizes[rva] = max(size, truth.sizes.get(rva, 0))
        starts = sorted(truth.sizes)
        for public in pdb.public_symbols():
            rva = pdb.to_rva(public.segment, public.offset) or 0
            at = bisect_right(starts, rva) - 1
            inside = at >= 0 and starts[at] < rva < starts[at] + truth.sizes[starts[at]]
            if not inside and any(rva in part for part in executable):
                truth.names[rva].add(public.name)
        for module in pdb.dbi.modules:
            for record in codeview.iter_records(pdb.module_symbol_bytes(module), kinds=frozenset({codeview.S_SEPCODE})):
                part = codeview.parse_sepcode(record.payload)
                entry, start = pdb.to_rva(part.parent_segment, part.parent_offset), pdb.to_rva(part.segment, part.offset)
                if entry is not None and start is not None:
                    truth.separated[entry].append((start, part.length))
    return truth


def entries(path: Path) -> Entries:
    """Figures of one image."""
    image = open_image(path, pdb=None)
    truth = truth_of(path, image)
    found: dict[int, Function] = {function.entry: function for function in image.functions}
    right = truth.names.keys() & found.keys()
    where = "/".join(path.parts[-3:])
    failures = [f"{where} 0x{entry:x} {min(truth.names[entry])}: not found" for entry in sorted(truth.names.keys() - right)]
    failures += [f"{where} 0x{entry:x}: found, but the PDB has no function there" for entry in sorted(found.keys() - right)]
    bounded = sorted(entry for entry, size in truth.sizes.items() if size and entry in found)
    wrong = [entry for entry in bounded if not _same_code(image, truth, found[entry])]
    failures += [f"{where} 0x{entry:x} {min(truth.names[entry])}: other bounds" for entry in wrong]
    return Entries(len(truth.names), len(found), len(right), len(bounded), len(bounded) - len(wrong), tuple(failures))


def _same_code(image: Image, truth: Truth, function: Function) -> bool:
    """Whether the ranges are those of the PDB: no byte outside of them, and of what is in them nothing left out that control reaches.

    A procedure's record counts what the compiler lays behind its code: filler, literals, jump tables. That is data and no code.
    """
    stretches = [(function.entry, truth.sizes[function.entry]), *truth.separated.get(function.entry, ())]
    if not all(any(start <= part.start and part.end <= start + size for start, size in stretches) for part in function.ranges):
        return False
    covered = {rva for part in function.ranges for rva in range(part.start, part.end)}
    for start, size in stretches:
        code = image.read(start, size)
        reached = reach(image.architecture, code, start) if code else ()
        if any(one.address not in covered for one in reached if one.flow is not Flow.TRAP):
            return False
    return True


def matches(base_path: Path, fixed_path: Path) -> Matches:
    """Figures of one pair."""
    bare = diff_images(open_image(base_path, pdb=None), open_image(fixed_path, pdb=None))
    named = diff_images(open_image(base_path), open_image(fixed_path))
    there, here = comparable(truth_of(base_path, bare.base).names, truth_of(fixed_path, bare.fixed).names)
    partners: Mapping[int, set[int]] = _partners(bare)
    changed = {row.base.entry for row in named.of(Verdict.CHANGED) if row.base is not None}
    fixed_names = {name for names in here.values() for name in names}
    where = "/".join(base_path.parts[-3:])
    counts = dict.fromkeys(("known", "right", "wrong_known", "wrong", "changed", "changed_right", "changed_wrong"), 0)
    failures = []
    for entry, names in sorted(there.items()):
        found = partners.get(entry, set())
        known = not names.isdisjoint(fixed_names)
        right = known and any(not names.isdisjoint(here.get(other, ())) for other in found)
        wrong = bool(found) and not right
        is_changed = known and entry in changed
        for key, value in (
            ("known", known),
            ("right", right),
            ("wrong_known", known and wrong),
            ("wrong", wrong),
            ("changed", is_changed),
            ("changed_right", is_changed and right),
            ("changed_wrong", is_changed and wrong),
        ):
            counts[key] += value
        if wrong:
            others = ", ".join(min(here.get(other, {f"0x{other:x}"})) for other in sorted(found))
            failures.append(f"{where} 0x{entry:x} {min(names)}: matched with {others}")
        elif known and not right:
            failures.append(f"{where} 0x{entry:x} {min(names)}: not matched")
    return Matches(**counts, failures=tuple(failures))


_Names = Mapping[int, set[str]]
"""Of functions, by entry."""


def comparable(there: _Names, here: _Names) -> tuple[_Names, _Names]:
    """The names of two images, without the numbers of funclets where these are no names.

    A compiler counts a function's funclets (``dtor$3``, ``catch$0``) up: where one image has other numbers than the other, something came
    or went, and equal numbers need not mean the same. What stays of the name tells whose funclet it is, and of which kind.
    """
    numbers: tuple[dict[str, set[str]], dict[str, set[str]]] = (defaultdict(set), defaultdict(set))
    for known, names in zip(numbers, (there, here), strict=True):
        for name in chain.from_iterable(names.values()):
            family, dollar, number = name.rpartition("$")
            if dollar and number.isdecimal():
                known[family].add(number)
    shifted = {family for family in numbers[0].keys() & numbers[1].keys() if numbers[0][family] != numbers[1][family]}

    def bare(name: str) -> str:
        family, _, _ = name.rpartition("$")
        return family if family in shifted else name

    one, other = ({entry: {bare(name) for name in names} for entry, names in image.items()} for image in (there, here))
    return one, other


def _partners(diff: ImageDiff) -> Mapping[int, set[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    for row in diff.functions:
        if row.base is not None and row.fixed is not None:
            found[row.base.entry].add(row.fixed.entry)
    return found


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Figures of one pair whose named things all stand where they stood.

    Attributes:
        compared: Procedures of known size in both PDBs, by address.
        differ: Of those, whose bytes differ.
        called: Functions that a comparison without PDBs calls changed, added or removed.
        missed: Of ``differ``, not among ``called``.
        wrong: Of ``called``, not among ``differ``.
    """

    compared: int
    differ: int
    called: int
    missed: int
    wrong: int


def verdicts(base_path: Path, fixed_path: Path) -> Verdicts | None:
    """Which functions changed, by the bytes of the PDBs' procedures alone; ``None`` where a name has moved, so that bytes do not tell.

    Where everything that has a name stands at one address in both images, equal bytes refer to equal things.
    """
    bare = diff_images(open_image(base_path, pdb=None), open_image(fixed_path, pdb=None))
    there, here = _places(base_path), _places(fixed_path)
    if {name: rva for name, (rva, _) in there.items()} != {name: rva for name, (rva, _) in here.items()}:
        return None
    bodies = [(rva, bare.base.read(rva, size), bare.fixed.read(rva, here[name][1])) for name, (rva, size) in there.items() if size]
    differ = {rva for rva, old, new in bodies if old != new}
    rows = (*bare.of(Verdict.CHANGED), *bare.of(Verdict.ADDED), *bare.of(Verdict.REMOVED))
    called = {int(one.entry) for row in rows for one in (row.base, row.fixed) if one is not None}
    return Verdicts(len({rva for rva, *_ in bodies}), len(differ), len(called), len(differ - called), len(called - differ))


def _places(path: Path) -> dict[str, tuple[int, int]]:
    """RVA and size of each procedure, and RVA (size 0) of each datum, by name, its number among those of that name, and kind."""
    found: dict[str, tuple[int, int]] = {}
    with purepdb.PDB.open(str(path.with_suffix(".pdb"))) as pdb:
        for function in pdb.functions():
            if function.rva is not None and function.code_size:
                found.update({f"code {name}": (function.rva, function.code_size) for name in function.names})
        data = sorted((one.name, pdb.to_rva(one.segment, one.offset) or 0) for one in pdb.data_symbols())
        found.update({f"data {name} {number}": (rva, 0) for number, (name, rva) in enumerate(data)})
    return found
