"""Rings and doorbells between processes: section 2 and 3 of the protocol, on a memfd."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nahanni_compute import core
from nahanni_compute._native import Endpoint, Region
from nahanni_compute.region import layout
from nahanni_compute.region.layout import HEAP, REGION_SIZE_MIN, slot_word

A, B = 1, 2
RING_A, RING_B = HEAP, HEAP + (1 << 20)
TAIL, HEAD = 0, layout.LINE
PATIENCE_S = 60.0

PEER = """
import mmap, os, sys
from nahanni_compute import core
from nahanni_compute._native import Endpoint, Region
core.configure()
memory, mine, theirs, log2, script = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
m = mmap.mmap(memory, os.fstat(memory).st_size)
e = Endpoint(Region(m, None), 2, 1)
e.set_bell(mine, 8)
e.add_door(1, 0, theirs)
e.open_in(1, {a}, log2, 0)
e.open_out(1, {b}, log2)
e.start_pump()
exec(script)
"""


class Pair:
    """This process in slot A, another in slot B, one ring each way."""

    def __init__(self, log2: int, script: str) -> None:
        core.configure()
        self.memory = os.memfd_create("ring")
        os.ftruncate(self.memory, REGION_SIZE_MIN)
        self.map = mmap.mmap(self.memory, REGION_SIZE_MIN)
        self.region = Region(self.map, None)
        for slot in (A, B):
            self.region.store(slot_word(slot, "bell"), slot << 16)
        self.bells = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        self.endpoint = Endpoint(self.region, A, 1)
        self.endpoint.set_bell(self.bells[0], 8)
        self.endpoint.add_door(B, 0, self.bells[1])
        self.endpoint.open_in(B, RING_B, log2, 0)
        self.endpoint.open_out(B, RING_A, log2)
        self.endpoint.start_pump()
        fds = (self.memory, self.bells[1], self.bells[0])
        code = PEER.format(a=RING_A, b=RING_B)
        self.peer = subprocess.Popen([sys.executable, "-P", "-c", code, *map(str, fds), str(log2), script], pass_fds=fds)

    def receive(self, n: int) -> list[tuple[int, ...]]:
        """n messages, whenever they come."""
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
        self.peer.kill()
        self.peer.wait()
        self.endpoint.close()
        self.region.close()
        self.map.close()
        for fd in (self.memory, *self.bells):
            os.close(fd)


ECHO = """
while True:
    for message in e.take():
        e.send(1, *message[1:])
    e.flush()
    e.wait()
"""
COUNT_UP = """
for i in range({n}):
    e.send(1, 7, i, i * i, i ^ 5)
    if i % 37 == 0:
        e.flush()
e.flush()
while True:
    e.wait()
"""


@pytest.fixture(params=[1, 4, 9])
def log2(request: pytest.FixtureRequest) -> int:
    size: int = request.param
    return size


def test_messages_come_back_whole_and_in_order(log2: int) -> None:
    """Batches of every size, through rings that wrap many times."""
    pair = Pair(log2, ECHO)
    try:
        sent = 0
        for batch in (1, 2, 3, 64, 500, 1, 1000):
            for i in range(sent, sent + batch):
                pair.endpoint.send(B, 5, i, i * i, 1 << 63)
            pair.endpoint.flush()
            got = pair.receive(batch)
            assert [(B, 5, i, i * i, 1 << 63, 0, 0, 0, 0) for i in range(sent, sent + batch)] == got
            sent += batch
    finally:
        pair.close()


def test_a_producer_that_finds_no_room_loses_nothing_and_does_not_wait(log2: int) -> None:
    """R5: what does not fit waits in a FIFO of its destination, and the pump sends it on."""
    n = 2_000 if log2 == 1 else 50_000
    pair = Pair(log2, COUNT_UP.format(n=n))
    try:
        got = pair.receive(n)
        assert [message[2] for message in got] == list(range(n))
        assert all(message[3] == message[2] ** 2 and message[4] == message[2] ^ 5 for message in got)
    finally:
        pair.close()


def test_sleepers_are_woken_by_the_bell_and_not_by_the_timeout() -> None:
    """1000 round trips with both sides asleep: nearly all wake-ups are by bell."""
    pair = Pair(4, ECHO)
    try:
        for i in range(1000):
            pair.endpoint.send(B, 5, i)
            pair.endpoint.flush()
            assert pair.receive(1)[0][2] == i
        _, wakes, rescues, _ = pair.endpoint.statistics()
        assert wakes >= 500
        assert rescues <= wakes * 0.05
    finally:
        pair.close()


def test_with_no_bell_at_all_everything_is_found_by_the_timeout() -> None:
    """Decision 3: a lost doorbell costs latency, never progress."""
    pair = Pair(4, ECHO)
    try:
        pair.region.store(slot_word(B, "bell"), 999 << 16)  # rings go nowhere
        pair.endpoint.send(B, 5, 42)
        pair.endpoint.flush()
        assert pair.receive(1)[0][2] == 42
    finally:
        pair.close()


def test_a_peer_killed_with_sigkill_leaves_whole_batches_only() -> None:
    """R6: before the tail the batch never was; after it, it counts in full."""
    pair = Pair(6, COUNT_UP.format(n=10_000_000))
    try:
        got = pair.receive(3000)
        pair.peer.send_signal(signal.SIGKILL)
        pair.peer.wait()
        while mail := pair.endpoint.take():
            got += mail
        numbers = [message[2] for message in got]
        assert numbers == list(range(len(numbers)))
        assert all(message[3] == message[2] ** 2 for message in got)
    finally:
        pair.close()


def test_a_new_incarnation_goes_on_at_the_tail_it_finds() -> None:
    """R1: counters only grow, also across lives."""
    pair = Pair(4, ECHO)
    try:
        for i in range(40):
            pair.endpoint.send(B, 5, i)
        pair.endpoint.flush()
        pair.receive(40)
        pair.endpoint.close_ring(B)
        pair.endpoint.open_in(B, RING_B, 4, pair.region.load(RING_B + HEAD))
        pair.endpoint.open_out(B, RING_A, 4)
        assert pair.region.load(RING_A + TAIL) == 40
        pair.endpoint.send(B, 5, 99)
        pair.endpoint.flush()
        assert pair.receive(1)[0][2] == 99
    finally:
        pair.close()


@pytest.fixture
def alone() -> Iterator[tuple[Region, Endpoint]]:
    """An endpoint whose peer is this test itself, writing the peer's words by hand."""
    core.configure()
    memory = mmap.mmap(-1, REGION_SIZE_MIN)
    region = Region(memory, None)
    endpoint = Endpoint(region, A, 1)
    endpoint.open_in(B, RING_B, 4, 0)
    endpoint.open_out(B, RING_A, 4)
    yield region, endpoint
    endpoint.close()
    region.close()
    memory.close()


