"""Putting a patch image into the process: a place within reach, sections, fixups, imports, rights."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.arch import FixupKind
from hotpatch.engine.registry import ImageKey, MappedImage
from hotpatch.engine.target import Rights
from hotpatch.errors import ApplyRefused, OutOfReach, Refusal, Rule
from hotpatch.image import SectionFlags
from hotpatch.patch import ORIGINAL_PREFIX, SUPPORT_LIBRARY, Space

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpatch.arch import Architecture
    from hotpatch.engine.registry import Registry
    from hotpatch.engine.target import Module, Target
    from hotpatch.engine.transaction import Transaction
    from hotpatch.patch import Fixup, Patch, PatchImport

PAGE = 0x1000
"""Bytes of a page, the same on both machines under Windows."""
VENEER_SIZE = 16
"""Bytes from one veneer behind a patch image to the next."""
_ADDRESS_SIZE = 8


def whole_pages(size: int) -> int:
    """``size`` rounded up to pages."""
    return -(-size // PAGE) * PAGE


def find_place(target: Target, size: int, low: Va, high: Va, reach: int, *, forward: bool = False) -> Va:
    """Where ``size`` bytes can be mapped such that no byte of them is farther than ``reach`` from anything in ``low`` … ``high``.

    Memory past ``low`` is preferred, which is past the module's end, since nothing inside of a module is free; ``forward`` takes no other.

    Raises:
        ApplyRefused: Nothing free lies within reach (out-of-reach).
    """
    try:
        return target.find_room(size, near=low, reach=reach)
    except ApplyRefused as full:
        backward = reach - (high - low)
        if not forward and backward >= size:
            try:
                return target.find_room(size, near=low, reach=backward, above=False)
            except ApplyRefused:
                pass
        raise ApplyRefused(
            [
                Refusal(
                    Rule.OUT_OF_REACH,
                    None,
                    None,
                    f"no {size} free bytes lie within reach of branches of the code at 0x{low:x}; load the module where more memory "
                    "around it is free",
                    {"low": low, "high": high, "reach": reach, "size": size, "forward": forward},
                )
            ]
        ) from full


def image_key(module: Module, patch: Patch) -> ImageKey:
    """What a patch's image is known by."""
    digest = patch.image.sha256 if patch.image.data is patch.data else hashlib.sha256(patch.data).hexdigest()
    return ImageKey(module.va, digest)


