r"""A shipped case as a value: what ``fixtures/<case>/case.toml`` says, read once and checked.

``fixtures/<case>/`` holds the sources (``base.c``, ``fixed.c``; ``other.c`` where a third image is needed), and per machine the images
built from them with their PDBs: ``x64/base.dll``, ``x64/base.pdb``, ``arm64/fixed.exe`` … Beside a DLL there may be ``host.c``, a program
that loads it: ``x64/host.exe``. A case that must be refused has a name ending in ``-refused``.

The manifest, one format (keys that a case does not need are left out)::

    title = "…"                     # one line for a list
    shows = "…"                     # what the case is for
    origin = "KP"                   # whose lesson it is, as the list of cases abbreviates them
    kind = "dll"                    # or "exe"

    [build.all]                     # how it is built; x64, arm64, base, fixed, other, host add to or override "all", in this order
    hotpatch = true                 # -fms-hotpatch (x64: no one-byte instruction at an entry)
    functionpadmin = true           # x64: six bytes of padding before each function
    entry = "start"                 # a DLL without one has no entry point; an exe's is "start"
    kernel32 = false                # link fixtures/common/kernel32.def's import library
    ntdll = false                   # link fixtures/common/ntdll.def's: the handler of __try
    ucrtbase = false                # link fixtures/common/ucrtbase.def's: functions of the C run time
    common = ["console.c"]          # sources of fixtures/common to link
    cflags = []                     # added to the compiler's command line
    ldflags = []                    # added to the linker's

    [verdicts.all]                  # functions not named must be identical or relocated
    parse = "changed"               # identical, relocated, changed, added, removed
    [verdicts.arm64]                # overrides for one machine: x64, arm64
    [verdicts.without_pdb]          # overrides where no PDB is there; names stand for the addresses that the PDBs give them

    [expect]
    outcome = "patched"             # "patched", "nothing" (nothing to do), "refused" (by the builder), "apply-refused" (by the engine)
    rule = "wrong-base"             # of a refusal
    apply_to = "other"              # which image the patch is applied to (default base)
    travels = ["parse"]             # exactly the functions that get redirected
    carried = ["helper"]            # at least these new things come along (told by name, so only with PDBs)
    imports = ["Sleep"]             # exactly the names in the patch's own import table
    [expect.redirect.x64]           # exactly how, where it is not hpat although hpat was asked for
    parse = "inline"
    crowded = true                  # somebody has reserved all address space around before the patch goes in
    hooked = "parse"                # somebody else's jump stands at that entry before the patch goes in
    overwritten = "parse"           # somebody writes over that redirect: revert is refused until it is put back
    busy = "set_busy"               # after a call of it with 1 the patch's callbacks refuse (callback-veto), after one with 0 they agree
    then_rule = "import-unavailable"    # the later patch is refused by the engine, and everything stays as it was
    then = "other"                  # a later build: its patch (sequence 2) goes on top afterwards, and is reverted
    [expect.rules]                  # of a refusal for several reasons: all its rules, the first one first
    x64 = ["no-padding", "function-too-short"]
    [expect.no_pdb]                 # outcome and rule where no PDB is there; outcome "any" claims nothing

    [[call]]                        # in this order, in each phase, all on one process
    function = "parse"
    args = ["7", "str:text"]        # as the command line has them
    before = 5                      # phases: before → apply → patched → revert → reverted → apply again → again
    patched = 0
    reverted = 5                    # default: before
    again = 0                       # default: patched
    then = 1                        # with the later patch on top, where the case has one
    popped = 0                      # after that one's revert; default: patched
    buffers_before = ["00ff"]       # every hex: and buf: argument read back, in order; likewise buffers_patched, …_reverted, …_again

    [[program]]                     # a whole run of an exe
    title = "…"
    args = ["4"]                    # after the program's name
    stdin = "text"
    no_wine = "…"                   # why Wine, the second opinion on x64, does otherwise and is not asked
    before = {exit_code = 0, output = "…"}
    patched = {exit_code = 0, output = "…"}     # the patch goes in before the first instruction
    [program.anywhere]              # the patch goes in at any instruction
    exit_codes = [0]
    lines = "either"                # each output line as before or as patched in the same place; or
    patterns = ["calls 100", "wrong \\d+"]      # regular expressions, one a line, each for a whole line
    called_off = true               # the story calls the change off while threads change over
    [program.consistent]            # the same with another consistency than immediate; default: as anywhere

Where the patch is refused, or nothing is to do, ``patched`` and ``again`` say what the untouched process goes on to give.

    [[hosted]]                      # a whole run of host.exe, which loads the DLL while it runs; keys as of [[program]]
    args = []                       # behind the file name of the DLL, which is host.exe's first argument
    patched = {exit_code = 0, output = "…"}     # the patch is registered before the first instruction

    [demo]                          # of an exe: the story that `hotpatch demo` tells
    args = ["3"]
    stdin = "text"
    bug = ["SECRET"]                # an output line with one of these texts shows a bug
    repaired = ["ERR too long"]     # and one with one of these that it is repaired
    kept = ["requests 16, "]        # each of these texts is written while the patch is in or later, and shows state from before it
    answers = '#(\d+) '             # an output line that begins so answers the line of stdin that has this number, from 1
    hostile = ["ECHO 52 "]          # a line of stdin that begins so is an attack
    apply_after = "#8 "             # the patch goes in once a line that begins so has been written
    revert_after = "#16 "           # and is taken back after this one

Results: an integer is the integer result register, unsigned 64 bits (negative numbers stand for their two's complement); a float is
the floating-point result register.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import msgspec

from hotpatch.arch import Machine, Redirect
from hotpatch.differ.model import Verdict
from hotpatch.errors import InputError, InputRule, Rule
from hotpatch.image import read_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Side = Literal["base", "fixed", "other"]
HOST: Literal["host"] = "host"
"""The C file of a program that loads the case's DLL."""
Phase = Literal["before", "patched", "reverted", "again", "then", "popped"]
Outcome = Literal["patched", "nothing", "refused", "apply-refused"]

