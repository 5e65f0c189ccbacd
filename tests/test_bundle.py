"""Bundles as their owner and the keeper see them (section 8): the header, items, the count, whom to ring."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nahanni_compute._native import Bundle, Endpoint
from nahanni_compute.errors import ClosedError, RegionCorrupt, UnpicklableError
from nahanni_compute.region.layout import (
    BUNDLE_MAGIC,
    BUNDLE_SIZE,
    HEAP,
    REGION_SIZE_MIN,
    SLOTS,
    slot_word,
)

from .alone import BUNDLE_AT, FUNCTION, GENERATION, KEEPER, SLOT, UNLIMITED_NS, Alone, alone, same

MINUTE_NS = 60_000_000_000


@pytest.fixture
def here() -> Iterator[Alone]:
    """A region of this test's own."""
    with alone() as made:
        yield made


# -- the header


def test_a_bundle_says_what_it_was_made_with(here: Alone) -> None:
    """To its owner, and to whoever opens it."""
    made = here.make(1000, flags=1)
    for bundle in (made, Bundle(here.endpoint, BUNDLE_AT, GENERATION)):
        assert (bundle.offset, bundle.generation, bundle.capacity, bundle.owner) == (BUNDLE_AT, GENERATION, 1000, SLOT)
        assert (bundle.function, bundle.flags, bundle.n, bundle.count()) == (FUNCTION, 1, 0, 0)
        assert bundle.unset(0, 1000) == [(0, 1000)]


def test_a_reused_block_begins_without_statuses_and_without_a_count(here: Alone) -> None:
    """C clears them before anybody is told (B1)."""
    old = here.finished(range(100))
    assert old.unset(0, 100) == []
    new = here.make(100, generation=GENERATION + 1)
    assert (new.count(), new.unset(0, 100)) == (0, [(0, 100)])


LIES = {
    "magic": [0, BUNDLE_MAGIC + 1],
    "generation": [0, GENERATION + 1],
    "capacity": [0, 1 << 22, 1 << 32, 1 << 61, (1 << 61) + 10, (1 << 64) - 1],
    "items": [0, HEAP - 8, BUNDLE_AT, BUNDLE_AT + BUNDLE_SIZE + 4, REGION_SIZE_MIN, (1 << 64) - 8],
    "statuses": [0, HEAP - 8, BUNDLE_AT, BUNDLE_AT + BUNDLE_SIZE, REGION_SIZE_MIN - 8, (1 << 64) - 8, (1 << 63) + 4],
    "owner": [SLOTS, (1 << 64) - 1],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in LIES.items() for value in values])
def test_a_header_that_lies_is_called_corrupt(here: Alone, field: str, value: int) -> None:
    """Each word is copied once, and the copy checked against the region."""
    here.make(10)
    here.region.store(here.at(field), value)
    with pytest.raises(RegionCorrupt, match=r"expected .* saw"):
        Bundle(here.endpoint, BUNDLE_AT, GENERATION)


@pytest.mark.parametrize("offset", [0, 64, HEAP - 64, BUNDLE_AT + 8, REGION_SIZE_MIN - 64, REGION_SIZE_MIN, (1 << 64) - 64])
def test_a_bundle_is_looked_for_in_the_heap_only(here: Alone, offset: int) -> None:
    """A message may name any offset."""
    with pytest.raises(RegionCorrupt):
        Bundle(here.endpoint, offset, GENERATION)


def test_what_changes_in_the_header_later_changes_nothing(here: Alone) -> None:
    """Who opened it uses the copy."""
    bundle = here.finished([1, 2, 3])
    opened = Bundle(here.endpoint, BUNDLE_AT, GENERATION)
    statuses = here.region.load(here.at("statuses"))
    here.region.store(here.at("capacity"), 1 << 40)
    here.region.store(here.at("statuses"), 0)
    assert (opened.capacity, opened.value(2), bundle.value(2)) == (3, 3, 3)
    with pytest.raises(IndexError):
        opened.value(3)
    here.region.store(here.at("statuses"), statuses)


@pytest.mark.parametrize(("offset", "capacity"), [(BUNDLE_AT, 0), (BUNDLE_AT, 1 << 32), (BUNDLE_AT, 1 << 22), (BUNDLE_AT + 8, 1), (0, 1)])
def test_a_bundle_is_not_made_where_it_does_not_fit(here: Alone, offset: int, capacity: int) -> None:
    """That is the owner's own mistake."""
    with pytest.raises(ValueError, match="expected a block in the heap"):
        Bundle.create(here.endpoint, offset, 1, capacity, FUNCTION, 0)