def map_patch(
    step: Transaction,
    target: Target,
    registry: Registry,
    arch: Architecture,
    module: Module,
    patch: Patch,
    originals: Mapping[str, Va],
) -> tuple[ImageKey, MappedImage]:
    """The patch image in the process, ready to run: the one that is still mapped from an earlier application, or a new one.

    An image that is used again keeps the state of the data that it carries: callbacks and pointers into it may have outlived the revert,
    and to them it never went away.

    ``originals`` says where the originals of its functions can be called, by name: what it imports from ``hotpatch.dll`` as
    ``hotpatch_original_NAME``.

    Raises:
        ApplyRefused: out-of-reach, import-unavailable, malformed-patch.
    """
    key = image_key(module, patch)
    known = registry.images.get(key)
    if known is not None:
        return key, known
    pages = _page_rights(patch)
    room = len(pages) * PAGE
    va, veneers = _place_image(target, arch, module, patch, room)
    size = room + whole_pages(len(veneers) * VENEER_SIZE)
    pages += [_CODE] * ((size - room) // PAGE)
    content = _bound(target, arch, module, patch, va, veneers, originals)
    if veneers:
        content = content.ljust(room, b"\0") + b"".join(arch.absolute_jump(leads_to).ljust(VENEER_SIZE, b"\0") for leads_to in veneers)
    step.map(va, size, pages, content)
    step.add_module(patch.image.name.lower(), va, patch.image)
    step.event(
        "map",
        what="patch",
        va=va,
        size=size,
        module=module.va,
        name=patch.image.name,
        fixups=len(patch.fixups),
        imports=len(patch.imports),
        veneers=len(veneers),
    )
    registry.images[key] = mapped = MappedImage(va, size, patch, tuple((veneer, leads_to) for leads_to, veneer in veneers.items()))
    return key, mapped


def _place_image(target: Target, arch: Architecture, module: Module, patch: Patch, room: int) -> tuple[Va, Mapping[Va, Va]]:
    """Where the image of ``room`` bytes goes, and the veneers behind it, by where they lead.

    Where nothing is free within reach of its branches but farther away, and the machine's other references reach there, each place of
    the base that it branches to gets a veneer.
    """
    low, high = _span(module, patch)
    try:
        return find_place(target, room, low, high, arch.branch_reach), {}
    except ApplyRefused:
        if arch.veneer_reach <= arch.branch_reach:
            raise
    targets = sorted({module.va + row.target + row.addend for row in patch.fixups if _leaves_by_branch(row)})
    size = room + whole_pages(len(targets) * VENEER_SIZE)
    # The image's first byte counts too: values relative to it and pages are measured from there.
    va = find_place(target, size, Va(min(low, module.va)), high, arch.veneer_reach)
    return va, {Va(leads_to): Va(va + room + index * VENEER_SIZE) for index, leads_to in enumerate(targets)}


def _leaves_by_branch(fixup: Fixup) -> bool:
    return fixup.space is Space.BASE and fixup.kind is FixupKind.BRANCH26


def _span(module: Module, patch: Patch) -> tuple[Va, Va]:
    """First and last address of the module that code of the patch must reach, or that must reach it."""
    rvas = [fixup.target + fixup.addend for fixup in patch.fixups if fixup.space is Space.BASE and fixup.kind is not FixupKind.ADDR64]
    rvas += [function.base_rva for function in patch.functions]
    low, high = min(rvas, default=0), max(rvas, default=0)
    return Va(module.va + max(low, 0)), Va(module.va + min(high, module.size))


def _bound(
    target: Target, arch: Architecture, module: Module, patch: Patch, va: Va, veneers: Mapping[Va, Va], originals: Mapping[str, Va]
) -> bytes:
    """The patch image's memory at ``va`` with everything bound, branches to what ``veneers`` lead to through those."""
    image = patch.image
    memory = bytearray(image.mapped)
    delta = va - image.preferred_base
    fixed = {fixup.site for fixup in patch.fixups}
    for rva in image.relocations:
        if rva not in fixed:
            value = int.from_bytes(memory[rva : rva + _ADDRESS_SIZE], "little") + delta
            memory[rva : rva + _ADDRESS_SIZE] = (value % (1 << 64)).to_bytes(_ADDRESS_SIZE, "little")
    for fixup in patch.fixups:
        _bind(arch, module, patch, va, memory, fixup, veneers if _leaves_by_branch(fixup) else {})
    missing = []
    for wanted in patch.imports:
        address = _original(wanted, originals) or target.resolve_import(wanted.library, wanted.name, wanted.ordinal)
        if address is None:
            label = wanted.name if wanted.name is not None else f"#{wanted.ordinal}"
            missing.append(
                Refusal(
                    Rule.IMPORT_UNAVAILABLE,
                    None,
                    None,
                    f"the patch needs {wanted.library}!{label}, which the process does not have; load that library first",
                    {"library": wanted.library, "name": wanted.name, "ordinal": wanted.ordinal},
                )
            )
        else:
            memory[wanted.slot : wanted.slot + _ADDRESS_SIZE] = address.to_bytes(_ADDRESS_SIZE, "little")
    if missing:
        raise ApplyRefused(missing)
    return bytes(memory)


def _original(wanted: PatchImport, originals: Mapping[str, Va]) -> Va | None:
    """Where the original lives that a patch imports."""
    name = wanted.name or ""
    if wanted.library.lower() != SUPPORT_LIBRARY or not name.startswith(ORIGINAL_PREFIX):
        return None
    return originals.get(name.removeprefix(ORIGINAL_PREFIX))


def _bind(arch: Architecture, module: Module, patch: Patch, va: Va, memory: bytearray, fixup: Fixup, veneers: Mapping[Va, Va]) -> None:
    size = arch.field_size(fixup.kind)
    field = bytes(memory[fixup.site : fixup.site + size])
    origin = module.va if fixup.space is Space.BASE else va
    leads_to = Va(origin + fixup.target + fixup.addend)
    try:
        bound = arch.bind(fixup.kind, field, va + fixup.site, veneers.get(leads_to, leads_to), image_base=module.va)
    except OutOfReach as far:
        owner = next((function for function in patch.functions if 0 <= fixup.site - function.patch_rva < function.size), None)
        raise ApplyRefused(
            [
                Refusal(
                    Rule.OUT_OF_REACH,
                    owner.name if owner else None,
                    owner.base_rva if owner else None,
                    f"the patch image at 0x{va:x} cannot refer to 0x{origin + fixup.target:x} by {fixup.kind.value}; "
                    "load the module where more address space around it is free",
                    {"kind": fixup.kind.value, "site": va + fixup.site, "target": origin + fixup.target, "addend": fixup.addend},
                )
            ]
        ) from far
    memory[fixup.site : fixup.site + size] = bound


_UNSAFE = int(Rights.WRITE | Rights.EXECUTE)
_CODE = Rights.READ | Rights.EXECUTE
_RIGHTS = ((int(SectionFlags.READ), Rights.READ), (int(SectionFlags.WRITE), Rights.WRITE), (int(SectionFlags.EXECUTE), Rights.EXECUTE))


@cache
def _rights_of(flags: int) -> Rights:
    """What the program may do with a section of those flags, which are one of few."""
    return Rights(sum(right for flag, right in _RIGHTS if flags & flag))


def _page_rights(patch: Patch) -> list[Rights]:
    """The rights of each page of the patch image: those of its section; headers can be read."""
    size = whole_pages(patch.image.size_of_image)
    pages = [Rights.READ] * (size // PAGE)
    for section in patch.image.sections:
        flags = int(section.flags)
        rights = _rights_of(flags)
        length = whole_pages(section.size)
        problem = None
        if int(rights) & _UNSAFE == _UNSAFE:
            problem = "is writable and executable"
        elif section.rva % PAGE or section.rva + length > size:
            problem = "does not lie on whole pages of the image"
        if problem:
            raise ApplyRefused(
                [
                    Refusal(
                        Rule.MALFORMED_PATCH,
                        None,
                        None,
                        f"section {section.name} of the patch image {problem}; build the patch again",
                        {"section": section.name, "section_rva": section.rva, "flags": flags},
                    )
                ]
            )
        first = section.rva // PAGE
        pages[first : first + length // PAGE] = [rights] * (length // PAGE)
    return pages
