"""The builder's front: what it is asked for, what it refuses, and that it always gives the same bytes."""

import hashlib

import lief
import pefile
import pytest

from hotpatch.arch import Machine, Redirect
from hotpatch.builder import build_patch
from hotpatch.builder.rules import run_once_functions
from hotpatch.cases import case_names, find_case
from hotpatch.differ import diff_images
from hotpatch.errors import InputError, NothingToDo, NotHotpatchable, Rule
from hotpatch.image import Image
from hotpatch.patch import hot_patch_info, loads
from tests.builder.applied import Applied
from tests.builder.forge import Code, forge, told
from tests.builder.steps import compared, images
from tests.checksum import checksum

each_machine = pytest.mark.parametrize("machine", Machine)
each_pdb = pytest.mark.parametrize("pdb", ["auto", None], ids=["pdb", "no-pdb"])
BUILT = [name for name in case_names() if find_case(name).manifest.expect.outcome in {"patched", "apply-refused"}]


def refused(diff, **options):
    with pytest.raises(NotHotpatchable) as error:
        build_patch(diff, **options)
    return error.value.refusals


@each_machine
@pytest.mark.parametrize("name", ["overflow-check", "new-helper", "jump-table", "static-local"])
def test_the_same_two_files_give_the_same_bytes(name, machine):
    """From files read twice."""
    assert build_patch(compared(name, machine)).data == build_patch(compared(name, machine)).data


@each_machine
@each_pdb
def test_line_numbers_are_nothing_to_do_but_travel_when_asked_for(machine, pdb):
    diff = compared("line-numbers", machine, pdb)
    cosmetic = [row for row in diff.functions if row.is_cosmetic]
    assert cosmetic
    with pytest.raises(NothingToDo):
        build_patch(diff)
    patch = build_patch(diff, only=[f"rva:0x{cosmetic[0].base.entry:x}"])
    assert [row.base_rva for row in patch.functions] == [cosmetic[0].base.entry]


@each_machine
@pytest.mark.parametrize("name", BUILT)
def test_pefile_and_lief_read_every_patch(name, machine):
    patch = build_patch(compared(name, machine))
    pe = pefile.PE(data=patch.data)
    assert pe.OPTIONAL_HEADER.CheckSum == checksum(patch.data)
    assert not [note for note in pe.get_warnings() if "AddressOfEntryPoint" not in note and "Byte 0x00" not in note]
    other = lief.PE.parse(patch.data)
    assert other is not None
    assert other.load_configuration.hotpatch_table_offset == patch.image.load_configuration.hot_patch_table
    assert [section.name for section in other.sections] == [section.name for section in patch.image.sections]
    named = {symbol.name for symbol in other.symbols}
    assert {row.name for row in patch.functions if row.name} <= named
    for section in patch.image.sections:
        assert not (section.executable and section.writable)


@each_machine
@each_pdb
@pytest.mark.parametrize("name", BUILT)
def test_a_patch_reads_back_as_it_was_made(name, machine, pdb):
    patch = build_patch(compared(name, machine, pdb), allow=() if pdb else ("callbacks-unknown",))
    again = loads(patch.data, patch.image.name)
    assert (again.functions, again.carried, again.fixups, again.imports) == (patch.functions, patch.carried, patch.fixups, patch.imports)


@each_machine
@pytest.mark.parametrize("name", ["hooks", "state-handed-over"])
def test_callbacks_that_no_symbol_names_are_not_left_out_in_silence(name, machine):
    (refusal,) = refused(compared(name, machine, None))
    assert refusal.rule is Rule.CALLBACKS
    assert "hotpatch_shadow_attach" in refusal.evidence["imports"]
    assert build_patch(compared(name, machine, "auto")).callbacks
    assert build_patch(compared(name, machine, None), allow=("callbacks-unknown",)).overrides == (Rule.CALLBACKS,)


@each_machine
def test_an_image_that_only_calls_originals_needs_none(machine):
    assert not build_patch(compared("original-called", machine, None)).callbacks


@each_machine
def test_identity_and_provenance(machine):
    base, fixed = images("overflow-check", machine)
    patch = build_patch(diff_images(base, fixed), sequence=9)
    assert patch.base == base.identity
    assert (patch.provenance.base_sha256, patch.provenance.fixed_sha256) == (base.sha256, fixed.sha256)
    info = hot_patch_info(patch.image)
    assert (patch.sequence, info.sequence_number, info.bases[0].sequence_number) == (9, 9, 9)
    assert info.bases[0].original_time_date_stamp == base.time_date_stamp
    assert info.bases[0].code_integrity == hashlib.sha256(base.data).digest() + hashlib.sha1(base.data).digest()
    replaced = {(row.source_rva, row.target_rva) for row in info.bases[0].records if row.type_name == "function"}
    assert replaced == {(row.base_rva, row.patch_rva) for row in patch.functions}


