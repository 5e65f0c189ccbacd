"""What a client promises of submit, map, gather and run (API.md), on a cluster that nobody harms."""

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nahanni_compute import Client, LocalCluster
from nahanni_compute.errors import NoSuchWorker, UsageError

from .gates import Gate, stop_at

PATIENCE_S = 20.0


def add(a: int, b: int = 10, *, c: int = 0) -> int:
    """A task with every kind of parameter."""
    return a + b + c


Pair = namedtuple("Pair", "left right")


def note(path: str) -> None:
    """A task that can be counted."""
    with open(path, "ab") as file:
        file.write(b"x")


def fail_if_odd(value: int) -> int:
    """A task that raises for odd numbers."""
    if value % 2:
        raise ValueError(value)
    return value


# -- submit


def test_submit_returns_what_the_function_returns(client: Client) -> None:
    """The value itself, through a future."""
    assert client.submit(pow, 2, 10).result(PATIENCE_S) == 1024


def test_arguments_travel_by_position_and_by_name(client: Client) -> None:
    """Also those that are only one of the two."""
    futures = [client.submit(add, 1), client.submit(add, 1, 2), client.submit(add, 1, b=3), client.submit(add, 1, c=4)]
    assert client.gather(futures) == [11, 3, 4, 15]


def test_names_that_submit_itself_uses_belong_to_the_function(client: Client) -> None:
    """`fn` and `self` are ordinary names of keyword arguments."""
    assert client.submit(lambda **named: named, fn=1, self=2, args=3).result(PATIENCE_S) == {"fn": 1, "self": 2, "args": 3}


def test_a_task_without_arguments_and_without_a_result_gives_none(client: Client) -> None:
    """None is a result like others."""
    future = client.submit(lambda: None)
    assert future.result(PATIENCE_S) is None
    assert future.done()
    assert future.exception() is None


def test_every_call_runs_even_if_it_is_the_same(client: Client, tmp_path: Path) -> None:
    """There is no caching by content."""
    client.gather([client.submit(note, str(tmp_path / "noted")) for _ in range(20)])
    assert (tmp_path / "noted").read_bytes() == b"x" * 20


def test_arguments_are_those_of_the_moment_of_the_call(client: Client, gate: Gate) -> None:
    """What the caller does to a list later is not seen, though the task has not begun."""
    blocked = client.map(stop_at, [gate.name, gate.name])
    values = [1, 2, 3]
    future = client.submit(sum, values)
    values.append(1000)
    gate.close()
    assert future.result(PATIENCE_S) == 6
    client.gather(blocked)


def test_more_tasks_than_one_bundle_holds_may_be_submitted(client: Client) -> None:
    """In order, each with its own result."""
    futures = [client.submit(add, i, 1) for i in range(20_000)]
    assert client.gather(futures) == list(range(1, 20_001))


def test_tasks_run_in_processes_other_than_the_clients(client: Client, shared_cluster: LocalCluster) -> None:
    """Those of the cluster's workers."""
    pids = set(client.gather(client.map(lambda _: os.getpid(), range(200))))
    assert pids <= set(shared_cluster.workers.values())


# -- map


def test_map_gives_the_results_in_the_order_of_the_items(client: Client) -> None:
    """Whichever worker was first."""
    assert client.gather(client.map(lambda x: x * x, range(1000))) == [x * x for x in range(1000)]


def test_of_several_iterables_each_gives_one_argument(client: Client) -> None:
    """As the built-in map does."""
    assert client.gather(client.map(add, [1, 2, 3], (10, 20, 30))) == [11, 22, 33]


@pytest.mark.parametrize("sizes", [(5, 3), (3, 5), (4, 4, 0), (3, 9, 5)])
def test_the_shortest_iterable_ends_a_map(client: Client, sizes: tuple[int, ...]) -> None:
    """Wherever it stands among them."""
    futures = client.map(lambda *items: len(items), *(range(size) for size in sizes))
    assert client.gather(futures) == [len(sizes)] * min(sizes)


@pytest.mark.parametrize("empty", [(), [], range(0), {}, iter(())], ids=str)
def test_a_map_of_nothing_is_an_empty_sequence(client: Client, empty: Any) -> None:
    """And gathers to an empty list, without a wait."""
    futures = client.map(add, empty)
    assert client.gather(futures, timeout=PATIENCE_S) == []
    assert list(futures) == []


def test_a_map_without_an_iterable_is_refused(client: Client) -> None:
    """It would have no end."""
    with pytest.raises(UsageError, match="iterable"):
        client.map(add)


def test_a_generator_may_be_mapped_over(client: Client) -> None:
    """Alone or beside something that has a length."""
    assert client.gather(client.map(add, (i for i in range(5)))) == [10, 11, 12, 13, 14]
    assert client.gather(client.map(add, (i for i in range(5)), [1, 2])) == [1, 3]


@pytest.mark.parametrize("items", ["text", b"bytes", {"a": 1, "b": 2}, {7}, (1, "two", None, [3])], ids=str)
def test_what_has_a_length_and_can_be_iterated_may_be_mapped_over(client: Client, items: Any) -> None:
    """Its items are what iterating it gives."""
    assert client.gather(client.map(lambda item: item, items)) == list(items)


def test_an_item_that_is_a_tuple_or_a_dict_stays_one_argument(client: Client) -> None:
    """Only several iterables make several arguments."""
    assert client.gather(client.map(lambda *a, **k: (a, k), [(1, 2), {"b": 3}, ()])) == [(((1, 2),), {}), (({"b": 3},), {}), (((),), {})]


