"""Host processes: they greet (region/greeting.py), are watched by a pidfd, and leave or die.

Death is a fact (D2). From the greeting on the server holds a pidfd. The end of the socket without LEAVE proves nothing, a stray
`closerange` closes it as well: the process is killed, and called dead when its pidfd says so. A process whose socket lives on
in a fork is seen by its pidfd all the same.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import struct
import time
from typing import Final

from nahanni_compute.region import greeting, layout
from nahanni_compute.region.greeting import FULL, REFUSED, Place, Refused
from nahanni_compute.server.descriptors import NO_DESCRIPTORS, Descriptor
from nahanni_compute.server.link import Link
from nahanni_compute.server.loop import Loop, Watch
from nahanni_compute.server.peers import Peer, Peers

log = logging.getLogger(__name__)

_SO_PEERPIDFD: Final = 77  # Linux 6.5; not named in the socket module yet
_ROLES: Final = (layout.ROLE_KEEPER, layout.ROLE_WORKER, layout.ROLE_CLIENT, layout.ROLE_OBSERVER)
_UCRED: Final = struct.Struct("iII")


class HostLink(Link):
    """One connection to the socket of host processes: silent, then a member, then ending."""

    def __init__(self, sock: socket.socket, hosts: Hosts) -> None:
        super().__init__(sock, hosts.loop, hosts.conf)
        self._hosts = hosts
        self._greeting = b""
        self._leaving = self._ending = False
        self._process: Descriptor | None = None
        self._exit: Watch | None = None
        self._pid = 0
        self.peer: Peer | None = None
        self.name = "a host process"
        self.deadline_s = time.monotonic() + hosts.conf.greeting_s

    def door_message(self, peer: int, vector: int) -> bytes:
        """A notice with the doorbell."""
        return greeting.NOTICE.pack(peer << 16 | vector)

    def gone_message(self, peer: int) -> bytes:
        """A notice without."""
        return greeting.NOTICE.pack(greeting.NOTICE_GONE | peer << 16)

    def stalled(self) -> None:
        """Nothing more to do: its pidfd is watched."""

    def readable(self) -> None:
        """Read all there is."""
        while not self.closed:
            try:
                data = self.sock.recv(greeting.GREETING.size - len(self._greeting) if self.peer is None else 64)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._end_of_socket()
            elif self.peer is None:
                self._greeted(data)
            elif data.strip(greeting.LEAVE):
                self.expel(f"expected LEAVE or nothing after its greeting, saw {data[:8]!r}")
            else:
                self._leaving = True

    def _greeted(self, data: bytes) -> None:
        self._greeting += data
        try:
            if not greeting.could_be_greeting(self._greeting):
                self._greeting = self._greeting.ljust(greeting.GREETING.size, b"\0")  # what will come of it is known
            if len(self._greeting) == greeting.GREETING.size:
                self._admit(greeting.read_greeting(self._greeting))
        except Refused as refusal:
            self.refuse(refusal)

    def _admit(self, role: int) -> None:
        if role not in _ROLES:
            raise Refused(REFUSED, f"expected the role of a host process, saw {role}: install the same nahanni-compute on both sides")
        if not self._hosts.peers.budget.has(1 + self.conf.vectors):
            raise Refused(FULL, NO_DESCRIPTORS)
        self._pid, self._process = _process_of(self.sock)
        self._exit = self._hosts.loop.watch(self._process, self._exited)
        self.peer = peer = self._hosts.peers.admit_host(self, role)
        self._hosts.greeting.discard(self)
        self.name = f"process {self._pid} (slot {peer.slots.start})"
        place = Place(peer.id, peer.slots.start, self.conf.vectors, peer.incarnation, self._hosts.peers.memory.nbytes)
        self.queue(greeting.pack_place(place), (self._hosts.peers.memory.descriptor, *peer.doors))
        for other, doors in self._hosts.peers.doors_of_others(peer):
            self.queue_doors(other, doors)
        self.flush()
        log.info("%s: joined as peer %d", self.name, peer.id)

    def refuse(self, refusal: Refused) -> None:
        """Say no, and why."""
        log.warning("%s was refused: %s", self.name, refusal)
        self.queue(greeting.pack_refusal(refusal))
        self.flush()
        self._forget()

    def expel(self, reason: str) -> None:
        """It broke the protocol (D5): it is ended, and its memory moves only when it is dead."""
        log.warning("%s is expelled: %s", self.name, reason)
        self._kill()

    def end(self, number: int) -> None:
        """The server ends and takes this process with it; `_exited` or its LEAVE says when it is gone."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._process.fd, number)

    def _end_of_socket(self) -> None:
        if self.peer is None:
            self._forget()
        elif self._leaving:
            self._buried(layout.STATE_LEFT)
        else:
            self._kill()

    def _kill(self) -> None:
        """Make sure that no store can follow; `_exited` says when."""
        if self._ending or self._process is None:
            return
        self._ending = True
        self.close()
        try:
            signal.pidfd_send_signal(self._process.fd, signal.SIGKILL)
        except ProcessLookupError:
            return  # it has ended by itself
        except PermissionError:
            log.warning("%s: its socket ended without LEAVE, and we may not kill it: its memory is kept until it ends", self.name)

    def _exited(self) -> None:
        """The process has ended. If it left in order, that was said before."""
        self.readable()
        if self.peer is not None:
            self._buried(layout.STATE_LEFT if self._leaving and not self._ending else layout.STATE_DEAD)

    def _buried(self, state: int) -> None:
        peer, self.peer = self.peer, None
        self._forget()
        if peer is not None:
            log.info("%s: %s", self.name, "left" if state == layout.STATE_LEFT else "dead")
            self._hosts.peers.end(peer, state)

    def _forget(self) -> None:
        self.close()
        self._hosts.greeting.discard(self)
        if self._exit is not None:
            self._exit.forget()
        self._process = self._exit = None