@each_machine
def test_code_keeps_its_alignment(machine):
    diff = compared("overflow-check", machine)
    fixed = {row.base.entry: row.fixed.entry for row in diff.functions if row.base and row.fixed}
    for row in build_patch(diff).functions:
        assert row.patch_rva % 16 == fixed[row.base_rva] % 16


@each_machine
def test_every_function_has_unwind_data_if_the_fixed_image_has(machine):
    diff = compared("overflow-check", machine)
    patch = build_patch(diff)
    fixed = {row.base.entry: row.fixed for row in diff.functions if row.base and row.fixed}
    for row in patch.functions:
        there = diff.fixed.unwind_entry_at(fixed[row.base_rva].entry)
        here = patch.image.unwind_entry_at(row.patch_rva)
        assert (there is None) == (here is None)
        assert there is None or there.range.size == here.range.size


@each_machine
def test_entry_bytes_are_the_base_s(machine):
    diff = compared("overflow-check", machine)
    for row in build_patch(diff).functions:
        function = diff.base.function_of_entry(row.base_rva)
        assert row.entry_bytes == diff.base.code(function.ranges[0])
        assert row.padding_bytes == diff.base.read(row.base_rva - len(row.padding_bytes), len(row.padding_bytes))


@each_machine
def test_only_some(machine):
    diff = compared("new-constant", machine)
    assert [row.name for row in build_patch(diff, only=["category"]).functions] == ["category"]
    rva = diff.base.function_named("describe").entry
    assert [row.name for row in build_patch(diff, only=[f"rva:0x{rva:x}"]).functions] == ["describe"]
    assert len(build_patch(diff, only=["describe", "category", "describe"]).functions) == 2


@each_machine
def test_all_but_some(machine):
    diff = compared("new-constant", machine)
    assert [row.name for row in build_patch(diff, leave_out=["describe"]).functions] == ["category"]
    assert [item.rule for item in refused(diff, leave_out=["no_such_thing"])] == [Rule.NO_SUCH_FUNCTION]
    with pytest.raises(InputError, match="both to travel and to stay"):
        build_patch(diff, only=["describe", "category"], leave_out=["category"])
    with pytest.raises(NothingToDo, match="every function that changed is left out"):
        build_patch(diff, leave_out=["describe", "category"])


@each_machine
def test_only_what_exists_and_changed(machine):
    diff = compared("new-helper", machine)
    unchanged = next(row.name for row in diff.functions if row.verdict in {"identical", "relocated"} and row.name)
    assert [item.rule for item in refused(diff, only=[unchanged])] == [Rule.NOT_CHANGED]
    assert [item.rule for item in refused(diff, only=["no_such_thing"])] == [Rule.NO_SUCH_FUNCTION]
    (new,) = refused(diff, only=["mix"])
    assert new.rule is Rule.NOT_CHANGED
    assert "new" in new.reason
    assert [item.rule for item in refused(diff, only=["checksum", "no_such_thing", unchanged])] == [Rule.NO_SUCH_FUNCTION, Rule.NOT_CHANGED]


@each_machine
@each_pdb
def test_nothing_to_do(machine, pdb):
    base, _ = images("basic", machine, pdb)
    with pytest.raises(NothingToDo):
        build_patch(diff_images(base, base))
    with pytest.raises(NothingToDo):
        build_patch(compared("cosmetic", machine, pdb))


@each_machine
def test_every_refusal_is_told(machine):
    diff = compared("data-layout-refused", machine)
    found = refused(diff)
    assert {item.rule for item in found} == {Rule.DATA_LAYOUT}
    assert len(found) == 2
    assert all(item.evidence for item in found)


OVERRIDES = {
    "data-init": ("data-init-refused", (), {"within"}),
    "contradicting-votes": ("split-datum-refused", ("accepted",), {"accepted"}),
    "start-up-differs": ("start-up-differs-refused", ("heaviest",), {"heaviest"}),
    "policy-differs": ("policy-differs-refused", (), {"half"}),
}
"""Rule: the case that it refuses, what is listed with --only, and what travels once the rule is overridden."""