def test_an_iterable_that_raises_ends_the_map_and_not_the_client(client: Client) -> None:
    """The error is the caller's to see; what was written before it harms nobody."""

    class Broken:
        def __len__(self) -> int:
            return 10_000

        def __iter__(self) -> Iterator[int]:
            yield from range(9_000)
            raise LookupError("the source broke")

    with pytest.raises(LookupError, match="the source broke"):
        client.map(add, Broken())
    assert client.gather(client.map(add, range(3))) == [10, 11, 12]


def test_a_length_that_is_too_great_is_not_believed(client: Client) -> None:
    """The map ends with its last item."""

    class Boaster:
        def __len__(self) -> int:
            return 100

        def __iter__(self) -> Iterator[int]:
            return iter(range(7))

    assert client.gather(client.map(add, Boaster()), timeout=PATIENCE_S) == list(range(10, 17))


def test_a_million_items_are_mapped(client: Client) -> None:
    """Each by itself, all results right."""
    futures = client.map(lambda x: x + 1, range(1_000_000))
    assert len(futures) == 1_000_000
    assert client.gather(futures, timeout=60) == list(range(1, 1_000_001))


def test_two_maps_may_be_under_way_at_once(client: Client) -> None:
    """Gathered in either order."""
    first, second = client.map(add, range(500)), client.map(fail_if_odd, range(0, 1000, 2))
    assert client.gather(second) == list(range(0, 1000, 2))
    assert client.gather(first) == list(range(10, 510))


# -- gather


def test_gather_keeps_the_nesting_and_what_is_no_future(client: Client) -> None:
    """Lists, tuples and dicts, of any depth; other values pass through."""
    one, two, three = (client.submit(add, i, 0) for i in (1, 2, 3))
    nested = {"a": [one, (two, {"b": three})], "c": "as it is", "d": [], "e": client.map(add, [1])}
    assert client.gather(Pair(one, [two])) == Pair(1, [2])
    assert client.gather(nested) == {"a": [1, (2, {"b": 3})], "c": "as it is", "d": [], "e": [11]}


def test_gather_of_an_iterator_is_a_list(client: Client) -> None:
    """Of a generator, of the iterator of a map, of one that is empty."""
    futures = client.map(add, range(3))
    for iterator in ((future for future in futures), iter(futures), (futures[i] for i in range(3))):
        assert client.gather(iterator) == [10, 11, 12]
    assert client.gather(iter(())) == []


def test_gather_of_one_future_is_its_result(client: Client) -> None:
    """Not a list of it."""
    assert client.gather(client.submit(add, 1)) == 11


def test_gather_of_the_same_future_twice_gives_its_result_twice(client: Client) -> None:
    """A future is not used up."""
    future = client.submit(add, 1)
    assert client.gather([future, future]) == [11, 11]


def test_gather_raises_what_the_first_failed_item_raised(client: Client) -> None:
    """First in the order of the futures, not of time."""
    with pytest.raises(ValueError, match=r"^3$"):
        client.gather(client.map(fail_if_odd, [0, 2, 3, 4, 5]))
    with pytest.raises(ValueError, match=r"^3$"):
        client.gather([client.submit(fail_if_odd, i) for i in (0, 2, 3, 4, 5)])


def test_gather_leaves_failed_items_out_if_asked(client: Client) -> None:
    """At every depth, and the order stays."""
    futures = client.map(fail_if_odd, range(6))
    assert client.gather(futures, errors="skip") == [0, 2, 4]
    assert client.gather(list(futures), errors="skip") == [0, 2, 4]
    assert client.gather({"x": futures[1], "y": (futures[2], [futures[3]])}, errors="skip") == {"y": (2, [])}


def test_gather_refuses_a_way_with_errors_that_it_does_not_know(client: Client) -> None:
    """A slip of the pen is not taken for "raise"."""
    with pytest.raises(UsageError, match="ignore"):
        client.gather([], errors="ignore")  # type: ignore[arg-type]


# -- run


def test_run_calls_on_every_worker_once(client: Client, shared_cluster: LocalCluster) -> None:
    """The answers by worker's name."""
    assert client.run(os.getpid) == shared_cluster.workers


def test_run_takes_arguments_and_names_of_workers(client: Client, shared_cluster: LocalCluster) -> None:
    """Only those that are named run it."""
    name = sorted(shared_cluster.workers)[0]
    assert client.run(add, 1, b=2, c=3, workers=[name]) == {name: 6}
    assert client.run(add, 1, workers=[]) == {}


def test_run_on_a_worker_that_is_not_there_says_who_is(client: Client, shared_cluster: LocalCluster) -> None:
    """The error names both."""
    with pytest.raises(NoSuchWorker, match="nobody") as caught:
        client.run(add, 1, workers=["nobody"])
    assert sorted(shared_cluster.workers)[0] in str(caught.value)


def test_run_goes_beside_running_tasks_not_behind_them(client: Client, gate: Gate) -> None:
    """Both workers are busy, with more tasks waiting, and it returns."""
    futures = [client.submit(stop_at, gate.name) for _ in range(6)]
    busy = {arrived.pid for arrived in gate.arrivals(2)}
    assert set(client.run(os.getpid, timeout=PATIENCE_S).values()) == busy
    gate.close()
    client.gather(futures)


def test_run_with_a_timeout_ends(client: Client, gate: Gate) -> None:
    """What was started goes on."""
    with pytest.raises(TimeoutError):
        client.run(stop_at, gate.name, timeout=0.1)
    gate.close()


def test_run_raises_what_the_function_raised(client: Client) -> None:
    """As a result would."""
    with pytest.raises(ValueError, match=r"^1$"):
        client.run(fail_if_odd, 1)
