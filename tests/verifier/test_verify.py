"""Every boundary of every kind of call gives old, new or per-call results; patches that are wrong in a known way are caught."""

from __future__ import annotations

import itertools

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.engine import Engine
from hotpatch.verifier import Action, Kind, verify_calls
from hotpatch.verifier.boundaries import chosen
from tests.verifier import damage

each_machine = pytest.mark.parametrize("machine", Machine)
each_redirect = pytest.mark.parametrize("redirect", ["hpat", "direct", "inline"])

CALLS = {
    "basic": [("clamp", 11, 10), ("clamp", 3, 10), ("total", 11, 12, 10)],
    "state-kept": [("withdraw", 1, 30), ("withdraw", 1, 1000), ("withdraw", 3, -5)],
    "recursion": [("cost", 12)],
    "jump-table": [("execute", 12, 0, 0), ("run", bytes.fromhex("010503020644"), 6, 9)],
}


@each_machine
@each_redirect
@pytest.mark.parametrize("case", CALLS)
def test_good_patch_has_no_violation_at_any_boundary(built, case: str, machine: Machine, redirect: str) -> None:
    report = built(case, machine, redirect).verify(CALLS[case])
    assert (report.violations, report.refused, report.exhaustive, report.ok) == ((), (), True, True)
    assert report.schedules == len(CALLS[case])
    assert report.boundaries == sum(report.outcomes.values()) == sum(item.instructions for item in report.calls)
    assert report.outcomes[Kind.OLD] and report.outcomes[Kind.NEW]


@each_machine
def test_recursive_call_changes_over_at_each_of_its_inner_calls(built, machine: Machine) -> None:
    given = built("recursion", machine)
    report = given.verify([("cost", 100)])
    applied, reverted = report.calls
    old, new = (hotpatch.Process(image) for image in (given.base, given.fixed))
    for process in (old, new):
        process.call("cost", 100)
    assert (applied.entries, reverted.entries) == (old.call("calls_so_far"), new.call("calls_so_far"))
    assert all(item.outcomes[Kind.PER_CALL] > item.tried / 2 for item in report.calls)
    assert report.ok


@each_machine
def test_call_that_runs_no_patched_function_is_as_if_nothing_happened(built, machine: Machine) -> None:
    report = built("state-kept", machine).verify([("balance", 1)])
    applied, reverted = report.calls
    assert applied.entries == reverted.entries == 0
    assert applied.outcomes[Kind.OLD] == applied.tried == applied.instructions > 0
    assert reverted.outcomes[Kind.NEW] == reverted.tried == applied.tried


@each_machine
def test_first_boundary_is_new_and_those_after_the_last_entry_are_old(built, machine: Machine) -> None:
    applied, reverted = built("basic", machine).verify([("clamp", 11, 10)]).calls
    assert applied.outcomes[Kind.NEW] == 1
    assert applied.outcomes[Kind.OLD] == applied.instructions - 1
    assert reverted.outcomes[Kind.OLD] + reverted.outcomes[Kind.NEW] == reverted.instructions
    assert reverted.outcomes[Kind.OLD] >= 1


@each_machine
def test_function_given_by_rva_is_found_in_the_fixed_image(built, machine: Machine) -> None:
    given = built("inlined-caller", machine)
    function = given.patch.functions[-1]
    case_call = {"rva": f"rva:0x{function.base_rva:x}", "name": function.name}
    by_rva, by_name = (given.verify([(case_call[how], 5, 6)]) for how in ("rva", "name"))
    assert by_rva.ok and by_rva.outcomes == by_name.outcomes


@each_machine
def test_two_reports_are_the_same(built, machine: Machine) -> None:
    given = built("recursion", machine)
    assert given.verify([("cost", 9)], bound=20) == given.verify([("cost", 9)], bound=20)


@each_machine
def test_buffers_of_the_caller_are_left_alone(built, machine: Machine) -> None:
    program = hotpatch.Buffer(6)
    program.data = bytes.fromhex("010503020644")
    report = built("jump-table", machine).verify([("run", program, 6, 9)])
    assert report.ok and program.data == bytes.fromhex("010503020644")
    assert report.calls[0].call == "run(hex:010503020644, 6, 9)"


