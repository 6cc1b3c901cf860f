"""Print one table of what things cost, each line as a ratio measured in this run.

Run: python tools/bench.py [--from DIR] [--markdown] [--most]

A line's ratio is the measured value over what it is held against: another value of the same run where the design's aim is relative, the aim
itself where that is absolute. Repeated measurements are interleaved, and the best of each counts, because the machines are shared.
``--from`` takes the wheels of the pairs from a folder instead of the package index. The lines of patches with many functions need the extra
``fixtures``; ``--most`` adds those of a patch that replaces 10,000, and of comparisons of 100,000 functions and of a large program.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import hotpatch  # noqa: E402
from hotpatch.address import Va  # noqa: E402
from hotpatch.arch import Machine, Redirect  # noqa: E402
from hotpatch.cases import fixtures_folder  # noqa: E402
from hotpatch.cases.releases import CVE_2025_69277, PILLOW, extract  # noqa: E402
from hotpatch.cases.story_release import BASE_POINT, IS_VALID_POINT  # noqa: E402
from hotpatch.errors import counted  # noqa: E402
from hotpatch.image import open_image  # noqa: E402
from hotpatch.servicing.scenario import read_scenario  # noqa: E402
from hotpatch.servicing.simulate import simulate  # noqa: E402
from tools.bench_diff import LARGE, diff_rows, growth_rows, large_row, whole_rows  # noqa: E402
from tools.bench_rows import REPEATS, Row, best  # noqa: E402
from tools.bench_threads import CALL_LIMIT, Held, basic, consistency_rows  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpatch.image import Image
    from hotpatch.patch import Patch
    from hotpatch.verifier import MicroReport

MANY = 100
MOST = 10_000
"""Functions of the largest patch that is measured."""
FRESH = 150
"""Processes in which a patch of one function is applied."""
GROWTH = (100, 1000, 10_000)
"""Functions of the synthetic pairs that are compared."""
STEADY = {"MALLOC_TRIM_THRESHOLD_": str(1 << 31), "MALLOC_TOP_PAD_": str(1 << 26)}
"""Bytes below which the allocator gives nothing back, and bytes that it asks for beyond what it needs."""


def redirect_rows(machine: Machine) -> Iterator[Row]:
    """Instructions between a call and the new function's first, by strategy."""
    base, patches = basic(machine)
    aims = {Redirect.HPAT: 3, Redirect.DIRECT: 2 if machine is Machine.X64 else 1, Redirect.INLINE: 1}
    for strategy, patch in patches.items():
        if strategy is Redirect.INLINE and machine is Machine.ARM64:
            continue
        process = hotpatch.Process(base)
        function = process.apply(patch).functions[0]
        process.spawn("clamp", 1)
        while not process.finished and process.instructions < CALL_LIMIT:
            process.run(1)
            if process.position is not None and process.position[1] == function.destination:
                break
        else:
            raise SystemExit(f"the call never reached the new function with {strategy}")
        count = process.instructions
        yield Row(
            f"instructions per redirected call, {strategy}",
            machine,
            str(count),
            f"{aims[strategy]} by design",
            count / aims[strategy],
            "= 1",
        )


def speed_rows(machine: Machine, paths: tuple[Path, Path]) -> Iterator[Row]:
    """How fast code is emulated before and after a patch, each while no other process lives: beside another the second is far slower."""
    base = open_image(paths[0])
    patch = hotpatch.build(hotpatch.diff(base, open_image(paths[1])))
    rates = [0.0, 0.0]
    for _ in range(5):
        for index in range(2):
            process = hotpatch.Process(base)
            if index:
                process.apply(patch)
            (seconds,) = best(partial(process.call, IS_VALID_POINT, BASE_POINT), repeats=3)
            if process.last is not None:
                rates[index] = max(rates[index], process.last.instructions / seconds)
            del process
            gc.collect()
    yield Row(
        "emulated instructions per second after a patch",
        machine,
        f"{rates[1] / 1e6:.1f} M/s",
        f"before, {rates[0] / 1e6:.1f} M/s",
        rates[1] / rates[0],
        "≥ 0.98",
    )
    size = sum(function.size for function in patch.functions)
    yield Row(
        "patch file, the PyNaCl fix", machine, f"{len(patch.data)} bytes", f"new functions, {size} bytes", len(patch.data) / size, "–"
    )


def micro_rows(machine: Machine, paths: tuple[Path, Path]) -> Iterator[Row]:
    """How long ``verify`` without calls takes for each function and made-up state, of the PyNaCl fix."""
    base, fixed = open_image(paths[0]), open_image(paths[1])
    patch = hotpatch.build(hotpatch.diff(base, fixed))
    reports: list[MicroReport] = []
    (took,) = best(lambda: reports.__setitem__(slice(None), hotpatch.verify(base, patch, fixed=fixed).functions), repeats=2)
    runs = sum(report.seeds for report in reports)
    what = "verify without calls, per function and state"
    against = f"10 ms ({counted(len(reports), 'function')}, {runs} states)"
    yield Row(what, machine, f"{took / runs * 1e3:.1f} ms", against, took / runs / 10e-3, "–")


