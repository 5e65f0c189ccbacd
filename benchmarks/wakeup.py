"""What a wake-up costs here: processes that sleep, and ring each other by eventfd. The unit that latencies are measured in."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

US_PER_NS = 1e-3


def wake_ups_us(count: int, *, partners: int = 1, apart: bool = False) -> list[float]:
    """Microseconds of `count` turns around a ring of this process and `partners` others, all asleep but the one that was rung.

    One partner: two wake-ups a turn. Two partners: three, as many as a task needs (scheduler, worker, client). `apart`: this
    process on one core, the partners on another. Where the kernel may choose, it likes to bring two processes that wake each
    other together on one core: much quicker, but then only one of them can run at a time.
    """
    cores = sorted(os.sched_getaffinity(0))
    here, there = ({cores[0]}, {cores[-1]}) if apart else (set(cores), set(cores))
    with _ring(partners, there) as (first, last), _pinned(here):
        for _ in range(50):
            _turn_ns(first, last)
        return [_turn_ns(first, last) * US_PER_NS for _ in range(count)]


def _turn_ns(first: int, last: int) -> int:
    start = time.perf_counter_ns()
    os.eventfd_write(first, 1)
    os.eventfd_read(last)
    return time.perf_counter_ns() - start


@contextmanager
def _pinned(cores: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _ring(partners: int, cores: set[int]) -> Iterator[tuple[int, int]]:
    """Processes that each pass a ring on; they end with their standard input, so with us at the latest."""
    bells = [os.eventfd(0) for _ in range(partners + 1)]
    try:
        with ExitStack() as stack:
            for own, following in pairwise(bells):
                command = [sys.executable, "-I", "-S", str(Path(__file__)), str(own), str(following), *map(str, cores)]
                process = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(own, following)))
                stack.callback(process.communicate, timeout=10)
            yield bells[0], bells[-1]
    finally:
        for bell in bells:
            os.close(bell)


def _pass_on(own: int, following: int, cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)
    poll = select.poll()
    poll.register(own, select.POLLIN)
    poll.register(sys.stdin, select.POLLHUP)
    while own in {fd for fd, _ in poll.poll()}:
        os.eventfd_read(own)
        os.eventfd_write(following, 1)


if __name__ == "__main__":
    _pass_on(int(sys.argv[1]), int(sys.argv[2]), set(map(int, sys.argv[3:])))
