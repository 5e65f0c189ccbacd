"""QEMU's own control socket (QMP): stop, cont, quit and what else a test or a user asks of the machine."""

from __future__ import annotations

import json
import socket
from typing import Any

from nahanni_compute.vm.errors import GuestError


class Qmp:
    """One connection. Owns its socket; speaks for one thread at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._stream = connection.makefile("rw")
        self._greeted = False

    def ask(self, execute: str, **arguments: object) -> Any:
        """QEMU's answer; its refusal, or its silence, is a GuestError."""
        if not self._greeted:
            self._read()
            self._greeted = True
            self.ask("qmp_capabilities")
        self._stream.write(json.dumps({"execute": execute, "arguments": arguments}) + "\n")
        self._stream.flush()
        answer = self._read()
        while "event" in answer:
            answer = self._read()
        if "error" in answer:
            raise GuestError(f"expected QEMU to do {execute}, saw: {answer['error'].get('desc', answer['error'])}")
        return answer["return"]

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        line = self._stream.readline()
        if not line:
            raise GuestError("expected an answer from QEMU, saw its end")
        answer: dict[str, Any] = json.loads(line)
        return answer
