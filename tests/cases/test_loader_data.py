"""What the loader sets up for an image once (TLS index, security cookie, guard pointers) a patch takes from the base, never from itself."""

from __future__ import annotations

import pytest

import hotpatch
from hotpatch.arch import Machine
from hotpatch.patch.model import Space

each_machine = pytest.mark.parametrize("machine", Machine)
each_pdb = pytest.mark.parametrize("pdb", [True, False], ids=["pdb", "no-pdb"])


def place(case: str, image: hotpatch.Image) -> int:
    """RVA of what the case's patched function uses, as the headers tell."""
    configuration = image.load_configuration
    if case == "tls":
        return image.tls.index
    if case == "cookie":
        return configuration.security_cookie
    return configuration.guard_dispatch_pointer if image.machine is Machine.X64 else configuration.guard_check_pointer


@each_pdb
@each_machine
@pytest.mark.parametrize("case", ["tls", "cookie", "guarded-call"])
def test_it_is_the_base_s(given, case, machine, pdb) -> None:
    one = given(case, machine, pdb)
    base, fixed = one.image("base"), one.image("fixed")
    assert any(reference.target == place(case, fixed) for reference in references(fixed, fixed_function(one)))
    bound = {fixup.target for fixup in one.patch.fixups if fixup.space is Space.BASE}
    assert place(case, base) in bound
    carried = {thing.name for thing in one.patch.carried}
    assert not carried & {"_tls_index", "__security_cookie", "__guard_check_icall_fptr", "__guard_dispatch_icall_fptr"}


def fixed_function(one) -> hotpatch.Function:
    (name,) = one.case.manifest.expect.travels
    rva = next(rva for rva, known in one.names["fixed"].items() if known == name)
    return one.image("fixed").function_of_entry(rva)


def references(image: hotpatch.Image, function: hotpatch.Function):
    return [reference for part in image.references(function) for reference in part]


@each_machine
def test_new_code_calls_through_the_process_s_guard(given, machine) -> None:
    """Every call by pointer of the patched function stops at the guard that the loader has put in place."""
    one = given("guarded-call", machine, True)
    process = hotpatch.Process(one.image("base"))
    applied = process.apply(one.patch)
    start = applied.functions[0].destination - one.patch.functions[0].patch_rva
    new = range(start, start + one.patch.image.size_of_image)
    system = process.guest.system
    guard = system.guard_dispatch if machine is Machine.X64 else system.guard_check
    process.start()
    guarded, before = 0, 0
    while not process.finished:
        process.run(1)
        pc = process.position[1] if process.position else 0
        guarded += before in new and pc == guard
        before = pc
        assert process.instructions < 5000
    assert guarded == 8  # of nine requests one has a number that no operation has
