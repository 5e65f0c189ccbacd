"""What a cluster costs while nobody asks it anything: the processor time of all its processes and of the client."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from nahanni_compute import Client

SETTLE_S = 1.0
NS_PER_S = 1e9


def idle_percent(seconds: float, workers: int) -> float:
    """User and system time of this process and of a fresh cluster's, over `seconds`, in percent of one core."""
    before = descendants(os.getpid())
    with Client(n_workers=workers) as client:
        client.gather(client.map(abs, range(1000)))
        time.sleep(SETTLE_S)
        pids = {os.getpid()} | (descendants(os.getpid()) - before)
        start, used = time.perf_counter(), cpu_s(pids)
        time.sleep(seconds)
        return 100 * (cpu_s(pids) - used) / (time.perf_counter() - start)


def descendants(pid: int) -> set[int]:
    """Processes below this one, however deep."""
    children: dict[int, set[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), set()).add(int(entry.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), set())
        found |= below
        waiting += below
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """Seconds of processor time that they have used: to the nanosecond where the kernel says so, else in its ticks."""
    return sum(_scheduled_s(pid) or _ticked_s(pid) for pid in pids)


def _scheduled_s(pid: int) -> float:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / NS_PER_S
    except OSError:  # a thread or process that ended, or a kernel without CONFIG_SCHED_INFO
        return 0.0


def _ticked_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _stat(pid: int) -> list[str]:
    """The fields after the command's name, which may hold anything; none for a process that ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
