"""LocalCluster: its arguments, its processes, its end; and the ways to find it."""

from __future__ import annotations

import os
import signal
import socket as sockets
import time
from pathlib import Path
from typing import Any

import pytest

from nahanni_compute import Client, LocalCluster
from nahanni_compute.errors import AccessRefused, NahanniError, NoDevice, SchedulerDied, ServerDied, UsageError

from .gates import Gate, stop_at
from .living import lives
from .scripts import run_script

PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the shell has."""
    monkeypatch.delenv("NAHANNI_SHM", raising=False)


@pytest.fixture
def socket(shared_cluster: LocalCluster) -> Path:
    """Where the shared cluster's server listens."""
    return Path(shared_cluster.address.removeprefix("unix:"))


# -- arguments


@pytest.mark.parametrize("n_workers", [0, -1, 1.5, "2", [2]])
def test_a_number_of_workers_that_is_none_is_refused(n_workers: Any) -> None:
    """Before anything is started; by the client, too."""
    for kind in (LocalCluster, lambda n: Client(n_workers=n)):
        with pytest.raises(UsageError, match="n_workers") as caught:
            kind(n_workers)
        assert repr(n_workers) in str(caught.value)


@pytest.mark.parametrize("size", [100 << 20, "100MiB", "65MiB", (64 << 20) + 1])
def test_a_size_that_is_no_power_of_two_is_refused(size: Any) -> None:
    """The error says so, and what was seen."""
    for kind in (lambda: LocalCluster(1, region_size=size), lambda: Client(n_workers=1, region_size=size)):
        with pytest.raises(UsageError, match="power of two"):
            kind()


@pytest.mark.parametrize("size", ["1MiB", 4096, "32MiB"])
def test_a_size_that_is_too_small_is_refused(size: Any) -> None:
    """The error names the least."""
    with pytest.raises(UsageError, match="64"):
        LocalCluster(1, region_size=size)


@pytest.mark.parametrize("size", ["", "big", "1.5.2GiB", -1, 0, "12 parsecs", 1.5, True])
def test_a_size_that_cannot_be_read_is_refused(size: Any) -> None:
    """And quoted."""
    with pytest.raises(UsageError) as caught:
        LocalCluster(1, region_size=size)
    assert repr(size) in str(caught.value)


def test_a_size_larger_than_anything_is_refused() -> None:
    """Offsets have 40 bits."""
    with pytest.raises(UsageError):
        LocalCluster(1, region_size="4TiB")


@pytest.mark.parametrize("size", ["64MiB", "64m", 64 << 20, "65536 KiB"])
def test_sizes_may_be_numbers_or_text(size: Any) -> None:
    """The region is as large as was asked."""
    with Client(n_workers=1, region_size=size) as client:
        assert client.scheduler_info().region_bytes == 64 << 20


def test_a_region_of_the_usual_size_needs_no_memory_to_start() -> None:
    """It is reserved, and taken arena by arena."""
    with Client(n_workers=1) as client:
        info = client.scheduler_info()
        assert info.region_bytes >= 64 << 20
        assert info.region_bytes & (info.region_bytes - 1) == 0
        assert client.submit(abs, -1).result(PATIENCE_S) == 1


def test_a_cluster_of_the_usual_size_has_a_worker_a_core() -> None:
    """Those that this process may use."""
    with Client(region_size="64MiB") as client:
        assert len(client.scheduler_info().workers) == len(os.sched_getaffinity(0))


# -- processes


def test_a_client_has_all_its_workers_when_it_is_made() -> None:
    """Nothing has to be waited for."""
    with Client(n_workers=3, region_size="64MiB") as client:
        assert len(client.scheduler_info().workers) == 3
        assert len(client.run(os.getpid)) == 3


def test_workers_and_their_cluster_are_named(cluster: LocalCluster) -> None:
    """By the name that was given, or one with this process in it."""
    assert all(name.startswith(cluster.name) for name in cluster.workers)
    assert str(os.getpid()) in cluster.name
    with LocalCluster(1, region_size="64MiB", name="mine") as mine:
        assert list(mine.workers) == ["mine-0"]
        assert "mine" in repr(mine)
        assert "1 worker" in repr(mine)


