"""Bundles and the clients that own them, as the scheduler remembers them: in ranges, item by item only where a worker died."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nahanni_compute.messages import BundleKey
from nahanni_compute.scheduler.ranges import Ranges

if TYPE_CHECKING:
    from nahanni_compute.region.slots import Key

MEAN_WEIGHT = 0.3  # of the newest range in the running mean


class Client:
    """An endpoint that opened bundles. They point at each other until a bundle is forgotten."""

    __slots__ = ("bundles", "is_gone", "is_queued", "key", "ranges_out", "waiting")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.bundles: dict[BundleKey, Bundle] = {}
        self.waiting: list[Bundle] = []  # by age; one whose items all went stays until it is looked at (turns.py)
        self.ranges_out = 0  # of all its bundles: they go as one group when it is gone (A4)
        self.is_queued = False
        self.is_gone = False


class Bundle:
    """Items 0..count; each is in `unheld`, or in a range that is out, or has a status or, once released, is given up.

    holds(bundle), F1, is `ranges_out`, and one more until it is released.
    """

    __slots__ = (
        "age", "capacity", "client", "count", "deaths", "is_closed", "is_control", "is_queued", "is_released", "key", "mean_ns",
        "ranges_out", "target", "tellers", "unheld",
    )  # fmt: skip

    def __init__(self, key: BundleKey, client: Client, capacity: int, age: int) -> None:
        self.key, self.client, self.capacity, self.age = key, client, capacity, age
        self.count = 0
        self.unheld = Ranges()
        self.ranges_out = 0
        self.mean_ns = 0.0  # of an item; 0: none was run yet
        self.deaths: dict[int, int] = {}  # item -> how many workers died in it (B11)
        self.tellers: dict[Key, None] = {}  # workers that told a chunk, in order (B13)
        self.target: Key | None = None
        self.is_control = False
        self.is_closed = False
        self.is_released = False
        self.is_queued = False

    def grow(self, n: int) -> bool:
        """There are `n` items now. The count only grows; whatever it says, no more than there is room for."""
        n = min(n, self.capacity)
        if n <= self.count or self.is_released:
            return False
        self.unheld.add(self.count, n)
        self.count = n
        return True

    def release(self) -> None:
        """The client gave it up, and with it what nobody holds."""
        self.is_released = True
        self.unheld.clear()

    def learn(self, items: int, ns: int) -> None:
        """`items` more took `ns`."""
        mean = max(ns / items, 1.0)
        self.mean_ns = mean if not self.mean_ns else self.mean_ns + (mean - self.mean_ns) * MEAN_WEIGHT
