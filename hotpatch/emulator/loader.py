"""Putting images into the process as Windows' loader does: place, relocate, bind, protect, initialise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.address import Va
from hotpatch.emulator.layout import ALLOCATION_GRANULE, MODULE_GRANULE, MODULE_VA
from hotpatch.emulator.libraries import is_system, library_name
from hotpatch.emulator.memory import PAGE, AccessError, RegionKind, page_up
from hotpatch.emulator.schedule import splitmix
from hotpatch.engine.target import Module, Rights
from hotpatch.errors import InputError, InputRule
from hotpatch.image.model import SectionFlags

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hotpatch.emulator.system import System
    from hotpatch.image import Image
    from hotpatch.image.model import Import, Section

_DEFAULT_COOKIE = 0x2B99_2DDF_A232
"""What an image's security cookie holds until somebody initialises it (Visual C++ run time, ``gs_cookie.c``)."""
_COOKIE_MASK = 0xFFFF_FFFF_FFFF
_DELTA_LIMIT = 1 << 64
_FORWARD_LIMIT = 16
DLL_PROCESS_DETACH, DLL_PROCESS_ATTACH, DLL_THREAD_ATTACH = 0, 1, 2


def load(system: System, images: Sequence[tuple[Image, Va | None]]) -> None:
    """Load images, bind them among each other and to the system, and remember what is to be called.

    Raises:
        InputError: An image is of another machine, cannot be placed, or has pages both writable and executable.
    """
    modules = [place(system, image, base) for image, base in images]
    for module in modules:
        bind(system, module)
        system.event("load", module=module.name, va=module.va, size=module.size)


def by_name(system: System, images: Sequence[Image]) -> dict[str, Image]:
    """Files that can be loaded later, by their normalised names.

    Raises:
        InputError: One is no DLL for the process, or two have one name.
    """
    found: dict[str, Image] = {}
    for image in images:
        name = library_name(image.name)
        if image.machine is not system.machine:
            raise InputError(
                image.path, f"is an image for {image.machine}, the process runs {system.machine}; give one for that", InputRule.MACHINE
            )
        if not image.is_dll:
            raise InputError(image.path, "is no DLL, so that no program can load it; give a DLL", InputRule.LOAD)
        if name in found or is_system(name):
            raise InputError(
                image.path, f"is called {name}, as another one; a process tells its modules apart by their names", InputRule.LOAD
            )
        found[name] = image
    return found


def bind(system: System, module: Module, *, delayed: bool = False) -> None:
    """Bind a module's imports to what is there, ``delayed`` ones on request, and fill in what the loader writes.

    Raises:
        InputError: The file sends the loader to where nothing is.
    """
    try:
        _bind(system, module, module.image.imports if delayed else bound_at_load(module.image))
        _initialise_data(system, module)
    except AccessError as error:
        problem = f"tells the loader to use 0x{error.address:x}, where nothing is mapped; the file is damaged: get it anew"
        raise InputError(module.image.path, problem, InputRule.DAMAGED) from error


def entry_calls(system: System, module: Module, reason: int, reserved: int = 0) -> list[tuple[int, tuple[int, ...]]]:
    """What the loader calls in a module for ``reason``: TLS callbacks, then a DLL's entry point."""
    image = module.image
    callbacks = image.tls.callbacks if image.tls is not None else ()
    calls: list[tuple[int, tuple[int, ...]]] = [(module.va + callback, (module.va, reason, reserved)) for callback in callbacks]
    if image.is_dll and image.entry_point:
        calls.append((module.va + image.entry_point, (module.va, reason, reserved)))
    return calls


def initialisation_order(modules: Sequence[Module]) -> list[Module]:
    """Modules with those that they import before them, otherwise in load order; cycles are cut where they close."""
    by_name = {module.name: module for module in modules}
    done: dict[str, Module] = {}
    visiting: set[str] = set()

    def visit(module: Module) -> None:
        if module.name in done or module.name in visiting:
            return
        visiting.add(module.name)
        for entry in bound_at_load(module.image):
            needed = by_name.get(library_name(entry.library))
            if needed is not None:
                visit(needed)
        done[module.name] = module

    for module in modules:
        visit(module)
    return list(done.values())


