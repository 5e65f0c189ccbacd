"""The scheduler process: reads counts and mail, asks the state machines, does what they say. One thread.

One turn is S5's: counts of all open bundles; then tails; then all messages up to them; then act on those counts. Clients'
messages go before workers' (B6).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from nahanni_compute import messages
from nahanni_compute._native import Bundle
from nahanni_compute.errors import NahanniError, RegionCorrupt, RegionFull, SchedulerDied
from nahanni_compute.messages import BundleKey, Words
from nahanni_compute.region import layout
from nahanni_compute.region.layout import CUR_THREADS, HEADER, UPLINK_LOG2, WORD, directory_word, slot_word
from nahanni_compute.region.membership import Member
from nahanni_compute.region.slots import Key, has_left, identity_of, is_alive, keeper_of, member_key
from nahanni_compute.scheduler import events
from nahanni_compute.scheduler.objects import Heap
from nahanni_compute.scheduler.rings import Rings
from nahanni_compute.scheduler.tasks import Tasks

log = logging.getLogger("nahanni.scheduler")

FIRST_BLOCK_NS = 200_000  # S6
BUDGET_NS = 2_000_000  # B7
LOOK_S = 0.05  # how often members are looked at while there is always mail
MAIL_OR_COUNT = 3


class Scheduler:
    """The keeper of one region. `take_office` first, then `run()`, which returns when told to stop."""

    def __init__(self, member: Member) -> None:
        self.member, self.endpoint, self.region = member, member.endpoint, member.region
        self.me, self.epoch = member.key, 0
        self.tasks = Tasks()
        self.heap = Heap(self.region.size)
        self.rings = Rings(member)
        self.stopping = False
        self.roles: dict[Key, int] = {}
        self.bundles: dict[BundleKey, Bundle] = {}
        self._slots: dict[int, Key] = {}
        self._looked_s = 0.0
        self._asked_room = False
        self._readers: dict[int, Callable[[Key, Words], Iterable[events.Event]]] = {
            messages.OPEN: self._on_open,
            messages.CLOSE: self._on_close,
            messages.RELEASE: self._on_release,
            messages.DONE: self._on_done,
            messages.BACK: self._on_back,
            messages.CHUNK: self._on_chunk,
            messages.ASK: self._on_ask,
        }

    # -- office

    def take_office(self, timeout_s: float) -> None:
        """Wait to be appointed, and pair with the server (D6). Raises NahanniError when the region has a scheduler."""
        end = time.monotonic() + timeout_s
        self.endpoint.watch(HEADER["keeper"])
        self.endpoint.ring(0)
        while (found := keeper_of(self.region)) is None or found[0] != self.me.slot:
            if found is not None and (other := member_key(self.region, found[0])) is not None and is_alive(self.region, other):
                raise NahanniError(f"expected a region without a scheduler, saw {identity_of(self.region, other).name}: one at a time")
            self._pause(end, "did not appoint this scheduler")
        self.epoch = found[1]
        uplink, answer = slot_word(self.me.slot, "uplink"), directory_word(0, self.me.slot)
        self.region.store(directory_word(self.me.slot, 0), uplink | UPLINK_LOG2)
        self.endpoint.ring(0)
        theirs = slot_word(0, "uplink")
        while self.region.load(answer) != theirs | UPLINK_LOG2 or self.region.load(theirs + 8) != self.me.incarnation:
            self._pause(end, "did not open its ring to this scheduler")
        self.endpoint.open_in(0, theirs, UPLINK_LOG2, self.region.load(theirs + 16))
        self.endpoint.open_out(0, uplink, UPLINK_LOG2)

    def _pause(self, end: float, what: str) -> None:
        if time.monotonic() > end:
            raise SchedulerDied(f"expected the region's server to answer in time, but it {what}")
        self.endpoint.wait(LOOK_S)
        self.endpoint.changed()

    def run(self) -> None:
        """Serve until `stopping`, or expelled."""
        self.endpoint.watch(HEADER["members"])
        self._perform(self.heap.ask(self.me, RINGS_ROOM))
        while not self.stopping and not self.endpoint.expelled:
            busy = self._turn()
            if not busy or time.monotonic() - self._looked_s > LOOK_S:
                self._look()
            if not busy:
                self.endpoint.wait(first_block_ns=FIRST_BLOCK_NS)
                self.endpoint.changed()
                self._check_violator()

    # -- a turn

    def _turn(self) -> bool:
        counts = self.endpoint.counts()
        mail = self.endpoint.take()
        if not counts and not mail:
            return False
        self._perform(self.tasks.handle(self._events_of(counts, mail)))
        return True

    def _events_of(self, counts: list[tuple[Bundle, int]], mail: list[Words]) -> list[events.Event]:
        first: list[events.Event] = []
        then: list[events.Event] = []
        for words in mail:
            if words[0] == 0:
                self._from_server(words)
                continue
            key = self._slots.get(words[0])
            reader = self._readers.get(words[1] & messages.KIND_MASK)
            if key is None:
                continue  # expelled, or gone: its rings are ignored (D5)
            if reader is None:
                self._expel(key, f"a message of unknown kind {words[1]:#x}")
                continue
            (then if self.roles[key] == layout.ROLE_WORKER else first).extend(reader(key, words))
        first.extend(events.Counted(BundleKey(bundle.offset, bundle.generation), n) for bundle, n in counts)
        return first + then
