"""`python -m benchmarks tasks`: no-op tasks through ours and through multiprocessing.Pool, two workers each."""

from __future__ import annotations

import multiprocessing
import sys
from dataclasses import dataclass
from multiprocessing.pool import Pool

from nahanni_compute import Client

from .idle import idle_percent
from .latency import measure_latency
from .measure import Contender, Series, alternate
from .report import Goal, Row, grouped
from .work import increment

WORKERS = 2
OURS, ONE_BY_ONE, CHUNKED = "nahanni", "Pool, chunksize=1", "Pool, its own chunks"


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    maps: tuple[int, ...] = (100_000, 1_000_000)
    submits: int = 50_000
    latencies: int = 1000
    rounds: int = 5
    idle_s: float = 10.0


QUICK = Plan(maps=(20_000, 100_000), submits=10_000, latencies=200, rounds=3, idle_s=3.0)


def run(*, quick: bool) -> tuple[list[Row], list[Goal]]:
    """Everything, after all answers were checked. Raises WrongAnswerError."""
    plan = QUICK if quick else Plan()
    rows, goals = measure_idle(plan)
    # spawn: a fork of a process with threads is not safe; nothing that is timed depends on it.
    with Client(n_workers=WORKERS) as client, multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        for part in (
            *(measure_map(client, pool, plan, count) for count in plan.maps),
            measure_submit(client, pool, plan),
            measure_one_by_one(client, pool, plan),
        ):
            rows += part[0]
            goals += part[1]
    return rows, goals


def measure_idle(plan: Plan) -> tuple[list[Row], list[Goal]]:
    """A cluster that waits."""
    say(f"idle for {plan.idle_s:.0f} s")
    percent = idle_percent(plan.idle_s, WORKERS)
    row = Row(f"idle for {plan.idle_s:.0f} s", OURS, Series((percent,)), "% of a core")
    return [row], [Goal("idle", "under 0.5% of a core", f"{percent:.2f}%", percent < 0.5)]


def measure_map(client: Client, pool: Pool, plan: Plan, count: int) -> tuple[list[Row], list[Goal]]:
    """`map` and `gather` of so many no-ops."""
    what = f"map of {grouped(count)} no-ops"
    say(what)
    contenders = [
        Contender(OURS, lambda: client.gather(client.map(increment, range(count)))),
        Contender(ONE_BY_ONE, lambda: pool.map(increment, range(count), chunksize=1)),
        Contender(CHUNKED, lambda: pool.map(increment, range(count))),
    ]
    seconds = alternate(contenders, plan.rounds, list(range(1, count + 1)))
    rows = rate_rows(what, seconds, count)
    rate, ahead, ahead_of_chunks = rows[0].series.median, rows[1].ratio or 0.0, rows[2].ratio or 0.0
    return rows, [
        Goal(what, "10 M/s", f"{rate / 1e6:.3g} M/s", rate >= 10e6),
        Goal(what, f"150x {ONE_BY_ONE}", f"{ahead:.3g}x", ahead >= 150),
        Goal(what, f"ahead of {CHUNKED}", f"{ahead_of_chunks:.3g}x", ahead_of_chunks > 1),
    ]


def measure_submit(client: Client, pool: Pool, plan: Plan) -> tuple[list[Row], list[Goal]]:
    """One call a task, then one wait for all."""
    count = plan.submits
    what = f"submit of {grouped(count)}, then wait"
    say(what)
    contenders = [
        Contender(OURS, lambda: client.gather([client.submit(increment, x) for x in range(count)])),
        Contender("Pool.apply_async", lambda: [r.get() for r in [pool.apply_async(increment, (x,)) for x in range(count)]]),
    ]
    rows = rate_rows(what, alternate(contenders, plan.rounds, list(range(1, count + 1))), count)
    rate = rows[0].series.median
    return rows, [Goal(what, "1.5 M/s", f"{rate / 1e6:.3g} M/s", rate >= 1.5e6)]


def measure_one_by_one(client: Client, pool: Pool, plan: Plan) -> tuple[list[Row], list[Goal]]:
    """One task, its result, the next."""
    say("submit to result, and the wake-ups in it")
    return measure_latency(client, pool, plan.rounds, plan.latencies)


def rate_rows(what: str, seconds: dict[str, Series], count: int) -> list[Row]:
    """Tasks a second, ours first, and how far ours is ahead of each peer."""
    rates = {name: series.mapped(lambda s: count / s) for name, series in seconds.items()}
    ours = rates[OURS].median
    return [Row(what, who, series, "/s", None if who == OURS else ours / series.median) for who, series in rates.items()]


def say(what: str) -> None:
    """Where we are, beside the table's way out."""
    print(f"... {what}", file=sys.stderr, flush=True)
