"""Joining: from an attached endpoint to a member that the keeper has welcomed.

The first ring of every endpoint, its uplink, lies in its own slot, so nobody needs an arena to say hello. An endpoint writes
who it is, then e_state; once the server has appointed a keeper it says where its uplink is and rings. The keeper answers by a
ring made for this incarnation, whose start says where to read on (R6). Before that the endpoint publishes nothing: the keeper
may still be reading what an ancestor of the slot left.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from typing import Protocol

from nahanni_compute._native import Endpoint, Region
from nahanni_compute.errors import NahanniError, SchedulerDied, ServerDied
from nahanni_compute.region import layout
from nahanni_compute.region.boot import boot_id
from nahanni_compute.region.layout import HEADER, LINE, RING, UPLINK_LOG2, directory_word, ring_bytes, slot_word
from nahanni_compute.region.slots import Key, clear_own_words, is_alive, keeper_of, text_words

ANCESTOR_S = 5.0
SHORT_S = 0.01
LOOK_S = 0.05  # how often a joiner looks again without being rung


class Attachment(Protocol):
    """What a substrate gives: a place in the region, and how to ring and be rung."""

    endpoint: Endpoint
    region: Region
    bell: int  # peer << 16 | vector
    name: str

    def prove_deaths(self) -> list[int]:
        """Slots of endpoints of the same kernel that are certainly gone, and whom only we can call dead (D2)."""

    def leave(self) -> None:
        """LEAVE, after the last store (D3)."""

    def close(self) -> None:
        """Give up mapping and descriptors. Idempotent."""


class Member:
    """An endpoint with an identity, and the keeper it talks to."""

    def __init__(self, attachment: Attachment, role: int, name: str, threads: int = 0) -> None:
        self.attachment, self.role, self.name = attachment, role, name
        self.endpoint, self.region = attachment.endpoint, attachment.region
        self.key = Key(self.endpoint.slot, self.endpoint.incarnation)
        self.keeper: Key | None = None
        self._await_end_of_ancestor()
        self._announce(threads)

    def _await_end_of_ancestor(self) -> None:
        """A guest's slot is taken again at once. Its words stay as they are until the keeper has read them (A1): what the last one
        died in is there. The keeper says so by the ring it had for that life."""
        found = keeper_of(self.region)
        if found is None or found[0] >= layout.SLOTS:
            return
        slot, end = found[0], time.monotonic() + ANCESTOR_S
        ring = self.region.load(directory_word(slot, self.key.slot)) & ~63
        keeper = Key(slot, self.region.load(slot_word(slot, "e_state")) >> 8)
        while ring and ring + LINE <= self.region.size and is_alive(self.region, keeper) and time.monotonic() < end:
            if self.region.load(ring + RING["reader"]) in (0, self.key.incarnation):
                return
            self.endpoint.ring(slot)
            self.endpoint.wait(SHORT_S)

    def _announce(self, threads: int) -> None:
        region, slot = self.region, self.key.slot
        clear_own_words(region, slot)
        region.store(slot_word(slot, "bell"), self.attachment.bell)
        region.store(slot_word(slot, "role"), self.role)
        region.store(slot_word(slot, "pid"), os.getpid())
        region.store(slot_word(slot, "threads"), threads)
        region.store(slot_word(slot, "python"), sys.hexversion)
        region.write(slot_word(slot, "boot"), boot_id())
        for field, text in (("name", self.name), ("host", platform.node()), ("substrate", self.attachment.name)):
            region.write(slot_word(slot, field), text_words(text, 64))
        region.store(slot_word(slot, "e_state"), self.key.incarnation << 8 | layout.STATE_MEMBER)

    def find_keeper(self, timeout_s: float) -> None:
        """Wait until the keeper has welcomed us. Raises SchedulerDied when none comes in time, ServerDied."""
        end = time.monotonic() + timeout_s
        self.endpoint.watch(HEADER["keeper"])
        while (found := keeper_of(self.region)) is None:
            self._pause(end, "no scheduler joined this region; start one with `nahanni scheduler`")
        slot, _epoch = found
        if slot >= layout.SLOTS:
            raise NahanniError(f"expected the slot of a scheduler below {layout.SLOTS}, saw {slot}: the region's header is damaged")
        incarnation = self.region.load(slot_word(slot, "e_state")) >> 8
        self.keeper = Key(slot, incarnation)
        self._call_keeper(slot, end)
        for field in ("s_state", "n_state", "e_state"):
            self.endpoint.watch(slot_word(slot, field))
        if not self.keeper_is_alive():
            raise SchedulerDied("expected the scheduler that welcomed us to live, saw its death: start a new cluster")

    def _call_keeper(self, slot: int, end: float) -> None:
        region, mine = self.region, self.key
        uplink = slot_word(mine.slot, "uplink")
        region.store(directory_word(mine.slot, slot), uplink | UPLINK_LOG2)
        self.endpoint.ring(slot)
        answer = directory_word(slot, mine.slot)
        self.endpoint.watch(answer)
        while True:
            where = region.load(answer)
            offset, log2 = where & ~63, where & 63
            if where and offset + ring_bytes(log2) <= region.size and region.load(offset + RING["reader"]) == mine.incarnation:
                break
            self._pause(end, "the scheduler does not answer; see its output, or `nahanni status`")
            self.endpoint.ring(slot)
        self.endpoint.unwatch(answer)
        self.endpoint.open_in(slot, offset, log2, region.load(offset + RING["start"]))
        self.endpoint.open_out(slot, uplink, UPLINK_LOG2)

    def _pause(self, end: float, why: str) -> None:
        left = end - time.monotonic()
        if self.endpoint.server_gone:
            raise ServerDied("expected the region's server, saw the end of its socket: start `nahanni server` again and join anew")
        if left <= 0:
            raise SchedulerDied(f"expected a scheduler, saw none in time: {why}")
        self.endpoint.wait(min(left, LOOK_S))
        self.endpoint.changed()

    def keeper_is_alive(self) -> bool:
        """False is a fact (D2)."""
        return self.keeper is not None and is_alive(self.region, self.keeper)

    def leave(self) -> None:
        """In order: the last store, then LEAVE, then nothing of ours is left (D3). Idempotent."""
        if not self.endpoint.closed:
            if self.endpoint.expelled:
                self.endpoint.close()
            else:
                self.endpoint.close(self.key.incarnation << 8 | layout.STATE_LEFT, self.keeper.slot if self.keeper else 0)
            self.region.close()
            self.attachment.leave()
        self.attachment.close()
