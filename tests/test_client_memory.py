"""The region's memory as a client sees it: what is dropped comes back, and what does not fit is refused by name."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from nahanni_compute import Client, LocalCluster
from nahanni_compute.errors import RegionFull

PATIENCE_S = 30.0
MIB = 1 << 20
ROUNDS = 200  # of 1 MiB each, through a region of 128 MiB


@pytest.fixture(scope="module")
def small_cluster() -> Iterator[LocalCluster]:
    """The least region there is, with one worker."""
    with LocalCluster(n_workers=1, region_size="64MiB") as cluster:
        yield cluster


def test_results_that_are_dropped_give_their_memory_back(client: Client) -> None:
    """More pass through the region than it holds, one submit after the other."""
    for i in range(ROUNDS):
        assert len(client.submit(bytes, MIB + i).result(PATIENCE_S)) == MIB + i


def test_results_of_maps_that_are_dropped_give_their_memory_back(client: Client) -> None:
    """The same, ten at a time."""
    for _ in range(ROUNDS // 10):
        assert [len(value) for value in client.gather(client.map(bytes, [MIB] * 10))] == [MIB] * 10


def test_arguments_of_tasks_that_are_dropped_give_their_memory_back(client: Client) -> None:
    """By submit and by map."""
    data = bytes(MIB)
    for _ in range(ROUNDS):
        assert client.submit(len, data).result(PATIENCE_S) == MIB
    for _ in range(ROUNDS // 10):
        assert client.gather(client.map(len, [data] * 10)) == [MIB] * 10


def test_futures_that_are_dropped_unread_give_their_memory_back(client: Client) -> None:
    """Nobody ever asks for these results; those of the last one are waited for, so that the tasks do end."""
    for _ in range(ROUNDS // 10):
        last = client.map(bytes, [MIB] * 10)[-1]
        last.result(PATIENCE_S)


def test_results_that_are_held_stay_while_others_pass(client: Client) -> None:
    """Each is what it was."""
    held = [client.submit(bytes([i]).__mul__, MIB) for i in range(10)]
    for _ in range(ROUNDS // 10):
        client.gather(client.map(bytes, [MIB] * 10))
    assert client.gather(held) == [bytes([i]) * MIB for i in range(10)]


def test_functions_that_are_dropped_give_their_memory_back(client: Client) -> None:
    """A closure over 1 MiB is a function of 1 MiB."""
    for i in range(ROUNDS):
        data = bytes([i]) * MIB
        assert client.submit(lambda data=data: data[-1]).result(PATIENCE_S) == i


def test_clients_that_leave_give_their_memory_back(small_cluster: LocalCluster) -> None:
    """One after the other fills most of the heap, 28 MiB here."""
    for _ in range(5):
        with Client(small_cluster) as client:
            assert client.gather(client.map(len, [bytes(MIB)] * 20), timeout=PATIENCE_S) == [MIB] * 20


def test_a_result_that_cannot_fit_is_an_error_of_its_task(small_cluster: LocalCluster) -> None:
    """RegionFull for it alone, with the sizes and what to do; the worker and the client go on."""
    with Client(small_cluster) as client:
        pids = client.run(os.getpid)
        futures = client.map(bytes, [10, 200 * MIB, 20])
        with pytest.raises(RegionFull, match="make the region larger"):
            futures[1].result(PATIENCE_S)
        assert [len(futures[i].result(PATIENCE_S)) for i in (0, 2)] == [10, 20]
        assert client.submit(len, b"abc").result(PATIENCE_S) == 3
        assert client.run(os.getpid) == pids


def test_an_argument_that_cannot_fit_is_refused_where_it_is_given(small_cluster: LocalCluster) -> None:
    """By submit and by map; the client goes on."""
    with Client(small_cluster) as client:
        with pytest.raises(RegionFull, match="make the region larger"):
            client.submit(len, bytes(200 * MIB))
        with pytest.raises(RegionFull, match="make the region larger"):
            client.map(len, [b"a", bytes(200 * MIB), b"b"])
        assert client.submit(len, b"abc").result(PATIENCE_S) == 3
        assert client.gather(client.map(len, [b"a", b"ab"])) == [1, 2]


def test_a_region_that_is_full_of_held_results_is_usable_when_they_are_dropped(small_cluster: LocalCluster) -> None:
    """Some fail with RegionFull, none is wrong."""
    with Client(small_cluster) as client:
        futures = client.map(bytes, [MIB] * 100)
        kept = client.gather(futures, errors="skip", timeout=PATIENCE_S)
        assert 20 < len(kept) < 64
        assert all(len(value) == MIB for value in kept)
        failed = [future.exception() for future in futures]
        assert {type(error) for error in failed if error is not None} == {RegionFull}
        del futures, kept, failed
        assert [len(value) for value in client.gather(client.map(bytes, [MIB] * 20), timeout=PATIENCE_S)] == [MIB] * 20
