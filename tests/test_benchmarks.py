"""The benchmarks work, and no time is printed beside a wrong answer. How fast anything is, is not a test."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from .checkout import ROOT


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks.measure, from the checkout, which is not on the path of the tests."""
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.measure")


def test_contenders_alternate_and_the_first_round_does_not_count(measure: ModuleType) -> None:
    """All meet the same moods of the machine."""
    played: list[str] = []

    def play(name: str) -> int:
        played.append(name)
        return 7

    contenders = [measure.Contender(name, partial(play, name)) for name in ("ours", "theirs")]
    seconds = measure.alternate(contenders, 2, 7)
    assert played == ["ours", "theirs"] * 3
    assert {name: len(series.samples) for name, series in seconds.items()} == {"ours": 2, "theirs": 2}


def test_a_wrong_answer_ends_the_run(measure: ModuleType) -> None:
    """Named, with what was expected; the others' times are worth nothing then."""
    wrong = measure.Contender("theirs", lambda: [1, 2])
    with pytest.raises(measure.WrongAnswerError, match=r"theirs: expected \[1\] \(1 items\), saw \[1, 2\]"):
        measure.alternate([wrong], 1, [1])


def test_percentiles_are_samples(measure: ModuleType) -> None:
    """Nearest rank: no number that nobody measured."""
    assert (measure.percentile([3.0, 1.0, 2.0], 0.5), measure.percentile([3.0, 1.0, 2.0], 0.99)) == (2.0, 3.0)


def test_benchmark_of_tasks_runs_and_says_all_it_measured(tmp_path: Path) -> None:
    """Quick, but the whole way: ours and Pool, latencies, wake-ups, idling; table and JSON."""
    file = tmp_path / "tasks.json"
    command = [sys.executable, "-m", "benchmarks", "tasks", "--quick", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(file.read_text())
    assert said["machine"]["cores"] > 0
    who = {(row["what"], row["who"]) for row in said["rows"]}
    for pool in ("nahanni", "Pool, chunksize=1", "Pool, its own chunks"):
        assert ("map of 100 000 no-ops", pool) in who
    assert {"submit to result, p50", "submit to result, p99", "wake-ups by a bell, in that run", "idle for 3 s"} <= {
        what for what, _ in who
    }
    for row in said["rows"]:
        assert row["min"] <= row["median"] <= row["max"]
        assert row["who"] in done.stdout
