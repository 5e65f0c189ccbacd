"""Which processes live, and waiting until something is so."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PATIENCE_S = 20.0


def wait_until(condition: Callable[[], object], patience_s: float = PATIENCE_S, pause_s: float = 0.005) -> float:
    """Look until it is so; how long it took (s). For what rings no bell."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < patience_s, f"not so within {patience_s} s"
        time.sleep(pause_s)
    return time.monotonic() - began


def lives(pid: int) -> bool:
    """Whether this process runs; one that ended and is not reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_ended(pids: Iterable[int], patience_s: float = PATIENCE_S) -> None:
    """Until all have ended."""
    end = time.monotonic() + patience_s
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([descriptor], [], [], max(end - time.monotonic(), 0))[0], f"process {pid} still runs after {patience_s} s"
        finally:
            os.close(descriptor)
