"""What a client says of itself, of the cluster and of its own work."""

from __future__ import annotations

import dataclasses
import os
import platform

import pytest

from nahanni_compute import Client, LocalCluster

from .living import wait_until

PATIENCE_S = 20.0


def test_scheduler_info_names_the_scheduler_and_every_worker(client: Client, shared_cluster: LocalCluster) -> None:
    """By name: host, process, way to the region, threads."""
    info = client.scheduler_info()
    assert (info.host, info.pid) == (platform.node(), shared_cluster.pids["scheduler"])
    assert info.region_bytes == 128 << 20
    assert {name: worker.pid for name, worker in info.workers.items()} == shared_cluster.workers
    for worker in info.workers.values():
        assert (worker.host, worker.threads) == (platform.node(), 1)
        assert worker.substrate == info.substrate == shared_cluster.address


def test_statistics_count_doorbells_and_sleeps_of_everyone(client: Client, shared_cluster: LocalCluster) -> None:
    """Of this client, the workers and the scheduler; what was counted appears within a turn of the pump."""
    client.gather(client.map(abs, range(1000)))
    counted = client.statistics().endpoints
    assert {"client", "worker", "scheduler"} <= {one.role for one in counted.values()}
    assert set(shared_cluster.workers) | {client.name} <= set(counted)
    wait_until(lambda: client.statistics().endpoints[client.name].rings > 0)
    assert all(client.statistics().endpoints[name].sleeps > 0 for name in shared_cluster.workers)


def test_counters_only_grow(client: Client) -> None:
    """Each of them."""
    before = client.statistics().endpoints
    client.gather(client.map(abs, range(1000)))
    after = client.statistics().endpoints
    for name, counted in before.items():
        now = after[name]
        assert all(getattr(counted, field) <= getattr(now, field) for field in ("rings", "sleeps", "wakes", "rescues"))


def test_what_is_told_cannot_be_changed(client: Client) -> None:
    """Frozen, as a picture of a moment is."""
    for told in (client.scheduler_info(), client.statistics()):
        assert dataclasses.is_dataclass(told)
        with pytest.raises(dataclasses.FrozenInstanceError):
            told.anything = 1  # type: ignore[union-attr]


def test_the_picture_of_a_client_says_its_name_its_workers_and_its_region(shared_cluster: LocalCluster) -> None:
    """And after the end, that it is closed."""
    with Client(shared_cluster, name="mine") as client:
        assert repr(client) == f"<Client mine: 2 workers, over {shared_cluster.address}>"
    assert repr(client) == "<Client mine: closed>"


def test_the_picture_of_futures_says_how_many_they_are(client: Client) -> None:
    """And that of a future does not wait for it."""
    futures = client.map(abs, range(12))
    assert "12" in repr(futures)
    assert "Future" in repr(futures[0])


def test_a_client_without_a_name_has_one(client: Client) -> None:
    """Its process is in it."""
    assert str(os.getpid()) in client.name


def test_clients_of_the_same_name_are_counted_apart(shared_cluster: LocalCluster) -> None:
    """None hides the other."""
    with Client(shared_cluster, name="twin") as one, Client(shared_cluster, name="twin"):
        assert sum(name.startswith("twin") for name in one.statistics().endpoints) == 2
