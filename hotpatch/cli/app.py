"""The verbs by name; what they do is imported when one is called or its help is shown."""

from __future__ import annotations

from cyclopts import App

from hotpatch import __version__

app = App(
    name="hotpatch",
    help="See, try and prove restart-free patching of Windows programs: diff two builds, build a hot patch, apply it to running code.",
    version=f"hotpatch {__version__}",
    version_flags=["--version"],
    result_action="return_value",
)
for name, (home, summary) in {
    "demo": ("hotpatch.cli.story:demo", "The whole story on a shipped case: a program with a bug is repaired while it runs."),
    "cases": ("hotpatch.cli.story:cases", "List the shipped cases."),
    "inspect": ("hotpatch.cli.images:inspect", "Show an image's functions and hot patch table, or a patch's contents."),
    "diff": ("hotpatch.cli.images:diff", "Tell which functions of two builds differ, and how."),
    "build": ("hotpatch.cli.images:build", "Build the patch image, or say why that cannot be done."),
    "call": ("hotpatch.cli.programs:call", "Call one function in a fresh emulated process, patched or not."),
    "run": ("hotpatch.cli.programs:run", "Run a whole program with its threads, patching it at any instruction."),
    "verify": ("hotpatch.cli.verification:verify", "Apply a patch at every instruction boundary and compare every run."),
}.items():
    app.command(home, name=name, help=summary)
