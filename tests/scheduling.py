"""A region in miniature for the scheduler's state machines: clients, workers and their memory, item by item.

It knows nothing of ranges that are split and joined: it has one status an item, and who may store it. Whatever the scheduler
says is checked against that, at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from nahanni_compute.messages import BundleKey
from nahanni_compute.region.layout import BUNDLE_CONTROL, KIB, MIB
from nahanni_compute.region.slots import Key
from nahanni_compute.scheduler import events
from nahanni_compute.scheduler.events import Event, Instruction
from nahanni_compute.scheduler.grants import CREDITS
from nahanni_compute.scheduler.objects import Heap
from nahanni_compute.scheduler.tasks import Tasks

DEATHS_MAX = 1
DONE, LOST = "done", "lost"


@dataclass
class Held:
    """A range at its worker: next and limit are the two words of B7's item loop."""

    range_id: int
    bundle: BundleMemory
    lo: int
    next: int
    limit: int
    running: int | None = None  # begun, and no status yet
    is_backed: bool = False


@dataclass
class BundleMemory:
    """A bundle's block, and what its client and K ought to know of it."""

    key: BundleKey
    client: Client
    capacity: int
    target: Key | None
    count: int = 0
    statuses: dict[int, str] = field(default_factory=dict)
    deaths: Counter[int] = field(default_factory=Counter)
    out: set[int] = field(default_factory=set)  # ranges granted, whose DONE K has not seen and whose holder lives
    tellers: set[Key] = field(default_factory=set)
    is_closed: bool = False
    is_released: bool = False


@dataclass
class Client:
    """It lays its bundles into its arena, 4 KiB each, and uses blocks again that come back."""

    key: Key
    free: list[int] = field(default_factory=list)
    bundles: dict[BundleKey, BundleMemory] = field(default_factory=dict)
    is_gone: bool = False


@dataclass
class Worker:
    """Two threads: the item loop, and the pump, whose BACK may come after the loop's DONE."""

    key: Key
    arena: int
    queue: list[Held] = field(default_factory=list)
    controls: list[Held] = field(default_factory=list)
    outbox: list[Event] = field(default_factory=list)
    late: list[Event] = field(default_factory=list)
    backed: set[int] = field(default_factory=set)  # K has seen the BACK, and no DONE
    told: int = 0

    @property
    def held(self) -> list[Held]:
        """Ranges that it has not answered."""
        return self.queue + self.controls

    def publish_late(self) -> None:
        """The pump's messages reach the ring."""
        self.outbox.extend(self.late)
        self.late.clear()


