"""Addresses that code takes of which it can be told that something begins there, and that nothing which ends there is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.builder.bodies import body_of
from hotpatch.builder.model import Body
from hotpatch.builder.unwinding import entries_of
from hotpatch.differ.follow import followed
from hotpatch.differ.handed import leaves_alone

if TYPE_CHECKING:
    from hotpatch.address import Rva
    from hotpatch.builder.ownership import Usage
    from hotpatch.differ.view import View
    from hotpatch.image import Function


class Beginnings:
    """Judges addresses by all that the functions of one image do with them."""

    def __init__(self, view: View) -> None:
        """Judge code of the image seen as ``view``."""
        self._view = view
        self._found: dict[Rva, bool] = {}

    def are_shown(self, usage: Usage, target: Rva) -> bool:
        """Whether a function reads or writes at ``target``, and does nothing with that address but to access memory from there.

        Each distance from there is constant, and judged by itself (:mod:`.reaches`). An end would be compared with something, kept, handed
        on or counted down from. Exception handlers get registers in ways that are not followed.
        """
        makers = usage.makers(target)
        return bool(makers) and target in usage.begun and target not in usage.ended and all(map(self._is_only_accessed, makers))

    def _is_only_accessed(self, maker: Rva) -> bool:
        found = self._found.get(maker)
        if found is None:
            found = self._found[maker] = self._follow(maker)
        return found

    def _follow(self, maker: Rva) -> bool:
        image = self._view.image
        function = image.function_at(maker)
        body = None if function is None else body_of(image, function)
        if function is None or not isinstance(body, Body) or body.falls_into:
            return False
        if any(entry.handler is not None for entry in entries_of(image, body)):
            return False
        return is_only_accessed(self._view, function, maker)


def is_only_accessed(view: View, function: Function, maker: Rva) -> bool:
    """Whether code does nothing with the address that ``maker`` of ``function`` makes but to access memory from there.

    What exception handlers do with registers is not seen.
    """
    handed = view.image.architecture.only_accessed(*followed(view.image, function), maker)
    return handed is not None and all(leaves_alone(view, one.target, one.place) for one in sorted(handed))
