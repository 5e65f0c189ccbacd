"""Who is in the region: ids, doorbells and slots of VMs and host processes, and who is told of whom.

The id of a VM is never given again while a QEMU lives that saw it: QEMU frees what it knew of a peer that went and keeps the
pointer, and the second use of the id is a double free in the user's VM. The server counts up, as QEMU's own does. Host
processes come and go far more often than VMs, so their ids are *parked*: a QEMU that once heard of an id and its doorbells
keeps them, nobody is told when the process leaves, and the next host process takes over both.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from nahanni_compute.config import Settings
from nahanni_compute.errors import RegionFull
from nahanni_compute.region import layout
from nahanni_compute.region.greeting import FULL, Refused
from nahanni_compute.region.slots import Key, is_alive, keeper_of, member_key
from nahanni_compute.server.descriptors import NO_DESCRIPTORS, Budget, Descriptor, doorbell, ring
from nahanni_compute.server.link import Link
from nahanni_compute.server.memory import Memory
from nahanni_compute.server.slots import Slots
from nahanni_compute.server.table import Table

log = logging.getLogger(__name__)

Doors = tuple[Descriptor, ...]


@dataclass(eq=False)
class Peer:
    """One holder of an id."""

    id: int
    doors: Doors
    slots: range
    link: Link
    role: int  # as a host process greeted; ROLE_NONE for a VM, whose endpoints say it in their slots
    incarnation: int  # of a host process; 0 for a VM, whose endpoints count their own

    @property
    def is_vm(self) -> bool:
        """A VM, with slots for several endpoints."""
        return self.incarnation == 0


class Peers:
    """Admits, tells, and buries."""

    def __init__(self, memory: Memory, table: Table, slots: Slots, budget: Budget, conf: Settings) -> None:
        self.memory, self.budget, self.conf = memory, budget, conf
        self._table, self._slots = table, slots
        self.own_doors: Doors = self._make_doors()
        self.living: dict[int, Peer] = {}
        self._parked: dict[int, Doors] = {}
        self._next = 1

    def admit_vm(self, link: Link) -> Peer:
        """A QEMU connected. Raises Refused, and nothing has changed."""
        return self._admit(link, layout.SLOTS_PER_VM, layout.ROLE_NONE, parked=False)

    def admit_host(self, link: Link, role: int) -> Peer:
        """A host process greeted. Raises Refused, and nothing has changed."""
        return self._admit(link, 1, role, parked=True)

    def _admit(self, link: Link, n_slots: int, role: int, parked: bool) -> Peer:
        if not self.budget.has(self.conf.vectors):
            raise Refused(FULL, NO_DESCRIPTORS)
        reuse = parked and bool(self._parked)
        if not reuse and self._next >= layout.PEERS:
            raise Refused(FULL, f"all {layout.PEERS} ids of this region were given out: start a new server when its VMs are down")
        slots = self._give_slots(n_slots)
        peer_id = min(self._parked) if reuse else self._next
        self._next += not reuse
        doors = self._parked.pop(peer_id) if reuse else self._make_doors()
        incarnation = self._begin(peer_id, slots) if parked else self._begin_vm(peer_id, slots)
        peer = Peer(peer_id, doors, slots, link, role, incarnation)
        self._table.peer(peer_id, layout.PEER_HOST if parked else layout.PEER_VM, slots)
        if not reuse:
            for other in list(self.living.values()):
                other.link.queue_doors(peer_id, doors)
                other.link.flush()
        self.living[peer_id] = peer
        return peer

    def _make_doors(self) -> Doors:
        return tuple(doorbell() for _ in range(self.conf.vectors))

    def _give_slots(self, n: int) -> range:
        slots = self._slots.give(n)
        if slots is None:
            raise Refused(FULL, f"no {n} of the region's {layout.SLOTS} slots are free in a row: leave with other processes or VMs")
        try:
            for slot in slots:
                self.memory.commit_slot(slot)
        except RegionFull as e:
            for slot in slots:
                self._slots.end(slot, 0)
            raise Refused(FULL, str(e)) from e
        self._table.slots_used(self._slots.used)
        return slots

    def _begin(self, peer_id: int, slots: range) -> int:
        last = self._slots.last(slots.start)
        incarnation = self._slots.begin(slots.start)
        self._table.give(slots.start, peer_id, last, incarnation << 8 | layout.STATE_JOINED)
        return incarnation

    def _begin_vm(self, peer_id: int, slots: range) -> int:
        for slot in slots:
            self._table.give(slot, peer_id, self._slots.lend_to_guest(slot), layout.STATE_VM)
        return 0

    def doors_of_others(self, but: Peer) -> Iterator[tuple[int, Doors]]:
        """Every id that somebody may ring, with its doorbells; parked ids too, so that their next holder needs no notice."""
        known = {0: self.own_doors, **self._parked, **{peer.id: peer.doors for peer in self.living.values()}}
        return ((peer_id, known[peer_id]) for peer_id in sorted(known) if peer_id != but.id)

    def end(self, peer: Peer, state: int) -> None:
        """No store of this peer can follow (D2). `state`: STATE_LEFT or STATE_DEAD."""
        del self.living[peer.id]
        for slot in peer.slots:
            self._end_slot(peer, slot, state)
        self._table.peer(peer.id, layout.PEER_GONE, peer.slots)
        if peer.is_vm:
            for other in list(self.living.values()):
                other.link.queue(other.link.gone_message(peer.id))
                other.link.flush()
        else:
            self._parked[peer.id] = peer.doors

    def _end_slot(self, peer: Peer, slot: int, state: int) -> None:
        region = self.memory.region
        key = member_key(region, slot)
        owed = key.incarnation if key and self._keeper_knows(peer, key) else 0
        self._table.slot_state(slot, peer.incarnation << 8 | state)
        if peer.is_vm and key and not self._slots.seen(slot, key.incarnation):
            log.warning("slot %d: its VM left incarnation %d there; the slot is not given again", slot, key.incarnation)
            return
        self._slots.end(slot, owed)

    def _keeper_knows(self, peer: Peer, key: Key) -> bool:
        """Whether RETIRE is owed: this member said to the keeper where its ring is. In a VM, unless it left before."""
        region = self.memory.region
        keeper = keeper_of(region)
        if keeper is None or keeper[0] == key.slot or not region.load(layout.directory_word(key.slot, keeper[0])):
            return False
        return is_alive(region, key) if peer.is_vm else key.incarnation == peer.incarnation

    def of_slot(self, slot: int) -> Peer | None:
        """Whose slot this is now."""
        return next((peer for peer in self.living.values() if slot in peer.slots), None)

    def expel(self, slot: int, incarnation: int, reason: str) -> None:
        """This endpoint broke the protocol (D5). Nothing, if it is gone already."""
        peer = self.of_slot(slot)
        if peer is not None and peer.incarnation in (0, incarnation):
            peer.link.expel(reason)

    def keepers(self) -> Iterator[Key]:
        """Living members that are there to be the keeper, in the order of their slots."""
        region = self.memory.region
        for peer in sorted(self.living.values(), key=lambda p: p.slots.start):
            for slot in peer.slots if peer.is_vm or peer.role == layout.ROLE_KEEPER else ():
                key = member_key(region, slot)
                if key and region.load(layout.slot_word(slot, "role")) == layout.ROLE_KEEPER and is_alive(region, key):
                    yield key

    def check_progress(self, now_s: float) -> None:
        """At every turn: who reads nothing is muted."""
        for peer in list(self.living.values()):
            peer.link.check_progress(now_s)

    def ring_all(self) -> None:
        """On every change: whoever sleeps looks at the table (S4)."""
        for peer in self.living.values():
            for door in peer.doors:
                ring(door)
