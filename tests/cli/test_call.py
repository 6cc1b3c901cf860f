"""hotpatch call: forms of arguments, patches, faults, refusals."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import hotpatch
from hotpatch.arch import Machine, architecture
from hotpatch.cases import find_case
from hotpatch.emulator.calls import lay_out
from hotpatch.process import Single
from tests.cli.front import Ask

NINE = sum(number * number for number in range(1, 10))
"""What the base's ``nine`` makes of 1…9: each argument times its position."""


def test_call(ask: Ask, image, machine) -> None:
    found = ask("call", image("basic", machine), "clamp", "11", "10", "--json").document("call")
    assert (found["return"], found["return_hex"], found["buffers"], found["output"]) == (11, "0xb", [], "")
    assert found["instructions"] > 0
    assert (found["applied"], found["refused"], found["fault"]) == ([], [], None)
    text = ask("call", image("basic", machine), "clamp", "11", "10")
    assert (text.code, text.err) == (0, "")
    assert text.out == f"returned 11 (0xb) after {found['instructions']} instructions\n"


@pytest.mark.parametrize("numbers", [("0xb", "0xA"), ("-5", "-7"), ("+11", "10")])
def test_integers(ask: Ask, image, machine, numbers) -> None:
    value, limit = (int(number, 0) % 2**64 for number in numbers)
    found = ask("call", image("basic", machine), "clamp", *numbers, "--json").document("call")
    expected = value if value <= (limit + 1) % 2**64 else limit
    assert (found["return"], found["return_hex"]) == (expected, hex(expected))


def test_negative_result_is_told_signed_too(ask: Ask, image, machine) -> None:
    out = ask("call", image("basic", machine), "clamp", "-1", "-1").out
    assert out.startswith(f"returned {2**64 - 1} (0x{'f' * 16}), signed -1 after ")


def test_arguments_past_the_registers(ask: Ask, image, machine) -> None:
    call = "call", image("parameters", machine), "nine", *map(str, range(1, 10))
    assert ask(*call, "--json").document("call")["return"] == NINE


def test_floats_in_and_out(ask: Ask, image, machine) -> None:
    call = "call", image("parameters", machine), "mixed", "1", "f64:2.5", "3", "f64:4.5", "5", "f64:6.25"
    assert ask(*call, "--json").document("call")["return_float"] == 19.25
    assert "floating-point register as a double 19.25" in ask(*call).out
    negative = "call", image("parameters", machine), "preserved", "f64:-3", "f64:5e0", "--json"
    assert isinstance(ask(*negative).document("call")["return_float"], float)


def test_float_has_single_precision(ask: Ask, image, machine) -> None:
    call, rest = ("call", image("parameters", machine), "mixed", "1"), ("3", "f64:4.5", "5", "f64:6.25", "--json")
    same = float(struct.unpack("<d", struct.pack("<ff", 2.5, 0))[0])
    single, double, whole = (
        ask(*call, argument, *rest).document("call")["return_float"] for argument in ("f32:2.5", f"f64:{same!r}", "f64:2.5")
    )
    assert single == double != whole
    assert lay_out(architecture(Machine(machine)).convention, [Single(2.5)]).floats == ((0, 0x40200000),)
    assert ask("call", image("parameters", machine), "mixed", "f32:1e39").code == 2


def test_result_that_is_no_number_is_null(ask: Ask, image, machine) -> None:
    found = ask("call", image("parameters", machine), "doubles", *["f64:nan"] * 9, "--json").document("call")
    assert found["return_float"] is None


def test_buffers_are_read_back_in_order(ask: Ask, image, machine) -> None:
    call = "call", image("parameters", machine), "call_blend", "hex:0000803F000000400000404000008040", "buf:3", "hex:", "str:ab"
    found = ask(*call, "--json").document("call")
    assert found["buffers"] == ["000040400000c0400000104100004041", "000000", ""]
    assert ask(*call).out.endswith("buffer 1: 000040400000c0400000104100004041\nbuffer 2: 000000\nbuffer 3:\n")


def test_long_buffer_is_dumped(ask: Ask, image, machine) -> None:
    data = b"The quick brown fox jumps over it"
    call = "call", image("basic", machine), "clamp", f"hex:{data.hex()}", "buf:1000"
    out = ask(*call).out
    assert "    0000  54 68 65 20" in out
    assert "  The quick brown\n" in out
    assert "744 bytes more" in out
    assert ask(*call, "--json").document("call")["buffers"] == [data.hex(), "00" * 1000]


def test_strings(ask: Ask, image, machine) -> None:
    digest = "call", image("leaf", machine), "digest"
    assert ask(*digest, "str:leaf", "4", "--json").document("call")["return"] == 24574388
    utf_8 = "leäf".encode()
    for size in (len(utf_8), len(utf_8) + 1):  # the last byte is the NUL
        found = [ask(*digest, text, size, "--json").document("call")["return"] for text in ("str:leäf", f"hex:{utf_8.hex()}00")]
        assert found[0] == found[1]


