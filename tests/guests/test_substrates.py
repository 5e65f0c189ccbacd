"""`/dev/uioN`, held to the contract of all substrates: this process on the host, its peer in a guest of one vCPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from nahanni_compute.region.slots import Key
from nahanni_compute.vm.guest import Guest
from tests.conformance import PATIENCE_S, PEER, Contract, Here, Running

from .conftest import Pair
from .region_server import RegionServer

pytestmark = pytest.mark.guest

SAY_PID = "import os\nopen('/run/peer.pid', 'w').write(str(os.getpid()))\n"
TAKE_A_SLOT = """
from nahanni_compute import core
from nahanni_compute.region import layout
from nahanni_compute.substrate import open_substrate
core.configure()
place = open_substrate("/dev/uio0").attach(layout.ROLE_OBSERVER)
place.leave()
place.close()
"""


class GuestPeer:
    """A process of a guest."""

    def __init__(self, guest: Guest, code: str, *arguments: object) -> None:
        self._guest = guest
        self._job = guest.send_python(SAY_PID + code, *arguments)

    def kill(self) -> None:
        self._guest.sh("kill -KILL $(cat /run/peer.pid)")

    def wait(self) -> None:
        self._guest.recv(self._job, PATIENCE_S)


class TestUio(Contract):
    """Our driver: the BAR, the doorbell register, blocking reads. The key came by fw_cfg."""

    rounds = 100

    @pytest.fixture
    def socket(self, region_server: RegionServer, guests: Pair) -> Path:
        self.guest = guests[0]
        return region_server.socket

    def run(self, code: str, here: Here) -> Running:
        return GuestPeer(self.guest, PEER + code, "/dev/uio0", "", here.slot)

    def await_death(self, here: Here, key: Key) -> None:
        """No server sees a guest's processes: the next one in the same kernel does."""
        self.guest.python(TAKE_A_SLOT)
        super().await_death(here, key)
