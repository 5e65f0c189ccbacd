"""Submit to result, one task at a time, while everybody sleeps in between: beside Pool, and beside the wake-ups it is made of."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from multiprocessing.pool import Pool

from nahanni_compute import Client

from .measure import Series, WrongAnswerError, percentile
from .report import Goal, Row
from .wakeup import wake_ups_us
from .work import increment

WHAT = "submit to result"
OURS, POOL = "nahanni", "Pool.apply_async"
WAKE_UPS_MAX = 3.0
BY_BELL_MIN_PERCENT = 95.0
US_PER_NS = 1e-3
OTHER_CORE = "one wake-up, other core"
# name: partners, apart, wake-ups that a turn is divided by
WAKE_UPS = {
    OTHER_CORE: (1, True, 2),
    "one wake-up, any core": (1, False, 2),
    "three in a row, any core": (2, False, 1),
}
COUNTERS_AGE_S = 0.6  # counters in the region are as old as the last turn of a pump: two blocks at most


class Rounds:
    """What each round showed, by name."""

    def __init__(self, client: Client, pool: Pool, count: int) -> None:
        self.client, self.count = client, count
        self.calls: dict[str, Callable[[int], int]] = {
            OURS: lambda x: int(client.submit(increment, x).result()),
            POOL: lambda x: int(pool.apply_async(increment, (x,)).get()),
        }
        self.p50s_us: dict[str, list[float]] = defaultdict(list)
        self.p99s_us: dict[str, list[float]] = defaultdict(list)
        self.by_bell_percent: list[float] = []
        for call in self.calls.values():
            one_by_one_us(call, count // 10)

    def play(self) -> None:
        """One round: ours with its counters, Pool, and the wake-ups."""
        before = counters(self.client)
        self._play_calls(OURS)
        wakes, rescues = (after - was for after, was in zip(counters(self.client), before, strict=True))
        self.by_bell_percent.append(100 * wakes / max(1, wakes + rescues))
        self._play_calls(POOL)
        for name, (partners, apart, wake_ups) in WAKE_UPS.items():
            self.p50s_us[name].append(percentile(wake_ups_us(self.count, partners=partners, apart=apart), 0.5) / wake_ups)

    def _play_calls(self, name: str) -> None:
        samples = one_by_one_us(self.calls[name], self.count)
        self.p50s_us[name].append(percentile(samples, 0.5))
        self.p99s_us[name].append(percentile(samples, 0.99))


def measure_latency(client: Client, pool: Pool, rounds: int, count: int) -> tuple[list[Row], list[Goal]]:
    """Medians and 99th percentiles of `count` tasks a round; and how many wake-ups a doorbell caused while ours ran."""
    seen = Rounds(client, pool, count)
    for _ in range(rounds):
        seen.play()
    p50s = {name: Series(tuple(samples)) for name, samples in seen.p50s_us.items()}
    p99s = {name: Series(tuple(samples)) for name, samples in seen.p99s_us.items()}
    by_bell = Series(tuple(seen.by_bell_percent))
    wake_ups = p50s[OURS].median / p50s[OTHER_CORE].median
    return [*_rows(p50s, p99s), Row("wake-ups by a bell, in that run", OURS, by_bell, "%")], [
        Goal(f"{WHAT}, p50", f"at most {WAKE_UPS_MAX:.0f} wake-ups", f"{wake_ups:.2f}", wake_ups <= WAKE_UPS_MAX),
        Goal("wake-ups by a bell", f"at least {BY_BELL_MIN_PERCENT:.0f}%", f"{by_bell.median:.1f}%", by_bell.median >= BY_BELL_MIN_PERCENT),
    ]


def one_by_one_us(call: Callable[[int], int], count: int) -> list[float]:
    """Microseconds of each call. Raises WrongAnswerError."""
    samples = []
    for x in range(count):
        start = time.perf_counter_ns()
        answer = call(x)
        samples.append((time.perf_counter_ns() - start) * US_PER_NS)
        if answer != x + 1:
            raise WrongAnswerError(f"{WHAT}: expected {x + 1}, saw {answer!r}")
    return samples


def counters(client: Client) -> tuple[int, int]:
    """Wake-ups by a bell, and rescues, of all endpoints so far."""
    time.sleep(COUNTERS_AGE_S)
    endpoints = client.statistics().endpoints.values()
    return sum(e.wakes for e in endpoints), sum(e.rescues for e in endpoints)


def _rows(p50s: dict[str, Series], p99s: dict[str, Series]) -> list[Row]:
    p50, p99 = p50s[OURS].median, p99s[OURS].median
    return [
        Row(f"{WHAT}, p50", OURS, p50s[OURS], "us"),
        Row(f"{WHAT}, p50", POOL, p50s[POOL], "us", p50s[POOL].median / p50),
        *(Row(f"{WHAT}, p50", name, p50s[name], "us", p50 / p50s[name].median, "ours in units of this") for name in WAKE_UPS),
        Row(f"{WHAT}, p99", OURS, p99s[OURS], "us"),
        Row(f"{WHAT}, p99", POOL, p99s[POOL], "us", p99s[POOL].median / p99),
    ]
