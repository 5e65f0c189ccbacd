"""The server's side of the keeper K (D6): it appoints one, and does what K asks of the memory (M6).

K is a member with ROLE_KEEPER: a host process that greeted as one, or an endpoint of a VM whose slot says so. Only a dead
keeper, or one that left, is replaced (K1), by the next in the order of slots; each has an epoch of its own. The ring pair: K's
uplink, from the tail that stands there, and the server's own uplink, made for K's incarnation (R6): K says nothing before it
sees that, so what lies before the tail is an ancestor's. A request that breaks the
rules costs K its membership, never the server its life.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field

from nahanni_compute._native import Endpoint
from nahanni_compute.errors import RegionFull
from nahanni_compute.region import layout
from nahanni_compute.region.layout import MSG, RING, UPLINK_LOG2, directory_word, slot_word
from nahanni_compute.region.slots import Key, is_alive
from nahanni_compute.server.memory import Memory
from nahanni_compute.server.peers import Peer, Peers
from nahanni_compute.server.slots import Slots
from nahanni_compute.server.table import SERVER_INCARNATION, Table

log = logging.getLogger(__name__)

UNREAD_MAX = 1024  # answers that K has not taken
_UPLINK = slot_word(0, "uplink")


class Violation(Exception):
    """K asked for what it must not ask for."""


@dataclass
class Request:
    """A COMMIT, or a PUNCH. They are begun in the order in which they were asked for: a span may be in both."""

    kind: int
    offset: int
    nbytes: int
    units: range
    left: deque[range] | None = None  # of a COMMIT that was begun: what has no memory yet
    done: list[range] = field(default_factory=list)


class Keeper:
    """Whose word counts, and the work it gave."""

    def __init__(self, memory: Memory, table: Table, slots: Slots, peers: Peers) -> None:
        self._memory, self._table, self._slots, self._peers = memory, table, slots, peers
        self._region = memory.region
        self._endpoint: Endpoint | None = None  # slot 0, for this keeper; None until it is paired
        self._key: Key | None = None
        self._epoch = self._answers = 0
        self._expelled = False
        self._work: deque[Request] = deque()

    def turn(self) -> bool:
        """Appoint, pair, answer. Whether work is left for the next turn at once."""
        if self._key is None or not is_alive(self._region, self._key):
            self._lost()
            self._appoint()
        if self._key is None or self._expelled:
            return False
        try:
            endpoint = self._endpoint or self._pair(self._key)
            if endpoint is None:
                return False
            self._take(endpoint)
            self._step(endpoint, self._key)
        except Violation as violation:
            self._expelled = True
            self._unpair()
            self._peers.expel(*self._key, str(violation))
            return False
        endpoint.flush()
        return bool(self._work)

    def has_mail(self) -> bool:
        """S1: what the loop looks at once more before it blocks."""
        if self._key is None or self._endpoint is None:
            return False
        uplink = slot_word(self._key.slot, "uplink")
        return self._region.load(uplink + RING["tail"]) != self._region.load(uplink + RING["head"])

    def peer(self) -> Peer | None:
        """Who holds the keeper's slot, if it is there."""
        return None if self._key is None else self._peers.of_slot(self._key.slot)

    def close(self) -> None:
        """Let go of the region."""
        self._unpair()

    def _lost(self) -> None:
        if self._key is not None:
            log.info("the keeper in slot %d is gone", self._key.slot)
            self._unpair()
            self._key, self._expelled = None, False
        self._slots.forgive()

    def _unpair(self) -> None:
        if self._endpoint is not None and self._key is not None:
            self._endpoint.close()
            self._region.store(directory_word(0, self._key.slot), 0)
        self._endpoint = None
        self._work.clear()

    def _appoint(self) -> None:
        self._key = next(self._peers.keepers(), None)
        if self._key is None:
            return
        self._epoch += 1
        self._slots.pin(self._key.slot)
        self._table.keeper(self._epoch, self._key.slot)
        log.info("slot %d is the keeper, epoch %d", self._key.slot, self._epoch)

    def _pair(self, key: Key) -> Endpoint | None:
        """Once K has said where its ring to us is."""
        region, slot = self._region, key.slot
        uplink = slot_word(slot, "uplink")
        where = region.load(directory_word(slot, 0))
        if not where:
            return None
        if where != (uplink | UPLINK_LOG2):
            raise Violation(f"expected its ring to the server at {uplink}, its uplink, saw {where:#x}")
        self._endpoint = endpoint = Endpoint(region, 0, SERVER_INCARNATION)
        peer = self._peers.of_slot(slot)
        for vector, door in enumerate(peer.doors if peer else ()):
            endpoint.add_door(peer.id if peer else 0, vector, door.fd)
        endpoint.open_in(slot, uplink, UPLINK_LOG2, region.load(uplink + RING["tail"]))
        endpoint.open_out(slot, _UPLINK, UPLINK_LOG2)
        self._answers = region.load(_UPLINK + RING["tail"])
        region.store(_UPLINK + RING["start"], self._answers)
        region.store(_UPLINK + RING["reader"], key.incarnation)
        region.store(directory_word(0, slot), _UPLINK | UPLINK_LOG2)
        endpoint.ring(slot)
        return endpoint

    def _take(self, endpoint: Endpoint) -> None:
        requests = endpoint.take()
        if endpoint.violator() >= 0:
            raise Violation("its counters in the rings with the server contradict each other (R3)")
        if endpoint.next_grant() is not None:
            raise Violation("expected a request to the server, saw GRANT")
        for _, word, first, second, *_ in requests:
            kind = word & 0xFFFF
            if kind in (MSG["COMMIT"], MSG["PUNCH"]):
                self._work.append(Request(kind, first, second, self._units(first, second)))
            elif kind == MSG["RETIRE"]:
                self._retire(first, second)
            elif kind == MSG["EXPEL"]:
                self._peers.expel(first, second, "the scheduler says that it broke the rules")
            else:
                raise Violation(f"expected COMMIT, PUNCH, RETIRE or EXPEL, saw a message of kind {kind}")
        if len(self._work) > UNREAD_MAX:
            raise Violation(f"asked for more than {UNREAD_MAX} things at a time")

    def _units(self, offset: int, nbytes: int) -> range:
        units = self._memory.units(offset, nbytes)
        if units is None:
            raise Violation(f"expected whole arena units of the heap, saw {nbytes} bytes at {offset}")
        return units

    def _retire(self, slot: int, incarnation: int) -> None:
        if not 0 < slot < layout.SLOTS or not 0 < incarnation <= self._incarnation(slot):
            if self._slots.was_a_guests(slot):
                return  # the keeper believed an e_state that its VM has changed since: the lie is the guest's
            raise Violation(f"expected a slot and an incarnation that it had, saw slot {slot}, incarnation {incarnation}")
        self._slots.retire(slot, incarnation)

    def _incarnation(self, slot: int) -> int:
        """The highest that this slot had. Guests count their own."""
        peer = self._peers.of_slot(slot)
        named = self._region.load(slot_word(slot, "e_state")) >> 8 if peer and peer.is_vm else 0
        return max(self._slots.last(slot), named)

    def _step(self, endpoint: Endpoint, key: Key) -> None:
        """Work on, until about one step's memory is committed: nobody else waits long."""
        budget = self._memory.step_units
        while self._work:
            request = self._work[0]
            if request.kind == MSG["PUNCH"]:
                self._memory.punch_units(request.units)
                self._work.popleft()
                continue
            try:
                budget = self._commit(request, budget)
            except RegionFull as full:
                log.warning("the region is full: %s", full)
                for units in request.done:
                    self._memory.punch_units(units)
                self._work.popleft()
                self._answer(endpoint, key, MSG["REFUSED"], request.offset, layout.REASON_FULL)
                continue
            if request.left:
                return
            self._work.popleft()
            self._answer(endpoint, key, MSG["COMMITTED"], request.offset, request.nbytes)

    def _commit(self, request: Request, budget: int) -> int:
        """Commit runs of it while the budget lasts, and return what is left of that. Raises RegionFull."""
        if request.left is None:
            self._memory.check_quota(request.units)
            request.left = deque(self._memory.uncommitted(request.units))
        while request.left and budget > 0:
            units = request.left[0]
            self._memory.commit_units(units)
            request.done.append(request.left.popleft())
            budget -= len(units)
        return budget

    def _answer(self, endpoint: Endpoint, key: Key, kind: int, first: int, second: int) -> None:
        unread = self._answers - self._region.load(_UPLINK + RING["head"])
        if unread > UNREAD_MAX:
            raise Violation(f"expected it to take its answers, saw {unread} not taken")
        self._answers += 1
        endpoint.send(key.slot, kind, first, second)
