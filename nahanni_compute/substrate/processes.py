"""A process of this kernel, named so that no other can be taken for it, and the proof of its end (D2)."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """Pid, and start in ticks since the boot: a pid is used again, the two together are not. `space`: its pid namespace."""

    pid: int
    start: int
    space: int


def this_process() -> Process:
    """Ourselves."""
    pid = os.getpid()
    return Process(pid, start_of(pid) or 0, Path("/proc/self/ns/pid").stat().st_ino)


def start_of(pid: int) -> int | None:
    """When the process that has this pid now started; None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text.rpartition(")")[2].split()[19])  # the name may hold anything, brackets too


def make_sure_it_is_gone(process: Process, wait_s: float) -> bool:
    """Whether no store of this process can follow, for certain; it is killed if it lives. False: nobody can know.

    Ourselves: what had this name before us in this process has given up its mapping, by exec or by close.
    """
    if process.pid == os.getpid():
        return True
    if process.space != this_process().space:
        return False  # its pid means nothing here
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        # After pidfd_open: so the start that is read and the process that is killed belong together.
        return start_of(process.pid) != process.start or _killed(pidfd, wait_s)
    finally:
        os.close(pidfd)


def _killed(pidfd: int, wait_s: float) -> bool:
    ends = select.poll()
    ends.register(pidfd, select.POLLIN)
    if ends.poll(0):
        return True
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # another user's: it may live on
    return bool(ends.poll(wait_s * 1000))
