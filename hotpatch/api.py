"""The functions of the public surface: one short step of the road each, rooms wired together."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from hotpatch.arch import Machine, Redirect, architecture
from hotpatch.errors import InputError, InputRule, expect

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from hotpatch.arch import Trampoline
    from hotpatch.differ import ImageDiff
    from hotpatch.image import Image, UnwindSteps
    from hotpatch.patch import Patch
    from hotpatch.verifier import Call, VerifyReport

_ADDRESS_SPACE = 1 << 64
_Choice = TypeVar("_Choice", bound=StrEnum)
_BYTES = (bytes, bytearray, memoryview)


def open(path: str | PathLike[str]) -> Image:
    """Read an x64 or Arm64 PE32+ file, with the PDB beside it where GUID and age match.

    Raises:
        InputError: The file is missing, unreadable, not such a file, truncated or malformed.
        Refused: It holds code for two machines (rule hybrid-image).
    """
    from hotpatch.image import open_image

    return open_image(path)


def unwind_data(image: Image) -> tuple[UnwindSteps, ...]:
    """What each entry of an image's function table says, by address."""
    from hotpatch.unwind import unwinder

    return tuple(unwinder(image.machine).describe(image, entry) for entry in image.unwind_entries)


def diff(base: Image, fixed: Image) -> ImageDiff:
    """Decide which function and datum of ``base`` is which of ``fixed``, and what changed.

    Raises:
        InputError: One of them is no image, or a patch.
        Refused: The machines differ (rule machine-differs).
    """
    from hotpatch.differ import diff_images

    expect_builds(base, fixed)
    return diff_images(base, fixed)


def build(
    diff: ImageDiff,
    *,
    only: Iterable[str] = (),
    leave_out: Iterable[str] = (),
    sequence: int = 1,
    redirect: Redirect | str = Redirect.HPAT,
    allow: Iterable[str] = (),
    state_version: int = 0,
    obligatory: bool = False,
    can_roll_back: bool = True,
) -> Patch:
    """Make the patch that turns the base's behaviour into the fixed image's.

    Args:
        diff: What :func:`diff` found.
        only: Functions (names, or ``rva:0x…``) to patch; all changed ones when empty.
        leave_out: Functions of these that stay as they are.
        sequence: The patch's sequence number, from 1.
        redirect: The strategy asked for; a function that it does not fit gets another, and the patch says why.
        allow: Rules to override.
        state_version: Of the data that the patch's callbacks hand from patch to patch; 0: there are none.
        obligatory: No newer patch may give the original of one of its functions back.
        can_roll_back: Whether the patch may be reverted.

    Raises:
        NotHotpatchable: With every refusal in ``.refusals``.
        NothingToDo: There is no functional change.
        InputError: ``diff`` is none, ``redirect``, ``sequence`` or a name in ``allow`` is none, a list is a text, or a
            function is both in ``only`` and in ``leave_out``.
    """
    from hotpatch.builder import build_patch
    from hotpatch.differ import ImageDiff
    from hotpatch.patch import Terms

    expect(diff, ImageDiff, "an ImageDiff", "compare two images first: hotpatch.diff(base, fixed)")
    expect(sequence, int, "an int", "number patches from 1")
    expect(state_version, int, "an int", "number versions from 1; 0 says that there are none")
    _not_text(only=only, leave_out=leave_out, allow=allow)
    terms = Terms(state_version, obligatory, can_roll_back)
    return build_patch(
        diff,
        only=tuple(only),
        leave_out=tuple(leave_out),
        sequence=sequence,
        redirect=_one_of(Redirect, redirect),
        allow=tuple(allow),
        terms=terms,
    )


def load(path: str | PathLike[str]) -> Patch:
    """Read a patch image back.

    Raises:
        InputError: The file is missing, unreadable, or no patch image of this project.
        Refused: It is damaged (rule malformed-patch).
    """
    from hotpatch.patch import load as load_patch

    return load_patch(path)


