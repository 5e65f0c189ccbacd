"""The server: one loop over two listening sockets, all clients, its own doorbell and its parent's lifeline."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from nahanni_compute.config import Settings
from nahanni_compute.errors import UsageError
from nahanni_compute.server.descriptors import Budget, Descriptor
from nahanni_compute.server.hosts import Hosts
from nahanni_compute.server.keeper import Keeper
from nahanni_compute.server.loop import Loop, Watch
from nahanni_compute.server.memory import Memory
from nahanni_compute.server.peers import Peers
from nahanni_compute.server.qemu import Qemus
from nahanni_compute.server.slots import Slots
from nahanni_compute.server.sockets import Sockets
from nahanni_compute.server.table import Table

log = logging.getLogger(__name__)

TURN_S: Final = 0.25  # a doorbell may be lost (decision 3)
KEEPER_LEAVES_S: Final = 1.5  # after SIGTERM; with the next, well below processes.END_S, when our parent would kill us
KEEPER_DIES_S: Final = 0.5  # after SIGKILL
VECTORS_MAX: Final = 8


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    socket: Path
    region_bytes: int
    lifeline: int | None  # a pipe whose other end only our parent holds
    group: str | None
    private_dir: bool


class Server:
    """Everything is there once made, and gone after `close`."""

    def __init__(self, options: Options, conf: Settings) -> None:
        if not 1 <= conf.vectors <= VECTORS_MAX:
            raise UsageError(f"expected 1 to {VECTORS_MAX} doorbell vectors, saw {conf.vectors}: correct --vectors or NAHANNI_VECTORS")
        self._stopping = False
        self._lifeline: Watch | None = None
        self._loop = Loop()
        self._watch_for_the_end(options.lifeline)
        self._memory = Memory(options.region_bytes, conf)
        self._table = Table(self._memory.region, conf.vectors)
        self._sockets = Sockets(options.socket, options.group, options.private_dir)
        budget = Budget(conf.spare_descriptors, lambda: len(self._loop))
        slots = Slots()
        self._peers = Peers(self._memory, self._table, slots, budget, conf)
        self._keeper = Keeper(self._memory, self._table, slots, self._peers)
        self._hosts = Hosts(self._sockets.hosts, self._loop, self._peers)
        self._qemus = Qemus(self._sockets.qemu, self._loop, self._peers)
        for door in self._peers.own_doors:
            self._loop.watch(door, partial(_empty, door.fd))

    def _watch_for_the_end(self, lifeline: int | None) -> None:
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._signals = (Descriptor(read), Descriptor(write))
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stop())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started us
        self._loop.watch(self._signals[0], partial(_empty, read))
        if lifeline is not None:
            self._parent = Descriptor(lifeline)
            self._lifeline = self._loop.watch(self._parent, self._stop)

    def _stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        """Until SIGTERM, or the end of the lifeline."""
        while not self._stopping:
            self._turn()

    def _turn(self) -> None:
        busy = _guarded(self._keeper.turn)
        _guarded(self._tell)
        self._table.beat(asleep=True)
        at_once = busy or (busy is not None and self._keeper.has_mail())  # not after a failure: that would come again at once
        self._loop.turn(0 if at_once else TURN_S)
        self._table.beat(asleep=False)
        now_s = time.monotonic()
        _guarded(partial(self._peers.check_progress, now_s))
        _guarded(partial(self._hosts.check_greetings, now_s))

    def _tell(self) -> None:
        if self._table.publish():
            self._peers.ring_all()

    def close(self) -> None:
        """The files first, so that nobody comes any more; then tell guests, who have no socket that would."""
        self._sockets.unlink()
        _guarded(self._end_keeper)
        self._table.leave()
        _guarded(self._tell)
        self._keeper.close()
        self._memory.close()

    def _end_keeper(self) -> None:
        """Nobody is there to store its death when we are gone (D2), and whoever waits for it would wait for good."""
        if self._lifeline is not None:
            self._lifeline.forget()
        self._loop.turn(0)  # it may have left already
        peer = self._keeper.peer()
        if peer is None or peer.is_vm:
            return
        for number, patience_s in ((signal.SIGTERM, KEEPER_LEAVES_S), (signal.SIGKILL, KEEPER_DIES_S)):
            peer.link.end(number)
            end_s = time.monotonic() + patience_s
            while peer.id in self._peers.living and (left_s := end_s - time.monotonic()) > 0:
                self._loop.turn(left_s)
            if peer.id not in self._peers.living:
                return
        log.warning("%s: it is the scheduler, and cannot be ended; who waits for it will not hear of its end", peer.link.name)


def _guarded(step: Callable[[], bool | None]) -> bool | None:
    """One word that somebody stored, or one failed call, must not end the VMs of all others. What it returns; None after a failure."""
    try:
        return step()
    except Exception:
        log.exception("the server goes on after")
        return None


def _empty(fd: int) -> None:
    try:
        os.read(fd, 4096)
    except BlockingIOError:
        return
