"""The keeper's rings: one to each member, from its own arena, and the welcome that opens both directions (R6)."""

from __future__ import annotations

from nahanni_compute import messages
from nahanni_compute.region.layout import HEAP, LINE, RING, UPLINK_LOG2, directory_word, ring_bytes, slot_word
from nahanni_compute.region.membership import Member
from nahanni_compute.region.slots import Key

RING_LOG2 = 9  # 512 descriptors: twice what a worker is ever granted and has not answered (R5)
RING_BYTES = ring_bytes(RING_LOG2)


class Rings:
    """A slot keeps its ring for good: counters are never reset, not even for a new incarnation (R1)."""

    def __init__(self, member: Member) -> None:
        self._member, self._endpoint, self._region = member, member.endpoint, member.region
        self._by_slot: dict[int, int] = {}
        self._at = self._end = 0

    def add_room(self, offset: int, nbytes: int) -> None:
        """A span of the keeper's arena for more rings."""
        assert offset >= HEAP and offset % LINE == 0
        self._at, self._end = offset, offset + nbytes

    def has_room_for(self, slot: int) -> bool:
        """Whether a member in that slot could be welcomed now."""
        return slot in self._by_slot or self._at + RING_BYTES <= self._end

    def _ring_to(self, slot: int) -> int:
        offset = self._by_slot.get(slot)
        if offset is None:
            offset = self._by_slot[slot] = self._at
            self._at += RING_BYTES
        return offset

    def welcome(self, key: Key, epoch: int) -> None:
        """Open both directions for this incarnation, and say so."""
        region, me = self._region, self._member.key.slot
        ring = self._ring_to(key.slot)
        uplink = slot_word(key.slot, "uplink")
        self._endpoint.open_in(key.slot, uplink, UPLINK_LOG2, region.load(uplink + RING["head"]))
        self._endpoint.open_out(key.slot, ring, RING_LOG2)
        region.store(ring + RING["start"], region.load(ring + RING["tail"]))
        region.store(directory_word(me, key.slot), ring | RING_LOG2)
        region.store(ring + RING["reader"], key.incarnation)  # last: who finds it finds the rest
        self._endpoint.send(key.slot, messages.WELCOME, key.incarnation, epoch)
        self._endpoint.flush()
        self._endpoint.ring(key.slot)

    def close(self, key: Key) -> None:
        """Nothing is read from it or written to it any more; what lies in the ring stays (F3). Its slot may have a next life (A1)."""
        self._endpoint.close_ring(key.slot)
        ring = self._by_slot.get(key.slot)
        if ring is not None:
            self._region.store(ring + RING["reader"], 0)
