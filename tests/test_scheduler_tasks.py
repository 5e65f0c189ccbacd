"""The task state machine as tables: what it is told, turn by turn, and what it then says, all of it."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import pytest

from nahanni_compute.messages import BundleKey
from nahanni_compute.region.layout import BUNDLE_CONTROL, MAP_ITEMS_MAX
from nahanni_compute.region.slots import Key
from nahanni_compute.scheduler.events import (
    Back,
    BundleGone,
    ChunkTold,
    ClientGone,
    Closed,
    Control,
    Counted,
    Done,
    Drop,
    Event,
    Forget,
    Grant,
    Instruction,
    Lose,
    NoGrants,
    Opened,
    Released,
    Violation,
    WorkerGone,
    WorkerJoined,
)
from nahanni_compute.scheduler.grants import CREDITS, GROUP_RANGES_MAX
from nahanni_compute.scheduler.tasks import Tasks

Steps = Sequence[tuple[Sequence[Event], Sequence[Instruction]]]

C, D = Key(1, 1), Key(2, 1)  # clients
V, W = Key(8, 1), Key(9, 1)  # workers
A, B = BundleKey(1 << 20, 1), BundleKey(2 << 20, 1)
E, A_AGAIN = BundleKey(3 << 20, 1), BundleKey(1 << 20, 2)
US, MS = 1_000, 1_000_000
LONG = 20 * US  # enough to be worth a wake-up

V_JOINS, W_JOINS = WorkerJoined(V, "v", 1), WorkerJoined(W, "w", 1)
ONE_WORKER: list[Event] = [V_JOINS, Opened(A, C, 1000, 0)]
NOBODY_DIED: list[tuple[BundleKey, int]] = []


def died(worker: Key, *current: tuple[BundleKey, int]) -> WorkerGone:
    """It had answered nothing of what it held."""
    return WorkerGone(worker, {}, list(current))


GRANTING: dict[str, Steps] = {
    "the first groups are of sixteen items, one to run and one in advance": [
        ([*ONE_WORKER, Counted(A, 100)], [Grant(V, A, 1, 0, 16), Grant(V, A, 2, 16, 32)]),
        ([Counted(A, 1000)], []),
    ],
    "every worker has something before one has something in advance": [
        ([V_JOINS, W_JOINS, Opened(A, C, 8, 0), Counted(A, 3)], [Grant(V, A, 1, 0, 1), Grant(W, A, 2, 1, 2), Grant(V, A, 3, 2, 3)]),
    ],
    "what comes before any worker waits for one": [
        ([Opened(A, C, 1, 0), Counted(A, 1)], []),
        ([V_JOINS], [Grant(V, A, 1, 0, 1)]),
    ],
    "a group lasts about a millisecond by the running mean": [
        ([*ONE_WORKER, Counted(A, 1000)], [Grant(V, A, 1, 0, 16), Grant(V, A, 2, 16, 32)]),
        ([Done(V, 1, 16, 16 * LONG, 0)], [Grant(V, A, 3, 32, 82)]),
    ],
    "a group is at most half an even share of what is left": [
        ([V_JOINS, W_JOINS, Opened(A, C, 100, 0), Counted(A, 40)],
         [Grant(V, A, 1, 0, 10), Grant(W, A, 2, 10, 18), Grant(V, A, 3, 18, 24), Grant(W, A, 4, 24, 28)]),
        ([Done(V, 1, 10, 10 * LONG, 0)], [Grant(V, A, 5, 28, 31)]),
    ],
    "items that are over before somebody woke up are not split": [
        ([V_JOINS, W_JOINS, Opened(A, C, 100, 0), Counted(A, 40)],
         [Grant(V, A, 1, 0, 10), Grant(W, A, 2, 10, 18), Grant(V, A, 3, 18, 24), Grant(W, A, 4, 24, 28)]),
        ([Done(V, 1, 10, 10 * 50, 0)], [Grant(V, A, 5, 28, 40)]),
    ],
    "long items are not granted in advance": [
        ([*ONE_WORKER, Counted(A, 1000)], [Grant(V, A, 1, 0, 16), Grant(V, A, 2, 16, 32)]),
        ([Done(V, 1, 1, 3 * MS, 0)], []),
        ([Done(V, 2, 17, 3 * MS, 0)], [Grant(V, A, 3, 1, 2)]),
    ],
    "what was not run goes first, and neighbours are joined": [
        ([*ONE_WORKER, Counted(A, 64)], [Grant(V, A, 1, 0, 16), Grant(V, A, 2, 16, 32)]),
        ([Done(V, 2, 16, 0, 0), Done(V, 1, 4, 4 * LONG, 0)], [Grant(V, A, 3, 4, 34), Grant(V, A, 4, 34, 49)]),
    ],
    "scattered items go in one group of several ranges, which is over with the last": [
        ([*ONE_WORKER, Counted(A, 32)], [Grant(V, A, 1, 0, 16), Grant(V, A, 2, 16, 24)]),
        ([Back(V, 1, 14), Done(V, 2, 17, LONG, 0)], []),
        ([Done(V, 1, 2, 2 * LONG, 0)], [Grant(V, A, 3, 2, 16), Grant(V, A, 4, 17, 18), Grant(V, A, 5, 18, 25)]),
        ([Done(V, 3, 16, 14 * LONG, 0)], []),
        ([Done(V, 4, 18, LONG, 0)], [Grant(V, A, 6, 25, 29)]),
    ],
    "two threads have two groups, and two in advance": [
        ([WorkerJoined(V, "v", 2), Opened(A, C, 8, 0), Counted(A, 8)],
         [Grant(V, A, 1, 0, 2), Grant(V, A, 2, 2, 4), Grant(V, A, 3, 4, 5), Grant(V, A, 4, 5, 6)]),
    ],
    "an append to an open bundle is granted as soon as it is counted": [
        ([*ONE_WORKER, Counted(A, 1)], [Grant(V, A, 1, 0, 1)]),
        ([Counted(A, 2)], [Grant(V, A, 2, 1, 2)]),
        ([Counted(A, 4)], []),
        ([Done(V, 1, 1, LONG, 0), Done(V, 2, 2, LONG, 0)], [Grant(V, A, 3, 2, 3), Grant(V, A, 4, 3, 4)]),
    ],
    "the bundles of one client go by age": [
        ([*ONE_WORKER, Opened(B, C, 2, 0), Counted(B, 2), Counted(A, 1)], [Grant(V, A, 1, 0, 1), Grant(V, B, 2, 0, 1)]),
        ([Done(V, 2, 1, 1, 0), Counted(A, 2)], [Grant(V, A, 3, 1, 2)]),
    ],
    "clients take turns, however much one of them has": [
        ([*ONE_WORKER, Counted(A, 100)], [Grant(V, A, 1, 0, 16), Grant(V, A, 2, 16, 32)]),
        ([Opened(B, D, 100, 0), Counted(B, 100)], []),
        ([Done(V, 1, 16, 16 * 250 * US, 0)], [Grant(V, A, 3, 32, 36)]),
        ([Done(V, 2, 32, 16 * 250 * US, 0)], [Grant(V, B, 4, 0, 16)]),
        ([Done(V, 3, 36, MS, 0)], [Grant(V, A, 5, 36, 40)]),
        ([Done(V, 4, 16, 16 * 250 * US, 0)], [Grant(V, B, 6, 16, 20)]),
    ],
}  # fmt: skip

ANSWERING: dict[str, Steps] = {
    "BACK gives the rest to others at once, and its sender gets nothing before its DONE": [
        ([V_JOINS, Opened(A, C, 8, 0), Counted(A, 4)], [Grant(V, A, 1, 0, 2), Grant(V, A, 2, 2, 3)]),
        ([Back(V, 1, 1), Done(V, 2, 2, 0, 0)], []),
        ([W_JOINS], [Grant(W, A, 3, 1, 2), Grant(W, A, 4, 2, 3)]),
        ([Done(V, 1, 1, 5 * MS, 0)], [Grant(V, A, 5, 3, 4)]),
    ],
    "DONE after BACK gives back nothing twice": [
        ([*ONE_WORKER, Counted(A, 4)], [Grant(V, A, 1, 0, 2), Grant(V, A, 2, 2, 3)]),
        ([Back(V, 1, 1), Done(V, 1, 1, LONG, 0)], [Grant(V, A, 3, 1, 2)]),
        ([Done(V, 2, 3, LONG, 0), Done(V, 3, 2, LONG, 0)], [Grant(V, A, 4, 3, 4)]),
    ],
    "BACK after DONE is ignored": [
        ([*ONE_WORKER, Counted(A, 4)], [Grant(V, A, 1, 0, 2), Grant(V, A, 2, 2, 3)]),
        ([Done(V, 1, 1, LONG, 0), Back(V, 1, 1)], [Grant(V, A, 3, 1, 2)]),
    ],
    "BACK of nothing holds the next grant back all the same": [
        ([*ONE_WORKER, Counted(A, 1)], [Grant(V, A, 1, 0, 1)]),
        ([Back(V, 1, 1), Counted(A, 2)], []),
        ([Done(V, 1, 1, 5 * MS, 0)], [Grant(V, A, 2, 1, 2)]),
    ],
    "a second DONE of a range is ignored": [
        ([*ONE_WORKER, Counted(A, 1)], [Grant(V, A, 1, 0, 1)]),
        ([Done(V, 1, 1, 1, 0), Done(V, 1, 0, 1, 0), Done(V, 1, 9, 1, 9)], []),
    ],
    "counts go neither back nor beyond the room there is": [
        ([V_JOINS, Opened(A, C, 2, 0), Counted(A, 1)], [Grant(V, A, 1, 0, 1)]),
        ([Counted(A, 0)], []),
        ([Counted(A, 1)], []),
        ([Counted(A, 1 << 63)], [Grant(V, A, 2, 1, 2)]),
    ],
    "CLOSE brings the last count": [
        ([*ONE_WORKER, Closed(A, C, 1)], [Grant(V, A, 1, 0, 1)]),
        ([Counted(A, 5), Closed(A, C, 5)], []),
    ],
    "counts of unknown bundles are ignored": [
        ([V_JOINS, Counted(A, 1), Closed(A, C, 1), Released(A, C)], []),
    ],
}  # fmt: skip

RELEASING: dict[str, Steps] = {
    "a bundle without ranges out is forgotten at its release": [
        ([*ONE_WORKER, Closed(A, C, 1)], [Grant(V, A, 1, 0, 1)]),
        ([Done(V, 1, 1, 1, 0)], []),
        ([Released(A, C)], [Forget(C, A)]),
        ([Released(A, C)], []),
    ],
    "workers drop their chunks before the client is told": [
        ([V_JOINS, W_JOINS, Opened(A, C, 9, 0), Closed(A, C, 2)], [Grant(V, A, 1, 0, 1), Grant(W, A, 2, 1, 2)]),
        ([ChunkTold(W, A, 64, 64), ChunkTold(V, A, 64, 64), ChunkTold(W, A, 128, 64)], []),
        ([Done(V, 1, 1, 1, 0), Done(W, 2, 2, 1, 0), Released(A, C)], [Drop(W, A), Drop(V, A), Forget(C, A)]),
    ],
    "what is released is not granted any more, and forgotten when the last range is in": [
        ([*ONE_WORKER, Counted(A, 3)], [Grant(V, A, 1, 0, 2), Grant(V, A, 2, 2, 3)]),
        ([Released(A, C), Counted(A, 9)], []),
        ([Back(V, 1, 1), Done(V, 1, 1, 1, 0)], []),
        ([Done(V, 2, 2, 0, 0)], [Forget(C, A)]),
    ],
    "the death of the last holder forgets it too, and the dead are told nothing": [
        ([V_JOINS, Opened(A, C, 9, 0), Closed(A, C, 1)], [Grant(V, A, 1, 0, 1)]),
        ([ChunkTold(V, A, 64, 64), Released(A, C)], []),
        ([died(V)], [Forget(C, A)]),
    ],
    "a forgotten block may be opened again": [
        ([Opened(A, C, 1, 0), Released(A, C)], [Forget(C, A)]),
        ([V_JOINS, Opened(A_AGAIN, C, 1, 0), Counted(A_AGAIN, 1)], [Grant(V, A_AGAIN, 1, 0, 1)]),
    ],
    "the bundles of a gone client go together, when the last range of all is in": [
        ([V_JOINS, W_JOINS, Opened(A, C, 9, 0), Closed(A, C, 1), Opened(B, C, 9, 0), Closed(B, C, 1), Opened(E, C, 9, 0)],
         [Grant(V, A, 1, 0, 1), Grant(W, B, 2, 0, 1)]),
        ([ChunkTold(V, A, 64, 64), ChunkTold(W, B, 64, 64), ClientGone(C)], []),
        ([Done(V, 1, 1, 1, 0)], []),
        ([Done(W, 2, 0, 1, 0)], [Drop(V, A), Drop(W, B), BundleGone(A), BundleGone(B), BundleGone(E)]),
        ([ClientGone(C)], []),
    ],
    "a gone client's items that nobody holds are given up": [
        ([Opened(A, C, 9, 0), Counted(A, 9), ClientGone(C), V_JOINS], [BundleGone(A)]),
    ],
    "a bundle that waits for its last range goes with the group when its client goes": [
        ([V_JOINS, Opened(A, C, 9, 0), Closed(A, C, 1), Opened(B, C, 9, 0)], [Grant(V, A, 1, 0, 1)]),
        ([Released(A, C), ClientGone(C)], []),
        ([Done(V, 1, 1, 1, 0)], [BundleGone(A), BundleGone(B)]),
    ],
}  # fmt: skip

DYING: dict[str, Steps] = {
    "what has no status is granted again, what has one is not": [
        ([*ONE_WORKER, Closed(A, C, 16)], [Grant(V, A, 1, 0, 8), Grant(V, A, 2, 8, 12)]),
        ([WorkerGone(V, {1: [(3, 4), (6, 8)]}, NOBODY_DIED)], []),
        ([W_JOINS], [Grant(W, A, 3, 3, 4), Grant(W, A, 4, 6, 11), Grant(W, A, 5, 11, 14)]),
    ],
    "an item is lost when a fourth worker died in it, its neighbours are not": [
        ([Opened(A, C, 3, 0), Closed(A, C, 3)], []),
        *[
            step
            for n in range(4)
            for step in (
                ([WorkerJoined(Key(9, n), "w", 2)], [Grant(Key(9, n), A, 3 * n + 1 + i, i, i + 1) for i in range(3)]),
                ([died(Key(9, n), (A, 1))], [Lose(A, 1)] if n == 3 else []),
            )
        ],
        ([V_JOINS], [Grant(V, A, 13, 0, 1), Grant(V, A, 14, 2, 3)]),
    ],
    "an item that had its status is not blamed, nor one the worker did not hold": [
        ([*ONE_WORKER, Closed(A, C, 2)], [Grant(V, A, 1, 0, 1), Grant(V, A, 2, 1, 2)]),
        ([WorkerGone(V, {1: [], 2: [(1, 2)]}, [(A, 0), (A, 500), (B, 1)])], []),
        ([W_JOINS], [Grant(W, A, 3, 1, 2)]),
    ],
    "a worker that left is nobody's fault, and may be said to be gone twice": [
        ([*ONE_WORKER, Closed(A, C, 1)], [Grant(V, A, 1, 0, 1)]),
        ([WorkerGone(V, {1: [(0, 1)]}, NOBODY_DIED), WorkerGone(V, {}, NOBODY_DIED)], []),
        ([W_JOINS], [Grant(W, A, 2, 0, 1)]),
    ],
    "what a dead worker had given back by BACK is not given back again": [
        ([*ONE_WORKER, Closed(A, C, 4)], [Grant(V, A, 1, 0, 2), Grant(V, A, 2, 2, 3)]),
        ([W_JOINS, Back(V, 1, 1)], [Grant(W, A, 3, 1, 2), Grant(W, A, 4, 3, 4)]),
        ([died(V, (A, 0))], []),
        ([Done(W, 3, 2, LONG, 0)], [Grant(W, A, 5, 0, 1)]),
    ],
    "a worker whose end is being read gets nothing new": [
        ([*ONE_WORKER, Counted(A, 3)], [Grant(V, A, 1, 0, 2), Grant(V, A, 2, 2, 3)]),
        ([NoGrants(V), Done(V, 1, 1, 1, 0)], []),
        ([WorkerGone(V, {2: []}, NOBODY_DIED), W_JOINS], [Grant(W, A, 3, 1, 2)]),
    ],
    "an expelled worker counts in nobody's share, and what it holds stays out": [
        ([V_JOINS, W_JOINS, NoGrants(W), Opened(A, C, 9, 0), Counted(A, 4)], [Grant(V, A, 1, 0, 2), Grant(V, A, 2, 2, 3)]),
    ],
}  # fmt: skip

CONTROLLING: dict[str, Steps] = {
    "a call for one worker goes at once, beside what that runs": [
        ([V_JOINS, W_JOINS, Opened(A, C, 1000, 0), Counted(A, 1000)],
         [Grant(V, A, 1, 0, 16), Grant(W, A, 2, 16, 32), Grant(V, A, 3, 32, 48), Grant(W, A, 4, 48, 64)]),
        ([Back(W, 2, 20), Opened(B, C, 1, BUNDLE_CONTROL, W), Closed(B, C, 1)], [Control(W, B, 5, 0, 1)]),
        ([Done(W, 2, 20, 4 * LONG, 0)], [Grant(W, A, 6, 20, 32), Grant(W, A, 7, 64, 102)]),
        ([Done(W, 5, 1, MS, 0), Released(B, C)], [Forget(C, B)]),
    ],
    "a long call keeps no task from its worker": [
        ([*ONE_WORKER, Opened(B, C, 1, BUNDLE_CONTROL, V), Closed(B, C, 1)], [Control(V, B, 1, 0, 1)]),
        ([Back(V, 1, 1), Counted(A, 1)], [Grant(V, A, 2, 0, 1)]),
    ],
    "a call for a worker that is gone is lost": [
        ([V_JOINS, Opened(B, C, 1, BUNDLE_CONTROL, W), Closed(B, C, 1)], [Lose(B, 0)]),
    ],
    "a call for nobody is lost": [
        ([V_JOINS, Opened(B, C, 1, BUNDLE_CONTROL, None), Closed(B, C, 1)], [Lose(B, 0)]),
    ],
    "a call whose worker dies in it is lost, at the first death": [
        ([V_JOINS, W_JOINS, Opened(B, C, 1, BUNDLE_CONTROL, W), Closed(B, C, 1)], [Control(W, B, 1, 0, 1)]),
        ([died(W, (B, 0))], [Lose(B, 0)]),
    ],
    "a call that was answered before its worker died is not lost": [
        ([W_JOINS, Opened(B, C, 1, BUNDLE_CONTROL, W), Closed(B, C, 1)], [Control(W, B, 1, 0, 1)]),
        ([WorkerGone(W, {1: []}, [(B, 0)])], []),
    ],
}  # fmt: skip

TABLES = {**GRANTING, **ANSWERING, **RELEASING, **DYING, **CONTROLLING}


@pytest.mark.parametrize("steps", [pytest.param(steps, id=name.replace(" ", "-")) for name, steps in TABLES.items()])
def test_events_and_the_instructions_they_lead_to(steps: Steps) -> None:
    """Turn by turn, in full and in order; each row's name is its sentence."""
    tasks = Tasks()
    for number, (batch, expected) in enumerate(steps):
        assert tasks.handle(batch) == list(expected), f"turn {number}"


