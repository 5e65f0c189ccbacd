"""The `nahanni` command, run as a user would: to its end, or under way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from nahanni_compute import Client

from .living import wait_until
from .scripts import Running, running
from .serving import environment

PATIENCE_S = 30.0
ENDS_S = 3.0
NAHANNI = [sys.executable, "-P", "-m", "nahanni_compute.cli"]


class Shell:
    """A folder, a region's socket in it, and the commands that were started."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.socket = folder, folder / "region.sock"
        self._stack = ExitStack()

    def run(self, *arguments: object, shm: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command to its end, on our region unless told otherwise."""
        where = ["--shm", str(self.socket)] if shm else []
        return subprocess.run(
            [*NAHANNI, *where, *map(str, arguments)],
            cwd=self.folder,
            env={**environment({}), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def start(self, *arguments: object) -> Running:
        """A command under way."""
        command = [*NAHANNI, "--shm", str(self.socket), *map(str, arguments)]
        return self._stack.enter_context(running(command, self.folder))

    def serve(self, *arguments: object) -> Running:
        """`nahanni server` on our socket, once it says that it is there."""
        server = self.start("server", "--socket", self.socket, "--size", "64MiB", *arguments)
        assert server.line().startswith("region of 64 MiB at "), "it did not start"
        assert "worker" in server.line()
        return server

    def left_here(self) -> list[str]:
        """What lies in the folder, besides what was said on standard error."""
        return sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("stderr-"))

    def close(self) -> None:
        """Kill what still runs."""
        self._stack.close()


@contextmanager
def open_shell() -> Iterator[Shell]:
    """In a folder of its own, with a short name, since sockets have no long ones; what was started in it ends with it."""
    with tempfile.TemporaryDirectory(prefix="nahanni-") as folder:
        shell = Shell(Path(folder))
        try:
            yield shell
        finally:
            shell.close()


def said_one_line(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """What an error of ours looks like: this exit status, and one line on standard error."""
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stderr.startswith("nahanni: "), done.stderr
    if done.stderr.count("\n") != 1:
        pytest.fail(f"expected one line, saw {done.stderr!r}")
    return done.stderr


def below(pid: int) -> list[int]:
    """The children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def members(shell: Shell) -> dict[str, list[str]]:
    """Role -> names, as `status --json` has it."""
    found: dict[str, list[str]] = {}
    for member in json.loads(shell.run("status", "--json").stdout)["members"]:
        found.setdefault(member["role"], []).append(member["name"])
    return found


def wait_for(shell: Shell, workers: int) -> None:
    """Until the scheduler and so many workers are there."""
    with Client(shell.socket) as client:
        wait_until(lambda: len(client.run(os.getpid)) == workers)


def ends(command: Running, status: int = 0) -> None:
    """It ends soon, with this exit status, and so do its children."""
    began = time.monotonic()
    assert command.end() == status
    assert time.monotonic() - began < ENDS_S