def verify(
    base: Image,
    patch: Patch,
    *,
    fixed: Image,
    calls: Sequence[Call] | None = None,
    bound: int = 100_000,
    functions: Sequence[str] = (),
    seeds: int | None = None,
    seed: int = 0,
) -> VerifyReport:
    """Compare the patched base with the fixed image, by calls or, where none are given, by micro-execution.

    With ``calls``, ``patch`` goes in at every instruction boundary of each; every run is compared with the base's and the fixed image's.
    Without, each function that travels is run in both from the same made-up registers and memory, and what it returns, writes and calls is
    compared (:mod:`hotpatch.verifier.micro`); the report's ``functions`` say what was found, and what could not be.

    Args:
        base: The image that the patch is for.
        patch: The patch.
        fixed: The image that it was built from.
        calls: ``(function, argument, …)`` tuples, arguments as :meth:`Process.call` takes them.
        bound: Largest number of boundaries tried for each call, once for applying and once for reverting; the report says whether that was
            all of them.
        functions: Without ``calls``: names, or ``rva:0x…`` of the base; all that travel when empty.
        seeds: Without ``calls``: made-up states tried for each function.
        seed: Without ``calls``: the first of them.

    Raises:
        InputError: A call or function cannot be made or run, or options of the one mode are given with the other; ``calls`` or one of them
            is a text; something is no image or no patch, or a patch stands where an image should.
        HotpatchError: A call could not be made at all.
    """
    from hotpatch.patch import Patch
    from hotpatch.verifier import verify_calls, verify_functions

    expect_builds(base, fixed)
    expect(patch, Patch, "a Patch", "hotpatch.build makes one and hotpatch.load reads one")
    _not_text(functions=functions)
    if calls is None:
        return verify_functions(base, patch, fixed=fixed, functions=functions, seeds=seeds, seed=seed)
    if functions or seeds is not None:
        typed = "functions" if seeds is None else "seeds" if not functions else "functions and seeds"
        raise InputError(typed, "can only be used without calls; leave either out")
    _not_text(calls=calls)
    expect(calls, Sequence, "a list of calls", 'write calls=[("function", 1, …)]')
    for call in calls:
        _not_text(call=call)
        expect(call, Sequence, "a call", 'write it as ("function", 1, …)')
        if not call:
            raise InputError("call=()", 'names no function; write it as ("function", 1, …)')
    return verify_calls(base, patch, fixed=fixed, calls=calls, bound=bound)


def trampoline(machine: Machine | str, code: bytes, *, source_va: int, trampoline_va: int, displaced: int) -> Trampoline:
    """Move the whole instructions that cover ``displaced`` bytes of ``code`` from ``source_va`` to ``trampoline_va``.

    ``code`` may be longer than ``displaced``, so that branches back into the displaced bytes are seen. Addresses are VAs, sizes bytes.

    Raises:
        CannotRelocate: With the rule, the instruction and its bytes.
        InputError: The machine is none, or an address or size cannot be.
    """
    expect(code, _BYTES, "bytes", "give the code as it stands in memory")
    for name, number in (("source_va", source_va), ("trampoline_va", trampoline_va), ("displaced", displaced)):
        expect(number, int, "an int", f"give {name} as a number")
    for name, va in (("source_va", source_va), ("trampoline_va", trampoline_va)):
        if not 0 <= va < _ADDRESS_SPACE:
            raise InputError(f"{name} {va:#x}", "is no address; use one from 0 to 2**64 - 1")
    return architecture(_one_of(Machine, machine)).trampoline(code, source_va=source_va, trampoline_va=trampoline_va, displaced=displaced)


def assemble(machine: Machine | str, text: str, va: int) -> bytes:
    """The bytes of ``text`` (instructions separated by ``;`` or line ends) from VA ``va`` on; branch targets are VAs.

    For code written by hand, in a test of :func:`trampoline` say. Keystone makes it; what decoding does not confirm is refused.

    Raises:
        InputError: An instruction is not of a plain form, not known, out of range, or was taken for another.
    """
    from hotpatch.arch.assembly import assemble as checked

    expect(text, str, "a str", 'write instructions, such as "ret"')
    expect(va, int, "an int", "give the address as a number")
    return checked(_one_of(Machine, machine), text, va)


def expect_builds(base: Image, fixed: Image) -> None:
    """Refuse what is no image, above all paths, and images that are patches.

    Raises:
        InputError: One is none, or a patch.
    """
    from hotpatch.image import Image
    from hotpatch.patch import is_patch

    for image in (base, fixed):
        expect(image, Image, "an Image", "hotpatch.open reads one from a file")
    for image, wanted in ((base, "build that runs"), (fixed, "build with the fix")):
        if is_patch(image.data):
            raise InputError(image.path, f"is a hot patch, not a build; give the {wanted}", InputRule.NO_IMAGE)


def _not_text(**given: object) -> None:
    """Refuse a text where several things are wanted: Python would take it letter by letter.

    Raises:
        InputError: One is.
    """
    for name, value in given.items():
        if isinstance(value, str | bytes):
            wanted = '("function", 1, …)' if name in ("call", "calls") else f'["{value!s}"]'
            raise InputError(f"{name}={value!r}", f"is one text where a list is wanted; write {name}={wanted}")


def _one_of(kind: type[_Choice], value: str) -> _Choice:
    try:
        return kind(value)
    except ValueError:
        raise InputError(repr(value), f"is no {kind.__name__.lower()}; use one of {', '.join(kind)}") from None
