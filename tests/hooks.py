"""Hooks in the engine of a process that keep nobody alive."""

from __future__ import annotations

from collections.abc import Callable
from weakref import ref


def weakly(method: Callable[..., object]) -> Callable[..., object]:
    """Calls ``method``, whose object somebody else holds.

    What takes the hooks away once nobody has the process any more holds the engine, and that what it calls. An object that is called
    and has the process would never be let go, nor the memory of the process.
    """
    held, function = ref(method.__self__), method.__func__
    return lambda *told: function(held(), *told)
