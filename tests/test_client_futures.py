"""Futures: one a task, waited for with or without a timeout, and a sequence of them from a map."""

from __future__ import annotations

import time

import pytest

from nahanni_compute import Client, Future

from .gates import Gate, stop_at

PATIENCE_S = 20.0


def add(a: int, b: int = 10) -> int:
    """A task."""
    return a + b


# -- timeouts


def test_a_wait_with_a_timeout_ends_and_the_task_goes_on(client: Client, gate: Gate) -> None:
    """For result, exception and gather; what they waited for can be had later."""
    future = client.submit(stop_at, gate.name, "late")
    arrived = gate.arrival()
    assert not future.done()
    for wait in (future.result, future.exception, lambda timeout: client.gather([future], timeout=timeout)):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            wait(0.05)
        assert 0.05 <= time.monotonic() - began < 2
    arrived.go()
    assert future.result(PATIENCE_S) == "late"


def test_a_timeout_of_zero_only_looks(client: Client, gate: Gate) -> None:
    """A result that is there is returned."""
    future = client.submit(stop_at, gate.name, "late")
    with pytest.raises(TimeoutError):
        future.result(0)
    gate.arrival().go()
    future.result(PATIENCE_S)
    assert future.result(0) == "late"
    assert client.gather([future], timeout=0) == ["late"]


def test_the_timeout_of_gather_is_one_for_all(client: Client, gate: Gate) -> None:
    """Not one for each future."""
    futures = [client.submit(stop_at, gate.name, i) for i in range(8)]
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        client.gather(futures, timeout=0.2)
    assert time.monotonic() - began < 1
    gate.close()
    assert client.gather(futures) == list(range(8))


# -- futures


def test_a_future_equals_itself_however_often_it_is_taken(client: Client) -> None:
    """And no other; so it can be a key."""
    futures = client.map(add, range(10))
    assert futures[3] == futures[3]
    assert futures[3] != futures[4]
    assert futures[3] != client.map(add, range(10))[3]
    assert len({futures[i % 10] for i in range(30)}) == 10
    assert {future: i for i, future in enumerate(futures)}[futures[7]] == 7


def test_futures_of_a_map_are_a_sequence(client: Client) -> None:
    """Length, index from either end, slice, iteration, membership."""
    futures = client.map(add, range(10))
    assert len(futures) == 10
    assert futures[-1] == futures[9]
    assert futures[2:8:3] == [futures[2], futures[5]]
    assert client.gather(futures[::-1]) == list(range(19, 9, -1))
    assert list(futures) == [futures[i] for i in range(10)]
    assert futures[4] in futures
    assert futures.index(futures[4]) == 4
    assert client.gather(list(reversed(futures)))[0] == 19
    for outside in (10, -11):
        with pytest.raises(IndexError):
            futures[outside]


def test_a_result_may_be_asked_for_again(client: Client) -> None:
    """Each time a private copy, so that nobody sees what another did to it."""
    future = client.submit(lambda: [1, 2])
    first = future.result(PATIENCE_S)
    first.append(3)
    assert future.result() == [1, 2]


def test_a_future_outlives_the_sequence_it_came_from(client: Client) -> None:
    """It keeps what it needs."""
    future = client.map(add, range(1000))[999]
    assert future.result(PATIENCE_S) == 1009


def test_a_future_is_an_instance_of_the_public_type(client: Client) -> None:
    """Of submit and of map."""
    assert isinstance(client.submit(add, 1), Future)
    assert isinstance(client.map(add, [1])[0], Future)