BEFORE: list[Event] = [V_JOINS, W_JOINS, Opened(A, C, 1000, 0), Counted(A, 1000), Opened(B, D, 9, 0)]
AFTER: list[list[Event]] = [
    [Done(V, 1, 16, 16 * US, 0)],
    [Done(W, 2, 32, 16 * US, 0), Counted(B, 9)],
    [Back(V, 3, 40), Done(W, 4, 64, 16 * US, 0), Released(A, C)],
    [died(V), died(W), ClientGone(C), ClientGone(D)],
]
ILLEGAL: dict[str, tuple[Event, Key]] = {
    "opens a bundle twice": (Opened(A, C, 1000, 0), C),
    "opens another's bundle": (Opened(A, D, 1000, 0), D),
    "opens a bundle without room": (Opened(E, C, 0, 0), C),
    "opens a bundle that is too large": (Opened(E, C, MAP_ITEMS_MAX + 1, 0), C),
    "closes another's bundle": (Closed(A, D, 1000), D),
    "releases another's bundle": (Released(A, D), D),
    "answers a range that was never granted": (Done(V, 1000, 0, 1, 0), V),
    "answers another's range": (Done(V, 2, 32, 1, 0), V),
    "gives back another's range": (Back(V, 2, 20), V),
    "gives back a range that was never granted": (Back(V, 1000, 0), V),
    "ran beyond the end of its range": (Done(V, 1, 17, 1, 0), V),
    "ran less than nothing": (Done(W, 2, 15, 1, 0), W),
    "gives back what is not in its range": (Back(V, 1, 17), V),
    "gives back what stands before its range": (Back(W, 2, 15), W),
    "says more exceptions than items": (Done(V, 1, 4, 1, 5), V),
    "tells a chunk of an unknown bundle": (ChunkTold(V, E, 64, 64), V),
    "tells a chunk of a bundle of which it holds nothing": (ChunkTold(V, B, 64, 64), V),
    "is a client and answers ranges": (Done(C, 1, 16, 1, 0), C),
    "is a client and gives back ranges": (Back(C, 1, 16), C),
    "is a client and tells chunks": (ChunkTold(C, A, 64, 64), C),
}


