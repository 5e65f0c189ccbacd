"""Bundles as a client holds them, and the sequence that `map` returns. `Future` itself is the core's: a bundle and an index."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, overload

from nahanni_compute._native import Bundle, Endpoint, Future
from nahanni_compute.errors import NahanniError
from nahanni_compute.functions import Function

Blocks = list[tuple[int, int]]

__all__ = ["ClientBundle", "Future", "Futures"]

WAIT_STATUS = 4


class Owner(Protocol):
    """What a bundle needs of its client's session."""

    endpoint: Endpoint
    failure: NahanniError | None
    dropped: deque[tuple[int, int, Blocks, list[Function]]]

    def pay(self) -> None:
        """Ring what was put off, before any wait (S6)."""

    def turn(self) -> None:
        """Take the scheduler's mail."""


class ClientBundle(Bundle):
    """A bundle of this client's. While a future of it lives, so does it; then its blocks come back (B13)."""

    session: Owner
    blocks: Blocks
    functions: list[Function]
    newest_function: Function | None

    def hold(self, function: Function) -> None:
        """An item names it: its block stays as long as this bundle."""
        self.newest_function = function
        if function not in self.functions:
            self.functions.append(function)
            self.weigh(function.block[1])

    def wait_item(self, index: int, timeout: float | None = None) -> None:
        """Sleep until item `index` has a status. Raises TimeoutError, SchedulerDied, ClosedError."""
        session = self.session
        session.pay()
        end = None if timeout is None else time.monotonic() + timeout
        while not self.status(index):
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"expected a result within {timeout} s, saw none: the task waits, or runs on")
            if not session.endpoint.wait(left, self, index) & WAIT_STATUS:
                session.turn()
                if session.failure is not None and not self.status(index):
                    raise session.failure

    def __del__(self) -> None:
        session = getattr(self, "session", None)
        if session is not None:
            session.endpoint.errand()
            session.dropped.append((self.offset, self.generation, self.blocks, self.functions))  # finalizers only append (M5)


class Futures(Sequence[Future]):
    """The futures of a map, made when they are asked for: len, index, slice, iterate. A future equals itself however often taken."""

    __slots__ = ("_bundles", "_each", "_n")

    def __init__(self, bundles: list[ClientBundle], each: int, n: int) -> None:
        self._bundles, self._each, self._n = bundles, each, n

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> Future: ...
    @overload
    def __getitem__(self, index: slice) -> list[Future]: ...
    def __getitem__(self, index: int | slice) -> Future | list[Future]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._n))]
        i = index + self._n if index < 0 else index
        if not 0 <= i < self._n:
            raise IndexError(f"expected an index below {self._n}, saw {index}")
        return self._bundles[i // self._each].future(i % self._each)

    def __iter__(self) -> Iterator[Future]:
        for bundle in self._bundles:
            yield from bundle.futures(0, bundle.n)

    def __repr__(self) -> str:
        return f"<Futures: {self._n}>"

    def gather(self, skip_errors: bool, timeout: float | None) -> list[Any]:
        """All values, in order; the first failed item raises, unless it is to be left out."""
        end = None if timeout is None else time.monotonic() + timeout
        values: list[Any] = []
        for bundle in self._bundles:
            at, n = 0, bundle.n
            while (at := bundle.gather(at, n, values, skip_errors)) < n:
                last = n - 1  # sleep for the last that is missing, not for each
                while last > at and bundle.status(last):
                    last -= 1
                bundle.wait_item(last, None if end is None else max(0.0, end - time.monotonic()))
        return values