# more boundaries than the bound -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "bound"), [(10, 10), (11, 10), (1000, 10), (5, 1), (7, 6), (100, 99), (0, 3)])
def test_chosen_boundaries_are_ascending_within_the_bound_and_spread(count: int, bound: int) -> None:
    found = list(chosen(count, bound, seed=1))
    assert len(found) == min(count, bound) == len(set(found))
    assert found == sorted(found) and all(0 <= boundary < count for boundary in found)
    assert found[: (bound + 1) // 2] == list(range(min(count, (bound + 1) // 2)))
    gaps = [later - earlier for earlier, later in itertools.pairwise([*found, count])]
    assert max(gaps, default=0) <= max(2 * -(-count // max(bound // 2, 1)), 1) or bound == 1


def test_bound_is_kept_and_told(built) -> None:
    given = built("recursion", "x64")
    report = given.verify([("cost", 100)], bound=16)
    assert report.ok and not report.exhaustive
    assert [item.tried for item in report.calls] == [16, 16]
    assert "16 instruction boundaries" in report.bound
    assert given.verify([("cost", 100)], bound=10_000).exhaustive


# patches that are wrong -------------------------------------------------------------------------------------------------------------------

WRONG_COMPARISON = {Machine.X64: (6, "480f42c1", "480f47c1"), Machine.ARM64: (4, "0030819a", "0080819a")}
"""``clamp``: ``cmovb`` → ``cmova``; ``csel … lo`` → ``csel … hi``."""


@each_machine
def test_wrong_condition_is_caught_against_the_fixed_image(built, machine: Machine) -> None:
    given = built("basic", machine)
    report = given.verify([("clamp", 3, 10)], damage.with_code(given.patch, *WRONG_COMPARISON[machine]))
    assert [(item.boundary, item.kind, item.function) for item in report.violations] == [(0, Kind.WRONG, "clamp")]
    assert "return: 0xa, 0x3" in report.violations[0].what
    assert report.outcomes[Kind.WRONG] == 1 and sum(report.outcomes.values()) == report.boundaries and not report.ok


@each_machine
def test_fault_in_the_new_function_is_wrong(built, machine: Machine) -> None:
    given = built("basic", machine)
    report = given.verify([("total", 3, 4, 10)], damage.at_entry(given.patch, damage.FAULTING[machine]))
    assert report.violations[0].kind is Kind.WRONG
    assert "illegal-instruction, returned" in report.violations[0].what


@each_machine
def test_endless_loop_in_the_new_function_is_given_up_and_wrong(built, machine: Machine) -> None:
    given = built("basic", machine)
    report = given.verify([("clamp", 3, 10)], damage.at_entry(given.patch, damage.LOOPING[machine]), bound=4)
    assert report.violations[0].kind is Kind.WRONG
    assert "instruction-budget, returned" in report.violations[0].what


@each_machine
def test_calls_past_the_redirect_are_caught_by_reverting_in_between(built, machine: Machine) -> None:
    """From before to the end the patch does what the fixed image does; only a revert half way shows that it holds on to itself."""
    given = built("recursion", machine)
    report = given.verify([("cost", 30)], damage.calling_itself_directly(given.patch))
    assert {item.kind for item in report.violations} <= {Kind.MIXED, Kind.WRONG}
    assert all(", revert: the call " in item.what for item in report.violations)
    applied, reverted = report.calls
    assert applied.outcomes[Kind.MIXED] == applied.outcomes[Kind.WRONG] == 0
    assert reverted.outcomes[Kind.MIXED] + reverted.outcomes[Kind.WRONG] == len(report.violations) > 0


WRONG_ADDEND = {Machine.X64: (108, "01", "02"), Machine.ARM64: (120, "49050091", "49090091")}
"""``withdraw``: ``audit += 1`` → ``audit += 2``."""


@each_machine
def test_wrong_value_in_a_global_is_caught_though_the_result_is_right(built, machine: Machine) -> None:
    given = built("state-kept", machine)
    report = given.verify([("withdraw", 1, 30)], damage.with_code(given.patch, *WRONG_ADDEND[machine]))
    assert [(item.boundary, item.kind) for item in report.violations] == [(0, Kind.WRONG)]
    assert "audit+0x0" in report.violations[0].what


@each_machine
def test_another_fixed_image_than_the_patch_was_made_from_is_caught(built, machine: Machine) -> None:
    given = built("basic", machine)
    report = given.verify([("clamp", 11, 10)], fixed=given.base)
    assert [(item.boundary, item.kind) for item in report.violations] == [(0, Kind.WRONG)]


@each_machine
def test_engine_that_changes_over_too_late_is_caught(built, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """At boundary 3 and later nothing is written although the engine says so: results that would be right elsewhere are mixed."""
    given = built("basic", machine)
    apply = Engine.apply

    def late(engine: Engine, patch, *args, **options):
        applied = apply(engine, patch, *args, **options)
        if engine._target.instructions >= 3:
            applied.revert()
        return applied

    monkeypatch.setattr(Engine, "apply", late)
    report = given.verify([("total", 11, 12, 10)])
    applied = report.calls[0]
    assert applied.outcomes[Kind.MIXED] > 0
    first = next(item for item in report.violations if "apply: the call changed over elsewhere" in item.what)
    assert (first.boundary, first.kind) == (3, Kind.MIXED)


# what cannot be verified ------------------------------------------------------------------------------------------------------------------


@each_machine
def test_refusals_at_boundaries_are_counted_once_a_rule_and_no_violation(built, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    given = built("basic", machine)
    apply = Engine.apply
    refusal = hotpatch.Refusal(hotpatch.Rule.THREAD_IN_DISPLACED, "clamp", None, "a thread is in the way; try again")

    def apply_or_refuse(engine: Engine, patch, *args, **options):
        if engine._target.instructions in (1, 2):
            raise hotpatch.ApplyRefused([refusal, refusal])
        return apply(engine, patch, *args, **options)

    monkeypatch.setattr(Engine, "apply", apply_or_refuse)
    report = given.verify([("clamp", 11, 10), ("clamp", 3, 10)])
    assert report.ok
    (refused,) = report.refused
    assert refused.rule == hotpatch.Rule.THREAD_IN_DISPLACED
    assert refused.evidence == {"call": "clamp(11, 10)", "action": "apply", "first_boundary": 1, "boundaries": 4}
    assert sum(report.outcomes.values()) == report.boundaries - 4
    assert [item.refused for item in report.calls] == [2, 0, 2, 0]
    assert {item.action for item in report.calls} == set(Action)


def test_patch_for_another_build_is_refused(built) -> None:
    given = built("basic", "x64")
    with pytest.raises(hotpatch.ApplyRefused):
        hotpatch.verify(given.fixed, given.patch, fixed=given.fixed, calls=[("clamp", 1, 2)])


def test_unknown_function_is_refused(built) -> None:
    with pytest.raises(hotpatch.Refused) as refused:
        built("basic", "x64").verify([("clomp", 1, 2)])
    assert refused.value.refusals[0].rule == hotpatch.Rule.NO_SUCH_FUNCTION


@pytest.mark.parametrize(
    ("calls", "bound", "problem"), [([], 10, "at least one call"), ([("clamp", 1, 2)], 0, "at least 1"), ([(7, 1)], 10, "is no function")]
)
def test_unusable_question_is_an_input_error(built, calls, bound: int, problem: str) -> None:
    with pytest.raises(hotpatch.InputError, match=problem):
        built("basic", "x64").verify(calls, bound=bound)


@each_machine
def test_call_that_starts_threads_is_an_input_error(built, machine: Machine) -> None:
    given = built("many-threads", machine)
    with pytest.raises(hotpatch.InputError, match="starts threads"):
        verify_calls(given.base, given.patch, fixed=given.fixed, calls=[("start",)])
