"""What is patched now: where, by which patch, in which state, and what it waits for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from hotpatch.address import Va

if TYPE_CHECKING:
    from hotpatch.address import Rva
    from hotpatch.arch import Redirect
    from hotpatch.engine.registry import Application, Registry, SiteKey
    from hotpatch.engine.target import Target


class PatchState(StrEnum):
    """What has become of a patch."""

    APPLIED = "applied"
    """At least one of its functions is the version in force."""
    SUPERSEDED = "superseded"
    """Newer patches replace all of its functions; it is still underneath."""
    REVERTED = "reverted"
    """It was taken back; its image may still be mapped."""


@dataclass(frozen=True, slots=True)
class FunctionStatus:
    """A function that a patch replaces.

    Attributes:
        name: As the patch knows it.
        module: File name of its module.
        rva: Of its entry in the module.
        va: Of its entry in the process.
        patch: Number of the application, as in :attr:`PatchStatus.number`.
        sequence: Of the patch.
        state: ``applied`` where this is the version in force, else ``superseded``.
        redirect: Strategy of the redirect that stands.
        slot: HPAT slot, where the redirect goes through one.
        trampoline: Where the original can be called.
        destination: The new function.
        waits_for: What keeps it from being in force, one line each; always empty with consistency ``immediate``.
    """

    name: str | None
    module: str
    rva: Rva
    va: Va
    patch: int
    sequence: int
    state: PatchState
    redirect: Redirect
    slot: Va | None
    trampoline: Va
    destination: Va
    waits_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PatchStatus:
    """A patch that stands; ``image`` is where its image is mapped, ``size`` its bytes there."""

    number: int
    name: str
    module: str
    module_va: Va
    sequence: int
    state: PatchState
    image: Va
    size: int
    functions: int


@dataclass(frozen=True, slots=True)
class Status:
    """All of it, in the order of application.

    Attributes:
        patches: What stands, oldest first.
        functions: By patch, then RVA.
        kept: Addresses of mappings that nothing standing needs but that threads or pointers may still reach.
    """

    patches: tuple[PatchStatus, ...]
    functions: tuple[FunctionStatus, ...]
    kept: tuple[Va, ...]

    def document(self) -> dict[str, object]:
        """The same as a JSON-compatible document."""
        return asdict(self)


def function_statuses(registry: Registry, application: Application, module: str) -> tuple[FunctionStatus, ...]:
    """What stands of a patch's functions, by RVA."""
    return tuple(_function(registry, application, key, module) for key in application.sites)


def patch_state(registry: Registry, number: int) -> PatchState:
    """What has become of an application."""
    application = registry.applications.get(number)
    if application is None:
        return PatchState.REVERTED
    in_force = any(registry.sites[key].top.application == number for key in application.sites)
    return PatchState.APPLIED if in_force or not application.sites else PatchState.SUPERSEDED


def status(registry: Registry, target: Target, kept: tuple[Va, ...]) -> Status:
    """The status of everything in ``registry``."""
    names = {module.va: module.name for module in target.modules()}
    patches = []
    functions: list[FunctionStatus] = []
    for number, application in sorted(registry.applications.items()):
        module_va = application.image.module
        image = registry.images[application.image]
        module = names.get(module_va, "")
        patches.append(
            PatchStatus(
                number,
                application.patch.image.name,
                module,
                module_va,
                application.patch.sequence,
                patch_state(registry, number),
                image.va,
                image.size,
                len(application.sites),
            )
        )
        functions.extend(function_statuses(registry, application, module))
    return Status(tuple(patches), tuple(functions), kept)


def _function(registry: Registry, application: Application, key: SiteKey, module: str) -> FunctionStatus:
    site = registry.sites[key]
    layer = next(layer for layer in site.layers if layer.application == application.number)
    return FunctionStatus(
        layer.name,
        module,
        key.rva,
        Va(key.entry),
        application.number,
        application.patch.sequence,
        PatchState.APPLIED if layer is site.top else PatchState.SUPERSEDED,
        site.strategy,
        site.slot,
        site.original,
        layer.destination,
    )
