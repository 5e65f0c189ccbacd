"""The allocator of an endpoint: blocks never overlap, what is freed is used again, large arenas go back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nahanni_compute.errors import RegionFull
from nahanni_compute.region.arenas import SMALL_MAX, Arenas, Spans, block_size, bundle_bytes
from nahanni_compute.region.layout import BUNDLE_SIZE, HEAP, LINE, MIB

KEPT = 4 * MIB


class Source:
    """Hands out arenas one after the other, as the keeper does, and takes them back."""

    def __init__(self, limit: int = 1 << 40) -> None:
        self.at, self.limit = HEAP, limit
        self.given: dict[int, int] = {}

    def more(self, nbytes: int) -> tuple[int, int]:
        size = -(-max(nbytes, KEPT) // MIB) * MIB
        if sum(self.given.values()) + size > self.limit:
            raise RegionFull("full")
        offset, self.at = self.at, self.at + size
        self.given[offset] = size
        return offset, size

    def back(self, offset: int, nbytes: int) -> None:
        assert self.given.pop(offset) == nbytes

    def holds(self, offset: int, nbytes: int) -> bool:
        """In arenas that are given, which may lie side by side."""
        spans = Spans()
        for start, size in self.given.items():
            spans.give(start, size)
        try:
            spans.cut(offset, nbytes)
        except (AssertionError, IndexError):
            return False
        return True


@given(st.integers(1, 1 << 30))
def test_a_block_wastes_at_most_a_quarter_and_is_whole_lines(nbytes: int) -> None:
    """But for the smallest, which is a line."""
    size = block_size(nbytes)
    assert size % LINE == 0
    assert nbytes <= size <= max(LINE, nbytes + LINE, nbytes * 5 // 4)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9 * MIB)), max_size=60))
def test_blocks_never_overlap_and_lie_in_what_was_given(steps: list[tuple[bool, int]]) -> None:
    """Any mix of sizes, taken and given back in any order."""
    source = Source()
    arenas = Arenas(source.more, source.back, KEPT)
    held: list[tuple[int, int]] = []
    for take, nbytes in steps:
        if take or not held:
            offset, size = arenas.get(nbytes if nbytes % 3 else nbytes % SMALL_MAX + 1)
            assert offset % LINE == 0
            assert source.holds(offset, size)
            assert all(offset + size <= o or o + s <= offset for o, s in held)
            held.append((offset, size))
        else:
            arenas.put(*held.pop(nbytes % len(held)))


@given(st.lists(st.integers(SMALL_MAX + 1, 20 * MIB), min_size=1, max_size=20))
def test_arenas_made_for_one_block_go_back_when_they_are_empty(sizes: list[int]) -> None:
    """Those of the usual size are kept, to be used again."""
    source = Source()
    arenas = Arenas(source.more, source.back, KEPT)
    blocks = [arenas.get(size) for size in sizes]
    for block in reversed(blocks):
        arenas.put(*block)
    assert all(size <= KEPT for size in source.given.values())
    before = dict(source.given)
    arenas.put(*arenas.get(SMALL_MAX + 1))
    assert len(source.given) - len(before) <= 1


def test_the_block_freed_last_is_used_first() -> None:
    """It is the hottest."""
    source = Source()
    arenas = Arenas(source.more, source.back, KEPT)
    one, two = arenas.get(1000), arenas.get(1000)
    arenas.put(*one)
    arenas.put(*two)
    assert arenas.get(1000) == two
    assert arenas.get(1000) == one


def test_a_full_region_changes_nothing() -> None:
    """RegionFull passes through, and what there was can still be had."""
    source = Source(limit=KEPT)
    arenas = Arenas(source.more, source.back, KEPT)
    block = arenas.get(MIB)
    with pytest.raises(RegionFull):
        arenas.get(16 * MIB)
    arenas.put(*block)
    assert arenas.get(3 * MIB)[1] >= 3 * MIB


@given(st.integers(1, 65536))
def test_a_bundles_block_has_room_for_header_items_and_statuses(capacity: int) -> None:
    """Each array on lines of its own (B1)."""
    assert bundle_bytes(capacity) >= BUNDLE_SIZE + 16 * capacity
    assert bundle_bytes(capacity) % LINE == 0
