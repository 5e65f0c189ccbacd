"""The layout of the region is data, and what is generated from it is what is checked in."""

from __future__ import annotations

from itertools import pairwise

from nahanni_compute.region import layout

from .checkout import ROOT

# Server, keeper, endpoint, neighbour, client, worker with a grant; of a ring its producer and its consumer; owner of a block.
WRITERS = {*"SKENCWPQO"}
SIZES = {
    "header": layout.PEER_TABLE,
    "peer": layout.PEER_SIZE,
    "slot": layout.SLOT_SIZE,
    "bundle": layout.BUNDLE_SIZE,
    "block": layout.BLOCK_SIZE,
}


def test_the_c_header_is_the_one_that_layout_py_generates() -> None:
    """C and Python read the same words; after a change: python -m nahanni_compute.region.layout --write"""
    assert layout.c_header() == (ROOT / "native/layout.h").read_text()


def test_the_diagram_is_the_one_that_layout_py_generates() -> None:
    """What people read is what the code does; after a change: python -m nahanni_compute.region.layout --write"""
    assert layout.diagram() == (ROOT / "docs/protocol/LAYOUT.md").read_text()


def test_each_field_is_aligned_has_one_writer_and_lies_in_its_record() -> None:
    """M1: a word has one writer; M2: it is whole, eight bytes at a multiple of eight."""
    for record, fields in layout.RECORDS.items():
        for field in fields:
            assert field.offset % layout.WORD == 0, (record, field)
            assert field.writer in WRITERS, (record, field)
            assert field.offset + layout.WORD * field.words <= SIZES.get(record, layout.REGION_SIZE_MIN), (record, field)


def test_no_two_fields_of_a_record_overlap() -> None:
    """Fields stand in order, each after the end of the one before it; only the last may be of open length."""
    for record, fields in layout.RECORDS.items():
        for this, following in pairwise(fields):
            assert this.words > 0, (record, this)
            assert this.offset + layout.WORD * this.words <= following.offset, (record, this)
        assert len({f.name for f in fields}) == len(fields), record


def test_words_of_different_writers_do_not_share_a_cache_line() -> None:
    """One writer a line: a store of one never slows the loads of another's words."""
    for record, fields in layout.RECORDS.items():
        writers: dict[int, str] = {}
        for field in fields:
            end = field.offset + layout.WORD * max(field.words, 1)
            for line in range(field.offset // layout.LINE, (end - 1) // layout.LINE + 1):
                assert writers.setdefault(line, field.writer) == field.writer, (record, field)


def test_the_ends_of_a_ring_store_to_lines_of_their_own() -> None:
    """tail is the producer's, head the consumer's, and the descriptors begin on a third line."""
    at = {field.name: field.offset // layout.LINE for field in layout.RING_FIELDS}
    assert len({at["tail"], at["head"], at["slots"]}) == 3


def test_each_kind_of_message_has_its_own_number() -> None:
    """The table is the whole vocabulary; 0 is no message, so that a cleared descriptor is none."""
    numbers = [number for number, _, _ in layout.MESSAGES.values()]
    assert sorted(set(numbers)) == sorted(numbers)
    assert min(numbers) > 0


def test_the_heap_holds_whole_aligned_units_at_every_size_of_region() -> None:
    """From the smallest region to 16 TiB: the heap lies behind the slots, ends at the end, and the arena table has room for it."""
    for region_bytes in (1 << k for k in range(26, 45)):
        unit, units = layout.arena_unit(region_bytes), layout.arena_units(region_bytes)
        assert 0 < units <= layout.ARENA_UNITS_MAX
        assert layout.heap_start(region_bytes) >= layout.HEAP
        assert layout.heap_start(region_bytes) % unit == 0
        assert layout.heap_start(region_bytes) + units * unit == region_bytes
