"""What every substrate promises, as one suite: two endpoints on one region, this process and a peer behind the substrate under test.

`Contract` is a class of tests without a substrate. Its subclasses (test_substrates.py, guests/test_substrates.py) say how a peer
is run and killed.
"""

from __future__ import annotations

import hashlib
import time
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from nahanni_compute import core
from nahanni_compute.region import layout
from nahanni_compute.region.layout import HEAP, LINE, UPLINK_LOG2, directory_word, slot_word
from nahanni_compute.region.slots import Key, is_alive, member_key
from nahanni_compute.substrate import open_substrate

PATIENCE_S = 60.0
PEER = """
import sys
from nahanni_compute import core
from nahanni_compute.region import layout
from nahanni_compute.region.layout import HEAP, LINE, UPLINK_LOG2, directory_word, slot_word
from nahanni_compute.substrate import open_substrate

address, key, host = sys.argv[1], sys.argv[2], int(sys.argv[3])
core.configure()
place = open_substrate(address, key or None).attach(layout.ROLE_OBSERVER, 20)
endpoint, region = place.endpoint, place.region
me = endpoint.slot
region.store(slot_word(me, "bell"), place.bell)
region.store(slot_word(me, "e_state"), endpoint.incarnation << 8 | layout.STATE_MEMBER)
endpoint.start_pump()
theirs, ours = slot_word(host, "uplink"), slot_word(me, "uplink")
endpoint.open_in(host, theirs, UPLINK_LOG2, region.load(theirs))
endpoint.open_out(host, ours, UPLINK_LOG2)
region.store(directory_word(me, host), ours | UPLINK_LOG2)
endpoint.ring(host)

def leave():
    endpoint.stop_pump()
    region.store(slot_word(me, "e_state"), endpoint.incarnation << 8 | layout.STATE_LEFT)
    endpoint.ring(host)
    endpoint.close()
    region.close()
    place.leave()
    place.close()

"""
ECHO = """
going = True
while going:
    for message in endpoint.take():
        going &= message[1] != 9
        endpoint.send(host, *message[1:])
    endpoint.flush()
    going and endpoint.wait()
leave()
"""
PAYLOADS = """
import hashlib
for round in range(20):
    while not (mail := endpoint.take()):
        endpoint.wait()
    _, _, offset, nbytes, *_ = mail[0]
    digest = hashlib.sha256(region.read(offset, nbytes)).digest()
    answer = digest * (nbytes // 32)
    region.write(offset + nbytes, answer)
    endpoint.send(host, 5, offset + nbytes, len(answer))
    endpoint.flush()
leave()
"""
SLEEP = """
while True:
    endpoint.wait()
"""


class Running(Protocol):
    """A peer's process."""

    def kill(self) -> None:
        """With SIGKILL, wherever it is."""

    def wait(self) -> None:
        """Until it has ended by itself; its errors are ours."""


class Here:
    """This process's place, and a peer's once it has said where its ring is."""

    def __init__(self, socket: Path) -> None:
        core.configure()
        self.place = open_substrate(socket).attach(layout.ROLE_OBSERVER)
        self.endpoint, self.region, self.slot = self.place.endpoint, self.place.region, self.place.endpoint.slot
        self.region.store(slot_word(self.slot, "bell"), self.place.bell)
        self.region.store(slot_word(self.slot, "e_state"), self.endpoint.incarnation << 8 | layout.STATE_MEMBER)
        self.endpoint.start_pump()
        for slot in range(layout.SLOTS):  # what earlier tenants of their slots told an earlier tenant of ours
            self.region.store(directory_word(slot, self.slot), 0)
        self.peer = -1

    def meet(self) -> int:
        """The peer's slot."""
        end = time.monotonic() + PATIENCE_S
        while self.peer < 0:
            assert time.monotonic() < end, "no peer came"
            self.endpoint.wait(0.05)
            found = (slot for slot in range(1, layout.SLOTS) if self.region.load(directory_word(slot, self.slot)))
            self.peer = next(found, -1)
        theirs, ours = slot_word(self.peer, "uplink"), slot_word(self.slot, "uplink")
        self.endpoint.open_in(self.peer, theirs, UPLINK_LOG2, self.region.load(theirs + LINE))
        self.endpoint.open_out(self.peer, ours, UPLINK_LOG2)
        return self.peer

    def receive(self, n: int) -> list[tuple[int, ...]]:
        """n messages."""
        got: list[tuple[int, ...]] = []
        end = time.monotonic() + PATIENCE_S
        while len(got) < n:
            mail = self.endpoint.take()
            got += mail
            if not mail:
                assert time.monotonic() < end, f"{len(got)} of {n} came"
                self.endpoint.wait(1)
        return got

    def close(self) -> None:
        self.endpoint.stop_pump()
        self.region.store(slot_word(self.slot, "e_state"), self.endpoint.incarnation << 8 | layout.STATE_LEFT)
        self.endpoint.close()
        self.region.close()
        self.place.leave()
        self.place.close()