SIDES: tuple[Side, ...] = ("base", "fixed", "other")
PHASES: tuple[Phase, ...] = ("before", "patched", "reverted", "again")
"""Of every case, in order."""
LATER_PHASES: tuple[Phase, ...] = ("then", "popped")
"""After those, of a case with a later patch."""
MANIFEST = "case.toml"
REFUSED_SUFFIX = "-refused"
UNTOUCHED = (Verdict.IDENTICAL, Verdict.RELOCATED)
"""What functions that a case does not name must be."""
_WORD = 1 << 64


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the manifest: immutable, and a key that is not known is an error."""


class BuildFlags(_Table, frozen=True):
    """Options of one ``[build.…]`` table; ``None`` leaves what stands."""

    hotpatch: bool | None = None
    functionpadmin: bool | None = None
    entry: str | None = None
    kernel32: bool | None = None
    ntdll: bool | None = None
    ucrtbase: bool | None = None
    common: tuple[str, ...] = ()
    cflags: tuple[str, ...] = ()
    ldflags: tuple[str, ...] = ()


class BuildOptions(_Table, frozen=True):
    """How one image is built, all tables merged."""

    hotpatch: bool = True
    functionpadmin: bool = True
    entry: str = ""
    kernel32: bool = False
    ntdll: bool = False
    ucrtbase: bool = False
    common: tuple[str, ...] = ()
    cflags: tuple[str, ...] = ()
    ldflags: tuple[str, ...] = ()

    def with_flags(self, flags: BuildFlags) -> BuildOptions:
        """These options with ``flags`` on top: single values override, lists add."""
        return BuildOptions(
            hotpatch=self.hotpatch if flags.hotpatch is None else flags.hotpatch,
            functionpadmin=self.functionpadmin if flags.functionpadmin is None else flags.functionpadmin,
            entry=self.entry if flags.entry is None else flags.entry,
            kernel32=self.kernel32 if flags.kernel32 is None else flags.kernel32,
            ntdll=self.ntdll if flags.ntdll is None else flags.ntdll,
            ucrtbase=self.ucrtbase if flags.ucrtbase is None else flags.ucrtbase,
            common=self.common + flags.common,
            cflags=self.cflags + flags.cflags,
            ldflags=self.ldflags + flags.ldflags,
        )


class Verdicts(_Table, frozen=True):
    """Expected verdicts by function name."""

    all: dict[str, Verdict] = {}
    x64: dict[str, Verdict] = {}
    arm64: dict[str, Verdict] = {}
    without_pdb: dict[str, Verdict] = {}


class Redirects(_Table, frozen=True):
    """Expected redirect strategies by function name."""

    x64: dict[str, Redirect] = {}
    arm64: dict[str, Redirect] = {}


class Rules(_Table, frozen=True):
    """Every rule of a refusal, by machine; empty where the case names only the first."""

    x64: tuple[Rule, ...] = ()
    arm64: tuple[Rule, ...] = ()


class NoPdb(_Table, frozen=True):
    """What is expected instead where no PDB is there."""

    outcome: Outcome | Literal["any"]
    rule: Rule | None = None


class Expectation(_Table, frozen=True):
    """What building and applying must lead to."""

    outcome: Outcome
    rule: Rule | None = None
    apply_to: Side = "base"
    travels: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    redirect: Redirects = Redirects()
    rules: Rules = Rules()
    crowded: bool = False
    hooked: str | None = None
    overwritten: str | None = None
    busy: str | None = None
    then: Side | None = None
    then_rule: Rule | None = None
    no_pdb: NoPdb | None = None


class Call(_Table, frozen=True):
    """One call, made in every phase on the same process."""

    function: str
    before: int | float
    patched: int | float
    args: tuple[str, ...] = ()
    reverted: int | float | None = None
    again: int | float | None = None
    then: int | float | None = None
    popped: int | float | None = None
    buffers_before: tuple[str, ...] | None = None
    buffers_patched: tuple[str, ...] | None = None
    buffers_reverted: tuple[str, ...] | None = None
    buffers_again: tuple[str, ...] | None = None

    def expected(self, phase: Phase) -> int | float | None:
        """The result in ``phase``: unsigned 64 bits, or a float where the floating-point register is meant; ``None``: not stated."""
        value = {
            "before": self.before,
            "patched": self.patched,
            "reverted": self.before if self.reverted is None else self.reverted,
            "again": self.patched if self.again is None else self.again,
            "then": self.then,
            "popped": self.patched if self.popped is None else self.popped,
        }[phase]
        return value % _WORD if isinstance(value, int) else value

    def expected_buffers(self, phase: Phase) -> tuple[bytes, ...] | None:
        """What the buffers hold after the call in ``phase``, or ``None`` where the case does not say."""
        texts = {
            "before": self.buffers_before,
            "patched": self.buffers_patched,
            "reverted": self.buffers_before if self.buffers_reverted is None else self.buffers_reverted,
            "again": self.buffers_patched if self.buffers_again is None else self.buffers_again,
        }.get(phase)
        return None if texts is None else tuple(map(bytes.fromhex, texts))


class Run(_Table, frozen=True):
    """How a run of a program ends."""

    exit_code: int
    output: str


class Anywhere(_Table, frozen=True):
    """What holds wherever the patch goes in."""

    exit_codes: tuple[int, ...] = (0,)
    lines: Literal["either"] | None = None
    patterns: tuple[str, ...] = ()


class Program(_Table, frozen=True):
    """A run of a whole program."""

    title: str
    before: Run
    patched: Run
    args: tuple[str, ...] = ()
    stdin: str = ""
    no_wine: str = ""
    anywhere: Anywhere = Anywhere()
    consistent: Anywhere | None = None
    called_off: bool = False

    def problem_anywhere(self, exit_code: int | None, output: str, *, consistent: bool = False) -> str | None:
        """What is wrong with a run during which the patch went in at some instruction, or ``None``; ``consistent``: not ``immediate``."""
        holds = self.consistent if consistent and self.consistent is not None else self.anywhere
        if exit_code not in holds.exit_codes:
            return f"exit code {exit_code}, expected one of {list(holds.exit_codes)}"
        lines = output.splitlines()
        wanted = self._allowed_lines(holds)
        if wanted is not None and len(lines) != len(wanted):
            return f"{len(lines)} output lines, expected {len(wanted)}"
        for number, (line, allowed) in enumerate(zip(lines, wanted or (), strict=True), 1):
            if not any(pattern.fullmatch(line) for pattern in allowed):
                return f"output line {number} is {line!r}, expected one of {[pattern.pattern for pattern in allowed]}"
        return None

    def _allowed_lines(self, holds: Anywhere) -> list[tuple[re.Pattern[str], ...]] | None:
        if holds.lines == "either":
            pairs = zip(self.before.output.splitlines(), self.patched.output.splitlines(), strict=True)
            return [(re.compile(re.escape(old)), re.compile(re.escape(new))) for old, new in pairs]
        if holds.patterns:
            return [(re.compile(pattern),) for pattern in holds.patterns]
        return None


class Demo(_Table, frozen=True):
    """How a program's story is told: one run, during which the patch goes in and is taken back."""

    stdin: str
    bug: tuple[str, ...]
    repaired: tuple[str, ...]
    apply_after: str
    revert_after: str
    args: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    answers: str | None = None
    hostile: tuple[str, ...] = ()

    def answered(self, line: str) -> str | None:
        """The line of standard input that a line of output answers; ``None`` where it answers none."""
        number = None if self.answers is None else re.match(self.answers, line)
        return None if number is None else dict(enumerate(self.stdin.splitlines(), 1)).get(int(number[1]))


