"""Where numbers that code counts on by may be encoded anew, and what nameless data are known by that lie elsewhere."""

import struct
from dataclasses import replace

import pytest

from hotpatch import build
from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Machine, Use
from hotpatch.builder import reckonings
from hotpatch.builder.bodies import body_of
from hotpatch.builder.model import Body, Site
from hotpatch.differ import diff_images
from hotpatch.errors import NotHotpatchable, Rule
from hotpatch.image import Range, UnwindEntry
from tests.builder.applied import Applied
from tests.builder.test_neighbours import RETURN, STEP, takes
from tests.builder.test_reaches import MOVED, SAME, live
from tests.builder.test_rearranged import loads
from tests.emulator.pe import DATA, RDATA, TEXT, Pe

each_machine = pytest.mark.parametrize("machine", Machine)


def _body(machine: Machine) -> tuple[object, Body]:
    image = live(machine, 8, (SAME, MOVED)).fixed
    body = body_of(image, image.function_of_entry(Rva(TEXT)))
    assert isinstance(body, Body)
    return image, body


@each_machine
def test_a_function_with_a_handler_may_be_entered_elsewhere(machine: Machine, monkeypatch) -> None:
    image, body = _body(machine)
    assert [count.counted.number for count in reckonings.counts(image, body).values()] == [8]
    entry = UnwindEntry(Range(Rva(TEXT), Rva(TEXT + 4)), (), None, Rva(TEXT), handler=Rva(TEXT + 0x80))
    monkeypatch.setattr(reckonings, "entries_of", lambda *_: (entry,))
    assert reckonings.counts(image, body) == {}


@each_machine
@pytest.mark.parametrize(
    ("instruction", "target", "enters"),
    [(0x80, 4, True), (0x80, 0, False), (0x80, 0x200, False), (4, 8, False)],
    ids=["into-the-middle", "the-entry", "another", "its-own-loop"],
)
def test_what_leads_into_the_middle(machine: Machine, instruction: int, target: int, *, enters: bool) -> None:
    at = Rva(TEXT + instruction)
    site = Site(at, 4, at, FixupKind.BRANCH26, Use.JUMP, Rva(TEXT + target), 0)
    assert reckonings.is_entered_elsewhere(_body(machine)[1], [replace(site, target=Rva(TEXT)), site]) is enters


TEXTS = RDATA + 0x800
NEAR, FAR = DATA + 0x120, DATA + 0x1E0


def _moved(machine: Machine, content: str, *, twice: bool = False):
    """A changed function loads a datum that lies behind others in the fixed image, not between them; ``twice``: as another begins."""
    images = []
    for number, place in enumerate((NEAR, FAR), 1):
        pe = Pe(machine)
        pe.put(TEXT, (b"\xcc" if machine is Machine.X64 else bytes(1)) * 0x400)
        rows = []
        moved = 0x40 * (number - 1)
        stayed = {"first": DATA + 0x100, "last": DATA + 0x160 - moved, "tail": DATA + 0x1E0 - moved, "end": DATA + 0x220 - moved // 2}
        for count, (name, target) in enumerate({"f": place, **stayed}.items()):
            at = TEXT + STEP * count
            code = (loads if name == "f" else takes)(machine, at, target, 0)
            if name == "f":
                code += b"\x48\x83\xc0" + bytes((number,)) if machine is Machine.X64 else struct.pack("<I", 0x91000000 | number << 10)
            pe.put(at, code + RETURN[machine])
            rows.append((name, at))
        for target in stayed.values():
            pe.put(target, struct.pack("<4I", 1, 2, 3, 4))
        pe.put(TEXTS, b"a text of its own\0")
        for start in (place, *((DATA + 0x300,) if twice else ())):
            if content == "pointer":
                pe.pointer(start, TEXTS)
            pe.put(start + 8, struct.pack("<Q", 0x20))
        pe.exports("moved.dll", rows)
        images.append(pe.build("moved.dll"))
    return diff_images(*images)


@each_machine
def test_a_datum_that_moved_is_known_by_what_it_points_to(machine: Machine) -> None:
    diff = _moved(machine, "pointer")
    assert Applied(diff.base, build(diff)).call("f") % 0x1000 == TEXTS % 0x1000 + 2


@each_machine
@pytest.mark.parametrize(("content", "twice"), [("numbers", False), ("pointer", True)])
def test_a_datum_that_moved_is_not_known_by_numbers_or_what_others_point_to(machine: Machine, content: str, *, twice: bool) -> None:
    with pytest.raises(NotHotpatchable) as refused:
        build(_moved(machine, content, twice=twice))
    assert Rule.UNRESOLVED_REFERENCE in {refusal.rule for refusal in refused.value.refusals}
