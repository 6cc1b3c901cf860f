"""An emulated process with an engine on it: what users hold in their hands."""

from __future__ import annotations

from hotpatch.emulator.calls import Single
from hotpatch.process.model import AppliedAt, Argument, Buffer, CallResult, PendingCall, ProcessSnapshot, RunResult, ThreadView
from hotpatch.process.process import BUDGET, Process

__all__ = [
    "BUDGET",
    "AppliedAt",
    "Argument",
    "Buffer",
    "CallResult",
    "PendingCall",
    "Process",
    "ProcessSnapshot",
    "RunResult",
    "Single",
    "ThreadView",
]
