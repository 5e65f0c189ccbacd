"""`unix:`, held to the contract of all substrates."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conformance import PATIENCE_S, PEER, Contract, Here, Running
from .serving import Serving


class HostPeer:
    """A process of this host."""

    def __init__(self, code: str, *arguments: object) -> None:
        self._process = subprocess.Popen([sys.executable, "-P", "-c", code, *map(str, arguments)])

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def wait(self) -> None:
        assert self._process.wait(PATIENCE_S) == 0


class TestUnix(Contract):
    """Memfd and eventfds over the server's socket."""

    @pytest.fixture
    def socket(self) -> Iterator[Path]:
        with Serving() as serving:
            yield serving.socket

    def run(self, code: str, here: Here) -> Running:
        return HostPeer(PEER + code, here.place.name, "", here.slot)
