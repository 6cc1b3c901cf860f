"""Redirects, the transaction, consistency, undo, stacking: patches applied to a process through :class:`Target`."""

from hotpatch.engine.applied import AppliedPatch
from hotpatch.engine.collect import Collected
from hotpatch.engine.consistency import WAIT, Consistency
from hotpatch.engine.course import Progress
from hotpatch.engine.engine import Engine
from hotpatch.engine.stacking import Stacking
from hotpatch.engine.status import ChangeStatus, FunctionStatus, PatchState, PatchStatus, RegisteredStatus, Status, ThreadStatus
from hotpatch.engine.target import Module, ModuleWatcher, Region, Rights, Target, Thread
from hotpatch.engine.transaction import RollbackError

__all__ = [
    "WAIT",
    "AppliedPatch",
    "ChangeStatus",
    "Collected",
    "Consistency",
    "Engine",
    "FunctionStatus",
    "Module",
    "ModuleWatcher",
    "PatchState",
    "PatchStatus",
    "Progress",
    "Region",
    "RegisteredStatus",
    "Rights",
    "RollbackError",
    "Stacking",
    "Status",
    "Target",
    "Thread",
    "ThreadStatus",
]
