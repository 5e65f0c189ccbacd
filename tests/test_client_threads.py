"""Several threads on one client, and several clients at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from nahanni_compute import Client, Future, LocalCluster
from nahanni_compute.errors import ClosedError, UnpicklableError

from .gates import Gate, stop_at

PATIENCE_S = 30.0
THREADS = 8


def together(task: Callable[[int], None]) -> None:
    """Call it in THREADS threads that begin at the same moment; raises what one of them raised."""
    start = threading.Barrier(THREADS, timeout=PATIENCE_S)

    def begin(i: int) -> None:
        start.wait()
        task(i)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(begin, i) for i in range(THREADS)]:
            done.result(PATIENCE_S)


def pair(a: object, b: object) -> tuple[object, object]:
    """A task whose result says whose it is."""
    return a, b


def test_threads_may_submit_map_and_gather_at_once(client: Client) -> None:
    """Each finds its own results, in its own order."""

    def work(i: int) -> None:
        for round in range(5):
            submitted = [client.submit(pair, i, n) for n in range(400)]
            mapped = client.map(pair, [i] * 500, range(500))
            assert client.gather(submitted, timeout=PATIENCE_S) == [(i, n) for n in range(400)]
            assert client.gather(mapped, timeout=PATIENCE_S) == [(i, n) for n in range(500)], round

    together(work)


def test_threads_may_use_functions_of_their_own_and_arguments_of_any_size(client: Client) -> None:
    """Closures, pickled values and large ones, mixed."""

    def work(i: int) -> None:
        for n in range(60):
            data = bytes([i]) * (n * 500)
            assert client.submit(lambda d=data, i=i, n=n: (d, i, n)).result(PATIENCE_S) == (data, i, n)
            assert client.submit(pair, data, {i, n}).result(PATIENCE_S) == (data, {i, n})

    together(work)


def test_threads_whose_values_do_not_pickle_harm_no_others(client: Client) -> None:
    """What goes by value in one thread does so while another tries it by reference."""
    lock = threading.Lock()

    def work(i: int) -> None:
        for n in range(100):
            if i % 2:
                with pytest.raises(UnpicklableError):
                    client.submit(pair, pair, lock)
            else:
                assert client.submit(lambda fn, n: fn(n, n), pair, n).result(PATIENCE_S) == (n, n)

    together(work)


def test_threads_may_wait_for_the_same_future(client: Client, gate: Gate) -> None:
    """All get the result, by result, exception and gather."""
    future = client.submit(stop_at, gate.name, "late")
    arrived = gate.arrival()
    waiting = threading.Barrier(THREADS + 1, timeout=PATIENCE_S)

    def wait(i: int) -> object:
        waiting.wait()
        return (lambda: future.result(PATIENCE_S), lambda: client.gather([future])[0], lambda: future.exception(PATIENCE_S))[i % 3]()

    with ThreadPoolExecutor(THREADS) as pool:
        results = [pool.submit(wait, i) for i in range(THREADS)]
        waiting.wait()
        arrived.go()
        assert [result.result(PATIENCE_S) for result in results] == [None if i % 3 == 2 else "late" for i in range(THREADS)]


def test_a_future_made_in_one_thread_may_be_read_and_dropped_in_another(client: Client) -> None:
    """Also the last reference to it."""
    handed: list[Future] = [client.submit(pair, i, i) for i in range(THREADS * 50)]

    def take(i: int) -> None:
        for _ in range(50):
            a, b = handed.pop().result(PATIENCE_S)
            assert a == b

    together(take)
    assert handed == []


def test_a_client_closed_under_a_waiting_thread_ends_its_wait(shared_cluster: LocalCluster, gate: Gate) -> None:
    """With ClosedError, at once."""
    with Client(shared_cluster) as client:
        future = client.submit(stop_at, gate.name)
        gate.arrival()
        with ThreadPoolExecutor(2) as pool:
            waits = [pool.submit(future.result, PATIENCE_S), pool.submit(client.gather, [future])]
            client.close()
            for wait in waits:
                with pytest.raises(ClosedError):
                    wait.result(5)


def test_a_client_closed_under_submitting_threads_refuses_them(shared_cluster: LocalCluster) -> None:
    """With ClosedError and nothing else, wherever they are."""
    begun = threading.Barrier(3, timeout=PATIENCE_S)

    def submit(client: Client, i: int) -> None:
        begun.wait()
        while True:
            if i:
                client.submit(pair, i, [bytes(5000)])
            else:
                client.gather(client.map(pair, range(100), range(100)))

    with ThreadPoolExecutor(2) as pool, Client(shared_cluster) as client:
        working = [pool.submit(submit, client, i) for i in range(2)]
        begun.wait()
        client.submit(abs, -1).result(PATIENCE_S)
        client.close()
        for work in working:
            with pytest.raises(ClosedError):
                work.result(5)


def test_several_clients_of_one_process_do_not_mix(shared_cluster: LocalCluster) -> None:
    """Results, functions and closings are of each."""
    with Client(shared_cluster) as one, Client(shared_cluster) as two, Client(shared_cluster) as three:
        futures = [client.map(pair, [i] * 300, range(300)) for i, client in enumerate((one, two, three))]
        two.close()
        assert one.gather(futures[0]) == [(0, n) for n in range(300)]
        assert three.gather(futures[2]) == [(2, n) for n in range(300)]
        assert one.gather([one.submit(pair, 0, 1), three.submit(pair, 2, 3)]) == [(0, 1), (2, 3)]


def test_clients_may_come_and_go_in_threads(shared_cluster: LocalCluster) -> None:
    """Eight at a time, one after the other in each thread."""

    def work(i: int) -> None:
        for n in range(4):
            with Client(shared_cluster) as client:
                assert client.submit(pair, i, n).result(PATIENCE_S) == (i, n)
                assert client.gather(client.map(lambda x, i=i, n=n: (i, n, x), [1, 2])) == [(i, n, 1), (i, n, 2)]

    together(work)


def test_a_client_does_not_keep_others_waiting(shared_cluster: LocalCluster, gate: Gate) -> None:
    """A single task of one gets through, though another has a thousand under way and one worker is stuck in the first of them."""
    with Client(shared_cluster) as greedy, Client(shared_cluster) as modest:
        many = greedy.map(lambda i, name=gate.name: stop_at(name, i) if i == 0 else i, range(1000))
        arrived = gate.arrival()
        assert modest.submit(pair, 1, 2).result(PATIENCE_S) == (1, 2)
        arrived.go()
        assert greedy.gather(many, timeout=PATIENCE_S) == list(range(1000))
