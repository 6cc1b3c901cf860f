"""Whether the patched base does what the fixed image does, although the two lie differently in memory."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from hotpatch.address import Rva, Va
from hotpatch.differ import diff_images

if TYPE_CHECKING:
    from hotpatch.differ import ImageDiff
    from hotpatch.image import Image
    from hotpatch.process import Process
    from hotpatch.verifier.model import Call, Outcome

_RVA_PREFIX = "rva:"
_POINTER_SIZE = 8
_IMPORTS = "import"
"""``matched_by`` of import slots, whose contents are the loader's."""


class Agreement:
    """Compares outcomes of the two images."""

    def __init__(self, base: Image, fixed: Image) -> None:
        """Compare runs of these; they are correlated only where that is needed."""
        self._base, self._fixed = base, fixed

    @cached_property
    def _diff(self) -> ImageDiff:
        return diff_images(self._base, self._fixed)

    def translated(self, call: Call) -> Call:
        """The same call for the fixed image: an RVA of the base becomes the corresponding one, a name stays."""
        function, *arguments = call
        if not isinstance(function, str) or not function.startswith(_RVA_PREFIX):
            return call
        entry = self._base.function_named(function).entry
        for theirs, ours in self._diff.base_entries.items():
            if ours == entry:
                return (f"{_RVA_PREFIX}0x{theirs:x}", *arguments)
        return call

    def problem(self, new: Outcome, patched: Process, fixed: Outcome, process: Process) -> str | None:
        """How the call of the patched base differs from the fixed image's, or ``None``.

        Result registers, buffers, output, how it ended, and all writable data that both images have must agree. Addresses in registers and
        data agree where they mean the same thing, or a thing that only one image has.
        """
        texts = []
        if (new.fault, new.access, new.exit_code) != (fixed.fault, fixed.access, fixed.exit_code):
            texts.append(f"end: {new.ended}, {fixed.ended}")
        for name, mine, theirs in (("return", new.value, fixed.value), ("float", new.float_bits, fixed.float_bits)):
            if mine is not None and theirs is not None and mine != theirs and not self._same_place(mine, patched, theirs, process):
                texts.append(f"{name}: 0x{mine:x}, 0x{theirs:x}")
        texts += [
            f"buffer {index}: {mine.hex()}, {theirs.hex()}"
            for index, (mine, theirs) in enumerate(zip(new.buffers, fixed.buffers, strict=True))
            if mine != theirs
        ]
        if new.output != fixed.output:
            texts.append(f"output: {new.output!r}, {fixed.output!r}")
        texts += self._data_problem(patched, process)
        return f"the patched base and the fixed image give different results ({'; '.join(texts)})" if texts else None

    def _data_problem(self, patched: Process, process: Process) -> list[str]:
        """The first place of each writable datum where the two images hold something else."""
        texts = []
        for match in self._diff.data:
            if not match.writable or match.matched_by == _IMPORTS:
                continue
            mine = patched.guest.read(Va(patched.load_base + match.base), match.size)
            theirs = process.guest.read(Va(process.load_base + match.fixed), match.size)
            if mine == theirs:
                continue
            cuts = [0, *range(-match.base % _POINTER_SIZE, match.size, _POINTER_SIZE), match.size]
            for start, end in pairwise(cuts):
                one, other = mine[start:end], theirs[start:end]
                if one != other and not (len(one) == _POINTER_SIZE and self._same_place(_word(one), patched, _word(other), process)):
                    name = match.name or f"data at rva 0x{match.base:x}"
                    texts.append(f"{name}+0x{start:x}: {one.hex()}, {other.hex()}")
                    break
        return texts

    def _same_place(self, mine: int, patched: Process, theirs: int, process: Process) -> bool:
        rva = theirs - process.load_base
        if not 0 <= rva < self._fixed.size_of_image:
            return False
        if any(patch.image <= mine < patch.image + patch.size for patch in patched.status().patches):
            return True
        ours = mine - patched.load_base
        if not 0 <= ours < self._base.size_of_image:
            return False
        if (ours, rva) in self._diff.pairs:
            return True
        meant = self._diff.base_entries.get(Rva(rva))
        if meant is None:
            meant = self._diff.base_datum(Rva(rva))
        return meant is None or meant == ours


def _word(data: bytes) -> int:
    return int.from_bytes(data, "little")