def test_the_processes_of_a_cluster_are_known_and_live(cluster: LocalCluster) -> None:
    """Server, scheduler and workers; none of them is this one."""
    assert {"server", "scheduler", *cluster.workers} == set(cluster.pids)
    assert all(lives(pid) for pid in cluster.pids.values())
    assert len({os.getpid(), *cluster.pids.values()}) == 5


def test_workers_compute_with_one_thread_each(client: Client) -> None:
    """BLAS and OpenMP would start one a core in every worker, otherwise."""
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    for found in client.run(lambda: {name: os.environ.get(name) for name in names}).values():
        assert found == dict.fromkeys(names, "1")


def test_workers_have_the_environment_and_folder_of_who_started_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a process started by hand would."""
    monkeypatch.setenv("SOMETHING_OF_OURS", "is here")
    monkeypatch.chdir(tmp_path)
    with Client(n_workers=1, region_size="64MiB") as client:
        assert client.submit(os.environ.get, "SOMETHING_OF_OURS").result(PATIENCE_S) == "is here"
        assert client.submit(os.getcwd).result(PATIENCE_S) == str(tmp_path)


def test_several_clusters_may_live_side_by_side(shared_cluster: LocalCluster, cluster: LocalCluster) -> None:
    """Each with its own workers."""
    with Client(shared_cluster) as one, Client(cluster) as two:
        assert one.run(os.getpid) == shared_cluster.workers
        assert two.run(os.getpid) == cluster.workers


# -- the end


def test_a_cluster_may_be_closed_again() -> None:
    """And is gone after the first time: processes and folder."""
    cluster = LocalCluster(2, region_size="64MiB")
    pids, folder = cluster.pids, Path(cluster.address.removeprefix("unix:")).parent
    assert folder.exists()
    for _ in range(2):
        cluster.close()
        assert not any(lives(pid) for pid in pids.values())
        assert not folder.exists()


def perish_when_told() -> None:
    """A task that its worker's SIGTERM ends, and the worker with it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.sigwait({signal.SIGTERM})
    os.kill(os.getpid(), signal.SIGKILL)


def test_closing_a_cluster_before_its_client_ends_the_waits_of_the_client(cluster: LocalCluster) -> None:
    """With a named error, and its close() works."""
    with Client(cluster) as client:
        futures = client.map(lambda _: perish_when_told(), range(2))
        with pytest.raises(TimeoutError):
            client.gather(futures, timeout=0.1)
        cluster.close()
        with pytest.raises((SchedulerDied, ServerDied)):
            futures[0].result(PATIENCE_S)
        with pytest.raises((SchedulerDied, ServerDied)):
            client.submit(abs, -1).result(PATIENCE_S)


def test_a_cluster_closes_soon_whatever_it_was_just_doing() -> None:
    """Workers that hear of their client's end and of their own at once miss neither."""
    for _ in range(6):
        with Client(n_workers=3, region_size="64MiB") as client:
            client.gather(client.map(abs, range(1000)))
            began = time.monotonic()
        assert time.monotonic() - began < 1


def test_a_cluster_closes_though_a_task_does_not_end(gate: Gate) -> None:
    """Its worker is given some seconds, and then is killed."""
    with Client(n_workers=1, region_size="64MiB") as client:
        client.submit(stop_at, gate.name)
        pid = gate.arrival().pid
    assert not lives(pid)


def test_a_client_of_a_cluster_that_was_closed_is_refused(cluster: LocalCluster) -> None:
    """At once, and by name."""
    cluster.close()
    with pytest.raises(NahanniError):
        Client(cluster, timeout=2)


def test_an_embedded_cluster_ends_with_its_client() -> None:
    """Processes and folder."""
    with Client(n_workers=1, region_size="64MiB") as client:
        info = client.scheduler_info()
        pids = [info.pid, *(worker.pid for worker in info.workers.values())]
    assert not any(lives(pid) for pid in pids)


FORGETFUL = """
from nahanni_compute import Client, LocalCluster
{made}
print(client.submit(pow, 2, 5).result(), *(worker.pid for worker in client.scheduler_info().workers.values()))
"""


