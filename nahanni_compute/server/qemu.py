"""QEMU's ivshmem protocol, version 0 (QEMU: docs/specs/ivshmem-spec), exactly.

Every message is one little-endian int64 with at most one descriptor:

    0                        the protocol's version
    id                       of this QEMU
    -1  + memfd              the region
    id' + eventfd            for each vector of each other peer
    id  + eventfd            for each vector of its own, last
    ... later: id' + eventfd of newcomers; id' without a descriptor: that peer is gone

QEMU reads the first three while its machine starts, blocking, and spins for ever when the socket ends in between. So nothing
that can fail comes after the first byte: the whole handshake is queued at once. A QEMU that must be refused is told a version
that it does not know, which ends its start with an error message.
"""

from __future__ import annotations

import logging
import socket
import struct
from typing import Final

from nahanni_compute.region import layout
from nahanni_compute.region.greeting import Refused
from nahanni_compute.server.link import Link
from nahanni_compute.server.loop import Loop
from nahanni_compute.server.peers import Peer, Peers

log = logging.getLogger(__name__)

MESSAGE: Final = struct.Struct("<q")
VERSION: Final = 0
VERSION_REFUSED: Final = -2
REGION: Final = -1
MAPPED_AFTER: Final = 3  # messages; a QEMU that got fewer never had the region


class QemuLink(Link):
    """One QEMU."""

    def __init__(self, sock: socket.socket, loop: Loop, peers: Peers) -> None:
        super().__init__(sock, loop, peers.conf)
        self._peers = peers
        self.peer: Peer | None = None

    def door_message(self, peer: int, vector: int) -> bytes:  # noqa: ARG002 (QEMU counts the vectors itself)
        """An id with a descriptor."""
        return MESSAGE.pack(peer)

    def gone_message(self, peer: int) -> bytes:
        """An id without a descriptor."""
        return MESSAGE.pack(peer)

    def begin(self) -> None:
        """Admit it and queue the whole handshake. Raises Refused."""
        self.peer = peer = self._peers.admit_vm(self)
        self.name = f"VM {peer.id}"
        self.queue(MESSAGE.pack(VERSION))
        self.queue(MESSAGE.pack(peer.id))
        self.queue(MESSAGE.pack(REGION), (self._peers.memory.descriptor,))
        for other, doors in self._peers.doors_of_others(peer):
            self.queue_doors(other, doors)
        self.queue_doors(peer.id, peer.doors)
        self.flush()
        log.info("%s: connected, slots %d to %d", self.name, peer.slots.start, peer.slots.stop - 1)

    def readable(self) -> None:
        """QEMU says nothing; the end of the socket is the end of the VM (D2)."""
        try:
            data = self.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()

    def stalled(self) -> None:
        """One that has the region is watched on; one that has not cannot store anything."""
        if self.sent_messages < MAPPED_AFTER:
            self._end()

    def expel(self, reason: str) -> None:
        """D5: nobody listens to it; its memory stays out until its QEMU ends."""
        log.warning("%s is expelled: %s; end it", self.name, reason)

    def _end(self) -> None:
        self.close()
        if self.peer:
            peer, self.peer = self.peer, None
            log.info("%s: gone", self.name)
            self._peers.end(peer, layout.STATE_DEAD)


class Qemus:
    """The socket that QEMU connects to."""

    def __init__(self, listener: socket.socket, loop: Loop, peers: Peers) -> None:
        self._listener, self._loop, self._peers = listener, loop, peers
        loop.watch(listener, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as e:
            log.warning("accept: %s", e.strerror)
            return
        link = QemuLink(sock, self._loop, self._peers)
        try:
            link.begin()
        except Refused as refusal:
            log.warning("a VM was refused: %s", refusal)
            link.queue(MESSAGE.pack(VERSION_REFUSED))
            link.flush()
            link.close()
