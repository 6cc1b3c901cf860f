"""Who is told of modules that come and go."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.engine.target import Module, ModuleWatcher


class Watchers:
    """Held weakly: being told keeps nobody alive."""

    def __init__(self) -> None:
        self._known: list[weakref.ref[ModuleWatcher]] = []

    def add(self, watcher: ModuleWatcher) -> None:
        """Tell ``watcher`` from now on, after those that were added before."""
        self._known.append(weakref.ref(watcher))

    def loaded(self, modules: tuple[Module, ...]) -> None:
        """Modules have come; what a watcher raises comes out of here."""
        for watcher in self._living():
            watcher.modules_loaded(modules)

    def unloading(self, modules: tuple[Module, ...]) -> None:
        """Modules are about to go; what a watcher raises comes out of here."""
        for watcher in self._living():
            watcher.modules_unloading(modules)

    def _living(self) -> Iterator[ModuleWatcher]:
        for known in self._known:
            watcher = known()
            if watcher is not None:
                yield watcher