@pytest.mark.parametrize(("event", "culprit"), [pytest.param(*row, id=name.replace(" ", "-")) for name, row in ILLEGAL.items()])
def test_what_may_not_be_said_changes_nothing_but_its_senders_standing(event: Event, culprit: Key) -> None:
    """Garbage costs the endpoint that sent it its membership (decision 10): a run with it goes on as one in which it was never said."""
    tasks, twin = Tasks(), Tasks()
    assert tasks.handle(BEFORE) == twin.handle(BEFORE)
    (violation,) = tasks.handle([event])
    assert isinstance(violation, Violation)
    assert violation.endpoint == culprit
    assert twin.handle([NoGrants(culprit)]) == []
    for batch in AFTER:
        assert tasks.handle(batch) == twin.handle(batch)
        assert [tasks.ranges_of(w) for w in (V, W)] == [twin.ranges_of(w) for w in (V, W)]


def test_the_rest_of_a_turn_is_handled_after_a_violation() -> None:
    """One bad peer does not end the round."""
    tasks = Tasks()
    out = tasks.handle([*ONE_WORKER, Done(V, 99, 0, 0, 0), W_JOINS, Counted(A, 1)])
    assert [type(instruction) for instruction in out] == [Violation, Grant]
    assert out[1] == Grant(W, A, 1, 0, 1)