def bound_at_load(image: Image) -> list[Import]:
    """Its imports but the delayed ones, which the program's own code binds at their first call."""
    return [entry for entry in image.imports if not entry.delay]


def resolve(system: System, library: str, name: str | None, ordinal: int | None, depth: int = 0) -> Va | None:
    """The address of an export of a module or of the system; forwarders are followed."""
    wanted = library_name(library)
    module = next((module for module in system.modules() if module.name == wanted), None)
    if module is None:
        return system.gates.provided(name) if name is not None and is_system(wanted) else None
    image = module.image
    export = image.exports_by_name.get(name) if name is not None else next((e for e in image.exports if e.ordinal == ordinal), None)
    if export is None:
        return None
    if export.rva is not None:
        return Va(module.va + export.rva)
    if export.forwarder is None or depth > _FORWARD_LIMIT:
        return None
    target, _, symbol = export.forwarder.rpartition(".")
    number = int(symbol[1:]) if symbol.startswith("#") and symbol[1:].isdigit() else None
    return resolve(system, target, None if number is not None else symbol, number, depth + 1) or (
        system.gates.unknown(library_name(target), symbol) if number is None else None
    )


# mapping ----------------------------------------------------------------------------------------------------------------------------------


def place(system: System, image: Image, base: Va | None = None) -> Module:
    """Map an image and relocate it; at its preferred base, or somewhere else where that is taken.

    Raises:
        InputError: It cannot be placed, is of another machine, or has pages both writable and executable.
    """
    if image.machine is not system.machine:
        raise InputError(
            image.path, f"is an image for {image.machine}, the process runs {system.machine}; give one for that", InputRule.MACHINE
        )
    pages = _pages(image)
    va = _place(system, image, base)
    content = _relocated(image, va)
    name = library_name(image.name)
    if any(module.name == name for module in system.modules()):
        raise InputError(image.path, f"a module called {name} is in the process already; leave this one out", InputRule.LOAD)
    for start, end, rights in pages:
        system.memory.map(va + start, end - start, rights, RegionKind.IMAGE, name, content[start:end])
    module = Module(name, va, image.size_of_image, image)
    system.enlist(module)
    return module


def reset_data(system: System, module: Module) -> None:
    """Give a module's writable pages and its thread-local blocks what they held before any code of it ran.

    Delayed imports are bound, too, as if each had been called: what a call of one does first is the helper's business, not the caller's.
    """
    content = _relocated(module.image, module.va)
    for start, end, rights in _pages(module.image):
        if Rights.WRITE in rights:
            system.memory.write(module.va + start, content[start:end])
    bind(system, module, delayed=True)
    system.tls.reset(module)


def _relocated(image: Image, va: int) -> bytes:
    content = bytearray(image.mapped)
    delta = va - image.preferred_base
    if delta:
        for site in image.relocations:
            value = (int.from_bytes(content[site : site + 8], "little") + delta) % _DELTA_LIMIT
            content[site : site + 8] = value.to_bytes(8, "little")
    return bytes(content)


