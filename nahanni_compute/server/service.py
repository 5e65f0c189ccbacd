"""The server: one loop over two listening sockets, all clients, its own doorbell and its parent's lifeline."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from nahanni_compute.config import Settings
from nahanni_compute.errors import UsageError
from nahanni_compute.server.descriptors import Budget, Descriptor
from nahanni_compute.server.hosts import Hosts
from nahanni_compute.server.keeper import Keeper
from nahanni_compute.server.loop import Loop
from nahanni_compute.server.memory import Memory
from nahanni_compute.server.peers import Peers
from nahanni_compute.server.qemu import Qemus
from nahanni_compute.server.slots import Slots
from nahanni_compute.server.sockets import Sockets
from nahanni_compute.server.table import Table

TURN_S: Final = 0.25  # a doorbell may be lost (decision 3)
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
            self._lifeline = Descriptor(lifeline)
            self._loop.watch(self._lifeline, self._stop)

    def _stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        """Until SIGTERM, or the end of the lifeline."""
        while not self._stopping:
            self._turn()

    def _turn(self) -> None:
        busy = self._keeper.turn()
        self._tell()
        self._table.beat(asleep=True)
        self._loop.turn(0 if busy or self._keeper.has_mail() else TURN_S)
        self._table.beat(asleep=False)
        now_s = time.monotonic()
        self._peers.check_progress(now_s)
        self._hosts.check_greetings(now_s)

    def _tell(self) -> None:
        if self._table.publish():
            self._peers.ring_all()

    def close(self) -> None:
        """The files first, so that nobody comes any more; then tell guests, who have no socket that would."""
        self._sockets.unlink()
        self._table.leave()
        self._tell()
        self._keeper.close()
        self._memory.close()


def _empty(fd: int) -> None:
    try:
        os.read(fd, 4096)
    except BlockingIOError:
        return
