"""Child processes: fresh interpreters started by exec, which end with their parent and leave nothing (decision 15).

A child holds the read end of a pipe whose only write end its parent holds. When the pipe ends, so does the child, whatever it
does at the moment. The parent-death signal was refused: it follows the parent's thread, not its process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import IO

THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS",
)
END_S = 5.0


class Lifeline:
    """The pipe. Children get `reading`; a fork of this process drops its copy of the write end."""

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe()
        os.register_at_fork(after_in_child=self.close)

    def close(self) -> None:
        """End every child that still lives."""
        for fd in (self.reading, self._writing):
            if fd >= 0:
                os.close(fd)
        self.reading = self._writing = -1


def _environment(threads: int | None) -> dict[str, str]:
    environment = dict(os.environ)
    root = str(Path(__file__).resolve().parents[1])
    if root not in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:  # a checkout: the child must find it too
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
    if threads is not None:
        environment.update(dict.fromkeys(THREAD_LIMITS, str(threads)))
    return environment


def start(
    module: str, *arguments: object, lifeline: Lifeline, threads: int | None = None, output: int | None = None
) -> subprocess.Popen[bytes]:
    """Exec `python -m module`. Standard input is empty; `-P` keeps the current folder's modules from posing as the library's."""
    command = [sys.executable, "-P", "-m", module, *map(str, arguments), "--lifeline", str(lifeline.reading)]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, pass_fds=(lifeline.reading,), env=_environment(threads), close_fds=True
    )


def read_line(pipe: IO[bytes] | None) -> str:
    """One line that a child says when it is ready; empty when it ended instead."""
    return pipe.readline().decode(errors="replace").strip() if pipe else ""


def end(children: list[subprocess.Popen[bytes]], patience_s: float = END_S) -> None:
    """SIGTERM to all, then SIGKILL to who does not leave. Returns when all are reaped."""
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
    for child in children:
        try:
            child.wait(patience_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout:
            child.stdout.close()
