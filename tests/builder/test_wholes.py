"""What one function used, and a part of it uses that the compiler cut off: who uses what lies at a distance tells as if it were whole."""

from __future__ import annotations

import pytest

from hotpatch.arch import Machine
from hotpatch.builder import build_patch
from hotpatch.differ import ImageDiff, Verdict, diff_images
from hotpatch.errors import NotHotpatchable
from tests.builder.test_reaches import reaches, reads
from tests.builder.test_unclaimed import calls
from tests.emulator.pe import DATA, TEXT, Pe

START, CUT, DEEPER = DATA + 0x100, TEXT + 0x400, TEXT + 0x480
each_machine = pytest.mark.parametrize("machine", Machine)


def pair(machine: Machine, *builds: dict[str, int], cut: tuple[int, ...] = (1,), shared: bool = False, named: bool = False) -> ImageDiff:
    """Functions, by name, that reach what lies at a distance from one address; the first does so by a new one in the builds ``cut``.

    ``shared``: another uses that one, too; ``named``: it is exported.
    """
    images = []
    for number, there in enumerate(builds):
        pe = Pe(machine)
        entries = [("named", TEXT)]
        pe.put(TEXT, reads(machine, TEXT, START, 1))
        for name, distance in there.items():
            at = TEXT + 0x40 * len(entries)
            changed = name == "a" and number == 1
            if name == "a" and number in cut:
                pe.put(
                    at,
                    reads(machine, at, START, 2)[: 8 if machine is Machine.ARM64 else 6]
                    + calls(machine, at + (8 if machine is Machine.ARM64 else 6), CUT),
                )
                pe.put(CUT, reaches(machine, CUT, START, distance, changed=changed))
            else:
                pe.put(at, reaches(machine, at, START, distance, changed=changed))
            entries.append((name, at))
        other = TEXT + 0x300
        pe.put(other, calls(machine, other, CUT) if shared and number in cut else reads(machine, other, START, 9))
        entries += [("other", other), *([("cut", CUT)] if named and number in cut else [])]
        pe.exports("cut.dll", entries)
        images.append(pe.build("cut.dll"))
    return diff_images(*images)


@each_machine
@pytest.mark.parametrize("cut", [(1,), (0,)], ids=["cut-off", "taken-in"])
def test_a_part_speaks_for_the_whole(machine: Machine, cut: tuple[int, ...]) -> None:
    diff = pair(machine, {"a": 8, "b": 16}, {"a": 8, "b": 16}, cut=cut)
    assert len(diff.of(Verdict.ADDED if cut == (1,) else Verdict.REMOVED)) == 1
    assert [item.kind.value for item in build_patch(diff).carried] == (["function"] if cut == (1,) else [])


@each_machine
@pytest.mark.parametrize("apart", [{"shared": True}, {"named": True}], ids=lambda item: next(iter(item)))
def test_what_others_may_use_too_is_no_part(machine: Machine, apart: dict[str, bool]) -> None:
    with pytest.raises(NotHotpatchable, match="and no function both"):
        build_patch(pair(machine, {"a": 8, "b": 16}, {"a": 8, "b": 16}, **apart))


@each_machine
def test_what_a_part_uses_may_be_something_else(machine: Machine) -> None:
    with pytest.raises(NotHotpatchable):
        build_patch(pair(machine, {"a": 8, "b": 8, "c": 16}, {"a": 16, "b": 16, "c": 8}))
