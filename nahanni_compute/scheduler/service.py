"""The scheduler process: reads counts and mail, asks the state machines, does what they say. One thread.

One turn is S5's: counts of all open bundles; then tails; then all messages up to them; then act on those counts. Clients'
messages go before workers' (B6).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from nahanni_compute import messages
from nahanni_compute._native import Bundle
from nahanni_compute.errors import RegionCorrupt
from nahanni_compute.messages import BundleKey, Words
from nahanni_compute.region import layout
from nahanni_compute.region.layout import ARENA_TABLE, CUR_THREADS, MIB, WORD, slot_word
from nahanni_compute.region.membership import Member
from nahanni_compute.region.slots import Key, has_left, identity_of
from nahanni_compute.scheduler import events
from nahanni_compute.scheduler.objects import Heap
from nahanni_compute.scheduler.office import SERVER_SLOT
from nahanni_compute.scheduler.register import Register
from nahanni_compute.scheduler.rings import Rings
from nahanni_compute.scheduler.tasks import Tasks

log = logging.getLogger("nahanni.scheduler")

FIRST_BLOCK_NS = 200_000  # S6
BUDGET_NS = 2_000_000  # B7
RINGS_BYTES = MIB  # the keeper's arena is for rings; asked for as members come
SERVER_GONE = 16

Events = Iterable[events.Event]
Readers = dict[int, Callable[[Key, Words], Events]]


class Scheduler:
    """The keeper of one region, in office. `run()` returns when told to stop, or when the cluster has ended."""

    def __init__(self, member: Member, epoch: int) -> None:
        self.endpoint, self.region = member.endpoint, member.region
        self.me, self.epoch = member.key, epoch
        self.tasks, self.heap = Tasks(), Heap(self.region.size)
        self.rings, self.register = Rings(member), Register(member)
        self.stopping = False
        self.roles: dict[Key, int] = {}
        self.expelled: set[Key] = set()
        self.bundles: dict[BundleKey, Bundle] = {}
        self._room_asked = self._look_again = False
        memory: Readers = {messages.ASK: self._ask, messages.RETURN: self._return}
        clients: Readers = {
            messages.OPEN: self._open,
            messages.CLOSE: lambda key, w: self._close(key, BundleKey(w[2], w[3])),
            messages.RELEASE: lambda key, w: (events.Released(BundleKey(w[2], w[3]), key),),
        }
        workers: Readers = {
            messages.DONE: self._done,
            messages.BACK: lambda key, w: (events.Back(key, w[4], w[5]),),
            messages.CHUNK: self._chunk,
        }
        self._readers = {layout.ROLE_CLIENT: clients | memory, layout.ROLE_WORKER: workers | memory}
        self._performers: dict[type, Callable[..., None]] = {
            events.Grant: lambda i: self._grant(messages.GRANT, i),
            events.Control: lambda i: self._grant(messages.CONTROL, i),
            events.Lose: self._lose,
            events.Drop: lambda i: self._tell(i.worker, messages.DROP, *i.bundle),
            events.Forget: self._forget,
            events.BundleGone: lambda i: self._forget_bundle(i.bundle),
            events.Violation: lambda i: self._expel(i.endpoint, i.reason),
            events.Commit: lambda i: self.endpoint.send(SERVER_SLOT, messages.COMMIT, i.offset, i.nbytes),
            events.Give: self._give,
            events.Refuse: self._refuse,
            events.Punch: self._punch,
        }

    def run(self) -> None:
        """Serve until `stopping`, until expelled, or until the server is dead and nobody is left."""
        self._look()
        while not self.stopping and not self.endpoint.expelled:
            if self._turn() and not self._look_again:
                continue
            if self._look_again:
                self._look()
                continue
            bits = self.endpoint.wait(first_block_ns=FIRST_BLOCK_NS)
            if self.endpoint.changed():
                self._look()
            if bits & SERVER_GONE:
                log.warning("the server is gone: what runs goes on, new memory is refused")
                self._perform(self.heap.server_gone())
            if self.endpoint.server_gone and not self.roles:
                return

    # -- a turn

    def _turn(self) -> bool:
        counts = self.endpoint.counts()
        mail = self.endpoint.take()
        violator = self.endpoint.violator()
        if violator in self.register.at:
            self._expel(self.register.at[violator], "its ring's counters contradict each other (R3)")
        if not counts and not mail:
            return False
        clients: list[events.Event] = []
        workers: list[events.Event] = []
        for words in mail:
            self._read(words, clients, workers)
        clients.extend(events.Counted(BundleKey(bundle.offset, bundle.generation), n) for bundle, n in counts)
        self._perform(self.tasks.handle(clients + workers))
        return True

    def _read(self, words: Words, clients: list[events.Event], workers: list[events.Event]) -> None:
        if words[0] == SERVER_SLOT:
            self._perform(self._from_server(words))
            return
        key = self.register.at.get(words[0])
        if key is None or key in self.expelled:
            return  # gone, or its rings are ignored (D5)
        role = self.roles[key]
        reader = self._readers[role].get(words[1] & messages.KIND_MASK)
        if reader is None:
            self._expel(key, f"expected a message that its role may send, saw {words[1]:#x}")
            return
        try:
            (workers if role == layout.ROLE_WORKER else clients).extend(reader(key, words))
        except Exception as error:  # whatever it made us do, it costs the sender, and nobody else (decision 10)
            log.exception("a message of kind %d could not be read", words[1] & messages.KIND_MASK)
            self._expel(key, f"its message raised {type(error).__name__}: {error}")

    def _from_server(self, words: Words) -> list[events.Instruction]:
        kind = words[1] & messages.KIND_MASK
        if kind == messages.COMMITTED:
            return self.heap.committed(words[2], words[3])
        return self.heap.refused(words[2], words[3]) if kind == messages.REFUSED else []

    # -- reading messages

    def _open(self, key: Key, words: Words) -> Events:
        bundle, capacity, flags, target = BundleKey(words[2], words[3]), words[4], words[5], words[6]
        if bundle.generation >> messages.LIFE_SHIFT != key.incarnation << 10 | key.slot:
            raise RegionCorrupt(f"expected a bundle of its own life, saw generation {bundle.generation:#x}")
        refused = self.heap.opened(key, bundle, capacity)
        try:
            known = Bundle(self.endpoint, *bundle) if not refused else None
        except RegionCorrupt as error:
            refused = [events.Violation(key, str(error))]
            known = None
        if known is None or (known.owner, known.capacity) != (key.slot, capacity):
            self._perform(refused or [events.Violation(key, "opened a bundle whose header says something else")])
            return ()
        self.bundles[bundle] = known
        self.endpoint.track(known)
        worker = self.register.at.get(target & 0xFFFF) if flags & layout.BUNDLE_CONTROL else None
        return (events.Opened(bundle, key, capacity, flags, worker if worker and worker.incarnation == target >> 16 else None),)

    def _close(self, key: Key, bundle: BundleKey) -> Events:
        known = self.bundles.get(bundle)
        if known is None:
            return ()
        if known.owner == key.slot:
            self.endpoint.untrack(known)
        return (events.Closed(bundle, key, known.count()),)  # the last load (S5)

    def _done(self, key: Key, words: Words) -> Events:
        if words[8]:
            self._examine(BundleKey(words[2], words[3]))
        return (events.Done(key, words[4], words[5], words[6], words[7]),)

    def _examine(self, key: BundleKey) -> None:
        """A worker could not open this bundle. If we cannot either, its owner broke it."""
        known = self.bundles.get(key)
        if known is None:
            return
        try:
            intact = Bundle(self.endpoint, *key).capacity == known.capacity
        except RegionCorrupt:
            intact = False
        owner = self.register.at.get(known.owner)
        if not intact and owner is not None:
            self._expel(owner, f"the header of its bundle at {key.offset} is not what it was at OPEN")

    def _chunk(self, key: Key, words: Words) -> Events:
        bundle, offset, nbytes = BundleKey(words[2], words[3]), words[4], words[5]
        self._perform(self.heap.chunk_told(key, bundle, offset, nbytes))
        return (events.ChunkTold(key, bundle, offset, nbytes),)

    def _ask(self, key: Key, words: Words) -> Events:
        self._perform(self.heap.ask(key, words[2]))
        return ()

    def _return(self, key: Key, words: Words) -> Events:
        self._perform(self.heap.returned(key, words[2], words[3]))
        return ()

    # -- performing instructions

    def _perform(self, instructions: Iterable[events.Instruction]) -> None:
        done = False
        for instruction in instructions:
            self._performers[type(instruction)](instruction)
            done = True
        if done:
            self.endpoint.flush()

    def _tell(self, key: Key, *words: int) -> None:
        """A message to a member; nobody reads for one that is gone."""
        if self.register.at.get(key.slot) == key:
            self.endpoint.send(key.slot, *words)

    def _grant(self, kind: int, grant: events.Grant | events.Control) -> None:
        self._tell(grant.worker, kind, *grant.bundle, grant.range_id, grant.lo, grant.hi, BUDGET_NS)

    def _lose(self, lose: events.Lose) -> None:
        bundle = self.bundles[lose.bundle]
        bundle.lose(lose.item)  # nobody holds it, so the word is ours to store (M1)
        self.endpoint.ring(bundle.owner)

    def _forget(self, forget: events.Forget) -> None:
        self._forget_bundle(forget.bundle)
        self._tell(forget.client, messages.FORGOT, *forget.bundle)

    def _forget_bundle(self, key: BundleKey) -> None:
        self.endpoint.untrack(self.bundles.pop(key))
        self._perform(self.heap.forget(key))

    def _give(self, give: events.Give) -> None:
        self._store_owner(give.offset, give.nbytes, give.endpoint.incarnation << 16 | give.endpoint.slot)
        if give.endpoint == self.me:
            self.rings.add_room(give.offset, give.nbytes)
            self._room_asked = False
            self._look_again = True
        else:
            self._tell(give.endpoint, messages.ARENA, give.offset, give.nbytes)

    def _refuse(self, refuse: events.Refuse) -> None:
        if refuse.endpoint == self.me:
            log.error("no memory for another ring: newcomers wait (reason %d)", refuse.reason)
            self._room_asked = False
        else:
            self._tell(refuse.endpoint, messages.REFUSED, refuse.nbytes, refuse.reason)

    def _punch(self, punch: events.Punch) -> None:
        self._store_owner(punch.offset, punch.nbytes, 0)
        self.endpoint.send(SERVER_SLOT, messages.PUNCH, punch.offset, punch.nbytes)

    def _store_owner(self, offset: int, nbytes: int, word: int) -> None:
        for unit in self.heap.units(offset, nbytes):
            self.region.store(ARENA_TABLE + WORD * unit, word)

    def _expel(self, key: Key, reason: str) -> None:
        """D5: suspect for ever. Its rings are ignored; what it holds stays out until its death, which the server brings about."""
        if key in self.expelled or key not in self.roles:
            return
        self.expelled.add(key)
        log.error("expelled %s: %s", identity_of(self.region, key).name, reason)
        last: events.Event = events.NoGrants(key) if self.roles[key] == layout.ROLE_WORKER else events.ClientGone(key)
        self._perform(self.tasks.handle([last]))
        self.endpoint.send(SERVER_SLOT, messages.EXPEL, key.slot, key.incarnation)
        self.endpoint.flush()

    # -- members

    def _look(self) -> None:
        self._look_again = False
        self.register.watch_new_slots()
        gone = self.register.gone()
        if gone:
            self._end(gone)
        for key in self.register.never_welcomed():
            self._retire(key)
        for key, role in self.register.newcomers():
            if not self.rings.has_room_for(key.slot):
                self._ask_room()
                return
            self.register.at[key.slot] = key
            self.roles[key] = role
            self.rings.welcome(key, self.epoch)
            identity = identity_of(self.region, key)
            log.info("%s %s joined from %s", identity.role, identity.name, identity.host)
            if role == layout.ROLE_WORKER:
                self._perform(self.tasks.handle([events.WorkerJoined(key, identity.name, 1)]))

    def _ask_room(self) -> None:
        if not self._room_asked:
            self._room_asked = True
            self._perform(self.heap.ask(self.me, RINGS_BYTES))

    def _end(self, gone: list[Key]) -> None:
        """A1. Their end was loaded before, so their tails are final: drain, then look at statuses, then void."""
        self._perform(self.tasks.handle([events.NoGrants(key) for key in gone]))
        self._turn()
        for key in gone:
            left, role = has_left(self.region, key), self.roles.pop(key)
            self.expelled.discard(key)
            log.info("%s %s", identity_of(self.region, key).name, "left" if left else "died")
            self.rings.close(key)
            del self.register.at[key.slot]
            last: events.Event = self._worker_gone(key, left) if role == layout.ROLE_WORKER else events.ClientGone(key)
            self._perform(self.tasks.handle([last]))
            self._perform(self.heap.left(key) if left else self.heap.died(key))
            self._retire(key)

    def _retire(self, key: Key) -> None:
        self.register.retire(key)
        self.endpoint.send(SERVER_SLOT, messages.RETIRE, key.slot, key.incarnation)
        self.endpoint.flush()

    def _worker_gone(self, key: Key, left: bool) -> events.WorkerGone:
        ranges = self.tasks.ranges_of(key)
        unset = {r.range_id: self.bundles[r.bundle].unset(r.lo, r.hi) for r in ranges}
        return events.WorkerGone(key, unset, [] if left else self._died_in(key, {r.bundle.offset: r.bundle for r in ranges}))

    def _died_in(self, key: Key, held: dict[int, BundleKey]) -> list[tuple[BundleKey, int]]:
        """The items that its threads were in, by the words it left (B11)."""
        start = slot_word(key.slot, "cur")
        words = [(self.region.load(start + 2 * WORD * k), self.region.load(start + 2 * WORD * k + WORD)) for k in range(CUR_THREADS)]
        return [(held[offset], item - 1) for offset, item in words if item and offset in held]
