"""For tests of the server: its process, a QEMU that speaks the raw protocol, and host processes that do what they are told."""

from __future__ import annotations

import mmap
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from nahanni_compute import processes
from nahanni_compute._native import Region
from nahanni_compute.region.layout import slot_word

PATIENCE_S = 20.0
SIZE = "64MiB"
VECTORS = 2


class Serving:
    """A server within `with`. `arguments` replace the defaults; `variables` are settings, without NAHANNI_."""

    def __init__(self, *arguments: str, descriptors: int | None = None, **variables: object) -> None:
        self._stack = ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="nahanni-"))
        self.folder = Path(folder)
        self.socket, self.key = self.folder / "region.sock", self.folder / "region.sock.key"
        self._arguments, self._descriptors = arguments, descriptors
        self._variables = {"log_level": "INFO", "vectors": VECTORS, **variables}

    def start(self) -> Self:
        """Returns when it listens, or when it has ended instead."""
        self.log = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (the stack closes it)
        reading, self._lifeline = os.pipe()
        limit = f"ulimit -n {self._descriptors}; " if self._descriptors else ""
        command = [sys.executable, "-P", "-m", "nahanni_compute.server", "--socket", str(self.socket), "--size", SIZE]
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", f'{limit}exec "$@"', "sh", *command, "--lifeline", str(reading), *self._arguments],
            stdout=subprocess.PIPE,
            stderr=self.log,
            pass_fds=(reading,),
            env=environment(self._variables),
        )
        os.close(reading)
        self.said = processes.read_line(self.process.stdout)
        return self

    def cut_lifeline(self) -> None:
        """As if we had died."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
        self._lifeline = -1

    def end(self) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def logged(self) -> str:
        """What it said on standard error so far."""
        return os.pread(self.log.fileno(), 1 << 20, 0).decode()

    def __enter__(self) -> Self:
        self.start()
        assert self.said == f"listening on {self.socket}", self.logged()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cut_lifeline()
        with self.process:
            self.process.terminate()
        self._stack.close()


def environment(variables: dict[str, object]) -> dict[str, str]:
    """For a child: these settings, and this package, wherever it lies."""
    root = str(Path(processes.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **{f"NAHANNI_{name.upper()}": str(value) for name, value in variables.items()}}


class RawQemu:
    """What QEMU does with the server's socket, message by message. `messages` are (value, has a descriptor)."""

    def __init__(self, path: Path, handshake: bool = True) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(path))
        self.messages: list[tuple[int, bool]] = []
        self.doors: dict[int, list[int]] = {}
        self.id = -1
        self._open: list[int] = []
        self._map: mmap.mmap | None = None
        if handshake:
            self._shake_hands()

    def _shake_hands(self) -> None:
        self.take()
        self.id, _ = self.take()
        _, memory = self.take()
        assert memory is not None
        self.memory = memory
        self._map = mmap.mmap(memory, os.fstat(memory).st_size)
        self.region = Region(self._map, None)
        while len(self.doors.get(self.id, ())) < VECTORS:
            self.take()

    def take(self) -> tuple[int, int | None]:
        """The next message. EOFError when the server closed."""
        data, descriptors, _, _ = socket.recv_fds(self.sock, 8, 1)
        if len(data) != 8:
            raise EOFError
        (value,) = struct.unpack("<q", data)
        self._open += descriptors
        self.messages.append((value, bool(descriptors)))
        if descriptors and value >= 0:
            self.doors.setdefault(value, []).append(descriptors[0])
        return value, descriptors[0] if descriptors else None

    def more(self) -> list[tuple[int, bool]]:
        """The messages that are there already and were not taken."""
        before = len(self.messages)
        while select.select([self.sock], [], [], 0)[0]:
            self.take()
        return self.messages[before:]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Looks whenever it is rung: the server rings everyone at each change."""
        end = time.monotonic() + PATIENCE_S
        door = self.doors[self.id][0]
        while not condition():
            assert select.select([door], [], [], max(end - time.monotonic(), 0))[0], "not rung in time"
            os.eventfd_read(door)

    def is_rung(self, vector: int) -> bool:
        """Whether this bell of ours has been rung since `drain`."""
        return bool(select.select([self.doors[self.id][vector]], [], [], 0.05)[0])

    def drain(self, vector: int) -> None:
        """Forget that it was rung."""
        door = self.doors[self.id][vector]
        os.eventfd_write(door, 1)
        os.eventfd_read(door)

    def state(self, slot: int, word: str = "s_state") -> tuple[int, int]:
        """(incarnation, state)."""
        value = self.region.load(slot_word(slot, word))
        return value >> 8, value & 0xFF

    def close(self) -> None:
        """The end of this VM."""
        self.sock.close()
        if self._map is not None:
            self.region.close()
            self._map.close()
        while self._open:
            os.close(self._open.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


_HOST = """
import os, sys
from nahanni_compute.region import layout
from nahanni_compute.region.layout import *
from nahanni_compute.region.membership import Member
from nahanni_compute.substrate import open_substrate
place = open_substrate(sys.argv[1]).attach(int(sys.argv[2]))
print(place.bell >> 16, place.endpoint.slot, place.endpoint.incarnation, flush=True)
for line in sys.stdin:
    answer = None
    exec(line)
    print(answer, flush=True)
place.close()
"""


class HostProcess:
    """A host process within `with`: attached, and at our command. Its end in order is the end of its standard input."""

    def __init__(self, server: Serving, role: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _HOST, f"unix:{server.socket}", str(role)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment({}),
            text=True,
        )
        answer = self._read().split()
        assert len(answer) == 3, "it could not attach; its reason stands on standard error"
        self.peer, self.slot, self.incarnation = map(int, answer)
        self.pid = self._process.pid

    def do(self, line: str) -> str:
        """Run one line there, with `place` in scope; what it makes of `answer`, as text."""
        self.begin(line)
        return self._read().strip()

    def begin(self, line: str) -> None:
        """Run one line there, and do not wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def leave(self) -> int:
        """In order; the exit status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.wait()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def wait(self) -> int:
        """The exit status, negative for a signal."""
        return self._process.wait(PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._process:
            self._process.kill()
