"""The worker's item loop (B5, P4): what it calls, what it stores and in which order, and what tasks raise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nahanni_compute import core, pickling
from nahanni_compute.errors import RegionCorrupt, TaskCancelled, UnpicklableError
from nahanni_compute.region.layout import (
    BUNDLE_STAR,
    CUR_THREADS,
    HEAP,
    KIND_CANCELLED,
    KIND_CODEC,
    KIND_EXC,
    KIND_INT,
    KIND_UNSET,
    slot_word,
)

from .alone import BUNDLE_AT, RANGE, SLOT, THREAD, UNLIMITED_NS, Alone, Bump, alone, run, same, word


@pytest.fixture
def here() -> Iterator[Alone]:
    """A region of this test's own."""
    with alone() as made:
        yield made


def cur(here: Alone) -> tuple[int, int]:
    """What the thread says it is in (B11)."""
    at = slot_word(SLOT, "cur") + 16 * THREAD
    return here.region.load(at), here.region.load(at + 8)


# -- calls


def test_each_item_is_called_and_its_result_stored(here: Alone) -> None:
    """And only those of the range."""
    bundle = here.filled(range(100))
    assert run(here, bundle, lambda x: x * x, 10, 90) == (90, 0)
    assert bundle.unset(0, 100) == [(0, 10), (90, 100)]
    assert [bundle.value(i) for i in range(10, 90)] == [i * i for i in range(10, 90)]
    assert run(here, bundle, same, 5, 5) == (5, 0)


def test_the_items_of_a_star_bundle_are_arguments(here: Alone) -> None:
    """A value that is no tuple is the client's mistake, and that item's only."""
    bundle = here.filled([(7, 3), (), (1, 2, 3), [1, 2], ("ab", "c")], flags=BUNDLE_STAR)
    assert run(here, bundle, lambda x, y: x + y) == (5, 3)
    assert (bundle.value(0), bundle.value(4)) == (10, "abc")
    for index, kind in ((1, TypeError), (2, TypeError), (3, RegionCorrupt)):
        with pytest.raises(kind):
            bundle.value(index)


def test_items_with_functions_of_their_own_are_loaded_once_in_a_row(here: Alone) -> None:
    """args as a tuple, or [args, kwargs]; anything else is corrupt."""
    bundle = here.make(7, function=0)
    loaded: list[int] = []

    def load(id: int) -> Callable[..., object]:
        loaded.append(id)
        if id == 3:
            raise LookupError("no such function")
        return lambda *args, **kwargs: (id, args, kwargs)

    for id, value in ((1, (5,)), (1, ()), (2, [(1, 2), {"k": "v"}]), (3, ()), (2, ()), (2, "x"), (2, [(), {}, 1])):
        bundle.append(id, value)
    assert run(here, bundle, load) == (7, 3)
    assert [bundle.value(i) for i in (0, 1, 2, 4)] == [(1, (5,), {}), (1, (), {}), (2, (1, 2), {"k": "v"}), (2, (), {})]
    assert loaded == [1, 2, 3]
    for index, kind in ((3, LookupError), (5, RegionCorrupt), (6, RegionCorrupt)):
        with pytest.raises(kind):
            bundle.value(index)


def test_an_item_without_room_for_its_function_id_is_corrupt(here: Alone) -> None:
    """So is a word without a payload, in a bundle whose items carry their functions."""
    bundle = here.make(3, function=0)
    for _ in range(3):
        bundle.append(1, ())
    here.region.store(here.item_at(0), word(KIND_INT, 0, 5))
    here.region.store(here.item_at(1), word(KIND_CODEC, 7, HEAP))
    assert run(here, bundle, lambda _id: lambda: "ran") == (3, 2)
    assert bundle.value(2) == "ran"


# -- what a task raises