@pytest.mark.parametrize(
    "argument",
    ["seven", "hex:0", "hex:zz", "buf:-1", "buf:x", "buf:99999999999", "f64:x", "u8:1", str(2**64), str(-(2**63) - 1), "", "1.5"],
)
def test_bad_arguments(ask: Ask, image, argument: str) -> None:
    answer = ask("call", image("basic", Machine.X64), "clamp", argument, "1")
    assert answer.code == 2
    assert argument in answer.error


@pytest.mark.parametrize("patched", [(), ("--patch", "PATCH")], ids=["alone", "behind a patch"])
def test_a_lone_count_is_told_where_it_belongs(ask: Ask, image, patch, patched: tuple[str, ...]) -> None:
    fix = patch("basic", Machine.X64)
    options = [fix if word == "PATCH" else word for word in patched]
    answer = ask("call", image("basic", Machine.X64), "clamp", "11", "10", *options, "@4")
    assert answer.code == 2
    assert answer.error.startswith("@4: is no argument; a count of instructions stands right behind its patch, as in --patch fix.dll@4; ")


def test_refusals_and_faults_are_not_folded_in_a_pipe(ask: Ask, image, patch, machine) -> None:
    commands = {
        4: ("call", image("parameters", machine), "call_small", "12", "10", "--patch", patch("basic", machine)),
        1: ("call", image("basic", machine), "clamp", "11", "10", "--budget", "1"),
    }
    answers = {code: ask(*command) for code, command in commands.items()}
    assert [answer.code for answer in answers.values()] == list(commands)
    reason = ask(*commands[4], "--json").document("call")["refused"][0]["reason"]
    assert f"    {reason}" in answers[4].out.splitlines()
    assert answers[1].out.startswith("fault instruction-budget at pc 0x") and len(answers[1].out.splitlines()[0]) > 80


def test_function_by_address(ask: Ask, image, machine) -> None:
    path = image("basic", machine)
    rva = hotpatch.open(path).function_named("clamp").entry
    assert ask("call", path, f"rva:0x{rva:x}", "11", "10", "--json").document("call")["return"] == 11


def test_function_that_is_not_there(ask: Ask, image, machine) -> None:
    for name in ("nosuch", "rva:0xffffff", "rva:0x1"):
        answer = ask("call", image("basic", machine), name, "--json")
        assert answer.code == 4
        found = answer.document("call")
        assert [refusal["rule"] for refusal in found["refused"]] == ["no-such-function"]
        assert (found["return"], found["return_hex"]) == (None, None)
        assert ask("call", image("basic", machine), name).out.startswith("refused no-such-function")


def test_patch_before_the_call(ask: Ask, image, patch, machine) -> None:
    fix = patch("basic", machine)
    answer = ask("call", image("basic", machine), "clamp", "11", "10", "--patch", fix, "--json")
    assert answer.code == 0
    found = answer.document("call")
    assert (found["return"], found["applied"]) == (10, [{"patch": fix, "at": 0, "functions": 1}])
    assert (
        f"applied {fix} to the process before the first instruction: 1 function\n"
        in ask("call", image("basic", machine), "clamp", "11", "10", "--patch", fix).out
    )


def test_patch_goes_in_at_every_instruction(ask: Ask, image, patch, machine) -> None:
    fix, call = patch("basic", machine), ("call", image("basic", machine), "total", "11", "12", "10")
    total = ask(*call, "--json").document("call")["instructions"]
    results = []
    for at in range(total):
        found = ask(*call, "--patch", f"{fix}@{at}", "--json").document("call")
        assert found["applied"] == [{"patch": fix, "at": at, "functions": 1}]
        results.append(found["return"])
    assert results == sorted(results)
    assert set(results) == {20, 21}
    late = ask(*call, "--patch", f"{fix}@{total + 100}", "--json", "-q").document("call")
    assert (late["return"], late["applied"]) == (21, [])


def test_several_patches(ask: Ask, image, patch, machine) -> None:
    first, second = patch("superseded", machine), patch("superseded", machine, "other", 2)
    call = "call", image("superseded", machine), hotpatch.load(first).functions[0].name
    found = ask(*call, "--patch", first, "--patch", f"{second}@1", "--json").document("call")
    assert [(item["patch"], item["at"]) for item in found["applied"]] == [(first, 0), (second, 1)]


@pytest.mark.parametrize("at", ["", "@0", "@2"])
def test_patch_of_another_build_is_refused(ask: Ask, image, patch, machine, at: str) -> None:
    fix = patch("basic", machine)
    path = image("parameters", machine)
    answer = ask("call", path, "call_small", "12", "10", "--patch", fix + at, "--json")
    assert answer.code == 4
    found = answer.document("call")
    assert [refusal["rule"] for refusal in found["refused"]] == ["wrong-base"]
    assert found["return"] == (22 if at else None)
    assert ask("call", path, "call_small", "12", "10", "--patch", fix + at).code == 4


