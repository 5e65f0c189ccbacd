"""A host process that speaks QEMU's side of the ivshmem protocol: to ring guests, and to be rung by them, by driver alone."""

from __future__ import annotations

import mmap
import os
import select
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

ANSWER_S = 20.0
VERSION, REGION = 0, -1
PAGE = 4096


class QemuPeer:
    """Joined as if it were a VM; `id` is its own."""

    def __init__(self, path: Path, vectors: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_S)
        self._socket.connect(str(path))
        self._descriptors: list[int] = []
        self.doors: dict[int, list[int]] = {}
        assert self._message() == (VERSION, None)
        self.id, _ = self._message()
        marker, memfd = self._message()
        assert marker == REGION and memfd is not None
        self._region = mmap.mmap(memfd, 0)
        # The last page of the heap: nobody's, as long as there is no scheduler.
        self.words = memoryview(self._region)[-PAGE:].cast("Q")
        while len(self.doors.get(self.id, ())) < vectors:  # its own come last
            self._take_door()

    def ring(self, peer: int, vector: int = 0) -> None:
        """What the doorbell register does in a VM."""
        os.eventfd_write(self.doors[peer][vector], 1)

    def wait(self, timeout_s: float) -> int:
        """How often it was rung, 0 if not in time."""
        door = self.doors[self.id][0]
        return os.eventfd_read(door) if select.select([door], [], [], timeout_s)[0] else 0

    def _take_door(self) -> None:
        peer, door = self._message()
        assert door is not None
        self.doors.setdefault(peer, []).append(door)

    def _message(self) -> tuple[int, int | None]:
        data, descriptors, _, _ = socket.recv_fds(self._socket, 8, 1)
        assert len(data) == 8
        self._descriptors += descriptors
        return struct.unpack("<q", data)[0], descriptors[0] if descriptors else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for word in range(len(self.words)):
            self.words[word] = 0
        self.words.release()
        self._region.close()
        self._socket.close()
        for fd in self._descriptors:
            os.close(fd)
