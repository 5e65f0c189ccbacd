"""The worker's thread: it waits, runs what is granted, and answers. The same thread does all three, so that a task costs one
wake-up here and no hand-over; while a task runs, the pump keeps the rings drained and gives back what waits behind it (B7).

Client.run comes as CONTROL: it runs beside tasks, on a thread of its own. When the worker's thread is busy the pump calls
`turn` for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from nahanni_compute import messages, pickling
from nahanni_compute._native import Bundle
from nahanni_compute.asking import Asking
from nahanni_compute.errors import AccessRefused, RegionCorrupt, RegionFull, SchedulerDied
from nahanni_compute.messages import LIFE_SHIFT, BundleKey, Grant, grant_of
from nahanni_compute.region import layout
from nahanni_compute.region.arenas import SMALL_MAX
from nahanni_compute.region.layout import BLOCK, BLOCK_SIZE, CONTROL_THREAD, FUNCTION
from nahanni_compute.region.membership import Member
from nahanni_compute.workers.state import Chunks, Recent

log = logging.getLogger("nahanni.worker")

URGENT = (messages.CONTROL,)
CONTROL_BUDGET_NS = 1 << 62
NEIGHBOURS_S = 1.0  # an idle worker looks so often whether processes of its kernel have died (D2)
BUNDLES_MAX = 256  # that a worker knows: DROP comes only for those that it filled chunks for
PAUSE_S = 0.05  # before a range comes again that found no room
RESERVE_BYTES = 256 << 10  # so that a full region can be said: exceptions find room when results do not

Fn = Callable[..., Any]


class Worker:
    """One worker process's service. `run()` returns when the worker should leave."""

    def __init__(self, member: Member) -> None:
        self.member, self.endpoint, self.region = member, member.endpoint, member.region
        if member.keeper is None:
            raise SchedulerDied("expected a member that was welcomed, saw one without a scheduler")
        self.keeper = member.keeper.slot
        self.asking = Asking(member, self.turn)
        self.arenas = self.asking.arenas()
        self.chunks = Chunks()
        self.functions: Recent[tuple[int, int], Fn] = Recent()
        self.bundles: Recent[BundleKey, Bundle] = Recent(BUNDLES_MAX)
        self.dropped: deque[BundleKey] = deque()
        self.stopping = False
        self.reserve: tuple[int, int] | None = None
        self._heap_lock = threading.RLock()
        self._control_lock = threading.Lock()

    # -- the loop

    def run(self) -> None:
        """Until `stopping` is set, or the scheduler is gone."""
        self._refill()
        while not self.stopping and self.member.keeper_is_alive() and not self.endpoint.expelled:
            self.turn()
            grant = self.endpoint.next_grant()
            if grant is not None:
                self._run_range(grant_of(grant))
                continue
            self.endpoint.flush()
            self._free_dropped()
            if not self.endpoint.wait(NEIGHBOURS_S) and self.member.attachment.prove_deaths():
                self.endpoint.ring(self.keeper)
            self.endpoint.changed()

    def turn(self) -> None:
        """Handle what has come, except GRANTs. Called by the worker's thread, or by the pump while that is busy."""
        for words in self.endpoint.take():
            kind = words[1] & messages.KIND_MASK
            if kind in (messages.ARENA, messages.REFUSED):
                self.asking.answered(words)
            elif kind == messages.DROP:
                self._drop(BundleKey(words[2], words[3]))
            elif kind == messages.CONTROL:
                threading.Thread(target=self._run_control, args=(grant_of(words),), name="nahanni-control", daemon=True).start()

    def _run_range(self, grant: Grant) -> None:
        self._answer(grant, self._ran(0, grant, grant.budget_ns))

    def _run_control(self, grant: Grant) -> None:
        with self._control_lock:  # one at a time: they share the words that say what the thread is in
            self._answer(grant, self._ran(CONTROL_THREAD, grant, CONTROL_BUDGET_NS))
            self.endpoint.flush()

    def _ran(self, thread: int, grant: Grant, budget_ns: int) -> tuple[int, ...]:
        """Run it: the last words of its DONE. What a range cannot be run for at all is its items' exception."""
        began_ns = time.monotonic_ns()
        try:
            bundle = self._bundle(grant.bundle)
            try:
                function = self._function(bundle)
            except Exception as error:  # unpickling runs the user's code
                function = self._failing(bundle, pickling.dump_exception(error))
            return bundle.run(thread, grant.range_id, grant.lo, grant.hi, function, budget_ns, self._allocator(grant.bundle))
        except Exception as error:  # no room, a bundle that is broken: whatever it is, it must not cost the worker
            return self._cannot_answer(grant, error, began_ns)

    def _failing(self, bundle: Bundle, data: bytes) -> Fn:
        def fail(*_args: object, **_kwargs: object) -> None:
            raise pickling.load_exception(data)

        return fail if bundle.function else lambda _id: fail

    def _cannot_answer(self, grant: Grant, error: Exception, began_ns: int) -> tuple[int, ...]:
        """Not even an exception finds room, or the bundle cannot be read: the rest goes back.

        It comes again when somebody has dropped something; the keeper looks at the bundle itself when we say that it is broken.
        """
        log.warning("%s gives back items %d..%d: %s", self.member.name, grant.lo, grant.hi, error)
        broken = not isinstance(error, RegionFull)
        begun = grant.lo
        bundle = self.bundles.get(grant.bundle)
        if bundle is not None:
            with suppress(Exception):  # a header that shrank: then nothing was run
                begun = next((lo for lo, _ in bundle.unset(grant.lo, grant.hi)), grant.hi)
        self.endpoint.wait(PAUSE_S)
        return begun, time.monotonic_ns() - began_ns, 0, int(broken)

    def _answer(self, grant: Grant, said: tuple[int, ...]) -> None:
        self.endpoint.send(self.keeper, messages.DONE, *grant.bundle, grant.range_id, *said)
        if said[1] > 100_000:  # short ranges are answered together
            self.endpoint.flush()

    # -- bundles and functions

    def _bundle(self, key: BundleKey) -> Bundle:
        bundle = self.bundles.get(key)
        if bundle is None:
            bundle = Bundle(self.endpoint, *key)
            self.bundles.put(key, bundle)
        return bundle

    def _function(self, bundle: Bundle) -> Fn:
        """The function of all its items, or the loader of those that they carry."""
        life = bundle.generation >> LIFE_SHIFT
        return self._load(life, bundle.function) if bundle.function else partial(self._load, life)

    def _load(self, life: int, id: int) -> Fn:
        """The function a block holds: checked against its MAC, then unpickled from a copy (B3).

        An id says nothing without its client's life: the next client of a slot counts from one again, in the same arenas.
        """
        known = self.functions.get((life, id))
        if known is not None:
            return known
        offset = id & ((1 << 40) - 1)
        if offset < layout.HEAP or offset + FUNCTION["bytes"] > self.region.size:
            raise RegionCorrupt(f"expected the id of a function in the heap, saw {id:#x}")
        words = [self.region.load(offset + FUNCTION[name]) for name in ("id", "length", "mac")]
        if words[0] != id or words[1] > self.region.size - offset - FUNCTION["bytes"]:
            raise RegionCorrupt(f"expected function {id:#x} at {offset}, saw id {words[0]:#x} with {words[1]} bytes")
        code = self.region.read(offset + FUNCTION["bytes"], words[1])
        if self.region.mac(life, 0, layout.KIND_PICKLE, id, code) != words[2]:
            raise AccessRefused("expected a function signed with this cluster's key, saw another: use one key file at both ends")
        fn: Fn = pickling.loads(code)
        self.functions.put((life, id), fn)
        return fn

    def _drop(self, key: BundleKey) -> None:
        self.bundles.drop(key)  # W forgets what it cached by address (B13)
        self.dropped.append(key)  # no more here: the pump may be calling, and it must not wait for a lock

    # -- memory

    def _free_dropped(self) -> None:
        if not self.dropped:
            return
        with self._heap_lock:
            while self.dropped:
                for block in self.chunks.drop(self.dropped.popleft()):
                    self.region.store(block[0] + BLOCK["sealed"], 0)
                    self.arenas.put(*block)
            self._refill()

    def _chunk(self, wanted: int, need: int) -> tuple[int, int]:
        """A block of `wanted` bytes, or at least of what is needed now; small ones from the reserve when the region is full."""
        try:
            return self.arenas.get(wanted)
        except RegionFull:
            if need > SMALL_MAX:
                raise
        if need < wanted:
            with suppress(RegionFull):
                return self.arenas.get(need)
        if self.reserve is None:
            raise RegionFull("expected room for a small result or an exception, saw the region full and the reserve used: drop futures")
        self.arenas.put(*self.reserve)
        self.reserve = None
        return self.arenas.get(need)

    def _refill(self) -> None:
        """Have a reserve again, as soon as that is possible."""
        if self.reserve is None:
            with suppress(RegionFull):
                self.reserve = self.arenas.get(RESERVE_BYTES)

    def _allocator(self, key: BundleKey) -> Callable[[int], tuple[int, int]]:
        def alloc(need: int) -> tuple[int, int]:
            with self._heap_lock:
                self._free_dropped()
                offset, size = self._chunk(self.chunks.size_for(key, need), need + BLOCK_SIZE)
                self.chunks.add(key, (offset, size))
            for name, word in (("bundle", key.offset), ("generation", key.generation), ("length", size), ("sealed", layout.BLOCK_SEALED)):
                self.region.store(offset + BLOCK[name], word)
            self.endpoint.send(self.keeper, messages.CHUNK, *key, offset, size)  # B4: before the first status that refers into it
            self.endpoint.flush()
            return offset + BLOCK_SIZE, size - BLOCK_SIZE

        return alloc
