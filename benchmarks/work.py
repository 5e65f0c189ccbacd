"""The functions that are mapped, in a module that every contender's workers can import."""

from __future__ import annotations


def increment(x: int) -> int:
    """The least that a task can do and still prove that it ran: the no-op of these benchmarks."""
    return x + 1
