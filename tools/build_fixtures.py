"""Build ``fixtures/<case>/<machine>/<side>.{dll,exe,pdb}`` from the C sources beside them, byte for byte the same anywhere.

The compiler, linker and import librarian are those of the pinned ``ziglang`` package (extra ``fixtures``). Nothing of the machine,
the folder or the clock reaches the outputs: sources are copied into a fresh folder, compiled there by relative name with prefix maps, and
linked with ``/Brepro``.

    python tools/build_fixtures.py [--only CASE …] [--check]

Beside the cases it builds the server that the devices of ``hotpatch servicing`` run: one image a C file of ``fixtures/servicing/server``.

``--check`` builds into a temporary folder and compares with what is committed; it changes nothing and exits 1 where bytes differ.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hotpatch.arch import Machine  # noqa: E402
from hotpatch.cases import HOST, BuildOptions, load_cases  # noqa: E402  the checkout's own package, whatever is installed

FIXTURES = ROOT / "fixtures"
COMMON = "common"
COMPILER = "ziglang==0.17.1"
TARGETS = {Machine.X64: "x86_64-windows-msvc", Machine.ARM64: "aarch64-windows-msvc"}
LIBRARY_MACHINES = {Machine.X64: "i386:x86-64", Machine.ARM64: "arm64"}
COMPILE = (
    "-std=gnu11",
    "-O2",
    "-fomit-frame-pointer",
    "-g",
    "-gcodeview",
    "-ffreestanding",
    "-ffunction-sections",
    "-fno-vectorize",
    "-fno-slp-vectorize",
    "-fno-unroll-loops",
    "-Wall",
    "-Wextra",
    "-Werror",
)
"""Loops stay as written, so that listings fit a slide. Each function is a section of its own, because the linker's
``/functionpadmin`` pads sections, not functions."""
REPRODUCIBLE_COMPILE = ("-gno-codeview-command-line", "-ffile-compilation-dir=.")
SUPPORT = "hotpatch.def"
"""What a case imports from whoever patches: originals and shadow data."""
LINK = ("/nodefaultlib", "/debug", "/Brepro", "/release", "/incremental:no", "/opt:ref,noicf", "/pdbsourcepath:c:\\f", "/nologo")


class Product(Protocol):
    """A folder of C files that each become an image: a case, or the devices' server."""

    @property
    def name(self) -> str:
        """Its folder below ``fixtures``; the last part is the file name that its images are linked under."""

    @property
    def kind(self) -> str:
        """``dll`` or ``exe``."""

    @property
    def sides(self) -> Sequence[str]:
        """Names of its C files."""

    def build_options(self, machine: Machine, side: Any) -> BuildOptions:  # noqa: ANN401  a case's sides are a closed set, a server's are not
        """How one image is built."""


@dataclass(frozen=True, slots=True)
class Server:
    """The devices' server: a build for each month."""

    name: str = "servicing/server"
    kind: str = "exe"

    @property
    def sides(self) -> Sequence[str]:
        """The months, in order."""
        return sorted(path.stem for path in (FIXTURES / self.name).glob("*.c"))

    def build_options(self, machine: Machine, side: str) -> BuildOptions:
        """All alike."""
        return BuildOptions(kernel32=True)


@dataclass(frozen=True, slots=True)
class Job:
    """One image to build."""

    case: Product
    machine: Machine
    side: str

    @property
    def outputs(self) -> tuple[Path, Path]:
        """The image and its PDB, relative to the fixtures' folder."""
        folder = Path(self.case.name) / self.machine
        return folder / f"{self.side}.{self.kind}", folder / f"{self.side}.pdb"

    @property
    def kind(self) -> str:
        """``dll`` or ``exe``."""
        return "exe" if self.side == HOST else self.case.kind

    @property
    def file_name(self) -> str:
        """That it is linked under: both builds of a product name themselves alike."""
        return f"{HOST if self.side == HOST else Path(self.case.name).name}.{self.kind}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build or check; returns the exit code."""
    options = _parse(arguments)
    jobs = [job for case in products() if not options.only or case.name in options.only for job in jobs_of(case)]
    with tempfile.TemporaryDirectory() as work:
        target = Path(work) / "out" if options.check else FIXTURES
        with ThreadPoolExecutor(options.jobs) as pool:
            for done in pool.map(lambda job: build(job, FIXTURES, target, Path(work)), jobs):
                sys.stderr.write(f"{done.case.name} {done.machine} {done.side}\n")
        differing = [path for job in jobs for path in job.outputs if options.check and not same(target / path, FIXTURES / path)]
    for path in differing:
        sys.stderr.write(f"differs from the committed file: fixtures/{path}; rebuild with: python tools/build_fixtures.py\n")
    return 1 if differing else 0


