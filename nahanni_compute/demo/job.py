"""`nahanni demo`: the analysis on workers, beside one process and beside `multiprocessing.Pool`; then the answer, checked."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeVar

from nahanni_compute import Client
from nahanni_compute.demo.delays import LATE_MIN, Delays, agrees_with_table, delays
from nahanni_compute.demo.flights import Table, find_flights, read_flights, split_by_keys
from nahanni_compute.machine import this_machine

ROUNDS: Final = 3  # alternating; times are medians
TASKS: Final = 100_000
CARRIERS_SHOWN: Final = 5

T = TypeVar("T")


def increment(x: int) -> int:
    """The least that a task can do and still prove that it ran."""
    return x + 1


class Contender:
    """One way to map: its times, and what it answered in every round."""

    def __init__(self, name: str, map_all: Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]) -> None:
        self.name, self.map_all = name, map_all
        self.job_s: list[float] = []
        self.tasks_s: list[float] = []
        self.answers: list[list[Delays]] = []
        self.is_right = True

    def warm_up(self, parts: Sequence[Table]) -> None:
        """A round that does not count: imports, first pages."""
        self.map_all(delays, parts)
        self.map_all(increment, range(TASKS))

    def play(self, parts: Sequence[Table]) -> None:
        """One round: the job, then a map of no-op tasks."""
        answer, seconds = timed(lambda: self.map_all(delays, parts))
        self.answers.append(answer)
        self.job_s.append(seconds)
        numbers, seconds = timed(lambda: self.map_all(increment, range(TASKS)))
        self.tasks_s.append(seconds)
        self.is_right = self.is_right and numbers == list(range(1, TASKS + 1))


def timed(call: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def run_demo(file: Path | None, workers: int, shm: str | None = None, key_file: Path | None = None) -> int:
    """Print everything; 0 if the answer is right, 1 if not. On the cluster at `shm`, else on one of its own with so many workers.

    Raises UsageError if there is no table.
    """
    path = file or find_flights()
    table = read_flights(path)
    parts = split_by_keys(table)
    print(f"flights   {count(table.num_rows)} rows, {path}")
    print(f"parts     {len(parts)}, one a carrier and month: how late its flights arrived, and how sure that is")
    print(f"machine   {this_machine()}", flush=True)

    expected, alone_s = timed(lambda: [delays(part) for part in parts])
    with Client(shm, key_file=key_file) if shm else Client(n_workers=workers) as client:
        workers = sum(worker.threads for worker in client.scheduler_info().workers.values())
        ours, theirs = compete(client, workers, parts)

    print_times(alone_s, ours, theirs, workers, len(parts))
    print_answer(expected)
    right = agrees_with_table(expected, table) and all(c.is_right and a == expected for c in (ours, theirs) for a in c.answers)
    print(f"answer: {'right' if right else 'WRONG'}")
    return 0 if right else 1


def compete(client: Client, workers: int, parts: Sequence[Table]) -> tuple[Contender, Contender]:
    """Both contenders, after their alternating rounds."""
    # spawn: a fork of a process with threads is not safe, and Pool's workers are then as fresh as ours. Each item by itself, as
    # ours are: parts are uneven, and Pool's own chunks would leave one worker idle at the end.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        ours = Contender("nahanni", lambda f, items: list(client.gather(client.map(f, items))))
        theirs = Contender("multiprocessing.Pool", lambda f, items: pool.map(f, items, chunksize=1))
        for contender in (ours, theirs):
            contender.warm_up(parts[: 4 * workers])
        for _ in range(ROUNDS):
            ours.play(parts)
            theirs.play(parts)
    return ours, theirs


def print_times(alone_s: float, ours: Contender, theirs: Contender, workers: int, parts: int) -> None:
    """The table of times: medians, and ratios to the same round's peer."""
    job, peer_job = median(ours.job_s), median(theirs.job_s)
    rate, peer_rate = TASKS / median(ours.tasks_s), TASKS / median(theirs.tasks_s)
    print(f"\n{f'{workers} workers':24}{'job':>10}{'parts/s':>10}{'no-op tasks/s':>16}")
    print(f"{'one process':24}{alone_s:>8.2f} s{parts / alone_s:>10.0f}")
    for name, seconds, tasks in ((ours.name, job, rate), (theirs.name, peer_job, peer_rate)):
        print(f"{name:24}{seconds:>8.2f} s{parts / seconds:>10.0f}{count(tasks):>16}")
    print(f"{'ratio':24}{peer_job / job:>9.2f}x{'':10}{rate / peer_rate:>15.1f}x   ({ROUNDS} alternating rounds, medians)\n")


def print_answer(found: Sequence[Delays]) -> None:
    """Carriers by share of late arrivals, and each one's worst month."""
    print(f"carrier  arrivals  over {LATE_MIN} min late   worst month: 90th percentile [95 % interval], minutes")
    carriers = sorted({d.carrier for d in found}, key=lambda carrier: -late_share([d for d in found if d.carrier == carrier]))
    for carrier in carriers[:CARRIERS_SHOWN]:
        own = [d for d in found if d.carrier == carrier]
        worst = max(own, key=lambda d: d.p90_min if d.p90_min is not None else float("-inf"))
        interval = f"{worst.p90_min:.0f} [{worst.p90_low_min:.0f} .. {worst.p90_high_min:.0f}]" if worst.arrived else "none arrived"
        print(f"{carrier:7}{count(sum(d.arrived for d in own)):>10}{late_share(own):>16.1%}   {worst.month:>11}: {interval}")
    print(f"         ... and {len(carriers) - CARRIERS_SHOWN} more\n" if len(carriers) > CARRIERS_SHOWN else "")


def late_share(own: Sequence[Delays]) -> float:
    """Late among those that arrived."""
    return sum(d.late for d in own) / max(1, sum(d.arrived for d in own))


def count(n: float) -> str:
    """A whole number with thin groups of thousands."""
    return f"{round(n):,}".replace(",", " ")
