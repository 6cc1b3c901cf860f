"""The verbs by name; what they do is imported when one is called or its help is shown."""

from __future__ import annotations

from cyclopts import App

from hotpatch import __version__

VERBS = {
    "demo": (
        "hotpatch.cli.story:demo",
        "The whole story on a shipped case: a program with a bug is repaired while it runs.",
        "hotpatch demo --arch arm64 --step",
        "[CASE] [OPTIONS]",
    ),
    "cases": ("hotpatch.cli.story:cases", "List the shipped cases.", "hotpatch cases --json", "[OPTIONS]"),
    "inspect": (
        "hotpatch.cli.images:inspect",
        "Show an image's functions, padding and hot patch table, or a patch's contents.",
        "hotpatch inspect base.dll",
        "FILE [OPTIONS]",
    ),
    "diff": (
        "hotpatch.cli.images:diff",
        "Tell which functions of two builds differ, and how.",
        "hotpatch diff base.dll fixed.dll --function clamp",
        "BASE FIXED [OPTIONS]",
    ),
    "build": (
        "hotpatch.cli.images:build",
        "Build the patch image, or say why that cannot be done.",
        "hotpatch build base.dll fixed.dll -o /tmp/fix.dll --check",
        "BASE FIXED -o PATCH [OPTIONS]",
    ),
    "call": (
        "hotpatch.cli.programs:call",
        "Call one function in a fresh emulated process, patched or not.",
        "hotpatch call base.dll total 11 12 10 --patch /tmp/fix.dll@12",
        "IMAGE FUNCTION [ARG …] [OPTIONS]",
    ),
    "run": (
        "hotpatch.cli.programs:run",
        "Run a whole program with its threads, patching it at any instruction.",
        "hotpatch run ../../many-threads/x64/base.exe --stop-at 2000",
        "IMAGE [ARG …] [OPTIONS]",
    ),
    "verify": (
        "hotpatch.cli.verification:verify",
        "Apply a patch at every instruction boundary and compare every run.",
        'hotpatch verify base.dll /tmp/fix.dll --fixed fixed.dll --call "clamp 11 10"',
        "BASE PATCH --fixed FILE [OPTIONS]",
    ),
}
"""Verb → where it is, what it does, an example, its arguments."""
EXAMPLES = "fixtures/basic/x64"
"""The folder of a checkout in which the examples work, one after the other."""
_PLACES = dict.fromkeys(("inspect", "diff", "build", "run"), f", in {EXAMPLES} of a checkout") | dict.fromkeys(
    ("call", "verify"), f", in {EXAMPLES} of a checkout, after that of build"
)
_SERVICING_PLACE = "fixtures/servicing"
"""Where those of the servicing verbs do."""

SERVICING = {
    "calendar": (
        "hotpatch.cli.servicing:calendar",
        "Show which months bring a baseline with a restart and which a hotpatch without.",
        "hotpatch servicing calendar 2026 --unplanned 2026-05",
        "[YEAR] [OPTIONS]",
    ),
    "eligible": (
        "hotpatch.cli.servicing:eligible",
        "Explain whether one device gets a month's hotpatch, rule by rule.",
        "hotpatch servicing eligible devices/many-faults.toml --month 2026-02",
        "DEVICE [OPTIONS]",
    ),
    "offer": (
        "hotpatch.cli.servicing:offer",
        "Let a quality update policy find what a month brings to each of its devices.",
        "hotpatch servicing offer --policy policies/rings.toml --devices devices",
        "--policy FILE --devices DIR [OPTIONS]",
    ),
    "simulate": (
        "hotpatch.cli.servicing:simulate",
        "Let devices with a real server live through months of updates and attacks.",
        "hotpatch servicing simulate january-to-april --json",
        "[SCENARIO] [OPTIONS]",
    ),
}
"""Verb of ``hotpatch servicing`` → the same."""

_COLUMNS = {
    "inspect": (
        "padding: unused bytes in front of the function, of which hpat needs five on x64 and none on Arm64",
        "entry: whether a redirect can be stored there",
    ),
    "diff": (
        "verdict: identical and relocated functions are the same, once what they refer to is resolved",
        "matched by: what shows that it is the same function in both builds",
        "alike: share of the instructions that are the same and refer to the same things, from 0 to 1",
    ),
    "build": (
        "redirect, why: how calls reach the new function; why it travels, and why it has not the redirect asked for",
        "runs, agreed: made-up states tried (--check); runs in which both builds did the same, compared to their ends",
        "covered: share of the function's instructions that ran in these; the rest was not compared",
        "instructions: all that ran",
    ),
    "verify": (
        "patch: whether it went in or was taken out",
        "boundaries: at how many of the call's instruction boundaries; each is a run of its own",
        "entered: calls of patched functions in it; 0 shows nothing about the patch",
        "old, new: runs as if the patch had never, or always, been there; per call: each call was wholly one or the other",
        "mixed, wrong: neither: a counterexample",
        "runs, agreed, covered, instructions: see hotpatch build --help",
    ),
}
"""What the columns of a verb's text mean."""

_EXITS = "".join(
    f"\n- {line}"
    for line in (
        "0: done",
        "1: the emulated program faulted",
        "2: bad usage, or an input that cannot be read",
        "3: nothing to do: no functional change",
        "4: refused",
        "5: verification found a counterexample",
    )
)

app = App(
    name="hotpatch",
    help="See, try and prove restart-free patching of Windows programs: diff two builds, build a hot patch, apply it to running code.",
    help_format="plaintext",
    help_epilogue=f"Exit codes:{_EXITS}\n\nStart with: hotpatch demo",
    version=f"hotpatch {__version__}",
    version_flags=["--version"],
    result_action="return_value",
)
servicing = App(
    name="servicing",
    help="The service around the mechanism: calendar, eligibility, what a policy brings to its devices, and devices that live through it.",
    help_format="plaintext",
    help_epilogue="Example:\nhotpatch servicing simulate january-to-april",
)
app.command(servicing)
for name, (home, summary, example, takes) in SERVICING.items():
    epilogue = f"Example, in {_SERVICING_PLACE} of a checkout:\n{example}"
    servicing.command(home, name=name, help=summary, usage=f"Usage: hotpatch servicing {name} {takes}", help_epilogue=epilogue)
for name, (home, summary, example, takes) in VERBS.items():
    legend = "".join(f"\n- {line}" for line in _COLUMNS.get(name, ()))
    epilogue = (f"Columns:{legend}\n\n" if legend else "") + f"Example{_PLACES.get(name, '')}:\n{example}"
    app.command(home, name=name, help=summary, usage=f"Usage: hotpatch {name} {takes}", help_epilogue=epilogue)