def _place(system: System, image: Image, base: Va | None) -> Va:
    size = page_up(image.size_of_image)
    movable = bool(image.relocations) or not _needs_base(image)
    if base is not None:
        granule = PAGE if system.settings.any_page else ALLOCATION_GRANULE
        if base % granule or not ALLOCATION_GRANULE <= base < (1 << 47) - size:
            raise InputError(f"0x{base:x}", f"is no load base; use a multiple of 0x{granule:x} below 2**47")
        if base != image.preferred_base and not movable:
            raise InputError(image.path, "has no relocations and can only be loaded at its preferred base; give no other", InputRule.LOAD)
        if system.reserved(base, size):
            raise InputError(
                f"0x{base:x}", f"lies where the emulated system keeps its own; load {image.name} below 0x1000000000, say", InputRule.LOAD
            )
        if not system.memory.free(base, size):
            raise InputError(f"0x{base:x}", f"is taken by another module of the process; load {image.name} somewhere else", InputRule.LOAD)
        return base
    if image.preferred_base % ALLOCATION_GRANULE or not ALLOCATION_GRANULE <= image.preferred_base < (1 << 47) - size:
        raise InputError(
            image.path, f"wants to be loaded at 0x{image.preferred_base:x}, which no process has; give it another load base", InputRule.LOAD
        )
    if system.memory.free(image.preferred_base, size) and not system.reserved(image.preferred_base, size):
        return image.preferred_base
    if not movable:
        raise InputError(
            image.path, "has no relocations and its preferred base is taken; load the other module somewhere else", InputRule.LOAD
        )
    va = MODULE_VA
    while not system.memory.free(va, size):
        va += MODULE_GRANULE
    return Va(va)


def _needs_base(image: Image) -> bool:
    """Whether the file was stripped of relocations (IMAGE_FILE_RELOCS_STRIPPED)."""
    return bool(image.characteristics & 1)


def _pages(image: Image) -> list[tuple[int, int, Rights]]:
    """The image cut into runs of pages: headers, then each section up to the next one."""
    if image.section_alignment < PAGE:
        raise InputError(
            image.path,
            f"has sections aligned to {image.section_alignment} bytes; only images with whole pages can be loaded",
            InputRule.LOAD,
        )
    sections = sorted(image.sections, key=lambda section: section.rva)
    if any(section.rva % PAGE for section in sections):
        raise InputError(image.path, "has a section that does not begin on a page; the file is damaged: get it anew", InputRule.DAMAGED)
    starts = [0, *(section.rva for section in sections), page_up(image.size_of_image)]
    rights = [Rights.READ, *(_rights(image, section) for section in sections)]
    return [(start, end, right) for start, end, right in zip(starts, starts[1:], rights, strict=False) if end > start]


def _rights(image: Image, section: Section) -> Rights:
    flags = section.flags
    rights = Rights.READ if flags & SectionFlags.READ else Rights.NONE
    if flags & SectionFlags.EXECUTE:
        rights |= Rights.EXECUTE | Rights.READ
    if flags & SectionFlags.WRITE:
        rights |= Rights.WRITE | Rights.READ
    if rights & Rights.WRITE and rights & Rights.EXECUTE:
        raise InputError(
            image.path, f"section {section.name} is both writable and executable; such images cannot be loaded", InputRule.LOAD
        )
    return rights


# binding ----------------------------------------------------------------------------------------------------------------------------------


def _bind(system: System, module: Module, imports: Iterable[Import]) -> None:
    for entry in imports:
        va = resolve(system, entry.library, entry.name, entry.ordinal)
        if va is None:
            va = system.gates.unknown(library_name(entry.library), entry.name if entry.name is not None else f"#{entry.ordinal}")
        system.memory.write(module.va + entry.slot, va.to_bytes(8, "little"))


def _initialise_data(system: System, module: Module) -> None:
    """The fields that the loader writes: security cookie, guard pointers, TLS index."""
    memory, image = system.memory, module.image
    configuration = image.load_configuration
    if configuration is not None:
        if configuration.security_cookie is not None:
            at = module.va + configuration.security_cookie
            if int.from_bytes(memory.read(at, 8), "little") == _DEFAULT_COOKIE:
                cookie = splitmix(system.seed ^ module.va)[1] & _COOKIE_MASK
                memory.write(at, cookie.to_bytes(8, "little"))
        if configuration.guard_check_pointer is not None:
            memory.write(module.va + configuration.guard_check_pointer, system.guard_check.to_bytes(8, "little"))
        if configuration.guard_dispatch_pointer is not None and system.guard_dispatch is not None:
            memory.write(module.va + configuration.guard_dispatch_pointer, system.guard_dispatch.to_bytes(8, "little"))
    if image.tls is not None:
        memory.write(module.va + image.tls.index, system.tls.index(module).to_bytes(4, "little"))
