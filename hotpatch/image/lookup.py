"""From what a user calls a function to the function."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

from hotpatch.errors import InputError, Refusal, Refused, Rule, expect

if TYPE_CHECKING:
    from hotpatch.address import Rva
    from hotpatch.image.image import Image
    from hotpatch.image.model import Function

RVA = "rva:"
"""Before the address of a function of an image; of a comparison's two, of the base."""
FIXED = "fixed:"
"""Before the address of a function of the fixed image, which no address in the base names where only that has it."""
_RVA_LIMIT = 1 << 32
_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]+|[0-9][0-9a-fA-F]{2,7}")
_NEAR_NAMES = 5


def is_address(text: str, before: str) -> bool:
    """Whether ``text`` is an address with ``before`` it, and no C++ name of a namespace that is called so (``fixed::f``).

    Raises:
        InputError: It is no text.
    """
    expect(text, str, "a function's name", "write an export, a symbol, or rva:0x1234")
    return text.startswith(before) and not text.startswith(f"{before}:")


def function_named(image: Image, text: str, before: str = RVA) -> Function:
    """The function of ``image`` called ``text``: an export, then a symbol, or an address with ``before`` it, as ``rva:0x…``.

    Raises:
        InputError: The text names nothing, or no RVA stands behind ``before``.
        Refused: There is none, or several (rule no-such-function).
    """
    by_address = is_address(text, before)
    if not text:
        raise InputError(text, "names no function; write an export, a symbol, or rva:0x1234")
    if by_address:
        return _by_rva(image, text, before)
    export = image.exports_by_name.get(text)
    if export is not None:
        if export.rva is None:
            raise _refused(text, None, f"{text} is exported by forwarding to {export.forwarder}; name a function of that module", {})
        function = image.function_of_entry(export.rva)
        if function is None:
            raise _refused(text, export.rva, f"{text} is exported but is no function; name a function", {"rva": export.rva})
        return function
    found = [function for function in image.functions if text in function.names]
    if len(found) == 1:
        return found[0]
    if found:
        places = [f"{before}0x{function.entry:x}" for function in found]
        reason = f"{len(found)} functions are called {text}; name one by its address: {', '.join(places)}"
        raise _refused(text, None, reason, {"at": places})
    names = sorted({name for function in image.functions for name in function.names})
    same = [name for name in names if name.casefold() == text.casefold()]
    near = same or get_close_matches(text, names, _NEAR_NAMES, 0.5)
    if _ADDRESS.fullmatch(text):
        hint = f"for the one at that address write rva:{text if text[1] in 'xX' else f'0x{text}'}"
    else:
        hint = f"did you mean {' or '.join(near)}?" if near else "hotpatch inspect lists what it has"
    other = ""
    if image.other_pdb:
        other = f" ({image.other_pdb} lies beside it but is another build's: its GUID or age differs)"
    elif not image.has_symbols:
        other = " (no PDB lies beside it, which would name more)"
    raise _refused(text, None, f"{image.name} has no function called {text}{other}; {hint}", {"near": near} if near else {})


def _by_rva(image: Image, text: str, before: str) -> Function:
    try:
        rva = int(text.removeprefix(before), 0)
    except ValueError:
        rva = -1
    if not 0 <= rva < _RVA_LIMIT:
        raise InputError(text, f"is no RVA; write one as {before}0x1234")
    function = image.function_of_entry(rva)
    if function is not None:
        return function
    around = image.function_at(rva)
    hint = f"that is inside of {_with_entry(around, before)}" if around else "hotpatch inspect lists the entries"
    raise _refused(
        text,
        None,
        f"no function of {image.name} begins at 0x{rva:x}; {hint}",
        {"image": "fixed", "rva": rva} if before == FIXED else {"rva": rva},
    )


def _with_entry(function: Function, before: str) -> str:
    entry = f"{before}0x{function.entry:x}"
    return f"{function.name}, which begins at {entry}" if function.name else f"the function at {entry}"


def _refused(text: str, rva: Rva | None, reason: str, evidence: dict[str, object]) -> Refused:
    return Refused([Refusal(Rule.NO_SUCH_FUNCTION, text, rva, reason, evidence)])
