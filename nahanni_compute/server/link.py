"""One client's socket, outgoing: whole messages in order, never blocking.

A client that reads nothing for a while is muted: nothing is sent to it any more, and its socket is watched for its end as
before. Closing the socket was refused: the end of a socket is how a death is known (D2), and QEMU closes its end when it sees
ours closed, alive or not. What a muted client misses is the doors of newcomers: its rings to them are lost, which costs it
latency and nothing else (decision 3).
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

from nahanni_compute.config import Settings
from nahanni_compute.region.greeting import send_with
from nahanni_compute.server.descriptors import Descriptor
from nahanni_compute.server.loop import Loop

log = logging.getLogger(__name__)

# The kernel will take no more now, and may later, though the socket is writable: descriptors in flight are counted per user.
_TRY_AGAIN = (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM)


class Link(ABC):
    """A connected socket with an out-queue."""

    name = "client"

    def __init__(self, sock: socket.socket, loop: Loop, conf: Settings) -> None:
        sock.setblocking(False)
        self.sock, self.conf = sock, conf
        self.muted = self.closed = False
        self.sent_messages = 0
        self._queue: deque[tuple[bytes, tuple[Descriptor, ...]]] = deque()
        self._progress_s = time.monotonic()
        self._again = False
        self.watch = loop.watch(sock, self.readable, self.flush)

    @abstractmethod
    def readable(self) -> None:
        """Something can be read."""

    @abstractmethod
    def stalled(self) -> None:
        """It reads nothing; `muted` is set."""

    @abstractmethod
    def expel(self, reason: str) -> None:
        """It broke the protocol (D5)."""

    def end(self, number: int) -> None:  # noqa: B027 (a VM is its owner's to end)
        """Send this signal to who is at the other end, if that is a process of ours to end."""

    @abstractmethod
    def door_message(self, peer: int, vector: int) -> bytes:
        """What tells this client of a doorbell; the descriptor goes with it."""

    @abstractmethod
    def gone_message(self, peer: int) -> bytes:
        """What tells this client that a peer is gone for good."""

    def queue(self, data: bytes, descriptors: Sequence[Descriptor] = ()) -> None:
        """One message after all others. `flush` sends."""
        if self.muted or self.closed:
            return
        if not self._queue:
            self._progress_s = time.monotonic()
        self._queue.append((data, tuple(descriptors)))
        if len(self._queue) > self.conf.backlog_messages:
            self._mute()

    def queue_doors(self, peer: int, doors: Sequence[Descriptor]) -> None:
        """All doorbells of a peer, in the order of their vectors."""
        for vector, door in enumerate(doors):
            self.queue(self.door_message(peer, vector), (door,))

    def flush(self) -> None:
        """Send what the socket takes."""
        self._again = False
        while self._queue:
            data, descriptors = self._queue[0]
            try:
                n = send_with(self.sock, data, [d.fd for d in descriptors])
            except BlockingIOError:
                break
            except OSError as e:
                self._again = e.errno in _TRY_AGAIN
                if not self._again:
                    self._queue.clear()  # its end will be read
                break
            self._progress_s = time.monotonic()
            if n < len(data):
                self._queue[0] = (data[n:], ())
            else:
                self._queue.popleft()
                self.sent_messages += 1
        self.watch.want(write=bool(self._queue) and not self._again)

    def check_progress(self, now_s: float) -> None:
        """At every turn of the loop: try again, and mute a client that reads nothing."""
        if self._again:
            self.flush()
        if self._queue and now_s - self._progress_s > self.conf.stall_s:
            self._mute()

    def _mute(self) -> None:
        log.warning("%s: reads nothing; it is not told of newcomers any more", self.name)
        self.muted = True
        self._queue.clear()
        self.watch.want()
        self.stalled()

    def close(self) -> None:
        """Let go of the socket. Idempotent."""
        if not self.closed:
            self.closed = True
            self._queue.clear()
            self.watch.forget()
            self.sock.close()
