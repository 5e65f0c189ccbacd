"""What stands in the status words, as the client and the keeper read it; and futures, which are a bundle and an index."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator

import pytest

from nahanni_compute._native import Bundle, Endpoint, Future
from nahanni_compute.errors import RegionCorrupt, TaskCancelled, WorkerDied
from nahanni_compute.region.layout import (
    KIND_CANCELLED,
    KIND_EXC,
    KIND_INT,
    KIND_LOST,
    KIND_UNSET,
    WANT_ANY,
    slot_word,
)

from .alone import BUNDLE_AT, GENERATION, KEEPER, SLOT, UNLIMITED_NS, Alone, alone, same, word

MINUTE_NS = 60_000_000_000


@pytest.fixture
def here() -> Iterator[Alone]:
    """A region of this test's own."""
    with alone() as made:
        yield made


def fails(value: int) -> int:
    """A task that raises for odd numbers."""
    if value % 2:
        raise ValueError(value)
    return value


def rung(bell: int) -> bool:
    try:
        return os.eventfd_read(bell) > 0
    except BlockingIOError:
        return False


# -- outcomes


def test_gather_appends_up_to_the_first_item_without_a_status(here: Alone) -> None:
    """And says which that is; it never waits."""
    bundle = here.filled(range(10))
    bundle.run(0, 1, 0, 6, same, UNLIMITED_NS, here.alloc)
    bundle.run(0, 2, 7, 10, same, UNLIMITED_NS, here.alloc)
    values: list[int] = []
    assert bundle.gather(0, 10, values) == 6
    assert values == list(range(6))
    assert bundle.gather(7, 10, values) == 10
    assert bundle.gather(3, 3, values) == 3
    assert values == [0, 1, 2, 3, 4, 5, 7, 8, 9]


def test_gather_raises_what_an_item_raised_or_leaves_it_out(here: Alone) -> None:
    """Leaving out is for tasks that failed, not for bytes that are wrong."""
    bundle = here.filled(range(6))
    bundle.run(0, 1, 0, 6, fails, UNLIMITED_NS, here.alloc)
    here.region.store(here.status_at(3), word(KIND_CANCELLED, 0, 0))
    here.region.store(here.status_at(5), word(KIND_LOST, 0, 0))
    values: list[int] = []
    with pytest.raises(ValueError, match="1"):
        bundle.gather(0, 6, values)
    assert values == [0]
    assert bundle.gather(0, 6, values, True) == 6
    assert values == [0, 0, 2, 4]
    here.region.store(here.status_at(4), word(9, 0, 0))
    with pytest.raises(RegionCorrupt):
        bundle.gather(0, 6, values, True)


def test_unset_names_the_runs_of_items_without_a_status(here: Alone) -> None:
    """What a dead worker left."""
    bundle = here.filled(range(10))
    for number, (lo, hi) in enumerate([(0, 2), (3, 4), (4, 6), (9, 10)]):
        bundle.run(0, number, lo, hi, same, UNLIMITED_NS, here.alloc)
    assert bundle.unset(0, 10) == [(2, 3), (6, 9)]
    assert bundle.unset(7, 8) == [(7, 8)]
    assert bundle.unset(3, 6) == bundle.unset(5, 5) == []


def test_an_item_that_is_lost_says_so_unless_it_has_an_outcome(here: Alone) -> None:
    """The keeper looks first (P4)."""
    bundle = here.filled([1, 2])
    bundle.run(0, 1, 0, 1, same, UNLIMITED_NS, here.alloc)
    for index in range(2):
        bundle.lose(index)
    assert [bundle.status(0), bundle.status(1)] == [KIND_INT, KIND_LOST]
    with pytest.raises(WorkerDied):
        bundle.value(1)


def test_an_owner_that_sleeps_for_a_lost_item_is_rung(here: Alone) -> None:
    """S7 holds for whoever stores the status."""
    here.filled([1, 2])
    door = os.eventfd(0, os.EFD_NONBLOCK)
    keeper = Endpoint(here.region, KEEPER, 1)
    keeper.add_door(SLOT, 0, door)
    for field, value in (("bell", SLOT << 16), ("seq", 1), ("want_bundle", BUNDLE_AT), ("want_index", WANT_ANY)):
        here.region.store(slot_word(SLOT, field), value)
    Bundle(keeper, BUNDLE_AT, GENERATION).lose(1)
    assert rung(door)
    keeper.close()
    os.close(door)


