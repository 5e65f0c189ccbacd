"""The analysis: how late the flights of one part arrived, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from nahanni_compute.demo.flights import KEYS, Table

LATE_MIN: Final = 15  # minutes; what the airlines' own statistics call late
RESAMPLES: Final = 200
TOLERANCE: Final = 1e-9  # relative, of means that were summed in another order


@dataclass(frozen=True)
class Delays:
    """Arrival delays of one carrier in one month, in minutes. None where no flight arrived."""

    carrier: str
    month: int
    flights: int
    arrived: int
    late: int
    mean_min: float | None
    median_min: float | None
    p90_min: float | None
    p90_low_min: float | None  # 95 % interval of the 90th percentile, from a bootstrap
    p90_high_min: float | None


def delays(part: Table) -> Delays:
    """Of one part; the bootstrap is seeded by the part, so that every process finds the same numbers to the last bit."""
    carrier, month = part["carrier"][0].as_py(), part["month"][0].as_py()
    minutes = part["arr_delay"].drop_null().to_numpy().astype("f8")
    if not len(minutes):
        return Delays(carrier, month, part.num_rows, 0, 0, None, None, None, None, None)
    generator = np.random.default_rng([month, *carrier.encode()])
    p90s = [np.quantile(generator.choice(minutes, len(minutes)), 0.9) for _ in range(RESAMPLES)]
    low, high = np.quantile(p90s, [0.025, 0.975])
    median, p90 = np.quantile(minutes, [0.5, 0.9])
    late = int(np.count_nonzero(minutes > LATE_MIN))
    numbers = (float(x) for x in (minutes.mean(), median, p90, low, high))
    return Delays(carrier, month, part.num_rows, len(minutes), late, *numbers)


def agrees_with_table(found: Sequence[Delays], table: Table) -> bool:
    """Whether the parts together are the table: Arrow's own group-by of the whole gives the same counts, and means within TOLERANCE."""
    groups = table.group_by(list(KEYS)).aggregate([([], "count_all"), ("arr_delay", "count"), ("arr_delay", "mean")])
    whole = {(g["carrier"], g["month"]): (g["count_all"], g["arr_delay_count"], g["arr_delay_mean"]) for g in groups.to_pylist()}
    parts = {(d.carrier, d.month): (d.flights, d.arrived, d.mean_min) for d in found}
    return len(found) == len(whole) and parts.keys() == whole.keys() and all(_same(parts[key], whole[key]) for key in whole)


def _same(part: tuple[int, int, float | None], whole: tuple[int, int, float | None]) -> bool:
    if part[:2] != whole[:2] or part[2] is None or whole[2] is None:
        return part == whole
    return math.isclose(part[2], whole[2], rel_tol=TOLERANCE)