@pytest.mark.parametrize(
    "made",
    [
        "client = Client(n_workers=2, region_size='64MiB')",
        "cluster = LocalCluster(2, region_size='64MiB'); client = Client(cluster)",
        "client = Client(LocalCluster(2, region_size='64MiB'))",
    ],
)
@pytest.mark.parametrize("last", ["", "\nraise SystemExit(0)", "\nfutures = client.map(abs, range(100_000))"], ids=["end", "exit", "busy"])
def test_a_program_that_closes_nothing_leaves_nothing(tmp_path: Path, made: str, last: str) -> None:
    """The interpreter's end is the cluster's, without a word on standard error."""
    said = run_script(FORGETFUL.format(made=made) + last, tmp_path, check=False)
    value, *pids = said.split()
    assert value == "32"
    assert len(pids) == 2, said
    assert not any(lives(int(pid)) for pid in pids)


def test_an_error_within_with_ends_the_cluster(tmp_path: Path) -> None:
    """And is the error that is seen."""
    pids = []

    def fails() -> None:
        with Client(n_workers=1, region_size="64MiB") as client:
            pids.append(client.submit(os.getpid).result(PATIENCE_S))
            raise LookupError

    with pytest.raises(LookupError):
        fails()
    assert not any(lives(pid) for pid in pids)


# -- addresses


def test_another_process_may_use_the_cluster_by_its_address(shared_cluster: LocalCluster, tmp_path: Path) -> None:
    """Its functions come along, and the workers are the same."""
    script = """
import os, sys
from nahanni_compute import Client
with Client(sys.argv[1]) as client:
    print(client.gather(client.map(lambda x: x * 2, range(5))), sorted(client.run(os.getpid).values()))
"""
    said = run_script(script, tmp_path, shared_cluster.address)
    assert said.strip() == f"[0, 2, 4, 6, 8] {sorted(shared_cluster.workers.values())}"


def test_an_address_may_be_a_bare_path_or_a_path_object(socket: Path) -> None:
    """With or without unix: before it."""
    for address in (str(socket), socket, f"unix:{socket}"):
        with Client(address) as client:
            assert client.submit(abs, -1).result(PATIENCE_S) == 1


def test_the_environment_names_the_region_of_a_client_without_an_address(
    shared_cluster: LocalCluster, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NAHANNI_SHM; no cluster is started."""
    monkeypatch.setenv("NAHANNI_SHM", str(socket))
    with Client() as client:
        assert client.run(os.getpid) == shared_cluster.workers


def test_an_address_that_is_given_comes_before_the_environment(socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may name anything."""
    monkeypatch.setenv("NAHANNI_SHM", "/nowhere.sock")
    with Client(socket) as client:
        assert client.submit(abs, -1).result(PATIENCE_S) == 1


@pytest.mark.parametrize("arguments", [{"n_workers": 2}, {"region_size": "64MiB"}], ids=lambda given: next(iter(given)))
def test_what_belongs_to_an_embedded_cluster_is_refused_beside_an_address(
    shared_cluster: LocalCluster, socket: Path, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TypeError, for an address, a cluster, and NAHANNI_SHM."""
    for shm in (socket, shared_cluster):
        with pytest.raises(TypeError, match="n_workers and region_size"):
            Client(shm, **arguments)
    monkeypatch.setenv("NAHANNI_SHM", str(socket))
    with pytest.raises(TypeError, match="NAHANNI_SHM"):
        Client(**arguments)


@pytest.mark.parametrize("kind", ["nothing", "a file", "a folder", "a dead socket"])
def test_where_no_region_is_the_error_says_what_is_there(kind: str, tmp_path: Path) -> None:
    """NoDevice or AccessRefused, within the timeout."""
    for place in (tmp_path / "region.sock", tmp_path / "region-host.sock"):
        if kind == "a file":
            place.write_text("")
        elif kind == "a folder":
            place.mkdir()
        elif kind == "a dead socket":
            with sockets.socket(sockets.AF_UNIX) as listener:
                listener.bind(str(place))
    began = time.monotonic()
    with pytest.raises((NoDevice, AccessRefused), match=r"region(-host)?\.sock"):
        Client(tmp_path / "region.sock", timeout=0.5)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "unix:", "", "http:x"])
def test_an_address_of_no_known_kind_is_refused(address: str) -> None:
    """The error says which kinds there are."""
    with pytest.raises(UsageError, match="unix:PATH"):
        Client(address)


def test_a_device_that_is_not_there_is_named() -> None:
    """As in a guest without ivshmem."""
    with pytest.raises((NoDevice, AccessRefused), match="/dev/uio99"):
        Client("/dev/uio99", timeout=0.5)
