"""What an event costs the scheduler's state machine, alone: `python -m benchmarks.scheduler_events`. The goal is 5 us."""

from __future__ import annotations

import time
from collections import deque

from nahanni_compute.machine import this_machine
from nahanni_compute.messages import BundleKey
from nahanni_compute.region.layout import MAP_ITEMS_MAX
from nahanni_compute.region.slots import Key
from nahanni_compute.scheduler.events import Closed, Done, Event, Grant, Opened, WorkerJoined
from nahanni_compute.scheduler.tasks import Tasks

CLIENT, WORKERS = Key(1, 1), (Key(8, 1), Key(9, 1))
ROUNDS = 5


def map_once(items: int, ns_each: int) -> tuple[int, float]:
    """Events of one map on two workers, and microseconds an event: making it, handling it, and the grants that follow."""
    tasks = Tasks()
    batch: list[Event] = [WorkerJoined(worker, "w", 1) for worker in WORKERS]
    for at in range(0, items, MAP_ITEMS_MAX):
        n = min(MAP_ITEMS_MAX, items - at)
        batch += [Opened(BundleKey(at, 1), CLIENT, n, 0), Closed(BundleKey(at, 1), CLIENT, n)]
    out = deque(grant for grant in tasks.handle(batch) if isinstance(grant, Grant))
    events, spent = 0, 0.0
    while out:
        worker, _, range_id, lo, hi = out.popleft()
        start = time.perf_counter()
        instructions = tasks.handle((Done(worker, range_id, hi, (hi - lo) * ns_each, 0),))
        spent += time.perf_counter() - start
        events += 1
        out.extend(instructions)  # type: ignore[arg-type]  # only grants come of this
    return events, spent / events * 1e6


def main() -> None:
    """The best of some rounds, for a map of no-ops and for ones whose items are granted by tens and one by one."""
    print(this_machine())
    for items, ns_each in ((100_000, 40), (1_000_000, 40), (100_000, 20_000), (100_000, 1_000_000)):
        events, each_us = min((map_once(items, ns_each) for _ in range(ROUNDS)), key=lambda found: found[1])
        print(f"map of {items:>9,} items of {ns_each:>9,} ns: {events:>6} events, {each_us:.1f} us an event")


if __name__ == "__main__":
    main()
