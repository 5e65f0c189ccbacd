"""What a worker remembers: the chunks it filled for each bundle (B4). Pure: no region, no clock, no thread."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from nahanni_compute.messages import BundleKey
from nahanni_compute.region.layout import BLOCK_SIZE, KIB, MIB

CHUNK_FIRST = 4 * KIB
CHUNK_MAX = MIB
FUNCTIONS_MAX = 512

Block = tuple[int, int]
K = TypeVar("K")
T = TypeVar("T")


@dataclass
class ChunkRow:
    """The chunks of one bundle, in the order they were told to the keeper."""

    next_size: int = CHUNK_FIRST
    blocks: list[Block] = field(default_factory=list)


class Chunks:
    """One row of chunks for each bundle; they go together, at DROP and not before (B13)."""

    def __init__(self) -> None:
        self._rows: dict[BundleKey, ChunkRow] = {}

    def size_for(self, bundle: BundleKey, need: int) -> int:
        """Bytes to allocate for a payload of `need`: 4 KiB, doubling to 1 MiB; more only for one that needs it."""
        row = self._rows.setdefault(bundle, ChunkRow())
        size = max(row.next_size, need + BLOCK_SIZE)
        row.next_size = min(row.next_size * 2, CHUNK_MAX)
        return size

    def add(self, bundle: BundleKey, block: Block) -> None:
        """The keeper was told of this one."""
        self._rows.setdefault(bundle, ChunkRow()).blocks.append(block)

    def drop(self, bundle: BundleKey) -> list[Block]:
        """The blocks to use again. Unknown: none, a bundle without payloads sends no CHUNK."""
        row = self._rows.pop(bundle, None)
        return row.blocks if row else []


class Recent(Generic[K, T]):
    """A bounded cache, the least recently used goes first."""

    def __init__(self, maximum: int = FUNCTIONS_MAX) -> None:
        self._at: OrderedDict[K, T] = OrderedDict()
        self._maximum = maximum

    def get(self, key: K) -> T | None:
        """What is known under `key`."""
        found = self._at.get(key)
        if found is not None:
            self._at.move_to_end(key)
        return found

    def drop(self, key: K) -> None:
        """Forget it."""
        self._at.pop(key, None)

    def put(self, key: K, value: T) -> None:
        """Remember it."""
        self._at[key] = value
        if len(self._at) > self._maximum:
            self._at.popitem(last=False)