@pytest.mark.parametrize("tail", [17, 1 << 40, (1 << 64) - 1])
def test_a_tail_too_far_ahead_or_gone_back_is_a_violation(alone: tuple[Region, Endpoint], tail: int) -> None:
    """R3: and nothing of it is delivered."""
    region, endpoint = alone
    region.store(RING_B + TAIL, tail)
    assert endpoint.take() == []
    assert endpoint.violator() == B


def test_a_head_beyond_the_tail_is_a_violation(alone: tuple[Region, Endpoint]) -> None:
    """R3, the producer's side."""
    region, endpoint = alone
    region.store(RING_A + HEAD, 99)
    for i in range(40):
        endpoint.send(B, 5, i)
    endpoint.flush()
    assert endpoint.violator() == B


@pytest.mark.parametrize(("offset", "log2"), [(HEAP + 1, 4), (REGION_SIZE_MIN - 64, 4), (1 << 60, 4), (HEAP, 17), (0, 4)])
def test_a_ring_outside_the_region_is_refused(alone: tuple[Region, Endpoint], offset: int, log2: int) -> None:
    """Whatever a directory word says."""
    _, endpoint = alone
    with pytest.raises(Exception, match="inside the region"):
        endpoint.open_in(3, offset, log2, 0)


class RingMachine(RuleBasedStateMachine):
    """Two endpoints in one process against a queue: any mix of sends, flushes and takes."""

    def __init__(self) -> None:
        super().__init__()
        core.configure()
        self.memory = mmap.mmap(-1, REGION_SIZE_MIN)
        self.region = Region(self.memory, None)
        self.producer = Endpoint(self.region, A, 1)
        self.consumer = Endpoint(self.region, B, 1)
        self.producer.open_out(B, RING_A, 2)
        self.consumer.open_in(A, RING_A, 2, 0)
        self.sent: deque[int] = deque()
        self.number = 0

    @rule(n=st.integers(1, 9))
    def send(self, n: int) -> None:
        for _ in range(n):
            self.producer.send(B, 1, self.number)
            self.sent.append(self.number)
            self.number += 1

    @rule()
    def flush(self) -> None:
        self.producer.flush()

    @rule()
    def take(self) -> None:
        for message in self.consumer.take():
            assert message[2] == self.sent.popleft()

    @precondition(lambda self: self.sent)
    @rule()
    def empty(self) -> None:
        while self.sent:
            self.producer.flush()
            self.take()

    @invariant()
    def counters_agree(self) -> None:
        tail, head = self.region.load(RING_A + TAIL), self.region.load(RING_A + HEAD)
        assert 0 <= tail - head <= 4
        assert self.producer.violator() == self.consumer.violator() == -1

    def teardown(self) -> None:
        self.empty()
        self.producer.close()
        self.consumer.close()
        self.region.close()
        self.memory.close()


TestRingMachine = RingMachine.TestCase
TestRingMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
