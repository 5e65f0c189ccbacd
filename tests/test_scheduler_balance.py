"""How well grants balance uneven items: the real state machine, with simulated workers that have the real item loop and pump (B7).

Deterministic: time is simulated. A message takes 30 us each way; a worker ends a range when its budget of 2 ms is used up, its
pump gives back at 2 ms what was not begun. Compared with an oracle, which knows what each item costs and sends no messages.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from nahanni_compute.messages import BundleKey
from nahanni_compute.region.slots import Key
from nahanni_compute.scheduler.events import Back, Closed, Done, Event, Grant, Opened, WorkerJoined
from nahanni_compute.scheduler.tasks import Tasks

MESSAGE_NS, CALL_NS, BUDGET_NS, TICK_NS = 30_000, 50, 2_000_000, 2_000_000
MAP_ITEMS = 65_536
CLIENT = Key(1, 1)


@dataclass
class Worker:
    """The process: ranges that wait, and whether it is in one, since when."""

    key: Key
    granted: deque[Grant] = field(default_factory=deque)
    running: Grant | None = None
    is_backed: bool = False


class Simulation:
    """A map over items of known cost; `run` returns when the last one ended, in ns."""

    def __init__(self, costs: list[int], workers: int) -> None:
        self.costs, self.tasks = costs, Tasks()
        self.workers = {key: Worker(key) for key in (Key(8 + n, 1) for n in range(workers))}
        self.starts = {BundleKey(at, 1): at for at in range(0, len(costs), MAP_ITEMS)}
        self.agenda: list[tuple[int, int, Callable[[], None]]] = []
        self.now = self.end = self.serial = self.events = self.items = 0

    def at(self, time: int, what: Callable[[], None]) -> None:
        self.serial += 1
        heapq.heappush(self.agenda, (time, self.serial, what))

    def tell(self, *batch: Event) -> None:
        self.events += len(batch)
        for grant in self.tasks.handle(batch):
            assert isinstance(grant, Grant)
            self.at(self.now + MESSAGE_NS, lambda grant=grant: self.arrives(grant))  # type: ignore[misc]

    def arrives(self, grant: Grant) -> None:
        worker = self.workers[grant.worker]
        worker.granted.append(grant)
        if worker.is_backed:
            self.give_back(worker)
        elif worker.running is None:
            self.begin(worker)

    def begin(self, worker: Worker) -> None:
        """Run the next range: items until the budget is used up, and the pump's look after 2 ms."""
        worker.is_backed = False
        worker.running = grant = worker.granted.popleft() if worker.granted else None
        if grant is None:
            return
        first = self.starts[grant.bundle]
        time, i, ticked = self.now, grant.lo, False
        while i < grant.hi and time - self.now <= BUDGET_NS:
            time += self.costs[first + i] + CALL_NS
            i += 1
            if not ticked and time > self.now + TICK_NS:
                ticked = True
                self.at(self.now + TICK_NS, lambda begun=i: self.tick(worker, grant, begun))  # type: ignore[misc]
        done = Done(worker.key, grant.range_id, i, time - self.now, 0)
        self.items += i - grant.lo
        self.end = max(self.end, time)
        self.at(time, lambda: self.begin(worker))
        self.at(time + MESSAGE_NS, lambda: self.tell(done))

    def tick(self, worker: Worker, grant: Grant, begun: int) -> None:
        worker.is_backed = True
        self.at(self.now + MESSAGE_NS, lambda: self.tell(Back(worker.key, grant.range_id, begun)))
        self.give_back(worker)

    def give_back(self, worker: Worker) -> None:
        answers = [Done(worker.key, grant.range_id, grant.lo, 0, 0) for grant in worker.granted]
        worker.granted.clear()
        self.at(self.now + MESSAGE_NS, lambda: self.tell(*answers))

    def run(self) -> int:
        self.tell(*(WorkerJoined(key, "w", 1) for key in self.workers))
        for bundle, first in self.starts.items():
            n = min(MAP_ITEMS, len(self.costs) - first)
            self.tell(Opened(bundle, CLIENT, n, 0), Closed(bundle, CLIENT, n))
        while self.agenda:
            self.now, _, what = heapq.heappop(self.agenda)
            what()
        assert self.items == len(self.costs)
        return self.end


def oracle(costs: list[int], workers: int) -> int:
    """The longest item first, each to who is free first: when the last one ends."""
    busy = [0] * workers
    for cost in sorted(costs, reverse=True):
        heapq.heapreplace(busy, busy[0] + cost + CALL_NS)
    return max(busy)


def one_in_a_hundred(n: int) -> list[int]:
    return [5_000_000 if i % 100 == 50 else 20_000 for i in range(n)]


def shuffled(costs: list[int]) -> list[int]:
    random.Random(1).shuffle(costs)
    return costs


def lognormal(n: int) -> list[int]:
    return [int(random.Random(i).lognormvariate(13, 1.3)) for i in range(n)]


# For each worker the same amount of work. With less, the last long item decides, and no policy knows where that is.
UNEVEN: dict[str, Callable[[int], list[int]]] = {
    "one in a hundred is long, in random order": lambda workers: shuffled(one_in_a_hundred(5000 * workers)),
    "the long ones last": lambda workers: sorted(one_in_a_hundred(5000 * workers)),
    "the long ones first": lambda workers: sorted(one_in_a_hundred(5000 * workers), reverse=True),
    "no-ops, then long ones": lambda workers: [0] * 50_000 * workers + [5_000_000] * 100 * workers,
    "long ones only": lambda workers: [5_000_000] * 100 * workers,
    "lognormal about 1 ms": lambda workers: lognormal(1000 * workers),
    "ever longer": lambda workers: [10 * i for i in range(5000 * workers)],
    "ever shorter": lambda workers: [10 * i for i in range(5000 * workers, 0, -1)],
}


@pytest.mark.parametrize("workers", [2, 8])
@pytest.mark.parametrize("costs_for", [pytest.param(costs_for, id=name.replace(" ", "-")) for name, costs_for in UNEVEN.items()])
def test_uneven_items_end_within_a_twentieth_of_an_oracles_split(costs_for: Callable[[int], list[int]], workers: int) -> None:
    """A goal of DESIGN.md, with all that a machine adds left out."""
    costs = costs_for(workers)
    # Lognormal items are just too long to be granted in advance (B7: 0.5 ms), so each waits for a round trip, 60 us of 1 ms.
    limit = 1.06 if costs_for is UNEVEN["lognormal about 1 ms"] and workers == 8 else 1.05
    assert Simulation(costs, workers).run() <= limit * oracle(costs, workers)


def test_an_item_that_runs_long_keeps_none_of_its_neighbours() -> None:
    """A map whose first item sleeps for 2 s has finished 2000 short others long before (BACK)."""
    simulation = Simulation([2_000_000_000, *[20_000] * 2000], 2)
    short = Simulation([20_000] * 2000, 1).run()
    finished: list[int] = []
    tell = simulation.tell

    def noting(*batch: Event) -> None:
        finished.extend(simulation.now for event in batch if isinstance(event, Done) and event.ns < 1_000_000_000)
        tell(*batch)

    simulation.tell = noting  # type: ignore[method-assign]
    assert simulation.run() < 2_001_000_000
    assert max(finished) < 1.1 * short + TICK_NS


def test_a_map_of_no_ops_takes_few_events() -> None:
    """That is why the scheduler may be Python: it sees groups, and never the items."""
    simulation = Simulation([0] * 100_000, 2)
    simulation.run()
    assert simulation.events < 150
