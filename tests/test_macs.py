"""Bytes that lead to unpickling carry a MAC (B3): right in their own place, and nowhere else."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nahanni_compute.errors import AccessRefused, RegionCorrupt
from nahanni_compute.region.layout import KIND_EXC, KIND_PICKLE, LENGTH_LONG, WORD

from .alone import FUNCTION, GENERATION, KEY, UNLIMITED_NS, Alone, alone, same, word

STATUS = 16  # added to the kind of a status under its MAC
MASK = (1 << 64) - 1


class Marked:
    """Unpickling it is seen."""

    loaded = 0

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return Marked.load, ()

    @staticmethod
    def load() -> Marked:
        """What a forged pickle would run."""
        Marked.loaded += 1
        return Marked()


@pytest.fixture
def here() -> Iterator[Alone]:
    """A region of this test's own."""
    with alone() as made:
        yield made


def siphash(key: bytes, message: bytes) -> int:
    """SipHash-2-4 as its authors describe it."""
    k0, k1 = struct.unpack("<QQ", key)
    v: list[int] = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotated(x: int, n: int) -> int:
        return (x << n | x >> 64 - n) & MASK

    def sip_round() -> None:
        v[0] = v[0] + v[1] & MASK
        v[1] = rotated(v[1], 13) ^ v[0]
        v[0] = rotated(v[0], 32)
        v[2] = v[2] + v[3] & MASK
        v[3] = rotated(v[3], 16) ^ v[2]
        v[0] = v[0] + v[3] & MASK
        v[3] = rotated(v[3], 21) ^ v[0]
        v[2] = v[2] + v[1] & MASK
        v[1] = rotated(v[1], 17) ^ v[2]
        v[2] = rotated(v[2], 32)

    padded = message + bytes(-(len(message) + 1) % 8) + bytes([len(message) & 255])
    for at in range(0, len(padded), 8):
        m = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= m
        sip_round()
        sip_round()
        v[0] ^= m
    v[2] ^= 255
    for _ in range(4):
        sip_round()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


@settings(deadline=None)
@given(st.binary(max_size=100), st.lists(st.integers(0, MASK), min_size=4, max_size=4))
def test_the_mac_is_siphash_over_five_words_and_the_bytes(data: bytes, words: list[int]) -> None:
    """Generation, index, kind, function, length, then the payload."""
    with alone() as here:
        assert here.region.mac(words[0], words[1], words[2], words[3], data) == siphash(KEY, struct.pack("<5Q", *words, len(data)) + data)


def test_siphash_is_the_one_of_its_authors() -> None:
    """The test vector of their paper, for the check itself."""
    assert siphash(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5


def test_a_pickle_carries_its_mac_before_it(here: Alone) -> None:
    """Bound to generation, index, kind with direction, and the bundle's function."""
    here.finished([1, {2}])
    status = here.status_word(1)
    payload = here.region.read(status >> 24, status >> 4 & LENGTH_LONG)
    assert here.region.mac(GENERATION, 1, KIND_PICKLE + STATUS, FUNCTION, payload[WORD:]) == int.from_bytes(payload[:WORD], "little")


def test_no_changed_bit_of_a_pickle_is_unpickled(here: Alone) -> None:
    """Neither of the bytes nor of the MAC."""
    bundle = here.finished([Marked()])
    status = here.status_word(0)
    offset, length = status >> 24, status >> 4 & LENGTH_LONG
    payload = here.region.read(offset, length)
    bundle.value(0)
    loaded = Marked.loaded
    for bit in range(8 * length):
        changed = bytearray(payload)
        changed[bit // 8] ^= 1 << bit % 8
        here.region.write(offset, bytes(changed))
        with pytest.raises(AccessRefused, match=r"expected .* saw a wrong MAC"):
            bundle.value(0)
    for shorter in range(length):
        here.region.write(offset, payload)
        here.region.store(here.status_at(0), word(KIND_PICKLE, shorter, offset))
        with pytest.raises((AccessRefused, RegionCorrupt)):
            bundle.value(0)
    assert Marked.loaded == loaded


def test_a_payload_is_right_in_its_own_place_only(here: Alone) -> None:
    """Not at another index, not turned from an argument into a result, not as an exception, not in the next generation."""
    bundle = here.filled([{1}, {2}])
    argument = here.region.load(here.item_at(0))
    bundle.run(0, 1, 0, 2, same, UNLIMITED_NS, here.alloc)
    result = here.status_word(0)

    def refused(stored: int, index: int) -> None:
        here.region.store(here.status_at(index), stored)
        with pytest.raises(AccessRefused):
            bundle.value(index)

    refused(result, 1)
    refused(argument, 0)
    refused(result & ~15 | KIND_EXC, 0)
    here.region.store(here.status_at(0), result)
    assert bundle.value(0) == {1}
    bundle = here.make(2, generation=GENERATION + 1)
    refused(result, 0)
    bundle = here.make(2, function=FUNCTION + 1)
    refused(result, 0)
    bundle = here.make(2)
    here.region.store(here.status_at(0), result)
    assert bundle.value(0) == {1}


def test_a_replayed_argument_is_not_unpickled_by_the_worker(here: Alone) -> None:
    """It fails that item, with the reason."""
    bundle = here.filled([Marked(), {2}])
    loaded = Marked.loaded
    here.region.store(here.item_at(1), here.region.load(here.item_at(0)))
    bundle.run(0, 1, 1, 2, same, UNLIMITED_NS, here.alloc)
    assert Marked.loaded == loaded
    with pytest.raises(AccessRefused):
        bundle.value(1)


def test_an_argument_is_bound_to_the_function_it_came_with(here: Alone) -> None:
    """In a bundle whose items carry their own, the id that stands first is part of what the MAC covers."""
    bundle = here.make(1, function=0)
    bundle.append(11, ({1},))
    offset = here.region.load(here.item_at(0)) >> 24
    assert here.region.load(offset) == 11
    here.region.store(offset, 12)
    bundle.run(0, 1, 0, 1, lambda _id: same, UNLIMITED_NS, here.alloc)
    with pytest.raises(AccessRefused):
        bundle.value(0)


def test_without_the_key_plain_values_travel_and_pickles_do_not() -> None:
    """Refused by name on both sides; an observer without the key still reads what runs no code."""
    with alone(key=None) as here:
        assert here.through({"a": [1, 2.5, b"x"]}) == {"a": [1, 2.5, b"x"]}
        bundle = here.make(1)
        with pytest.raises(AccessRefused, match="key"):
            bundle.fill(iter([{1}]), 1)
        here.store_payload(KIND_PICKLE, bytes(16))
        with pytest.raises(AccessRefused, match="key"):
            bundle.value(0)
