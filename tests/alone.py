"""One endpoint alone in a small region of its own, in this process: for tests of bundles, with every word within reach."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from nahanni_compute import core
from nahanni_compute._native import Bundle, Endpoint, Region
from nahanni_compute.region.arenas import bundle_bytes, rounded
from nahanni_compute.region.layout import BUNDLE, HEAP, KIB, LENGTH_LONG, LINE, REGION_SIZE_MIN, WORD

KEY: Final = bytes(range(16))
SLOT: Final = 5
KEEPER: Final = 7
FUNCTION: Final = 0xABCDEF
GENERATION: Final = 3
UNLIMITED_NS: Final = 1 << 62
BUNDLE_AT: Final = HEAP
RANGE: Final = 77
THREAD: Final = 3


def word(kind: int, length: int, offset: int) -> int:
    """An item or status word (B2)."""
    return kind | length << 4 | offset << 24


def same(value: object) -> object:
    """The task that returns its argument."""
    return value


class Bump:
    """An allocator that only goes forward. `asked` is what it was asked for."""

    def __init__(self, at: int, end: int, chunk: int = 4 * KIB) -> None:
        self.at, self.end, self.chunk = at, end, chunk
        self.asked: list[int] = []

    def __call__(self, nbytes: int) -> tuple[int, int]:
        self.asked.append(nbytes)
        size = rounded(max(nbytes, self.chunk), LINE)
        if self.at + size > self.end:
            raise MemoryError(f"expected room for {nbytes} bytes, saw {self.end - self.at}")
        self.at += size
        return self.at - size, size


class Alone:
    """A region with a bundle at BUNDLE_AT, and the allocator of its owner and worker, which are one endpoint here."""

    def __init__(self, key: bytes | None = KEY, region_bytes: int = REGION_SIZE_MIN) -> None:
        core.configure()
        self.memory = os.memfd_create("alone")
        os.ftruncate(self.memory, region_bytes)
        self.map = mmap.mmap(self.memory, region_bytes)
        self.region = Region(self.map, key)
        self.endpoint = Endpoint(self.region, SLOT, 1)
        self.alloc = Bump(0, 0)

    def close(self) -> None:
        """Nothing is left."""
        self.endpoint.close()
        self.region.close()
        self.map.close()
        os.close(self.memory)

    def make(
        self, capacity: int, function: int = FUNCTION, flags: int = 0, generation: int = GENERATION, kind: type[Bundle] = Bundle
    ) -> Bundle:
        """A fresh bundle in the place of the last one."""
        bundle = kind.create(self.endpoint, BUNDLE_AT, generation, capacity, function, flags)
        self.alloc = Bump(BUNDLE_AT + rounded(bundle_bytes(capacity), LINE), self.region.size)
        bundle.alloc = self.alloc
        return bundle

    def filled(self, values: Iterable[object], flags: int = 0) -> Bundle:
        """A bundle with these items."""
        items = list(values)
        bundle = self.make(len(items), flags=flags)
        assert bundle.fill(iter(items), len(items)) == len(items)
        return bundle

    def finished(self, values: Iterable[object]) -> Bundle:
        """A bundle whose results are these values: each went through an item and through a status."""
        bundle = self.filled(values)
        assert bundle.run(0, 1, 0, bundle.capacity, same, UNLIMITED_NS, self.alloc)[0] == bundle.capacity
        return bundle

    def through(self, value: object) -> Any:
        """The value after it went through an item and a status."""
        return self.finished([value]).value(0)

    def at(self, field: str) -> int:
        """Offset of a word of the bundle's header."""
        return BUNDLE_AT + BUNDLE[field]

    def item_at(self, index: int) -> int:
        """Offset of an item word."""
        return self.region.load(self.at("items")) + WORD * index

    def status_at(self, index: int) -> int:
        """Offset of a status word."""
        return self.region.load(self.at("statuses")) + WORD * index

    def status_word(self, index: int) -> int:
        """The status word itself."""
        return self.region.load(self.status_at(index))

    def store_payload(self, kind: int, payload: bytes, index: int = 0) -> int:
        """A status that names these bytes, as anybody who can write the region may store it. Returns where they lie."""
        offset, _ = self.alloc(len(payload) + WORD)
        if len(payload) < LENGTH_LONG:
            self.region.write(offset, payload)
            self.region.store(self.status_at(index), word(kind, len(payload), offset))
            return offset
        self.region.store(offset, len(payload))
        self.region.write(offset + WORD, payload)
        self.region.store(self.status_at(index), word(kind, LENGTH_LONG, offset))
        return offset + WORD


@contextmanager
def alone(key: bytes | None = KEY) -> Iterator[Alone]:
    """For tests that hypothesis calls often: fixtures are not made anew for each example."""
    made = Alone(key)
    try:
        yield made
    finally:
        made.close()


def run(here: Alone, bundle: Bundle, function: Callable[..., object], lo: int = 0, hi: int | None = None) -> tuple[int, int]:
    """Run a range of it, or all there is: (next, exceptions)."""
    hi = bundle.count() if hi is None else hi
    begun, ns, exceptions = bundle.run(THREAD, RANGE, lo, hi, function, UNLIMITED_NS, here.alloc)
    assert ns > 0
    return begun, exceptions
