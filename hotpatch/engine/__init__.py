"""Redirects, the transaction, consistency, undo, stacking: patches applied to a process through :class:`Target`."""

from hotpatch.engine.collect import Collected
from hotpatch.engine.consistency import Consistency
from hotpatch.engine.engine import AppliedPatch, Engine
from hotpatch.engine.stacking import Stacking
from hotpatch.engine.status import FunctionStatus, PatchState, PatchStatus, Status
from hotpatch.engine.target import Module, Region, Rights, Target, Thread
from hotpatch.engine.transaction import RollbackError

__all__ = [
    "AppliedPatch",
    "Collected",
    "Consistency",
    "Engine",
    "FunctionStatus",
    "Module",
    "PatchState",
    "PatchStatus",
    "Region",
    "Rights",
    "RollbackError",
    "Stacking",
    "Status",
    "Target",
    "Thread",
]