def test_wrong_base_is_refused(ask: Ask, image, patch, machine, tmp_path: Path) -> None:
    other = tmp_path / "base.dll"
    other.write_bytes(Path(image("wrong-base-refused", machine, "other")).read_bytes())
    answer = ask("call", other, "authorize", "0", "1", "--patch", patch("wrong-base-refused", machine), "--json")
    assert answer.code == 4
    assert [refusal["rule"] for refusal in answer.document("call")["refused"]] == ["wrong-base"]


def test_fault(ask: Ask, image, machine) -> None:
    call = "call", image("parameters", machine), "call_blend", "0x10"
    answer = ask(*call, "--json")
    assert answer.code == 1
    fault = answer.document("call")["fault"]
    assert (fault["kind"], fault["access"]) == ("access-violation", "read")
    assert 0x10 <= fault["address"] < 0x20
    assert fault["stack"][0]["pc"] == fault["pc"]
    text = ask(*call)
    assert (text.code, text.err) == (1, "")
    assert text.out.startswith(f"fault access-violation at pc 0x{fault['pc']:x} in {fault['function']}: read of 0x")


def test_patch_is_told_before_a_fault(ask: Ask, image, patch, machine) -> None:
    fix = patch("parameters", machine)
    found = ask("call", image("parameters", machine), "call_blend", "0x10", "--patch", f"{fix}@1", "--json").document("call")
    assert found["fault"]
    assert [item["at"] for item in found["applied"]] == [1]


def test_unknown_import(ask: Ask, image, machine, tmp_path: Path) -> None:
    path = tmp_path / "base.dll"
    data = Path(image("new-import", machine)).read_bytes()
    assert data.count(b"GetProcessHeap\0") == 1
    path.write_bytes(data.replace(b"GetProcessHeap\0", b"GetProcessHoop\0"))
    exports = [export.name for export in hotpatch.open(path).exports]
    faults = [ask("call", path, name, "1", "1", "--json") for name in exports]
    kinds = [answer.document("call")["fault"] and answer.document("call")["fault"]["kind"] for answer in faults]
    assert "unknown-import" in kinds
    answer = faults[kinds.index("unknown-import")]
    assert answer.code == 1
    assert "GetProcessHoop" in answer.document("call")["fault"]["detail"]


def test_load_base(ask: Ask, image, machine) -> None:
    call = "call", image("parameters", machine), "call_blend", "0x10", "--json"
    there = ask(*call, "--load-base", "0x123450000").document("call")
    assert 0x123450000 < there["fault"]["pc"] < 0x123460000
    for wrong in ("0x123", "-0x10000", "here", "0xffffffffffff0000"):
        answer = ask("call", image("basic", machine), "clamp", "1", "2", "--load-base", wrong)
        assert answer.code == 2
        assert wrong in answer.error


def test_module(ask: Ask, image, machine) -> None:
    base, other = image("basic", machine), image("parameters", machine)
    assert ask("call", base, "clamp", "11", "10", "--module", other).code == 2  # both are called base.dll


def test_module_is_there_to_be_called(ask: Ask, image, machine, tmp_path: Path) -> None:
    other = tmp_path / "other.dll"
    other.write_bytes(Path(image("parameters", machine)).read_bytes())
    arguments = "other!nine", *map(str, range(1, 10)), "--module", other, "--json"
    assert ask("call", image("basic", machine), *arguments).document("call")["return"] == NINE
    missing = ask("call", image("basic", machine), "other!nine")
    assert missing.code == 2
    assert "--module" in missing.error


def test_seed_is_an_integer(ask: Ask, image, machine) -> None:
    call = "call", image("basic", machine), "clamp", "1", "2"
    assert ask(*call, "--seed", "7").code == 0
    assert ask(*call, "--seed", "x").code == 2


@pytest.mark.parametrize("consistency", ["quiescent", "per-thread"])
def test_consistency_has_a_document_either_way(ask: Ask, image, patch, machine, consistency: str) -> None:
    call = "call", image("basic", machine), "clamp", "11", "10", "--patch", patch("basic", machine), "--consistency", consistency, "--json"
    answer = ask(*call)
    found = answer.document("call")
    assert (answer.code, found["return"]) in {(0, 10), (4, None)}
    assert bool(found["refused"]) == (answer.code == 4)


def test_a_budget(ask: Ask, image, machine) -> None:
    found = ask("call", image("recursion", machine), *_first_call("recursion"), "--budget", "3", "--json")
    assert found.code == 1
    assert found.document("call")["fault"]["kind"] == "instruction-budget"
    assert ask("call", image("basic", machine), "clamp", "11", "10", "--budget", "0x1000").code == 0
    assert "(after 1 instruction; " in ask("call", image("basic", machine), "clamp", "11", "10", "--budget", "1").out


def test_a_call_that_ends_the_process_is_named(ask: Ask, image, machine) -> None:
    answer = ask("call", image("overflow-check", machine), "start")
    assert answer.code == 2
    assert answer.error == "the process ended (exit code 0) inside of the call of start; run the program as a whole"


def _first_call(name: str) -> tuple[str, ...]:
    call = find_case(name).manifest.call[0]
    return call.function, *call.args
