"""What is checked before an operation does anything: whether a patch may go in, and whether one that stands may come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotpatch.arch import architecture
from hotpatch.engine import checks, consistency, identity, quiescence, redirect
from hotpatch.engine.registry import SiteKey
from hotpatch.engine.stacking import check_terms, given_back
from hotpatch.engine.undo import OriginalView
from hotpatch.errors import Refusal, Refused, RevertRefused, Rule

if TYPE_CHECKING:
    from hotpatch.address import Va
    from hotpatch.arch import Architecture
    from hotpatch.engine.checks import CheckedFunction
    from hotpatch.engine.consistency import Consistency
    from hotpatch.engine.registry import Application, Registry
    from hotpatch.engine.stacking import Stacking
    from hotpatch.engine.target import Module, Target
    from hotpatch.patch import Patch


@dataclass(frozen=True, slots=True)
class Plan:
    """An application that has passed every check."""

    patch: Patch
    arch: Architecture
    module: Module
    functions: tuple[CheckedFunction, ...]
    original: OriginalView
    dropped: tuple[SiteKey, ...]
    stacking: Stacking


def plan(target: Target, registry: Registry, module: Module, patch: Patch, how: Consistency, stacking: Stacking) -> Plan:
    """Check everything about an application to ``module`` that can be checked before anything is done.

    Raises:
        Refused: With every reason.
    """
    arch = architecture(patch.machine)
    check_idle(registry, module.va)
    checks.check_sequence((each.patch for each in registry.standing(module.va)), patch)
    original = OriginalView(target.read, registry.records(module.va))
    replaced = {SiteKey(module.va, function.base_rva) for function in patch.functions}
    dropped = given_back(registry, module.va, replaced, stacking)
    touched = (*sorted(replaced), *dropped)
    consistency.require(how, patch, registry, touched)
    check_terms(registry, module.va, patch, dropped)
    checks.check_redirects(target, arch, registry, touched)
    functions = checks.check_functions(target, arch, module, patch, original)
    identity.check_memory(module, patch, original)
    return Plan(patch, arch, module, functions, original, dropped, stacking)


def check_idle(registry: Registry, module: Va) -> None:
    """Check that nothing is on its way into or out of a module.

    Raises:
        Refused: Something is (in-transition).
    """
    under_way = registry.waiting.get(module) or registry.transitions.get(module)
    if under_way is not None:
        raise Refused([quiescence.busy(under_way, module)])


def topmost(registry: Registry, number: int) -> Application:
    """The application of that number, which must be the topmost of its module.

    Raises:
        RevertRefused: It does not stand (not-applied), or another one stands on top (not-on-top).
    """
    application = registry.applications.get(number)
    if application is None:
        raise RevertRefused(
            [Refusal(Rule.NOT_APPLIED, None, None, "the patch does not stand any more; apply it again before you revert it")]
        )
    top = registry.standing(application.image.module)[-1]
    if top is not application:
        raise RevertRefused(
            [
                Refusal(
                    Rule.NOT_ON_TOP,
                    None,
                    None,
                    f"the patch with sequence {top.patch.sequence} stands on top of this one, which has {application.patch.sequence}; "
                    "revert that one first",
                    {"sequence": application.patch.sequence, "top": top.patch.sequence, "top_patch": top.patch.image.name},
                )
            ]
        )
    return application


def check_own_redirects(target: Target, registry: Registry, application: Application) -> None:
    """Check that every redirect that reverting an application changes is what was written.

    Raises:
        RevertRefused: With a refusal for each that is not (redirect-changed).
    """
    refusals = []
    for key in application.touched:
        site = registry.sites[key]
        refusals += [
            Refusal(
                Rule.REDIRECT_CHANGED,
                site.top.name,
                key.rva,
                f"somebody has written over the redirect at 0x{va:x}; take that away, then revert",
                {"va": va, "expected": expected.hex(), "found": found.hex()},
            )
            for va, expected, found in redirect.changes(target, site)
        ]
    if refusals:
        raise RevertRefused(refusals)