def products() -> list[Product]:
    """Everything that is built: the cases, and the devices' server where it is there."""
    server = Server()
    return [*load_cases(FIXTURES), *([server] if server.sides else [])]


def jobs_of(case: Product) -> Iterable[Job]:
    """Every image of a product: each C file in its folder, for each machine."""
    sides = [*case.sides, *([HOST] if (FIXTURES / case.name / f"{HOST}.c").is_file() else [])]
    return [Job(case, machine, side) for machine in Machine for side in sides]


def build(job: Job, sources: Path, target: Path, scratch: Path) -> Job:
    """Compile and link one image into ``target``, working in a fresh folder below ``scratch``."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        return build_in(Path(folder), job, sources, target)


def build_in(here: Path, job: Job, sources: Path, target: Path) -> Job:
    """Compile and link one image into ``target``, working in the empty folder ``here``."""
    options = job.case.build_options(job.machine, job.side)
    shutil.copytree(sources / COMMON, here / COMMON)
    for source in (sources / job.case.name).glob("*.[ch]"):
        shutil.copy(source, here / source.name)
    support = sources / job.case.name / SUPPORT
    objects = [
        compile_source(here, job, options, f"{job.side}.c"),
        *(compile_source(here, job, options, f"{COMMON}/{extra}") for extra in options.common),
    ]
    if options.kernel32:
        objects.append(_import_library(here, job, "kernel32"))
    if support.is_file():
        shutil.copy(support, here / COMMON / SUPPORT)
        objects.append(_import_library(here, job, Path(SUPPORT).stem))
    if options.ntdll:
        objects.append(_import_library(here, job, "ntdll"))
    if options.ucrtbase:
        objects.append(_import_library(here, job, "ucrtbase"))
    _link(here, job, options, objects)
    for path in job.outputs:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        built = here / (job.file_name if path.suffix != ".pdb" else path.name)
        shutil.copyfile(built, target / path)
    return job


def same(one: Path, other: Path) -> bool:
    """Whether both files exist and hold the same bytes."""
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def compile_source(here: Path, job: Job, options: BuildOptions, source: str, form: Sequence[str] = ("-c",)) -> str:
    """Compile one file in ``here`` into the object (or another ``form``) whose name is returned."""
    output = Path(source).stem + ".obj"
    flags = [*COMPILE, *REPRODUCIBLE_COMPILE, f"-ffile-prefix-map={here}=.", "-Xclang", f"-object-file-name={output}"]
    if options.hotpatch:
        flags.append("-fms-hotpatch")
    _zig(here, "cc", "-target", TARGETS[job.machine], *flags, *options.cflags, *form, source, "-o", output)
    return output


def _import_library(here: Path, job: Job, name: str) -> str:
    _zig(here, "dlltool", "-m", LIBRARY_MACHINES[job.machine], "-d", f"{COMMON}/{name}.def", "-l", f"{name}.lib")
    return f"{name}.lib"


def _link(here: Path, job: Job, options: BuildOptions, objects: Sequence[str]) -> None:
    flags = [*LINK, f"/out:{job.file_name}", f"/pdb:{job.side}.pdb", f"/pdbaltpath:{job.side}.pdb"]
    if job.kind == "dll":
        flags += ["/dll", f"/entry:{options.entry}" if options.entry else "/noentry"]
    else:
        flags += ["/subsystem:console", f"/entry:{options.entry or 'start'}"]
    if options.functionpadmin and job.machine is Machine.X64:
        flags.append("/functionpadmin")
    _zig(here, "lld-link", *flags, *options.ldflags, *objects)


def _zig(here: Path, *command: str) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ZIG_", "SOURCE_DATE"))}
    environment |= {"ZIG_LOCAL_CACHE_DIR": str(here / "cache"), "ZIG_GLOBAL_CACHE_DIR": str(here / "cache"), "LC_ALL": "C"}
    done = subprocess.run([compiler(), *command], cwd=here, env=environment, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


@cache
def compiler() -> str:
    """The program that ``python -m ziglang`` becomes: an interpreter's start takes longer than it does to compile a case.

    Raises:
        SystemExit: The extra ``fixtures`` is not installed.
    """
    package = find_spec("ziglang")
    if package is None or package.origin is None:
        raise SystemExit("needs the compiler: pip install -e '.[fixtures]'")
    return str(Path(package.origin).with_name("zig"))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Build the fixtures with {COMPILER}.")
    parser.add_argument("--only", metavar="CASE", nargs="+", help="these cases only")
    parser.add_argument("--check", action="store_true", help="compare with the committed files instead of writing them")
    parser.add_argument("--jobs", type=int, default=2, help="images built at a time (default 2)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
