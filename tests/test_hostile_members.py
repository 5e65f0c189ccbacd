"""Decision 10: garbage costs the endpoint that sent it its membership, never the reader its life. Real members, one of which lies."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from nahanni_compute import Client, LocalCluster

PATIENCE_S = 30.0

MEMBER = """
import sys
from nahanni_compute import core, messages
from nahanni_compute.region import layout
from nahanni_compute.region.layout import BUNDLE, slot_word
from nahanni_compute.region.membership import Member
from nahanni_compute.session import Session
from nahanni_compute.substrate import open_substrate

core.configure()
role = getattr(layout, sys.argv[2])
member = Member(open_substrate(sys.argv[1]).attach(role), role, "liar", 1)
member.endpoint.start_pump()
member.find_keeper(20)
endpoint, region, keeper = member.endpoint, member.region, member.keeper.slot
session = Session(member)

def say(kind, *words):
    endpoint.send(keeper, getattr(messages, kind), *words)
    endpoint.flush()

def bundle(capacity=64):
    return session.new_bundle(capacity, session.function_of(abs))

exec(sys.argv[3])
while True:
    endpoint.wait()
    endpoint.take()
"""

LIES = {
    "a message of no kind": ("ROLE_CLIENT", "endpoint.send(keeper, 999); endpoint.flush()"),
    "a client's message from a worker": ("ROLE_WORKER", "say('OPEN', layout.HEAP, 1, 10, 0)"),
    "a worker's message from a client": ("ROLE_CLIENT", "say('DONE', layout.HEAP, 1, 1, 1, 1, 0)"),
    "an answer to a range it was not granted": ("ROLE_WORKER", "say('DONE', layout.HEAP, 1, 10**9, 1, 1, 0)"),
    "a chunk of a bundle it holds nothing of": ("ROLE_WORKER", "say('CHUNK', layout.HEAP, 1, layout.HEAP, 4096)"),
    "a bundle outside its arenas": ("ROLE_CLIENT", "say('OPEN', layout.HEAP, session._life << 32 | 1, 10, 0)"),
    "a bundle of another life": ("ROLE_CLIENT", "b = bundle(); say('OPEN', b.offset, 7, 64, 0)"),
    "a bundle twice": ("ROLE_CLIENT", "b = bundle(); say('OPEN', b.offset, b.generation, 64, 0)"),
    "an arena that is not its own, returned": ("ROLE_CLIENT", "say('RETURN', layout.HEAP, 1 << 20)"),
    "more arenas than it waits for": ("ROLE_CLIENT", "[say('ASK', 1 << 20) for _ in range(50)]"),
    "a tail too far ahead": ("ROLE_CLIENT", "region.store(slot_word(member.key.slot, 'uplink'), 1 << 40); endpoint.ring(keeper)"),
    "a header that shrinks after OPEN": (
        "ROLE_CLIENT",
        "b = bundle(); region.store(b.offset + BUNDLE['capacity'], 2); b.fill(iter(range(64)), 64); b.ring(keeper, 0)",
    ),
    "a header that is no header after OPEN": (
        "ROLE_CLIENT",
        "b = bundle(); region.store(b.offset + BUNDLE['magic'], 0); b.fill(iter(range(64)), 64); b.ring(keeper, 0)",
    ),
}


@pytest.fixture
def own(cluster: LocalCluster) -> LocalCluster:
    return cluster


@pytest.mark.parametrize("lie", LIES)
def test_who_lies_is_expelled_and_nobody_else_is_harmed(own: LocalCluster, lie: str) -> None:
    """Its process is ended by the server; scheduler and workers are the same processes as before, and work."""
    role, code = LIES[lie]
    with Client(own) as client:
        before = own.pids
        liar = subprocess.Popen([sys.executable, "-P", "-c", MEMBER, own.address, role, code])
        try:
            assert liar.wait(PATIENCE_S) == -signal.SIGKILL
        finally:
            liar.kill()
            liar.wait()
        assert client.gather(client.map(abs, range(-100, 0)), timeout=PATIENCE_S) == list(range(100, 0, -1))
        assert client.submit(pow, 2, 10).result(PATIENCE_S) == 1024
        assert own.pids == before


def test_the_close_of_anothers_bundle_closes_nothing(own: LocalCluster) -> None:
    """Whose bundle it is is asked before anything is done."""
    with Client(own) as client:
        assert client.submit(abs, -1).result(PATIENCE_S) == 1
        victim = client._session.open
        assert victim is not None
        code = f"say('CLOSE', {victim.offset}, {victim.generation})"
        liar = subprocess.Popen([sys.executable, "-P", "-c", MEMBER, own.address, "ROLE_CLIENT", code])
        assert liar.wait(PATIENCE_S) == -signal.SIGKILL
        assert client._session.open is victim
        assert client.submit(abs, -2).result(PATIENCE_S) == 2
