"""Finding the module that a patch was written for, and refusing every other.

Names are not trusted: a module is taken for what its headers say and what its memory holds. The memory is compared by the digest of its
normalised read-only sections, with our own redirects undone first (:class:`hotpatch.engine.undo.OriginalView`).
"""

from __future__ import annotations

import hashlib
from operator import attrgetter
from pathlib import PurePath
from typing import TYPE_CHECKING

from hotpatch.address import Rva
from hotpatch.errors import ApplyRefused, Refusal, Rule
from hotpatch.image.identity import normalise, read_only_sections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpatch.engine.target import Module, Target
    from hotpatch.engine.undo import OriginalView
    from hotpatch.image import Image
    from hotpatch.patch import Patch

_HEADER_FIELDS = ("time_date_stamp", "checksum", "size_of_image")
_HEADER = attrgetter(*_HEADER_FIELDS)


def is_build(image: Image, patch: Patch) -> bool:
    """Whether an image's headers are those of the patch's base."""
    return _HEADER(image) == _HEADER(patch.base)


def is_base(module: Module, patch: Patch) -> bool:
    """Whether a module's headers are those of the patch's base."""
    return is_build(module.image, patch)


def has_name(module: Module, patch: Patch) -> bool:
    """Whether a module is called as the patch's base was."""
    return module.name == patch.provenance.base_name.lower()


def base_of(modules: Sequence[Module], patch: Patch) -> Module | None:
    """The first module in load order whose headers are those of the patch's base, or ``None``."""
    return next((module for module in modules if is_base(module, patch)), None)


def other_build(modules: Sequence[Module], patch: Patch) -> Module | None:
    """The module that is called as the patch's base was, or ``None``; where :func:`base_of` has found none, another build."""
    return next((module for module in modules if has_name(module, patch)), None)


def wrong_base(module: Module, patch: Patch) -> ApplyRefused:
    """The refusal of a module that is another build of the patch's base."""
    return _refusal(
        Rule.WRONG_BASE,
        f"the {module.name} in the process is another build than the patch was made for; use the patch for that build",
        module=module.name,
        module_va=module.va,
        expected=_expected(patch),
        found=_headers(module),
    )


def check_machine(target: Target, patch: Patch) -> None:
    """Check that the process runs the patch's instruction set.

    Raises:
        ApplyRefused: It runs another (machine-differs).
    """
    if target.machine is not patch.machine:
        raise _refusal(
            Rule.MACHINE_DIFFERS,
            f"the patch is for {patch.machine.value} and the process runs {target.machine.value}; use the patch built for that",
            patch=patch.machine.value,
            process=target.machine.value,
        )


def find_module(target: Target, patch: Patch) -> Module:
    """The first module in load order whose headers are those of the patch's base.

    Raises:
        ApplyRefused: The process runs on another machine (machine-differs), has another build of that file loaded (wrong-base), or none
            (module-not-loaded).
    """
    check_machine(target, patch)
    modules = target.modules()
    module = base_of(modules, patch)
    if module is not None:
        return module
    other = other_build(modules, patch)
    if other is None and len(modules) == 1 and PurePath(modules[0].name).suffix == PurePath(patch.provenance.base_name.lower()).suffix:
        other = modules[0]  # a process of one program, or of one DLL, can only be meant by it, whatever its file is called
    if other is not None:
        raise wrong_base(other, patch)
    raise _refusal(
        Rule.NOT_LOADED,
        f"no module of the process is the build of {patch.provenance.base_name.lower()} that the patch was made for; apply the patch once "
        "it is loaded, or register it",
        expected=_expected(patch),
        modules=[module.name for module in modules],
    )


def check_memory(module: Module, patch: Patch, original: OriginalView) -> None:
    """Check that a module's read-only memory is what the builder saw.

    Raises:
        ApplyRefused: The file is another build with the same headers (wrong-base), or somebody changed its memory (unexpected-bytes).
    """
    memory = original.read(module.va, module.size)
    found = normalise(module.image, memory, module.va)
    digest = hashlib.sha256(found).hexdigest()
    if digest == patch.base.digest:
        return
    file_digest = module.image.identity.digest
    if file_digest != patch.base.digest:
        raise _refusal(
            Rule.WRONG_BASE,
            f"{module.name} has the headers of the build that the patch was made for but other contents; use the patch for that build",
            module=module.name,
            module_va=module.va,
            expected={"digest": patch.base.digest},
            found={"digest": digest},
        )
    rva = _first_difference(module, found)
    raise _refusal(
        Rule.UNEXPECTED_BYTES,
        f"somebody has changed read-only memory of {module.name}; remove what changed it, then apply",
        rva=rva,
        module=module.name,
        module_va=module.va,
        expected=file_digest,
        found=digest,
    )


def _expected(patch: Patch) -> dict[str, int]:
    return {name: getattr(patch.base, name) for name in _HEADER_FIELDS}


def _headers(module: Module) -> dict[str, int]:
    return {name: getattr(module.image, name) for name in _HEADER_FIELDS}


def _first_difference(module: Module, found: bytes) -> Rva | None:
    """Where normalised memory first differs from the file's."""
    image = module.image
    expected = normalise(image, image.mapped, image.preferred_base)
    difference = next((index for index, (one, other) in enumerate(zip(expected, found, strict=False)) if one != other), None)
    if difference is None:
        return None
    for section in read_only_sections(image):
        if difference < section.size:
            return Rva(section.rva + difference)
        difference -= section.size
    return None


def _refusal(rule: Rule, reason: str, rva: Rva | None = None, **evidence: object) -> ApplyRefused:
    return ApplyRefused([Refusal(rule, None, rva, reason, evidence)])
