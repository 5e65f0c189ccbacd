"""A client's place in the region: its arenas, its open bundle, its functions, and the mail from the scheduler.

What writes holds `lock`: several threads may use one client. Appending to the open bundle needs none, the core does it whole.
Waiting holds nothing.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from nahanni_compute import messages
from nahanni_compute.asking import Asking
from nahanni_compute.errors import ClosedError, NahanniError, SchedulerDied
from nahanni_compute.functions import Function, FunctionTable
from nahanni_compute.future import ClientBundle
from nahanni_compute.messages import LIFE_SHIFT, BundleKey
from nahanni_compute.region import layout
from nahanni_compute.region.arenas import bundle_bytes
from nahanni_compute.region.layout import FUNCTION, KIB, MIB, OPEN_ITEMS_MAX
from nahanni_compute.region.membership import Member

Block = tuple[int, int]
Fn = Callable[..., Any]

RING_GAP_NS = 50_000  # S6
YIELD_S = 0.001  # to a thread that holds the lock
PAYLOAD_FIRST = 4 * KIB
PAYLOAD_MAX = MIB


class Payloads:
    """Blocks for the arguments of one bundle: 4 KiB, doubling to 1 MiB; freed with it."""

    def __init__(self, session: Session, blocks: list[Block]) -> None:
        self._session, self._blocks, self._next = session, blocks, PAYLOAD_FIRST

    def __call__(self, need: int) -> Block:
        with self._session.lock:
            block = self._session.arenas.get(max(need, self._next))
            self._next = min(2 * self._next, PAYLOAD_MAX)
            self._blocks.append(block)
        return block


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _unlock_in_child() -> None:
    """A fork has no thread that would ever release them; it is refused by the core, and must not hang before (ForkedEndpoint)."""
    for session in _sessions:
        session.lock = threading.RLock()


os.register_at_fork(after_in_child=_unlock_in_child)


class Session:
    """The endpoint of one client."""

    def __init__(self, member: Member) -> None:
        self.member, self.endpoint, self.region = member, member.endpoint, member.region
        if member.keeper is None:
            raise SchedulerDied("expected a member that was welcomed, saw one without a scheduler")
        self.keeper = member.keeper.slot
        self.lock = threading.RLock()
        _sessions.add(self)
        self.asking = Asking(member, self.turn, self._is_expecting)
        self.arenas = self.asking.arenas()
        self.functions = FunctionTable(self._publish_function, self._drop_function)
        self.plain_functions = self.functions.plain
        self.dropped: deque[tuple[int, int, list[Block], list[Function]]] = deque()
        self.free_later: deque[Block] = deque()
        self.dying: dict[BundleKey, tuple[list[Block], list[Function]]] = {}
        self.open: ClientBundle | None = None
        self.failure: NahanniError | None = None
        self.closed = False
        self._owner = os.getpid()
        self._life = member.key.incarnation << 10 | member.key.slot
        self._serial = 0

    # -- bundles

    def new_bundle(self, capacity: int, function: Function | None, flags: int = 0, target: int = 0) -> ClientBundle:
        """An open bundle that the scheduler knows (OPEN). Raises RegionFull, SchedulerDied, ClosedError."""
        with self.lock:
            return self._new_bundle(capacity, function, flags, target)

    def _new_bundle(self, capacity: int, function: Function | None, flags: int, target: int) -> ClientBundle:
        self.check_usable()
        self._serial += 1
        generation = self._life << LIFE_SHIFT | self._serial
        block = self.arenas.get(bundle_bytes(capacity))
        function_id = function.id if function else 0
        bundle = ClientBundle.create(self.endpoint, block[0], generation, capacity, function_id, flags)
        bundle.blocks, bundle.functions, bundle.newest_function = [block], [function] if function else [], function
        bundle.alloc = Payloads(self, bundle.blocks)
        bundle.session = self
        self.endpoint.send(self.keeper, messages.OPEN, block[0], generation, capacity, flags, target)
        self.endpoint.flush()
        return bundle

    def close_bundle(self, bundle: ClientBundle) -> None:
        """No more items (CLOSE), also from threads that are just pickling one."""
        bundle.shut()
        self.endpoint.send(self.keeper, messages.CLOSE, bundle.offset, bundle.generation)
        self.endpoint.flush()

    def roll(self, full: ClientBundle | None) -> ClientBundle:
        """A new open bundle for `submit` in place of the full one, unless another thread has made it."""
        with self.lock:
            if self.open is not full and self.open is not None:
                return self.open
            if full is not None:
                self.close_bundle(full)
                self.open = None
            self.open = self.new_bundle(OPEN_ITEMS_MAX, None)
            return self.open

    def function_of(self, fn: Fn) -> Function:
        """Its block in the region. Raises UnpicklableError, RegionFull, ClosedError."""
        with self.lock:
            self.check_open()
            return self.functions.of(fn)

    def pay(self) -> None:
        """Ring what was put off, before any wait (S6)."""
        bundle = self.open
        if bundle is not None and not self.closed:
            bundle.ring(self.keeper, 0)

    # -- mail

    def turn(self) -> None:
        """Take the scheduler's mail, send what finalizers left, notice deaths. Never blocks: who holds the lock does it later."""
        if not self.lock.acquire(blocking=False):
            self.endpoint.errand()
            time.sleep(YIELD_S)
            return
        try:
            self._turn()
        finally:
            self.lock.release()

    def _is_expecting(self) -> bool:
        return bool(self.dropped or self.dying)

    def _turn(self) -> None:
        if self.closed:
            return
        if self.open is not None and self.open.heavy:
            self.close_bundle(self.open)
            self.open = None
        for words in self.endpoint.take():
            kind = words[1] & messages.KIND_MASK
            if kind == messages.FORGOT:
                self._forgot(BundleKey(words[2], words[3]))
            elif kind in (messages.ARENA, messages.REFUSED):
                self.asking.answered(words)
        self._send_releases()
        if self.endpoint.changed() and not self.member.keeper_is_alive() and self.failure is None:
            self._fail()

    def _fail(self) -> None:
        """The scheduler is dead: no bundle is open any more, so that the next `submit` hears of it, too."""
        self.failure = SchedulerDied(
            "expected the scheduler to live, saw its death: finished results can be read, nothing new runs; start a new cluster"
        )
        if self.open is not None:
            self.open.shut()
            self.open = None

    def _send_releases(self) -> None:
        while self.free_later:
            self.arenas.put(*self.free_later.popleft())
        if not self.dropped:
            return
        while self.dropped:
            offset, generation, blocks, functions = self.dropped.popleft()
            self.dying[BundleKey(offset, generation)] = (blocks, functions)
            self.endpoint.send(self.keeper, messages.RELEASE, offset, generation)
        self.endpoint.flush()

    def _forgot(self, key: BundleKey) -> None:
        blocks, _functions = self.dying.pop(key, ((), ()))
        for block in blocks:
            self.arenas.put(*block)

    # -- functions

    def _publish_function(self, code: bytes) -> tuple[int, Block]:
        block = self.arenas.get(FUNCTION["bytes"] + len(code))
        self._serial += 1
        id = (self._serial & 0xFFFFFF) << 40 | block[0]
        self.region.write(block[0] + FUNCTION["bytes"], code)
        self.region.store(block[0] + FUNCTION["id"], id)
        self.region.store(block[0] + FUNCTION["length"], len(code))
        self.region.store(block[0] + FUNCTION["mac"], self.region.mac(self._life, 0, layout.KIND_PICKLE, id, code))
        return id, block

    def _drop_function(self, block: Block) -> None:
        self.free_later.append(block)

    # -- the end

    def check_usable(self) -> None:
        """Raises ClosedError, SchedulerDied."""
        self.turn()
        self.check_open()
        if self.failure is not None:
            raise self.failure

    def check_open(self) -> None:
        """Raises ClosedError."""
        if self.closed:
            raise ClosedError("expected an open client, saw one that was closed: make a new Client")

    def close(self) -> None:
        """Leave in order. Idempotent; in a fork it does nothing, since it would be the parent that left."""
        if self._owner != os.getpid():
            return
        with self.lock:
            if self.closed:
                return
            self.closed = True
            self.open = None
            self.functions.clear()
        self.member.leave()