class Manifest(_Table, frozen=True):
    """The whole of ``case.toml``."""

    title: str
    shows: str
    origin: str
    kind: Literal["dll", "exe"]
    expect: Expectation
    build: dict[str, BuildFlags] = {}
    verdicts: Verdicts = Verdicts()
    call: tuple[Call, ...] = ()
    program: tuple[Program, ...] = ()
    hosted: tuple[Program, ...] = ()
    demo: Demo | None = None


@dataclass(frozen=True)
class Case:
    """A case: its manifest, and where its files are.

    Attributes:
        folder: Where its files are; its name is the case's.
        manifest: What must happen.
    """

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def kind(self) -> str:
        """``dll`` or ``exe``: the images' extension."""
        return self.manifest.kind

    @property
    def is_refused(self) -> bool:
        """Whether the name says that it must be refused."""
        return self.name.endswith(REFUSED_SUFFIX)

    @cached_property
    def sides(self) -> tuple[Side, ...]:
        """Which images it has, base first."""
        return tuple(side for side in SIDES if (self.folder / f"{side}.c").is_file())

    def image(self, machine: Machine, side: Side = "base") -> Path:
        """Path of an image."""
        return self.folder / machine / f"{side}.{self.kind}"

    @property
    def has_host(self) -> bool:
        """Whether there is a program that loads the DLL while it runs."""
        return (self.folder / f"{HOST}.c").is_file()

    def host(self, machine: Machine) -> Path:
        """Path of that program."""
        return self.folder / machine / f"{HOST}.exe"

    def pdb(self, machine: Machine, side: Side = "base") -> Path:
        """Path of an image's PDB."""
        return self.folder / machine / f"{side}.pdb"

    def build_options(self, machine: Machine, side: Side | Literal["host"]) -> BuildOptions:
        """How the image of ``side`` for ``machine`` is built."""
        options = BuildOptions()
        for key in ("all", machine, side):
            options = options.with_flags(self.manifest.build.get(key, BuildFlags()))
        return options

    def verdicts(self, machine: Machine, *, pdb: bool = True) -> Mapping[str, Verdict]:
        """Expected verdicts; functions not named must be identical or relocated."""
        verdicts = self.manifest.verdicts
        by_machine = {Machine.X64: verdicts.x64, Machine.ARM64: verdicts.arm64}
        return verdicts.all | by_machine[machine] | ({} if pdb else verdicts.without_pdb)

    def expected(self, *, pdb: bool = True) -> tuple[Outcome | Literal["any"], Rule | None]:
        """Expected outcome, and the rule of a refusal."""
        expect = self.manifest.expect
        return (expect.outcome, expect.rule) if pdb or expect.no_pdb is None else (expect.no_pdb.outcome, expect.no_pdb.rule)

    def rules(self, machine: Machine, *, pdb: bool = True) -> tuple[Rule, ...]:
        """Rules by which the patch is refused: every one where the case tells them, else the first; none where nothing is claimed."""
        expect = self.manifest.expect
        if not pdb and expect.no_pdb is not None:
            return () if expect.no_pdb.rule is None else (expect.no_pdb.rule,)
        by_machine = {Machine.X64: expect.rules.x64, Machine.ARM64: expect.rules.arm64}
        return by_machine[machine] or (() if expect.rule is None else (expect.rule,))

    def redirects(self, machine: Machine) -> Mapping[str, Redirect]:
        """Redirects expected where they are not what was asked for."""
        redirect = self.manifest.expect.redirect
        return {Machine.X64: redirect.x64, Machine.ARM64: redirect.arm64}[machine]


def read_case(folder: Path) -> Case:
    """Read the manifest of a case's folder.

    Raises:
        InputError: There is no manifest, or it breaks the format; the message names the key.
    """
    path = folder / MANIFEST
    try:
        manifest = msgspec.toml.decode(read_file(path), type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"{error}; mend the manifest", InputRule.DOCUMENT) from error
    return Case(folder, manifest)