def test_a_worker_never_holds_more_ranges_than_it_has_credits() -> None:
    """R5: its ring has room for twice that, so only small control messages ever wait."""
    tasks = Tasks()
    tasks.handle([W_JOINS, Opened(A, C, 10_000, 0), Counted(A, 10_000)])
    tasks.handle([Done(W, 1, 16, 16, 0)])
    whole = tasks.ranges_of(W)[-1]
    scattered = [(i, i + 1) for i in range(whole.lo, whole.hi, 2)]
    tasks.handle([WorkerGone(W, {whole.range_id: scattered}, NOBODY_DIED)])
    tasks.handle([WorkerJoined(V, "v", 1)])
    assert len(tasks.ranges_of(V)) == 2 * GROUP_RANGES_MAX
    tasks.handle([WorkerJoined(W, "w", 16)])
    assert len(tasks.ranges_of(W)) == CREDITS
    while held := tasks.ranges_of(V) + tasks.ranges_of(W):
        tasks.handle([Done(grant.worker, grant.range_id, grant.hi, grant.hi - grant.lo, 0) for grant in held[::2] or held])
        assert len(tasks.ranges_of(W)) <= CREDITS
    out = tasks.handle([Opened(B, C, 10_000, 0), Counted(B, 10_000)])
    assert len(out) == len(tasks.ranges_of(V) + tasks.ranges_of(W)) == 2 + 32, "all was granted, and none of it is out"


