"""The small supervisor that `nahanni server`, `scheduler` and `worker` are: it starts the process that does the work, and ends
it when it is told to end. It runs no user code, so it lives when that process does not.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nahanni_compute import processes
from nahanni_compute.joining import COULD_NOT_JOIN

QUICK_S = 2.0  # a child that ends sooner than this after its start is in trouble, and is not started again at once
RESTARTS_MAX = 3


@contextmanager
def told_to_end() -> Iterator[int]:
    """A descriptor that becomes readable at SIGINT or SIGTERM."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def tell(*_: object) -> None:
        os.write(writing, b"x")

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield reading
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def wait_for_end(children: list[subprocess.Popen[bytes]], told: int) -> subprocess.Popen[bytes] | None:
    """Until one of them has ended, which is returned; None: we were told to end."""
    ends = select.poll()  # not select, which takes no descriptor above 1023
    ends.register(told, select.POLLIN)
    pidfds: dict[int, subprocess.Popen[bytes]] = {}
    try:
        for child in children:
            pidfd = os.pidfd_open(child.pid)
            pidfds[pidfd] = child
            ends.register(pidfd, select.POLLIN)
        ready = [fd for fd, _ in ends.poll()]
    finally:
        for fd in pidfds:
            os.close(fd)
    return None if told in ready else pidfds[ready[0]]


def keep(start: Callable[[], subprocess.Popen[bytes]], what: str, restart: bool) -> int:
    """Start it; start it again when it dies of something, a few times in a row at most; end it when told. The exit status."""
    quick = 0
    with told_to_end() as told:
        while True:
            started = time.monotonic()
            child = start()
            if wait_for_end([child], told) is None:
                processes.end([child])
                return 0
            status = child.wait()
            if status == 0:
                return 0
            quick = quick + 1 if time.monotonic() - started < QUICK_S else 0
            if not restart or status == COULD_NOT_JOIN or quick >= RESTARTS_MAX:
                print(f"nahanni: the {what} ended with status {status}", file=sys.stderr)
                return 1
            print(f"nahanni: the {what} ended with status {status}; another one takes its place", file=sys.stderr)
