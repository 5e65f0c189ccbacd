"""Host processes: the region is a memfd and doorbells are eventfds, all handed over by the server's socket (region/greeting.py).

The socket stays open for life. It brings notices of other peers' doorbells, which the endpoint reads; its end tells the server
that we are gone, and us that the server is.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from nahanni_compute._native import Endpoint
from nahanni_compute.errors import AccessRefused, NoDevice, RegionCorrupt, UsageError
from nahanni_compute.region import greeting
from nahanni_compute.region.greeting import Place, host_socket
from nahanni_compute.region.keys import find_key
from nahanni_compute.substrate.base import Attachment, Mapped, Substrate, map_region
from nahanni_compute.substrate.forks import close_all

ANSWER_S: Final = 10.0
_TIMEVAL: Final = struct.Struct("@ll")


class UnixSubstrate(Substrate):
    """`path` is the socket that speaks QEMU's protocol; its twin for host processes lies beside it."""

    def __init__(self, path: Path, key_file: str | os.PathLike[str] | None) -> None:
        super().__init__(f"unix:{path}", key_file)
        self._path = host_socket(path.absolute())

    def _attach(self, role: int) -> UnixAttachment:
        resources: ExitStack[None] = ExitStack()
        with resources:
            with _connect(self._path) as sock:
                key = find_key(self.name, self._key_file)
                place, (memory, *doors) = _greet(sock, role, self.name, resources)
                ours = _Socket(sock)
            resources.callback(ours.close)
            region = map_region(self.name, memory, place.region_bytes, key, resources)
            endpoint = Endpoint(region.region, place.slot, place.incarnation)
            resources.callback(endpoint.close)
            endpoint.set_bell(doors[0], 8)
            for vector, door in enumerate(doors):
                endpoint.add_door(place.peer, vector, door)
            endpoint.set_notices(ours.fd)
            return UnixAttachment(region, endpoint, place.peer << 16, (ours, [memory, *doors]), resources.pop_all())


class _Socket:
    """The server's, after the greeting. A bare number: an object would be closed when nobody holds it, and we be killed for that."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.fd = sock.detach()
        self._left = False

    def leave(self) -> None:
        """The last byte that we send, once."""
        if not self._left:
            self._left = True
            with contextlib.suppress(OSError):  # the server is gone
                os.write(self.fd, greeting.LEAVE)

    def close(self) -> None:
        """In order, also when we could not attach after all."""
        self.leave()
        os.close(self.fd)


class UnixAttachment(Attachment):
    """A host process's."""

    def __init__(self, region: Mapped, endpoint: Endpoint, bell: int, ours: tuple[_Socket, list[int]], resources: ExitStack[None]) -> None:
        super().__init__(region, endpoint, bell, resources)
        self._socket, self._received = ours

    def prove_deaths(self) -> list[int]:
        """The server watches every host process by a pidfd."""
        return []

    def leave(self) -> None:
        """LEAVE."""
        self._socket.leave()

    def _descriptors(self) -> list[int]:
        return [self._socket.fd, *self._received]


def _connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Not settimeout: the connect of such a socket does not wait while the server's queue is full, it fails.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(ANSWER_S), 0))
    try:
        sock.connect(os.fspath(path))
        sock.settimeout(ANSWER_S)
    except BlockingIOError as e:
        sock.close()
        raise NoDevice(f"expected the server at {path} to take connections within {ANSWER_S:g} s, saw a full queue: is it stopped?") from e
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as e:
        sock.close()
        raise NoDevice(f"expected a server at {path}, saw {e.strerror}: start `nahanni server`, or correct the address") from e
    except PermissionError as e:
        sock.close()
        raise AccessRefused(
            f"expected to connect to {path}, saw {e.strerror}: run as the user of its server, or give that one --group and join the group"
        ) from e
    except OSError as e:
        sock.close()
        raise UsageError(f"expected the path of a socket, saw {path}: {e.strerror or e}") from e
    return sock


def _greet(sock: socket.socket, role: int, name: str, resources: ExitStack[None]) -> tuple[Place, list[int]]:
    """Our place, and descriptors: the region's, then our doorbells'."""
    try:
        sock.sendall(greeting.pack_greeting(role))
        answer, descriptors = greeting.receive_with(sock, greeting.ANSWER.size)
        resources.callback(close_all, descriptors)
        if len(answer) < greeting.ANSWER.size:
            raise NoDevice(f"expected an answer to our greeting from {name}, saw its end: see what the server prints")
        text, _ = greeting.receive_with(sock, greeting.text_bytes(answer))
    except (TimeoutError, BrokenPipeError, ConnectionResetError) as e:
        raise NoDevice(f"expected an answer to our greeting from {name} within {ANSWER_S:g} s, saw none: is the server stopped?") from e
    place = greeting.read_answer(answer, text)
    if len(descriptors) != 1 + place.vectors or os.fstat(descriptors[0]).st_size != place.region_bytes:
        seen = f"saw {len(descriptors)} descriptors: is our limit (ulimit -n) too low?"
        raise RegionCorrupt(f"expected the region and {place.vectors} doorbells from {name}, {seen}")
    return place, descriptors
