"""Alternation: every contender once a round, in turn, so that all meet the same moods of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

NS = 1e-9


class WrongAnswerError(Exception):
    """A contender answered something else than expected: no time of this run means anything."""


@dataclass(frozen=True)
class Contender:
    """One way to do the same work; `play` does it once and returns its answer."""

    name: str
    play: Callable[[], Any]


@dataclass(frozen=True)
class Series:
    """One number of one contender, once a round."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.samples)

    @property
    def min(self) -> float:
        return min(self.samples)

    @property
    def max(self) -> float:
        return max(self.samples)

    def mapped(self, change: Callable[[float], float]) -> Series:
        """The same rounds in another unit."""
        return Series(tuple(change(sample) for sample in self.samples))


def alternate(contenders: Sequence[Contender], rounds: int, expected: Any) -> dict[str, Series]:
    """Seconds of each contender, by name: `rounds` alternating rounds after one that does not count.

    Raises WrongAnswerError as soon as an answer, the uncounted ones too, differs from `expected`.
    """
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(rounds + 1):
        for contender in contenders:
            elapsed = _timed(contender, expected)
            if number:
                seconds[contender.name].append(elapsed)
    return {name: Series(tuple(samples)) for name, samples in seconds.items()}


def _timed(contender: Contender, expected: Any) -> float:
    start = time.perf_counter_ns()
    answer = contender.play()
    elapsed = (time.perf_counter_ns() - start) * NS
    if answer != expected:
        raise WrongAnswerError(f"{contender.name}: expected {_short(expected)}, saw {_short(answer)}")
    return elapsed


def _short(value: Any) -> str:
    text = repr(value[:3] if isinstance(value, list) else value)
    return f"{text[:60]} ({len(value)} items)" if isinstance(value, list) else text[:60]


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that is not below `share` of all (nearest rank)."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
