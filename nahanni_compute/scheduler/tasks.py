"""The scheduler's state machine of tasks: events in, instructions out. No I/O, clock, randomness or shared memory.

An item of a bundle is nobody's, or in one range that is out, or answered. A range ends with its DONE or with its worker; what
of it was not run is nobody's again, and granted again. A bundle lives while its client has not released it or a range of it is
out (F1); then each worker that told a chunk of it drops those, and the client gets its block back (B13).

What endpoints say is checked here as far as it concerns tasks. Who says what it may not say is reported as a Violation and
granted nothing more; nothing else is changed by it. What is late, or said twice, is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from nahanni_compute.messages import BundleKey
from nahanni_compute.region.layout import BUNDLE_CONTROL, MAP_ITEMS_MAX
from nahanni_compute.scheduler import events
from nahanni_compute.scheduler.bundles import Bundle, Client
from nahanni_compute.scheduler.events import BundleGone, Control, Drop, Event, Forget, Grant, Instruction, Lose, NoGrants, Violation
from nahanni_compute.scheduler.grants import Granting, Range, Worker

if TYPE_CHECKING:
    from nahanni_compute.region.slots import Key

WORKER_DEATHS_MAX: Final = 3  # an item that more workers died in is lost


class Broken(Exception):
    """An endpoint said what it may not say. Raised before anything is changed by it."""

    def __init__(self, endpoint: Key, reason: str) -> None:
        super().__init__(reason)
        self.endpoint, self.reason = endpoint, reason


class Tasks:
    """Bundles, ranges and grants of one region."""

    def __init__(self, worker_deaths_max: int = WORKER_DEATHS_MAX) -> None:
        self._worker_deaths_max = worker_deaths_max
        self._clients: dict[Key, Client] = {}
        self._bundles: dict[BundleKey, Bundle] = {}
        self._ages = count()
        self._granting = Granting()
        self._workers = self._granting.workers
        self._out: list[Instruction] = []  # of the batch that is being handled
        self._on: dict[type, Callable[[Any], None]] = {
            events.WorkerJoined: self._worker_joined,
            events.WorkerGone: self._worker_gone,
            events.Opened: self._opened,
            events.Counted: self._counted,
            events.Closed: self._closed,
            events.Released: self._released,
            events.Done: self._done,
            events.Back: self._back,
            events.ChunkTold: self._chunk_told,
            events.NoGrants: self._no_grants,
            events.ClientGone: self._client_gone,
        }

    def handle(self, batch: Iterable[Event]) -> list[Instruction]:
        """Take in what happened in one turn; clients' events stand before workers' (B6). Then grant."""
        out = self._out = []
        on = self._on
        for event in batch:
            try:
                on[type(event)](event)
            except Broken as broken:
                self._no_grants(NoGrants(broken.endpoint))
                out.append(Violation(broken.endpoint, broken.reason))
        if self._granting.turns:
            self._granting.grant(out)
        return out

    def ranges_of(self, worker: Key) -> list[Grant]:
        """What a worker holds, as BACKs have left it: at its death, where to look for statuses (A1)."""
        known = self._workers.get(worker)
        return [Grant(worker, held.bundle.key, id, held.lo, held.hi) for id, held in known.ranges.items()] if known else []

    # -- clients

    def _opened(self, event: events.Opened) -> None:
        if event.bundle in self._bundles:
            raise Broken(event.client, f"opened bundle {event.bundle} twice")
        if not 1 <= event.capacity <= MAP_ITEMS_MAX:
            raise Broken(event.client, f"opened a bundle of {event.capacity} items")
        client = self._clients.get(event.client)
        if client is None:
            client = self._clients[event.client] = Client(event.client)
        bundle = Bundle(event.bundle, client, event.capacity, next(self._ages))
        bundle.is_control, bundle.target = bool(event.flags & BUNDLE_CONTROL), event.target
        self._bundles[event.bundle] = client.bundles[event.bundle] = bundle

    def _counted(self, event: events.Counted) -> None:
        bundle = self._bundles.get(event.bundle)
        if bundle is not None and not bundle.is_closed and bundle.grow(event.n):
            self._offer(bundle)

    def _closed(self, event: events.Closed) -> None:
        bundle = self._own(event.bundle, event.client)
        if bundle is None or bundle.is_closed:
            return
        if bundle.grow(event.n):
            self._offer(bundle)
        bundle.is_closed = True

    def _released(self, event: events.Released) -> None:
        bundle = self._own(event.bundle, event.client)
        if bundle is not None:
            self._give_up(bundle)
            self._settle(bundle)

    def _own(self, key: BundleKey, client: Key) -> Bundle | None:
        bundle = self._bundles.get(key)
        if bundle is not None and bundle.client.key != client:
            raise Broken(client, f"closed or released bundle {key} of another client")
        return bundle

    def _client_gone(self, event: events.ClientGone) -> None:
        client = self._clients.pop(event.client, None)
        if client is None:
            return
        client.is_gone = True
        for bundle in client.bundles.values():
            self._give_up(bundle)
        self._settle_group(client)

    # -- workers

    def _worker_joined(self, event: events.WorkerJoined) -> None:
        if event.worker not in self._workers:
            self._workers[event.worker] = Worker(event.worker, max(event.threads, 1))
            self._granting.workers_changed()

    def _done(self, event: events.Done) -> None:
        worker = self._worker(event.worker)
        held = self._held(worker, event.range_id, event.next)
        if held is None:
            return
        bundle, items = held.bundle, event.next - held.lo
        if event.exceptions > items:
            raise Broken(event.worker, f"said {event.exceptions} exceptions of {items} items")
        worker.answer(event.range_id)
        if items:
            bundle.learn(items, event.ns)
        self._give_back(bundle, event.next, held.hi)
        self._answered(bundle)

    def _back(self, event: events.Back) -> None:
        worker = self._worker(event.worker)
        held = self._held(worker, event.range_id, event.begin)
        if held is None:
            return
        hi, held.hi = held.hi, event.begin
        if held.group is not None:
            worker.backs.add(event.range_id)
        self._give_back(held.bundle, event.begin, hi)

    def _chunk_told(self, event: events.ChunkTold) -> None:
        worker, bundle = self._worker(event.worker), self._bundles.get(event.bundle)
        if bundle is None or all(held.bundle is not bundle for held in worker.ranges.values()):
            raise Broken(event.worker, f"told a chunk of bundle {event.bundle}, of which it holds nothing")
        bundle.tellers[event.worker] = None

    def _worker(self, key: Key) -> Worker:
        worker = self._workers.get(key)
        if worker is None:
            raise Broken(key, "answered as a worker, which it is not")
        return worker

    def _held(self, worker: Worker, range_id: int, index: int) -> Range | None:
        """The range that a worker speaks of; None if that was answered before."""
        held = worker.ranges.get(range_id)
        if held is None:
            if range_id >= self._granting.next_range_id or any(range_id in other.ranges for other in self._workers.values()):
                raise Broken(worker.key, f"answered range {range_id}, which it was not granted")
            return None
        if not held.lo <= index <= held.hi:
            raise Broken(worker.key, f"named item {index} of range {range_id}, which is {held.lo}..{held.hi}")
        return held

    def _no_grants(self, event: NoGrants) -> None:
        worker = self._workers.get(event.worker)
        if worker is not None:
            worker.is_barred = True
            self._granting.workers_changed()

    def _worker_gone(self, event: events.WorkerGone) -> None:
        worker = self._workers.pop(event.worker, None)
        if worker is None:
            return
        self._granting.workers_changed()
        for range_id, held in worker.ranges.items():
            bundle = held.bundle
            for lo, hi in event.unset.get(range_id, [(held.lo, held.hi)]):
                blamed = sorted({i for key, i in event.current if key == bundle.key and lo <= i < hi})
                self._return_run(bundle, lo, hi, blamed)
            self._answered(bundle)

    def _return_run(self, bundle: Bundle, lo: int, hi: int, blamed: list[int]) -> None:
        """What a worker that is gone left undone is granted again, but for an item that too many workers died in (B11)."""
        for i in blamed:
            deaths = bundle.deaths[i] = bundle.deaths.get(i, 0) + 1
            if deaths > self._worker_deaths_max and not bundle.is_released:
                self._give_back(bundle, lo, i)
                self._out.append(Lose(bundle.key, i))
                lo = i + 1
        self._give_back(bundle, lo, hi)

    # -- items

    def _give_back(self, bundle: Bundle, lo: int, hi: int) -> None:
        """lo..hi is nobody's again; of a bundle that was released it is given up."""
        if lo < hi and not bundle.is_released:
            bundle.unheld.add(lo, hi)
            self._offer(bundle)

    def _offer(self, bundle: Bundle) -> None:
        """It has items that nobody holds. Those of a CONTROL bundle go to its worker at once; without that worker they are lost."""
        if not bundle.is_control:
            self._granting.turns.add(bundle)
            return
        worker = self._workers.get(bundle.target) if bundle.target else None
        while bundle.unheld.items:
            lo, hi = bundle.unheld.take(bundle.capacity)
            if worker is None:
                self._out.extend(Lose(bundle.key, i) for i in range(lo, hi))
            else:
                range_id = self._granting.hold(worker, bundle, lo, hi, None)
                self._out.append(Control(worker.key, bundle.key, range_id, lo, hi))

    def _answered(self, bundle: Bundle) -> None:
        """One of its ranges is out no more."""
        bundle.ranges_out -= 1
        bundle.client.ranges_out -= 1
        if bundle.is_released:
            self._settle(bundle)

    # -- the end of bundles

    def _give_up(self, bundle: Bundle) -> None:
        bundle.release()
        self._granting.turns.remove(bundle)

    def _settle(self, bundle: Bundle) -> None:
        if bundle.client.is_gone:
            self._settle_group(bundle.client)
        elif not bundle.ranges_out:
            self._drop(bundle)
            self._forget(bundle)
            self._out.append(Forget(bundle.client.key, bundle.key))

    def _settle_group(self, client: Client) -> None:
        """Nothing of any of a gone client's bundles is dropped before all may be: items of one may read another's (A4)."""
        if client.ranges_out:
            return
        bundles = list(client.bundles.values())
        for bundle in bundles:
            self._drop(bundle)
        for bundle in bundles:
            self._forget(bundle)
            self._out.append(BundleGone(bundle.key))

    def _drop(self, bundle: Bundle) -> None:
        self._out.extend(Drop(worker, bundle.key) for worker in bundle.tellers if worker in self._workers)

    def _forget(self, bundle: Bundle) -> None:
        del self._bundles[bundle.key], bundle.client.bundles[bundle.key]
