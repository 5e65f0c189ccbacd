"""LocalCluster: a region, its server, a scheduler and workers, as children of this process. The very system that guests join,
with processes in their place (decision 1).
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nahanni_compute import processes
from nahanni_compute.config import default_region_size, parse_size
from nahanni_compute.errors import NahanniError, UsageError
from nahanni_compute.region.sizes import checked_region_size

log = logging.getLogger("nahanni.cluster")

REPLACE_GAP_S = 0.5  # a worker that dies at once is not replaced more often than this


class LocalCluster:
    """`LocalCluster(n_workers=None, *, region_size=None, name=None)`: as many workers as cores, unless told otherwise.

    A worker that dies is replaced under the same name. `address` is what other processes of this user connect to. Close it, or
    use it as a context manager; it also ends with the interpreter, and its children end with this process however that ends.
    """

    def __init__(self, n_workers: int | None = None, *, region_size: int | str | None = None, name: str | None = None) -> None:
        count: Any = len(os.sched_getaffinity(0)) if n_workers is None else n_workers
        if not isinstance(count, int) or count < 1:
            raise UsageError(f"expected n_workers to be a whole number, 1 or more, saw {n_workers!r}")
        size = default_region_size() if region_size is None else checked_region_size(parse_size(region_size, "region_size"))
        self.name = name or f"local-{os.getpid()}"
        self._owner = os.getpid()
        self._folder = Path(tempfile.mkdtemp(prefix="nahanni-"))
        self.address = f"unix:{self._folder / 'region.sock'}"
        self._lifeline = processes.Lifeline()
        self._closing = threading.Event()
        self._stop_read, self._stop_write = os.pipe()
        self._server: subprocess.Popen[bytes] | None = None
        self._scheduler: subprocess.Popen[bytes] | None = None
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        atexit.register(self.close)
        try:
            self._start(size, count)
        except BaseException:
            self.close()
            raise
        self._watcher = threading.Thread(target=self._watch, name="nahanni-cluster", daemon=True)
        self._watcher.start()

    def _start(self, size: int, count: int) -> None:
        socket = self._folder / "region.sock"
        self._server = processes.start(
            "nahanni_compute.server", "--socket", socket, "--size", size, "--private-dir", lifeline=self._lifeline, output=subprocess.PIPE
        )
        if not processes.read_line(self._server.stdout).startswith("listening"):
            raise NahanniError("expected the region's server to start, saw it end; its reason stands above, on standard error")
        self._scheduler = processes.start("nahanni_compute.scheduler", "--shm", self.address, lifeline=self._lifeline)
        for i in range(count):
            self._start_worker(f"{self.name}-{i}")

    def _start_worker(self, name: str) -> None:
        self._workers[name] = processes.start(
            "nahanni_compute.workers", "--shm", self.address, "--name", name, lifeline=self._lifeline, threads=1
        )

    def _watch(self) -> None:
        """Replace workers that die, until the cluster closes."""
        while not self._closing.is_set():
            started = time.monotonic()
            try:
                ended = self._wait_for_ends()
                started = time.monotonic()
                for name in ended:
                    if not self._closing.is_set():
                        self._replace(name)
            except OSError as error:  # no descriptor or no process is to be had at the moment
                log.warning("expected to replace workers that end, saw %s; trying again", error)
            self._closing.wait(max(0.0, REPLACE_GAP_S - (time.monotonic() - started)))

    def _wait_for_ends(self) -> list[str]:
        """The workers that have ended, once there are any; when the cluster closes there may be none."""
        ended = [name for name, child in self._workers.items() if child.returncode is not None]  # reaped, and not replaced yet
        ends = select.poll()  # not select, which takes no descriptor above 1023
        ends.register(self._stop_read, select.POLLIN)
        pidfds: dict[int, str] = {}
        try:
            for name, child in self._workers.items():
                if child.returncode is None:
                    pidfd = os.pidfd_open(child.pid)
                    pidfds[pidfd] = name
                    ends.register(pidfd, select.POLLIN)
            return ended + [pidfds[fd] for fd, _ in ends.poll(0 if ended else None) if fd in pidfds]
        finally:
            for fd in pidfds:
                os.close(fd)

    def _replace(self, name: str) -> None:
        status = self._workers[name].wait()
        if self._scheduler is None or self._scheduler.poll() is not None:
            self._closing.set()  # nobody to join: SchedulerDied is what users see
            return
        self._start_worker(name)
        log.warning("worker %s ended with status %d; another one takes its place", name, status)

    @property
    def workers(self) -> dict[str, int]:
        """Name -> pid of the processes that serve as workers now."""
        return {name: child.pid for name, child in self._workers.items()}

    @property
    def pids(self) -> dict[str, int]:
        """All processes of the cluster: server, scheduler and workers by name."""
        fixed = {"server": self._server, "scheduler": self._scheduler}
        return {name: child.pid for name, child in fixed.items() if child is not None} | self.workers

    def close(self) -> None:
        """End all its processes and remove what they left. Idempotent; in a fork it does nothing."""
        if self._owner != os.getpid() or self._stop_write < 0:
            return
        self._closing.set()
        os.write(self._stop_write, b"x")
        watcher = getattr(self, "_watcher", None)
        if watcher is not None:
            watcher.join()
        processes.end(list(self._workers.values()))
        for child in (self._scheduler, self._server):
            if child is not None:
                processes.end([child])
        self._lifeline.close()
        for fd in (self._stop_read, self._stop_write):
            os.close(fd)
        self._stop_read = self._stop_write = -1
        shutil.rmtree(self._folder, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LocalCluster {self.name}: {len(self._workers)} workers at {self.address}>"
