"""The state machines under random events, against a region in miniature that keeps everything item by item (scheduling.py)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import pytest

from .scheduling import BundleMemory, Held, Worker, World

T = TypeVar("T")
Action = Callable[[World, int, int], None]  # with two numbers to choose by

NS_EACH = (20_000, 50, 0, 600_000, 5_000_000)


def pick(candidates: Iterable[T], number: int) -> T | None:
    found: Sequence[T] = list(candidates)
    return found[number % len(found)] if found else None


def open_bundles(world: World) -> Iterable[BundleMemory]:
    return (bundle for bundle in world.bundles.values() if not bundle.is_released)


def begun(world: World, number: int) -> tuple[Worker, Held] | None:
    """What the loop of a worker is in: the first of its queue, or a call beside it."""
    return pick(((w, held) for w in world.workers.values() for held in [*w.queue[:1], *w.controls]), number)


def client_joins(world: World, a: int, _: int) -> None:
    if not any(key.slot == 1 + a % 3 for key in world.clients):
        world.join_client(1 + a % 3)


def worker_joins(world: World, a: int, b: int) -> None:
    if not any(key.slot == 8 + a % 4 for key in world.workers):
        world.join_worker(8 + a % 4, threads=1 + (b % 4 == 3))


def client_maps(world: World, a: int, b: int) -> None:
    if client := pick(world.clients.values(), a):
        world.append(world.open(client, b % 120 + 1), 120, close=True)


def client_opens(world: World, a: int, b: int) -> None:
    if client := pick(world.clients.values(), a):
        world.open(client, b % 60 + 1)


def client_appends(world: World, a: int, b: int) -> None:
    if bundle := pick((bundle for bundle in open_bundles(world) if not bundle.is_closed), a):
        world.append(bundle, b % 20, close=b % 7 == 6)


def client_calls_one_worker(world: World, a: int, b: int) -> None:
    if (client := pick(world.clients.values(), a)) and (worker := pick(world.workers.values(), b)):
        world.append(world.open(client, 1 + a % 3, worker.key), a % 4, close=b % 2 == 0)


def client_releases(world: World, a: int, _: int) -> None:
    if bundle := pick(open_bundles(world), a):
        world.release(bundle)


def client_goes(world: World, a: int, _: int) -> None:
    if client := pick(world.clients.values(), a):
        world.end_client(client)


def worker_runs(world: World, a: int, b: int) -> None:
    if found := begun(world, a):
        world.run(found[1], b % 20, end=b % 3 == 0)


def worker_answers(world: World, a: int, b: int) -> None:
    if found := begun(world, a):
        world.answer(*found, NS_EACH[b % len(NS_EACH)])


def worker_finishes(world: World, a: int, b: int) -> None:
    if found := begun(world, a):
        world.run(found[1], found[1].limit - found[1].next, end=True)
        world.answer(*found, NS_EACH[b % len(NS_EACH)])


def worker_tells_a_chunk(world: World, a: int, _: int) -> None:
    if found := begun(world, a):
        world.tell_chunk(*found)


def pump_gives_back(world: World, a: int, b: int) -> None:
    if found := begun(world, a):
        world.give_back(*found, late=b % 2 == 1)


def pump_publishes(world: World, a: int, _: int) -> None:
    if worker := pick(world.workers.values(), a):
        worker.publish_late()


def scheduler_reads_a_ring(world: World, a: int, _: int) -> None:
    if worker := pick(world.workers.values(), a):
        world.deliver(worker)


def worker_leaves(world: World, a: int, _: int) -> None:
    if worker := pick(world.workers.values(), a):
        world.end_worker(worker, killed=False)


def worker_dies(world: World, a: int, b: int) -> None:
    if worker := pick(world.workers.values(), a):
        if b % 2 and worker.queue:
            world.run(worker.queue[0], 1, end=False)
        world.end_worker(worker, killed=True)


WEIGHTS: dict[Action, int] = {
    worker_finishes: 12,
    worker_runs: 10,
    scheduler_reads_a_ring: 25,
    worker_answers: 4,
    worker_tells_a_chunk: 4,
    pump_gives_back: 6,
    pump_publishes: 4,
    client_maps: 5,
    client_opens: 3,
    client_appends: 12,
    client_calls_one_worker: 2,
    client_releases: 4,
    client_joins: 3,
    worker_joins: 6,
    worker_dies: 2,
    worker_leaves: 1,
    client_goes: 1,
}
STEPS = 500


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_each_item_is_answered_once_and_all_is_forgotten_in_the_end(seed: int) -> None:
    """None lost, none with two living holders, nothing forgotten while it is out; at the end the heap is whole but for the dead."""
    rnd = random.Random(seed)
    world = World()
    world.join_client(1)
    world.join_worker(8, 1)
    for action in rnd.choices(list(WEIGHTS), list(WEIGHTS.values()), k=STEPS):
        action(world, rnd.randrange(1000), rnd.randrange(1000))
        world.check_waiting()
    world.finish()
