"""The host's end of the agent in a guest (agent.sh): scripts out, their output back."""

from __future__ import annotations

import base64
import socket
import time

from nahanni_compute.vm.errors import GuestError

READ_BYTES = 65536


class AgentSilent(GuestError):
    """No answer in time, or the guest is gone."""


class Agent:
    """Speaks for one thread at a time. Owns its end of the serial port."""

    def __init__(self, port: socket.socket) -> None:
        self._port = port
        self._received = b""
        self._jobs = 0
        self._answers: dict[int, tuple[int, str]] = {}

    def wait_ready(self, timeout_s: float) -> None:
        """Returns when the guest is up; raises AgentSilent."""
        end = time.monotonic() + timeout_s
        while self._line(end) != "READY":
            pass

    def send(self, script: str, timeout_s: float = 60) -> int:
        """Starts a script of /bin/sh in the guest, beside those that run; returns what recv() takes."""
        self._jobs += 1
        self._port.settimeout(timeout_s)
        try:
            self._port.sendall(b"%d %s\n" % (self._jobs, base64.b64encode(script.encode())))
        except OSError as error:
            raise AgentSilent(f"expected the guest to take a script, saw {error!r}") from None
        return self._jobs

    def recv(self, job: int, timeout_s: float) -> tuple[int, str]:
        """The script's exit status, and its output with its errors."""
        end = time.monotonic() + timeout_s
        while job not in self._answers:
            self._take(self._line(end))
        return self._answers.pop(job)

    def close(self) -> None:
        self._port.close()

    def _take(self, line: str) -> None:
        match line.split(" "):
            case ["END", job, status, output]:
                self._answers[int(job)] = int(status), base64.b64decode(output).decode(errors="replace")

    def _line(self, end: float) -> str:
        while b"\n" not in self._received:
            self._port.settimeout(max(end - time.monotonic(), 0.001))
            try:
                data = self._port.recv(READ_BYTES)
            except TimeoutError:
                raise AgentSilent("expected an answer from the guest, saw none in time") from None
            except OSError:
                data = b""
            if not data:
                raise AgentSilent("expected an answer from the guest, saw the end of QEMU")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")
