"""The builds of the server: each month's attack works on every build before the month's, and on none from it on. On Wine too."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from hotpatch.arch import Machine
from hotpatch.errors import InputError, NotHotpatchable, Rule
from hotpatch.servicing.calendar import Calendar
from hotpatch.servicing.releases import Catalogue, read_releases
from hotpatch.servicing.server import Server
from hotpatch.servicing.values import Month
from tests.servicing.conftest import FOLDER
from tests.wine import in_wine
from tools import build_fixtures

RELEASES = read_releases(FOLDER / "releases.toml")
MONTHS = [release.month for release in RELEASES.release]
HOTPATCH_MONTHS = [month for month in MONTHS if month.number % 3 != 1 and month.year == 2026]


def test_there_is_a_release_for_every_month_of_the_year() -> None:
    assert [str(month) for month in MONTHS] == ["2025-12", *(f"2026-{number:02}" for number in range(1, 13))]


def test_every_file_is_known() -> None:
    sides = [*map(str, MONTHS), "2026-03-layout"]
    server = {"memod.h", *(f"{side}.c" for side in sides)}
    server |= {f"{machine}/{side}.{kind}" for machine in Machine for side in sides for kind in ("exe", "pdb")}
    found = {path.relative_to(FOLDER / "server").as_posix() for path in (FOLDER / "server").rglob("*") if path.is_file()}
    assert found == server
    rest = {path.relative_to(FOLDER).parts[0] for path in FOLDER.rglob("*") if path.is_file()}
    assert rest == {"releases.toml", "server", "devices", "policies", "scenarios"}
    assert {path.suffix for folder in ("devices", "policies", "scenarios") for path in (FOLDER / folder).rglob("*") if path.is_file()} == {
        ".toml"
    }


@pytest.mark.parametrize("month", MONTHS, ids=str)
def test_an_update_withstands_the_attacks_up_to_its_month_and_no_other(month: Month, machine: Machine, catalogue: Catalogue) -> None:
    for release in RELEASES.release[1:]:
        server = Server(catalogue.update(machine, month), seed=1, workers=RELEASES.workers)
        worked = any(release.succeeds in exchange.reply for exchange in server.ask(release.attack))
        assert worked == (release.month > month), release.month
        assert server.stop() == 0


@pytest.mark.parametrize("month", HOTPATCH_MONTHS, ids=str)
def test_a_hotpatch_holds_all_since_its_baseline(month: Month, machine: Machine, catalogue: Catalogue) -> None:
    row = Calendar().row(month)
    patch = catalogue.hotpatch(machine, row.baseline, month)
    assert patch.sequence == row.sequence
    assert len(patch.functions) == row.sequence, "one mistake a month, one function each"
    server = Server(catalogue.update(machine, row.baseline), seed=1, workers=RELEASES.workers)
    server.hotpatch(patch)
    for release in RELEASES.release[1:]:
        worked = any(release.succeeds in exchange.reply for exchange in server.ask(release.attack))
        assert worked == (release.month > month), release.month


def test_the_builder_refuses_the_fix_that_changes_a_layout(machine: Machine) -> None:
    catalogue = Catalogue(FOLDER, RELEASES, {Month(2026, 3): "2026-03-layout"})
    with pytest.raises(NotHotpatchable) as caught:
        catalogue.hotpatch(machine, Month(2026, 1), Month(2026, 3))
    assert Rule.DATA_LAYOUT in [refusal.rule for refusal in caught.value.refusals]
    server = Server(catalogue.update(machine, Month(2026, 3)), seed=1, workers=RELEASES.workers)
    assert not any("SECRET" in exchange.reply for exchange in server.ask(catalogue.release(Month(2026, 3)).attack))


def test_a_month_without_a_release(catalogue: Catalogue) -> None:
    with pytest.raises(InputError, match="2027-01: no release of memod is there for this month; there are 2025-12 to 2026-12"):
        catalogue.update(Machine.X64, Month(2027, 1))


@pytest.mark.wine
@pytest.mark.parametrize("month", ["2025-12", "2026-12"])
def test_wine_answers_as_the_emulator_does(month: str, catalogue: Catalogue, wine_prefix: Path) -> None:
    requests = [*RELEASES.comparison, *(line for release in RELEASES.release for line in release.attack)]
    server = Server(catalogue.update(Machine.X64, Month.parse(month)), seed=1, workers=2)
    server.ask(requests)
    server.stop()
    stdin = "".join(f"{line}\n" for line in requests).encode()
    code, output = in_wine(FOLDER / "server" / "x64" / f"{month}.exe", ("2",), stdin, wine_prefix)
    assert output.replace("\r\n", "\n") == server.process.output
    assert code == 0


@pytest.mark.compiler
@pytest.mark.skipif(find_spec("ziglang") is None, reason="needs the compiler: pip install -e '.[fixtures]'")
def test_the_committed_bytes_come_out_again(tmp_path: Path) -> None:
    differing = []
    for job in build_fixtures.jobs_of(build_fixtures.Server()):
        build_fixtures.build(job, build_fixtures.FIXTURES, tmp_path / "out", tmp_path)
        differing += [path for path in job.outputs if not build_fixtures.same(tmp_path / "out" / path, build_fixtures.FIXTURES / path)]
    assert not differing, "rebuild with: python tools/build_fixtures.py --only servicing/server"
