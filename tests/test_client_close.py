"""The end of a client: in order, again, with work under way, and what may be asked of it afterwards."""

from __future__ import annotations

import time

import pytest

from nahanni_compute import Client, LocalCluster
from nahanni_compute.errors import ClosedError

from .gates import Gate, stop_at

PATIENCE_S = 20.0


def add(a: int, b: int = 10) -> int:
    """A task."""
    return a + b


def test_close_may_be_called_again(shared_cluster: LocalCluster) -> None:
    """Also after `with`."""
    with Client(shared_cluster) as client:
        client.close()
    client.close()


def test_a_closed_client_refuses_by_name(shared_cluster: LocalCluster) -> None:
    """Whatever it is asked for, at once."""
    with Client(shared_cluster) as client:
        client.submit(add, 1).result(PATIENCE_S)
    for call in (
        lambda: client.submit(add, 1),
        lambda: client.submit(lambda: None),
        lambda: client.map(add, [1]),
        lambda: client.map(add, []),
        lambda: client.run(add, 1),
        client.scheduler_info,
        client.statistics,
    ):
        with pytest.raises(ClosedError, match="closed"):
            call()


def test_a_future_of_a_closed_client_says_so(shared_cluster: LocalCluster) -> None:
    """Read before or not; by result, gather and exception."""
    with Client(shared_cluster) as client:
        futures = client.map(add, range(3))
        single = client.submit(add, 1)
        assert single.result(PATIENCE_S) == 11
    for call in (single.result, single.exception, futures[0].result, lambda: client.gather(futures), lambda: client.gather([single])):
        with pytest.raises(ClosedError):
            call()


def test_closing_a_client_leaves_a_cluster_it_did_not_start(shared_cluster: LocalCluster, client: Client) -> None:
    """Others go on, and a new one may come."""
    with Client(shared_cluster) as other:
        assert other.submit(add, 1).result(PATIENCE_S) == 11
    assert client.submit(add, 2).result(PATIENCE_S) == 12


def test_a_client_with_work_under_way_closes_at_once(shared_cluster: LocalCluster, gate: Gate) -> None:
    """Its tasks are nobody's; the workers are free for others when they end."""
    with Client(shared_cluster) as client:
        client.map(stop_at, [gate.name] * 50)
        gate.arrivals(2)
        began = time.monotonic()
    assert time.monotonic() - began < 2
    gate.close()
    with Client(shared_cluster) as other:
        assert other.submit(add, 1).result(PATIENCE_S) == 11
