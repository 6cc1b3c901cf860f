"""See, try and prove restart-free patching of Windows programs, on x64 and Arm64.

``open`` two builds, ``diff`` them, ``build`` a patch, ``apply`` it to a running :class:`Process`, ``verify`` it. Names are loaded on
first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as the module typing has it, whose import would take most of this one's time
__version__ = "0.1.0"

if TYPE_CHECKING:
    from hotpatch.address import FileOffset, Rva, Va
    from hotpatch.api import assemble, build, diff, load, open, trampoline, verify
    from hotpatch.arch import Machine, Redirect, Trampoline
    from hotpatch.differ import FunctionMatch, ImageDiff, Verdict
    from hotpatch.engine import AppliedPatch, Consistency, Engine
    from hotpatch.errors import (
        ApplyRefused,
        CannotRelocate,
        EmulatedFault,
        Fault,
        HotpatchError,
        InputError,
        NothingToDo,
        NotHotpatchable,
        Refusal,
        Refused,
        RevertRefused,
        Rule,
    )
    from hotpatch.image import Function, Image
    from hotpatch.patch import Patch
    from hotpatch.process import Buffer, Process
    from hotpatch.verifier import VerifyReport

_HOMES = {
    "hotpatch.address": ("FileOffset", "Rva", "Va"),
    "hotpatch.api": ("assemble", "build", "diff", "load", "open", "trampoline", "verify"),
    "hotpatch.arch": ("Machine", "Redirect", "Trampoline"),
    "hotpatch.differ": ("FunctionMatch", "ImageDiff", "Verdict"),
    "hotpatch.engine": ("AppliedPatch", "Consistency", "Engine"),
    "hotpatch.errors": (
        "ApplyRefused",
        "CannotRelocate",
        "EmulatedFault",
        "Fault",
        "HotpatchError",
        "InputError",
        "NotHotpatchable",
        "NothingToDo",
        "Refusal",
        "Refused",
        "RevertRefused",
        "Rule",
    ),
    "hotpatch.image": ("Function", "Image"),
    "hotpatch.patch": ("Patch",),
    "hotpatch.process": ("Buffer", "Process"),
    "hotpatch.verifier": ("VerifyReport",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022  in the order of the road
    "open",
    "diff",
    "build",
    "load",
    "verify",
    "trampoline",
    "assemble",
    "Process",
    "Buffer",
    "Engine",
    "Image",
    "Function",
    "ImageDiff",
    "FunctionMatch",
    "Verdict",
    "Patch",
    "AppliedPatch",
    "Consistency",
    "VerifyReport",
    "Machine",
    "Redirect",
    "Trampoline",
    "Rva",
    "Va",
    "FileOffset",
    "HotpatchError",
    "InputError",
    "NothingToDo",
    "Refusal",
    "Rule",
    "Refused",
    "NotHotpatchable",
    "CannotRelocate",
    "ApplyRefused",
    "RevertRefused",
    "EmulatedFault",
    "Fault",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
