"""The benchmark's lines about comparing: one diff in this process, whole processes, and how time grows with the number of functions."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import capstone

import hotpatch
from hotpatch.arch import Machine
from hotpatch.cases import find_case
from hotpatch.cases.releases import Package, Release
from hotpatch.image import SectionFlags, open_image
from tools.bench_rows import Row
from tools.synthetic import write_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hotpatch.image import Image

_DIFF_REPEATS = 10
_FEW = 1000
"""Functions up to which a comparison is measured more than once."""
_MIB = 1 << 20
_WHOLE_SECONDS = 20
"""Aim for a whole process that compares the pair of Pillow."""
LARGE = Release(
    "rust-just",
    "just 1.59.0: a program in Rust, where most functions changed",
    *(
        {
            Machine.X64: Package(
                "rust-just",
                version,
                f"rust_just-{version}-py3-none-win_amd64.whl",
                sha256,
                f"rust_just-{version}.data/scripts/just.exe",
            )
        }
        for version, sha256 in (
            ("1.58.0", "145cea724b6d981422ad5357ac6fec53be62b8146ac67a3921c89a0db152887d"),
            ("1.59.0", "75bde89d36bb0c7b35fb9cecefb303f154dc320d4b5b8c832c5ad0bf1904077b"),
        )
    ),
)
"""A larger pair than Pillow's, whose comparison takes a minute; there is none for Arm64."""
_MEMORY_FACTOR = 30
"""Aim for the bytes of memory for each byte of the two files, beyond what the imports take."""


def cpu(*jobs: Callable[[], object], repeats: int = _DIFF_REPEATS) -> list[float]:
    """Seconds of processor time of each job: the least of several interleaved runs."""
    times = [float("inf")] * len(jobs)
    for _ in range(repeats):
        for index, job in enumerate(jobs):
            gc.collect()
            start = time.process_time()
            job()
            times[index] = min(times[index], time.process_time() - start)
    return times


def linear_pass(images: tuple[Image, Image]) -> None:
    """One plain ``disasm_lite`` pass over the code of both images."""
    modes = {
        Machine.X64: (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
        Machine.ARM64: (capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN),
    }
    for image in images:
        engine: Any = capstone.Cs(*modes[image.machine])  # type: ignore[no-untyped-call]
        engine.skipdata = True
        for section in image.sections:
            if section.flags & SectionFlags.EXECUTE:
                for _ in engine.disasm_lite(image.read(section.rva, section.range.size), section.rva):
                    pass


def diff_rows(machine: Machine, paths: tuple[Path, Path]) -> Iterator[Row]:
    """Opening and comparing the PyNaCl pair."""
    images = (open_image(paths[0]), open_image(paths[1]))
    took, plain = cpu(lambda: hotpatch.diff(open_image(paths[0]), open_image(paths[1])), lambda: linear_pass(images))
    yield Row(
        "diff of the PyNaCl pair, opening included",
        machine,
        f"{took * 1e3:.0f} ms",
        f"one disasm_lite pass, {plain * 1e3:.0f} ms",
        took / plain,
        "≤ 1.0",
    )


@dataclass(frozen=True)
class _Usage:
    """Of a finished process: seconds on the clock and of processor time, peak memory in bytes."""

    clock: float
    processor: float
    memory: int


_WATCH = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]))
"""
"""Runs a command and prints exit code and usage: in a small process, because Linux counts a parent's memory as its child's."""


def _run(base: Path, fixed: Path) -> _Usage:
    command = [sys.executable, "-m", "hotpatch", "diff", str(base), str(fixed)]
    done = subprocess.run([sys.executable, "-c", _WATCH, *command], check=True, capture_output=True, text=True)
    code, *usage = json.loads(done.stdout)
    if code:
        raise SystemExit(f"hotpatch diff {base} {fixed} ended with {code}")
    return _Usage(*usage)


def whole_rows(machine: Machine, paths: tuple[Path, Path]) -> Iterator[Row]:
    """The command line's comparison of Pillow's pair: time, and memory beyond that of a comparison of next to nothing."""
    case = find_case("basic")
    idle = _run(case.image(machine), case.image(machine, "fixed"))
    whole = _run(*paths)
    what = "diff of Pillow's pair, whole process"
    for name, seconds in (("", whole.clock), (", processor time", whole.processor)):
        yield Row(f"{what}{name}", machine, f"{seconds:.1f} s", f"{_WHOLE_SECONDS} s", seconds / _WHOLE_SECONDS, "≤ 1")
    yield _memory_row(what, machine, whole.memory - idle.memory, paths)


def large_row(machine: Machine, paths: tuple[Path, Path]) -> Row:
    """The memory of the command line's comparison of :data:`LARGE`."""
    case = find_case("basic")
    idle = _run(case.image(machine), case.image(machine, "fixed"))
    return _memory_row("diff of just's pair, whole process", machine, _run(*paths).memory - idle.memory, paths)


def _memory_row(what: str, machine: Machine, more: int, paths: tuple[Path, Path]) -> Row:
    """Of bytes of memory beyond those of a comparison of next to nothing."""
    most = _MEMORY_FACTOR * sum(path.stat().st_size for path in paths)
    return Row(
        f"{what}, peak memory beyond the imports'",
        machine,
        f"{more / _MIB:.0f} MiB",
        f"{_MEMORY_FACTOR} × the files, {most / _MIB:.0f} MiB",
        more / most,
        "≤ 1",
    )


def growth_rows(machine: Machine, folder: Path, counts: tuple[int, ...]) -> Iterator[Row]:
    """Processor time for each function, as images grow; against the fewest functions."""
    against = 0.0
    for count in counts:
        paths = write_pair(machine, count, folder)

        def job(paths: tuple[Path, Path] = paths) -> None:
            hotpatch.diff(open_image(paths[0]), open_image(paths[1]))

        (took,) = cpu(job, repeats=3 if count <= _FEW else 1)
        each = took / count
        against = against or each
        what = f"diff of {count} synthetic functions, per function"
        yield Row(what, machine, f"{each * 1e6:.0f} µs", f"of {counts[0]}, {against * 1e6:.0f} µs", each / against, "linear: about 1")
