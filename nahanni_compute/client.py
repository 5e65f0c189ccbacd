"""Client: what users hold. Names follow Dask where Dask has one, `concurrent.futures` where it has one."""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from nahanni_compute import core
from nahanni_compute.cluster import LocalCluster
from nahanni_compute.errors import NahanniError, NoSuchWorker, UsageError, WorkerDied
from nahanni_compute.future import ClientBundle, Future, Futures
from nahanni_compute.information import SchedulerInfo, Statistics, named, scheduler_info, statistics
from nahanni_compute.region import layout
from nahanni_compute.region.layout import BUNDLE_CONTROL, BUNDLE_STAR, MAP_ITEMS_MAX
from nahanni_compute.region.membership import Member
from nahanni_compute.region.slots import Identity, members
from nahanni_compute.session import RING_GAP_NS, Session
from nahanni_compute.substrate import open_substrate

log = logging.getLogger("nahanni.client")

FILL_ITEMS = 8192  # between two looks at the scheduler's sleep while a map is written
READY_LOOK_S = 0.002
GUEST_DEVICE = Path("/dev/uio0")

Fn = Callable[..., Any]


class Client:
    """`Client(shm=None, *, n_workers=None, region_size=None, name=None, key_file=None, timeout=30.0)`

    `shm`: a substrate address (`"/dev/uio0"`, `"unix:/run/nahanni/region.sock"`, or a bare path to a socket), or a `LocalCluster`.
    None means `NAHANNI_SHM` if set, else an embedded `LocalCluster`, to which `n_workers` and `region_size` (bytes, or "4GiB"; a
    power of two) belong: with `shm` they raise TypeError. Returns when the workers of an embedded cluster are ready, otherwise
    when the scheduler has answered. `timeout` (s) bounds that.

    A context manager; `close()` is idempotent; without either, it closes at interpreter exit. Results are private copies.
    Several threads may use one client. A fork of this process may not: it gets ForkedEndpoint.

    Raises AccessRefused (permissions, key), NoDevice, SchedulerDied (none answers), ServerDied.
    """

    def __init__(
        self,
        shm: str | os.PathLike[str] | LocalCluster | None = None,
        *,
        n_workers: int | None = None,
        region_size: int | str | None = None,
        name: str | None = None,
        key_file: str | os.PathLike[str] | None = None,
        timeout: float = 30.0,
    ) -> None:
        core.configure()
        if shm is None:
            shm = os.environ.get("NAHANNI_SHM")
        if shm is not None and (n_workers is not None or region_size is not None):
            raise TypeError("n_workers and region_size belong to an embedded cluster: leave them out, or shm (and NAHANNI_SHM)")
        self._cluster: LocalCluster | None = None
        if shm is None:
            if GUEST_DEVICE.exists():
                log.warning('starting an embedded cluster; Client(shm="%s") joins the region of this VM\'s device', GUEST_DEVICE)
            self._cluster = shm = LocalCluster(n_workers, region_size=region_size, name=name)
        address = shm.address if isinstance(shm, LocalCluster) else os.fspath(shm)
        expected = len(shm.workers) if isinstance(shm, LocalCluster) else 0
        self.name = name or f"client-{os.getpid()}"
        try:
            self._session = self._join(address, key_file, timeout)
            self._wait_ready(expected, timeout)
        except BaseException:
            self.close()
            raise
        atexit.register(self.close)

    def _join(self, address: str, key_file: str | os.PathLike[str] | None, timeout: float) -> Session:
        attachment = open_substrate(address, key_file=Path(key_file) if key_file is not None else None).attach(layout.ROLE_CLIENT)
        member = Member(attachment, layout.ROLE_CLIENT, self.name)
        try:
            made: list[Session] = []
            member.endpoint.start_pump(lambda: made[0].turn() if made else None)  # what finalizers leave while nobody calls us
            member.find_keeper(timeout)
            made.append(Session(member))
            return made[0]
        except BaseException:
            member.leave()
            raise

    def _wait_ready(self, workers: int, timeout: float) -> None:
        end = time.monotonic() + timeout
        while len(self._welcomed_workers()) < workers:
            self._session.turn()
            if self._session.failure is not None:
                raise self._session.failure
            if time.monotonic() > end:
                seen = len(self._welcomed_workers())
                raise NahanniError(f"expected {workers} workers within {timeout} s, saw {seen}: see what they print")
            self._session.endpoint.wait(READY_LOOK_S)

    # -- tasks

    def submit(self, fn: Fn, /, *args: Any, **kwargs: Any) -> Future:
        """Run `fn(*args, **kwargs)` on a worker. No caching by content: every call runs.

        Arguments are pickled now and copied into the region once. Raises UnpicklableError, RegionFull, SchedulerDied.
        """
        session = self._session
        try:
            function = session.plain_functions[fn]
        except (KeyError, TypeError):  # not seen yet, refers to names that may be rebound, or not hashable
            function = session.function_of(fn)
        value = [args, kwargs] if kwargs else args
        bundle = session.open or session.roll(None)
        future = bundle.append(function.id, value)
        while future is None:
            bundle = session.roll(bundle)
            future = bundle.append(function.id, value)
        if bundle.newest_function is not function:
            bundle.hold(function)
        bundle.ring(session.keeper, RING_GAP_NS)
        return future

    def map(self, fn: Fn, *iterables: Iterable[Any]) -> Futures:
        """`fn` of each item (of several iterables: of one from each; the shortest ends it), each placed and reported by itself.

        Returns a sequence of futures, made when they are asked for. An iterable without a length is read to its end first.
        Raises as `submit`.
        """
        if not iterables:
            raise UsageError("expected at least one iterable to map over, saw none")
        sized = [items if hasattr(items, "__len__") else list(items) for items in iterables]
        n = min(len(items) for items in sized)  # type: ignore[arg-type]
        values: Iterator[Any] = iter(sized[0]) if len(sized) == 1 else iter(zip(*sized, strict=False))
        flags = BUNDLE_STAR if len(sized) > 1 else 0
        session = self._session
        bundles: list[ClientBundle] = []
        function = session.function_of(fn)
        for start in range(0, n, MAP_ITEMS_MAX):
            bundle = session.new_bundle(min(MAP_ITEMS_MAX, n - start), function, flags)
            bundles.append(bundle)
            try:
                while bundle.n < bundle.capacity and bundle.fill(values, FILL_ITEMS):
                    bundle.ring(session.keeper, 0)
            finally:
                session.close_bundle(bundle)
        return Futures(bundles, MAP_ITEMS_MAX, sum(bundle.n for bundle in bundles))

    def gather(self, futures: Any, *, errors: Literal["raise", "skip"] = "raise", timeout: float | None = None) -> Any:
        """The same nesting of lists, tuples and dicts, with values in place of futures; `errors="skip"` leaves failed ones out.
        An iterator becomes a list.

        Raises what the first failed task raised, with the remote traceback as its cause; TimeoutError; SchedulerDied.
        """
        if errors not in ("raise", "skip"):
            raise UsageError(f'expected errors to be "raise" or "skip", saw {errors!r}')
        end = None if timeout is None else time.monotonic() + timeout
        return self._gathered(list(futures) if isinstance(futures, Iterator) else futures, errors == "skip", end)

    def _gathered(self, futures: Any, skip: bool, end: float | None) -> Any:
        left = None if end is None else max(0.0, end - time.monotonic())
        if isinstance(futures, Futures):
            return futures.gather(skip, left)
        if isinstance(futures, Future):
            return futures.result(left)
        if end is None and not skip and type(futures) in (list, tuple):
            self._sleep_for_last(futures, None)
            return type(futures)([f.result() if type(f) is Future else self._gathered(f, skip, end) for f in futures])
        if isinstance(futures, tuple) and hasattr(futures, "_fields"):
            return type(futures)(*(self._gathered(value, skip, end) for value in futures))
        if isinstance(futures, dict):
            return {key: self._gathered(value, skip, end) for key, value in futures.items() if not (skip and self._failed(value, end))}
        if isinstance(futures, list | tuple | set | frozenset):
            self._sleep_for_last(futures, end)
            kind = list if isinstance(futures, list) else type(futures)
            return kind([self._gathered(value, skip, end) for value in futures if not (skip and self._failed(value, end))])
        return futures

    def _sleep_for_last(self, futures: Any, end: float | None) -> None:
        """One sleep for the future submitted last saves most of the wake-ups for those before it."""
        last = next((f for f in reversed(futures) if isinstance(f, Future)), None) if isinstance(futures, list | tuple) else None
        if last is not None and not last.done():
            last.exception(None if end is None else max(0.0, end - time.monotonic()))

    def _failed(self, future: Any, end: float | None) -> bool:
        if not isinstance(future, Future):
            return False
        left = None if end is None else max(0.0, end - time.monotonic())
        return future.exception(left) is not None

    def run(
        self, fn: Fn, /, *args: Any, workers: Iterable[str] | None = None, timeout: float | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """`fn(*args, **kwargs)` on every worker (or those named), beside running tasks, never queued behind them.

        Returns {worker name: result}; a worker that dies during it appears as its WorkerDied. Raises NoSuchWorker, TimeoutError.
        """
        session = self._session
        session.check_usable()
        there = named(self._welcomed_workers())
        names = list(there) if workers is None else list(workers)
        unknown = [name for name in names if name not in there]
        if unknown:
            raise NoSuchWorker(f"expected names of workers, saw {unknown}; there are {sorted(there)}")
        futures: dict[str, Future] = {}
        with session.lock:
            function = session.function_of(fn)
            for name in names:
                key = there[name].key
                bundle = session.new_bundle(1, None, BUNDLE_CONTROL, key.incarnation << 16 | key.slot)
                bundle.hold(function)
                future = bundle.append(function.id, [args, kwargs])
                assert future is not None
                futures[name] = future
                bundle.ring(session.keeper, 0)
                session.close_bundle(bundle)
        end = None if timeout is None else time.monotonic() + timeout
        return {name: self._outcome(future, end) for name, future in futures.items()}

    def _outcome(self, future: Future, end: float | None) -> Any:
        try:
            return self._gathered(future, False, end)
        except WorkerDied as died:
            return died

    # -- looking

    def _welcomed_workers(self) -> list[Identity]:
        region, keeper = self._session.region, self._session.member.keeper
        assert keeper is not None
        return [m for m in members(region) if m.role == "worker" and self._is_welcomed(m, keeper.slot)]

    def _is_welcomed(self, member: Identity, keeper_slot: int) -> bool:
        region = self._session.region
        where = region.load(layout.directory_word(keeper_slot, member.key.slot)) & ~63
        return bool(where) and region.load(where + layout.RING["reader"]) == member.key.incarnation

    def scheduler_info(self) -> SchedulerInfo:
        """The scheduler, and the workers by name, as the region says now."""
        self._session.check_open()
        self._session.turn()
        return scheduler_info(self._session.region)

    def statistics(self) -> Statistics:
        """Doorbells, sleeps, wake-ups and rescues of every endpoint, as of its pump's last turn."""
        self._session.check_open()
        self._session.turn()
        return statistics(self._session.region)

    # -- the end

    def close(self) -> None:
        """Leave the region; an embedded cluster ends. Futures that are not read by now raise ClosedError. Idempotent."""
        session = getattr(self, "_session", None)
        if session is not None:
            session.close()
        if self._cluster is not None:
            self._cluster.close()
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        session = getattr(self, "_session", None)
        if session is None or session.closed:
            return f"<Client {self.name}: closed>"
        return f"<Client {self.name}: {len(self._welcomed_workers())} workers, over {session.member.attachment.name}>"