def apply_rows(machine: Machine, base: Image, patch: Patch, what: str, aim: float = 300) -> Iterator[Row]:
    """Processor time of applying and reverting, and instructions for which a thread is held.

    *First time* is a process's, and its mappings are made. The best counts, of processes one after the other in this interpreter: what does
    not depend on the process (a patch read, its digest, the decoded entry of a short function) is there from the one before.
    """
    count = len(patch.functions)
    firsts: list[float] = []
    agains: list[float] = []
    backs: list[float] = []
    held = 0
    for process in [hotpatch.Process(base) for _ in range(max(REPEATS, FRESH // count))]:
        watch = Held(process)
        for times in (firsts, agains):
            start = time.process_time()
            applied = process.apply(patch)
            middle = time.process_time()
            applied.revert()
            end = time.process_time()
            times.append((middle - start) / count)
            backs.append((end - middle) / count)
        watch.stop()
        held = max(held, watch.held + watch.between)
    first, again, back = min(firsts), min(agains), min(backs)
    for name, seconds in ((f"apply {what}, first time", first), (f"apply {what}, again", again), (f"revert {what}", back)):
        yield Row(f"{name}, per function", machine, f"{seconds * 1e6:.0f} µs", f"{aim:g} µs", seconds / aim * 1e6, "≤ 1")
    yield Row(f"instructions for which a thread is held, {what}", machine, str(held), "1 instruction", float(held), "= 0")


_COLD = """
import sys, time
import hotpatch
process, patch = hotpatch.Process(hotpatch.open(sys.argv[1])), hotpatch.load(sys.argv[2])
start = time.process_time()
process.apply(patch)
print(time.process_time() - start)
"""


def cold_row(machine: Machine, base: Image, patch: Patch, folder: Path) -> Row:
    """The first application of a new interpreter, in which all that is imported or made once still has to be."""
    file = folder / f"cold-{machine}.dll"
    patch.save(file)
    command = [sys.executable, "-c", _COLD, base.path, str(file)]
    took = min(float(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout) for _ in range(REPEATS))
    return Row("apply 1 function, first of an interpreter", machine, f"{took * 1e6:.0f} µs", "300 µs", took / 300e-6, "–")


def write_rows(machine: Machine) -> Iterator[Row]:
    """The cost of one ``write_code``."""
    base, _ = basic(machine)
    guest = hotpatch.Process(base).guest
    va = Va(guest.module.va + base.function_named("clamp").entry)
    old = guest.read(va, 4)
    new = bytes(reversed(old))

    def job() -> None:
        for _ in range(500):
            guest.write_code(va, old, new)
            guest.write_code(va, new, old)

    took = float("inf")
    for _ in range(REPEATS):
        start = time.process_time()
        job()
        took = min(took, time.process_time() - start)
    yield Row("write_code", machine, f"{took / 1000 * 1e6:.1f} µs", "20 µs", took / 1000 / 20e-6, "≤ 1")


def many(machine: Machine, folder: Path, count: int) -> tuple[Image, Patch, float] | None:
    """A DLL with many functions, all of which change, its patch, and how long that took to build; ``None`` without the compiler."""
    if find_spec("ziglang") is None:
        return None
    target = {Machine.X64: "x86_64", Machine.ARM64: "aarch64"}[machine] + "-windows-msvc"
    for side, factor in (("base", 3), ("fixed", 5)):
        lines = [f"__declspec(dllexport) int f{n}(int a, int b) {{ return a * {n + 2} + b * {factor}; }}" for n in range(count)]
        source = folder / f"{side}.c"
        source.write_text("\n".join(lines), encoding="ascii")
        zig = [sys.executable, "-m", "ziglang"]
        compile_ = ["cc", "-target", target, "-O2", "-ffreestanding", "-fms-hotpatch", "-c", source.name, "-o", f"{side}.obj"]
        link = ["lld-link", "/dll", "/nodefaultlib", "/noentry", "/Brepro", f"/out:{side}.dll", f"{side}.obj"]
        if machine is Machine.X64:
            link.insert(1, "/functionpadmin")
        for command in (compile_, link):
            subprocess.run([*zig, *command], cwd=folder, check=True, capture_output=True)
    base = open_image(folder / "base.dll")
    found = hotpatch.diff(base, open_image(folder / "fixed.dll"))
    start = time.process_time()
    patch = hotpatch.build(found)
    return base, patch, time.process_time() - start


def servicing_rows() -> Iterator[Row]:
    """A device's month in a simulation: builds opened, hotpatches built, a month of requests, and the comparison with an updated server."""
    folder = fixtures_folder() / "servicing"
    for name, repeats in (("january-to-april", 3), ("year", 1)):
        lives: list[int] = []

        def job(name: str = name, lives: list[int] = lives) -> None:
            lives[:] = [len(life.months) for life in simulate(read_scenario(name, folder)).lives]

        (took,) = best(job, repeats=repeats)
        months = sum(lives)
        yield Row(f"a device-month of the scenario {name}", "both", f"{took / months * 1e3:.0f} ms", "500 ms", took / months / 0.5, "≤ 1")


def start_row() -> Row:
    """Start-up of the command line."""
    (took,) = best(lambda: subprocess.run([sys.executable, "-m", "hotpatch", "--help"], check=True, capture_output=True))
    return Row("start-up of hotpatch --help", "–", f"{took:.2f} s", "0.3 s", took / 0.3, "≤ 1")


def demo_row() -> Row:
    """The main demo as a user starts it, both machines, to its end."""
    (took,) = best(lambda: subprocess.run([sys.executable, "-m", "hotpatch", "demo"], check=True, capture_output=True))
    return Row("hotpatch demo, whole command", "–", f"{took:.1f} s", "15 s", took / 15, "≤ 1")


def rows(wheels: Path | None, counts: tuple[tuple[int, float], ...]) -> Iterator[Row]:
    """Everything, in the table's order; ``counts`` of functions that one patch replaces, with the aim in µs for each function."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for machine in Machine:
            paths = extract(CVE_2025_69277, machine, cache=folder / machine, wheels=wheels)
            yield from diff_rows(machine, paths)
            yield from whole_rows(machine, extract(PILLOW, machine, cache=folder / machine, wheels=wheels))
            if len(counts) > 1 and machine in LARGE.base:
                yield large_row(machine, extract(LARGE, machine, cache=folder / machine, wheels=wheels))
            yield from growth_rows(machine, folder, GROWTH if len(counts) == 1 else (*GROWTH, GROWTH[-1] * 10))
            yield from redirect_rows(machine)
            yield from consistency_rows(machine)
            yield from speed_rows(machine, paths)
            yield from micro_rows(machine, paths)
            base, patches = basic(machine)
            yield from apply_rows(machine, base, patches[Redirect.HPAT], "1 function")
            yield cold_row(machine, base, patches[Redirect.HPAT], folder)
            for count, aim in counts:
                place = folder / f"{count}-{machine}"
                place.mkdir()
                made = many(machine, place, count)
                if made:
                    base, patch, took = made
                    each = f"{took / count * 1e6:.0f} µs"
                    yield Row(f"build of {count} functions, per function", machine, each, "1 ms", took / count / 1e-3, "–")
                    yield from apply_rows(machine, base, patch, f"{count} functions", aim)
            yield from write_rows(machine)
        yield from servicing_rows()
        yield start_row()
        yield demo_row()


def describe() -> str:
    """The machine, in one line."""
    cores = os.cpu_count()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("capstone", "unicorn", "lief"))
    return f"{platform.system()} {platform.machine()}, {cores} cores (shared), CPython {platform.python_version()}, {libraries}"


def steady() -> None:
    """Begin anew with an allocator (glibc's) that keeps what the system gave it; nothing happens where it does already.

    Otherwise a pass over code takes a third longer or not, by how close what it needs comes to the end of the heap.
    """
    if not STEADY.keys() <= os.environ.keys():
        os.execve(sys.executable, sys.orig_argv, os.environ | STEADY)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What things cost, as ratios within one run.")
    parser.add_argument("--from", dest="wheels", type=Path, help="folder with the wheels of the PyNaCl pair")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument(
        "--most",
        action="store_true",
        help=f"measure a patch of {MOST} functions too, and comparisons of 100,000 and of a large program",
    )
    chosen = parser.parse_args()
    steady()
    print(describe())
    head = ("what", "machine", "measured", "against", "ratio", "aim")
    if chosen.markdown:
        print("\n| " + " | ".join(head) + " |\n|---|---|---|---|---|---|")
    for row in rows(chosen.wheels, ((MANY, 300), (MOST, 50)) if chosen.most else ((MANY, 300),)):
        cells = (row.what, row.machine, row.measured, row.against, f"{row.ratio:.2f}", row.aim)
        plain = f"{cells[0]:<55} {cells[1]:<6} {cells[2]:>12} {cells[3]:<31} {cells[4]:>6}  {cells[5]}"
        print("| " + " | ".join(cells) + " |" if chosen.markdown else plain)


if __name__ == "__main__":
    main()
