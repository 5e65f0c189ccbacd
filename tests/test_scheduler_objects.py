"""The keeper's memory as tables: what it is told, and what it then says; and what it keeps is exact under random use."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from nahanni_compute.messages import BundleKey
from nahanni_compute.region.arenas import bundle_bytes
from nahanni_compute.region.layout import MIB, REASON_FULL, REASON_SERVER_DIED, REASON_TOO_LARGE
from nahanni_compute.region.slots import Key
from nahanni_compute.scheduler.events import Commit, Give, Instruction, Punch, Refuse, Violation
from nahanni_compute.scheduler.objects import Heap

REGION = 64 * MIB
START = 36 * MIB  # 28 units of 1 MiB from here on
UNITS = 28
C, D, W = Key(1, 1), Key(2, 1), Key(9, 1)
A, B = BundleKey(START, 1), BundleKey(START + MIB // 2, 1)

Call = tuple[Any, ...]  # a method of Heap, and its arguments
Step = tuple[Call, Sequence[Instruction]]
Steps = Sequence[Step]


def unit(n: int) -> int:
    """Where unit n begins."""
    return START + n * MIB


def given(*spans: tuple[Key, int, int]) -> Steps:
    """The steps that bring each endpoint units lo..hi, in this order from the first unit on."""
    steps: list[Step] = []
    for endpoint, lo, hi in spans:
        span = (unit(lo), (hi - lo) * MIB)
        steps.append((("ask", endpoint, span[1]), [Commit(*span)]))
        steps.append((("committed", *span), [Give(endpoint, *span)]))
    return steps


def told(heap: Heap, call: Call) -> list[Instruction]:
    """What the heap says to it."""
    answer: list[Instruction] = getattr(heap, call[0])(*call[1:])
    return answer


ARENAS: dict[str, Steps] = {
    "an arena is committed first, then given, in whole units": [
        (("ask", C, 1), [Commit(unit(0), MIB)]),
        (("ask", D, MIB + 1), [Commit(unit(1), 2 * MIB)]),
        (("committed", unit(1), 2 * MIB), [Give(D, unit(1), 2 * MIB)]),
        (("committed", unit(0), MIB), [Give(C, unit(0), MIB)]),
    ],
    "what can never fit is refused as too large, what does not fit now as full": [
        (("ask", C, UNITS * MIB + 1), [Refuse(C, UNITS * MIB + 1, REASON_TOO_LARGE)]),
        (("ask", C, 1 << 63), [Refuse(C, 1 << 63, REASON_TOO_LARGE)]),
        (("ask", C, UNITS * MIB), [Commit(unit(0), UNITS * MIB)]),
        (("ask", D, 1), [Refuse(D, 1, REASON_FULL)]),
    ],
    "what the server refuses is refused to who asked, and free again": [
        (("ask", C, 100), [Commit(unit(0), MIB)]),
        (("refused", unit(0), REASON_FULL), [Refuse(C, 100, REASON_FULL)]),
        (("ask", D, 100), [Commit(unit(0), MIB)]),
    ],
    "answers to what was not asked are ignored": [
        (("committed", unit(0), MIB), []),
        (("refused", unit(0), REASON_FULL), []),
        (("ask", C, 1), [Commit(unit(0), MIB)]),
        (("committed", unit(0), 2 * MIB), []),
        (("committed", unit(0), MIB), [Give(C, unit(0), MIB)]),
        (("committed", unit(0), MIB), []),
    ],
    "without a server everything is refused, what was asked before too": [
        (("ask", C, 100), [Commit(unit(0), MIB)]),
        (("server_gone",), [Refuse(C, 100, REASON_SERVER_DIED)]),
        (("ask", D, 200), [Refuse(D, 200, REASON_SERVER_DIED)]),
    ],
    "who asked and was gone before the answer gets nothing": [
        (("ask", C, 1), [Commit(unit(0), MIB)]),
        (("ask", D, 1), [Commit(unit(1), MIB)]),
        (("left", C), []),
        (("died", D), []),
        (("committed", unit(0), MIB), [Punch(unit(0), MIB)]),
        (("refused", unit(1), REASON_FULL), []),
        (("ask", W, UNITS * MIB), [Commit(unit(0), UNITS * MIB)]),
    ],
}
LEAVING: dict[str, Steps] = {
    "units of who left come back at once, in runs, if nothing live is in them": [
        *given((C, 0, 2), (D, 2, 3), (C, 3, 4)),
        (("left", C), [Punch(unit(0), 2 * MIB), Punch(unit(3), MIB)]),
        (("ask", W, 2 * MIB), [Commit(unit(0), 2 * MIB)]),
        (("left", C), []),
    ],
    "a chunk keeps the units that it touches until its bundle is forgotten": [
        *given((C, 0, 1), (W, 1, 4)),
        (("opened", C, A, 10), []),
        (("chunk_told", W, A, unit(2) - 64, 128), []),
        (("left", W), [Punch(unit(3), MIB)]),
        (("forget", A), [Punch(unit(1), 2 * MIB)]),
        (("forget", A), []),
    ],
    "a client's units come back when all its bundles are gone: what items name lies there too": [
        *given((C, 0, 3), (W, 3, 4)),
        (("opened", C, A, 10), []),
        (("opened", C, B, 10), []),
        (("chunk_told", W, B, unit(3), 64), []),
        (("left", C), []),
        (("forget", A), []),
        (("forget", B), [Punch(unit(0), 3 * MIB)]),
    ],
    "units of the dead stay as they are": [
        *given((C, 0, 1), (W, 1, 2)),
        (("opened", C, A, 10), []),
        (("chunk_told", W, A, unit(1), 64), []),
        (("died", W), []),
        (("forget", A), []),
        (("ask", D, (UNITS - 2) * MIB), [Commit(unit(2), (UNITS - 2) * MIB)]),
        (("ask", D, 1), [Refuse(D, 1, REASON_FULL)]),
    ],
    "a block may lie across two arenas of its owner": [
        *given((C, 0, 1), (C, 1, 2)),
        (("opened", C, BundleKey(unit(1) - 4096, 1), 1000), []),
    ],
    "an arena that holds nothing may be returned, whole or in part, and is another's then": [
        *given((C, 0, 3)),
        (("opened", C, BundleKey(unit(1), 1), 10), []),
        (("returned", C, unit(2), MIB), [Punch(unit(2), MIB)]),
        (("returned", C, unit(0), MIB), [Punch(unit(0), MIB)]),
        (("forget", BundleKey(unit(1), 1)), []),
        (("returned", C, unit(1), MIB), [Punch(unit(1), MIB)]),
        *given((W, 0, 3)),
        (("left", C), []),
    ],
    "a block that was forgotten may be used again": [
        *given((C, 0, 1)),
        (("opened", C, A, 60_000), []),
        (("forget", A), []),
        (("opened", C, A._replace(generation=2), 60_000), []),
    ],
}
TABLES = {**ARENAS, **LEAVING}


@pytest.mark.parametrize("steps", [pytest.param(steps, id=name.replace(" ", "-")) for name, steps in TABLES.items()])
def test_what_is_told_and_the_instructions_it_leads_to(steps: Steps) -> None:
    """Step by step, in full and in order; each row's name is its sentence."""
    heap = Heap(REGION)
    for number, (step, expected) in enumerate(steps):
        assert told(heap, step) == list(expected), f"step {number}"