def _process_of(sock: socket.socket) -> tuple[int, Descriptor]:
    """Pid and pidfd of who connected this socket. Raises Refused for a process that we could never call dead."""
    pid, _, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if pid == 0:
        raise Refused(REFUSED, "the server cannot see a process of another pid namespace, nor know of its death: run both in one")
    if pid == os.getpid():
        raise Refused(REFUSED, "the server does not join its own region")
    try:
        return pid, Descriptor(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD))
    except OSError:  # an older kernel: the pid might be another process's by now, if this one handed its socket on and ended
        try:
            return pid, Descriptor(os.pidfd_open(pid))
        except OSError as e:
            raise Refused(REFUSED, f"the server cannot watch process {pid}: {e.strerror}") from e


class Hosts:
    """The socket that host processes greet on."""

    def __init__(self, listener: socket.socket, loop: Loop, peers: Peers) -> None:
        self._listener = listener
        self.loop, self.peers, self.conf = loop, peers, peers.conf
        self.greeting: set[HostLink] = set()  # connections that have not greeted yet
        self._watch = loop.watch(listener, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as e:
            log.warning("accept: %s", e.strerror)
            return
        link = HostLink(sock, self)
        self.greeting.add(link)
        if not self.peers.budget.has(0):
            link.refuse(Refused(FULL, NO_DESCRIPTORS))
        self._watch.want(read=len(self.greeting) < self.conf.greetings_max)

    def check_greetings(self, now_s: float) -> None:
        """At every turn: who has not greeted in time goes, and makes room for others."""
        for link in [link for link in self.greeting if now_s > link.deadline_s]:
            link.refuse(Refused(REFUSED, f"expected a whole greeting within {self.conf.greeting_s:g} s, saw less"))
        self._watch.want(read=len(self.greeting) < self.conf.greetings_max)
