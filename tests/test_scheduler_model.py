"""The state machines under random events, against a region in miniature that keeps everything item by item (scheduling.py)."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from .scheduling import BundleMemory, Client, Held, Worker, World

PICK = st.integers(0, 1000)
WORKERS_MAX, CLIENTS_MAX = 4, 3
NS_EACH = st.sampled_from([0, 50, 20_000, 600_000, 5_000_000])


class Anything(RuleBasedStateMachine):
    """What clients, workers and deaths may do, in any order. The world checks each thing that the scheduler says."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def client(self, pick: int) -> Client | None:
        clients = list(self.world.clients.values())
        return clients[pick % len(clients)] if clients else None

    def worker(self, pick: int) -> Worker | None:
        workers = list(self.world.workers.values())
        return workers[pick % len(workers)] if workers else None

    def bundle(self, pick: int) -> BundleMemory | None:
        bundles = [bundle for bundle in self.world.bundles.values() if not bundle.is_released]
        return bundles[pick % len(bundles)] if bundles else None

    def held(self, pick: int) -> tuple[Worker, Held] | None:
        """What a worker's loop is in, the first of its queue, or a call beside it."""
        running = [(worker, held) for worker in self.world.workers.values() for held in [*worker.queue[:1], *worker.controls]]
        return running[pick % len(running)] if running else None

    @rule(slot=st.integers(1, CLIENTS_MAX))
    def client_joins(self, slot: int) -> None:
        if not any(key.slot == slot for key in self.world.clients):
            self.world.join_client(slot)

    @rule(slot=st.integers(8, 7 + WORKERS_MAX), threads=st.sampled_from([1, 1, 1, 2]))
    def worker_joins(self, slot: int, threads: int) -> None:
        if not any(key.slot == slot for key in self.world.workers):
            self.world.join_worker(slot, threads)

    @precondition(lambda self: self.world.clients)
    @rule(pick=PICK, capacity=st.integers(1, 80), items=st.integers(0, 80))
    def client_maps(self, pick: int, capacity: int, items: int) -> None:
        client = self.client(pick)
        assert client is not None
        self.world.open(client, capacity)
        if items:
            self.world.append(client.bundles[next(reversed(client.bundles))], items, close=True)

    @precondition(lambda self: self.world.clients)
    @rule(pick=PICK, capacity=st.integers(1, 3))
    def client_calls_one_worker(self, pick: int, capacity: int) -> None:
        client, worker = self.client(pick), self.worker(pick)
        if client is not None and worker is not None:
            self.world.open(client, capacity, worker.key)

    @precondition(lambda self: self.world.bundles)
    @rule(pick=PICK, items=st.integers(0, 40))
    def client_appends(self, pick: int, items: int) -> None:
        bundle = self.bundle(pick)
        if bundle is not None and not bundle.is_closed:
            self.world.append(bundle, items, close=False)

    @precondition(lambda self: self.world.bundles)
    @rule(pick=PICK)
    def client_releases(self, pick: int) -> None:
        bundle = self.bundle(pick)
        if bundle is not None:
            self.world.release(bundle)

    @rule(pick=PICK, often=st.sampled_from([False, False, True]))
    def client_goes(self, pick: int, often: bool) -> None:
        client = self.client(pick)
        if client is not None and often:
            self.world.end_client(client)

    @rule(pick=PICK, items=st.integers(0, 20), end=st.booleans())
    def worker_runs(self, pick: int, items: int, end: bool) -> None:
        if (found := self.held(pick)) is not None:
            self.world.run(found[1], items, end=end)

    @rule(pick=PICK, ns_each=NS_EACH)
    def worker_answers(self, pick: int, ns_each: int) -> None:
        if (found := self.held(pick)) is not None:
            self.world.answer(*found, ns_each)

    @rule(pick=PICK, ns_each=NS_EACH)
    def worker_runs_to_the_end_and_answers(self, pick: int, ns_each: int) -> None:
        if (found := self.held(pick)) is not None:
            self.world.run(found[1], found[1].limit - found[1].next, end=True)
            self.world.answer(*found, ns_each)

    @rule(pick=PICK, late=st.booleans())
    def pump_gives_back(self, pick: int, late: bool) -> None:
        if (found := self.held(pick)) is not None:
            self.world.give_back(*found, late=late)

    @rule(pick=PICK)
    def worker_tells_a_chunk(self, pick: int) -> None:
        if (found := self.held(pick)) is not None:
            self.world.tell_chunk(*found)

    @rule(pick=PICK)
    def pump_publishes(self, pick: int) -> None:
        worker = self.worker(pick)
        if worker is not None:
            worker.outbox.extend(worker.late)
            worker.late.clear()

    @rule(pick=PICK)
    def scheduler_reads_a_ring(self, pick: int) -> None:
        worker = self.worker(pick)
        if worker is not None:
            self.world.deliver(worker)

    @rule(pick=PICK, killed=st.booleans())
    def worker_goes(self, pick: int, killed: bool) -> None:
        worker = self.worker(pick)
        if worker is not None:
            self.world.end_worker(worker, killed=killed)

    @invariant()
    def every_item_is_somewhere(self) -> None:
        """With idle workers nothing waits; no item is forgotten."""
        self.world.check_waiting()

    def teardown(self) -> None:
        world = self.world
        world.run_all()
        if not world.workers:
            world.join_worker(8, 1)
        world.run_all()
        for bundle in list(world.bundles.values()):
            assert bundle.is_released or bundle.statuses.keys() == set(range(bundle.count)), "every item is answered"
        for bundle in [bundle for bundle in world.bundles.values() if not bundle.is_released]:
            world.release(bundle)
        assert not world.bundles, "everything is forgotten"
        for worker in list(world.workers.values()):
            world.end_worker(worker, killed=False)
        for client in list(world.clients.values()):
            world.end_client(client)
        assert world.heap.free_bytes == world.all_bytes - world.dead_bytes, "memory is what a death costs, and nothing else"


TestAnything = Anything.TestCase
TestAnything.settings = settings(
    max_examples=150, stateful_step_count=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