class World:
    """All of it. Every method that tells the scheduler something checks what it says."""

    def __init__(self) -> None:
        self.tasks, self.heap = Tasks(DEATHS_MAX), Heap(1 << 30)
        self.all_bytes = self.heap.free_bytes
        self.clients: dict[Key, Client] = {}
        self.workers: dict[Key, Worker] = {}
        self.bundles: dict[BundleKey, BundleMemory] = {}
        self.last_range_id = 0
        self.serial = 0
        self.dead_bytes = 0
        self.lives: Counter[int] = Counter()

    def new_key(self, slot: int) -> Key:
        self.lives[slot] += 1
        return Key(slot, self.lives[slot])

    def new_arena(self, key: Key) -> int:
        (commit,) = self.heap.ask(key, MIB)
        assert isinstance(commit, events.Commit)
        assert self.heap.committed(*commit) == [events.Give(key, *commit)]
        return commit.offset

    # -- what endpoints do

    def join_client(self, slot: int) -> None:
        key = self.new_key(slot)
        arena = self.new_arena(key)
        self.clients[key] = Client(key, [arena + 4 * KIB * n for n in range(256)])

    def join_worker(self, slot: int, threads: int) -> None:
        key = self.new_key(slot)
        self.workers[key] = Worker(key, self.new_arena(key))
        self.tell([events.WorkerJoined(key, f"w{slot}", threads)])

    def open(self, client: Client, capacity: int, target: Key | None = None) -> BundleMemory:
        self.serial += 1
        bundle = BundleMemory(BundleKey(client.free.pop(), self.serial), client, capacity, target)
        client.bundles[bundle.key] = self.bundles[bundle.key] = bundle
        assert self.heap.opened(client.key, bundle.key, capacity) == []
        self.tell([events.Opened(bundle.key, client.key, capacity, BUNDLE_CONTROL if target else 0, target)])
        return bundle

    def append(self, bundle: BundleMemory, items: int, *, close: bool) -> None:
        bundle.count = min(bundle.count + items, bundle.capacity)
        key, n = bundle.key, bundle.count
        bundle.is_closed = close
        self.tell([events.Closed(key, bundle.client.key, n) if close else events.Counted(key, n)])

    def release(self, bundle: BundleMemory) -> None:
        bundle.is_released = True
        self.tell([events.Released(bundle.key, bundle.client.key)])

    def run(self, held: Held, items: int, *, end: bool) -> None:
        """Finish the item that runs, and begin so many more; the last is finished too if `end`."""
        for more in range(items, -1, -1):
            if held.running is not None and (more or end):
                assert held.running not in held.bundle.statuses, "an item is answered once an attempt"
                held.bundle.statuses[held.running] = DONE
                held.running = None
            if not more or held.next >= held.limit:
                break
            held.running = held.next
            held.next += 1

    def answer(self, worker: Worker, held: Held, ns_each: int) -> None:
        """DONE, after the last status (B5)."""
        self.run(held, 0, end=True)
        (worker.queue if held in worker.queue else worker.controls).remove(held)
        worker.outbox.append(events.Done(worker.key, held.range_id, held.next, ns_each * (held.next - held.lo), 0))

    def give_back(self, worker: Worker, held: Held, *, late: bool) -> None:
        """The pump's part of B7: the limit first, then BACK, then what was granted in advance."""
        if held.is_backed:
            return
        held.is_backed, held.limit = True, held.next
        (worker.late if late else worker.outbox).append(events.Back(worker.key, held.range_id, held.next))
        if held in worker.queue:
            for other in [h for h in worker.queue if h is not held and h.next == h.lo and not h.is_backed]:
                self.answer(worker, other, 0)

    def tell_chunk(self, worker: Worker, held: Held) -> None:
        worker.told += 1
        worker.outbox.append(events.ChunkTold(worker.key, held.bundle.key, worker.arena + 64 * worker.told, 64))

    # -- what K sees

    def deliver(self, worker: Worker) -> None:
        """K reads all of its mail in one turn."""
        mail, worker.outbox = worker.outbox, []
        for event in mail:
            if isinstance(event, events.ChunkTold):
                assert self.heap.chunk_told(worker.key, event.bundle, event.offset, event.nbytes) == []
                self.bundles[event.bundle].tellers.add(worker.key)
            elif isinstance(event, events.Done):
                worker.backed.discard(event.range_id)
                for bundle in self.bundles.values():
                    bundle.out.discard(event.range_id)
            elif isinstance(event, events.Back) and any(event.range_id in b.out for b in self.bundles.values()):
                worker.backed.add(event.range_id)
        worker.backed = {id for id in worker.backed if not any(h.range_id == id for h in worker.controls)}
        self.tell(mail)

    def end_worker(self, worker: Worker, *, killed: bool) -> None:
        """A1: drain, look at the words, then void. What never reached the ring never was."""
        current = [(h.bundle.key, h.running) for h in worker.held if h.running is not None] if killed else []
        self.tell([events.NoGrants(worker.key)])
        if not killed:
            worker.publish_late()
        self.deliver(worker)
        unset = {}
        for held in self.tasks.ranges_of(worker.key):
            bundle = self.bundles[held.bundle]
            unset[held.range_id] = [(i, i + 1) for i in range(held.lo, held.hi) if i not in bundle.statuses]
            bundle.out.discard(held.range_id)
        for key, item in current:
            self.bundles[key].deaths[item] += 1
        del self.workers[worker.key]
        self.tell([events.WorkerGone(worker.key, unset, current)])
        for key, item in current:
            if key in self.bundles and not self.bundles[key].is_released and self.bundles[key].deaths[item] > DEATHS_MAX:
                assert self.bundles[key].statuses[item] == LOST
        if killed:
            self.dead_bytes += MIB
            assert self.heap.died(worker.key) == []
        else:
            self.check(self.heap.left(worker.key))

    def end_client(self, client: Client) -> None:
        client.is_gone = True
        del self.clients[client.key]
        for bundle in client.bundles.values():
            bundle.is_released = True
        self.tell([events.ClientGone(client.key)])
        self.check(self.heap.left(client.key))

    def tell(self, batch: Iterable[Event]) -> None:
        self.check(self.tasks.handle(batch))

    # -- what K says

    def check(self, instructions: list[Instruction]) -> None:
        dropped: set[tuple[Key, BundleKey]] = set()
        for instruction in instructions:
            match instruction:
                case events.Grant() | events.Control():
                    self.granted(instruction)
                case events.Lose(key, item):
                    self.lost(self.bundles[key], item)
                case events.Drop(key, bundle):
                    assert key in self.workers
                    dropped.add((key, bundle))
                case events.Forget(client, key):
                    assert not self.bundles[key].client.is_gone
                    assert self.bundles[key].client.key == client
                    self.forgotten(self.bundles[key], dropped)
                case events.BundleGone(key):
                    gone = self.bundles[key].client
                    assert gone.is_gone
                    assert not any(bundle.out for bundle in gone.bundles.values()), "one group (A4)"
                    self.forgotten(self.bundles[key], dropped)
                case _:
                    assert isinstance(instruction, events.Punch), instruction

    def granted(self, grant: events.Grant | events.Control) -> None:
        worker, bundle = self.workers[grant.worker], self.bundles[grant.bundle]
        assert grant.range_id > self.last_range_id, "range ids are not used again"
        self.last_range_id = grant.range_id
        assert 0 <= grant.lo < grant.hi <= bundle.count
        assert not bundle.is_released
        assert not bundle.statuses.keys() & set(range(grant.lo, grant.hi)), "what has a status is not granted"
        for other in self.workers.values():
            for held in other.held:
                is_apart = held.bundle is not bundle or held.lo == held.limit or grant.hi <= held.lo or held.limit <= grant.lo
                assert is_apart, "two living holders"
        bundle.out.add(grant.range_id)
        assert isinstance(grant, events.Control) == (bundle.target is not None)
        if bundle.target is not None:
            assert bundle.target == worker.key
            worker.controls.append(Held(grant.range_id, bundle, grant.lo, grant.lo, grant.hi))
        else:
            assert not worker.backed, "who sent BACK waits for its DONE"
            worker.queue.append(Held(grant.range_id, bundle, grant.lo, grant.lo, grant.hi))
        assert len(worker.queue) <= CREDITS

    def lost(self, bundle: BundleMemory, item: int) -> None:
        assert not bundle.is_released
        assert item not in bundle.statuses
        assert bundle.target not in self.workers if bundle.target else bundle.deaths[item] > DEATHS_MAX
        for worker in self.workers.values():
            assert not any(held.bundle is bundle and held.lo <= item < held.limit for held in worker.held), "only what nobody holds"
        bundle.statuses[item] = LOST

    def forgotten(self, bundle: BundleMemory, dropped: set[tuple[Key, BundleKey]]) -> None:
        assert bundle.is_released
        assert not bundle.out, "a range is out"
        for worker in self.workers.values():
            assert not any(held.bundle is bundle for held in worker.held)
            assert (worker.key in bundle.tellers) == ((worker.key, bundle.key) in dropped), "DROP to who told a chunk, before FORGOT"
        del self.bundles[bundle.key], bundle.client.bundles[bundle.key]
        bundle.client.free.append(bundle.key.offset)
        self.check(self.heap.forget(bundle.key))

    def check_waiting(self) -> None:
        """Who has nothing to do has nothing to wait for: then no item is without status and holder."""
        if not any(not worker.held and not worker.outbox and not worker.backed for worker in self.workers.values()):
            return
        held = {(h.bundle.key, i) for worker in self.workers.values() for h in worker.held for i in range(h.lo, h.limit)}
        unread = any(worker.outbox or worker.late for worker in self.workers.values())
        for bundle in self.bundles.values():
            for i in range(bundle.count):
                is_somewhere = unread or bundle.is_released or i in bundle.statuses or (bundle.key, i) in held
                assert is_somewhere, f"item {i} waits beside an idle worker"

    # -- the end

    def run_all(self) -> None:
        """Workers do what is left, until nothing is."""
        while any(w.held or w.outbox or w.late for w in self.workers.values()):
            for worker in list(self.workers.values()):
                for held in worker.held:
                    self.run(held, held.limit - held.next, end=True)
                    self.answer(worker, held, 20_000)
                worker.publish_late()
                self.deliver(worker)

    def finish(self) -> None:
        """All is run, released, and left: nothing may remain but what the dead had."""
        self.run_all()
        if not self.workers:
            self.join_worker(8, 1)
            self.run_all()
        for bundle in self.bundles.values():
            assert bundle.is_released or bundle.statuses.keys() == set(range(bundle.count)), "every item is answered"
        for bundle in [bundle for bundle in self.bundles.values() if not bundle.is_released]:
            self.release(bundle)
        assert not self.bundles, "everything is forgotten"
        for worker in list(self.workers.values()):
            self.end_worker(worker, killed=False)
        for client in list(self.clients.values()):
            self.end_client(client)
        assert self.heap.free_bytes == self.all_bytes - self.dead_bytes, "memory is what a death costs, and nothing else"
