"""Scheduler, server or client gone, a fork, a wrong key: nothing hangs, each error has a name, and nothing is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nahanni_compute import Client, LocalCluster
from nahanni_compute.errors import AccessRefused, NahanniError, SchedulerDied, ServerDied

from .gates import Gate, stop_at
from .living import wait_ended, wait_until
from .scripts import run_script, running_script

PATIENCE_S = 30.0
NOTICED_S = 2.0


def kill(pid: int) -> None:
    """SIGKILL, and wait for it."""
    os.kill(pid, signal.SIGKILL)
    wait_ended([pid])


# -- the scheduler


@pytest.mark.parametrize("wait", ["result", "exception", "gather", "gather of a map", "gather with a timeout", "run"])
def test_a_wait_ends_when_the_scheduler_dies(cluster: LocalCluster, gate: Gate, wait: str) -> None:
    """With SchedulerDied, soon; close() works."""
    with Client(cluster) as client, ThreadPoolExecutor(1) as pool:
        future = client.submit(stop_at, gate.name)
        gate.arrival()
        waits: dict[str, Callable[[], Any]] = {
            "result": future.result,
            "exception": future.exception,
            "gather": lambda: client.gather([future, future]),
            "gather of a map": lambda: client.gather(client.map(stop_at, [gate.name] * 10)),
            "gather with a timeout": lambda: client.gather({"a": [future]}, errors="skip", timeout=PATIENCE_S),
            "run": lambda: client.run(stop_at, gate.name),
        }
        waiting = pool.submit(waits[wait])
        began = time.monotonic()
        kill(cluster.pids["scheduler"])
        with pytest.raises(SchedulerDied):
            waiting.result(PATIENCE_S)
        assert time.monotonic() - began < NOTICED_S
        gate.close()


@pytest.mark.parametrize("call", ["submit", "map", "run"])
def test_new_work_is_refused_when_the_scheduler_has_died(cluster: LocalCluster, call: str) -> None:
    """It is noticed soon, with SchedulerDied, and from then on at once."""
    with Client(cluster) as client:
        calls: dict[str, Callable[[], Any]] = {
            "submit": lambda: client.submit(abs, -1),
            "map": lambda: client.map(abs, [1]),
            "run": lambda: client.run(abs, -1),
        }
        calls[call]()
        kill(cluster.pids["scheduler"])
        with pytest.raises(SchedulerDied):
            wait_until(lambda: calls[call]() is None, NOTICED_S, pause_s=0)
        for again in calls.values():
            with pytest.raises(SchedulerDied):
                again()


def test_results_that_are_there_can_be_read_when_the_scheduler_has_died(cluster: LocalCluster) -> None:
    """For the first time, too."""
    with Client(cluster) as client:
        single, futures = client.submit(bytes, 3000), client.map(bytes, range(1000))
        wait_until(lambda: single.done() and all(future.done() for future in futures))
        kill(cluster.pids["scheduler"])
        assert single.result() == bytes(3000)
        assert client.gather(futures) == [bytes(n) for n in range(1000)]


def test_a_newcomer_hears_that_there_is_no_scheduler(cluster: LocalCluster) -> None:
    """Within its timeout."""
    kill(cluster.pids["scheduler"])
    began = time.monotonic()
    with pytest.raises(NahanniError, match="scheduler"):
        Client(cluster.address, timeout=1)
    assert time.monotonic() - began < 4


# -- the server


def test_what_runs_goes_on_when_the_server_dies(cluster: LocalCluster, gate: Gate) -> None:
    """A map ends well, or with the server's death by name; new work is done or refused by name; nothing hangs."""
    with Client(cluster) as client:
        futures = client.map(lambda i, name=gate.name: stop_at(name, i) if i < 2 else i, range(100))
        gate.arrivals(2)
        kill(cluster.pids["server"])
        gate.close()
        with suppress(ServerDied):
            assert client.gather(futures, timeout=PATIENCE_S) == list(range(100))
            assert client.submit(abs, -1).result(PATIENCE_S) == 1