ILLEGAL: dict[str, tuple[Key, Call]] = {
    "opens a bundle that is known": (C, ("opened", C, A, 10)),
    "opens another's bundle": (D, ("opened", D, A, 10)),
    "opens a bundle in nobody's units": (C, ("opened", C, BundleKey(unit(20), 1), 10)),
    "opens a bundle in another's units": (C, ("opened", C, BundleKey(unit(2), 1), 10)),
    "opens a bundle that runs into another's units": (C, ("opened", C, BundleKey(unit(2) - 64, 1), 10)),
    "opens a bundle below the heap": (C, ("opened", C, BundleKey(0, 1), 10)),
    "opens a bundle beyond the region": (C, ("opened", C, BundleKey(REGION, 1), 10)),
    "opens a bundle at no multiple of 64": (C, ("opened", C, BundleKey(unit(1) + 8, 1), 10)),
    "opens a bundle and owns nothing": (Key(5, 1), ("opened", Key(5, 1), B, 10)),
    "opens a bundle in the units of another life of its slot": (Key(1, 2), ("opened", Key(1, 2), B, 10)),
    "tells a chunk of an unknown bundle": (W, ("chunk_told", W, B, unit(3), 64)),
    "tells a chunk in another's units": (W, ("chunk_told", W, A, unit(0), 64)),
    "tells a chunk that runs into nobody's units": (W, ("chunk_told", W, A, unit(3), MIB + 64)),
    "tells a chunk of no bytes": (W, ("chunk_told", W, A, unit(3), 0)),
    "tells a chunk larger than any region": (W, ("chunk_told", W, A, unit(3), 1 << 63)),
    "tells a chunk at an offset beyond any region": (W, ("chunk_told", W, A, 1 << 63, 64)),
    "returns another's unit": (W, ("returned", W, unit(2), MIB)),
    "returns nobody's unit": (W, ("returned", W, unit(20), MIB)),
    "returns half a unit": (C, ("returned", C, unit(1), MIB // 2)),
    "returns what is no whole unit": (C, ("returned", C, unit(1) - MIB // 2, MIB)),
    "returns nothing": (C, ("returned", C, unit(1), 0)),
    "returns a unit with a bundle in it": (C, ("returned", C, unit(0), MIB)),
    "returns a unit with a chunk in it": (W, ("returned", W, unit(3), MIB)),
    "returns what it owns and more": (C, ("returned", C, unit(1), 2 * MIB)),
    "tells chunks of more bytes than it owns": (W, ("chunk_told", W, A, unit(3), MIB)),
}


@pytest.mark.parametrize(("culprit", "step"), [pytest.param(*row, id=name.replace(" ", "-")) for name, row in ILLEGAL.items()])
def test_what_may_not_be_said_is_a_violation_and_changes_nothing(culprit: Key, step: Call) -> None:
    """Offsets and lengths are nobody's to trust (decision 10): everything comes back as if it had not been said."""
    heap = Heap(REGION)
    for legal, _ in given((C, 0, 2), (D, 2, 3), (W, 3, 4)):
        told(heap, legal)
    assert heap.opened(C, A, 10) == heap.chunk_told(W, A, unit(3), 64) == []
    (violation,) = told(heap, step)
    assert isinstance(violation, Violation)
    assert violation.endpoint == culprit
    heap.forget(A)
    assert [heap.left(endpoint) for endpoint in (C, D, W)] == [[Punch(unit(0), 2 * MIB)], [Punch(unit(2), MIB)], [Punch(unit(3), MIB)]]
    assert heap.free_bytes == UNITS * MIB


def test_the_table_of_units_says_whose_each_is_dead_or_alive() -> None:
    """K2: the words of the arena table are made of this."""
    heap = Heap(REGION)
    for step, _ in given((C, 0, 2), (D, 2, 3), (W, 3, 4)):
        told(heap, step)
    heap.left(C)
    heap.died(D)
    assert [heap.owner_of(n) for n in range(5)] == [None, None, D, W, None]
    assert heap.units(unit(2), 2 * MIB) == range(2, 4)
    assert heap.units(unit(2) + 1, MIB) == range(2, 4)


def test_a_large_region_has_larger_units() -> None:
    """The arena table has room for 4096 of them."""
    heap = Heap(1 << 40)
    assert heap.ask(C, 1) == [Commit(heap.start, heap.unit)]
    assert heap.unit == (1 << 40) // 4096


@pytest.mark.parametrize("seed", range(20))
def test_random_use_loses_no_unit_and_gives_none_twice(seed: int) -> None:
    """Against a plain list of what is whose: spans given do not overlap, and once all have left and all is forgotten the heap is whole."""
    rnd = random.Random(seed)
    heap = Heap(REGION)
    owner: dict[int, Key] = {}
    alive, bundles, chunks = [Key(slot, 1) for slot in range(1, 9)], dict[BundleKey, Key](), list[tuple[Key, int]]()

    def see(instructions: list[Instruction]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Commit):
                see(heap.committed(instruction.offset, instruction.nbytes))
            elif isinstance(instruction, Give):
                for n in heap.units(instruction.offset, instruction.nbytes):
                    assert n not in owner
                    owner[n] = instruction.endpoint
            elif isinstance(instruction, Punch):
                for n in heap.units(instruction.offset, instruction.nbytes):
                    assert owner.pop(n) not in alive
                    assert not [c for c in chunks if c[1] == n]
            else:
                assert isinstance(instruction, Refuse)

    for generation in range(300):
        endpoint = rnd.choice(alive)
        own = [n for n, key in owner.items() if key == endpoint]
        match rnd.randrange(6):
            case 0 | 1:
                see(heap.ask(endpoint, rnd.randrange(1, 3 * MIB)))
            case 2 if own:
                bundle = BundleKey(unit(rnd.choice(own)) + 64 * rnd.randrange(1000), generation)
                if heap.opened(endpoint, bundle, rnd.randrange(1, 1000)) == []:
                    bundles[bundle] = endpoint
            case 3 if own and bundles:
                at = rnd.choice(own)
                assert heap.chunk_told(endpoint, rnd.choice(list(bundles)), unit(at), 64 * rnd.randrange(1, 100)) == []
                chunks.append((endpoint, at))
            case 4 if bundles and rnd.random() < 0.3:
                chunks.clear()
                while bundles:
                    see(heap.forget(bundles.popitem()[0]))
            case 5 if len(alive) > 1 and rnd.random() < 0.1:
                alive.remove(endpoint)
                see(heap.left(endpoint))
        assert heap.free_bytes == (UNITS - len(owner)) * MIB
    chunks.clear()
    for bundle in list(bundles):
        see(heap.forget(bundle))
    while alive:
        see(heap.left(alive.pop()))
    assert not owner
    assert heap.free_bytes == UNITS * MIB


def test_a_bundle_that_fills_its_clients_arena_is_right() -> None:
    """The last byte of a block may be the last of the arena."""
    heap = Heap(REGION)
    for step, _ in given((C, 0, 1)):
        told(heap, step)
    size = bundle_bytes(1000)
    assert heap.opened(C, BundleKey(unit(1) - size, 1), 1000) == []
    assert heap.opened(C, BundleKey(unit(1) - size + 64, 2), 1000) != []
