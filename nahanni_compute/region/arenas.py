"""Blocks of an endpoint's own arenas. Owners allocate without asking (decision 4); only a new arena is asked for.

Small blocks (below 64 KiB) come in four sizes a doubling, from slabs, and the one freed last is used first: the hottest. Large
ones come from free spans, first fit, joined again when they are freed. Powers of two throughout were refused: they waste up to
half an arena. Offsets are of the region; every block is 64-byte aligned.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable

from nahanni_compute.region.layout import BUNDLE_SIZE, KIB, LINE, WORD

SMALL_MAX = 64 * KIB
SLAB = 256 * KIB
PAGE = 4 * KIB


def rounded(nbytes: int, step: int) -> int:
    """`nbytes`, up to a multiple of `step`."""
    return -(-nbytes // step) * step


def bundle_bytes(capacity: int) -> int:
    """Bytes of a bundle's block: header, items, statuses (B1)."""
    return BUNDLE_SIZE + 2 * rounded(capacity * WORD, LINE)


def block_size(nbytes: int) -> int:
    """What a request of `nbytes` takes: at most a quarter more."""
    if nbytes > SMALL_MAX:
        return rounded(nbytes, PAGE)
    return rounded(max(nbytes, LINE), max(LINE, 1 << max(nbytes.bit_length() - 3, 0)))


class Spans:
    """Free spans of memory, kept sorted and joined."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._sizes: list[int] = []

    def take(self, nbytes: int) -> int | None:
        """The offset of `nbytes` from the first span that has them."""
        for i, size in enumerate(self._sizes):
            if size < nbytes:
                continue
            start = self._starts[i]
            if size == nbytes:
                del self._starts[i], self._sizes[i]
            else:
                self._starts[i], self._sizes[i] = start + nbytes, size - nbytes
            return start
        return None

    def give(self, start: int, nbytes: int) -> tuple[int, int]:
        """Make a span free; it joins its neighbours. The whole span that it is part of now: (start, bytes)."""
        i = bisect_left(self._starts, start)
        if i < len(self._starts) and start + nbytes == self._starts[i]:
            nbytes += self._sizes[i]
            del self._starts[i], self._sizes[i]
        if i and self._starts[i - 1] + self._sizes[i - 1] == start:
            self._sizes[i - 1] += nbytes
            return self._starts[i - 1], self._sizes[i - 1]
        self._starts.insert(i, start)
        self._sizes.insert(i, nbytes)
        return start, nbytes

    def cut(self, start: int, nbytes: int) -> None:
        """Take these very bytes, which must be free."""
        i = bisect_right(self._starts, start) - 1
        whole, size = self._starts[i], self._sizes[i]
        assert whole <= start and start + nbytes <= whole + size
        del self._starts[i], self._sizes[i]
        if whole < start:
            self.give(whole, start - whole)
        if start + nbytes < whole + size:
            self.give(start + nbytes, whole + size - start - nbytes)

    @property
    def free_bytes(self) -> int:
        """Bytes in all spans."""
        return sum(self._sizes)


class Arenas:
    """The allocator of one endpoint. Not thread-safe: its owner holds a lock.

    `more(nbytes)` returns (offset, bytes) of a new arena of at least `nbytes`, or raises RegionFull. `back(offset, bytes)` gives
    one back: such as are larger than `kept_bytes`, made for one block, go when nothing is in them any more.
    """

    def __init__(self, more: Callable[[int], tuple[int, int]], back: Callable[[int, int], None], kept_bytes: int) -> None:
        self._more, self._back, self._kept_bytes = more, back, kept_bytes
        self._large: dict[int, int] = {}
        self._spans = Spans()
        self._small: dict[int, list[int]] = {}
        self._slab = (0, 0)

    def get(self, nbytes: int) -> tuple[int, int]:
        """A block of at least `nbytes`: (offset, bytes). Raises RegionFull, and nothing has changed."""
        size = block_size(nbytes)
        offset = self._small_block(size) if size <= SMALL_MAX else self._span(size)
        return offset, size

    def put(self, offset: int, nbytes: int) -> None:
        """Give back a block as `get` returned it."""
        if nbytes <= SMALL_MAX:
            self._small.setdefault(nbytes, []).append(offset)
        else:
            start, size = self._spans.give(offset, nbytes)
            for arena in [a for a, n in self._large.items() if start <= a and a + n <= start + size]:
                self._spans.cut(arena, self._large[arena])
                self._back(arena, self._large.pop(arena))

    def _span(self, size: int) -> int:
        offset = self._spans.take(size)
        while offset is None:
            start, nbytes = self._more(size)
            if nbytes > self._kept_bytes:
                self._large[start] = nbytes
            self._spans.give(start, nbytes)
            offset = self._spans.take(size)
        return offset

    def _small_block(self, size: int) -> int:
        free = self._small.get(size)
        if free:
            return free.pop()
        start, end = self._slab
        if start + size > end:
            if end > start:  # what is left of the old slab is a block of its own size
                self._small.setdefault(end - start, []).append(start)
            start = self._span(SLAB)
            end = start + SLAB
        self._slab = (start + size, end)
        return start