def test_a_subclass_makes_bundles_of_its_own_kind(here: Alone) -> None:
    """And they may carry attributes."""

    class Named(Bundle):
        name = ""

    bundle = here.make(1, kind=Named)
    assert isinstance(bundle, Named)
    bundle.name = "mine"
    assert getattr(bundle.future(0).bundle, "name", None) == "mine"


def test_a_bundle_in_a_cycle_through_its_allocator_is_collected(here: Alone) -> None:
    """The collector sees what the core holds."""

    class Held(Bundle):
        pass

    bundle = here.make(1, kind=Held)
    bundle.alloc = lambda nbytes, keep=bundle: here.alloc(nbytes)
    gone = weakref.ref(bundle)
    del bundle
    gc.collect()
    assert gone() is None


# -- items and the count


def test_the_count_is_published_every_1024_items_and_at_the_end(here: Alone) -> None:
    """S5: never more than what is written, and in steps."""
    bundle = here.make(3000)
    keeper = Bundle(here.endpoint, BUNDLE_AT, GENERATION)
    seen = []

    def values() -> Iterator[int]:
        for i in range(2500):
            seen.append(keeper.count())
            yield i

    assert bundle.fill(values(), 3000) == 2500
    assert seen == [i // 1024 * 1024 for i in range(2500)]
    assert (keeper.count(), bundle.n) == (2500, 2500)


def test_fill_takes_no_more_than_it_was_asked_for_or_has_room_for(here: Alone) -> None:
    """What it did not take is still in the iterator."""
    bundle = here.make(10)
    values = iter(range(100))
    assert bundle.fill(values, 4) == 4
    assert bundle.fill(values, 100) == 6
    assert bundle.fill(values, 100) == 0
    assert next(values) == 10
    assert here.make(10).fill(iter([]), 10) == 0


def test_items_before_one_that_fails_stay_published(here: Alone) -> None:
    """Whether the iterator raises or the value does not travel."""

    def raises() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("third")

    bundle = here.make(10)
    with pytest.raises(KeyError, match="third"):
        bundle.fill(raises(), 10)
    assert (bundle.n, bundle.count()) == (2, 2)
    with pytest.raises(UnpicklableError):
        bundle.fill(iter([3, here.endpoint, 5]), 10)
    assert (bundle.n, bundle.count()) == (3, 3)


def test_append_makes_a_future_until_the_bundle_is_full(here: Alone) -> None:
    """Each one published; None then, and nothing has changed."""
    bundle = here.make(3, function=0)
    futures = [bundle.append(9, (i,)) for i in range(4)]
    assert futures[3] is None
    assert [f.index for f in futures if f] == [0, 1, 2]
    assert (bundle.n, bundle.count()) == (3, 3)


def test_a_value_that_appends_while_it_is_pickled_leaves_both_right(here: Alone) -> None:
    """Its index is another then, and so is its MAC."""
    bundle = here.make(4, function=0)

    class Nested:
        def __init__(self) -> None:
            self.first = True

        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            if self.first:
                self.first = False
                bundle.append(1, ({"inner"},))
            return same, ("outer",)

    outer = bundle.append(1, (Nested(),))
    assert outer is not None
    assert outer.index == 1
    bundle.run(0, 1, 0, 2, lambda _id: same, UNLIMITED_NS, here.alloc)
    assert [bundle.value(0), bundle.value(1)] == [{"inner"}, "outer"]


def test_an_item_has_a_function_id_exactly_if_its_bundle_has_none(here: Alone) -> None:
    """A mistake of the caller's is said before anything is stored."""
    own = here.make(2, function=0)
    with pytest.raises(ValueError, match="function"):
        own.append(0, ())
    with pytest.raises(TypeError, match="function"):
        own.fill(iter([1]), 1)
    shared = here.make(2)
    with pytest.raises(ValueError, match="function"):
        shared.append(FUNCTION + 1, 1)
    assert shared.append(FUNCTION, 1) == shared.future(0)
    assert shared.append(0, 2) == shared.future(1)


def test_only_the_owner_writes_items(here: Alone) -> None:
    """M1: nobody else has the right to."""
    here.make(4)
    other = Endpoint(here.region, SLOT + 1, 1)
    bundle = Bundle(other, BUNDLE_AT, GENERATION)
    with pytest.raises(ValueError, match="owner"):
        bundle.fill(iter([1]), 1)
    with pytest.raises(ValueError, match="owner"):
        bundle.append(FUNCTION, 1)
    other.close()


def test_a_count_beyond_the_capacity_is_cut_to_it(here: Alone) -> None:
    """What the owner says of itself is not believed."""
    bundle = here.make(10)
    here.region.store(here.at("count"), 1 << 60)
    assert bundle.count() == 10


@pytest.fixture
def bell(here: Alone) -> Iterator[int]:
    """The keeper's doorbell."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    here.region.store(slot_word(KEEPER, "bell"), KEEPER << 16)
    here.endpoint.add_door(KEEPER, 0, fd)
    yield fd
    os.close(fd)


def rung(bell: int) -> bool:
    try:
        return os.eventfd_read(bell) > 0
    except BlockingIOError:
        return False


def test_the_keeper_is_rung_once_for_each_time_it_sleeps(here: Alone, bell: int) -> None:
    """S2: an odd value that was not rung for yet."""
    bundle = here.make(1)
    seen = []
    for seq in (0, 1, 1, 2, 3, 5, 5, 6):
        here.region.store(slot_word(KEEPER, "seq"), seq)
        assert bundle.ring(KEEPER, 0)
        seen.append(rung(bell))
    assert seen == [False, True, False, False, True, True, False, False]


def test_a_ring_is_put_off_for_a_while_and_for_64_items_at_most(here: Alone, bell: int) -> None:
    """S6: it is owed, and the caller is told so."""
    bundle = here.make(1)
    here.region.store(slot_word(KEEPER, "seq"), 1)
    assert bundle.ring(KEEPER, MINUTE_NS)
    assert rung(bell)
    here.region.store(slot_word(KEEPER, "seq"), 3)
    assert [bundle.ring(KEEPER, MINUTE_NS) for _ in range(65)] == [False] * 64 + [True]
    assert rung(bell)
    here.region.store(slot_word(KEEPER, "seq"), 5)
    assert not bundle.ring(KEEPER, MINUTE_NS)
    assert not rung(bell)
    assert bundle.ring(KEEPER, 0)
    assert rung(bell)


def test_a_keeper_that_woke_up_by_itself_is_owed_nothing(here: Alone, bell: int) -> None:
    """Its next sleep is counted anew."""
    bundle = here.make(1)
    here.region.store(slot_word(KEEPER, "seq"), 1)
    bundle.ring(KEEPER, MINUTE_NS)
    here.region.store(slot_word(KEEPER, "seq"), 3)
    assert not any(bundle.ring(KEEPER, MINUTE_NS) for _ in range(60))
    here.region.store(slot_word(KEEPER, "seq"), 4)
    assert bundle.ring(KEEPER, MINUTE_NS)
    here.region.store(slot_word(KEEPER, "seq"), 5)
    assert not any(bundle.ring(KEEPER, MINUTE_NS) for _ in range(60))


# -- what is refused


@pytest.mark.parametrize("method", ["status", "value", "future", "lose"])
def test_an_index_beyond_the_capacity_is_an_index_error(here: Alone, method: str) -> None:
    """As are a negative one and a range that ends too late."""
    bundle: Any = here.make(3)
    with pytest.raises(IndexError):
        getattr(bundle, method)(3)
    with pytest.raises(OverflowError):
        getattr(bundle, method)(-1)
    for lo, hi in ((0, 4), (2, 1)):
        with pytest.raises(IndexError):
            bundle.unset(lo, hi)
        with pytest.raises(IndexError):
            bundle.gather(lo, hi, [])
        with pytest.raises(IndexError):
            bundle.futures(lo, hi)


def test_nothing_touches_the_region_after_the_endpoint_was_closed() -> None:
    """The mapping may be gone then: ClosedError, from every method that would."""
    with alone() as here:
        bundle = here.finished([1])
        future: Any = bundle.future(0)
        here.endpoint.close()
        calls: list[Callable[[], object]] = [
            lambda: bundle.fill(iter([1]), 1),
            lambda: bundle.append(0, 1),
            lambda: bundle.ring(KEEPER, 0),
            lambda: bundle.status(0),
            lambda: bundle.value(0),
            lambda: bundle.gather(0, 1, []),
            bundle.count,
            lambda: bundle.unset(0, 1),
            lambda: bundle.lose(0),
            lambda: bundle.run(0, 1, 0, 1, same, 1, here.alloc),
            future.done,
            future.result,
            future.exception,
            lambda: Bundle(here.endpoint, BUNDLE_AT, GENERATION),
            lambda: Bundle.create(here.endpoint, BUNDLE_AT, 1, 1, 1, 0),
        ]
        for call in calls:
            with pytest.raises(ClosedError):
                call()
