"""Proof by trying: a patch applied and taken back at every instruction boundary of calls, and rehearsed in a fresh process."""

from hotpatch.verifier.micro import MicroExecution, MicroOutcome, MicroReport, check_travelling
from hotpatch.verifier.model import Action, Call, CallReport, Kind, Outcome, VerifyReport, Violation
from hotpatch.verifier.rehearsal import Rehearsal, RehearsedFunction, rehearse
from hotpatch.verifier.runs import Surroundings
from hotpatch.verifier.verify import verify_calls

__all__ = [
    "Action",
    "Call",
    "CallReport",
    "Kind",
    "MicroExecution",
    "MicroOutcome",
    "MicroReport",
    "Outcome",
    "Rehearsal",
    "RehearsedFunction",
    "Surroundings",
    "VerifyReport",
    "Violation",
    "check_travelling",
    "rehearse",
    "verify_calls",
]