def test_ranges_of_a_worker_are_as_its_backs_left_them() -> None:
    """At its death, those are the statuses to look at (A1)."""
    tasks = Tasks()
    tasks.handle([*ONE_WORKER, Counted(A, 100)])
    tasks.handle([Back(V, 1, 3)])
    assert tasks.ranges_of(V) == [Grant(V, A, 1, 0, 3), Grant(V, A, 2, 16, 32)]
    assert tasks.ranges_of(W) == []


def test_what_is_over_leaves_no_cycle_behind() -> None:
    """The scheduler runs without the cyclic collector: what is forgotten must be gone by itself."""
    tasks = Tasks()
    gc.collect()
    gc.disable()
    try:
        for n in range(1, 100):
            worker, client, bundle = Key(9, n), Key(1, n), BundleKey(64, n)
            tasks.handle([WorkerJoined(worker, "w", 1), Opened(bundle, client, 100, 0), Closed(bundle, client, 100)])
            held = tasks.ranges_of(worker)
            tasks.handle([ChunkTold(worker, bundle, 64, 64), Back(worker, held[0].range_id, 1), Released(bundle, client)])
            tasks.handle([WorkerGone(worker, {}, [(bundle, 0)]), ClientGone(client)])
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_released_bundle_is_not_remembered_behind_an_older_one() -> None:
    """A client that drops its futures at once costs the scheduler no memory while its other work waits."""
    tasks = Tasks()
    tasks.handle([Opened(A, C, 1000, 0), Counted(A, 1000)])
    gc.collect()
    before = len(gc.get_objects())
    for n in range(1, 200):
        bundle = BundleKey(64, n)
        assert tasks.handle([Opened(bundle, C, 9, 0), Closed(bundle, C, 9), Released(bundle, C)]) == [Forget(C, bundle)]
    assert len(gc.get_objects()) - before < 100
