"""A gate at which tasks stop until the test lets them on: what is running when is known, and nothing is timed.

A socket in the abstract namespace, so that no file is left. When the gate closes, whoever stands there goes on.
"""

from __future__ import annotations

import ast
import os
import socket
import uuid
from types import TracebackType
from typing import Any, Self

PATIENCE_S = 20.0


def stop_at(gate: str, label: Any = None) -> Any:
    """The task: says where it is, and returns `label` when it is let on."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(gate)
            connection.sendall(f"{os.getpid()} {label!r}\n".encode())
            connection.recv(1)
        except OSError:
            pass  # the gate was closed: the test is over
    return label


class Arrival:
    """A task that stands at the gate."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        with connection.makefile() as said:
            pid, _, label = said.readline().strip().partition(" ")
        self.pid, self.label = int(pid), ast.literal_eval(label)

    def go(self) -> None:
        """Let it on."""
        self._connection.close()


class Gate:
    """Open for arrivals within `with`. `name` is what tasks need to find it."""

    def __init__(self) -> None:
        self.name = f"\0nahanni-gate-{uuid.uuid4().hex}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.name)
        self._listener.listen(1024)
        self._listener.settimeout(PATIENCE_S)
        self._standing: list[Arrival] = []

    def arrival(self) -> Arrival:
        """The next task that arrives. TimeoutError when none does."""
        connection, _ = self._listener.accept()
        connection.settimeout(PATIENCE_S)
        arrived = Arrival(connection)
        self._standing.append(arrived)
        return arrived

    def arrivals(self, n: int) -> list[Arrival]:
        """The next `n`."""
        return [self.arrival() for _ in range(n)]

    def close(self) -> None:
        """Let all on, now and later. Idempotent."""
        self._listener.close()
        for arrived in self._standing:
            arrived.go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