class Contract:
    """The suite. A subclass gives `socket` (of the server, for this process) and `run` (a peer on the substrate under test)."""

    rounds = 200

    @pytest.fixture
    def here(self, socket: Path) -> Iterator[Here]:
        made = Here(socket)
        yield made
        made.close()

    @abstractmethod
    def run(self, code: str, here: Here) -> Running:
        """Start a peer that runs PEER and then `code`."""

    def stop(self, here: Here, peer: Running) -> None:
        """An ECHO peer leaves at message 9."""
        here.endpoint.send(here.peer, 9)
        here.endpoint.flush()
        here.receive(1)
        peer.wait()

    def test_the_endpoint_has_a_slot_of_its_own_and_an_address_to_be_rung(self, here: Here) -> None:
        """Two peers are never in one slot, and both are alive to everybody."""
        peer = self.run(ECHO, here)
        slot = here.meet()
        assert slot != here.slot
        key = member_key(here.region, slot)
        assert key is not None and is_alive(here.region, key)
        assert here.region.load(slot_word(slot, "bell")) >> 16 == here.region.load(slot_word(slot, "peer"))
        self.stop(here, peer)

    def test_messages_come_back_whole_and_in_order(self, here: Here) -> None:
        """Batches of many sizes, through rings that wrap."""
        peer = self.run(ECHO, here)
        slot, sent = here.meet(), 0
        for batch in (1, 2, 64, 100, 128, 500, 1):
            for i in range(sent, sent + batch):
                here.endpoint.send(slot, 5, i, i * i, 1 << 63)
            here.endpoint.flush()
            assert here.receive(batch) == [(slot, 5, i, i * i, 1 << 63, 0, 0, 0, 0) for i in range(sent, sent + batch)]
            sent += batch
        self.stop(here, peer)

    def test_who_sleeps_is_woken_by_the_bell(self, here: Here) -> None:
        """Round trips with both asleep: at most one in twenty wake-ups is left to the timeout, on either side."""
        peer = self.run(ECHO, here)
        slot = here.meet()
        for i in range(self.rounds):
            here.endpoint.send(slot, 5, i)
            here.endpoint.flush()
            assert here.receive(1)[0][2] == i
        _, wakes, rescues, _ = here.endpoint.statistics()
        assert wakes > 0
        assert rescues <= 0.05 * (wakes + rescues)
        self.stop(here, peer)
        assert here.region.load(slot_word(slot, "rescues")) <= 0.05 * self.rounds

    def test_a_lost_bell_costs_a_timeout_and_nothing_else(self, here: Here) -> None:
        """Decision 3: a doorbell is a hint."""
        peer = self.run(ECHO, here)
        slot = here.meet()
        bell = here.region.load(slot_word(slot, "bell"))
        here.region.store(slot_word(slot, "bell"), 65535 << 16)
        here.endpoint.send(slot, 5, 42)
        here.endpoint.flush()
        assert here.receive(1)[0][2] == 42
        here.region.store(slot_word(slot, "bell"), bell)
        self.stop(here, peer)

    def test_what_was_written_before_a_message_is_there_when_it_comes(self, here: Here) -> None:
        """Both ways, also by streaming stores (M4): a megabyte, then its digest over and over."""
        peer = self.run(PAYLOADS, here)
        slot, nbytes = here.meet(), 1 << 20
        for round in range(20):
            data = hashlib.sha256(bytes([round])).digest() * (nbytes // 32)
            here.region.write(HEAP, data)
            here.endpoint.send(slot, 5, HEAP, nbytes)
            here.endpoint.flush()
            _, _, offset, length, *_ = here.receive(1)[0]
            assert here.region.read(offset, length) == hashlib.sha256(data).digest() * (nbytes // 32)
        peer.wait()

    def test_leaving_in_order_is_seen(self, here: Here) -> None:
        """Its last store says so, and it is alive no more."""
        peer = self.run(ECHO, here)
        slot = here.meet()
        key = member_key(here.region, slot)
        assert key is not None
        self.stop(here, peer)
        assert not is_alive(here.region, key)
        assert here.region.load(slot_word(slot, "e_state")) == key.incarnation << 8 | layout.STATE_LEFT

    def test_a_killed_peer_is_called_dead_by_one_who_knows(self, here: Here) -> None:
        """D2: the server by its pidfd, or within one kernel the next that takes the slot."""
        peer = self.run(SLEEP, here)
        slot = here.meet()
        key = member_key(here.region, slot)
        assert key is not None and is_alive(here.region, key)
        peer.kill()
        self.await_death(here, key)
        assert not is_alive(here.region, key)

    def await_death(self, here: Here, key: Key) -> None:
        """Until the fact is stored."""
        for field in ("s_state", "n_state"):
            here.endpoint.watch(slot_word(key.slot, field))
        end = time.monotonic() + PATIENCE_S
        while is_alive(here.region, key):
            assert time.monotonic() < end, "nobody said that it died"
            here.endpoint.wait(1)
            here.endpoint.changed()
