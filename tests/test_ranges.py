"""Ranges of the item loop (B7, S7): whom it tells, when it ends, what it gives back, and what ends it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from nahanni_compute._native import Bundle
from nahanni_compute.errors import ClosedError, ForkedEndpoint
from nahanni_compute.region.arenas import rounded
from nahanni_compute.region.layout import (
    LINE,
    MSG,
    WANT_ANY,
    ring_bytes,
    slot_word,
)

from .alone import BUNDLE_AT, GENERATION, RANGE, THREAD, UNLIMITED_NS, Alone, alone, run, same

PATIENCE_S = 30.0
CLIENT = 9  # another slot, in the place of the owner


@pytest.fixture
def here() -> Iterator[Alone]:
    """A region of this test's own."""
    with alone() as made:
        yield made


# -- who is told


@pytest.fixture
def door(here: Alone) -> Iterator[int]:
    """The doorbell of a client in another slot, which owns the bundle and sleeps."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    here.endpoint.add_door(CLIENT, 0, fd)
    here.region.store(slot_word(CLIENT, "bell"), CLIENT << 16)
    here.region.store(slot_word(CLIENT, "seq"), 1)
    yield fd
    os.close(fd)


def rings(door: int) -> int:
    try:
        return os.eventfd_read(door)
    except BlockingIOError:
        return 0


def owned_by_client(here: Alone, n: int) -> Bundle:
    """The bundle again, as a worker opens it."""
    here.filled(range(n))
    here.region.store(here.at("owner"), CLIENT)
    return Bundle(here.endpoint, BUNDLE_AT, GENERATION)


@pytest.mark.parametrize(
    ("want_bundle", "want_index", "rung_at"),
    [(BUNDLE_AT, 2, 2), (BUNDLE_AT, WANT_ANY, 0), (WANT_ANY, WANT_ANY, 0), (BUNDLE_AT, 7, None), (BUNDLE_AT + 64, 2, None), (0, 0, None)],
)
def test_a_client_that_sleeps_for_an_item_is_rung_when_it_has_a_status(
    here: Alone, door: int, want_bundle: int, want_index: int, rung_at: int | None
) -> None:
    """S7: once for each odd value, and not for what it does not wait for."""
    bundle = owned_by_client(here, 5)
    here.region.store(slot_word(CLIENT, "want_bundle"), want_bundle)
    here.region.store(slot_word(CLIENT, "want_index"), want_index)
    heard: list[int] = []
    run(here, bundle, lambda x: heard.append(rings(door)))
    heard.append(rings(door))
    assert heard == [int(rung_at is not None and i == rung_at + 1) for i in range(6)]


def test_a_client_that_went_to_sleep_late_is_told_of_all_that_is_done(here: Alone, door: int) -> None:
    """Each status is followed by a look at the whole range done so far."""
    bundle = owned_by_client(here, 5)

    def task(x: int) -> int:
        if x == 3:
            here.region.store(slot_word(CLIENT, "want_index"), 1)
            here.region.store(slot_word(CLIENT, "want_bundle"), BUNDLE_AT)
        return rings(door)

    run(here, bundle, task)
    assert [bundle.value(i) for i in range(5)] == [0, 0, 0, 0, 1]


# -- ranges that end early


def test_the_loop_ends_when_the_budget_is_used_up(here: Alone) -> None:
    """After the item that used it; the rest has no status."""
    bundle = here.filled(range(100))

    def slow(x: int) -> int:
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass
        return x

    begun, ns, exceptions = bundle.run(THREAD, RANGE, 0, 100, slow, 5_000_000, here.alloc)
    assert 1 <= begun <= 6
    assert ns >= 5_000_000
    assert exceptions == 0
    assert bundle.unset(0, 100) == [(begun, 100)]
    assert bundle.run(THREAD, RANGE, begun, 100, slow, 0, here.alloc)[0] == begun + 1


def test_the_pump_gives_back_what_waits_behind_a_long_item(here: Alone) -> None:
    """B7: BACK names the first item not begun; the loop ends there, and DONE will say the same."""
    bundle = here.filled(range(10))
    ring = rounded(here.alloc.at, LINE) + (1 << 20)
    here.endpoint.open_out(0, ring, 4)
    here.endpoint.start_pump()

    def long(x: int) -> int:
        end = time.monotonic() + PATIENCE_S
        while x == 4 and not here.region.load(ring) and time.monotonic() < end:
            time.sleep(0)
        return x

    # the first items may have been given 2 ms already: so the range begins at the long one
    assert run(here, bundle, long, 4, 10) == (5, 0)
    here.endpoint.stop_pump()
    words = [here.region.load(ring + ring_bytes(0) - LINE + 8 * i) for i in range(5)]
    assert words == [MSG["BACK"], BUNDLE_AT, GENERATION, RANGE, 5]
    assert bundle.unset(0, 10) == [(0, 4), (5, 10)]


def test_two_threads_run_ranges_of_one_bundle_side_by_side(here: Alone) -> None:
    """Each in its own words; tasks that give up the GIL may be in the middle of both."""
    bundle = here.filled(range(400))
    meet = threading.Barrier(2)

    def task(x: int) -> tuple[int, str]:
        if x % 200 < 10:
            meet.wait(PATIENCE_S)
        return x, "x" * (x % 50)

    def half(number: int) -> None:
        bundle.run(number, number, 200 * number, 200 * number + 200, task, UNLIMITED_NS, here.alloc)

    threads = [threading.Thread(target=half, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values: list[tuple[int, str]] = []
    assert bundle.gather(0, 400, values) == 400
    assert values == [(x, "x" * (x % 50)) for x in range(400)]


def test_a_signal_handler_runs_between_items_that_never_look(here: Alone) -> None:
    """C functions without a Python frame do not look at signals: the loop does, about every millisecond."""
    bundle = here.filled([1] * 60_000)
    count = bytes(200_000).count

    class Enough(Exception):
        pass

    def stop(number: int, frame: object) -> None:
        raise Enough

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Enough):
            run(here, bundle, count)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    ((begun, hi),) = bundle.unset(0, 60_000)
    assert (begun > 0, hi) == (True, 60_000)
    assert run(here, bundle, same, begun, begun + 1) == (begun + 1, 0)


def test_a_task_that_closes_the_endpoint_ends_the_loop(here: Alone) -> None:
    """The mapping may be gone: nothing is stored any more."""
    bundle = here.filled(range(3))
    status = here.status_at(1)

    def task(x: int) -> int:
        if x == 1:
            here.endpoint.close()
        return x

    with pytest.raises(ClosedError):
        bundle.run(THREAD, RANGE, 0, 3, task, UNLIMITED_NS, here.alloc)
    assert here.region.load(status) == 0


def test_the_fork_of_a_task_stores_nothing(here: Alone) -> None:
    """D3: it is no member; its copy of the loop ends with ForkedEndpoint, the parent's goes on."""
    bundle = here.filled(range(3))
    parent = os.getpid()

    def task(x: int) -> int:
        return os.fork() if x == 1 else x

    try:
        begun, exceptions = run(here, bundle, task)
    except ForkedEndpoint:
        os._exit(23 if os.getpid() != parent else 1)
    finally:
        if os.getpid() != parent:
            os._exit(2)
    assert (begun, exceptions) == (3, 0)
    _, status = os.waitpid(bundle.value(1), 0)
    assert os.waitstatus_to_exitcode(status) == 23
