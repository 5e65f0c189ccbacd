"""Words and payloads (B2, B3): every value comes back as it was, and nobody's bytes do harm."""

from __future__ import annotations

import enum
import math
import random
import struct
import tracemalloc
from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nahanni_compute.errors import AccessRefused, RegionCorrupt
from nahanni_compute.region.layout import (
    HEAP,
    KIND_CANCELLED,
    KIND_CODEC,
    KIND_CONST,
    KIND_EXC,
    KIND_INT,
    KIND_LOST,
    KIND_OBJECT,
    KIND_PICKLE,
    LENGTH_LONG,
    REGION_SIZE_MIN,
)

from .alone import UNLIMITED_NS, Alone, alone, same, word

INT60 = 1 << 59
INT64 = 1 << 63
MASK = (1 << 64) - 1

Point = namedtuple("Point", "x y")


class Colour(enum.IntEnum):
    """An int that is not only an int."""

    RED = 1


@pytest.fixture
def here() -> Iterator[Alone]:
    """A region of this test's own."""
    with alone() as made:
        yield made


def is_same(a: object, b: object) -> bool:
    """Equal, of the same types all the way down, and floats to the bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and isinstance(b, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(is_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return is_same(list(a.items()), list(b.items()))
    return a == b


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(st.characters(codec=None, exclude_categories=[]))
    | st.binary()
)
KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner),
    max_leaves=40,
)


# -- what goes through


@settings(max_examples=300, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=20))
def test_every_value_comes_back_as_it_was(values: list[object]) -> None:
    """As an argument and as a result: same types, same order of keys, same bits."""
    with alone() as here:
        got: list[object] = []
        bundle = here.finished(values)
        assert bundle.gather(0, len(values), got) == len(values)
        assert is_same(got, values)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0, KIND_INT),
        (-1, KIND_INT),
        (INT60 - 1, KIND_INT),
        (-INT60, KIND_INT),
        (INT60, KIND_CODEC),
        (-INT60 - 1, KIND_CODEC),
        (INT64 - 1, KIND_CODEC),
        (-INT64, KIND_CODEC),
        (INT64, KIND_PICKLE),
        (-INT64 - 1, KIND_PICKLE),
        (1 << 2000, KIND_PICKLE),
        (None, KIND_CONST),
        (True, KIND_CONST),
        (False, KIND_CONST),
        (0.0, KIND_CODEC),
        (-0.0, KIND_CODEC),
        (math.nan, KIND_CODEC),
        (-math.inf, KIND_CODEC),
        ("", KIND_CODEC),
        ("grün \U0001f30a\0", KIND_CODEC),
        ("\ud800 alone", KIND_PICKLE),
        (b"", KIND_CODEC),
        ((), KIND_CODEC),
        ([], KIND_CODEC),
        ({}, KIND_CODEC),
        ({"a": [1, (2.5, b"x")], None: {}}, KIND_CODEC),
        ([1, 2, INT64], KIND_PICKLE),
        ({1, 2}, KIND_PICKLE),
        (Point(1, 2), KIND_PICKLE),
        (Colour.RED, KIND_PICKLE),
        (bytearray(b"x"), KIND_PICKLE),
        (3 + 4j, KIND_PICKLE),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_value_travels_in_the_cheapest_form_that_keeps_it(here: Alone, value: object, kind: int) -> None:
    """In the word, by the codec, or pickled as a whole when any part of it is not of an exact plain type."""
    bundle = here.finished([value])
    assert bundle.status(0) == kind
    assert is_same(bundle.value(0), value)


@pytest.mark.parametrize(("depth", "kind"), [(32, KIND_CODEC), (33, KIND_PICKLE), (300, KIND_PICKLE)])
def test_what_is_nested_deeper_than_the_codec_goes_is_pickled(here: Alone, depth: int, kind: int) -> None:
    """The reader's limit is the writer's."""
    value: list[object] = []
    for _ in range(depth - 1):
        value = [value]
    bundle = here.finished([value])
    assert bundle.status(0) == kind
    assert bundle.value(0) == value


@pytest.mark.parametrize(
    "nbytes", [1, 4091, 4092, 100_000, LENGTH_LONG - 6, LENGTH_LONG - 5, LENGTH_LONG - 4, LENGTH_LONG, 2 << 20, 5 << 20]
)
@pytest.mark.parametrize("wrap", [same, lambda data: (data, 1), lambda data: {data}], ids=["bytes", "tuple", "pickled"])
def test_a_payload_may_have_any_length(here: Alone, nbytes: int, wrap: Any) -> None:
    """On both sides of where the length no longer fits in the word, and of where copies are streamed."""
    value = wrap(random.Random(nbytes).randbytes(nbytes))
    bundle = here.finished([value])
    assert bundle.value(0) == value


def test_a_length_that_does_not_fit_in_the_word_stands_before_the_bytes(here: Alone) -> None:
    """From LENGTH_LONG bytes on, the tag and the number of the codec among them."""
    here.finished([b"x" * (LENGTH_LONG - 6), b"x" * (LENGTH_LONG - 5)])
    short, long = (here.status_word(i) for i in range(2))
    assert short >> 4 & LENGTH_LONG == LENGTH_LONG - 1
    assert long >> 4 & LENGTH_LONG == LENGTH_LONG
    assert here.region.load(long >> 24) == LENGTH_LONG


def test_a_block_is_asked_for_once_and_for_what_is_needed(here: Alone) -> None:
    """What found no room has been counted to the byte; the rest of the old block stays in use when there is more of it."""
    bundle = here.make(4)
    bundle.fill(iter([b"x" * 100, b"y" * 10_000, b"z" * 100]), 3)
    assert here.alloc.asked == [112, 10_008]
    offsets = [here.region.load(here.item_at(i)) >> 24 for i in range(3)]
    assert offsets[0] < offsets[2] < offsets[0] + here.alloc.chunk <= offsets[1]


@pytest.mark.parametrize("block", [(0, 1 << 20), (HEAP - 64, 1 << 20), (REGION_SIZE_MIN - 64, 1 << 20), (1 << 63, 1 << 63), (HEAP, 8)])
def test_a_block_that_is_not_in_the_heap_or_too_small_is_refused(here: Alone, block: tuple[int, int]) -> None:
    """An allocator that is wrong writes over nobody."""
    bundle = here.make(1)
    bundle.alloc = lambda nbytes: block
    with pytest.raises(ValueError, match="expected `alloc` to return"):
        bundle.fill(iter([b"x" * 100]), 1)
    assert bundle.count() == 0


def test_an_allocator_that_is_missing_or_raises_is_heard_of(here: Alone) -> None:
    """Nothing is stored then."""
    bundle = here.make(2)
    bundle.alloc = None
    with pytest.raises(RuntimeError, match="alloc"):
        bundle.fill(iter(["text"]), 1)

    def full(nbytes: int) -> tuple[int, int]:
        raise MemoryError(nbytes)

    bundle.alloc = full
    with pytest.raises(MemoryError):
        bundle.fill(iter(["text"]), 1)
    bundle.alloc = lambda nbytes: 7  # type: ignore[assignment, return-value]
    with pytest.raises(TypeError):
        bundle.fill(iter(["text"]), 1)
    assert (bundle.n, bundle.count()) == (0, 0)


def test_a_list_that_grows_while_a_block_is_asked_for_is_written_whole(here: Alone) -> None:
    """Python code runs inside `alloc`; the value is looked at again after it."""
    bundle = here.make(1)
    value: list[object] = ["x" * 50]

    def alloc(nbytes: int) -> tuple[int, int]:
        if len(value) < 5:
            value.append("y" * 5000)
        return here.alloc(nbytes)

    bundle.alloc = alloc
    bundle.fill(iter([value]), 1)
    bundle.run(0, 1, 0, 1, same, UNLIMITED_NS, here.alloc)
    assert bundle.value(0) == value


# -- what does harm to nobody


def plain(n: int) -> bytes:
    return n.to_bytes(4, "little")


HOSTILE = {
    "nothing": b"",
    "no such tag": b"?",
    "an int cut short": b"i\1\2\3",
    "a float cut short": b"d" + bytes(7),
    "a string cut short": b"s" + plain(5) + b"abcd",
    "a string without end": b"s" + plain(0xFFFFFFFF) + b"abcd",
    "a string that is not UTF-8": b"s" + plain(2) + b"\xff\xfe",
    "a string of surrogates": b"s" + plain(3) + b"\xed\xa0\x80",
    "bytes without end": b"b" + plain(0xFFFFFFFF),
    "no length": b"t\1\0",
    "four billion elements": b"t" + plain(0xFFFFFFFF) + b"N" * 64,
    "four billion elements of a list": b"l" + plain(0xFFFFFFFF) + b"N" * 64,
    "four billion pairs": b"D" + plain(0xFFFFFFFF) + b"N" * 64,
    "one element too many": b"t" + plain(3) + b"NN",
    "half a pair": b"D" + plain(1) + b"N",
    "a key that cannot be hashed": b"D" + plain(1) + b"l" + plain(0) + b"N",
    "something behind it": b"NN",
    "too deep": (b"l" + plain(1)) * 33 + b"N",
    "very deep": (b"l" + plain(1)) * 100_000 + b"N",
    "too deep by keys": (b"D" + plain(1)) * 40 + b"N" * 41,
    "what an outer container is owed": b"t" + plain(8) + b"b" + plain(7) + b"1234567",
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE.keys())
def test_bytes_that_are_not_of_the_codec_are_called_corrupt(here: Alone, payload: bytes) -> None:
    """RegionCorrupt, whatever they are."""
    bundle = here.make(1)
    here.store_payload(KIND_CODEC, payload)
    with pytest.raises(RegionCorrupt, match=r"expected .* saw"):
        bundle.value(0)


def test_a_size_that_is_a_lie_is_not_believed_before_memory_is_asked_for(here: Alone) -> None:
    """Nor in a row: the elements announced at all depths together are never more than the bytes that are left."""
    bundle = here.make(1)
    n = 1 << 20
    here.store_payload(KIND_CODEC, b"".join(b"l" + plain(n - 6 * depth) for depth in range(1, 31)) + bytes(n - 150))
    tracemalloc.start()
    try:
        with pytest.raises(RegionCorrupt):
            bundle.value(0)
        assert tracemalloc.get_traced_memory()[1] < 16 * n
    finally:
        tracemalloc.stop()


def test_random_and_damaged_bytes_are_a_value_or_corrupt(here: Alone) -> None:
    """10 000 payloads, half of them right ones with a few bytes changed: no crash, no other exception."""
    chance = random.Random(8)
    right: tuple[object, ...] = (
        [1, "a", b"b", (None, True, 2.5)],
        {"k": {"x": [1, 2, 3], "y": ((), [], {})}},
        ["x" * 300, {1: 2, "z": 3.0}] * 3,
    )
    seeds = [encoded(here, value) for value in right]
    bundle = here.make(1)
    seen = {"value": 0, "corrupt": 0}
    for _ in range(10_000):
        if chance.random() < 0.5:
            payload = bytearray(chance.choice(seeds))
            for _ in range(chance.randint(1, 4)):
                payload[chance.randrange(len(payload))] = chance.randrange(256)
        else:
            payload = bytearray(
                chance.choice((chance.choice(b"NTFidsbtlD"), chance.randrange(256), 0)) for _ in range(chance.randint(0, 60))
            )
        here.alloc.at = HEAP + (1 << 20)
        here.store_payload(KIND_CODEC, bytes(payload))
        try:
            bundle.value(0)
            seen["value"] += 1
        except RegionCorrupt:
            seen["corrupt"] += 1
    assert min(seen.values()) > 500


def encoded(here: Alone, value: object) -> bytes:
    """The codec's bytes for a value."""
    here.finished([value])
    status = here.status_word(0)
    assert status & 15 == KIND_CODEC
    return here.region.read(status >> 24, status >> 4 & LENGTH_LONG)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([KIND_CODEC, KIND_PICKLE, KIND_EXC]), st.integers(0, MASK))
