"""The handle of a patch that was applied, is on its way, or waits for its module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotpatch.errors import Refusal, Refused, Rule

if TYPE_CHECKING:
    from hotpatch.address import Rva, Va
    from hotpatch.engine.consistency import Consistency
    from hotpatch.engine.engine import Engine
    from hotpatch.engine.status import FunctionStatus, PatchState
    from hotpatch.patch import Patch

_RVA_PREFIX = "rva:"


class AppliedPatch:
    """A patch that was applied, or is on its way: the handle to follow it by, to take it back, and to call the originals."""

    def __repr__(self) -> str:
        """Which patch, where, and what has become of it."""
        where = "" if self.module is None else f" at 0x{self.module:x}"
        return f"<AppliedPatch {self.number} of {self.patch!r}{where}: {self.state}>"

    def __init__(self, engine: Engine, number: int, patch: Patch) -> None:
        """Made by :meth:`Engine.apply` and :meth:`Engine.register`."""
        self._engine = engine
        self._number = number
        self._patch = patch

    @property
    def patch(self) -> Patch:
        """What was applied."""
        return self._patch

    @property
    def number(self) -> int:
        """Counts applications from 1; the same patch applied again has another number."""
        return self._number

    @property
    def module(self) -> Va | None:
        """Address of its module, or ``None`` while that is not loaded."""
        return self._engine.module(self)

    @property
    def state(self) -> PatchState:
        """What has become of it."""
        return self._engine.state(self)

    @property
    def functions(self) -> tuple[FunctionStatus, ...]:
        """What stands of it, by RVA; none once it is reverted."""
        return self._engine.functions(self)

    def original(self, function: str | Rva) -> Va:
        """See :meth:`Engine.original`; ``function`` is a name, ``rva:0x…``, or the RVA of the base's entry."""
        return self._engine.original(self, function)

    @property
    def settled(self) -> bool:
        """Whether nothing of it waits or is in transition."""
        return self._engine.settled(self)

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Why it never came into force, where it gave up; of one that is registered, why the module's last load went on without it."""
        return self._engine.refusals(self)

    def revert(self, consistency: Consistency | None = None, wait: int | None = None) -> None:
        """See :meth:`Engine.revert`."""
        self._engine.revert(self, consistency, wait)

    def reverse(self) -> None:
        """See :meth:`Engine.reverse`."""
        self._engine.reverse(self)

    def rva_of(self, function: str | Rva) -> Rva:
        """RVA in the base of one of the patch's functions, given by name, ``rva:0x…``, or that RVA.

        Raises:
            Refused: The patch has no such function (no-such-function).
        """
        for patched in self.patch.functions:
            if function in (patched.name, patched.base_rva) or _rva(function) == patched.base_rva:
                return patched.base_rva
        names = sorted(patched.label for patched in self.patch.functions)
        raise Refused(
            [
                Refusal(
                    Rule.NO_SUCH_FUNCTION,
                    str(function),
                    None,
                    "the patch does not replace that function; name one that it replaces",
                    {"functions": names},
                )
            ]
        )


def _rva(text: str | int) -> int | None:
    """The number of ``rva:0x…``."""
    if not isinstance(text, str) or not text.startswith(_RVA_PREFIX):
        return None
    try:
        return int(text.removeprefix(_RVA_PREFIX), 0)
    except ValueError:
        return None
