"""The unwind data of the code that travels: carried over, bound anew, and a function table for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Use
from hotpatch.builder.model import CarriedAddress, Site, Veneer
from hotpatch.builder.spans import Spans
from hotpatch.errors import NotHotpatchable, Refusal, Rule
from hotpatch.image import Range
from hotpatch.unwind import Meaning, descriptor_range, unwinder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from hotpatch.builder.model import Body, Bound, Destination, Placement
    from hotpatch.image import Image, UnwindEntry
    from hotpatch.unwind import CarriedUnwind, UnwindReference

INFO_ALIGNMENT = 4
HANDLER_SITE_SIZE = 4


@dataclass(frozen=True, slots=True)
class UnwindData:
    """A section at the RVA that it was made for: the function table, then the unwind information; ``table`` is the table's range."""

    data: bytes
    table: Range


def entries_of(image: Image, body: Body) -> tuple[UnwindEntry, ...]:
    """The function-table entries that begin in the body's blocks."""
    found = (entry for block in body.blocks for entry in image.unwind_entries_in(block))
    return tuple(sorted(dict.fromkeys(found), key=lambda entry: entry.range.start))


def carry(image: Image, body: Body) -> tuple[tuple[CarriedUnwind, ...], tuple[Refusal, ...]]:
    """The unwind information of a body, with whatever cannot be carried as refusals."""
    machine = unwinder(image.machine)
    carried: list[CarriedUnwind] = []
    refusals: list[Refusal] = []
    for entry in entries_of(image, body):
        try:
            carried.append(machine.carry(image, entry))
        except NotHotpatchable as cannot:
            refusals += cannot.refusals
    known = {item.entry.info for item in carried}
    for item in carried:
        lost = [ref for ref in item.references if ref.meaning is Meaning.INFO and ref.target not in known]
        if lost and not refusals:
            reason = f"its unwind data at 0x{item.entry.range.start:x} continues in another function's; build with one function a section"
            evidence = {"info": int(lost[0].target), "bytes": item.info.hex()}
            refusals.append(Refusal(Rule.UNWIND, body.function.name, body.function.entry, reason, evidence))
    return tuple(carried), tuple(refusals)


def handler_sites(carried: Iterable[CarriedUnwind]) -> Iterator[tuple[Site, bool]]:
    """What unwind information calls, as sites to bind: the language-specific handler of each entry, and (true) filters and finally blocks.

    Those work in the frame of their function, so they travel with it like its cold parts.
    """
    for item in carried:
        for number, ref in enumerate(called(item)):
            at = Rva((item.entry.info or 0) + ref.offset)
            yield (
                Site(at, HANDLER_SITE_SIZE, at, FixupKind.ADDR32NB, Use.CALL, ref.target, 0),
                number > 0 and ref.meaning is Meaning.HANDLER,
            )


def called(item: CarriedUnwind) -> list[UnwindReference]:
    """The references to code that the unwinding system calls, the language-specific handler first."""
    return sorted((ref for ref in item.references if ref.meaning in (Meaning.HANDLER, Meaning.CALLEE)), key=lambda ref: ref.offset)


def descriptors(image: Image, carried: Iterable[CarriedUnwind]) -> Iterator[Range]:
    """The type descriptors that unwind information names; a copy serves, because types are told apart by their names."""
    for item in carried:
        for ref in item.references:
            if ref.meaning is Meaning.DATA:
                yield descriptor_range(image, ref.target)


def stray(carried: Iterable[CarriedUnwind], blocks: Iterable[Range]) -> Iterator[tuple[CarriedUnwind, UnwindReference]]:
    """References of unwind information to code that does not travel."""
    known = Spans((block.start, block.end, block) for block in blocks)
    for item in carried:
        for ref in item.references:
            if ref.meaning is Meaning.CODE and not known.covers(ref.target):
                yield item, ref


def handler_veneers(bound: Bound) -> dict[Destination, Veneer]:
    """The veneer by which each function outside of the patch is reached that data names, which can only name code of its own image."""
    found: dict[Destination, Veneer] = {}
    for item in (*bound.handlers, *bound.record_code):
        if not isinstance(item.destination, CarriedAddress):
            found.setdefault(item.destination, Veneer(item.destination, item.after, falls=False))
    return found


def link_unwind(
    image: Image, carried: Iterable[CarriedUnwind], rva: Rva, placement: Placement, handler_rva: Callable[[Rva], Rva]
) -> UnwindData:
    """The section at ``rva``; ``handler_rva`` says where the patch image has the handler with that fixed entry (or the way to it)."""
    machine = unwinder(image.machine)
    rows = sorted(carried, key=lambda item: placement.of(item.entry.range.start))
    table_size = len(machine.pdata([(Rva(0), Rva(0), 0)])) * len(rows)
    info_rvas: dict[Rva, Rva] = {}
    at = table_size
    for item in rows:
        if item.packed is None and item.entry.info is not None and item.entry.info not in info_rvas:
            at += -at % INFO_ALIGNMENT
            info_rvas[item.entry.info] = Rva(rva + at)
            at += len(item.info)
    data = bytearray(at)
    table = []
    for item in rows:
        begin = placement.of(item.entry.range.start)
        end = Rva(begin + item.entry.range.size)
        if item.packed is not None or item.entry.info is None:
            table.append((begin, end, item.packed or 0))
            continue
        where = info_rvas[item.entry.info]
        table.append((begin, end, int(where)))
        data[where - rva : where - rva + len(item.info)] = _bound(image, item, where, placement, info_rvas, handler_rva)
    data[:table_size] = machine.pdata(table)
    return UnwindData(bytes(data), Range(rva, Rva(rva + table_size)))


def _bound(
    image: Image,
    item: CarriedUnwind,
    where: Rva,
    placement: Placement,
    info_rvas: Mapping[Rva, Rva],
    handler_rva: Callable[[Rva], Rva],
) -> bytes:
    out = bytearray(item.info)
    for ref in item.references:
        match ref.meaning:
            case Meaning.CODE | Meaning.DATA:
                target = Rva(placement.of(ref.target) + ref.addend)
            case Meaning.INFO:
                target = Rva(info_rvas[ref.target] + ref.addend)
            case Meaning.HANDLER | Meaning.CALLEE:
                target = Rva(handler_rva(ref.target) + ref.addend)
        size = image.architecture.field_size(ref.kind)
        field = bytes(out[ref.offset : ref.offset + size])
        out[ref.offset : ref.offset + size] = image.architecture.bind(ref.kind, field, where + ref.offset, target, image_base=0)
    return bytes(out)