class Unspeakable(Exception):
    """Neither pickles nor says why."""

    def __reduce__(self) -> str:
        raise Unspeakable

    def __str__(self) -> str:
        raise KeyError("even this")

    __repr__ = __str__


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyboardInterrupt(),
        SystemExit(3),
        MemoryError(),
        StopIteration(1),
        GeneratorExit(),
        ExceptionGroup("g", [OSError(2, "no")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_task_raises_is_its_outcome_and_the_loop_goes_on(here: Alone, error: BaseException) -> None:
    """The worker ends for none of them; the type survives and the traceback comes along."""

    def task(x: int) -> int:
        if x == 1:
            raise error
        return x

    bundle = here.filled(range(3))
    assert run(here, bundle, task) == (3, 1)
    assert [bundle.status(i) for i in range(3)] == [KIND_INT, KIND_EXC, KIND_INT]
    with pytest.raises(type(error)) as raised:
        bundle.value(1)
    assert "in task" in str(raised.value.__cause__)


def test_an_exception_that_does_not_travel_is_replaced_by_one_that_does(here: Alone) -> None:
    """Whatever it does while it is looked at."""

    def task(x: int) -> int:
        raise Unspeakable

    bundle = here.filled(range(2))
    assert run(here, bundle, task) == (2, 2)
    assert isinstance(bundle.future(0).exception(), (UnpicklableError, RuntimeError))


def test_a_dump_that_fails_leaves_a_plain_exception_with_the_reason(here: Alone) -> None:
    """The loop does not depend on what Python lends it."""

    def dump(error: BaseException) -> bytes:
        if not isinstance(error, RuntimeError):
            raise OSError("the dump broke")
        return pickling.dump_exception(error)

    def task(x: int) -> int:
        raise ValueError(x)

    bundle = here.filled(range(2))
    lend(dump_exception=dump)
    try:
        assert run(here, bundle, task) == (2, 2)
        with pytest.raises(RuntimeError, match="saw ValueError, whose dump raised OSError: the dump broke"):
            bundle.value(1)
    finally:
        core.configure()


def test_when_no_exception_can_be_dumped_the_caller_hears_of_it(here: Alone) -> None:
    """The item has no status, and the thread is in no range any more."""
    bundle = here.filled(range(3))
    lend(dump_exception=lambda error: "not bytes")
    try:
        with pytest.raises(TypeError, match="bytes"):
            run(here, bundle, lambda x: 1 // (1 - x))
    finally:
        core.configure()
    assert bundle.unset(0, 3) == [(1, 3)]
    assert cur(here)[1] == 0
    assert run(here, bundle, same, 1, 3) == (3, 0)


def lend(**changed: Any) -> None:
    """Configure the core with other functions; core.configure() puts it right again."""
    from nahanni_compute import _native, errors

    lent: dict[str, Any] = {
        "dumps": pickling.dumps,
        "loads": pickling.loads,
        "dump_exception": pickling.dump_exception,
        "load_exception": pickling.load_exception,
        "cancelled": errors.TaskCancelled,
        "lost": errors.WorkerDied,
        "corrupt": errors.RegionCorrupt,
        "refused": errors.AccessRefused,
        "forked": errors.ForkedEndpoint,
        "closed": errors.ClosedError,
    }
    _native.configure(**(lent | changed))


def test_a_result_that_does_not_travel_fails_its_item(here: Alone) -> None:
    """With the reason why."""
    bundle = here.filled(range(3))
    assert run(here, bundle, lambda x: here.endpoint if x == 1 else x) == (3, 1)
    with pytest.raises(UnpicklableError):
        bundle.value(1)


def test_a_result_there_is_no_room_for_fails_its_item(here: Alone) -> None:
    """The others, and the exception itself, still find some."""

    def alloc(nbytes: int) -> tuple[int, int]:
        if nbytes > 1 << 20:
            raise MemoryError("full")
        return here.alloc(nbytes)

    bundle = here.filled(range(3))
    assert bundle.run(THREAD, RANGE, 0, 3, lambda x: bytes(2 << 20) if x == 1 else b"small", UNLIMITED_NS, alloc)[::2] == (3, 1)
    assert [bundle.value(0), bundle.value(2)] == [b"small"] * 2
    with pytest.raises(MemoryError, match="full"):
        bundle.value(1)


def test_when_there_is_no_room_even_for_that_the_caller_hears_of_it(here: Alone) -> None:
    """What has a status keeps it; unset() says what has none."""

    def full(nbytes: int) -> tuple[int, int]:
        raise MemoryError("full")

    bundle = here.filled(range(4))
    with pytest.raises(MemoryError, match="full"):
        bundle.run(THREAD, RANGE, 0, 4, lambda x: x if x < 2 else "text", UNLIMITED_NS, full)
    assert bundle.unset(0, 4) == [(2, 4)]
    assert run(here, bundle, same, 2, 4) == (4, 0)


# -- the order of stores


def test_an_item_that_was_cancelled_before_it_was_loaded_is_not_run(here: Alone) -> None:
    """B8: that is its outcome."""
    bundle = here.filled(range(3))
    here.region.store(here.item_at(1), word(KIND_CANCELLED, 0, 0))
    ran: list[int] = []
    assert run(here, bundle, ran.append) == (3, 0)
    assert ran == [0, 2]
    with pytest.raises(TaskCancelled):
        bundle.value(1)


def test_a_status_that_came_meanwhile_stays(here: Alone) -> None:
    """P4: another attempt was faster."""
    bundle = here.filled(range(2))

    def task(x: int) -> int:
        here.region.store(here.status_at(x), word(KIND_INT, 0, 0) | 555 << 4)
        return x

    assert run(here, bundle, task) == (2, 0)
    assert bundle.value(0) == bundle.value(1) == 555


def test_a_block_is_told_of_before_a_status_refers_into_it(here: Alone) -> None:
    """B4: in `alloc`, which says CHUNK, no status names what it is about to give."""
    n = 200
    bundle = here.filled([b"x" * 500] * n)
    chunks: list[tuple[int, int]] = []
    inner = Bump(here.alloc.at, here.alloc.end)

    def alloc(nbytes: int) -> tuple[int, int]:
        offset, size = inner(nbytes)
        named = [here.status_word(i) >> 24 for i in range(n) if bundle.status(i)]
        assert not any(offset <= at < offset + size for at in named)
        assert all(any(start <= at < start + bytes for start, bytes in chunks) for at in named)
        chunks.append((offset, size))
        return offset, size

    assert bundle.run(THREAD, RANGE, 0, n, same, UNLIMITED_NS, alloc)[::2] == (n, 0)
    assert len(chunks) > 20
    assert all(any(start <= here.status_word(i) >> 24 < start + bytes for start, bytes in chunks) for i in range(n))


def test_the_item_that_a_thread_is_in_can_be_read_after_its_death(here: Alone) -> None:
    """B11: bundle and item + 1 while it runs; no item between ranges."""
    bundle = here.filled(range(3))
    seen = []
    run(here, bundle, lambda x: seen.append((cur(here), bundle.status(x))))
    assert seen == [((BUNDLE_AT, x + 1), KIND_UNSET) for x in range(3)]
    assert cur(here) == (BUNDLE_AT, 0)


def test_a_thread_is_in_one_range_at_a_time(here: Alone) -> None:
    """A task that runs another range does it as another thread."""
    bundle = here.filled(range(2))

    def nested(x: int) -> object:
        if x == 0:
            with pytest.raises(RuntimeError, match="thread"):
                bundle.run(THREAD, RANGE + 1, 1, 2, same, UNLIMITED_NS, here.alloc)
            return bundle.run(THREAD + 1, RANGE + 1, 1, 2, same, UNLIMITED_NS, here.alloc)[0]
        return x

    assert run(here, bundle, nested) == (2, 0)
    assert [bundle.value(0), bundle.value(1)] == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ((CUR_THREADS, 1, 0, 1, same, 1, None), ValueError),
        ((0, 1, 0, 4, same, 1, None), IndexError),
        ((0, 1, 2, 1, same, 1, None), IndexError),
        ((0, 1, 0, 1, 5, 1, None), TypeError),
        ((0, 1, 0, 1, same, 1, 5), TypeError),
        ((0, 1, 0, 1, same, 1), TypeError),
        ((0, -1, 0, 1, same, 1, None), OverflowError),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_runs(here: Alone, arguments: tuple[Any, ...], kind: type[Exception]) -> None:
    """The statuses stay as they are."""
    bundle = here.filled(range(3))
    with pytest.raises(kind):
        bundle.run(*arguments)
    assert bundle.unset(0, 3) == [(0, 3)]