@each_machine
@pytest.mark.parametrize("rule", OVERRIDES)
def test_an_override_lets_through_what_is_refused_without_and_stands_in_the_patch(rule, machine):
    name, only, travels = OVERRIDES[rule]
    diff = compared(name, machine)
    assert [item.rule for item in refused(diff, only=only)] == [rule]
    patch = build_patch(diff, only=only, allow=[rule])
    assert {row.name for row in patch.functions} == travels
    assert patch.overrides == loads(patch.data, "fix.dll").overrides == (rule,)


@each_machine
def test_live_data_keep_their_value_where_their_new_first_one_is_overridden(machine):
    diff = compared("data-init-refused", machine)
    applied = Applied(diff.base, build_patch(diff, allow=["data-init"]))
    assert [applied.call("within", value) for value in (75, 99, 100)] == [1, 1, 0]


@each_machine
def test_contradicting_votes_are_told_with_who_votes_for_what(machine):
    """Each candidate, and the functions and instructions of both images that name it."""
    diff = compared("split-datum-refused", machine)
    votes = next(item for item in refused(diff) if item.rule is Rule.CONTRADICTING_VOTES)
    datum = votes.evidence["votes"][0]["base_rva"]
    assert votes.rva == datum
    assert [(vote["base_rva"], vote["fixed_rva"] - datum) for vote in votes.evidence["votes"]] == [(datum, 0), (datum, 8)]
    for vote, voter in zip(votes.evidence["votes"], ("local_request", "remote_request"), strict=True):
        (site,) = vote["sites"]
        assert diff.base.function_named(voter).entry == site["base_function"]
        for image, side, target in ((diff.base, "base", datum), (diff.fixed, "fixed", vote["fixed_rva"])):
            at = site[f"{side}_rva"]
            function = image.function_at(at)
            assert function.name == voter
            assert image.read(at, len(site[f"{side}_bytes"]) // 2).hex() == site[f"{side}_bytes"] != ""
            assert target in {item.target for part in image.references(function) for item in part}


@pytest.mark.parametrize("name", ["self-check", "no-such-rule", "unresolved-reference", ""])
def test_what_cannot_be_overridden(name):
    with pytest.raises(InputError, match="overridden"):
        build_patch(compared("basic", Machine.X64), allow=[name])


@pytest.mark.parametrize("sequence", [0, -1, 1 << 32])
def test_sequence_numbers(sequence):
    with pytest.raises(InputError, match="sequence"):
        build_patch(compared("basic", Machine.X64), sequence=sequence)


@each_machine
def test_an_entry_point_runs_once(machine):
    """Of a program: the entry point itself, and nothing that it calls, because its main loop is called by it too."""
    base, _ = images("many-threads", machine)
    once = run_once_functions(base)
    assert set(once) == {base.entry_point}


@each_machine
def test_start_up_code_alone_is_refused(machine, monkeypatch):
    """What only a DLL's entry point calls; what others call too is not start-up code. Beside other changes it travels."""
    call = {Machine.X64: ["e81b000000c3", "e8fbffff00c3"], Machine.ARM64: ["0c000014", ""]}[machine][0]
    body = {Machine.X64: ("b80500000090c3", "b80600000090c3"), Machine.ARM64: ("a0008052c0035fd6", "c0008052c0035fd6")}[machine]
    at = 0x10 + 5 + 0x1B if machine is Machine.X64 else 0x10 + 0x30
    base = forge(machine, [Code("main", 16, call), Code("setup", at, body[0]), Code("other", at + 64, body[0])])
    fixed = forge(machine, [Code("main", 16, call), Code("setup", at, body[1]), Code("other", at + 64, body[1])])
    monkeypatch.setattr(Image, "entry_point", property(lambda self: self.functions[0].entry))
    diff = told(base, fixed, setup="changed", other="changed")
    (refusal,) = refused(diff, only=["setup"])
    assert (refusal.rule, refusal.function) == (Rule.RUN_ONCE, "setup")
    assert build_patch(diff, only=["other"]).overrides == ()
    assert build_patch(diff, only=["setup"], allow=["run-once"]).overrides == ("run-once",)
    assert [row.name for row in build_patch(diff).functions] == ["setup", "other"]


@each_machine
@pytest.mark.parametrize("redirect", Redirect)
def test_each_strategy(machine, redirect):
    (row,) = build_patch(compared("basic", machine), redirect=redirect).functions
    site = compared("basic", machine).base.architecture.entry_site(redirect)
    assert row.redirect is redirect
    assert len(row.padding_bytes) == site.before
