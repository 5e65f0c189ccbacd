"""The keeper's memory: which arena units are whose, and which of them hold something that the keeper was told of.

A pure state machine, as tasks.py. The heap is handed out in runs of whole units, first fit; the server backs each run with
memory before it is given (M6). Live is what this table says, bundles' blocks and chunks, offset and length as they came in
OPEN and CHUNK (A2). They are checked against the bounds of what their endpoint owns, and may not be more bytes than that; that
two of one endpoint's overlap harms nobody but itself.

What becomes of the units of an endpoint that is no more:
  left in order   they come back, each as soon as nothing live is in it. A client's not before all its bundles are gone, since
                  what their items name lies there too, and the keeper was never told of it (A4)
  dead            they stay as they are until the cluster ends. Adoption (section 6) takes them over one day; until then they
                  hold finished results, and memory is what a death costs
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from nahanni_compute.messages import BundleKey
from nahanni_compute.region.arenas import Spans, bundle_bytes, rounded
from nahanni_compute.region.layout import LINE, REASON_FULL, REASON_SERVER_DIED, REASON_TOO_LARGE, arena_unit, arena_units, heap_start
from nahanni_compute.scheduler.events import Commit, Give, Instruction, Punch, Refuse, Violation

if TYPE_CHECKING:
    from nahanni_compute.region.slots import Key

ASKS_MAX = 4  # of one endpoint on their way to the server: it asks, waits, and asks again

Span = tuple[int, int]  # offset, bytes


class Owner:
    """An endpoint that was given units."""

    __slots__ = ("bundles", "has_left", "key", "live_bytes", "units")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.units: set[int] = set()
        self.bundles = 0  # of its own that are not forgotten
        self.live_bytes = 0
        self.has_left = False


class Request(NamedTuple):
    """A COMMIT on its way. `endpoint`: who asked for `nbytes`; None: it is no more."""

    endpoint: Key | None
    nbytes: int
    size: int


class Heap:
    """Arena units of one region, numbered from `start`."""

    def __init__(self, region_bytes: int) -> None:
        self.unit, self.start = arena_unit(region_bytes), heap_start(region_bytes)
        self._owner: list[Owner | None] = [None] * arena_units(region_bytes)
        self._live = [0] * len(self._owner)  # blocks and chunks that touch the unit
        self._free = Spans()
        self._free.give(self.start, len(self._owner) * self.unit)
        self._owners: dict[Key, Owner] = {}
        self._requests: dict[int, Request] = {}  # by offset
        self._bundles: dict[BundleKey, tuple[Key, list[Span]]] = {}  # who opened it; its block, then the chunks told of it
        self._server_is_gone = False

    # -- what others ask

    @property
    def free_bytes(self) -> int:
        """Bytes of units that are nobody's."""
        return self._free.free_bytes

    def units(self, offset: int, nbytes: int) -> range:
        """The numbers of the units that a span of the heap touches: of their words in the arena table."""
        return range((offset - self.start) // self.unit, (offset + nbytes - 1 - self.start) // self.unit + 1)

    def owner_of(self, unit: int) -> Key | None:
        """Whose a unit is, dead or alive (K2)."""
        owner = self._owner[unit]
        return owner.key if owner else None

    # -- arenas

    def ask(self, endpoint: Key, nbytes: int) -> list[Instruction]:
        """ASK: an arena of at least `nbytes`. COMMIT for now, or a refusal."""
        if sum(request.endpoint == endpoint for request in self._requests.values()) >= ASKS_MAX:
            return [Violation(endpoint, f"asked for {ASKS_MAX} arenas and more without waiting for one")]
        size = rounded(max(nbytes, 1), self.unit)
        if size > len(self._owner) * self.unit:
            return [Refuse(endpoint, nbytes, REASON_TOO_LARGE)]
        if self._server_is_gone:
            return [Refuse(endpoint, nbytes, REASON_SERVER_DIED)]
        offset = self._free.take(size)
        if offset is None:
            return [Refuse(endpoint, nbytes, REASON_FULL)]
        self._requests[offset] = Request(endpoint, nbytes, size)
        return [Commit(offset, size)]

    def committed(self, offset: int, nbytes: int) -> list[Instruction]:
        """COMMITTED: the server did it, so the span is given to who asked."""
        request = self._requests.get(offset)
        if request is None or request.size != nbytes:
            return []
        del self._requests[offset]
        endpoint = request.endpoint
        if endpoint is None:
            self._free.give(offset, nbytes)
            return [Punch(offset, nbytes)]
        owner = self._owners.get(endpoint)
        if owner is None:
            owner = self._owners[endpoint] = Owner(endpoint)
        units = self.units(offset, nbytes)
        owner.units.update(units)
        self._owner[units.start : units.stop] = [owner] * len(units)
        return [Give(endpoint, offset, nbytes)]

    def refused(self, offset: int, reason: int) -> list[Instruction]:
        """REFUSED: the server has no memory for the span at `offset`."""
        request = self._requests.pop(offset, None)
        if request is None:
            return []
        self._free.give(offset, request.size)
        return [] if request.endpoint is None else [Refuse(request.endpoint, request.nbytes, reason)]

    def returned(self, endpoint: Key, offset: int, nbytes: int) -> list[Instruction]:
        """RETURN: whole units of the endpoint's that hold nothing the keeper was told of. Anything else is a Violation."""
        whole = (offset - self.start) % self.unit == 0 and nbytes % self.unit == 0
        owner = self._owners.get(endpoint)
        units = self.units(offset, nbytes) if owner and whole and self._owns(owner, offset, nbytes) else range(0)
        if owner is None or not units or any(self._live[unit] for unit in units):
            return [Violation(endpoint, f"returned {nbytes} bytes at {offset}, which are not whole units of its own with nothing in them")]
        owner.units.difference_update(units)
        self._owner[units.start : units.stop] = [None] * len(units)
        if not owner.units:
            del self._owners[endpoint]
        return [self._punch(units)]

    def server_gone(self) -> list[Instruction]:
        """Nothing can be committed any more: what was asked is refused, and all that will be."""
        self._server_is_gone = True
        return [refusal for offset in list(self._requests) for refusal in self.refused(offset, REASON_SERVER_DIED)]

    # -- blocks and chunks

    def opened(self, client: Key, bundle: BundleKey, capacity: int) -> list[Instruction]:
        """OPEN: the bundle's block is live. A Violation if it is known, or has no place in the client's arenas."""
        span = (bundle.offset, bundle_bytes(capacity))
        if bundle in self._bundles or not self._has_room(client, *span):
            return [Violation(client, f"opened bundle {bundle} of {capacity} items, which is known or has no place in its arenas")]
        self._owners[client].bundles += 1
        self._bundles[bundle] = (client, [span])
        self._count(span, 1)
        return []

    def chunk_told(self, worker: Key, bundle: BundleKey, offset: int, nbytes: int) -> list[Instruction]:
        """CHUNK: it is live as long as the bundle. A Violation if it has no place in the worker's arenas, or the bundle is unknown."""
        known = self._bundles.get(bundle)
        if known is None or not self._has_room(worker, offset, nbytes):
            return [Violation(worker, f"told a chunk of {bundle}, {nbytes} bytes at {offset}: unknown, or no place in its arenas")]
        known[1].append((offset, nbytes))
        self._count((offset, nbytes), 1)
        return []

    def forget(self, bundle: BundleKey) -> list[Instruction]:
        """The tasks say Forget or BundleGone: its block and its chunks are live no more."""
        client, spans = self._bundles.pop(bundle, (None, []))
        if client is None:
            return []
        for span in spans:
            self._count(span, -1)
        owner = self._owners[client]
        owner.bundles -= 1
        touched = {unit for span in spans for unit in self.units(*span)}
        return self._take_back(touched | owner.units if owner.has_left and not owner.bundles else touched)

    def _has_room(self, endpoint: Key, offset: int, nbytes: int) -> bool:
        """Whether a block may be in the endpoint's units, beside what is live there already."""
        owner = self._owners.get(endpoint)
        if owner is None or owner.live_bytes + nbytes > len(owner.units) * self.unit:
            return False
        return self._owns(owner, offset, nbytes)

    def _owns(self, owner: Owner, offset: int, nbytes: int) -> bool:
        """Whether a span lies in its units, which may be of several arenas side by side."""
        end = self.start + len(self._owner) * self.unit
        if offset % LINE or not (self.start <= offset < end and 0 < nbytes <= end - offset):
            return False
        return all(self._owner[unit] is owner for unit in self.units(offset, nbytes))

    def _count(self, span: Span, change: int) -> None:
        units = self.units(*span)
        if (owner := self._owner[units.start]) is not None:
            owner.live_bytes += change * span[1]
        for unit in units:
            self._live[unit] += change

    # -- the end of an endpoint

    def left(self, endpoint: Key) -> list[Instruction]:
        """It left in order: its units come back, now or as what is live in them goes."""
        self._disown_requests(endpoint)
        owner = self._owners.get(endpoint)
        if owner is None:
            return []
        owner.has_left = True
        return self._take_back(owner.units)

    def died(self, endpoint: Key) -> list[Instruction]:
        """It is dead: its units stay as they are."""
        self._disown_requests(endpoint)
        return []

    def _disown_requests(self, endpoint: Key) -> None:
        for offset, request in self._requests.items():
            if request.endpoint == endpoint:
                self._requests[offset] = request._replace(endpoint=None)

    def _take_back(self, units: Iterable[int]) -> list[Instruction]:
        """Of these, those that are of somebody who left, with nothing live in them: nobody's again, in runs."""
        runs: list[range] = []
        for unit in sorted(units):
            owner = self._owner[unit]
            if owner is None or not owner.has_left or owner.bundles or self._live[unit]:
                continue
            self._owner[unit] = None
            owner.units.discard(unit)
            if not owner.units:
                del self._owners[owner.key]
            if runs and runs[-1].stop == unit:
                runs[-1] = range(runs[-1].start, unit + 1)
            else:
                runs.append(range(unit, unit + 1))
        return [self._punch(run) for run in runs]

    def _punch(self, units: range) -> Punch:
        span = (self.start + units.start * self.unit, len(units) * self.unit)
        self._free.give(*span)
        return Punch(*span)