# -- futures


class Waiting(Bundle):
    """A client's bundle whose wait runs the item, or does not."""

    here: Alone
    waits: list[tuple[int, float | None]]

    def wait_item(self, index: int, timeout: float | None) -> None:
        """What `Future` calls while there is no status."""
        self.waits.append((index, timeout))
        if timeout != 0:
            self.run(0, 1, index, index + 1, fails, UNLIMITED_NS, self.here.alloc)


@pytest.fixture
def waiting(here: Alone) -> Waiting:
    """Four items that nobody has run."""
    bundle = here.make(4, kind=Waiting)
    assert isinstance(bundle, Waiting)
    bundle.here, bundle.waits = here, []
    bundle.fill(iter(range(4)), 4)
    return bundle


def test_a_future_waits_for_its_item_and_only_if_it_must(waiting: Waiting) -> None:
    """`timeout` goes to wait_item as it came, by position or by name."""
    future = waiting.future(2)
    assert not future.done()
    assert future.result() == 2
    assert future.done()
    assert future.result(timeout=5) == 2
    assert waiting.future(0).result(1.5) == 0
    assert waiting.waits == [(2, None), (0, 1.5)]


def test_a_future_without_an_outcome_after_its_wait_times_out(waiting: Waiting) -> None:
    """Also if wait_item did not say so itself."""
    for call in (waiting.future(1).result, waiting.future(1).exception):
        with pytest.raises(TimeoutError):
            call(timeout=0)
    with pytest.raises(TypeError):
        waiting.future(1).result(time=0)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        waiting.future(1).result(0, 0)  # type: ignore[call-arg]


def test_the_exception_of_a_future_is_the_object_that_result_raises(waiting: Waiting) -> None:
    """Its own type, with the remote traceback as cause; None if there is a result."""
    error = waiting.future(1).exception()
    assert isinstance(error, ValueError)
    assert "in fails" in str(error.__cause__)
    with pytest.raises(ValueError, match="1") as raised:
        waiting.future(1).result()
    assert "in fails" in str(raised.value.__cause__)
    assert waiting.future(0).exception() is None


def test_a_cancelled_future_raises_and_a_lost_one_tells(here: Alone, waiting: Waiting) -> None:
    """As concurrent.futures has it."""
    here.region.store(here.status_at(0), word(KIND_CANCELLED, 0, 0))
    here.region.store(here.status_at(1), word(KIND_LOST, 0, 0))
    here.region.store(here.status_at(2), word(KIND_EXC, 64, 0))
    for call in (waiting.future(0).result, waiting.future(0).exception):
        with pytest.raises(TaskCancelled):
            call()
    assert isinstance(waiting.future(1).exception(), WorkerDied)
    with pytest.raises(WorkerDied):
        waiting.future(1).result()
    with pytest.raises(RegionCorrupt):
        waiting.future(2).exception()


def test_futures_of_the_same_item_are_equal(here: Alone) -> None:
    """However often they are taken: they have no state of their own."""
    bundle = here.make(1000)
    futures = bundle.futures(0, 1000)
    assert len(set(futures)) == 1000
    assert futures == [bundle.future(i) for i in range(1000)]
    assert {hash(f) for f in futures} == {hash(bundle.future(i)) for i in range(1000)}
    assert futures[0] != futures[1]
    assert futures[0] != object()
    assert futures[3].bundle is bundle
    assert futures[3].index == 3


def test_a_future_keeps_its_bundle(here: Alone) -> None:
    """The block is free when the last one is gone."""

    class Held(Bundle):
        pass

    bundle = here.make(2, kind=Held)
    gone = weakref.ref(bundle)
    future: Future | None = bundle.future(1)
    del bundle
    gc.collect()
    assert gone() is not None
    assert future is not None
    assert future.bundle.status(1) == KIND_UNSET
    future = None
    assert gone() is None
