"""Proof by trying: a patch applied and taken back at every instruction boundary of calls, and rehearsed in a fresh process."""

from hotpatch.verifier.micro import MicroExecution
from hotpatch.verifier.micro_check import NO_DIFFERENCE, MicroCheck, check_patch, verify_functions
from hotpatch.verifier.micro_model import MicroOutcome, MicroReport
from hotpatch.verifier.model import Action, Call, CallReport, Kind, Outcome, VerifyReport, Violation
from hotpatch.verifier.rehearsal import Rehearsal, RehearsedFunction, rehearse
from hotpatch.verifier.runs import Surroundings
from hotpatch.verifier.verify import verify_calls

__all__ = [
    "NO_DIFFERENCE",
    "Action",
    "Call",
    "CallReport",
    "Kind",
    "MicroCheck",
    "MicroExecution",
    "MicroOutcome",
    "MicroReport",
    "Outcome",
    "Rehearsal",
    "RehearsedFunction",
    "Surroundings",
    "VerifyReport",
    "Violation",
    "check_patch",
    "rehearse",
    "verify_calls",
    "verify_functions",
]