def test_a_newcomer_hears_that_there_is_no_server(cluster: LocalCluster) -> None:
    """Within its timeout."""
    kill(cluster.pids["server"])
    began = time.monotonic()
    with pytest.raises(NahanniError, match="server"):
        Client(cluster.address, timeout=1)
    assert time.monotonic() - began < 4


def test_memory_that_only_the_server_could_give_is_refused_by_name_when_it_has_died(cluster: LocalCluster) -> None:
    """As arguments and as results."""
    with Client(cluster) as client:
        client.submit(abs, -1).result(PATIENCE_S)
        kill(cluster.pids["server"])
        with pytest.raises(ServerDied):
            client.gather([client.submit(len, bytes(4 << 20)) for _ in range(40)])
        with pytest.raises(NahanniError, match=r"server|arena"):
            client.submit(bytes, 60 << 20).result(PATIENCE_S)


@pytest.mark.parametrize(
    "names", [["server"], ["scheduler"], ["server", "scheduler"], ["server", "scheduler", "local-0"]], ids=" and ".join
)
def test_a_cluster_closes_whichever_of_its_processes_were_killed(gate: Gate, names: list[str]) -> None:
    """All at once, too; with work under way, and a client that is open."""
    with LocalCluster(1, region_size="64MiB", name="local") as cluster, Client(cluster) as client:
        client.map(stop_at, [gate.name] * 100)
        gate.arrival()
        for name in names:
            os.kill(cluster.pids[name], signal.SIGKILL)
        gate.close()


# -- the client

EMBEDDED = """
import time
from pathlib import Path
from nahanni_compute import Client, LocalCluster
cluster = LocalCluster(2, region_size="64MiB")
client = Client(cluster)
futures = client.map({task}, range(4))
if {wait}:
    client.gather(futures)
print(Path(cluster.address.removeprefix("unix:")).parent, *cluster.pids.values(), flush=True)
{last}
"""


@pytest.mark.parametrize(
    ("task", "wait", "last"),
    [
        ("abs", True, "time.sleep(3600)"),
        ("lambda i: time.sleep(3600)", False, "client.gather(futures)"),
        ("lambda i: time.sleep(3600)", False, "while True: client.submit(abs, -1)"),
    ],
    ids=["idle", "waiting", "submitting"],
)
def test_a_program_that_is_killed_leaves_nothing_of_its_cluster(tmp_path: Path, task: str, wait: bool, last: str) -> None:
    """SIGKILL: no process, socket, key or folder, though its workers sleep in their tasks."""
    with running_script(EMBEDDED.format(task=task, wait=wait, last=last), tmp_path) as script:
        folder, *pids = script.line().split()
        assert (Path(folder) / "region.sock.key").exists()
        script.signal(signal.SIGKILL)
        wait_ended([script.pid, *map(int, pids)], 5)
        wait_until(lambda: not Path(folder).exists())


GUEST = """
import sys, time
from nahanni_compute import Client
client = Client(sys.argv[1])
futures = client.map(lambda i: time.sleep(0.01), range(100_000))
futures[0].result()
print("under way", flush=True)
while True:
    client.submit(bytes, 1000)
"""


def test_a_client_that_is_killed_harms_no_other(shared_cluster: LocalCluster, client: Client, tmp_path: Path) -> None:
    """Its tasks end with it; those of others go on, before, during and after."""
    before = client.map(abs, range(-1000, 0))
    with running_script(GUEST, tmp_path, shared_cluster.address) as script:
        assert script.line() == "under way"
        during = client.map(abs, range(-1000, 0))
        script.signal(signal.SIGKILL)
        script.end()
        began = time.monotonic()
        after = client.map(abs, range(-1000, 0))
        for futures in (before, during, after):
            assert client.gather(futures, timeout=PATIENCE_S) == list(range(1000, 0, -1))
        assert time.monotonic() - began < NOTICED_S
    wait_until(lambda: len(client.statistics().endpoints) == 4)
    assert client.run(os.getpid) == shared_cluster.workers


# -- a fork