def test_no_word_and_no_payload_ends_the_reader(payload: bytes, kind: int, other: int) -> None:
    """A payload of any kind and any bytes, and a word of any bits."""
    with alone() as here:
        bundle = here.make(2)
        here.store_payload(kind, payload)
        here.region.store(here.status_at(1), other)
        for index in range(2):
            try:
                bundle.value(index)
            except (RegionCorrupt, AccessRefused):
                continue
            except Exception as error:
                assert type(error).__name__ in {"TaskCancelled", "WorkerDied", "LookupError"}  # noqa: PT017


BAD_WORDS = {
    "below the heap": word(KIND_CODEC, 8, HEAP - 8),
    "at zero": word(KIND_CODEC, 8, 0),
    "over the end": word(KIND_CODEC, 16, REGION_SIZE_MIN - 8),
    "beyond the end": word(KIND_CODEC, 8, (1 << 40) - 1),
    "pickle beyond the end": word(KIND_PICKLE, 8, (1 << 40) - 8),
    "exception beyond the end": word(KIND_EXC, 8, (1 << 40) - 8),
    "long, below the heap": word(KIND_CODEC, LENGTH_LONG, HEAP - 8),
    "long, at the very end": word(KIND_CODEC, LENGTH_LONG, REGION_SIZE_MIN),
    "long, not aligned": word(KIND_CODEC, LENGTH_LONG, HEAP + 4),
    "object": word(KIND_OBJECT, 64, HEAP),
    "no such constant": word(KIND_CONST, 0, 3),
    "constant with a length": word(KIND_CONST, 1, 0),
    **{f"kind {kind}": word(kind, 8, HEAP) for kind in range(9, 16)},
}


