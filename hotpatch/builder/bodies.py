"""A function of the fixed image, taken apart for travelling: blocks, references, tables, and whether all of it could be decoded."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.arch import FixupKind, Flow, Use
from hotpatch.builder.evidence import instruction_evidence
from hotpatch.builder.model import Body, Site
from hotpatch.differ.parts import POINTER_SIZE
from hotpatch.errors import Refusal, Rule
from hotpatch.image import Range
from hotpatch.image.flow import LEAVING, is_left_over

if TYPE_CHECKING:
    from hotpatch.arch import Instruction, JumpTable
    from hotpatch.image import Function, Image

    _Ending = tuple[Instruction | None, Instruction | None]
    """The last two instructions of a block, filler left out; ``None`` where data stand."""

_LONGEST_LITERAL = 16
_LONGEST_GAP = 64


def body_of(image: Image, function: Function) -> Body | Refusal:
    """Take ``function`` apart, or say what of it could not be decoded."""
    tables = image.jump_tables(function)
    spans = [Range(Rva(table.address), Rva(table.address + table.size)) for table in tables]
    spans += [Range(Rva(table.index[0]), Rva(sum(table.index))) for table in tables if table.index]
    sites = _sites(image, function, spans)
    literals = [literal for site in sites if (literal := _literal(image, site)) is not None]
    blocks = _blocks(image, function, spans)
    falls_into = {}
    led = [reference for part in image.references(function) for reference in part]
    for block in blocks:
        ending = _decode(image, function, block, spans, literals)
        if isinstance(ending, Refusal):
            return ending
        before, last = ending
        if last is None or last.flow not in (Flow.NEXT, Flow.BRANCH) or is_left_over(before, last.address, led):
            continue
        following = _following(image, block.end)
        if following is None:
            return Refusal(
                Rule.UNRESOLVED_REFERENCE,
                function.name,
                function.entry,
                f"code runs on past its end at 0x{block.end:x} of the fixed image into what is no known function; leave this function out "
                "with --except",
                {"image": "fixed", **instruction_evidence(image, last.address, last.size)},
            )
        falls_into[block.end] = following
    return Body(function, blocks, sites, distinct(tables), falls_into)


def _blocks(image: Image, function: Function, spans: list[Range]) -> tuple[Range, ...]:
    """The ranges by start, touching ones joined; a table among code right behind one stays there, because its entries may not reach far.

    So does one that begins in a range and goes on past its end: all of it must travel, and what follows must not be laid over it.
    """
    tables = [span for span in spans if (section := image.section_at(span.start)) is not None and section.executable]
    parts = [*function.ranges, *(table for table in tables if not any(_is_within(table, part) for part in function.ranges))]
    blocks: list[Range] = []
    for part in sorted(parts):
        gap = part.start - blocks[-1].end if blocks else -1
        if blocks and (gap <= 0 or (gap < POINTER_SIZE and part in tables)):
            blocks[-1] = Range(blocks[-1].start, max(blocks[-1].end, part.end))
        elif part not in tables:
            blocks.append(part)
    return tuple(blocks)


def _is_within(part: Range, whole: Range) -> bool:
    return part.start in whole and part.end <= whole.end


def _sites(image: Image, function: Function, spans: list[Range]) -> tuple[Site, ...]:
    sites = []
    for part, references in zip(function.ranges, image.references(function), strict=True):
        sites += [
            Site(
                Rva(part.start + item.offset),
                item.size,
                Rva(part.start + item.field),
                item.kind,
                item.use,
                Rva(item.target),
                item.addend,
            )
            for item in references
            if item.use is not Use.UNUSED
        ]
        sites += [pointer_site(image, part.start, rva) for rva in image.relocations_in(part)]
    return tuple(
        sorted((site for site in sites if not any(site.field in span for span in spans)), key=lambda site: (site.field, site.target))
    )


def pointer_site(image: Image, owner: Rva, rva: Rva) -> Site:
    """The site of a relocated pointer."""
    return Site(owner, POINTER_SIZE, rva, FixupKind.ADDR64, Use.DATA, Rva(image.u64(rva) - image.preferred_base), 0)


def _decode(image: Image, function: Function, block: Range, spans: list[Range], literals: list[Range]) -> _Ending | Refusal:
    """How the block ends, or a refusal for bytes that are neither instruction nor known data."""
    arch = image.architecture
    at: Rva = block.start
    before, last = None, None
    while at < block.end:
        span = next((span for span in spans if at in span), None)
        if span is not None:
            at, before, last = Rva(-(-span.end // arch.instruction_alignment) * arch.instruction_alignment), None, None
            continue
        stop = min([block.end, *(span.start for span in spans if at < span.start < block.end)])
        for instruction in arch.disassemble(image.read(at, stop - at), at):
            at = Rva(instruction.address + instruction.size)
            if any(instruction.address in literal for literal in literals):
                continue
            if instruction.flow is not Flow.NEXT or image.read(instruction.address, instruction.size) not in arch.padding_bytes:
                before, last = last, instruction
        if at < stop:
            is_literal = any(0 <= at - literal.start < _LONGEST_LITERAL for literal in literals)  # and what aligns the next one
            if not is_literal and not _is_behind_all(image, function, at, (before, last)):
                return Refusal(
                    Rule.UNDECODABLE,
                    function.name,
                    function.entry,
                    f"bytes at 0x{at:x} of the fixed image are no known instruction, so what they refer to is unknown; build without them",
                    {"image": "fixed", **instruction_evidence(image, at, min(16, stop - at))},
                )
            at, before, last = Rva(at + arch.instruction_alignment), None, None
    return before, last


def _literal(image: Image, site: Site) -> Range | None:
    """What the instruction of ``site`` loads from among code, if it does."""
    size = image.architecture.literal_size(image.read(site.instruction, site.size)) if site.kind is FixupKind.LITERAL19 else 0
    return Range(site.target, Rva(site.target + size)) if size else None


def _is_behind_all(image: Image, function: Function, at: int, ending: _Ending) -> bool:
    """Whether control never comes to ``at``: it leaves before, and nothing of the function leads in between, nor who knows where.

    Microsoft's compiler for Arm64 leaves literals behind functions that no instruction loads.
    """
    before, last = ending
    references = [reference for part in image.references(function) for reference in part]
    if last is not None and is_left_over(before, last.address, references):
        last = before
    if last is None or last.flow not in LEAVING or last.flow is Flow.JUMP_INDIRECT:
        return False
    jumps = {part.start + table.jump for part in function.ranges for table in image.jump_tables_in(part)}
    every = (step for part in function.ranges for step in image.instructions_in(part))
    if any(step.flow is Flow.JUMP_INDIRECT and step.address not in jumps for step in every):
        return False
    led = {reference.target for reference in references}
    led.update(target for part in function.ranges for table in image.jump_tables_in(part) for target in table.ways)
    return not any(last.address < target <= at for target in led)


def _following(image: Image, end: Rva) -> Rva | None:
    """The function that code reaches by running on past ``end``: right there, or behind filler."""
    starts = [function.entry for function in image.functions]
    index = bisect_left(starts, end)
    if index == len(starts) or starts[index] - end > _LONGEST_GAP:
        return None
    entry = starts[index]
    return entry if entry == end or image.padding_before(image.functions[index]) >= entry - end else None


def distinct(tables: tuple[JumpTable, ...]) -> tuple[JumpTable, ...]:
    """Each table once: several jumps may go through one."""
    return tuple({table.address: table for table in tables}.values())