FORK = """
import os, sys, time
from nahanni_compute import Client
from nahanni_compute.errors import ForkedEndpoint
client = Client(n_workers=1, region_size="64MiB")
old, futures = client.submit(abs, -5), client.map(abs, range(10))
client.gather(futures)
pid = os.fork()
if pid == 0:
    for call in (
        lambda: client.submit(abs, -1), lambda: client.submit(lambda: 1), lambda: client.map(abs, [1]), lambda: client.run(abs, 1),
        old.result, old.exception, lambda: client.gather(futures), lambda: client.gather([old]), client.scheduler_info, client.statistics,
    ):
        try:
            call()
        except ForkedEndpoint:
            pass
        else:
            print("not refused")
    {end}
print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
time.sleep(0.5)
print(old.result(), client.gather(futures) == list(range(10)), client.gather(client.map(lambda x: x + 1, range(3))))
client.close()
"""


@pytest.mark.parametrize("end", ["sys.exit(7)", "os._exit(7)", "client.close(); client.close(); sys.exit(7)"])
def test_a_fork_is_refused_and_its_parent_unharmed(tmp_path: Path, end: str) -> None:
    """ForkedEndpoint for whatever it asks; its end, orderly or not, is none of the cluster's business."""
    assert run_script(FORK.format(end=end), tmp_path).splitlines() == ["child 7", "5 True [1, 2, 3]"]


POOL = """
import multiprocessing
from nahanni_compute import Client
with Client(n_workers=1, region_size="64MiB") as client:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(abs, range(-3, 0)))
    print(client.gather(client.map(abs, range(-3, 0))))
print("closed")
"""


def test_a_pool_of_forks_beside_a_client_harms_nobody(tmp_path: Path) -> None:
    """multiprocessing as many programs use it."""
    assert run_script(POOL, tmp_path).splitlines() == ["[3, 2, 1]", "[3, 2, 1]", "closed"]


# -- the key


@pytest.fixture
def wrong_key(tmp_path: Path) -> Path:
    """Of the right length."""
    path = tmp_path / "key"
    path.write_bytes(bytes(16))
    return path


@pytest.mark.parametrize("call", ["submit", "map", "run"])
def test_whoever_has_another_key_runs_nothing(shared_cluster: LocalCluster, tmp_path: Path, wrong_key: Path, call: str) -> None:
    """AccessRefused, and no side effect."""
    witness = tmp_path / "witness"
    calls: dict[str, Callable[[Client], Any]] = {
        "submit": lambda client: client.submit(witness.touch).result(PATIENCE_S),
        "map": lambda client: client.gather(client.map(Path.touch, [witness]), timeout=PATIENCE_S),
        "run": lambda client: client.run(witness.touch, timeout=PATIENCE_S),
    }
    with pytest.raises(AccessRefused, match="key"), Client(shared_cluster.address, key_file=wrong_key) as client:
        calls[call](client)
    assert not witness.exists()


def test_others_go_on_beside_one_with_another_key(shared_cluster: LocalCluster, client: Client, wrong_key: Path) -> None:
    """No worker ends over it."""
    with pytest.raises(AccessRefused), Client(shared_cluster.address, key_file=wrong_key) as stranger:
        stranger.gather(stranger.map(abs, range(1000)), timeout=PATIENCE_S)
    assert client.gather(client.map(abs, range(-3, 0))) == [3, 2, 1]
    assert client.run(os.getpid) == shared_cluster.workers


@pytest.mark.parametrize("content", [None, b"", b"too short", bytes(17)])
def test_a_key_file_that_holds_no_key_is_named(shared_cluster: LocalCluster, tmp_path: Path, content: bytes | None) -> None:
    """Missing, empty, or of another length."""
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AccessRefused, match=str(path)):
        Client(shared_cluster.address, key_file=path)


def test_the_key_and_the_sockets_are_their_owners_alone(shared_cluster: LocalCluster) -> None:
    """Nobody else of this machine can join."""
    folder = Path(shared_cluster.address.removeprefix("unix:")).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    assert (folder / "region.sock.key").stat().st_mode & 0o777 == 0o600