@pytest.mark.parametrize("bad", BAD_WORDS.values(), ids=BAD_WORDS.keys())
def test_a_word_that_names_nothing_right_is_called_corrupt(here: Alone, bad: int) -> None:
    """Kind and span are checked on the copy, and no sum of them overflows."""
    bundle = here.make(1)
    here.region.store(here.status_at(0), bad)
    with pytest.raises(RegionCorrupt):
        bundle.value(0)


@pytest.mark.parametrize("length", [MASK, MASK - 7, 1 << 63, REGION_SIZE_MIN, REGION_SIZE_MIN - HEAP])
def test_a_long_length_that_leaves_the_region_is_called_corrupt(here: Alone, length: int) -> None:
    """Whatever is added to it."""
    bundle = here.make(1)
    at = HEAP + (1 << 20)
    for kind in (KIND_CODEC, KIND_PICKLE):
        here.region.store(at, length)
        here.region.store(here.status_at(0), word(kind, LENGTH_LONG, at))
        with pytest.raises(RegionCorrupt):
            bundle.value(0)


@pytest.mark.parametrize("kind", [KIND_EXC, KIND_LOST, KIND_OBJECT, 0, 9])
def test_an_item_word_of_a_wrong_kind_fails_the_item_and_not_the_worker(here: Alone, kind: int) -> None:
    """The loop goes on with the next one."""
    bundle = here.filled([1, 2, 3])
    here.region.store(here.item_at(1), word(kind, 8, HEAP))
    assert bundle.run(0, 1, 0, 3, same, UNLIMITED_NS, here.alloc)[::2] == (3, 1)
    assert [bundle.value(0), bundle.value(2)] == [1, 3]
    with pytest.raises(RegionCorrupt):
        bundle.value(1)


@pytest.mark.parametrize(("kind", "name"), [(KIND_CANCELLED, "TaskCancelled"), (KIND_LOST, "WorkerDied")])
def test_a_status_that_says_there_is_no_result_raises_that(here: Alone, kind: int, name: str) -> None:
    """Cancelled and lost have no payload."""
    bundle = here.make(1)
    here.region.store(here.status_at(0), word(kind, 0, 0))
    with pytest.raises(Exception, match=r"expected .* saw") as raised:
        bundle.value(0)
    assert type(raised.value).__name__ == name
