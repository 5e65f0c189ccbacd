"""The mission's line: a script in one guest, `Client(shm="/dev/uio0").map(func, data)`, runs on workers in another guest and on the
host, with the scheduler on the host. One vCPU each, on purpose: fences and atomics do nothing there.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Iterator

import pytest

from nahanni_compute import Client, processes
from nahanni_compute.vm.guest import Guest

from .conftest import Pair
from .region_server import RegionServer

pytestmark = pytest.mark.guest

MISSION = """
import json, os
from nahanni_compute import Client

def func(x):
    sum(range(20_000))
    return x * x, os.uname().nodename

client = Client(shm="/dev/uio0")
data = range(400)
answers = client.gather(client.map(func, data), timeout=60)
where = client.run(lambda: os.uname().nodename, timeout=30)
workers = {name: worker.substrate for name, worker in client.scheduler_info().workers.items()}
client.close()
print(json.dumps({"squares": [a for a, _ in answers], "hosts": sorted({h for _, h in answers}), "ran": where, "workers": workers}))
"""


class Crew:
    """A scheduler and a worker on the host, a worker in guest two."""

    def __init__(self, server: RegionServer, guest: Guest) -> None:
        self._lifeline = processes.Lifeline()
        self.guest = guest
        self.scheduler = processes.start("nahanni_compute.scheduler", "--shm", server.socket, lifeline=self._lifeline)
        self.host = processes.start("nahanni_compute.workers", "--shm", server.socket, "--name", "host", lifeline=self._lifeline)
        path, python = (shlex.quote(text) for text in (os.environ.get("PYTHONPATH", ""), sys.executable))
        worker = f"PYTHONPATH={path} {python} -P -m nahanni_compute.cli --shm /dev/uio0 worker --name guest-two"
        self._job = guest.send(f"{worker} & echo $! > /run/worker.pid; wait")

    def wait_ready(self, client: Client) -> None:
        end = time.monotonic() + 60
        while set(client.scheduler_info().workers) != {"host", "guest-two"}:
            assert time.monotonic() < end, f"only {client.scheduler_info().workers} joined"
            client._session.endpoint.wait(0.05)

    def end(self) -> None:
        self.guest.sh("kill -TERM $(cat /run/worker.pid)")
        self.guest.recv(self._job)
        processes.end([self.host, self.scheduler])
        self._lifeline.close()


@pytest.fixture(scope="module")
def crew(guests: Pair, region_server: RegionServer) -> Iterator[Crew]:
    """They join while the guests' server runs, and leave it running."""
    made = Crew(region_server, guests[1])
    yield made
    made.end()


@pytest.fixture
def host_client(crew: Crew, region_server: RegionServer) -> Iterator[Client]:
    """On the host, when both workers are there."""
    with Client(region_server.socket) as client:
        crew.wait_ready(client)
        yield client


def test_a_script_in_one_guest_runs_on_workers_in_another_and_on_the_host(guests: Pair, host_client: Client) -> None:
    """Scheduler on the host; functions of the script travel by value; every worker takes part."""
    said = json.loads(guests[0].python(MISSION, timeout_s=120).splitlines()[-1])
    assert said["squares"] == [x * x for x in range(400)]
    assert said["hosts"] == sorted({os.uname().nodename, "two"})
    assert said["ran"] == {"host": os.uname().nodename, "guest-two": "two"}
    assert said["workers"]["guest-two"] == "/dev/uio0"
    assert said["workers"]["host"].startswith("unix:")


def test_the_host_reaches_workers_in_a_guest(host_client: Client) -> None:
    """The same region from the other side: values that fit a word, values in blocks, exceptions with their traceback."""
    assert sum(host_client.gather(host_client.map(lambda x: x + 1, range(10_000)), timeout=60)) == sum(range(1, 10_001))
    assert host_client.gather(host_client.map(lambda n: b"x" * n, [0, 100, 70_000, 3_000_000]), timeout=60)[3] == b"x" * 3_000_000
    with pytest.raises(ZeroDivisionError) as raised:
        host_client.submit(lambda: 1 // 0).result(60)
    assert "ZeroDivisionError" in str(raised.value.__cause__)
