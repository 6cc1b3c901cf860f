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
for name, home in {
    "demo": "hotpatch.cli.story:demo",
    "cases": "hotpatch.cli.story:cases",
    "inspect": "hotpatch.cli.images:inspect",
    "diff": "hotpatch.cli.images:diff",
    "build": "hotpatch.cli.images:build",
    "call": "hotpatch.cli.programs:call",
    "run": "hotpatch.cli.programs:run",
    "verify": "hotpatch.cli.programs:verify",
}.items():
    app.command(home, name=name)
